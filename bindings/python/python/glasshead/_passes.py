"""Readouts of several passes over one text, prompt and answer for instance, put together to those of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ._attended import Readouts
from ._tables import AXES, INDEX_OF


@dataclass(frozen=True)
class Pass:
    """What one call of a layer gave, and where its queries and keys stand in the text; None where nobody said so."""

    readouts: Readouts[Tensor]
    batch: int
    heads: int
    """All of the layer, kept or not."""
    queries: int
    keys: int
    first_query: int | None
    first_key: int | None
    causal: bool
    goes_on: bool
    """Whether each text of the batch goes on where it was."""
    ids: Tensor | None
    """``[batch, queries]``: the tokens that were read; None where nobody said so."""


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
        starts: list[tuple[int, ...]] = []
        first_row = 0
        for one, first in zip(passes, first_keys, strict=True):
            array = one.readouts[name]
            if name == "blocks":
                starts.append(first_block(block or 1, first_row, first, one.queries))
            elif name.startswith("received"):
                starts.append((first,))
            elif name in INDEX_OF.values():
                array = torch.where(array < 0, array, array + first)
            elif AXES.get(name, ["token"])[-1] == "key":
                array = pad(array, (first, keys - first - array.shape[-1]))
            arrays.append(array)
            first_row += one.queries
        made[name] = added(arrays, starts) if starts else torch.cat(arrays, dim=2)
    return Readouts(made)


def check(passes: list[Pass], cross: bool) -> None:
    """Refuses what are no passes over one text."""
    hint = "hint: see the calls one by one with seen.passes(layer)"
    first, *_ = passes
    if any(one.readouts[name].shape[:2] != first.readouts[name].shape[:2] for one in passes for name in one.readouts):
        raise ValueError(f"the layer was called with batches of different sizes, as in a beam search\n{hint}")
    if not all(one.goes_on for one in passes):
        raise ValueError(f"the texts of a batch changed places between the calls, as in a beam search\n{hint}")
    expected = first.first_query
    for one in passes:
        if not cross and (one.first_query is None or one.first_query != expected):
            raise ValueError(
                f"the layer was called {len(passes)} times, and not with one part of a text after the other\n{hint}"
            )
        expected = None if expected is None else expected + one.queries


def added(arrays: list[Tensor], starts: list[tuple[int, ...]]) -> Tensor:
    """The sum of arrays ``[batch, heads, …]`` that begin at these places of their last axes."""
    places: list[tuple[Any, ...]] = [
        tuple(slice(start, start + length) for start, length in zip(at, array.shape[2:], strict=True))
        for array, at in zip(arrays, starts, strict=True)
    ]
    shape = [max(place.stop for place in axis) for axis in zip(*places, strict=True)]
    whole = arrays[0].new_zeros((*arrays[0].shape[:2], *shape))
    for array, place in zip(arrays, places, strict=True):
        whole[(..., *place)] += array
    return whole


def first_block(size: int, first_row: int, first_key: int, queries: int) -> tuple[int, int]:
    """Where the map of a pass begins in that of all, whose blocks its own are."""
    row = first_row % size
    if first_key % size or (row and row + queries > size):
        raise ValueError(
            f"blocks of {size} begin in the middle of those of the whole text\n"
            "hint: see the calls one by one with seen.passes(layer)"
        )
    return first_row // size, first_key // size
