// The page of `glasshead explain --format html`: one text, one focus word, four steps. The files
// stand in one script in this order: attention.js, parts.js, state.js, sentence.js, steps.js, page.js.

"use strict";

// ── the controls ──────────────────────────────────────────────────────────────────────────────

function setFocus(u, moveKeyboard = false) {
  const changed = u !== state.focus;
  state.focus = u;
  state.peek = null;
  if (changed) {
    history.replaceState(null, "", `#focus=${u}`);
    draw();
  }
  if (moveKeyboard) options[u].focus({ preventScroll: false });
}

function focusFromHash() {
  const match = /^#focus=(\d+)$/.exec(location.hash);
  const u = match ? Number(match[1]) : data.focus;
  return u < units.length ? u : data.focus;
}

function buildTemperature() {
  const slider = byId("temperature");
  const start = Math.log10(data.temperature);
  slider.min = Math.min(-1, Math.floor(start));
  slider.max = Math.max(1, Math.ceil(start));
  const redraw = oncePerFrame(draw);
  slider.addEventListener("input", () => {
    // three digits, so that the learner divides by the number that is shown
    state.temperature = Number((10 ** Number(slider.value)).toPrecision(3));
    redraw();
  });
  byId("temperature-reset").addEventListener("click", () => {
    state.temperature = data.temperature;
    draw();
  });
}

function drawTemperature() {
  const slider = byId("temperature");
  const text = shortNumber(state.temperature);
  if (Math.abs(10 ** Number(slider.value) / state.temperature - 1) > 0.02) slider.value = Math.log10(state.temperature);
  slider.setAttribute("aria-valuetext", text);
  byId("temperature-value").textContent = text;
  byId("temperature-reset").disabled = state.temperature === data.temperature;
}

/** Which vectors step 1 shows; own vectors are all there is, a model has four kinds. */
function buildMatrixChoice() {
  if (ownVectors) return;
  const group = byId("matrix");
  group.hidden = false;
  const dim = data.k[0]?.length ?? 0;
  const kinds = [
    ["encoding", "Encoding", data.encoding_dim],
    ["q", "Query q", dim],
    ["k", "Key k", dim],
    ["v", "Value v", data.v[0]?.length ?? 0],
  ];
  for (const [kind, label, size] of kinds) {
    const input = el("input", { type: "radio", name: "matrix", value: kind, id: `matrix-${kind}`, checked: kind === state.matrix });
    input.addEventListener("change", () => {
      state.matrix = kind;
      drawEncode();
      markPeek();
    });
    group.append(el("label", {}, input, el("span", {}, label, el("span", { class: "shape" }, ` [${data.pieces.length} × ${size}]`))));
  }
}

function watchPeek() {
  const unitOf = (event) => {
    const node = event.target.closest?.("[data-unit]");
    return node ? Number(node.dataset.unit) : null;
  };
  document.addEventListener("mouseover", (event) => setPeek(unitOf(event)));
  // a word at the head of a table's row becomes the focus by a click; by keyboard the sentence does it
  document.querySelector("main").addEventListener("click", (event) => {
    const head = event.target.closest(".frame tbody th");
    if (head && unitOf(event) !== null) setFocus(unitOf(event));
  });
  byId("way").addEventListener("click", (event) => {
    const link = event.target.closest("[data-step]");
    if (!link) return;
    event.preventDefault(); // the address keeps the focus word, not the step
    const title = byId(`step-${link.dataset.step}-title`);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    title.closest("section").scrollIntoView({ behavior: still ? "instant" : "smooth" });
    title.focus({ preventScroll: true });
  });
}

// ── what never changes ────────────────────────────────────────────────────────────────────────

function buildProse() {
  const says = { 1: "encode", 3: "softmax", 4: "values" };
  for (const [step, key] of Object.entries(says)) {
    byId(`step-${step}`).querySelector(".says").textContent = data.steps[key] ?? "";
  }
  byId("step-1").classList.toggle("wide", data.encoding_dim > 3);
  byId("influence-note").textContent = data.steps.influence ?? "";
}

function sourceText() {
  const { kind, model, layer, layers, head, heads } = data.source;
  if (kind === "example") return "worked example quick-brown-fox";
  if (kind === "vectors") return "own vectors";
  const part = (name, index, count) =>
    (index === null || index === undefined ? null : `${name} ${index}${count ? ` (of 0–${count - 1})` : ""}`);
  return [model, part("layer", layer, layers), part("head", head, heads)].filter(Boolean).join(" · ");
}

function buildFoot() {
  byId("source").textContent = sourceText();
  buildRecipe(data.recipe, data.notes);
}

// ── the recipe of what is seen now ────────────────────────────────────────────────────────────

function drawRecipe() {
  const asMade = state.focus === data.focus && state.temperature === data.temperature;
  const now = new Map(data.recipe);
  if (!asMade) {
    now.set("scale", row.given ? "none: the scores are given" : String(data.scale));
    now.set("temperature", String(state.temperature));
    if (data.remake) now.set("command", commandNow());
  }
  for (const name of ["scale", "temperature", "command"]) {
    const place = byId("recipe").querySelector(`[data-row="${name}"]`);
    (place.querySelector("code") ?? place).textContent = now.get(name);
  }
  byId("notes-title").textContent = asMade ? "Notes" : "Notes on the page as it was made";
}

/** The command of another focus or temperature. A word goes by its place, which is never ambiguous. */
function commandNow() {
  const { start, head, focus, scale, rest } = data.remake;
  return [
    start, head,
    state.focus === data.focus ? focus : `--focus ${state.focus}`,
    row.given ? "" : scale,
    state.temperature === 1 ? "" : `--temperature ${state.temperature}`,
    rest, // last: it may hold a "--", after which nothing is a flag
  ].filter(Boolean).join(" ");
}

// ── drawing ───────────────────────────────────────────────────────────────────────────────────

function draw() {
  row = attendFrom(data, state.focus, state.temperature);
  drawTemperature();
  drawSentence();
  drawSummary();
  drawWay();
  drawEncode();
  const given = scoresAreGiven(data, state.focus);
  byId("step-2").querySelector(".says").textContent = (given ? data.steps.score_given : data.steps.score) ?? "";
  drawScore();
  drawSoftmax();
  drawValuesWhenStill();
  drawRecipe();
  markPeek();
  markScrolling();
}

const HEAVY = 5000; // numbers; a table of them takes longer than a frame
let valuesTimer = 0;

/** Step 4 at once, or, with all rows and columns of a long text shown, when the slider rests. */
function drawValuesWhenStill() {
  clearTimeout(valuesTimer);
  const rows = state.allRows.has("step-4-table") ? units.length : HEAVIEST_ROWS;
  const columns = state.allColumns ? row.output.length : FIRST_COLUMNS;
  if (rows * columns < HEAVY) drawValues();
  else valuesTimer = setTimeout(drawValues, 200);
}

/** The arcs follow the words when the window is resized; only the width matters to them. */
function watchWidth() {
  let width = byId("stage").clientWidth;
  const redraw = oncePerFrame(() => {
    fitSentence();
    drawSentence();
    markScrolling();
  });
  new ResizeObserver(() => {
    if (byId("stage").clientWidth === width) return;
    width = byId("stage").clientWidth;
    redraw();
  }).observe(byId("stage"));
}

function start() {
  buildProse();
  buildSentence();
  buildTemperature();
  buildMatrixChoice();
  buildFoot();
  watchTrace();
  watchPeek();
  byId("pieces").addEventListener("toggle", () => byId("pieces").open && drawPieces());
  byId("columns").addEventListener("click", () => {
    state.allColumns = !state.allColumns;
    drawValues();
    markScrolling();
  });
  addEventListener("hashchange", () => setFocus(focusFromHash()));
  state.focus = focusFromHash();
  draw();
  fitSentence(); // after the first drawing: the percentages take their room too
  drawSentence();
  watchWidth();
  document.documentElement.dataset.ready = "true";
}

start();
