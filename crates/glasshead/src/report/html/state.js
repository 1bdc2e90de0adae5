// What the page of one focus word knows: the data, and three things a reader changes: the focus,
// the temperature, and the word whose number is followed ("peek"). All else is drawn from them.

"use strict";

const data = JSON.parse(byId("data").textContent);
const units = data.units;
const ownVectors = data.source.kind !== "model"; // then q = k = v = the vectors
const say = announcer(byId("live"));

const state = {
  focus: data.focus,
  temperature: data.temperature,
  peek: null, // the unit pointed at; null: the heaviest
  matrix: "encoding",
  allRows: new Set(), // frames whose every row is shown
  allColumns: false,
};
let row = null; // attendFrom(…) of the present state

// ── names ─────────────────────────────────────────────────────────────────────────────────────

/** The same in a line of prose, where an address of 200 letters would be in the way. */
function shortText(u) {
  return cutText(visibleText(units[u].text));
}

/** A word that occurs twice is told apart by its place: the (7). */
function nameOf(u) {
  return shortText(u) + (isRepeated(u) ? ` (${u})` : "");
}

const timesSeen = new Map();
for (const { text } of units) timesSeen.set(text, (timesSeen.get(text) ?? 0) + 1);
const isRepeated = (u) => timesSeen.get(units[u].text) > 1;

const isFocus = (u) => u === state.focus;

function wordHead(u, text = units[u].text) {
  return [
    el("span", { class: "word" }, visibleText(text)),
    isRepeated(u) && el("span", { class: "place" }, `(${u})`),
    isFocus(u) && el("span", { class: "tag" }, "focus"),
  ];
}

const rowOfUnit = (u) => ({
  "data-unit": u,
  class: [isFocus(u) && "is-focus", units[u].special && "special"].filter(Boolean).join(" ") || null,
});
