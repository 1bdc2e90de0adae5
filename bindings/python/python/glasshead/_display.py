"""How results show themselves: a line per array as text, a table with maps in a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ._tables import numpy_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

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


def text(seen: Any) -> str:
    """A line per array."""
    table = lines({"out": seen.out, **seen})
    widths = [max(len(line[column]) for line in table) for column in range(4)]
    rows = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table)
    return "Attended\n" + "\n".join(f"  {row.rstrip()}" for row in rows)


def html(seen: Any) -> str:
    """The same as a table; where blocks were read, the maps of the first heads beside it."""
    rows = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in line) + "</tr>"
        for line in lines({"out": seen.out, **seen})
    )
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in ("array", "type", "shape", "from … to"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<div>{table}{maps(numpy_of(seen['blocks'])) if 'blocks' in seen else ''}</div>"


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
