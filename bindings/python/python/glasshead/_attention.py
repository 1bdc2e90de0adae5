"""``glasshead.attention``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _native
from ._arrays import TORCH, AnyArray, Kind, kind_of, take, take_mask, take_vector
from ._attended import Attended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._read import Read


def attention(
    q: AnyArray,
    k: AnyArray,
    v: AnyArray,
    *,
    mask: AnyArray | None = None,
    causal: bool | str | int = False,
    window: tuple[int | None, int | None] | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: AnyArray | Sequence[float] | None = None,
    alibi_slopes: AnyArray | Sequence[float] | None = None,
    lengths: AnyArray | Sequence[int] | None = None,
    read: Read | str | None = None,
) -> Attended[AnyArray]:
    """softmax(softcap(q·kᵀ · scale) + mask) · v, and what ``read`` asks for, in one pass.

    ``q [batch, heads, queries, dim]``, ``k [batch, kv_heads, keys, dim]`` and ``v [batch, kv_heads, keys, value_dim]``
    are NumPy arrays or torch tensors of float32, float64, float16 or bfloat16, all alike, with any strides; nothing
    is copied. ``heads`` is a multiple of ``kv_heads``: neighbouring query heads share a key head.

    - ``mask``: bool (True: this query may attend to this key) or float (added to the scores; −∞ hides), broadcast to
      ``[batch, heads, queries, keys]``.
    - ``causal``: ``"top-left"`` (torch), ``"bottom-right"`` (the last query sees the last key: a KV cache), an offset
      (query i sees keys j ≤ i + offset), or True where there are as many queries as keys.
    - ``window``: ``(left, right)``, how many keys before and after a query's position it sees; None leaves a side open.
    - ``scale`` instead of 1/√dim; ``softcap`` c: scores become c·tanh(score / c).
    - ``sinks [heads]``: one extra logit per head that takes weight and gives no value.
    - ``alibi_slopes [heads]``: scores lose slope · distance.
    - ``lengths [batch]``: how many keys of a batch element are real; the others are padding.
    - ``read``: a :class:`glasshead.Read`, or a list such as ``"entropy,top=8"`` or ``"all"``.

    A query that may see no key gives 0. A hidden key or value never touches a result, not even as NaN. Results are
    arrays of the caller's kind, readouts in float32 and int64. They carry no gradients: a tensor that needs one is
    refused, see :func:`glasshead.torch.scaled_dot_product_attention`.
    """
    kind = kind_of("q", q)
    refuse_gradients(kind, q, k, v)
    taken = take(kind, "q", q), take(kind, "k", k), take(kind, "v", v)
    out, readouts = _native.attention(
        *taken,
        mask=None if mask is None else take_mask(kind, mask, taken[1].shape[-2] if taken[1].ndim > 1 else 0),
        causal=causal,
        window=window,
        scale=scale,
        softcap=softcap or 0.0,
        sinks=None if sinks is None else take_vector(kind, "sinks", sinks, "float32"),
        alibi_slopes=None if alibi_slopes is None else take_vector(kind, "alibi_slopes", alibi_slopes, "float32"),
        lengths=None if lengths is None else take_vector(kind, "lengths", lengths, "int64"),
        read=read,
    )
    return Attended(kind.give(out), {name: kind.give(array) for name, array in readouts.items()})


def refuse_gradients(kind: Kind, *arrays: Any) -> None:
    """Refuses tensors that somebody wants gradients of, which would be lost without a word."""
    if kind is not TORCH or not any(getattr(array, "requires_grad", False) for array in arrays):
        return
    import torch

    if torch.is_grad_enabled():
        raise ValueError(
            "q, k or v requires gradients, and glasshead.attention gives none\n"
            "hint: call it under torch.no_grad() or on x.detach()"
        )
