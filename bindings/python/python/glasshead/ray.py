"""glasshead on several machines, on Ray.

>>> seen = glasshead.ray.attention(q, k_parts, v_parts, "entropy,top=8,received", causal="bottom-right")
>>> done = glasshead.ray.scan_corpus("corpus/", "path/of/a/model", "entropy,top=8", "out/")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ._attended import Attended
from ._corpus import Scanned, scan_corpus
from ._parts import Partial, merge, part_shares, partial_attention
from ._worker import get, use_threads

if TYPE_CHECKING:
    from ._read import Read

__all__ = ["Scanned", "attention", "scan_corpus"]


def attention(
    q: Any,
    k_parts: Sequence[Any],
    v_parts: Sequence[Any],
    read: Read | str | None = None,
    *,
    mask: Any = None,
    causal: bool | str | int = False,
    window: tuple[int | None, int | None] | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Any = None,
    alibi_slopes: Any = None,
    lengths: Any = None,
    num_cpus: int = 1,
) -> Attended[Any]:
    """As :func:`glasshead.attention`, over keys that lie on several workers.

    ``k_parts`` and ``v_parts`` are arrays, or Ray's references to them, in the order of the keys; ``q`` is an array or
    a reference. Each part is computed where its keys lie, on ``num_cpus`` threads; over the network go q, once to each
    machine, and what comes back, the output and the readouts of each part: no keys and no values. Readouts that add up
    queries (received weight, blocks) take a second pass, and then the output goes only once. Everything is said as of
    the whole, see :func:`glasshead.partial_attention`.
    """
    if len(k_parts) != len(v_parts) or not k_parts:
        raise ValueError(
            f"there are {len(k_parts)} parts of keys and {len(v_parts)} of values\n"
            "hint: give both in the order of the keys, at least one of each"
        )
    query = q if isinstance(q, ray.ObjectRef) else ray.put(q)
    parts = [
        [x if isinstance(x, ray.ObjectRef) else ray.put(x) for x in pair] for pair in zip(k_parts, v_parts, strict=True)
    ]
    places = get([PLACE.remote(*pair, at) for at, pair in enumerate(parts)])
    keys = sum(count for count, _ in places)
    options = {
        "causal": causal, "window": window, "scale": scale, "softcap": softcap, "alibi_slopes": alibi_slopes,
        "lengths": lengths, "read": read, "keys": keys,
    }  # fmt: skip
    firsts = [sum(count for count, _ in places[:at]) for at in range(len(places))]

    def everywhere(task: Any, shares: Sequence[Any]) -> list[Any]:
        refs = []
        for pair, first, (count, node), share in zip(parts, firsts, places, shares, strict=True):
            own = options | {"first_key": first, "mask": columns(mask, first, count, keys), "shares": share}
            # Not where most of the arguments lie: that may be where q is.
            here = NodeAffinitySchedulingStrategy(node, soft=True)
            refs.append(task.options(num_cpus=num_cpus, scheduling_strategy=here).remote(query, *pair, own, num_cpus))
        answers: list[Any] = get(refs)
        return answers

    seen = everywhere(PART, [None] * len(parts))
    shares = part_shares(seen, read, sinks=sinks)
    sums = None if shares is None else everywhere(SUMS, shares)
    return merge(seen, read, sums, sinks=sinks)


def columns(mask: Any, first: int, count: int, keys: int) -> Any:
    """Those of a part of the keys; a mask may also have one for all."""
    if mask is None or mask.shape[-1] == 1:
        return mask
    if mask.shape[-1] != keys:
        raise ValueError(
            f"mask has the shape {list(mask.shape)} and there are {keys} keys\n"
            "hint: the last axis of a mask is as long as all keys, or 1"
        )
    return mask[..., first : first + count]


def where(k: Any, v: Any, at: int) -> tuple[int, str]:
    """How many keys there are, and the machine on which they lie: Ray starts a task where most of its arguments are."""
    if getattr(k, "ndim", 0) != 4:
        shape = list(k.shape) if hasattr(k, "shape") else type(k).__name__
        raise ValueError(f"part {at} of the keys is {shape}\nhint: [batch, kv_heads, keys, dim]")
    return k.shape[2], ray.get_runtime_context().get_node_id()


def part(q: Any, k: Any, v: Any, options: dict[str, Any], threads: int) -> Partial[Any]:
    """The first pass."""
    use_threads(threads)
    return partial_attention(q, k, v, **options)


def sums(q: Any, k: Any, v: Any, options: dict[str, Any], threads: int) -> dict[str, Any]:
    """The second pass: readouts alone."""
    return dict(part(q, k, v, options, threads))


PLACE: Any = ray.remote(num_cpus=0)(where)
PART: Any = ray.remote(part)
SUMS: Any = ray.remote(sums)
