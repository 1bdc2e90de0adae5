// Part 1, right: the text, shaded. It stands there as plain text at once; a piece of it becomes tokens with
// their shading when it comes near the window.

"use strict";

const CHUNK = 128; // tokens that become elements together
const chunks = []; // { node, from, to, built }
const options = new Map(); // token → element, of those that are built
let order = null; // tokens by weight, heaviest first
let full = 1; // the share that is fully coloured

/** The pieces of a token on the page: what stands before it, and its own text. Tokens that share a letter with
 *  the one before show a dot. */
function pieces(t, cursor) {
  if (names.has(t)) return { gap: "", text: names.get(t), named: true, cursor };
  const start = Math.max(cursor, tokens.start[t]);
  return {
    gap: data.text.slice(cursor, start),
    text: data.text.slice(start, tokens.end[t]) || "·",
    named: false,
    cursor: Math.max(cursor, tokens.end[t]),
  };
}

function buildText() {
  const box = byId("text");
  let cursor = 0;
  for (let from = 0; from < count; from += CHUNK) {
    const to = Math.min(count, from + CHUNK);
    const begin = cursor;
    let plain = "";
    for (let t = from; t < to; t++) {
      const piece = pieces(t, cursor);
      plain += piece.gap + (piece.named ? ` ${piece.text} ` : piece.text);
      cursor = piece.cursor;
    }
    const node = el("span", { role: "presentation", "data-chunk": chunks.length }, plain);
    chunks.push({ node, from, to, begin, built: false });
    box.append(node);
  }
  box.append(data.text.slice(cursor));
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      buildChunk(chunks[Number(entry.target.dataset.chunk)]);
      near.unobserve(entry.target);
    }
  }, { root: box, rootMargin: "600px" });
  for (const { node } of chunks) near.observe(node);
  buildChunk(chunks[0]);
  watchText(box);
}

function buildChunk(chunk) {
  if (!chunk || chunk.built) return;
  chunk.built = true;
  const nodes = [];
  let cursor = chunk.begin;
  for (let t = chunk.from; t < chunk.to; t++) {
    const piece = pieces(t, cursor);
    cursor = piece.cursor;
    const around = tokens.role[t] !== "text";
    const option = el("span", {
      role: "option", "data-token": t, tabindex: -1, "aria-selected": "false",
      class: piece.named ? "token named" : around ? "token around" : "token",
    }, piece.named ? visibleText(piece.text) : piece.text);
    options.set(t, option);
    nodes.push(piece.gap, option, piece.named ? " " : "");
  }
  chunk.node.replaceChildren(...nodes);
  shade(chunk);
  markTokens(chunk);
}

function shade(chunk) {
  for (let t = chunk.from; t < chunk.to; t++) {
    options.get(t).style.setProperty("--heat", seen?.tokens ? Math.sqrt(Math.min(1, seen.tokens[t] / full)).toFixed(2) : 0);
  }
}

/** Selection, Tab stop and the chosen passage. */
function markTokens(chunk) {
  const stop = state.token ?? 0;
  const passage = state.passage === null ? null : segments[state.passage];
  for (let t = chunk.from; t < chunk.to; t++) {
    const option = options.get(t);
    option.setAttribute("aria-selected", String(t === state.token));
    option.tabIndex = t === stop ? 0 : -1;
    option.classList.toggle("in-passage", passage !== null && inPassage(t, passage));
  }
}

const builtChunks = () => chunks.filter(({ built }) => built);

function drawText() {
  byId("no-text").hidden = seen.tokens !== null;
  byId("heavier").disabled = byId("lighter").disabled = seen.tokens === null;
  order = null;
  if (seen.tokens === null) {
    const what = group().queries === null ? ["received"] : ["rows"];
    sayMissing("no-text", `The shares of single tokens were not read for ${group().name}`, what);
    byId("text-scale").textContent = "";
  } else {
    // the first token and marks like [SEP] often take so much that nothing else would show
    let largest = 0;
    for (let t = 1; t < count; t++) if (tokens.role[t] !== "special") largest = Math.max(largest, seen.tokens[t]);
    full = largest || Math.max(...seen.tokens) || 1;
    const ramp = el("span", { class: "ramp", "aria-hidden": "true", style: "background: linear-gradient(90deg, transparent, color-mix(in srgb, var(--share) 46%, transparent))" });
    byId("text-scale").replaceChildren("0", ramp, `${aboutPercent(full)} and more; colour by square root`);
  }
  builtChunks().forEach(shade);
  sayToken(state.token ?? heaviestToken());
}

function sorted() {
  order ??= Array.from({ length: count }, (_, t) => t).sort((a, b) => seen.tokens[b] - seen.tokens[a] || a - b);
  return order;
}

function heaviestToken() {
  if (!seen.tokens) return 0;
  let best = Math.min(1, count - 1); // the first one is told apart
  for (let t = 1; t < count; t++) if (seen.tokens[t] > seen.tokens[best]) best = t;
  return best;
}

function tokenSentence(t) {
  if (!seen.tokens) return `token ${t}`;
  return `token ${t}, ${aboutPercent(seen.tokens[t])} of the weight, place ${sorted().indexOf(t) + 1} of ${count}`;
}

function sayToken(t) {
  byId("token-line").replaceChildren(el("b", {}, tokenName(t)), ` ${tokenSentence(t)}`);
}

function chooseToken(t, focus) {
  const before = state.token;
  state.token = t;
  buildChunk(chunks[Math.floor(t / CHUNK)]);
  for (const other of [before ?? 0, t]) {
    const chunk = chunks[Math.floor(other / CHUNK)];
    if (chunk.built) markTokens(chunk);
  }
  const option = options.get(t);
  option.setAttribute("aria-label", `${tokenText(t).trim() || "blank"}, ${tokenSentence(t)}`);
  if (focus) option.focus({ preventScroll: true });
  scrollInto(byId("text"), option);
  sayToken(t);
  chooseQueryNear(t);
}

/** Scrolls the box alone, never the page. */
function scrollInto(box, node) {
  const top = node.getBoundingClientRect().top - box.getBoundingClientRect().top;
  if (top < 0 || top > box.clientHeight - 30) box.scrollTop += top - box.clientHeight / 3;
}

function markPassage(scroll) {
  builtChunks().forEach(markTokens);
  if (!scroll || state.passage === null) return;
  const t = tokens.start.findIndex((_, i) => inPassage(i, segments[state.passage]));
  if (t < 0) return;
  buildChunk(chunks[Math.floor(t / CHUNK)]);
  const box = byId("text");
  box.scrollTop += options.get(t).getBoundingClientRect().top - box.getBoundingClientRect().top - 40;
}

function watchText(box) {
  const tokenOf = (event) => {
    const node = event.target.closest?.("[data-token]");
    return node ? Number(node.dataset.token) : null;
  };
  box.addEventListener("mouseover", (event) => {
    const t = tokenOf(event);
    if (t !== null) sayToken(t);
  });
  box.addEventListener("mouseleave", () => sayToken(state.token ?? heaviestToken()));
  box.addEventListener("click", (event) => {
    const t = tokenOf(event);
    if (t !== null) chooseToken(t, true);
  });
  box.addEventListener("focusin", (event) => {
    const t = tokenOf(event);
    if (t !== null) sayToken(t);
  });
  box.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const t = tokenOf(event);
    if (t === null) return;
    const forward = getComputedStyle(box).direction === "rtl" ? -1 : 1;
    const otherLine = (direction) => {
      // lines are found among elements: those of the neighbours must be there
      const at = Math.floor(t / CHUNK);
      for (const beside of [at - 1, at + 1]) buildChunk(chunks[beside]);
      const from = Math.max(0, t - CHUNK);
      const near = [];
      for (let i = from; i <= Math.min(count - 1, t + CHUNK) && options.has(i); i++) near.push(options.get(i));
      const here = near.indexOf(options.get(t));
      return here < 0 ? t : from + onOtherLine(near, here, direction);
    };
    const target = {
      ArrowRight: () => t + forward,
      ArrowLeft: () => t - forward,
      ArrowDown: () => otherLine(1),
      ArrowUp: () => otherLine(-1),
      Home: () => 0,
      End: () => count - 1,
      Enter: () => t,
      " ": () => t,
    }[event.key]?.();
    if (target === undefined) return;
    event.preventDefault();
    chooseToken(Math.max(0, Math.min(count - 1, target)), true);
  });
  const step = (by) => {
    const at = state.token === null ? (by > 0 ? -1 : 1) : sorted().indexOf(state.token);
    const t = sorted()[Math.max(0, Math.min(count - 1, at + by))];
    chooseToken(t, false);
    say(`${tokenText(t).trim()}, ${tokenSentence(t)}`);
  };
  byId("heavier").addEventListener("click", () => step(-1));
  byId("lighter").addEventListener("click", () => step(1));
}
