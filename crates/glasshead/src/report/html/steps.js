// The four steps as tables, and the tracing of a number of step 4 back to what it is made of.

"use strict";

// ── the four steps ────────────────────────────────────────────────────────────────────────────

/** The rows to show in a frame, and the button that shows the others too. */
function chooseRows(frame, weights, always, noun) {
  const all = state.allRows.has(frame.id) || weights.length <= MANY_ROWS;
  const shown = all ? weights.map((_, index) => index) : heaviest(weights, always);
  let button = frame.parentNode.querySelector(".more");
  if (weights.length > MANY_ROWS) {
    if (!button) {
      button = el("button", { type: "button", class: "quiet more" });
      button.addEventListener("click", () => {
        if (!state.allRows.delete(frame.id)) state.allRows.add(frame.id);
        draw();
        drawValues();
      });
      frame.after(button);
    }
    button.textContent = all ? `Show the ${HEAVIEST_ROWS} heaviest` : `Show all ${weights.length} ${noun}`;
  }
  return { shown, hidden: weights.length - shown.length };
}

function drawEncode() {
  const frame = byId("step-1-table");
  const matrices = {
    encoding: { rows: data.encoding, dim: data.encoding_dim, of: "encoding" },
    q: { rows: data.q, of: "query q" },
    k: { rows: data.k, of: "key k" },
    v: { rows: data.v, of: "value v" },
  };
  const { rows: vectors, dim = vectors[0].length, of } = matrices[state.matrix];
  const unitOfPiece = [];
  units.forEach((unit, u) => unit.pieces.forEach((piece) => (unitOfPiece[piece] = u)));
  const pieceWeights = data.pieces.map((_, piece) => row.weights[unitOfPiece[piece]] ?? 0);
  const { shown } = chooseRows(frame, pieceWeights, units[state.focus].pieces, "rows");
  const columns = Math.min(8, dim);
  const digits = decimalsNeeded(shown.map((piece) => vectors[piece].slice(0, columns)));
  const range = rangeOf(vectors);
  const lengthOf = (piece) => (state.matrix === "encoding" ? data.encoding_length[piece] : vectorLength(vectors[piece]));

  replaceTable(frame, buildTable({
    caption: [
      ownVectors ? "The vectors; here query = key = value = the vector itself"
        : state.matrix === "encoding" ? "The vectors that enter this layer" : `The ${of} of this head`,
      el("span", { class: "shape" }, ` [${vectors.length} × ${dim}]`),
      dim > columns && `, first ${columns} of ${dim} numbers`,
    ],
    rows: shown,
    rowAttributes: (piece) => rowOfUnit(unitOfPiece[piece]),
    columns: [
      {
        key: "word", label: "word", kind: "text",
        of: (piece) => {
          const u = unitOfPiece[piece];
          const cut = units[u].pieces.length > 1;
          return [...wordHead(u, cut ? data.pieces[piece] : units[u].text),
            cut && el("span", { class: "tag plain" }, `of ${shortText(u)}`)];
        },
      },
      { key: "strip", label: "", kind: "drawing", of: (piece) => vectorStrip(vectors[piece], range) },
      ...Array.from({ length: columns }, (_, d) => ({
        key: `x${d}`, label: String(d + 1), kind: "number",
        of: (piece) => number(vectors[piece][d], digits),
        attributes: (piece) => ({ "data-at": `${piece}:${d}` }),
      })),
      { key: "length", label: "length", kind: "number", of: (piece) => number(lengthOf(piece)) },
    ],
  }));
}

function drawScore() {
  const frame = byId("step-2-table");
  const { shown } = chooseRows(frame, row.weights, [state.focus], "rows");
  const visible = row.scores.filter((score) => score !== null);
  const low = Math.min(0, ...visible);
  const high = Math.max(0, ...visible);
  const divided = state.temperature !== 1;
  const rawDigits = row.given ? decimalsNeeded([row.raw.filter((x) => x !== null)]) : DIGITS;
  const isMerged = (u) => row.raw[u] === null && row.scores[u] !== null;
  const masked = () => el("span", { class: "muted" }, "masked");
  const unmerged = visible.length === 0 || row.raw.some((x) => x !== null);
  const constant = (text) => (u) => (row.scores[u] === null || isMerged(u) ? "" : el("span", { class: "muted" }, text));
  const pairs = (u) => el("span", { class: "muted" }, `${row.rows.length} × ${units[u].pieces.length} merged`);

  byId("score-formula").textContent = (row.given ? "score = as given" : "score = q · k × scale") + (divided ? " ÷ temperature" : "");
  replaceTable(frame, buildTable({
    caption: [
      row.given ? "The scores given for " : "The scores of ", el("b", {}, nameOf(state.focus)),
      el("span", { class: "shape" }, ` [${units.length}]`),
      row.given ? ", used as they are" : `, scale ${number(data.scale)}`,
      data.causal && "; words after it are masked",
    ],
    rows: shown,
    rowAttributes: rowOfUnit,
    columns: [
      { key: "word", label: "word", kind: "text", of: (u) => wordHead(u) },
      {
        key: "raw", label: row.given ? "given" : unmerged ? "q · k" : "pieces", kind: "number",
        of: (u) => (row.scores[u] === null ? masked() : isMerged(u) ? pairs(u) : number(row.raw[u], rawDigits)),
      },
      ...(row.given || !unmerged ? [] : [{ key: "scale", label: "× scale", kind: "number", of: constant(`× ${number(data.scale)}`) }]),
      ...(divided && unmerged ? [{ key: "divided", label: "÷ T", kind: "number", of: constant(`÷ ${shortNumber(state.temperature)}`) }] : []),
      { key: "score", label: "score", kind: "number strong", of: (u) => (row.scores[u] === null ? masked() : number(row.scores[u])) },
      { key: "bar", label: "", kind: "drawing wide", of: (u) => (row.scores[u] === null ? "" : signedBar(row.scores[u], low, high)) },
    ],
  }));

  const merged = units.some((_, u) => isMerged(u));
  const note = byId("merge-note");
  note.hidden = !(merged && data.steps.merge);
  note.textContent = data.steps.merge ?? "";
  byId("pieces").hidden = !merged;
  if (merged && byId("pieces").open) drawPieces();
}

/** Behind a merged row: every piece of the focus word against every piece it sees. */
function drawPieces() {
  const queries = units[state.focus].pieces;
  const largest = data.pieces.map((_, key) => Math.max(...row.rows.map(({ scores }) => scores[key] ?? -Infinity)));
  const { shown } = chooseRows(byId("pieces-table"), largest, [], "pieces");
  const cell = (x) => (x === null ? el("span", { class: "muted" }, "masked") : number(x));
  replaceTable(byId("pieces-table"), buildTable({
    caption: [`Pieces of ${nameOf(state.focus)} against all pieces`, el("span", { class: "shape" }, ` [${queries.length} × ${data.pieces.length}]`)],
    rows: shown,
    groups: [{ label: "", span: 1 }, ...queries.map((query) => ({ label: data.pieces[query], span: 3 }))],
    columns: [
      { key: "piece", label: "piece", kind: "text", of: (key) => visibleText(data.pieces[key]) },
      ...queries.flatMap((query, i) => [
        { key: `raw${i}`, label: "q · k", kind: "number", of: (key) => cell(row.rows[i].raw[key]) },
        { key: `score${i}`, label: "score", kind: "number", of: (key) => cell(row.rows[i].scores[key]) },
        {
          key: `share${i}`, label: "share", kind: "number strong",
          of: (key) => number(row.rows[i].scores[key] === null ? 0 : Math.exp(row.rows[i].scores[key] - row.rows[i].lse)),
        },
      ]),
    ],
  }));
}

function drawSoftmax() {
  const frame = byId("step-3-table");
  const { shown, hidden } = chooseRows(frame, row.weights, [state.focus], "rows");
  const claimed = data.claimed && data.claimed.focus === state.focus ? data.claimed : null;
  const full = fullBar(Math.max(...row.weights, ...(claimed ? claimed.weights : [])));
  const masked = (u, text) => (row.scores[u] === null ? el("span", { class: "muted" }, "masked") : text());
  const rest = (of) => sumOfHidden(shown, of);
  const rows = hidden ? [...shown, "rest"] : shown;
  const claimedSum = claimed ? claimed.weights.reduce((sum, weight) => sum + weight, 0) : 0;
  const unlessRest = (of) => (u) => (u === "rest" ? "" : of(u));

  replaceTable(frame, buildTable({
    caption: [
      "The shares of ", el("b", {}, nameOf(state.focus)), el("span", { class: "shape" }, ` [${units.length}]`),
      row.max === -Infinity ? "" : `, max = ${number(row.max)}`, `; a full bar is ${shortNumber(full * 100)}\u202f%`,
    ],
    rows,
    rowAttributes: (u) => (u === "rest" ? { class: "rest" } : rowOfUnit(u)),
    foot: true,
    columns: [
      { key: "word", label: "word", kind: "text", of: (u) => (u === "rest" ? `${hidden} others` : wordHead(u)), foot: "sum" },
      { key: "score", label: "score", kind: "number", of: unlessRest((u) => masked(u, () => number(row.scores[u]))) },
      { key: "shifted", label: "score − max", kind: "number", of: unlessRest((u) => masked(u, () => number(row.scores[u] - row.max))) },
      {
        key: "exp", label: el("span", {}, "e", el("sup", {}, "score − max")), kind: "number",
        of: (u) => (u === "rest" ? number(rest((i) => row.exponentials[i] ?? 0)) : number(row.exponentials[u] ?? 0)),
        foot: number(row.exponentialsSum),
      },
      {
        key: "share", label: "share", kind: "number strong",
        of: (u) => number(u === "rest" ? rest((i) => row.weights[i]) : row.weights[u]),
        foot: number(row.weightsSum),
      },
      {
        key: "bar", label: "", kind: "drawing wide",
        of: unlessRest((u) => shareBar(row.weights[u], full, { mark: claimed ? claimed.weights[u] : null })),
      },
      ...(claimed ? [{
        key: "claimed", label: el("span", {}, el("i", { class: "mark-sign", "aria-hidden": "true" }), "claimed"), kind: "number claimed",
        of: (u) => number(u === "rest" ? rest((i) => claimed.weights[i]) : claimed.weights[u]),
        foot: number(claimedSum),
      }] : []),
    ],
  }));

  const finding = byId("finding");
  finding.hidden = !claimed || !claimed.finding;
  finding.textContent = claimed?.finding ?? "";
}

function sumOfHidden(shown, of) {
  const seen = new Set(shown);
  let sum = 0;
  units.forEach((_, u) => {
    if (!seen.has(u)) sum += of(u);
  });
  return sum;
}

const FIRST_COLUMNS = 6; // as many as fit beside the words

function drawValues() {
  const frame = byId("step-4-table");
  const { shown, hidden } = chooseRows(frame, row.weights, [state.focus], "rows");
  const dim = row.output.length;
  const columns = state.allColumns ? dim : Math.min(FIRST_COLUMNS, dim);
  const full = fullBar(Math.max(...row.weights));
  const fullInfluence = Math.max(...row.influence) || 1;
  const digits = decimalsNeeded(shown.map((u) => row.values[u]?.slice(0, columns)));
  const range = rangeOf(row.contributions);
  const unlessRest = (of) => (u) => (u === "rest" ? "" : of(u));
  const numbersHead = columns < dim ? `share × value, first ${columns} of ${dim} numbers` : "share × value";

  replaceTable(frame, buildTable({
    caption: [
      "What every word brings to the new vector of ", el("b", {}, nameOf(state.focus)),
      el("span", { class: "shape" }, ` [${units.length} × ${dim}]`), ", and their sum",
    ],
    // a grid, so that the arrow keys walk through its numbers
    attributes: { role: "grid" },
    groups: [
      { label: "", span: 2 },
      { label: "", span: 1, key: "bar" },
      { label: "", span: 1 },
      { label: numbersHead, span: columns },
      { label: "", span: 2 },
      { label: "", span: 1, key: "influence-bar" },
    ],
    rows: hidden ? [...shown, "rest"] : shown,
    rowAttributes: (u) => (u === "rest" ? { class: "rest" } : rowOfUnit(u)),
    foot: true,
    columns: [
      { key: "word", label: "word", kind: "text", of: (u) => (u === "rest" ? `${hidden} others` : wordHead(u)), foot: "new vector (sum)" },
      {
        key: "share", label: "share", kind: "number strong",
        of: (u) => number(u === "rest" ? sumOfHidden(shown, (i) => row.weights[i]) : row.weights[u]),
        foot: number(row.weightsSum),
      },
      { key: "bar", label: "", kind: "drawing", of: unlessRest((u) => shareBar(row.weights[u], full)) },
      {
        key: "strip", label: "", kind: "drawing", of: unlessRest((u) => vectorStrip(row.contributions[u], range, { width: 48, height: 26 })),
        foot: vectorStrip(row.output, rangeOf([row.output]), { width: 48, height: 26 }),
      },
      ...Array.from({ length: columns }, (_, d) => ({
        key: `c${d}`, label: String(d + 1), kind: "number traceable",
        of: (u) => number(u === "rest" ? sumOfHidden(shown, (i) => row.contributions[i][d]) : row.contributions[u][d]),
        attributes: (u) => ({
          tabindex: u === shown[0] && d === 0 ? 0 : -1,
          "data-dim": d,
          "data-factor": u === "rest" || !row.values[u] ? null : `× ${number(row.values[u][d], digits)}`,
        }),
        foot: number(row.output[d]),
        footAttributes: { tabindex: -1, "data-dim": d },
      })),
      { key: "length", label: "|v|", kind: "number", of: unlessRest((u) => (row.values[u] ? number(vectorLength(row.values[u])) : "–")) },
      { key: "influence", label: "share × |v|", kind: "number", of: unlessRest((u) => number(row.influence[u])) },
      { key: "influence-bar", label: "", kind: "drawing", of: unlessRest((u) => shareBar(row.influence[u], fullInfluence, { kind: "influence" })) },
    ],
  }));

  const toggle = byId("columns");
  toggle.hidden = dim <= FIRST_COLUMNS;
  toggle.textContent = state.allColumns ? `Show the first ${FIRST_COLUMNS} columns` : `Show all ${dim} columns`;
  endTrace();
}

// ── tracing a number of step 4 back to what it is made of ──────────────────────────────────────

const TRACE_HINT = "Point at a number of the table, or Tab to it and use the arrow keys, to see what it is made of.";

function endTrace() {
  for (const node of document.querySelectorAll(".traced, .trace-source")) node.classList.remove("traced", "trace-source");
  byId("trace").textContent = TRACE_HINT;
}

function trace(cell) {
  endTrace();
  const d = Number(cell.dataset.dim);
  const line = cell.closest("tr");
  const result = (text) => el("b", {}, text);
  cell.classList.add("traced");
  if (line.parentNode.tagName === "TFOOT" || line.classList.contains("rest")) {
    const body = cell.closest("table").tBodies[0];
    const terms = [...body.querySelectorAll(`[data-col="c${d}"]`)];
    if (line.parentNode.tagName === "TFOOT") {
      for (const term of terms) term.classList.add("trace-source");
      const some = terms.slice(0, 3).map((term) => term.textContent).join(" + ");
      const dots = terms.length > 3 ? ` + … (${terms.length} numbers)` : "";
      byId("trace").replaceChildren(`Number ${d + 1} of the new vector: ${some}${dots} = `, result(cell.textContent));
    } else {
      byId("trace").replaceChildren("The rows that are not shown add up to ", result(cell.textContent));
    }
    return;
  }
  const u = Number(line.dataset.unit);
  line.querySelector("[data-col=share]").classList.add("trace-source");
  if (!row.values[u]) {
    byId("trace").textContent = `${nameOf(u)} is masked: its value is never read.`;
    return;
  }
  if (units[u].pieces.length === 1 && (ownVectors || state.matrix === "v")) {
    byId("step-1-table").querySelector(`[data-at="${units[u].pieces[0]}:${d}"]`)?.classList.add("trace-source");
  }
  byId("trace").replaceChildren(
    `${nameOf(u)}, number ${d + 1}: `,
    el("span", { class: "factor" }, number(row.weights[u])), " × ",
    el("span", { class: "factor" }, shortNumber(row.values[u][d])), " = ",
    result(cell.textContent));
}

function watchTrace() {
  const frame = byId("step-4-table");
  const cellOf = (event) => event.target.closest?.("td.traceable");
  frame.addEventListener("mouseover", (event) => (cellOf(event) ? trace(cellOf(event)) : endTrace()));
  frame.addEventListener("mouseleave", () => {
    const focused = document.activeElement?.closest?.("#step-4-table td.traceable");
    if (focused) trace(focused);
    else endTrace();
  });
  frame.addEventListener("focusin", (event) => cellOf(event) && trace(cellOf(event)));
  frame.addEventListener("focusout", endTrace);
  rovingGrid(frame, "td.traceable");
}
