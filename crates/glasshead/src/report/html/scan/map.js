// Part 3: the map of one head and the heaviest keys of its queries.

"use strict";

const TILE = 256; // squares of a tile along one side
const LEFT = 44; // pixels of the page: room for the numbers of tokens
const TOP = 18;
const LARGEST_SQUARE = 48; // pixels; nearer would show nothing more

const view = { zoom: 1, x: 0, y: 0 }; // x and y: the square at the upper left, in squares
let levels = []; // [{ side, bytes, tiles: Map }]: the map, and ever coarser ones
let cell = null; // { row, column } of the square that is spoken of
let topKeys = null; // { indices, weights } of the chosen head
let colours = null; // 256 × rgb
let mostByte = data.shades;

async function drawHead() {
  byId("head-name").textContent = headName();
  byId("head-numbers").textContent = measures().length ? `Means over ${group().name}: ${headSentence(place())}` : "";
  byId("map-part").hidden = data.map === null;
  byId("top-part").hidden = data.top === null;
  byId("no-map").hidden = byId("no-top").hidden = true;
  if (data.map === null) sayMissing("no-map", "No maps were read", ["blocks"]);
  if (data.top === null) sayMissing("no-top", "The heaviest keys of single queries were not read", ["top_index"]);
  const at = place();
  const bytes = await unpack(`head-${state.layer}-${state.head}`);
  if (at !== place()) return; // another head was chosen meanwhile
  const squares = data.map ? data.map.side ** 2 : 0;
  if (data.top) topKeys = readTop(bytes, squares);
  if (data.map) {
    levels = pyramid(summedRows(bytes.subarray(0, squares), data.map.side), data.map.side);
    mostByte = largestByte(levels[0]);
    recolour();
    byId("map").setAttribute("aria-label", `Map of ${headName()}: who looks at what`);
    cell ??= heaviestCell();
    sayCell();
  }
  if (data.top) drawTop();
}

// ── the map ───────────────────────────────────────────────────────────────────────────────────

/** A map whose rows are kept as differences from the row above, modulo 256. */
function summedRows(differences, side) {
  const bytes = Uint8Array.from(differences);
  for (let i = side; i < bytes.length; i++) bytes[i] += bytes[i - side];
  return bytes;
}

/** Coarser and coarser maps: a square is as dark as the darkest of its four. */
function pyramid(bytes, side) {
  const all = [{ side, bytes, tiles: new Map() }];
  while (all.at(-1).side > TILE) {
    const fine = all.at(-1);
    const half = Math.ceil(fine.side / 2);
    const coarse = new Uint8Array(half * half);
    for (let row = 0; row < fine.side; row++) {
      for (let column = 0; column < fine.side; column++) {
        const to = (row >> 1) * half + (column >> 1);
        coarse[to] = Math.max(coarse[to], fine.bytes[row * fine.side + column]);
      }
    }
    all.push({ side: half, bytes: coarse, tiles: new Map() });
  }
  return all;
}

/** The heaviest square beside the first column, which would leave no colour for the others. */
function largestByte({ side, bytes }) {
  let most = 0;
  for (let i = 0; i < bytes.length; i++) if (i % side > 0 || side === 1) most = Math.max(most, bytes[i]);
  return most || data.shades;
}

/** Two colours of the palette on a canvas, whatever notation they have. */
function rgb(name) {
  const canvas = el("canvas", { width: 1, height: 1 });
  const ink = canvas.getContext("2d", { willReadFrequently: true });
  ink.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  ink.fillRect(0, 0, 1, 1);
  return [...ink.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

const DARKEST = 0.8; // of the way, where the colour is the palette's blue; from there on it goes to the ink

function recolour() {
  if (!levels.length) return;
  const [sheet, share, ink] = [rgb("--sheet"), rgb("--share"), rgb("--ink")];
  const mix = (from, to, t) => from.map((x, i) => Math.round(x + (to[i] - x) * t));
  colours = Array.from({ length: 256 }, (_, byte) => {
    const t = Math.sqrt(Math.min(1, SQUARE[byte] / SQUARE[mostByte]));
    return t <= DARKEST ? mix(sheet, share, t / DARKEST) : mix(share, ink, ((t - DARKEST) / (1 - DARKEST)) * 0.6);
  });
  for (const level of levels) level.tiles.clear();
  const stops = [0, 0.2, 0.4, 0.6, DARKEST, 1].map((t) => {
    const byte = SQUARE.findIndex((share) => share >= SQUARE[mostByte] * t * t);
    return `rgb(${colours[byte < 0 ? mostByte : byte].join(" ")}) ${100 * t}%`;
  });
  byId("map-scale").replaceChildren("0", el("span", { class: "ramp", "aria-hidden": "true", style: `background: linear-gradient(90deg, ${stops})` }),
    `≈ ${percent(SQUARE[mostByte])} of a query’s weight${data.map.side > 1 ? " (the first column may be more)" : ""}; colour by square root`);
  drawMap();
}

/** A tile as a picture, made when it is first seen. */
function tile(level, row, column) {
  const key = row * 65536 + column;
  const known = level.tiles.get(key);
  if (known) return known;
  const width = Math.min(TILE, level.side - column * TILE);
  const height = Math.min(TILE, level.side - row * TILE);
  const canvas = el("canvas", { width, height });
  const ink = canvas.getContext("2d");
  const image = ink.createImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [r, g, b] = colours[level.bytes[(row * TILE + y) * level.side + column * TILE + x]];
      image.data.set([r, g, b, 255], 4 * (y * width + x));
    }
  }
  ink.putImageData(image, 0, 0);
  level.tiles.set(key, canvas);
  return canvas;
}

/** Pixels of the page that a square takes. */
function squareSize() {
  const canvas = byId("map");
  return { wide: ((canvas.clientWidth - LEFT) / data.map.side) * view.zoom, high: ((canvas.clientHeight - TOP) / data.map.side) * view.zoom };
}

const mostZoom = () => Math.max(1, LARGEST_SQUARE / (squareSize().wide / view.zoom || 1));

function clampView() {
  view.zoom = Math.max(1, Math.min(mostZoom(), view.zoom));
  const room = data.map.side - data.map.side / view.zoom;
  view.x = Math.max(0, Math.min(room, view.x));
  view.y = Math.max(0, Math.min(room, view.y));
}

const drawMap = oncePerFrame(() => {
  const canvas = byId("map");
  if (!data.map || !levels.length || canvas.clientWidth === 0) return;
  clampView();
  const scale = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const ink = canvas.getContext("2d");
  ink.setTransform(scale, 0, 0, scale, 0, 0);
  ink.clearRect(0, 0, width, height);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const { wide, high } = squareSize();
  ink.save();
  ink.beginPath();
  ink.rect(LEFT, TOP, width - LEFT, height - TOP);
  ink.clip();
  ink.fillStyle = colour("--sheet");
  ink.fillRect(LEFT, TOP, width - LEFT, height - TOP);
  // the coarsest map whose squares are still no larger than a pixel of the screen
  let k = 0;
  while (k + 1 < levels.length && wide * scale * 2 ** (k + 1) <= 1) k++;
  const step = TILE * 2 ** k;
  // a map coarser than the screen is drawn square by square, a finer one is smoothed
  ink.imageSmoothingEnabled = wide * scale * 2 ** k < 1;
  for (let row = Math.floor(view.y / step); row * step < view.y + data.map.side / view.zoom; row++) {
    for (let column = Math.floor(view.x / step); column * step < view.x + data.map.side / view.zoom; column++) {
      if (row * TILE >= levels[k].side || column * TILE >= levels[k].side) continue;
      const picture = tile(levels[k], row, column);
      ink.drawImage(picture, LEFT + (column * step - view.x) * wide, TOP + (row * step - view.y) * high,
        picture.width * 2 ** k * wide, picture.height * 2 ** k * high);
    }
  }
  if (cell) {
    ink.strokeStyle = colour("--focus-ring");
    ink.lineWidth = 2;
    const [w, h] = [Math.max(wide, 5), Math.max(high, 5)];
    ink.strokeRect(LEFT + (cell.column + 0.5 - view.x) * wide - w / 2, TOP + (cell.row + 0.5 - view.y) * high - h / 2, w, h);
  }
  ink.restore();
  ink.strokeStyle = colour("--line");
  ink.lineWidth = 1;
  ink.strokeRect(LEFT - 0.5, TOP - 0.5, width - LEFT, height - TOP);
  drawTicks(ink, width, height, colour("--muted"), { wide, high });
  byId("zoom").textContent = `× ${shortNumber(view.zoom, 1)}, squares of ${data.map.block} × ${data.map.block} tokens`;
  byId("zoom-out").disabled = byId("zoom-reset").disabled = view.zoom === 1;
  byId("zoom-in").disabled = view.zoom >= mostZoom() - 1e-9;
});

/** Numbers of tokens along both sides. */
function drawTicks(ink, width, height, colour, { wide, high }) {
  ink.fillStyle = colour;
  ink.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const shown = (data.map.side / view.zoom) * data.map.block;
  const raw = shown / 5;
  const ten = 10 ** Math.floor(Math.log10(Math.max(raw, 1)));
  const step = Math.max(1, [1, 2, 5, 10].map((x) => x * ten).find((x) => x >= raw));
  for (let t = Math.ceil((view.x * data.map.block) / step) * step; ; t += step) {
    const x = LEFT + (t / data.map.block - view.x) * wide;
    if (x > width - 14 || t >= count) break;
    ink.textAlign = x < LEFT + 8 ? "left" : "center";
    ink.fillText(String(t), x, TOP - 6);
  }
  ink.textAlign = "right";
  for (let t = Math.ceil((view.y * data.map.block) / step) * step; ; t += step) {
    const y = TOP + (t / data.map.block - view.y) * high;
    if (y > height - 6 || t >= count) break;
    ink.fillText(String(t), LEFT - 6, y + (y < TOP + 6 ? 9 : 4));
  }
}

/** Zooms so that the spot (in squares) stays where it is. */
function zoomBy(factor, spot = cell ? { x: cell.column + 0.5, y: cell.row + 0.5 } : { x: data.map.side / 2, y: data.map.side / 2 }) {
  const before = view.zoom;
  view.zoom = before * factor;
  clampView();
  const turn = before / view.zoom;
  view.x = spot.x - (spot.x - view.x) * turn;
  view.y = spot.y - (spot.y - view.y) * turn;
  drawMap();
}

function spotOf(event) {
  const box = byId("map").getBoundingClientRect();
  const { wide, high } = squareSize();
  return { x: (event.clientX - box.left - LEFT) / wide + view.x, y: (event.clientY - box.top - TOP) / high + view.y };
}

function cellAt({ x, y }) {
  const [column, row] = [Math.floor(x), Math.floor(y)];
  const inside = (at) => at >= 0 && at < data.map.side;
  return inside(column) && inside(row) && x >= view.x && y >= view.y ? { row, column } : null;
}

function heaviestCell() {
  const { side, bytes } = levels[0];
  let best = side > 1 ? 1 : 0;
  for (let i = best; i < bytes.length; i++) if ((i % side > 0 || side === 1) && bytes[i] > bytes[best]) best = i;
  return { row: Math.floor(best / side), column: best % side };
}

function setCell(next, spoken = false) {
  cell = next;
  sayCell(spoken);
  drawMap();
  if (data.top) chooseQueryNear((next.row + 0.5) * data.map.block, true);
}

function sayCell(spoken = false) {
  const { block, side } = data.map;
  const span = (at) => [at * block, Math.min(count, (at + 1) * block)];
  const name = ([from, to]) => (to - from === 1 ? `token ${from}` : `tokens ${from}–${to - 1}`);
  const [queries, keys] = [span(cell.row), span(cell.column)];
  const share = SQUARE[levels[0].bytes[cell.row * side + cell.column]];
  const parts = [`${name(queries)} “${excerpt(...queries)}” → ${name(keys)} “${excerpt(...keys)}”: `, `≈ ${percent(share)}`];
  byId("cell-line").replaceChildren(parts[0], el("b", {}, parts[1]), queries[1] - queries[0] > 1 ? " of the weight of one of these queries, on average" : " of its weight");
  if (spoken) say(parts.join(""));
}

function watchMap() {
  const canvas = byId("map");
  if (!data.map) return;
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    drag = { x: event.clientX, y: event.clientY, from: { ...view }, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
      drag.moved ||= Math.hypot(dx, dy) > 4;
      if (!drag.moved) return;
      const { wide, high } = squareSize();
      view.x = drag.from.x - dx / wide;
      view.y = drag.from.y - dy / high;
      canvas.classList.add("dragged");
      drawMap();
      return;
    }
    const next = cellAt(spotOf(event));
    if (next && (next.row !== cell?.row || next.column !== cell?.column)) setCell(next);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, () => {
      drag = null;
      canvas.classList.remove("dragged");
    });
  }
  canvas.addEventListener("click", (event) => {
    const next = cellAt(spotOf(event));
    if (next) setCell(next);
  });
  canvas.addEventListener("dblclick", (event) => zoomBy(event.shiftKey ? 0.5 : 2, spotOf(event)));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    zoomBy(2 ** (-event.deltaY / 200), spotOf(event));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const go = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (go) {
      event.preventDefault();
      if (event.shiftKey) pan(go);
      else walk(go);
      return;
    }
    const zoom = { "+": 2, "=": 2, "-": 0.5, 0: 1 / view.zoom }[event.key];
    if (zoom === undefined) return;
    event.preventDefault();
    zoomBy(zoom);
    say(`zoom ${shortNumber(view.zoom, 1)}`);
  });
  byId("zoom-in").addEventListener("click", () => zoomBy(2));
  byId("zoom-out").addEventListener("click", () => zoomBy(0.5));
  byId("zoom-reset").addEventListener("click", () => zoomBy(1 / view.zoom));
  new ResizeObserver(drawMap).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
}

function pan([down, right]) {
  const step = data.map.side / view.zoom / 4;
  view.x += right * step;
  view.y += down * step;
  drawMap();
}

/** To the next square; the map follows. */
function walk([down, right]) {
  const keep = (at) => Math.max(0, Math.min(data.map.side - 1, at));
  const next = { row: keep((cell?.row ?? 0) + down), column: keep((cell?.column ?? 0) + right) };
  const shown = data.map.side / view.zoom;
  view.x = Math.max(next.column + 1 - shown, Math.min(next.column, view.x));
  view.y = Math.max(next.row + 1 - shown, Math.min(next.row, view.y));
  setCell(next, true);
}

// ── the heaviest keys ─────────────────────────────────────────────────────────────────────────

function readTop(bytes, offset) {
  const { keys, queries, index } = data.top;
  const entries = queries.length * keys;
  const none = 2 ** (8 * index) - 1;
  const indices = Array.from({ length: entries }, (_, i) => {
    let key = 0;
    for (let byte = index - 1; byte >= 0; byte--) key = 256 * key + bytes[offset + byte * entries + i];
    return key === none ? null : key;
  });
  const weights = bytes.subarray(offset + entries * index);
  return { indices, weights };
}

/** The query whose keys are kept and that is nearest to this token. */
function chooseQueryNear(t, quiet = false) {
  if (!data.top) return;
  const { queries } = data.top;
  let best = 0;
  queries.forEach((query, at) => {
    if (Math.abs(query + 0.5 - t) < Math.abs(queries[best] + 0.5 - t) - 1e-9) best = at;
  });
  if (queries.includes(t)) best = queries.indexOf(t);
  if (best === state.query && quiet) return;
  state.query = best;
  drawTop();
}

function drawTop() {
  if (!topKeys) return;
  const { keys, queries } = data.top;
  const query = queries[state.query];
  byId("query-name").replaceChildren("From ", el("b", {}, tokenName(query)), ` (token ${query}), the heaviest keys`);
  byId("query-back").disabled = state.query === 0;
  byId("query-on").disabled = state.query === queries.length - 1;
  const rows = [];
  for (let k = 0; k < keys; k++) {
    const key = topKeys.indices[state.query * keys + k];
    if (key !== null) rows.push({ key, share: fineShare(topKeys.weights[state.query * keys + k]) });
  }
  const full = fullBar(Math.max(...rows.map(({ share }) => share), 1e-9));
  const sum = rows.reduce((total, { share }) => total + share, 0);
  replaceTable(byId("top"), buildTable({
    caption: `${headName()}: ${rows.length} key${rows.length === 1 ? "" : "s"}, together ≈ ${percent(sum)} of the weight of this query`,
    columns: [
      { key: "key", label: "key", of: ({ key }) => [...inContext(key), key === 0 && el("span", { class: "tag plain" }, "first token")].filter(Boolean) },
      { key: "at", label: "token", kind: "number", of: ({ key }) => String(key) },
      { key: "bar", label: "", kind: "drawing", of: ({ key, share }) => shareBar(share, full, { kind: key === 0 ? "apart" : "share" }) },
      { key: "share", label: "share", kind: "number strong", of: ({ share }) => `≈ ${percent(share)}` },
    ],
    rows,
  }));
  const some = queries.length < count
    ? `The page holds the keys of ${queries.length} of ${count} queries; the nearest one is shown. ` : "";
  byId("top-note").textContent = `${some}This part always shows whole rows, the first token included.`;
}

const AROUND = 14; // letters on each side of a key

/** A token between its neighbours. */
function inContext(t) {
  const own = el("b", {}, visibleText(tokenText(t)));
  if (names.has(t)) return [own];
  const context = (text) => el("span", { class: "context" }, text.replace(/\s+/g, " "));
  const [start, end] = [tokens.start[t], tokens.end[t]];
  return [context(data.text.slice(Math.max(0, start - AROUND), start)), own, context(data.text.slice(end, end + AROUND))];
}

function watchTop() {
  const step = (by) => {
    state.query = Math.max(0, Math.min(data.top.queries.length - 1, state.query + by));
    drawTop();
    say(byId("query-name").textContent);
  };
  byId("query-back").addEventListener("click", () => step(-1));
  byId("query-on").addEventListener("click", () => step(1));
}
