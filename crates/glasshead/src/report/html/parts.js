// Parts that every glasshead page is made of: elements, numbers, bars, tables, keyboard, copying.
// Data reaches the page through textContent and attributes only, never through innerHTML.

"use strict";

// ── elements ──────────────────────────────────────────────────────────────────────────────────

/** el("td", {class: "number", "data-unit": 3}, "0.5"); null and false children are left out. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

const byId = (id) => document.getElementById(id);

// ── numbers ───────────────────────────────────────────────────────────────────────────────────

const DIGITS = 6;

/** Six decimals, a true minus sign, and powers of ten where six decimals would show nothing. */
function number(x, digits = DIGITS) {
  if (x === null || x === undefined || Number.isNaN(x)) return "–";
  if (x === Infinity) return "∞";
  if (x === -Infinity) return "−∞";
  const size = Math.abs(x);
  const tiny = size > 0 && size < 0.5 * 10 ** -DIGITS;
  const text = tiny || size >= 1e7 ? x.toExponential(3) : x.toFixed(digits);
  return (/^-0(\.0*)?$/.test(text) ? text.slice(1) : text).replaceAll("-", "−");
}

/** The number without the zeros at its end: 1.3, not 1.300000. */
function shortNumber(x, digits = DIGITS) {
  const text = number(x, digits);
  return /e/.test(text) || !text.includes(".") ? text : text.replace(/\.?0+$/, "");
}

/** How many decimals, at least one, show these inputs as they were given (0.3 stays 0.3). */
function decimalsNeeded(rows) {
  let needed = 1;
  for (const row of rows) {
    for (const x of row ?? []) {
      const decimals = (shortNumber(x).split(".")[1] ?? "").length;
      needed = Math.max(needed, decimals);
      if (needed >= DIGITS) return DIGITS;
    }
  }
  return needed;
}

function percent(share) {
  if (share > 0 && share < 0.0005) return "< 0.1\u202f%";
  return `${(share * 100).toFixed(1)}\u202f%`;
}

/** "[1, 1.1, 1.2]", or the first few numbers and an ellipsis. */
function vectorText(vector, first = 3, digits = 3) {
  const shown = vector.slice(0, first).map((x) => shortNumber(x, digits));
  return `[${shown.join(", ")}${vector.length > first ? ", …" : ""}]`;
}

// ── names ─────────────────────────────────────────────────────────────────────────────────────

/** What to call a piece of text on the page; whitespace would be invisible. */
function visibleText(text) {
  return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/^\s+$/, "␣") || "∅";
}

/** At most so many letters, the last one an ellipsis. */
function cutText(text, most = 32) {
  const letters = [...text];
  return letters.length > most ? `${letters.slice(0, most - 2).join("")}…` : text;
}

// ── bars: always beside the number they draw, hence hidden from screen readers ─────────────────

/** The next round number a full bar can stand for, so that bars of two rows can be compared. */
function fullBar(largest) {
  const steps = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1];
  return steps.find((step) => largest <= step * 1.0000001) ?? largest;
}

/** A bar from 0; `mark` draws a second number as a notch on the same scale. */
function shareBar(share, full, { kind = "share", mark = null } = {}) {
  const at = (x) => `${Math.min(100, (100 * x) / full)}%`;
  return el("span", { class: `bar ${kind}`, "aria-hidden": "true" },
    el("i", { class: "fill", "--size": at(share) }),
    mark === null ? null : el("i", { class: "mark", "--at": at(mark) }));
}

/** A bar to the left or right of 0, in a frame that runs from `low` ≤ 0 to `high` ≥ 0. */
function signedBar(x, low, high) {
  const span = high - low || 1;
  const zero = (100 * -low) / span;
  const size = (100 * Math.abs(x ?? 0)) / span;
  return el("span", { class: "bar signed", "aria-hidden": "true", "--zero": `${zero}%` },
    el("i", {
      class: x < 0 ? "fill minus" : "fill plus",
      "--from": `${x < 0 ? zero - size : zero}%`,
      "--size": `${size}%`,
    }),
    el("i", { class: "zero" }));
}

/** A vector as a row of small columns on a line; two paths, however long the vector. `range` is
 *  what all strips of one table share, so that they can be compared: see `rangeOf`. */
function vectorStrip(vector, range, { width = 112, height = 18 } = {}) {
  const { largest, signed } = range;
  const base = signed ? height / 2 : height - 1;
  const room = base - 1;
  const step = width / Math.max(1, vector.length);
  const thick = Math.max(0.75, Math.min(step * 0.72, 16));
  let plus = "";
  let minus = "";
  vector.forEach((x, d) => {
    const size = largest > 0 ? Math.min(1, Math.abs(x) / largest) * room : 0;
    const left = (d * step + (step - thick) / 2).toFixed(2);
    const column = `M${left} ${base}h${thick.toFixed(2)}v${(x < 0 ? size : -size).toFixed(2)}h${(-thick).toFixed(2)}z`;
    if (x < 0) minus += column;
    else plus += column;
  });
  return svg("svg", { class: "strip", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
    svg("path", { class: "zero", d: `M0 ${base}H${width}` }),
    svg("path", { class: "plus", d: plus }),
    svg("path", { class: "minus", d: minus }));
}

/** The largest size among the numbers of these vectors, and whether any is below 0. */
function rangeOf(vectors) {
  let largest = 0;
  let signed = false;
  for (const vector of vectors) {
    for (const x of vector ?? []) {
      largest = Math.max(largest, Math.abs(x));
      if (x < 0) signed = true;
    }
  }
  return { largest, signed };
}

// ── tables ────────────────────────────────────────────────────────────────────────────────────

/**
 * A table with caption and scoped headers. The first column heads its row.
 *   columns  [{ key, label, kind: "number" | "drawing" | "text" | "wide", of: (row) => text or node,
 *               attributes?: (row) => ({}), foot?: text or node }]
 *   groups   [{ label, span, key? }]   an optional head row above the labels
 *   rowAttributes (row) => ({})
 */
function buildTable({ caption, columns, rows, groups = null, rowAttributes = () => ({}), foot = false, attributes = {} }) {
  const cell = (column, content, extra = {}) => {
    const first = column === columns[0];
    return el(first ? "th" : "td", {
      scope: first ? "row" : null,
      class: column.kind ?? null,
      "data-col": column.key,
      ...extra,
    }, content);
  };
  const head = el("thead", {},
    groups && el("tr", { class: "groups" }, groups.map(({ label, span, key }) =>
      label ? el("th", { scope: "colgroup", colspan: span }, label) : el("td", { colspan: span, "data-col": key }))),
    el("tr", {}, columns.map((column) => column.label === ""
      ? el("td", { class: column.kind, "data-col": column.key })
      : el("th", { scope: "col", class: column.kind ?? null, "data-col": column.key }, column.label))));
  const body = el("tbody", {}, rows.map((row) => el("tr", rowAttributes(row),
    columns.map((column) => cell(column, column.of(row), column.attributes?.(row))))));
  return el("table", attributes,
    el("caption", {}, el("span", {}, caption)),
    head,
    body,
    foot && el("tfoot", {}, el("tr", {}, columns.map((column) => cell(column, column.foot ?? "", column.footAttributes)))));
}

/** Puts a new table where the old one was; the frame around it keeps its place and scrolling. */
function replaceTable(frame, table) {
  const old = frame.querySelector("table");
  if (old) old.replaceWith(table);
  else frame.append(table);
}

/** A table wider than its frame can be scrolled by keyboard too, and says what it is. */
function markScrolling() {
  const frames = [...document.querySelectorAll(".frame")];
  const scrolling = frames.map((frame) => frame.scrollWidth > frame.clientWidth + 1); // all read before any is written
  for (const [index, frame] of frames.entries()) {
    if (scrolling[index]) {
      frame.tabIndex = 0;
      frame.setAttribute("role", "group");
      frame.setAttribute("aria-label", frame.querySelector("caption").textContent);
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) frame.removeAttribute(name);
    }
  }
}

const MANY_ROWS = 64;
const HEAVIEST_ROWS = 32;

/** The indices to show: all, or the heaviest with those of `always`, in text order within. */
function heaviest(weights, always = []) {
  if (weights.length <= MANY_ROWS) return weights.map((_, index) => index);
  const order = weights.map((_, index) => index).sort((a, b) => weights[b] - weights[a] || a - b);
  const shown = new Set(always);
  for (const index of order) {
    if (shown.size >= HEAVIEST_ROWS) break;
    shown.add(index);
  }
  return [...shown].sort((a, b) => a - b);
}

// ── keyboard ──────────────────────────────────────────────────────────────────────────────────

/** One Tab stop for a list of words; arrows, Home and End move, and moving chooses. */
function rovingList(list, items, choose) {
  const indexOf = (event) => items.indexOf(event.target.closest("[role=option]"));
  list.addEventListener("click", (event) => {
    const index = indexOf(event);
    if (index >= 0) choose(index, true);
  });
  list.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const index = indexOf(event);
    if (index < 0) return;
    const forward = getComputedStyle(list).direction === "rtl" ? -1 : 1;
    const target = {
      ArrowRight: () => index + forward,
      ArrowLeft: () => index - forward,
      ArrowDown: () => onOtherLine(items, index, 1),
      ArrowUp: () => onOtherLine(items, index, -1),
      Home: () => 0,
      End: () => items.length - 1,
    }[event.key]?.();
    if (target === undefined) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(items.length - 1, target)), true);
  });
}

/** The item of the next line (or the one before) that is nearest to straight below (above). */
function onOtherLine(items, index, direction) {
  const here = items[index].getBoundingClientRect();
  let best = index;
  let bestLine = Infinity;
  let bestAside = Infinity;
  items.forEach((item, other) => {
    const box = item.getBoundingClientRect();
    const line = direction * (box.top - here.top);
    if (line < here.height / 2) return;
    const aside = Math.abs(box.left + box.width / 2 - here.left - here.width / 2);
    if (line < bestLine - 4 || (line < bestLine + 4 && aside < bestAside)) {
      [best, bestLine, bestAside] = [other, line, aside];
    }
  });
  return best;
}

/** One Tab stop for the number cells of a table; arrows, Home and End walk through them. */
function rovingGrid(frame, selector) {
  frame.addEventListener("keydown", (event) => {
    const here = event.target.closest(selector);
    if (!here || event.altKey || event.ctrlKey || event.metaKey) return;
    const rows = [...frame.querySelectorAll("tr")]
      .map((row) => [...row.querySelectorAll(selector)])
      .filter((row) => row.length);
    const y = rows.findIndex((row) => row.includes(here));
    const x = rows[y].indexOf(here);
    const step = {
      ArrowRight: [y, x + 1],
      ArrowLeft: [y, x - 1],
      ArrowDown: [y + 1, x],
      ArrowUp: [y - 1, x],
      Home: [y, 0],
      End: [y, rows[y].length - 1],
    }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = rows[step[0]]?.[step[1]];
    if (!next) return;
    here.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

// ── small services ────────────────────────────────────────────────────────────────────────────

/** Speaks to screen readers after things have been still for a moment: a slider would flood them. */
function announcer(node, delay = 300) {
  let timer = 0;
  return (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      node.textContent = text;
    }, delay);
  };
}

/** Runs `work` at most once per drawn frame. */
function oncePerFrame(work) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      work();
    });
  };
}

function copyButton(source) {
  const button = el("button", { type: "button", class: "quiet copy" }, "Copy");
  let timer = 0;
  button.addEventListener("click", async () => {
    let copied = true;
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      // no clipboard here (a file opened without permission): select it, so that Ctrl+C works
      getSelection().selectAllChildren(source);
      copied = document.execCommand("copy");
    }
    button.textContent = copied ? "Copied" : "Selected: press Ctrl+C";
    clearTimeout(timer);
    timer = setTimeout(() => {
      button.textContent = "Copy";
    }, 2000);
  });
  return button;
}

/** The foot of a page: how it was made, and what else there is to say. */
function buildRecipe(recipe, remarks) {
  for (const [name, value] of recipe) {
    const code = name === "command" ? el("code", { id: "command" }, value) : null;
    byId("recipe").append(el("div", {}, el("dt", {}, name), el("dd", { "data-row": name }, code ?? value, code && copyButton(code))));
  }
  const notes = byId("notes");
  notes.hidden = remarks.length === 0;
  notes.querySelector("ul").append(...remarks.map((remark) => el("li", {}, remark)));
}
