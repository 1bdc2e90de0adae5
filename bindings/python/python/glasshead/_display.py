"""How results show themselves: a line per array or layer as text; in a notebook the page of ``glasshead scan``, and a
table of what cannot be one."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ._tables import numpy_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from ._attended import Attended
    from ._captured import Captured, Layer
    from ._tokens import Tokenizer


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


def table(arrays: Mapping[str, Any]) -> str:
    """The same for a notebook."""
    return grid(("array", "type", "shape", "from … to"), lines(arrays))


def grid(names: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain table, all text."""
    head = "".join(cell(name, "th") for name in names)
    body = "".join(f"<tr>{''.join(cell(content) for content in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def cell(content: str, tag: str = "td") -> str:
    return f"<{tag} style='text-align:left'>{escape(content)}</{tag}>"


def line(content: str) -> str:
    return f"<p>{escape(content)}</p>"


def frame(page: str) -> str:
    """The page in a frame of its own, where its scripts reach nothing of the notebook. Its height can be drawn."""
    content = page.replace("&", "&amp;").replace('"', "&quot;")
    return (
        '<div style="height:46rem;max-height:90vh;min-height:20rem;resize:vertical;overflow:hidden">'
        '<iframe sandbox="allow-scripts" title="what was looked at" loading="lazy" '
        f'style="width:100%;height:100%;border:0" srcdoc="{content}"></iframe></div>'
    )


def attended_html(seen: Attended[Any]) -> str:
    """The arrays, and the page of the first batch element where queries are keys."""
    from ._page import NoPage, of_attended

    arrays = table(seen.arrays())
    if not len(seen):
        return f"<div>{arrays}</div>"
    try:
        page = of_attended(seen)
    except NoPage as error:
        return f"<div>{arrays}{line(why(error))}</div>"
    batch = seen.out.shape[0]
    first = line(f"The page is of batch element 0 of {batch}.") if batch > 1 else ""
    return f"<div>{arrays}{first}{frame(page)}</div>"


def why(error: Exception) -> str:
    """A sentence of one line."""
    sentence, _, hint = str(error).partition("\nhint: ")
    return f"No page: {sentence}; {hint}." if hint else f"No page: {sentence}."


def means_by_head(seen: Captured) -> dict[str, list[tuple[Layer, NDArray[Any]]]]:
    """Of every readout with one number per query, the mean over texts and queries: per layer, by head."""
    found: dict[str, list[tuple[Layer, NDArray[Any]]]] = {}
    for layer in seen:
        passes = [one.to_numpy() for one in seen.passes(layer)]
        for name, first in passes[0].items():
            if first.ndim == 3 and not name.startswith(("received", "lse")):
                sums = sum(one[name].sum(axis=(0, 2), dtype=np.float64) for one in passes)
                count = sum(one[name].shape[0] * one[name].shape[2] for one in passes)
                found.setdefault(name, []).append((layer, np.asarray(sums / max(count, 1))))
    return found


def by_layer(seen: Captured) -> dict[Layer, dict[str, str]]:
    """Those means of every layer in words: over all heads, and the range of them."""
    told: dict[Layer, dict[str, str]] = {layer: {} for layer in seen}
    for name, rows in means_by_head(seen).items():
        for layer, heads in rows:
            told[layer][name] = f"{heads.mean():.3f} ({heads.min():.3f} … {heads.max():.3f})"
    return told


def title_of(seen: Captured) -> str:
    return f"Captured({seen.model}: {len(seen)} layers, read {seen.read})"


def captured_text(seen: Captured) -> str:
    """What was seen, and a line per layer with the means over its heads."""
    rows = (
        f"{layer!r:>4}  {'  '.join(f'{name} {mean}' for name, mean in told.items())}".rstrip()
        for layer, told in by_layer(seen).items()
    )
    return title_of(seen) + "".join(f"\n  {row}" for row in rows)


def captured_html(seen: Captured, tokenizer: Tokenizer | None = None, text: int = 0, kind: str | None = None) -> str:
    """The page of a text; of what cannot be one, why, and the means by layer."""
    from ._page import NoPage

    try:
        page = seen.page(tokenizer, text, kind)
    except NoPage as error:
        told = by_layer(seen)
        names = list(dict.fromkeys(name for means in told.values() for name in means))
        rows = [[str(layer), *(means.get(name, "–") for name in names)] for layer, means in told.items()]
        means = grid(["layer", *names], rows) if rows else ""
        return f"<div>{line(title_of(seen))}{line(why(error))}{means}</div>"
    batch = next(iter(seen.calls.values()))[0].batch
    more = f"Text {text % batch} of {batch}; seen.show(text={(text + 1) % batch}) shows another." if batch > 1 else ""
    return f"<div>{line(more) if more else ''}{frame(page)}</div>"
