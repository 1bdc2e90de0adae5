// The upper part of the page: the text with its shares, the summary, and the way of one number.

"use strict";

// ── the sentence ──────────────────────────────────────────────────────────────────────────────

/** What stands between two units in the text: start and end are byte offsets. */
function gapBefore(bytes, u) {
  const unit = units[u];
  if (u === 0 || unit.special || units[u - 1].special) return u === 0 ? "" : " ";
  return new TextDecoder().decode(bytes.slice(units[u - 1].end, unit.start));
}

const options = [];
const GLUED = 24; // letters; words without a gap between them stay on one line up to here

function buildSentence() {
  const sentence = byId("sentence");
  const bytes = new TextEncoder().encode(data.text);
  const size = data.text.length <= 180 ? "large" : data.text.length <= 500 ? "small" : "dense";
  sentence.classList.add(size);
  let line = null; // keeps « naïve » together
  let letters = 0;
  units.forEach((unit, u) => {
    const gap = gapBefore(bytes, u);
    letters += unit.text.length;
    if (!line || gap || letters > GLUED) {
      const breaks = Math.min(2, gap.split("\n").length - 1);
      for (let i = 0; i < breaks; i++) sentence.append(el("br"));
      if (gap && !breaks) sentence.append(el("span", { class: "gap", "aria-hidden": "true" }, gap));
      line = el("span", { class: "glued", role: "presentation" });
      letters = unit.text.length;
      sentence.append(line);
    }
    const option = el("span", {
      role: "option",
      id: `unit-${u}`,
      "data-unit": u,
      tabindex: -1,
      class: unit.special ? "unit special" : "unit",
    },
    el("span", { class: "word" }, visibleText(unit.text)),
    el("span", { class: "drop", "aria-hidden": "true" }, el("i")),
    el("span", { class: "percent" }));
    options.push(option);
    line.append(option);
  });
  rovingList(sentence, options, setFocus);
}

const LARGEST = 47; // pixels of type
const SMALLEST_ON_ONE_LINE = 28;

/** A short sentence is set as large as one line allows; a longer one wraps. */
function fitSentence() {
  const sentence = byId("sentence");
  if (!sentence.classList.contains("large")) return;
  sentence.classList.add("measuring");
  const style = getComputedStyle(sentence);
  const room = sentence.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  let size = LARGEST;
  let fits = false;
  // the percentages don't shrink with the type, so one proportion may not be enough
  for (let attempt = 0; attempt < 6 && !fits && size >= SMALLEST_ON_ONE_LINE; attempt++) {
    sentence.style.fontSize = `${size}px`;
    const wide = options.at(-1).getBoundingClientRect().right - options[0].getBoundingClientRect().left;
    fits = Math.abs(wide) <= room;
    if (!fits) size = Math.floor((size * room) / Math.abs(wide) - 0.5);
  }
  sentence.classList.remove("measuring");
  if (!fits) sentence.style.fontSize = "";
}

function drawSentence() {
  const largest = Math.max(...row.weights);
  const full = fullBar(largest);
  const showsPercent = byId("sentence").classList.contains("large");
  options.forEach((option, u) => {
    const share = row.weights[u];
    option.setAttribute("aria-selected", String(isFocus(u)));
    option.tabIndex = isFocus(u) ? 0 : -1;
    option.classList.toggle("is-focus", isFocus(u));
    option.classList.toggle("masked", row.scores[u] === null);
    option.style.setProperty("--drop", `${(100 * share) / full}%`);
    option.style.setProperty("--heat", largest > 0 ? (share / largest).toFixed(3) : 0);
    const label = row.scores[u] === null ? "masked" : percent(share);
    if (showsPercent) option.lastChild.textContent = label;
    else option.setAttribute("aria-label", `${units[u].text}, ${label}`);
  });
  byId("bar-scale").textContent = `A full bar is ${shortNumber(full * 100)}\u202f%. Choose another word by click or arrow keys.`;
  drawArcs(full);
}

/** Arcs from the focus word to where it looks; only while the text stands on one line. */
function drawArcs(full) {
  const arcs = byId("arcs");
  const stage = byId("stage");
  const sentence = byId("sentence");
  arcs.replaceChildren();
  const oneLine = options.length <= 40 && options.every((option) => Math.abs(option.offsetTop - options[0].offsetTop) < 4)
    && sentence.scrollHeight <= sentence.clientHeight + 1;
  stage.classList.toggle("with-arcs", oneLine);
  if (!oneLine) return;
  const frame = arcs.getBoundingClientRect();
  const tops = options.map((option) => {
    const box = option.firstChild.getBoundingClientRect();
    return box.left + box.width / 2 - frame.left;
  });
  const foot = frame.height;
  const from = tops[state.focus];
  const farthest = Math.max(...tops.map((x) => Math.abs(x - from)));
  row.weights.forEach((share, u) => {
    if (share <= 0) return;
    const to = tops[u];
    const rise = isFocus(u) ? foot * 0.62 : foot * (0.42 + 0.9 * (Math.abs(to - from) / (farthest || 1)));
    const aside = isFocus(u) ? 26 : 0; // the focus word looks at itself in a loop
    arcs.append(svg("path", {
      d: `M${from} ${foot}C${from - aside} ${foot - rise} ${to + aside} ${foot - rise} ${to} ${foot}`,
      "data-unit": u,
      "stroke-width": (0.75 + (9 * share) / full).toFixed(2),
      "stroke-opacity": (0.2 + (0.6 * share) / full).toFixed(3),
    }));
  });
}

/** "most weight on fox and itself, 16.6 % each" */
function summaryText() {
  const largest = Math.max(...row.weights);
  if (!(largest > 0)) return "sees no word at all: everything is masked";
  const first = row.weights.map((_, u) => u).filter((u) => largest - row.weights[u] < 1e-12);
  const names = first.map((u) => (isFocus(u) ? "itself" : nameOf(u)));
  if (first.length === units.length && first.length > 1) return `the same weight on all ${first.length} words, ${percent(largest)} each`;
  if (first.length > 3) return `most weight on ${first.length} words, ${percent(largest)} each`;
  if (first.length === 1) return `most weight on ${names[0]}, ${percent(largest)}`;
  return `most weight on ${names.slice(0, -1).join(", ")} and ${names.at(-1)}, ${percent(largest)} each`;
}

function drawSummary() {
  for (const node of document.querySelectorAll(".focus-name")) node.textContent = shortText(state.focus);
  const changed = state.temperature !== data.temperature;
  const text = summaryText() + (changed ? `, at temperature ${shortNumber(state.temperature)}` : "");
  byId("summary").replaceChildren(el("strong", {}, nameOf(state.focus)), `: ${text}`);
  say(`${nameOf(state.focus)}: ${text}`);

  const note = byId("given-note");
  note.hidden = !data.given_scores || row.given;
  if (!note.hidden) {
    note.textContent = `Scores are given for ${shortText(data.given_scores.focus)} only; for the other words they are computed from the vectors: q·k × scale.`;
  }
}

// ── the way of one number: the four steps for the focus word and one other ──────────────────────

function peeked() {
  if (state.peek !== null) return state.peek;
  const others = row.weights.map((weight, u) => [isFocus(u) ? -1 : weight, u]);
  const [weight, u] = others.reduce((best, next) => (next[0] > best[0] ? next : best), [-1, state.focus]);
  return weight > 0 ? u : state.focus;
}

function drawWay() {
  const u = peeked();
  const masked = row.scores[u] === null;
  const value = row.values[u];
  const other = () => el("b", {}, shortText(u));
  const focus = () => el("b", { class: "focus-word" }, shortText(state.focus));
  const divided = state.temperature === 1 ? "" : ` ÷ ${shortNumber(state.temperature)}`;

  byId("way-title").replaceChildren("From ", focus(), " to ", isFocus(u) ? "itself" : other(), ", step by step");

  const firstPiece = units[u].pieces[0];
  const encoding = firstPiece === undefined ? [] : data.encoding[firstPiece];
  const cards = [
    ["Encode", [other(), " is ", units[u].pieces.length > 1 ? `${units[u].pieces.length} vectors` : "a vector"],
      vectorStrip(encoding, rangeOf(data.encoding), { width: 120, height: 30 }),
      data.encoding_dim > 3 ? `${data.encoding_dim} numbers ${vectorText(encoding, 2)}` : vectorText(encoding)],
    ["Score", [focus(), " meets ", other()],
      masked ? "masked" : number(row.scores[u], 3),
      masked ? "not seen from here" : row.raw[u] === null ? "merged from its pieces"
        : row.given ? (divided ? `given: ${shortNumber(row.raw[u])}${divided}` : "given, used as it is")
          : `q·k ${number(row.raw[u], 3)} × ${shortNumber(data.scale)}${divided}`],
    ["Softmax", [other(), "’s share of the whole"],
      masked ? "0" : percent(row.weights[u]),
      masked ? "no weight" : `${number(row.exponentials[u])} ÷ ${number(row.exponentialsSum)}`],
    ["Weighted value", ["what ", other(), " brings"],
      vectorStrip(row.contributions[u], rangeOf(row.contributions), { width: 120, height: 30 }),
      masked || !value ? "nothing" : `${number(row.weights[u])} × ${vectorText(value, value.length > 3 ? 2 : 3)}`],
  ];
  byId("way").replaceChildren(...cards.map(([title, what, big, small], index) =>
    el("li", {}, el("a", { href: `#step-${index + 1}`, "data-step": index + 1 },
      el("span", { class: "card-title" }, el("span", { class: "ordinal" }, String(index + 1)), ` ${title}`),
      el("span", { class: "what" }, ...what),
      el("span", { class: "big" }, big),
      el("span", { class: "small" }, small)))));
}

/** Marks the peeked word wherever it stands. */
function markPeek() {
  for (const node of document.querySelectorAll(".peek")) node.classList.remove("peek");
  if (state.peek === null) return;
  for (const node of document.querySelectorAll(`[data-unit="${state.peek}"]`)) node.classList.add("peek");
}

function setPeek(u) {
  if (u === state.peek) return;
  state.peek = u;
  markPeek();
  drawWay();
}
