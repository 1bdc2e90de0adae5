// Part 1, left: the passages in the order of the text, with their shares.

"use strict";

function drawPassages() {
  const frame = byId("passages");
  byId("no-passages").hidden = true;
  if (seen.passages === null) {
    frame.replaceChildren();
    sayMissing("no-passages", "No passages were read", ["segments"]);
    return;
  }
  const rows = seen.passages.map((share, s) => ({ s, share, label: cutText(segments[s].label, 60) || "␣" }));
  const sum = seen.passages.reduce((a, b) => a + b, seen.first ?? 0);
  const chosen = state.allPassages ? rows : heaviest(seen.passages, state.passage === null ? [] : [state.passage]).map((s) => rows[s]);
  const shown = [...chosen];
  if (seen.first !== null && !state.exclude) {
    shown.unshift({ s: null, share: seen.first, label: `first token ${tokenName(0)}` });
  }
  const rest = 1 - sum;
  const marks = 1e-3; // below what a per cent with one decimal shows
  if (rest > marks) shown.push({ s: null, share: rest, label: "outside all passages" });
  // what stands apart may be so heavy that the passages would show nothing on its scale
  const most = (of) => fullBar(Math.max(...of.map(({ share }) => share), 1e-9));
  const full = most(shown) <= 4 * most(rows) ? most(shown) : most(rows);
  replaceTable(frame, buildTable({
    caption: [`Share of the weight of ${group().name}, ${scopeName()}`, state.exclude && " without the first token"],
    columns: [
      { key: "label", label: "passage", of: ({ s, label }) => (s === null ? label
        : el("button", { type: "button", class: "link", "data-passage": s, title: label, "aria-pressed": s === state.passage ? "true" : "false" }, `${s + 1}. ${label}`)) },
      { key: "tokens", label: "tokens", kind: "number", of: ({ s }) => (s === null ? "" : segments[s].tokens) },
      { key: "bar", label: "", kind: "wide drawing", of: ({ s, share }) => (s === null && share > full
        ? el("span", { class: "muted" }, `a full bar is ${shortNumber(100 * full)}\u202f%`)
        : shareBar(share, full, { kind: s === null ? "apart" : "share" })) },
      { key: "share", label: "share", kind: "number strong", of: ({ share }) => percent(share) },
    ],
    rows: shown,
    rowAttributes: ({ s }) => ({ "data-row": s, class: s === null ? "apart" : s === state.passage ? "chosen" : null }),
  }));
  drawMore(frame, rows.length, chosen.length);
}

function drawMore(frame, all, shown) {
  frame.querySelector(".more")?.remove();
  if (all === shown && !state.allPassages) return;
  if (state.allPassages && all <= MANY_ROWS) return;
  const button = el("button", { type: "button", class: "quiet more" },
    state.allPassages ? `Show the heaviest ${HEAVIEST_ROWS}` : `Show all ${all} passages`);
  button.addEventListener("click", () => {
    state.allPassages = !state.allPassages;
    drawPassages();
    frame.querySelector(".more")?.focus();
  });
  frame.append(button);
}

function scopeName() {
  if (state.scope === "head") return headName();
  const of = state.scope === "layer" ? `layer ${layers[state.layer]}, ` : "";
  const many = state.scope === "layer" ? heads.length : headCount;
  return `${of}mean over ${many} head${many === 1 ? "" : "s"}`;
}

/** The heaviest passage, as a sentence. */
function drawSummary() {
  byId("looker").textContent = group().name;
  const parts = [];
  if (seen.left !== null && !state.exclude) parts.push(`${percent(seen.left)} of the weight rests on the first token ${tokenName(0)}`);
  if (state.exclude) parts.push(`without the first token, which took ${percent(seen.left)}`);
  if (seen.passages?.length) {
    const s = seen.passages.reduce((best, share, at) => (share > seen.passages[best] ? at : best), 0);
    parts.push(`passage ${s + 1} of ${segments.length} takes most, ${percent(seen.passages[s])}: “${cutText(segments[s].label, 60)}”`);
  } else if (seen.tokens) {
    const t = seen.tokens.reduce((best, share, at) => (at > 0 && share > seen.tokens[best] ? at : best), Math.min(1, count - 1));
    parts.push(`token ${t} ${tokenName(t)} takes most, ${percent(seen.tokens[t])}`);
  }
  const text = `${parts.join("; ")}`;
  byId("summary").textContent = text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "";
  say(`${group().name}, ${scopeName()}: ${text}`);
}

function choosePassage(s, scroll) {
  state.passage = s === state.passage && scroll ? null : s;
  byId("passage").value = String(state.passage ?? "");
  drawPassages();
  markPassage(scroll);
  if (state.measure === "passage") drawHeads();
}

function watchPassages() {
  byId("passages").addEventListener("click", (event) => {
    const button = event.target.closest("[data-passage]");
    if (!button) return;
    const s = Number(button.dataset.passage);
    choosePassage(s, true);
    byId("passages").querySelector(`[data-passage="${s}"]`)?.focus({ preventScroll: true });
  });
}
