"""How results show themselves: a line per array as text, a table with maps in a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ._tables import numpy_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ._captured import Captured

# The blue that is a share on every page of glasshead, and how many maps a notebook is shown at once.
SHARE = "#0072b2"
MAPS = 12
CELLS = 64


def dtype_of(array: Any) -> str:
    """float32, whichever library's."""
    return str(array.dtype).removeprefix("torch.")


def lines(arrays: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, type, shape and range of each array."""
    made = []
    for name, array in arrays.items():
        values = numpy_of(array)
        finite = values[np.isfinite(values)]
        spread = f"{finite.min():.4g} … {finite.max():.4g}" if finite.size else "–"
        made.append((name, dtype_of(array), str(list(values.shape)), spread))
    return made


def text(title: str, arrays: Mapping[str, Any]) -> str:
    """A line per array."""
    table = lines(arrays)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table)
    return title + "".join(f"\n  {row.rstrip()}" for row in rows)


def html(arrays: Mapping[str, Any]) -> str:
    """The same as a table; where blocks were read, the maps of the first heads below it."""
    head = "".join(cell(name, "th") for name in ("array", "type", "shape", "from … to"))
    rows = "".join(f"<tr>{''.join(cell(x) for x in line)}</tr>" for line in lines(arrays))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<div>{table}{maps(numpy_of(arrays['blocks'])) if 'blocks' in arrays else ''}</div>"


def cell(content: str, tag: str = "td") -> str:
    return f"<{tag} style='text-align:left'>{escape(content)}</{tag}>"


def maps(blocks: NDArray[Any]) -> str:
    """The map of each head, darker where a query's weight is; each row of blocks is shaded by its own largest."""
    batch, heads, *_ = blocks.shape
    shown = [(b, h) for b in range(batch) for h in range(heads)][:MAPS]
    figures = "".join(
        f"<figure style='margin:0'>{picture(blocks[b, h])}"
        f"<figcaption style='font-size:smaller'>{f'text {b}, ' if batch > 1 else ''}head {h}</figcaption></figure>"
        for b, h in shown
    )
    left = batch * heads - len(shown)
    more = f"<p>{left} more heads are not shown.</p>" if left else ""
    return (
        f"<div style='display:flex;flex-wrap:wrap;gap:8px;margin-top:8px'>{figures}</div>{more}"
        "<p style='font-size:smaller'>Rows are queries, columns keys; a cell is the sum of its weights, shaded by the "
        "largest of its row.</p>"
    )


def picture(blocks: NDArray[Any]) -> str:
    """One map as SVG, of at most CELLS × CELLS cells."""
    step = -(-max(blocks.shape) // CELLS) or 1
    # Cells are added up: a map stays a map of sums.
    for axis in (0, 1):
        if blocks.shape[axis]:
            blocks = np.add.reduceat(blocks, np.arange(0, blocks.shape[axis], step), axis=axis)
    height, width = blocks.shape
    largest = blocks.max(axis=1, keepdims=True, initial=0)
    shades = np.divide(blocks, largest, out=np.zeros_like(blocks), where=largest > 0)
    cells = "".join(
        f"<rect x='{x}' y='{y}' width='1' height='1' fill-opacity='{shades[y, x]:.2f}'/>"
        for y, x in np.argwhere(shades >= 0.005)
    )
    return (
        f"<svg width='128' height='128' viewBox='0 0 {width} {height}' preserveAspectRatio='none' role='img' "
        f"shape-rendering='crispEdges' fill='{SHARE}' style='border:1px solid currentColor'>"
        f"<title>map of the weights</title>{cells}</svg>"
    )


def means_by_head(seen: Captured) -> dict[str, list[tuple[Any, NDArray[Any]]]]:
    """Of every readout with one number per query, the mean over texts and queries: per layer, by head."""
    found: dict[str, list[tuple[Any, NDArray[Any]]]] = {}
    for layer in seen:
        for name, array in seen[layer].to_numpy().items():
            if array.ndim == 3 and not name.startswith(("received", "lse")):
                found.setdefault(name, []).append((layer, array.mean(axis=(0, 2), dtype=np.float64)))
    return found


def captured_text(seen: Captured) -> str:
    """What was seen, and a line per layer with the means over its heads."""
    title = f"Captured({seen.model}: {len(seen)} layers, read {seen.read})"
    by_layer: dict[Any, list[str]] = {layer: [] for layer in seen}
    for name, rows in means_by_head(seen).items():
        for layer, heads in rows:
            by_layer[layer].append(f"{name} {heads.mean():.3f} ({heads.min():.3f} … {heads.max():.3f})")
    return title + "".join(f"\n  {layer!r:>4}  {'  '.join(told)}".rstrip() for layer, told in by_layer.items())


def captured_html(seen: Captured) -> str:
    """A grid of layers × heads for each readout with one number per query."""
    parts = [f"<p>{escape(captured_text(seen).splitlines()[0])}</p>"]
    for name, rows in means_by_head(seen).items():
        largest = max((float(np.nanmax(heads, initial=0)) for _, heads in rows), default=0) or 1
        width = max(len(heads) for _, heads in rows)
        head = "".join(cell(str(seen.heads[n] if seen.heads else n), "th") for n in range(width))
        body = "".join(
            f"<tr>{cell(str(layer), 'th')}{''.join(shaded(mean, mean / largest) for mean in means)}</tr>"
            for layer, means in rows
        )
        parts.append(
            f"<table><caption>{escape(name)}, mean over queries, by layer and head; darkest: {largest:.3g}</caption>"
            f"<thead><tr>{cell('layer', 'th')}{head}</tr></thead><tbody>{body}</tbody></table>"
        )
    return f"<div>{''.join(parts)}</div>"


def shaded(value: float, share: float) -> str:
    """A number on a ground as dark as its share; never so dark that it could not be read."""
    shade = int(60 * min(max(share, 0), 1)) if np.isfinite(share) else 0
    return f"<td style='background:color-mix(in srgb, {SHARE} {shade}%, transparent)'>{value:.3g}</td>"
