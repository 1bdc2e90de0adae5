"""What was read out, as the page of ``glasshead scan``: one self-attention stack over one text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _native
from ._read import listed
from ._tables import AXES, numpy_of
from ._tokens import Token, Tokenizer, numbered, spelled

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from numpy.typing import NDArray

    from ._attended import Attended
    from ._captured import Captured, Place
    from ._passes import Pass

    Arrays: TypeAlias = Mapping[str, NDArray[Any]]


EMPTY = "nothing looks at anything\nhint: a page is of at least one token"


class NoPage(ValueError):
    """Why something cannot be a page."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What stands on a page; ``src/page.rs`` reads these fields."""

    model: str
    family: str | None
    sizes: tuple[int, int]
    """How many layers the model has, and heads a layer, shown or not."""
    call: str
    """What made it, in words."""
    read: str
    text: str
    tokens: list[Token]
    layers: list[int]
    heads: list[int]
    rows: list[int]
    """The queries of the readout ``rows``."""
    segment_ends: list[int]
    block: int | None
    readouts: list[tuple[str, list[NDArray[Any]]]]
    """By name, an array ``[heads, …]`` of every layer."""


def of_captured(seen: Captured, tokenizer: Tokenizer | None, text: int, kind: str | None) -> str:
    """The page of one text that a model has read, and of what it has written on."""
    places = places_of(seen, kind)
    passes = seen.calls[places[0]]
    count = sum(one.queries for one in passes)
    batch = passes[0].batch
    if 0 in (batch, count):
        raise NoPage(EMPTY)
    if not -batch <= text < batch:
        raise IndexError(f"text is {text} and there are {batch}\nhint: texts are counted from 0")
    text %= batch
    of_heads = passes[0].heads
    layers: list[Arrays] = []
    for place in places:
        try:
            whole = seen.whole(place)
        except ValueError as error:
            raise NoPage(*error.args) from None
        check_is_one_text(seen.calls[place], count)
        layers.append({name: numpy_of(array)[text] for name, array in whole.items()})
        if seen.calls[place][0].heads != of_heads or layers[-1].keys() != layers[0].keys():
            raise NoPage("its layers have different heads or readouts\nhint: capture(…, layers=[…]) chooses some")
    written, tokens = tokens_of(passes, text, tokenizer)
    kinds = seen.kinds()
    of_kind = f", the layers of kind {kinds[places[0].stack]!r}" if len(kinds) > 1 else ""
    of_batch = f", text {text} of {batch}" if batch > 1 else ""
    return page(
        layers,
        model=seen.model,
        family=seen.family,
        sizes=(places[0].count, of_heads),
        call=f"glasshead.capture{of_kind}{of_batch}",
        read=seen.read,
        text=written,
        tokens=tokens,
        numbers=[place.number for place in places],
        heads=list(range(of_heads)) if seen.heads is None else [head % of_heads for head in seen.heads],
        rows=rows_of(seen.read, [one.queries for one in passes]),
    )


def tokens_of(passes: list[Pass], text: int, tokenizer: Tokenizer | None) -> tuple[str, list[Token]]:
    """What was read: as text, by its ids, or by numbers where the model was given vectors."""
    answer = answer_of(passes)
    ids: list[int] = []
    for one in passes:
        if one.ids is None:
            if tokenizer is not None:
                raise ValueError(
                    "the ids of the tokens are not known, the model was given vectors\n"
                    "hint: leave the tokenizer out, and they are numbered"
                )
            return numbered([str(at) for at in range(sum(one.queries for one in passes))], answer)
        ids += one.ids[text].tolist()
    if tokenizer is None:
        return numbered([f"#{one}" for one in ids], answer)
    return spelled(ids, answer, tokenizer)


def of_attended(seen: Attended[Any]) -> str:
    """The page of the first batch element of one attention, whose tokens are numbered."""
    batch, heads, count, _ = seen.out.shape
    if 0 in (batch, heads, count):
        raise NoPage(EMPTY)
    if seen._keys != count:
        keys = "keys in several places" if seen._keys is None else f"{seen._keys} keys"
        raise NoPage(f"{count} queries look at {keys}\nhint: a page is of a text that looks at itself")
    text, tokens = numbered([str(at) for at in range(count)], count)
    return page(
        [{name: numpy_of(array)[0] for name, array in seen.items()}],
        model="glasshead.attention",
        family=None,
        sizes=(1, heads),
        call=f"glasshead.attention, batch element 0 of {batch}",
        read=seen._read or "",
        text=text,
        tokens=tokens,
        numbers=[0],
        heads=list(range(heads)),
        rows=rows_of(seen._read or "", [count]),
    )


def page(layers: list[Arrays], *, read: Any, tokens: list[Token], numbers: list[int], **about: Any) -> str:
    """The arrays ``[heads, …]`` of every layer, where they lie, and what is known about them."""
    count = len(tokens)
    block = next(iter(listed(read, "blocks", count)), None)
    side = -(-count // (block or 1))
    readouts = [(name, [cut(name, one[name], count, side) for one in layers]) for name in layers[0]]
    return _native.page(
        Scan(
            read=str(read),
            tokens=tokens,
            layers=numbers,
            segment_ends=[min(end, count) for end in listed(read, "segments", count)],
            block=block,
            readouts=readouts,
            **about,
        )
    )


def cut(name: str, array: NDArray[Any], count: int, side: int) -> NDArray[Any]:
    """Without the keys that a cache has room for and no token has taken."""
    if name == "blocks":
        array = array[..., :side]
    elif AXES.get(name, ["token"])[-1] == "key":
        array = array[..., :count]
    return np.require(array, requirements=["C", "A"])


def places_of(seen: Captured, kind: str | None) -> list[Place]:
    """The layers of one stack."""
    kinds = seen.kinds()
    if not kinds:
        raise NoPage("no attention was seen\nhint: run the model inside the with block")
    names = ", ".join(map(repr, kinds.values()))
    if kind is None and len(kinds) > 1:
        raise NoPage(f"there are layers of several kinds\nhint: kind= chooses one of {names}")
    if kind is not None and kind not in kinds.values():
        raise ValueError(f"kind is {kind!r}\nhint: there are {names}")
    if (kind or next(iter(kinds.values()))) == "cross":
        raise NoPage(
            "its queries are of one text and its keys of another\nhint: a page is of a text that looks at itself"
        )
    return [place for place in seen.calls if kind in (None, kinds[place.stack])]


def check_is_one_text(passes: list[Pass], count: int) -> None:
    """Queries and keys are the tokens of one text; a cache may have room for more."""
    queries = sum(one.queries for one in passes)
    keys = max((one.first_key or 0) + one.keys for one in passes)
    room = passes[0].causal and passes[0].first_query == 0
    if queries != count or keys < count or (keys > count and not room):
        raise NoPage(
            f"{queries} queries look at {keys} keys\nhint: a page is of a text that was read from its beginning"
        )


def answer_of(passes: list[Pass]) -> int:
    """The token from which on they came one at a time behind the others, as ``generate`` feeds what it has written."""
    last = len(passes)
    while last > 1 and passes[last - 1].queries == 1:
        last -= 1
    return sum(one.queries for one in passes[:last])


def rows_of(read: Any, queries: list[int]) -> list[int]:
    """The tokens whose rows were read in passes of so many queries."""
    rows: list[int] = []
    first = 0
    for count in queries:
        rows += [first + row % count for row in listed(read, "rows", count)]
        first += count
    return rows
