#!/usr/bin/env python3
"""Checks a page of `glasshead scan --format html` in headless Chromium, as a reader would use it.

    check_scan.py PAGE.html [--json SCAN.json] [--screenshot OUT.png] [--dark] [--width W] [--height H]

Clicks, keys, Tab order, the map's zoom and pan; light and dark contrast; 360 px; no console error; no request
leaves the page; interactive within a second. With --json (the same scan as JSON, with at least the same readouts)
every kind of number on the page is computed a second time in Python. With --screenshot the fresh page is
pictured first.

Python's standard library and a Chromium are enough. Exit 0: all passed, 1: something failed,
2: wrong arguments or no Chromium.
"""

import argparse
import json
import math
import pathlib
import sys
import time

from browser import Browser, BrowserError, find_chromium
from check import CONTRAST, Checks, Page, check_quiet, to_number

HALF_DIGIT = 0.0005  # a per cent with one decimal, as a share
SMALLEST = 1e-5  # the share of a token below it is 0


class ScanPage(Page):
    def share(self, text):
        """A share as the page prints it; `< 0.1 %` is something between."""
        if text is None:
            return None
        text = text.replace("≈", "").strip()
        if text.startswith("<"):
            return 0.0005
        value = to_number(text)
        return None if value is None else value / 100

    def passages(self):
        """{passage or None: share} of the table of part 1; `None` rows (first token, rest) as a list."""
        rows = self.browser.evaluate(
            "[...document.querySelectorAll('#passages tbody tr')].map(row => [row.dataset.row ?? null,"
            " row.querySelector('th').textContent, row.querySelector('[data-col=share]').textContent])")
        named = {int(s): self.share(text) for s, _, text in rows if s is not None}
        apart = [(label, self.share(text)) for s, label, text in rows if s is None]
        return named, apart

    def choose(self, name, value):
        self.browser.click(f'input[name="{name}"][value="{value}"] + span')
        self.browser.wait(0.1)
        self.browser.settle()


# ── the same numbers by another hand ────────────────────────────────────────────────────────────

class Numbers:
    """The readouts of a JSON scan, and the means the page shows."""

    def __init__(self, path):
        self.scan = json.loads(path.read_text(encoding="utf-8"))
        self.tokens = len(self.scan["tokens"])
        self.heads = len(self.scan["layers"]) * len(self.scan["heads"])

    def array(self, name):
        found = self.scan["readouts"].get(name)
        return found and found["values"]

    def queries(self, group):
        return group["queries"] if group["queries"] is not None else range(self.tokens)

    def mean(self, name, at, group, axis=1, column=0):
        values = self.array(name)
        queries = self.queries(group)
        return math.fsum(values[(at * self.tokens + query) * axis + column] for query in queries) / len(queries)

    def passage(self, s, at, group):
        segments = self.scan["segments"]
        share = self.mean("segments", at, group, len(segments), s)
        first = self.scan["tokens"][0]
        if first["start"] < first["end"] and segments[s]["start"] <= first["start"] < segments[s]["end"]:
            share -= self.mean("first_weight", at, group)
        return share

    def token(self, t, at, group):
        if group["queries"] is None:
            return self.array("received")[at * self.tokens + t] / self.tokens
        rows = self.scan["rows"]
        places = [rows.index(query) for query in group["queries"]]
        return math.fsum(self.array("rows")[(at * len(rows) + place) * self.tokens + t] for place in places) / len(places)

    def square(self, at, row, column, block):
        side = math.ceil(self.tokens / block)
        queries = min(block, self.tokens - row * block)
        return self.array("blocks")[(at * side + row) * side + column] / queries


def check_numbers(page, checks, numbers):
    data, browser = page.data, page.browser
    byte = 10 ** (data["decades"] / data["steps"] / 2) - 1  # relative error of a share in one byte
    root = lambda share, steps: (math.sqrt(share) + 0.5 / steps) / steps  # error of a share in steps of its square root
    segments = range(len(data["segments"]))
    every = range(numbers.heads)
    for g, group in enumerate(data["groups"]):
        page.choose("groups", g)
        where = group["name"]
        if group["segments"]:
            page.browser.evaluate("document.querySelector('#passages .more')?.click()")
            shown, apart = page.passages()
            first = math.fsum(numbers.mean("first_weight", at, group) for at in every) / numbers.heads
            expected = {s: math.fsum(numbers.passage(s, at, group) for at in every) / numbers.heads for s in segments}
            wrong = [(s, shown.get(s), expected[s]) for s in segments
                     if shown.get(s) is None or abs(shown[s] - expected[s]) > HALF_DIGIT + 1 / 65535]
            checks.that(f"{where}: shares of all passages", not wrong, wrong[:3])
            checks.that(f"{where}: the first token apart", abs(apart[0][1] - first) <= HALF_DIGIT + 1e-6, (apart, first))
            total = sum(shown.values()) + sum(share for _, share in apart)
            checks.that(f"{where}: the bars add to 1", abs(total - 1) <= (len(shown) + len(apart) + 2) * HALF_DIGIT, total)
            browser.click("#exclude")
            browser.wait(0.1)
            shown, _ = page.passages()
            wrong = [(s, shown[s], expected[s] / (1 - first)) for s in segments
                     if abs(shown[s] - expected[s] / (1 - first)) > HALF_DIGIT + 1 / 65535 / (1 - first)]
            checks.that(f"{where}: without the first token", not wrong, wrong[:3])
            checks.that("the page says that it scales", "scaled up" in page.text("#exclude-note"), page.text("#exclude-note"))
            browser.click("#exclude")
            browser.wait(0.1)
        if group["tokens"]:
            for t in {0, 1, numbers.tokens // 2, numbers.tokens - 1}:
                shown = browser.evaluate(f"seen.tokens[{t}]")
                expected = math.fsum(numbers.token(t, at, group) for at in every) / numbers.heads
                checks.that(f"{where}: share of token {t}", abs(shown - expected) <= 1e-6 + 1e-5 * expected, (shown, expected))
            at = browser.evaluate("place()")
            page.choose("scopes", "head")
            wrong = []
            for t in range(0, numbers.tokens, max(1, numbers.tokens // 50)):
                shown, expected = browser.evaluate(f"seen.tokens[{t}]"), numbers.token(t, at, group)
                if abs(shown - expected) > byte * 1.01 * expected + SMALLEST:
                    wrong.append((t, shown, expected))
            checks.that(f"{where}: shares of tokens in one head, within a byte", not wrong, wrong[:3])
            page.choose("scopes", "all")
        for name in ("entropy", "distance", "max_weight"):
            if numbers.array(name):
                at = numbers.heads // 2
                shown = browser.evaluate(f"group().numbers.{name}[{at}]")
                expected = numbers.mean(name, at, group)
                checks.that(f"{where}: {name}", abs(shown - expected) <= 1e-5 * max(1, abs(expected)), (shown, expected))
    page.choose("groups", data["group"])
    at = browser.evaluate("place()")
    if data["map"] and numbers.array("blocks") and numbers.scan["block"] == data["map"]["block"]:
        side, wrong = data["map"]["side"], []
        for row in range(0, side, max(1, side // 9)):
            for column in range(0, row + 1, max(1, side // 7)):
                shown = browser.evaluate(f"SQUARE[levels[0].bytes[{row * side + column}]]")
                expected = numbers.square(at, row, column, data["map"]["block"])
                if abs(shown - expected) > 1.01 * root(expected, data["shades"]):
                    wrong.append((row, column, shown, expected))
        checks.that("squares of the map, within a byte", not wrong, wrong[:3])
    if data["top"] and numbers.array("top_index"):
        wrong = []
        each = numbers.scan["readouts"]["top_index"]["shape"][-1]
        for place in range(0, len(data["top"]["queries"]), max(1, len(data["top"]["queries"]) // 6)):
            query = data["top"]["queries"][place]
            browser.evaluate(f"(state.query = {place}, drawTop())")
            rows = browser.evaluate("[...document.querySelectorAll('#top tbody tr')].map(row =>"
                                    " [row.querySelector('[data-col=at]').textContent, row.querySelector('[data-col=share]').textContent])")
            start = (at * numbers.tokens + query) * each
            for k, (key, share) in enumerate(rows):
                weight = numbers.array("top_weight")[start + k]
                if int(key) != numbers.array("top_index")[start + k] \
                        or abs(page.share(share) - weight) > HALF_DIGIT + root(weight, data["fine_shades"]):
                    wrong.append((query, key, share))
        checks.that("the heaviest keys of queries", not wrong, wrong[:3])


# ── the page as a reader uses it ────────────────────────────────────────────────────────────────

def check_structure(page, checks):
    data, browser = page.data, page.browser
    missing = {name for name, _ in data["missing"]}
    checks.equal("the question names who looks", page.text("#looker"), data["groups"][data["group"]]["name"])
    checks.equal("a weight is no influence", page.text("#weight-note"), data["weight"])
    recipe = dict(data["recipe"])
    origin = ("call",) if "call" in recipe else ("command", "sha256")  # of Python, or of the command
    for name in (*origin, "model", "layers", "quantity", "normalisation", "version"):
        checks.that(f"the recipe holds {name}", recipe.get(name) and recipe[name] in page.text("#recipe"))
    checks.that("what was rounded is said", "rounded to within" in page.text("#notes"))
    for name in missing:
        checks.that(f"{name} is said to be missing", f"Not read: {name}" in page.text("#notes"))
    for part, name in (("#no-passages", "segments"), ("#no-map", "blocks"), ("#no-top", "top_index")):
        shown = browser.evaluate(f"!document.querySelector('{part}').hidden")
        checks.equal(f"{part} says what to add", shown, name in missing)
        if name in missing:
            checks.that(f"{part} names {data['ask'][0]}", data["ask"][0].strip() in page.text(part), page.text(part))
    unlabelled = browser.evaluate(
        "[...document.querySelectorAll('button, select, input, canvas, [role=listbox], table')].filter(node =>"
        " node.checkVisibility() && !(node.getAttribute('aria-label') || node.labels?.length || node.caption || node.textContent.trim())).map(node => node.outerHTML.slice(0, 80))")
    checks.equal("every control has a name", unlabelled, [])
    browser.wait_for("document.getElementById('live').textContent !== ''", "the summary is announced")


def check_text(page, checks):
    browser, count = page.browser, len(page.data["tokens"]["start"])
    plain = browser.evaluate("document.getElementById('text').textContent.replace(/\\s+/g, '')")
    checks.that("the whole text stands there", len(plain) >= len("".join(page.data["text"].split())), len(plain))
    browser.click('#text [data-token="5"]')
    checks.equal("a click chooses a token", browser.evaluate("state.token"), 5)
    line = page.text("#token-line")
    checks.that("a token says its number", "token 5" in line, line)
    expected = 5
    for key, move in (("ArrowRight", 1), ("ArrowRight", 1), ("ArrowLeft", -1)):
        expected += move
        browser.press(key)
        checks.equal(f"{key} goes to token {expected}",
                     browser.evaluate("Number(document.activeElement.dataset.token)"), expected)
    browser.press("ArrowDown")
    checks.that("ArrowDown goes to the next line", browser.evaluate("state.token") > expected)
    browser.press("End")
    checks.equal("End goes to the last token", browser.evaluate("Number(document.activeElement.dataset.token)"), count - 1)
    browser.press("Home")
    checks.equal("Home goes to the first token", browser.evaluate("Number(document.activeElement.dataset.token)"), 0)
    if browser.evaluate("seen.tokens !== null"):
        browser.evaluate("chooseToken(sorted()[0], false)")
        browser.click("#lighter")
        checks.equal("lighter goes to the second heaviest token", browser.evaluate("sorted().indexOf(state.token)"), 1)
        heats = browser.evaluate("[...document.querySelectorAll('#text .token')].map(node => Number(node.style.getPropertyValue('--heat')))")
        checks.that("the text is shaded", max(heats) == 1 and min(heats) < 1, (min(heats), max(heats)))


def check_passages(page, checks):
    browser = page.browser
    if not page.data["groups"][page.data["group"]]["segments"] or len(page.data["segments"]) < 2:
        return
    last = browser.evaluate("Number([...document.querySelectorAll('#passages [data-passage]')].at(-1).dataset.passage)")
    if last == browser.evaluate("state.passage"):
        last -= 1
    browser.click(f'#passages [data-passage="{last}"]')
    checks.equal("a click chooses a passage", browser.evaluate("state.passage"), last)
    browser.settle()
    checks.that("its tokens are marked", browser.evaluate("document.querySelectorAll('#text .in-passage').length") > 0)


def check_heads(page, checks):
    browser = page.browser
    if not browser.evaluate("measures().length"):
        checks.that("a page without numbers of heads says so", page.data["ask"][0].strip() in page.text("#no-heads"))
        return
    total = len(page.data["layers"]) * len(page.data["heads"])
    checks.equal("a cell for every head", browser.evaluate("document.querySelectorAll('#heads .cell').length"), total)
    keys = browser.evaluate("measures().map(({key}) => key)")
    captions = set()
    for key in keys:
        page.choose("measures", key)
        captions.add(page.text("#heads caption"))
    checks.equal("the grid follows what it is coloured by", len(captions), len(keys))
    other = total - 1 if browser.evaluate("place()") != total - 1 else 0
    browser.click(f'#heads [data-head="{other}"]')
    checks.equal("a click chooses a head", browser.evaluate("place()"), other)
    checks.that("part 3 follows", page.text("#head-name") in page.text("#heads-line"), page.text("#heads-line"))
    browser.press("Home")
    browser.press("ArrowUp")
    browser.press("ArrowRight")
    at = browser.evaluate("Number(document.activeElement.dataset.head)")
    browser.press("Enter")
    checks.equal("arrows and Enter choose a head", browser.evaluate("place()"), at)
    checks.that("the address keeps the head", "layer=" in browser.evaluate("location.hash"))
    page.choose("views", "table")
    for key in keys:
        browser.click(f'#heads [data-sort="{key}"]')
        column = [to_number(text) for text in browser.evaluate(
            f"[...document.querySelectorAll('#heads tbody [data-col={key}]')].map(node => node.textContent.replace('< ', ''))")]
        way = browser.evaluate("document.querySelector('#heads th[aria-sort]').getAttribute('aria-sort')")
        steady = all((a <= b if way == "ascending" else a >= b) for a, b in zip(column, column[1:])
                     if a is not None and b is not None)
        checks.that(f"the table is sorted by {key}", steady and len(column) == min(total, 200), (way, column[:5]))
    page.choose("views", "grid")


def check_map(page, checks):
    browser = page.browser
    if not page.data["map"]:
        return
    painted = ("(() => { const map = document.getElementById('map'); const seen = new Set();"
               " const canvas = el('canvas', {width: map.width, height: map.height});"
               " const ink = canvas.getContext('2d', {willReadFrequently: true}); ink.drawImage(map, 0, 0);"
               " const bytes = ink.getImageData(0, 0, canvas.width, canvas.height).data;"
               " for (let i = 0; i < bytes.length; i += 4) seen.add(bytes[i] * 65536 + bytes[i + 1] * 256 + bytes[i + 2]);"
               " return seen.size; })()")
    checks.that("the map is painted", browser.evaluate(painted) > 12, browser.evaluate(painted))
    browser.evaluate("document.getElementById('map').focus()")
    browser.evaluate("setCell({row: 0, column: 0})")
    last = page.data["map"]["side"] - 1
    browser.press("ArrowDown")
    browser.press("ArrowRight")
    checks.equal("arrows walk through the map", browser.evaluate("[cell.row, cell.column]"), [min(1, last)] * 2)
    checks.that("a square says what it is", "→" in page.text("#cell-line") and "%" in page.text("#cell-line"))
    if browser.evaluate("mostZoom()") > 2:
        browser.press("+")
        checks.equal("+ zooms", browser.evaluate("view.zoom"), 2)
        before = browser.evaluate("[view.x, view.y]")
        browser.press("ArrowRight", shift=True)
        browser.press("ArrowDown", shift=True)
        moved = browser.evaluate("[view.x, view.y]")
        checks.that("Shift and arrows move the map", moved[0] > before[0] and moved[1] > before[1], (before, moved))
        browser.click("#map")  # its middle
        middle = browser.evaluate("[cell.row, cell.column]")
        drag = browser.evaluate("(() => { const box = document.getElementById('map').getBoundingClientRect();"
                                " return [box.left + box.width / 2, box.top + box.height / 2]; })()")
        for kind, shift in (("mousePressed", 0), ("mouseMoved", -40), ("mouseReleased", -40)):
            browser.call("Input.dispatchMouseEvent", type=kind, x=drag[0] - shift, y=drag[1] - shift,
                         button="left", buttons=1, clickCount=1)
        browser.settle()
        checks.that("dragging moves the map", browser.evaluate("[view.x, view.y]") != moved, middle)
        browser.click("#zoom-in")
        browser.click("#zoom-reset")
        checks.equal("the whole map comes back", browser.evaluate("[view.zoom, view.x, view.y]"), [1, 0, 0])
    if page.data["top"]:
        browser.evaluate("setCell({row: levels[0].side - 1, column: 0})")
        name = page.text("#query-name")
        browser.click("#query-back")
        checks.that("the query before", page.text("#query-name") != name, name)
        checks.that("keys are listed", browser.evaluate("document.querySelectorAll('#top tbody tr').length") > 0)


def check_tab_order(page, checks):
    browser = page.browser
    browser.evaluate("(() => { document.activeElement?.blur(); scrollTo(0, 0); getSelection().removeAllRanges(); })()")
    stops = []
    for _ in range(120):
        browser.press("Tab")
        stop = browser.evaluate(
            "(() => { const node = document.activeElement; if (!node || node === document.body) return null;"
            " if (node.matches('.token')) return 'token'; if (node.matches('.cell')) return 'cell';"
            " return node.id || node.name || node.className || node.tagName; })()")
        if stop is None:
            break
        stops.append(stop)
    checks.equal("Tab stops once in the text", stops.count("token"), 1)
    if browser.evaluate("measures().length"):
        checks.equal("Tab stops once in the grid", stops.count("cell"), 1)
    if page.data["map"]:
        checks.that("Tab reaches the map", "map" in stops, stops)


READABLE = ["body", ".aside", ".note", ".muted", ".source", "h1", "h2", ".focus-name", "#summary", "caption", "thead th", "tbody th",
            "tbody td", ".cell", ".token", ".token.named", ".line", "legend", "dt", "dd", "button:not(:disabled)", "#recipe code",
            ".choices span", ".context", ".tag", "select", ".axis", "#passages tr.chosen th", "#passages tr.apart th"]


def check_looks(page, checks):
    browser, grounds = page.browser, {}
    for scheme in ("light", "dark"):
        browser.media(scheme)
        page.open()
        poor = [(selector, round(ratio, 2)) for selector, ratio in browser.evaluate(f"{CONTRAST}({json.dumps(READABLE)})")
                if ratio is not None and ratio < 4.5]
        checks.that(f"{scheme}: text contrast at least 4.5", not poor, poor)
        grounds[scheme] = browser.evaluate("[getComputedStyle(document.body).backgroundColor,"
                                           " document.getElementById('map').toDataURL().length]")
    checks.that("light and dark differ", grounds["light"][0] != grounds["dark"][0], grounds)
    for width in (360, 768, 1100, 1600):
        browser.size(width, 800)
        page.open()
        overflow = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        checks.that(f"no sideways scrolling of the page at {width} px", overflow <= 0, f"{overflow} px")
    browser.size(1100, 800)


def check_speed(page, checks):
    """From the file to a page that answers; and a change of group, head and exclusion."""
    page.browser.open("about:blank")
    started = time.monotonic()
    page.browser.open(page.url)
    page.browser.wait_for("document.documentElement?.dataset.answers === 'true'", "the page answers")
    spent = time.monotonic() - started
    inside = page.browser.evaluate("performance.now()")
    page.browser.wait_for("document.documentElement.dataset.ready === 'true'", "the page is drawn")
    checks.that("interactive within a second", spent < 1, f"{1000 * spent:.0f} ms, {inside:.0f} ms by the page's clock")
    change = page.browser.evaluate(
        "(async () => { const started = performance.now(); for (let i = 0; i < 4; i++) {"
        " state.exclude = group().first !== null && i % 2 === 0; await drawShares(); chooseHead(i % headCount); document.body.offsetHeight; }"
        " return (performance.now() - started) / 4; })()")
    checks.that("a change takes less than 250 ms", change < 250, f"{change:.0f} ms")
    return spent, change


def main():
    parser = argparse.ArgumentParser(description="Checks a page of glasshead scan in headless Chromium.")
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path, help="the same scan as JSON: numbers are computed a second time")
    parser.add_argument("--screenshot", metavar="OUT.png", help="write a picture of the page as it opens")
    parser.add_argument("--dark", action="store_true", help="picture in the dark scheme")
    parser.add_argument("--width", type=int, default=1100, help="width of the picture (default 1100)")
    parser.add_argument("--height", type=int, help="picture the first screen of this height, not the whole page")
    parser.add_argument("--fragment", default="", help="for the picture: what stands behind the #, e.g. layer=3&head=1")
    arguments = parser.parse_args()
    for path in (arguments.page, arguments.json):
        if path and not path.is_file():
            parser.error(f"{path}: no such file")
    chromium = find_chromium()
    if not chromium:
        print("no chromium found; hint: apt-get install chromium", file=sys.stderr)
        return 2
    checks = Checks()
    spent = change = math.nan
    try:
        browser = Browser(chromium)
    except BrowserError as error:
        print(f"{chromium} does not start: {error}", file=sys.stderr)
        return 2
    try:
        browser.keep_events()
        page = ScanPage(browser, arguments.page)
        if arguments.screenshot:
            browser.media("dark" if arguments.dark else "light")
            browser.size(arguments.width, arguments.height or 800)
            page.open(f"#{arguments.fragment}" if arguments.fragment else "")
            browser.wait(0.4)  # the bars have grown
            browser.screenshot(arguments.screenshot, whole_page=arguments.height is None)
        browser.media("light")
        browser.size(1100, 800)
        page.open()
        check_structure(page, checks)
        for check in (check_tab_order, check_text, check_passages, check_heads, check_map):
            page.open()
            check(page, checks)
        if arguments.json:
            page.open()
            check_numbers(page, checks, Numbers(arguments.json))
        spent, change = check_speed(page, checks)
        check_looks(page, checks)
        check_quiet(page, checks)
    except BrowserError as error:
        checks.that("the page answers", False, error)
    finally:
        browser.close()
    print(f"{checks.passed} passed, {checks.failed} failed: {arguments.page} (answers in {1000 * spent:.0f} ms, a change in {change:.0f} ms)")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
