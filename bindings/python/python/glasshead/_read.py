"""What to read out beside the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Read:
    """What to read out of the weights, in the same pass and without ever holding all of them.

    Each array of the result has the axes ``[batch, heads, …]``; a query that may see no key reads as 0.
    """

    lse: bool = False
    """``lse [queries]``: the log of the sum of the exponentials of the scores."""
    entropy: bool = False
    """``entropy [queries]``, in nats: 0 where one key has all the weight."""
    max: bool = False
    """``max_weight [queries]``: the largest weight."""
    top: int | None = None
    """``top_index`` and ``top_weight [queries, top]``: the heaviest keys, heaviest first; −1 where there are fewer."""
    received: bool = False
    """``received [keys]``: the weight that every key receives, summed over the queries."""
    received_weighted: Sequence[float] | Sequence[Sequence[Sequence[float]]] | None = None
    """``received_weighted [keys]``: the same, each query counting as much as said, one number per query, or one
    per query of every head, ``[batch, heads, queries]``: a step of attention rollout."""
    rows: Sequence[int] | None = None
    """``rows [rows, keys]``: the whole rows of these queries; −1 is the last one."""
    segments: Sequence[int] | None = None
    """``segments [queries, segments]``: the weight on ranges of keys, given by their ascending ends."""
    blocks: int | None = None
    """``blocks [⌈queries / size⌉, ⌈keys / size⌉]``: a map of the weights, summed over squares of this size."""
    distance: bool = False
    """``distance [queries]``: how far back, or ahead, the weight lies on average, in tokens."""
    first: bool = False
    """``first [queries]``: the weight on the first key."""
    previous: bool = False
    """``previous [queries]``: the weight on the key before the query's own position."""
    self_weight: bool = False
    """``self [queries]``: the weight on the key at the query's own position."""
    induction: Sequence[int] | None = None
    """``induction [queries]``: the weight on the key after the last earlier occurrence of the query's own token;
    given are the token ids of all keys."""
    top_by_value: int | None = None
    """``top_index_by_value`` and ``top_weight_by_value``: as ``top``, by weight · |value|: what a key really gives."""
    received_by_value: bool = False
    """``received_by_value [keys]``: as ``received``, summed up as weight · |value|."""
    rows_by_value: Sequence[int] | None = None
    """``rows_by_value [rows, keys]``: as ``rows``, every weight times the length of its value."""

    def __post_init__(self) -> None:
        weights = self.received_weighted
        if getattr(weights, "ndim", 1) == 3:
            weights = weights.tolist()  # type: ignore[union-attr]
        if weights is not None and len(weights) and isinstance(weights[0], Sequence):
            weights = tuple(tuple(map(tuple, heads)) for heads in weights)  # type: ignore[arg-type]
        object.__setattr__(self, "received_weighted", weights)
        for name in ("received_weighted", "rows", "rows_by_value", "segments", "induction"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, tuple(given))
        for name in ("top", "top_by_value", "blocks"):
            given = getattr(self, name)
            if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
                raise ValueError(f"Read.{name} is {given!r}\nhint: a whole number from 1")

    def __repr__(self) -> str:
        asked = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default)
        return f"Read({', '.join(asked)})"


def listed(read: Read | str, name: str, tokens: int) -> list[int]:
    """The numbers said for ``rows``, ``segments`` or ``blocks``; of ``"all"`` those that so many tokens get."""
    if isinstance(read, Read):
        given = getattr(read, name)
        return [] if given is None else [given] if isinstance(given, int) else list(given)
    said = {before.strip(): numbers for before, _, numbers in (item.partition("=") for item in read.split(","))}
    if numbers := said.get(name):
        return [int(number) for number in numbers.split(":")]
    every = {"rows": [-1], "segments": [tokens * n // 4 for n in range(1, 5)], "blocks": [64]}
    return every[name] if "all" in said else []
