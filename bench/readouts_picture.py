"""Draws the `eager` part of a record of readouts.py: time and peak memory over tokens, log–log, as an SVG."""

import math
from html import escape

STYLE = """
  .paper { fill: #ffffff } .ink { fill: #1b1d21 } .muted { fill: #5b5f67 } .grid { stroke: #e2dfd7 }
  .glasshead { --c: #0072b2 } .torch { --c: #b34700 }
  .series path { fill: none; stroke: var(--c); stroke-width: 2.5 } .series circle, .series text { fill: var(--c) }
  .series .beyond { stroke-dasharray: 5 5; stroke-width: 1.5 } .series .hollow { fill: none; stroke: var(--c); stroke-width: 1.5 }
  .full { stroke: #5b5f67; stroke-dasharray: 2 4 }
  text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif } .title { font-weight: 600; font-size: 15px }
  .series text { font-weight: 600 } .end { text-anchor: end } .middle { text-anchor: middle }
  .small, .series .small { font-size: 12px }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #131519 } .ink { fill: #e8e6e1 } .muted { fill: #a4a8b0 } .grid { stroke: #2e323a }
    .glasshead { --c: #56b4e9 } .torch { --c: #ffa066 } .full { stroke: #a4a8b0 }
  }
"""
WIDTH, HEIGHT, TOP, BOTTOM = 960, 440, 84, 348
PANELS = [(74, 456), (556, 938)]
NAMES = {"glasshead": "glasshead", "torch": "torch, N × N kept"}


def number(value, units):
    """A value of an axis in its unit: 10 ms, 1 s; 100 MB, 10 GB."""
    factor, unit = next(x for x in units if value >= x[0] * 0.999 or x == units[-1])
    return f"{value / factor:g} {unit}"


SECONDS = [(1, "s"), (1e-3, "ms")]
BYTES = [(1e9, "GB"), (1e6, "MB")]


def panel(at, title, series, sizes, units, beyond, full=None):
    """One pair of axes. `series`: name → [(tokens, value)]; `beyond`: what torch did not reach."""
    left, right = at
    values = [value for points in series.values() for _, value in points]
    low = math.floor(math.log10(min(values)))
    high = math.ceil(math.log10(max(values + ([full] if full else []) + ([beyond[1]] if beyond and beyond[1] else []))))
    first, last = math.log2(sizes[0]), math.log2(sizes[-1])
    x = lambda n: round(left + 14 + (math.log2(n) - first) / (last - first) * (right - left - 28), 1)
    y = lambda value: round(BOTTOM - (math.log10(value) - low) / (high - low) * (BOTTOM - TOP), 1)
    path = lambda points: "M" + "L".join(f"{x(n)},{y(value)}" for n, value in points)
    parts = [f'<text class="ink title" x="{left}" y="{TOP - 20}">{title}</text>']
    for decade in range(low, high + 1):
        height = y(10.0**decade)
        parts.append(f'<path class="grid" d="M{left},{height}H{right}"/>')
        parts.append(f'<text class="muted end small" x="{left - 8}" y="{height + 4}">{number(10.0**decade, units)}</text>')
    for n in sizes:
        parts.append(f'<text class="muted middle small" x="{x(n)}" y="{BOTTOM + 20}">{n:,}</text>')
    parts.append(f'<text class="muted middle small" x="{(left + right) / 2}" y="{BOTTOM + 40}">tokens</text>')
    if full:
        parts.append(f'<path class="full" d="M{left},{y(full)}H{right}"/>')
        note = f"all memory of the machine, {full / 1e9:.0f} GB"
        parts.append(f'<text class="muted small" x="{left + 4}" y="{y(full) - 6}">{note}</text>')
    for name, points in series.items():
        parts.append(f'<g class="series {name}"><path d="{path(points)}"/>')
        parts += [f'<circle cx="{x(n)}" cy="{y(value)}" r="3.5"/>' for n, value in points]
        n, value = points[len(points) // 2]
        place = f'class="end" x="{x(n) - 10}" y="{y(value) - 8}"' if name == "torch" else f'x="{x(n) + 8}" y="{y(value) + 20}"'
        parts.append(f"<text {place}>{NAMES[name]}</text>")
        if name == "torch" and beyond:
            n, value = beyond
            note = f"at {n:,}: does not fit"
            n, above = points[-1][0], y(points[-1][1]) - 14
            if value:
                parts.append(f'<path class="beyond" d="{path([points[-1], beyond])}"/>')
                parts.append(f'<circle class="hollow" cx="{x(beyond[0])}" cy="{y(value)}" r="4"/>')
                note, n, above = f"needs {value / 1e9:.0f} GB", beyond[0], y(value) - 10
            parts.append(f'<text class="end small" x="{x(n) + 14}" y="{above}">{note}</text>')
        parts.append("</g>")
    return parts


def picture(record):
    """The whole picture of a record, as text."""
    cases = record["eager"]
    sizes = [case["queries"] for case in cases]
    of = lambda name, key: [(c["queries"], c["peers"][name][key]) for c in cases if key in c["peers"][name]]
    too_large = [case for case in cases if case["peers"]["torch"].get("does_not_fit")]
    full = cases[0]["machine_bytes"]
    time = {name: of(name, "best_s") for name in NAMES}
    peak = {name: of(name, "peak_bytes") for name in NAMES}
    unreached = needed = None
    if too_large:
        n = too_large[0]["queries"]
        unreached, needed = (n, None), (n, too_large[0]["peers"]["torch"]["needs_at_least_bytes"])
    left = panel(PANELS[0], "Time", time, sizes, SECONDS, unreached)
    right = panel(PANELS[1], "Peak memory of the process", peak, sizes, BYTES, needed, full)
    shape = cases[0]
    what = f"causal, {shape['heads']} heads, d {shape['dim']}, {shape['dtype']}, {shape['threads']} threads"
    heading = f"Output, entropy, top 8 and received weight of every head: {what}"
    torch = f"torch {record['versions']['torch']}, its import in its peak"
    recipe = f"bench/readouts.py --eager · best of several runs · {record['cpu']} · {torch} · {record['date']}"
    n, theirs = time["torch"][-1]
    spoken = (f"At {n:,} tokens torch takes {theirs:.1f} s and {dict(peak['torch'])[n] / 1e9:.1f} GB, "
              f"glasshead {dict(time['glasshead'])[n]:.2f} s and {dict(peak['glasshead'])[n] / 1e9:.2f} GB.")
    body = "\n".join([*left, *right])
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">
<title id="title">{escape(heading)}</title>
<desc id="desc">{escape(spoken)}</desc>
<style>{STYLE}</style>
<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>
<text class="ink title" x="20" y="30">{escape(heading)}</text>
{body}
<text class="muted small" x="20" y="{HEIGHT - 14}">{escape(recipe)}</text>
</svg>
"""
