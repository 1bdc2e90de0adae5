#!/usr/bin/env python3
"""Checks a page of `glasshead explain --format html` in headless Chromium, as a reader would use it.

    check.py PAGE.html [--screenshot OUT.png] [--dark] [--width W] [--height H]

Clicks, keys, slider, Tab order; every number of the four steps against a second computation in
Python; light and dark contrast; 360 px; no console error; no request leaves the page. With
--screenshot the fresh page is pictured first (the whole page; with --height just the first screen).

Python's standard library and a Chromium are enough. Exit 0: all passed, 1: something failed,
2: wrong arguments or no Chromium.
"""

import argparse
import json
import math
import pathlib
import re
import shlex
import sys

from browser import Browser, BrowserError, find_chromium

HALF_DIGIT = 0.5e-6  # the page prints six decimals
WORKED_SUM = (1.256971, 1.356971, 1.456971)


# ── the same numbers by another hand ────────────────────────────────────────────────────────────

def attend(data, focus, temperature):
    """Scores, weights, contributions and output of one focus unit, straight from the definition."""
    units = data["units"]
    queries = units[focus]["pieces"]
    given = data["given_scores"] if data["given_scores"] and data["given_scores"]["focus"] == focus else None
    rows = []
    for i in queries:
        row = {}
        for j in range(len(data["k"])):
            if given:
                if given["scores"][j] is not None:
                    row[j] = given["scores"][j] / temperature
            elif not (data["causal"] and j > i):
                row[j] = math.fsum(a * b for a, b in zip(data["q"][i], data["k"][j])) * data["scale"] / temperature
        top = max(row.values(), default=0)
        total = math.fsum(math.exp(s - top) for s in row.values())
        rows.append((row, top + math.log(total) if row else -math.inf))
    scores, weights, contributions = [], [], []
    dim = len(data["v"][0])
    for unit in units:
        pairs = [(row[j], lse, j) for row, lse in rows for j in unit["pieces"] if j in row]
        shares = [(math.exp(s - lse) / len(rows), j) for s, lse, j in pairs]
        weight = math.fsum(p for p, _ in shares)
        weights.append(weight)
        contributions.append([math.fsum(p * data["v"][j][d] for p, j in shares) for d in range(dim)])
        if not pairs:
            scores.append(None)
        elif len(rows) == 1 and len(unit["pieces"]) == 1:
            scores.append(pairs[0][0])
        else:
            mean_lse = sum(lse for _, lse in rows) / len(rows)
            # through log-sum-exp, as weight itself may underflow to 0
            top = max(s - lse for s, lse, _ in pairs)
            inside = math.fsum(math.exp(s - lse - top) for s, lse, _ in pairs)
            scores.append(top + math.log(inside / len(rows)) + mean_lse)
    output = [math.fsum(column) for column in zip(*contributions)]
    return scores, weights, contributions, output


def even_shares(data, focus):
    """What the weights tend to when the temperature grows: every visible piece counts the same."""
    given = data["given_scores"] if data["given_scores"] and data["given_scores"]["focus"] == focus else None
    pieces = range(len(data["k"]))
    seen = [[j for j in pieces if (given["scores"][j] is not None if given else not data["causal"] or j <= i)]
            for i in data["units"][focus]["pieces"]]
    if not any(seen):
        return [0.0] * len(data["units"])
    return [sum(sum(j in row for j in unit["pieces"]) / len(row) for row in seen if row) / len(seen) for unit in data["units"]]


def near(shown, expected, slack=2 * HALF_DIGIT):
    return shown is not None and abs(shown - expected) <= slack + 1e-3 * (abs(expected) if abs(expected) >= 1e7 else 0)


# ── reading the page ────────────────────────────────────────────────────────────────────────────

READ_COLUMN = """(() => [...document.querySelectorAll('#step-%d-table tbody tr[data-unit]')].map(line => {
  const cell = line.querySelector('[data-col="%s"]');
  return [Number(line.dataset.unit), cell ? cell.textContent : null];
}))()"""


def to_number(text):
    """A number as the page prints it; None for masked, merged and empty cells."""
    text = (text or "").replace("\u2212", "-").replace("\u202f", "").replace("%", "")
    try:
        return float(text)
    except ValueError:
        return None


class Page:
    def __init__(self, browser, path):
        self.browser = browser
        self.url = path.resolve().as_uri()
        html = path.read_text(encoding="utf-8")
        match = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
        if not match:
            raise BrowserError(f"{path}: no data in this page")
        self.data = json.loads(match.group(1))

    def open(self, fragment=""):
        self.browser.open("about:blank")
        self.browser.open(self.url + fragment)
        self.browser.wait_for("document.documentElement?.dataset.ready === 'true'", "the page is drawn")
        self.browser.settle()

    def column(self, step, key):
        """{unit: number} of one column of a step's table, as displayed."""
        return {u: to_number(text) for u, text in self.browser.evaluate(READ_COLUMN % (step, key))}

    def foot(self, step, key):
        return to_number(self.text(f'#step-{step}-table tfoot [data-col="{key}"]'))

    def text(self, selector):
        return self.browser.evaluate(f"document.querySelector({json.dumps(selector)})?.textContent")

    def focus(self):
        chosen = self.browser.evaluate(
            "[...document.querySelectorAll('#sentence [aria-selected=true]')].map(node => Number(node.dataset.unit))")
        return chosen[0] if len(chosen) == 1 else None

    def show_everything(self):
        """Every row and every column, so that sums can be taken over what is displayed."""
        self.browser.evaluate(
            "(() => { for (const button of document.querySelectorAll('.more, #columns'))"
            " if (!button.hidden && /all/.test(button.textContent)) button.click(); })()")
        self.browser.settle()

    def set_temperature(self, temperature):
        self.browser.evaluate(
            "(() => { const slider = document.getElementById('temperature'); slider.value = Math.log10(%r);"
            " slider.dispatchEvent(new Event('input', {bubbles: true})); })()" % temperature)
        self.browser.settle()
        return to_number(self.text("#temperature-value"))


# ── the checks ──────────────────────────────────────────────────────────────────────────────────

class Checks:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    def that(self, what, truth, detail=""):
        if truth:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED  {what}" + (f": {detail}" if detail != "" else ""))

    def equal(self, what, got, expected):
        self.that(what, got == expected, f"{got!r} instead of {expected!r}")


def check_four_steps(page, checks, temperature, where):
    """Every number of steps 2 to 4 as displayed, against a computation of our own."""
    focus = page.focus()
    scores, weights, contributions, output = attend(page.data, focus, temperature)
    where = f"{where}, focus {focus}"

    shown_scores = page.column(2, "score")
    wrong = [(u, shown, scores[u]) for u, shown in shown_scores.items()
             if scores[u] is not None and not near(shown, scores[u])]
    checks.that(f"{where}: scores of step 2", shown_scores and not wrong, wrong[:2])
    masked = [u for u in shown_scores if scores[u] is None]
    checks.that(f"{where}: masked words say so", all(shown_scores[u] is None for u in masked), masked[:3])

    shares = page.column(3, "share")
    wrong = [(u, shown, weights[u]) for u, shown in shares.items() if not near(shown, weights[u])]
    checks.that(f"{where}: shares of step 3", shares and not wrong, wrong[:2])
    total = 1.0 if any(score is not None for score in scores) else 0.0
    checks.that(f"{where}: the weights add to {total:g}", near(page.foot(3, "share"), total), page.foot(3, "share"))
    if len(shares) == len(weights):
        added = sum(shares.values())
        checks.that(f"{where}: the weights shown add to {total:g}", abs(added - total) <= HALF_DIGIT * len(shares), added)

    powers, power_sum = page.column(3, "exp"), page.foot(3, "exp")
    if power_sum:
        wrong = [(u, power, shares[u]) for u, power in powers.items()
                 if abs(power / power_sum - shares[u]) > 4 * HALF_DIGIT]
        checks.that(f"{where}: share = e^(score − max) ÷ sum, from what is shown", not wrong, wrong[:2])

    dims = page.browser.evaluate("document.querySelectorAll('#step-4-table tfoot [data-dim]').length")
    for d in range(dims):
        column = page.column(4, f"c{d}")
        wrong = [(u, shown, contributions[u][d]) for u, shown in column.items() if not near(shown, contributions[u][d])]
        if wrong or not near(page.foot(4, f"c{d}"), output[d]):
            checks.that(f"{where}: column {d + 1} of step 4", False, wrong[:2] or page.foot(4, f"c{d}"))
            return
        if len(column) == len(weights):
            added = sum(column.values())
            if abs(added - page.foot(4, f"c{d}")) > HALF_DIGIT * (len(column) + 1):
                checks.that(f"{where}: column {d + 1} of step 4 adds to its sum", False, added)
                return
    checks.that(f"{where}: step 4, {dims} columns and their sums", dims > 0)

    influence = page.column(4, "influence")
    lengths = page.column(4, "length")
    wrong = [u for u, shown in influence.items()
             if lengths[u] is not None and not near(shown, math.hypot(*contributions[u]))]
    checks.that(f"{where}: share × |v| is the share times the length of the value", influence and not wrong, wrong[:3])


def check_structure(page, checks):
    browser, data = page.browser, page.data
    checks.equal("as many options as units", browser.evaluate("document.querySelectorAll('#sentence [role=option]').length"), len(data["units"]))
    checks.equal("the focus of the data is chosen", page.focus(), data["focus"])
    tables = browser.evaluate(
        "[...document.querySelectorAll('.step .frame table')].map(table => !!table.caption?.textContent.trim()"
        " && [...table.tBodies[0].rows].every(row => row.querySelectorAll('th[scope=row]').length === 1)"
        " && [...table.tHead.querySelectorAll('th')].every(th => th.scope))")
    checks.that("four real tables with captions and scoped heads", len(tables) == 4 and all(tables), tables)
    checks.that("the recipe is at the foot", browser.evaluate("document.querySelectorAll('#recipe dt').length") == len(data["recipe"]))
    command = next((value for name, value in data["recipe"] if name == "command"), None)
    checks.equal("the command can be copied", page.text("#command"), command)
    browser.wait_for("document.getElementById('live').textContent !== ''", "the summary is announced")
    checks.that("the summary is announced", "weight" in page.text("#live") or "masked" in page.text("#live"))
    given = data.get("given_scores")
    score = "score_given" if given and given["focus"] == data["focus"] else "score"
    for step, key in ((1, "encode"), (2, score), (3, "softmax"), (4, "values")):
        checks.equal(f"step {step} says what it is for", page.text(f"#step-{step} .says"), data["steps"][key])
    claimed = data["claimed"]
    checks.equal("the finding on the claimed weights", browser.evaluate("!document.getElementById('finding').hidden"),
                 bool(claimed and claimed["focus"] == data["focus"]))
    if claimed and claimed["focus"] == data["focus"]:
        checks.equal("the finding's words", page.text("#finding"), claimed["finding"])
        checks.that("the claimed weights and their sum", near(page.foot(3, "claimed"), sum(claimed["weights"])))


def check_worked_example(page, checks):
    data = page.data
    given = data["given_scores"]
    if data["source"]["kind"] != "example" or not given or data["units"][given["focus"]]["text"] != "jumps" or data["temperature"] != 1:
        return
    if None in given["scores"]:
        return
    fox = next(u for u, unit in enumerate(data["units"]) if unit["text"] == "fox")
    checks.equal("worked example: fox has 0.165573", page.column(3, "share").get(fox), 0.165573)
    checks.equal("worked example: the new vector", tuple(page.foot(4, f"c{d}") for d in range(3)), WORKED_SUM)


def check_click_and_keys(page, checks):
    browser, last = page.browser, len(page.data["units"]) - 1
    start = page.focus()
    if last < 1:
        return
    other = 0 if start != 0 else 1
    before = browser.evaluate("['1','2','3','4'].map(n => document.querySelector(`#step-${n}-table`).textContent)")
    browser.click(f'#sentence [data-unit="{other}"]')
    checks.equal("a click moves the focus", page.focus(), other)
    after = browser.evaluate("['1','2','3','4'].map(n => document.querySelector(`#step-${n}-table`).textContent)")
    checks.that("a click changes the four steps", all(a != b for a, b in zip(before, after)))
    checks.equal("the address keeps the focus word", browser.evaluate("location.hash"), f"#focus={other}")
    checks.that("the question names the focus word", page.data["units"][other]["text"].strip()[:30] in page.text("#question"))
    check_four_steps(page, checks, page.data["temperature"], "after a click")
    given = page.data["given_scores"]
    if given:
        checks.that("a line says for which word scores are given",
                    browser.evaluate("!document.getElementById('given-note').hidden"))

    def keyboard_is_on(u):
        return browser.evaluate(f"document.activeElement === document.querySelector('#sentence [data-unit=\"{u}\"]')")

    rightward = -1 if browser.evaluate("getComputedStyle(document.getElementById('sentence')).direction") == "rtl" else 1
    moves = {"Home": lambda u: 0, "End": lambda u: last, "ArrowRight": lambda u: u + rightward, "ArrowLeft": lambda u: u - rightward}
    expected = other
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowRight", "ArrowLeft", "Home", "ArrowLeft", "ArrowRight"):
        expected = max(0, min(last, moves[key](expected)))
        browser.press(key)
        checks.that(f"{key} goes to word {expected}", page.focus() == expected and keyboard_is_on(expected), page.focus())
    browser.press("Home")
    browser.evaluate("document.getElementById('live').textContent = ''")
    browser.press("End")
    browser.wait_for("document.getElementById('live').textContent !== ''", "a change of focus is announced")
    checks.that("a change of focus is announced", True)
    check_four_steps(page, checks, page.data["temperature"], "after End")

    page.open(f"#focus={last}")
    checks.equal("an address with a focus word opens there", page.focus(), last)
    page.open("#focus=999999")
    checks.equal("an address with a wrong focus word opens at the given one", page.focus(), page.data["focus"])


def check_every_word(page, checks):
    """All words of a short text, an even sample of a long one."""
    count = len(page.data["units"])
    for u in range(0, count, max(1, count // 12)):
        page.browser.evaluate(f"location.hash = '#focus={u}'")
        page.browser.wait_for(
            f"document.querySelector('#sentence [data-unit=\"{u}\"]').getAttribute('aria-selected') === 'true'", "focus by address")
        page.browser.settle()
        check_four_steps(page, checks, page.data["temperature"], "by address")


def check_temperature(page, checks):
    browser, data = page.browser, page.data
    before = page.column(3, "share")
    hot = page.set_temperature(10)
    shares = page.column(3, "share")
    checks.equal("the slider's value is shown", hot, 10)
    both = [u for u in shares if u in before]
    limits = even_shares(data, page.focus())
    far = max(abs(before[u] - limits[u]) for u in both)
    scores = [score for score in attend(data, page.focus(), hot)[0] if score is not None]
    if far > 1e-3 and hot > 2 * data["temperature"]:
        expected = attend(data, page.focus(), hot)[1]
        if any(not near(before[u], expected[u]) for u in both):
            checks.that("the slider changes the shares", any(not near(shares[u], before[u]) for u in both))
        if max(scores) - min(scores) < 2:  # wilder scores stay uneven even at 10
            checks.that("a high temperature evens the shares", max(abs(shares[u] - limits[u]) for u in both) < 0.5 * far)
    check_four_steps(page, checks, hot, "at temperature 10")
    cold = page.set_temperature(0.1)
    check_four_steps(page, checks, cold, f"at temperature {cold:g}")
    browser.click("#temperature-reset")
    checks.equal("reset brings the first shares back", page.column(3, "share"), before)
    checks.equal("reset shows the first temperature", page.text("#temperature-value"), f"{data['temperature']:g}")
    browser.evaluate("document.getElementById('temperature').focus()")
    browser.press("ArrowRight")
    moved = to_number(page.text("#temperature-value"))
    checks.that("an arrow key moves the slider", moved != data["temperature"], moved)
    browser.click("#temperature-reset")


def check_recipe(page, checks):
    """The recipe tells what is seen: after a click and a pull of the slider its command is another one."""
    browser, data = page.browser, page.data
    page.open()
    made = page.text("#command")

    def told(flag, words):
        return words[words.index(flag) + 1] if flag in words else None

    for other in {0, len(data["units"]) - 1} - {data["focus"]}:
        browser.click(f'#sentence [data-unit="{other}"]')
        words = shlex.split(page.text("#command"))
        checks.equal("the command names the word that was clicked", told("--focus", words), str(other))
        given = data["given_scores"] and data["given_scores"]["focus"] == other
        checks.that("scores and claims stay with their word", "--scores" not in words and "--claimed" not in words, words)
        checks.equal("the recipe knows whether scores are scaled",
                     page.text("#recipe [data-row=scale]").startswith("none"), bool(given))
        if data["source"]["kind"] == "model":
            checks.equal("the head is not chosen anew", told("--head", words), str(data["source"]["head"]))
    page.set_temperature(0.1)
    checks.equal("the recipe's temperature is the slider's", page.text("#recipe [data-row=temperature]"), "0.1")
    words = shlex.split(page.text("#command"))
    checks.equal("the command has the slider's temperature", told("--temperature", words), "0.1")
    checks.equal("and has it once", words.count("--temperature"), 1)
    checks.equal("the file stays", told("-o", words), told("-o", shlex.split(made)))
    browser.click("#temperature-reset")
    browser.click(f'#sentence [data-unit="{data["focus"]}"]')
    checks.equal("back where it began, the command is the one that made the page", page.text("#command"), made)


def check_tab_order(page, checks):
    """From the top of the page Tab alone reaches the sentence (one stop), the slider, the products."""
    browser = page.browser
    browser.evaluate("(() => { document.activeElement?.blur(); scrollTo(0, 0); })()")
    browser.evaluate("getSelection().removeAllRanges()")
    stops = []
    for _ in range(60):
        browser.press("Tab")
        stop = browser.evaluate(
            "(() => { const node = document.activeElement; if (!node || node === document.body) return null;"
            " if (node.matches('#sentence [role=option]')) return 'sentence';"
            " if (node.matches('td.traceable')) return 'products'; return node.id || node.className || node.tagName; })()")
        if stop is None:
            break
        stops.append(stop)
    checks.equal("Tab stops once in the sentence", stops.count("sentence"), 1)
    checks.that("Tab reaches the slider", "temperature" in stops, stops)
    checks.equal("Tab stops once among the products of step 4", stops.count("products"), 1)


def check_trace(page, checks):
    browser, data = page.browser, page.data
    _, weights, contributions, _ = attend(data, page.focus(), data["temperature"])
    first = '#step-4-table tbody tr[data-unit] td.traceable'
    u = browser.evaluate(f"Number(document.querySelector({json.dumps(first)}).closest('tr').dataset.unit)")
    browser.hover(first)
    line = page.text("#trace").replace("\u2212", "-")
    match = re.search(r": (\S+) × (\S+) = (\S+)$", line)
    if weights[u] > 0:
        checks.that("pointing at a product says what it is made of", match, line)
        if match:
            weight, value, product = map(float, match.groups())
            checks.that("the traced factors are the right ones", near(weight, weights[u]) and near(product, contributions[u][0]), line)
            checks.that("the traced factors multiply to the product",
                        abs(weight * value - product) <= HALF_DIGIT * (2 + abs(value)), line)
            checks.equal("the share lights up", browser.evaluate("document.querySelectorAll('#step-4-table .trace-source[data-col=share]').length"), 1)
    browser.evaluate("document.querySelector('#step-4-table td.traceable[tabindex=\"0\"]').focus()")
    browser.press("ArrowDown")
    below = browser.evaluate("document.activeElement.closest('tr')?.rowIndex - document.querySelector('#step-4-table tbody tr').rowIndex")
    checks.equal("arrow keys walk through the products", below, 1)
    browser.evaluate("document.querySelector('#step-4-table tfoot td.traceable').focus()")
    checks.that("a sum says what it is the sum of", page.text("#trace").startswith("Number 1 of the new vector"), page.text("#trace"))
    browser.evaluate("document.activeElement.blur()")


# The ratio of WCAG between an element's text and what is painted under it. Colours are painted on
# a canvas and read back, whatever notation the style uses; translucent layers are stacked.
CONTRAST = """((selectors) => {
  const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;
  const ink = canvas.getContext('2d', {willReadFrequently: true});
  const paint = (colours) => {
    ink.clearRect(0, 0, 1, 1);
    for (const colour of colours) { ink.fillStyle = colour; ink.fillRect(0, 0, 1, 1); }
    return [...ink.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map(x => x / 255).map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const worst = [];
  for (const selector of selectors) {
    let least = null;
    for (const node of [...document.querySelectorAll(selector)].slice(0, 60)) {
      if (!node.textContent.trim() || !node.getClientRects().length) continue;
      const layers = [];
      for (let at = node; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
      const before = getComputedStyle(node, '::before');
      const shaded = node.matches('.unit .word');
      const under = paint(['white', ...layers]);
      const share = shaded ? Number(before.opacity) : 0;
      const shade = shaded ? paint([before.backgroundColor]) : under;
      const ground = under.map((x, i) => x + (shade[i] - x) * share);
      const text = paint(['white', ...layers, getComputedStyle(node).color]);
      const [high, low] = [luminance(text), luminance(ground)].sort((a, b) => b - a);
      const ratio = (high + 0.05) / (low + 0.05);
      if (least === null || ratio < least) least = ratio;
    }
    worst.push([selector, least]);
  }
  return worst;
})"""

READABLE = ["body", ".says", ".aside", ".formula", ".note", ".muted", ".source", "h1", "h2", ".focus-name", "#summary",
            "caption", ".shape", "thead th", "tbody th", "tbody th .word", "tbody td", "tfoot td", ".tag", ".place",
            ".unit .word", ".unit.special .word", ".unit .percent", ".what", ".small", ".big", "#trace", "dt", "dd",
            ".ends", "button:not(:disabled)", "#recipe code", ".choices span"]


def check_looks(page, checks):
    browser = page.browser
    grounds = {}
    for scheme in ("light", "dark"):
        browser.media(scheme)
        page.open()
        ratios = browser.evaluate(f"{CONTRAST}({json.dumps(READABLE)})")
        poor = [(selector, round(ratio, 2)) for selector, ratio in ratios if ratio is not None and ratio < 4.5]
        checks.that(f"{scheme}: text contrast at least 4.5", not poor, poor)
        grounds[scheme] = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    checks.that("light and dark differ", grounds["light"] != grounds["dark"], grounds)
    for width in (360, 768, 1100, 1600):
        browser.size(width, 800)
        page.open()
        overflow = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        checks.that(f"no sideways scrolling of the page at {width} px", overflow <= 0, f"{overflow} px")
    browser.size(390, 740)
    page.open()
    for step in (3, 4):
        hidden = browser.evaluate(
            f"[...document.querySelectorAll('#step-{step}-table [data-col=share]')].map(cell =>"
            " cell.getBoundingClientRect().right - cell.closest('.frame').getBoundingClientRect().right)")
        checks.that(f"the shares of step {step} are in sight at 390 px", max(hidden) <= 0, hidden[:3])
    browser.size(1280, 800)
    page.open()
    cut = browser.evaluate("(frame => frame.scrollWidth - frame.clientWidth)(document.getElementById('step-4-table'))")
    checks.that("step 4 is whole at 1280 px", cut <= 0, f"{cut} px")
    browser.size(360, 740)
    page.open()
    page.browser.click(f'#sentence [data-unit="{len(page.data["units"]) - 1}"]')
    checks.equal("a tap chooses a word at 360 px", page.focus(), len(page.data["units"]) - 1)


def check_speed(page, checks):
    """Moving the focus must feel immediate, however long the text; the bound is generous."""
    spent = page.browser.evaluate(
        "(() => { const started = performance.now();"
        " for (let i = 0; i < 5; i++) setFocus(i % Math.min(5, units.length)); document.body.offsetHeight;"
        " return (performance.now() - started) / 5; })()")
    checks.that("a change of focus takes less than 250 ms", spent < 250, f"{spent:.0f} ms")
    return spent


def check_quiet(page, checks):
    """No error in the console, and nothing asked of any network or other file."""
    errors, requests = [], []
    for event in page.browser.events:
        params = event["params"]
        if event["method"] == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            errors.append(details.get("exception", {}).get("description") or details["text"])
        elif event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            errors.append(params["entry"]["text"])
        elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            errors.append(" ".join(str(part.get("value", part.get("description"))) for part in params["args"]))
        elif event["method"] == "Network.requestWillBeSent":
            url = params["request"]["url"].split("#")[0]
            if url not in (page.url, "about:blank") and not url.startswith("data:"):
                requests.append(url)
    checks.that("no error and no warning in the console", not errors, errors[:3])
    checks.that("no request leaves the page", not requests, requests[:3])


def main():
    parser = argparse.ArgumentParser(description="Checks a page of glasshead explain in headless Chromium.")
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--screenshot", metavar="OUT.png", help="write a picture of the page as it opens")
    parser.add_argument("--dark", action="store_true", help="picture in the dark scheme")
    parser.add_argument("--width", type=int, default=1100, help="width of the picture (default 1100)")
    parser.add_argument("--height", type=int, help="picture the first screen of this height, not the whole page")
    arguments = parser.parse_args()
    if not arguments.page.is_file():
        parser.error(f"{arguments.page}: no such file")
    chromium = find_chromium()
    if not chromium:
        print("no chromium found (looked for chromium, chromium-browser, google-chrome, chrome);"
              " hint: apt-get install chromium", file=sys.stderr)
        return 2

    checks = Checks()
    try:
        browser = Browser(chromium)
    except BrowserError as error:
        print(f"{chromium} does not start: {error}", file=sys.stderr)
        return 2
    try:
        browser.keep_events()
        page = Page(browser, arguments.page)
        if arguments.screenshot:
            browser.media("dark" if arguments.dark else "light")
            browser.size(arguments.width, arguments.height or 800)
            page.open()
            browser.wait(0.4)  # the bars have grown
            browser.screenshot(arguments.screenshot, whole_page=arguments.height is None)
        browser.media("light")
        browser.size(1100, 800)
        page.open()
        check_structure(page, checks)
        check_tab_order(page, checks)
        check_four_steps(page, checks, page.data["temperature"], "as it opens")
        page.show_everything()
        check_four_steps(page, checks, page.data["temperature"], "with every row and column")
        check_worked_example(page, checks)
        page.open()
        check_trace(page, checks)
        check_temperature(page, checks)
        check_recipe(page, checks)
        check_click_and_keys(page, checks)
        check_every_word(page, checks)
        check_speed(page, checks)
        check_looks(page, checks)
        check_quiet(page, checks)
    except BrowserError as error:
        checks.that("the page answers", False, error)
    finally:
        browser.close()
    print(f"{checks.passed} passed, {checks.failed} failed: {arguments.page}")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
