"""Readouts of several passes over one text, prompt and answer for instance, put together to those of the whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ._attended import Readouts
from ._tables import AXES, INDEX_OF


@dataclass(frozen=True)
class Pass:
    """What one call of a layer gave, and where its queries and keys stand in the text; None where nobody said so."""

    readouts: Readouts[Tensor]
    queries: int
    keys: int
    first_query: int | None
    first_key: int | None


def merged(passes: list[Pass], *, block: int | None, cross: bool) -> Readouts[Tensor]:
    """One after the other; what is summed over queries is added up. Keys are counted from the start of the text."""
    if len(passes) == 1 and not passes[0].first_key:
        return passes[0].readouts
    check(passes, cross)
    # In cross-attention queries go on and keys stay.
    first_keys = [0 if cross else one.first_key or 0 for one in passes]
    keys = max(first + one.keys for first, one in zip(first_keys, passes, strict=True))
    made: dict[str, Tensor] = {}
    for name in passes[0].readouts:
        arrays = []
        first_row = 0
        for one, first in zip(passes, first_keys, strict=True):
            array = one.readouts[name]
            if name in INDEX_OF.values():
                array = torch.where(array < 0, array, array + first)
            elif AXES.get(name, ["token"])[-1] == "key":
                array = pad(array, (first, keys - first - array.shape[-1]))
            elif name == "blocks":
                array = blocks_of_all(array, block or 1, first_row, first, one.queries)
            arrays.append(array)
            first_row += one.queries
        if name == "blocks":
            shape = [max(sizes) for sizes in zip(*(array.shape[2:] for array in arrays), strict=True)]
            arrays = [pad(array, (0, shape[1] - array.shape[3], 0, shape[0] - array.shape[2])) for array in arrays]
        summed = name == "blocks" or name.startswith("received")
        made[name] = torch.stack(arrays).sum(0) if summed else torch.cat(arrays, dim=2)
    return Readouts(made)


def check(passes: list[Pass], cross: bool) -> None:
    """Refuses what are no passes over one text."""
    hint = "hint: see the calls one by one with seen.passes(layer)"
    first, *_ = passes
    if any(one.readouts[name].shape[:2] != first.readouts[name].shape[:2] for one in passes for name in one.readouts):
        raise ValueError(f"the layer was called with batches of different sizes, as in a beam search\n{hint}")
    expected = first.first_query
    for one in passes:
        if not cross and (one.first_query is None or one.first_query != expected):
            raise ValueError(
                f"the layer was called {len(passes)} times, and not with one part of a text after the other\n{hint}"
            )
        expected = None if expected is None else expected + one.queries


def blocks_of_all(array: Tensor, size: int, first_row: int, first_key: int, queries: int) -> Tensor:
    """The map of a pass at its place in that of all, where its blocks are blocks of all."""
    row = first_row % size
    if first_key % size or (row and row + queries > size):
        raise ValueError(
            f"blocks of {size} begin in the middle of those of the whole text\n"
            "hint: see the calls one by one with seen.passes(layer)"
        )
    return pad(array, (first_key // size, 0, first_row // size, 0))
