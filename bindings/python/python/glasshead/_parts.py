"""Attention over keys that lie in several places: parts of it, and how they become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _native
from ._arrays import TORCH, AnyArray, Kind, kind_of, take_vector
from ._attended import Attended
from ._attention import take_options, wants_gradients

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    from ._attention import Options
    from ._read import Read

    # As the engine takes a part: where its keys start and end, the output, the readouts, and those of the second pass.
    Arrays = dict[str, NDArray[Any]]
    Given: TypeAlias = tuple[int, int, NDArray[Any], Arrays, Arrays | None]


class Partial(Attended[AnyArray]):
    """What was computed of some of the keys; ``place`` says where they lie on the axis of them all."""

    def __init__(self, out: AnyArray, readouts: dict[str, AnyArray], place: range) -> None:
        super().__init__(out, readouts)
        self.place = place


def partial_attention(
    q: AnyArray,
    k: AnyArray,
    v: AnyArray,
    *,
    first_key: int,
    keys: int,
    mask: AnyArray | None = None,
    causal: bool | str | int = False,
    window: tuple[int | None, int | None] | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    alibi_slopes: AnyArray | Sequence[float] | None = None,
    lengths: AnyArray | Sequence[int] | None = None,
    read: Read | str | None = None,
    shares: AnyArray | None = None,
) -> Partial[AnyArray]:
    """As :func:`glasshead.attention`, where ``k`` and ``v`` are the keys from ``first_key`` on, of ``keys`` in all.

    Everything is said as of the whole: ``causal`` and ``window`` count on the axis of all keys, and so do ``lengths``
    and ``read``; a ``mask`` alone has the columns of the part. Sinks are given to :func:`glasshead.merge`:

    >>> parts = [glasshead.partial_attention(q, k, v, first_key=at, keys=n, causal="bottom-right", read=read), ...]
    >>> whole = glasshead.merge(parts, read)

    Where ``read`` adds up queries (received weight, blocks), it takes a second pass, for only when all parts are there
    is it known how much of a query's weight each has:

    >>> shares = glasshead.part_shares(parts, read)
    >>> sums = [glasshead.partial_attention(..., read=read, shares=shares[0]), ...]
    >>> whole = glasshead.merge(parts, read, sums)
    """
    kind = kind_of("q", q)
    if kind is TORCH and wants_gradients(q, k, v, mask):
        raise ValueError("parts have no gradients\nhint: call it under torch.no_grad(), or detach() the tensors")
    asked: Options = {
        "mask": mask,
        "causal": causal,
        "window": window,
        "scale": scale,
        "softcap": softcap,
        "sinks": None,
        "alibi_slopes": alibi_slopes,
        "lengths": lengths,
    }
    arrays = kind.take("q", q), kind.take("k", k), kind.take("v", v)
    given = None if shares is None else take_shares(kind, shares)
    options = take_options(kind, arrays[1], asked)
    out, readouts = _native.attention(*arrays, **options, read=read, part=(first_key, keys), shares=given)
    own = range(first_key, first_key + arrays[1].shape[2])
    return Partial(kind.give(out), {name: kind.give(array) for name, array in readouts.items()}, own)


def merge(
    parts: Sequence[Partial[AnyArray]],
    read: Read | str | None = None,
    sums: Sequence[Mapping[str, AnyArray]] | None = None,
    *,
    sinks: AnyArray | Sequence[float] | None = None,
) -> Attended[AnyArray]:
    """Attention over all keys from that over parts of them, in the order of their keys; see
    :func:`glasshead.partial_attention`.

    ``sums`` are the answers of the second pass, part by part. ``sinks [heads]`` are counted here, once. Parts are
    weighed by their ``lse``, which is float32, and an output of float16 or bfloat16 is rounded in each part.
    """
    kind, given = taken(parts, sums)
    out, readouts = _native.merge(given, read=read, sinks=take_sinks(kind, sinks))
    return Attended(kind.give(out), {name: kind.give(array) for name, array in readouts.items()})


def part_shares(
    parts: Sequence[Partial[AnyArray]],
    read: Read | str | None,
    *,
    sinks: AnyArray | Sequence[float] | None = None,
) -> list[AnyArray] | None:
    """The share that each part has of the weight of every query, ``[batch, heads, queries]``; None where ``read`` adds
    up no queries, so that no second pass is needed. See :func:`glasshead.partial_attention`."""
    kind, given = taken(parts, None)
    if read is None:
        return None
    batch, heads, queries, _ = given[0][2].shape
    if not _native.adds_up_queries(read, (batch, heads, queries, given[-1][1])):
        return None
    return [kind.give(array) for array in _native.shares(given, sinks=take_sinks(kind, sinks))]


def taken(
    parts: Sequence[Partial[AnyArray]], sums: Sequence[Mapping[str, AnyArray]] | None
) -> tuple[Kind, list[Given]]:
    """Parts as the engine takes them."""
    if not parts or not all(isinstance(part, Partial) for part in parts):
        found = ", ".join(type(part).__name__ for part in parts) or "nothing"
        raise TypeError(f"parts are {found}\nhint: give what glasshead.partial_attention gives, one for each part")
    if sums is not None and len(sums) != len(parts):
        raise ValueError(f"there are {len(parts)} parts and {len(sums)} sums\nhint: every part is read a second time")
    kind = kind_of("out", parts[0].out)

    def arrays(readouts: Mapping[str, Any]) -> dict[str, Any]:
        return {name: kind.take(name, array) for name, array in readouts.items()}

    given = []
    for at, part in enumerate(parts):
        summed = None if sums is None else arrays(sums[at])
        given.append((part.place.start, part.place.stop, kind.take("out", part.out), arrays(part), summed))
    return kind, given


def take_sinks(kind: Kind, sinks: object) -> Any:
    return None if sinks is None else take_vector(kind, "sinks", sinks, "float32")


def take_shares(kind: Kind, shares: object) -> Any:
    import numpy as np

    array = kind.take("shares", shares)
    if array.dtype != np.float32 or array.ndim != 3:
        raise TypeError(f"shares are {array.dtype.name} {list(array.shape)}\nhint: give one of glasshead.part_shares")
    return np.ascontiguousarray(array)
