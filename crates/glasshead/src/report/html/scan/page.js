// The page of `glasshead scan --format html`, and of what was captured in Python. The files stand in one script in this order: parts.js, state.js,
// text.js, passages.js, heads.js, map.js, page.js.

"use strict";

/** Part 1 anew; what is unpacked for it may come later than another choice. */
async function drawShares() {
  const wanted = JSON.stringify([state.group, state.scope, state.layer, state.head, state.exclude]);
  drawShares.wanted = wanted;
  const next = await shares();
  if (drawShares.wanted !== wanted) return;
  seen = next;
  drawExclude();
  drawPassages();
  drawText();
  drawSummary();
}

function drawExclude() {
  const box = byId("exclude");
  const known = group().first !== null;
  box.disabled = !known;
  const note = byId("exclude-note");
  if (!known) {
    sayMissing("exclude-note", "Its weight was not read", ["first_weight"]);
  } else if (state.exclude) {
    note.textContent = `Its ${percent(seen.left)} are taken out, and the shares of passages and text are scaled up so that the rest adds to 100\u202f%.`;
  } else {
    note.textContent = "Many heads rest on it whatever it says; it is shown apart from its passage.";
  }
}

function drawScopes() {
  const options = [["all", headCount === 1 ? "the one head" : `all ${headCount}`]];
  if (layers.length > 1 && heads.length > 1) options.push(["layer", `layer ${layers[state.layer]}`]);
  if (headCount > 1) options.push(["head", headName()]);
  buildChoices("scopes", options, state.scope, (scope) => {
    state.scope = scope;
    drawShares();
  });
}

function chooseGroup(at) {
  state.group = Number(at);
  drawMeasures();
  drawShares();
  drawHeads();
  drawHead();
}

/** The place of `#layer=…&head=…`, or null. */
function fromAddress() {
  const match = /^#layer=(\d+)&head=(\d+)$/.exec(location.hash);
  if (!match) return null;
  const [layer, head] = [layers.indexOf(Number(match[1])), heads.indexOf(Number(match[2]))];
  return layer < 0 || head < 0 ? null : layer * heads.length + head;
}

function buildFoot() {
  byId("source").textContent = `${data.model} · ${count} tokens · ${layers.length} × ${heads.length} heads`;
  byId("weight-note").textContent = data.weight;
  buildRecipe(data.recipe, [
    ...data.missing.map(([name, list]) => `Not read: ${name} (add ${ask([list])}).`),
    ...data.notes,
  ]);
}

async function start() {
  buildFoot();
  if (groups.some((one) => one.segments)) segmentBytes = await unpack("segments");
  seen = await shares();
  if (seen.passages?.length) {
    state.passage = seen.passages.reduce((best, share, s) => (share > seen.passages[best] ? s : best), 0);
  }
  ({ layer: state.layer, head: state.head } = allHeads[fromAddress() ?? firstHead()]);
  if (group().queries !== null) chooseQueryNear(group().queries.at(-1));
  buildChoices("groups", groups.map(({ name }, at) => [String(at), name]), String(state.group), chooseGroup);
  byId("exclude").addEventListener("change", () => {
    state.exclude = byId("exclude").checked;
    drawShares();
  });
  buildText();
  watchPassages();
  watchHeads();
  watchMap();
  watchTop();
  drawScopes();
  drawMeasures();
  byId("passage").value = String(state.passage ?? "");
  drawExclude();
  drawPassages();
  drawText();
  drawSummary();
  markPassage(state.passage > 0);
  drawHeads();
  document.documentElement.dataset.answers = "true"; // parts 1 and 2; the head may still be on its way
  await drawHead();
  if (data.map && group().queries === null) chooseQueryNear((cell.row + 0.5) * data.map.block);
  addEventListener("hashchange", () => {
    const at = fromAddress();
    if (at !== null && at !== place()) chooseHead(at);
  });
  addEventListener("resize", oncePerFrame(markScrolling));
  markScrolling();
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  const note = byId("broken");
  note.hidden = false;
  note.textContent = `This page could not be drawn (${error.message}). It needs a browser of 2023 or later, which can unpack deflated data.`;
  throw error;
});
