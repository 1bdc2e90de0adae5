// What the page of a scan knows, and what a reader changes. Numbers of a layer or a head stand packed in
// elements of their own and are unpacked when they are asked for.

"use strict";

const data = JSON.parse(byId("data").textContent);
const { layers, heads, tokens, segments, groups } = data;
const count = tokens.start.length;
const headCount = layers.length * heads.length;
const say = announcer(byId("live"));

const state = {
  group: data.group, // who looks
  scope: "all", // with which heads: all, layer, head
  layer: 0, // places in `layers` and `heads`, not their names
  head: 0,
  exclude: false, // the first token
  measure: null,
  view: "grid",
  sort: null, // of the table of heads: { key, down }
  passage: null,
  allPassages: false,
  token: null, // the token chosen in the text
  query: 0, // a place in `data.top.queries`
};
const group = () => groups[state.group];
const place = () => state.layer * heads.length + state.head;
const headName = (layer = state.layer, head = state.head) => `layer ${layers[layer]}, head ${heads[head]}`;

// ── packed numbers ────────────────────────────────────────────────────────────────────────────

function fromBase64(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** Float32, little-endian as everything here. */
function floats(text) {
  const view = new DataView(fromBase64(text).buffer);
  return Float32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

const unpacked = new Map();

/** The element of this name. The page answers while what lies behind it is still being read: an element is all
 *  there when something follows it. */
async function arrived(id) {
  for (;;) {
    const node = byId(id);
    if (node?.nextSibling || document.readyState !== "loading") return node;
    await new Promise((done) => setTimeout(done, 5));
  }
}

/** The bytes behind an element's name, or null where there are none. */
function unpack(id) {
  if (!unpacked.has(id)) {
    unpacked.set(id, arrived(`packed-${id}`).then((node) => node && inflate(fromBase64(node.textContent))));
  }
  return unpacked.get(id);
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** A share in two bytes. */
const wordAt = (bytes, i) => (bytes[2 * i] + 256 * bytes[2 * i + 1]) / 65535;

/** A share in one byte: the largest is 1, every step down divides; 0 is 0. */
const SHARE = Float64Array.from({ length: 256 }, (_, byte) =>
  (byte === 0 ? 0 : 10 ** (((byte - data.steps - 1) * data.decades) / data.steps)));

/** The square of a map, and the share of a heaviest key, in one byte: steps of the square root. */
const SQUARE = Float64Array.from({ length: 256 }, (_, byte) => (byte / data.shades) ** 2);
const fineShare = (byte) => (byte / data.fine_shades) ** 2;

// The groups as numbers; which of them have shares of tokens and of passages decides where theirs lie.
let nextTokens = 0;
let nextSegments = 0;
for (const one of groups) {
  one.tokenPlace = one.tokens === null ? null : nextTokens++;
  one.segmentPlace = one.segments ? nextSegments++ : null;
  one.tokens = one.tokens === null ? null : floats(one.tokens);
  one.first = one.first === null ? null : floats(one.first);
  one.numbers = Object.fromEntries(one.numbers.map(([name, text]) => [name, floats(text)]));
}
let segmentBytes = null; // unpacked before anything is drawn

/** The share of passage `s` in the head at `at`, of the group that looks; the first token is apart. */
function passageShare(s, at, one = group()) {
  const share = wordAt(segmentBytes, (one.segmentPlace * headCount + at) * segments.length + s);
  return segments[s].holds_first && one.first ? Math.max(0, share - one.first[at]) : share;
}

/** The places of the heads that are looked at now. */
function placesInScope() {
  if (state.scope === "head") return [place()];
  if (state.scope === "layer") return heads.map((_, h) => state.layer * heads.length + h);
  return Array.from({ length: headCount }, (_, at) => at);
}

const meanOver = (places, of) => places.reduce((sum, at) => sum + of(at), 0) / places.length;

/** What was looked at: { first, tokens, passages, kept } as shown, i.e. without the first token where it is left
 *  out. `kept` is the share of the weight that is shown. */
async function shares() {
  const one = group();
  const places = placesInScope();
  const first = one.first ? meanOver(places, (at) => one.first[at]) : null;
  const out = state.exclude && first !== null;
  const kept = out ? 1 - first : 1;
  const scaled = (share) => (kept > 0 ? share / kept : 0);
  let ofTokens = null;
  if (one.tokens !== null) {
    ofTokens = new Float64Array(count);
    if (state.scope === "all") {
      ofTokens.set(one.tokens);
    } else {
      const bytes = await unpack(`layer-${state.layer}`);
      const from = one.tokenPlace * heads.length;
      const rows = state.scope === "head" ? [state.head] : heads.map((_, h) => h);
      for (const row of rows) {
        for (let t = 0; t < count; t++) ofTokens[t] += SHARE[bytes[(from + row) * count + t]] / rows.length;
      }
    }
    for (let t = 0; t < count; t++) ofTokens[t] = scaled(ofTokens[t]);
    if (out) ofTokens[0] = 0;
  }
  const ofPassages = one.segments
    ? segments.map((_, s) => scaled(meanOver(places, (at) => passageShare(s, at))))
    : null;
  return { first: out ? 0 : first, left: first, tokens: ofTokens, passages: ofPassages, kept };
}
let seen = null; // shares() of the present state

// ── names ─────────────────────────────────────────────────────────────────────────────────────

const names = new Map(tokens.names);
const tokenText = (t) => names.get(t) ?? data.text.slice(tokens.start[t], tokens.end[t]);
const tokenName = (t) => `“${cutText(visibleText(tokenText(t).replace(/^ +(?=\S)/, "")), 24)}”`;

// Passages that have no bytes are ranges of tokens, one behind the other.
let nextRange = 0;
for (const segment of segments) [segment.from, segment.to] = [nextRange, (nextRange += segment.tokens)];
const inPassage = (t, { start, end, from, to }) => (start < end
  ? !names.has(t) && tokens.start[t] >= start && tokens.start[t] < end
  : t >= from && t < to);

/** The text between two tokens, short. */
function excerpt(from, to, most = 40) {
  const name = (t) => tokenText(t);
  let text = "";
  for (let t = from; t < to && text.length <= most; t++) {
    const gap = t > from && !names.has(t) && !names.has(t - 1) ? data.text.slice(tokens.end[t - 1], tokens.start[t]) : "";
    text += gap + name(t) + (names.has(t) ? " " : "");
  }
  return cutText(text.replace(/\s+/g, " ").trim(), most) || "␣";
}

/** Shares that are rounded to a byte say so. */
const aboutPercent = (share) => (state.scope === "all" ? percent(share) : `≈ ${percent(share)}`);

// ── choices ───────────────────────────────────────────────────────────────────────────────────

/** Radio buttons as the page of `explain` has them. */
function buildChoices(id, options, chosen, choose) {
  const part = byId(id);
  part.querySelector(".choices").replaceChildren(...options.map(([value, label]) => {
    const input = el("input", { type: "radio", name: id, value, checked: value === chosen });
    input.addEventListener("change", () => choose(value));
    return el("label", {}, input, el("span", {}, label));
  }));
}

/** How a reader asks for what was not read. */
const ask = (list) => data.ask[0] + list.join(data.ask[1]) + data.ask[2];

/** What is missing is said where it would stand, with what to add for it. */
function sayMissing(id, what, readouts) {
  const note = byId(id);
  note.hidden = false;
  const add = data.missing.filter(([name]) => readouts.includes(name)).map(([, list]) => list);
  note.replaceChildren(`${what}; add `, el("code", {}, ask(add)), ".");
}
