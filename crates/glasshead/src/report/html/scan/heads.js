// Part 2: the heads of all layers, as a grid that is coloured and a table that is sorted by one number.

"use strict";

const MANY_HEADS = 200; // rows of the table of heads, until all are asked for
const WITH_NUMBERS = 16; // columns of the grid, up to which a cell has room for its number

const twoDigits = (x) => number(x, 2);
/** What a head can be coloured and sorted by: its number at a place, or null where it was not read. */
const MEASURES = [
  { key: "passage", label: "passage", long: "share of the passage", write: percent, name: "segments",
    of: () => (group().segments && state.passage !== null ? (at) => passageShare(state.passage, at) : null) },
  { key: "entropy", label: "entropy", long: "entropy in nats: low is sharp, high is spread out", write: twoDigits, unit: "nats", name: "entropy",
    of: () => numbers("entropy") },
  { key: "first", label: "first token", long: "share of the first token", write: percent, name: "first_weight",
    of: () => group().first && ((at) => group().first[at]) },
  { key: "largest", label: "largest weight", long: "largest weight of a query", write: percent, name: "max_weight",
    of: () => numbers("max_weight") },
  { key: "distance", label: "distance", long: "distance from query to key in tokens", write: (x) => number(x, 1), unit: "tokens", name: "distance",
    of: () => numbers("distance") },
  { key: "sink", label: "sink", long: "share of the sink that is no token", write: percent, name: "sink_weight",
    of: () => numbers("sink_weight") },
  { key: "previous", label: "token before", long: "share of the token before the query’s own", write: percent, name: "previous",
    of: () => numbers("previous") },
  { key: "self", label: "itself", long: "share of the query’s own token", write: percent, name: "self",
    of: () => numbers("self") },
  { key: "induction", label: "induction", long: "share of the token behind the query’s last occurrence before", write: percent, name: "induction",
    of: () => numbers("induction") },
];

function numbers(name) {
  const values = group().numbers[name];
  return values ? (at) => values[at] : null;
}

const measures = () => MEASURES.filter((measure) => measure.of());
const measure = () => measures().find(({ key }) => key === state.measure) ?? measures()[0] ?? null;

const allHeads = Array.from({ length: headCount }, (_, at) =>
  ({ at, layer: Math.floor(at / heads.length), head: at % heads.length }));

function drawMeasures() {
  state.measure = measure()?.key ?? null;
  buildChoices("measures", measures().map(({ key, label }) => [key, label]), state.measure, (key) => {
    state.measure = key;
    state.sort = null;
    drawHeads();
  });
  byId("measures").hidden = byId("views").hidden = measures().length === 0;
}

function drawHeads() {
  const frame = byId("heads");
  const chosen = measure();
  byId("passage-pick").hidden = chosen?.key !== "passage";
  byId("no-heads").hidden = MEASURES.every(({ name }) => !data.missing.some(([lacks]) => lacks === name));
  if (!byId("no-heads").hidden) {
    sayMissing("no-heads", chosen ? "Not everything that heads can be compared by was read" : "Nothing that heads can be compared by was read",
      MEASURES.map(({ name }) => name));
  }
  if (!chosen) {
    frame.replaceChildren();
    byId("heads-line").textContent = "";
    return;
  }
  frame.classList.toggle("tall", state.view === "table");
  if (state.view === "grid") drawGrid(frame, chosen);
  else drawHeadTable(frame);
  sayHead(place());
}

function range(of) {
  let [low, high] = [Infinity, -Infinity];
  for (const { at } of allHeads) {
    const x = of(at);
    if (Number.isNaN(x)) continue;
    low = Math.min(low, x);
    high = Math.max(high, x);
  }
  return { low, span: high - low };
}

function drawGrid(frame, chosen) {
  const of = chosen.of();
  const { low, span } = range(of);
  const dense = heads.length > WITH_NUMBERS;
  // one head with nearly all of it would leave no colour for the others
  const heat = chosen.write === percent ? Math.sqrt : (x) => x;
  const cell = ({ at, layer, head }) => {
    const x = of(at);
    const is = at === place();
    return el("td", {
      role: "gridcell", tabindex: is ? 0 : -1, "data-head": at,
      class: is ? "cell chosen" : "cell", "aria-selected": String(is),
      "--heat": span > 0 && !Number.isNaN(x) ? heat((x - low) / span).toFixed(3) : 0,
      "aria-label": `${headName(layer, head)}: ${chosen.write(x)}`,
    }, dense ? null : chosen.write(x));
  };
  const rows = layers.map((_, layer) => allHeads.slice(layer * heads.length, (layer + 1) * heads.length));
  const ends = span >= 0 ? `from ${chosen.write(low)} (pale) to ${chosen.write(low + span)} (full colour${chosen.write === percent ? ", by square root" : ""})` : "";
  replaceTable(frame, el("table", { role: "grid", class: dense ? "grid dense" : "grid" },
    el("caption", {}, el("span", {}, `Mean ${chosen.long}, over ${group().name}: ${ends}`)),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "layer ↓ head →"), heads.map((head) => el("th", { scope: "col" }, String(head))))),
    el("tbody", {}, rows.map((row, layer) => el("tr", {}, el("th", { scope: "row" }, String(layers[layer])), row.map(cell))))));
  frame.querySelector(".more")?.remove();
}

function drawHeadTable(frame) {
  state.sort ??= { key: state.measure, down: state.measure !== "entropy" };
  const known = measures();
  const by = known.find(({ key }) => key === state.sort.key)?.of();
  const sign = state.sort.down ? -1 : 1;
  const rows = [...allHeads];
  if (by) rows.sort((a, b) => sign * (by(a.at) - by(b.at)) || a.at - b.at);
  else if (state.sort.down) rows.reverse();
  const shown = state.allHeadRows ? rows : rows.slice(0, MANY_HEADS);
  const sorter = (key, label) => el("button", { type: "button", "data-sort": key },
    label, state.sort.key === key ? (state.sort.down ? " ↓" : " ↑") : "");
  replaceTable(frame, buildTable({
    caption: `Means over ${group().name}. A click on a heading sorts, a click on a head shows it below.`,
    columns: [
      { key: "head", label: sorter("head", "head"), of: ({ at, layer, head }) =>
        el("button", { type: "button", class: "link", "data-head": at, "aria-pressed": String(at === place()) }, headName(layer, head)) },
      ...known.map(({ key, label, write, of }) => ({ key, label: sorter(key, label), kind: "number", of: ({ at }) => write(of()(at)) })),
    ],
    rows: shown,
    rowAttributes: ({ at }) => ({ class: at === place() ? "chosen" : null }),
  }));
  frame.querySelectorAll("thead th").forEach((head) => {
    const is = head.querySelector("button").dataset.sort === state.sort.key;
    head.classList.toggle("sorted-by", is);
    if (is) head.setAttribute("aria-sort", state.sort.down ? "descending" : "ascending");
  });
  frame.querySelector(".more")?.remove();
  if (shown.length === rows.length) return;
  const more = el("button", { type: "button", class: "quiet more" }, `Show all ${rows.length} heads`);
  more.addEventListener("click", () => {
    state.allHeadRows = true;
    drawHeads();
  });
  frame.append(more);
}

function headSentence(at) {
  const known = measures().map(({ label, write, unit, of }) => `${label} ${write(of()(at))}${unit ? ` ${unit}` : ""}`);
  return known.join(" · ");
}

function sayHead(at) {
  const { layer, head } = allHeads[at];
  byId("heads-line").replaceChildren(el("b", {}, `${headName(layer, head)}: `), headSentence(at));
}

function chooseHead(at, focus = false) {
  ({ layer: state.layer, head: state.head } = allHeads[at]);
  // A page inside another one, as in a notebook, has no address of its own.
  if (location.protocol !== "about:") history.replaceState(null, "", `#layer=${layers[state.layer]}&head=${heads[state.head]}`);
  drawHeads();
  if (focus) byId("heads").querySelector(`[data-head="${at}"]`)?.focus({ preventScroll: true });
  drawScopes();
  if (state.scope !== "all") drawShares();
  drawHead();
  say(`${headName()}: ${headSentence(at)}`);
}

function watchHeads() {
  const frame = byId("heads");
  const headOf = (event) => {
    const node = event.target.closest?.("[data-head]");
    return node ? Number(node.dataset.head) : null;
  };
  frame.addEventListener("click", (event) => {
    const key = event.target.closest("[data-sort]")?.dataset.sort;
    if (key) {
      state.sort = { key, down: state.sort.key === key ? !state.sort.down : key !== "entropy" && key !== "head" };
      drawHeads();
      frame.querySelector(`[data-sort="${key}"]`).focus();
      return;
    }
    const at = headOf(event);
    if (at !== null) chooseHead(at, true);
  });
  rovingGrid(frame, ".cell"); // before a choice draws the grid anew
  frame.addEventListener("keydown", (event) => {
    if (event.target.matches(".cell") && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      chooseHead(headOf(event), true);
    }
  });
  for (const kind of ["mouseover", "focusin"]) {
    frame.addEventListener(kind, (event) => {
      const at = headOf(event);
      if (at !== null) sayHead(at);
    });
  }
  frame.addEventListener("mouseleave", () => measure() && sayHead(place()));
  byId("passage").append(...segments.map((segment, s) => el("option", { value: s }, cutText(`${s + 1}. ${segment.label}`, 60))));
  byId("passage").addEventListener("change", () => choosePassage(Number(byId("passage").value), false));
  buildChoices("views", [["grid", "grid"], ["table", "table"]], state.view, (view) => {
    state.view = view;
    drawHeads();
  });
}

/** The head to begin with: the one that gave most to the heaviest passage; without passages the sharpest one
 *  that does not rest on the first token. */
function firstHead() {
  const one = group();
  const most = (places, of) => places.reduce((best, at) => (of(at) > of(best) ? at : best), places[0] ?? 0);
  const places = allHeads.map(({ at }) => at);
  if (state.passage !== null) return most(places, (at) => passageShare(state.passage, at));
  const sharp = one.numbers.entropy;
  if (!sharp) return 0;
  return most(places.filter((at) => !(one.first?.[at] > 0.3) && !Number.isNaN(sharp[at])), (at) => -sharp[at]);
}
