"""``glasshead.attention``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _native
from ._arrays import TORCH, AnyArray, Kind, kind_of, take_mask, take_vector
from ._attended import Attended

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypedDict

    import numpy as np
    from numpy.typing import NDArray

    from ._read import Read

    class Options(TypedDict):
        """What is said beside q, k and v."""

        mask: Any
        causal: bool | str | int
        window: tuple[int | None, int | None] | None
        scale: float | None
        softcap: float | None
        sinks: Any
        alibi_slopes: Any
        lengths: Any

    class NativeOptions(TypedDict):
        """The same as the engine takes it."""

        mask: NDArray[Any] | None
        causal: bool | str | int
        window: tuple[int | None, int | None] | None
        scale: float | None
        softcap: float
        sinks: NDArray[np.float32] | None
        alibi_slopes: NDArray[np.float32] | None
        lengths: NDArray[np.int64] | None


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
    arrays of the caller's kind, readouts in float32 and int64. The output of torch tensors has gradients with respect
    to q, k, v, a float mask and sinks, in memory that grows with the tokens; slopes and readouts have none.
    """
    kind = kind_of("q", q)
    if kind is TORCH:
        refuse_tracing(q, k, v, mask, sinks)
    asked: Options = {
        "mask": mask,
        "causal": causal,
        "window": window,
        "scale": scale,
        "softcap": softcap,
        "sinks": sinks,
        "alibi_slopes": alibi_slopes,
        "lengths": lengths,
    }
    if kind is TORCH and wants_gradients(q, k, v, mask, sinks):
        from ._gradients import differentiable

        return differentiable(q, k, v, asked, read)  # type: ignore[arg-type, return-value]
    return compute(kind, q, k, v, asked, read)


def compute(
    kind: Kind, q: AnyArray, k: AnyArray, v: AnyArray, asked: Options, read: Read | str | None
) -> Attended[AnyArray]:
    """As :func:`attention`, of numbers alone."""
    arrays = kind.take("q", q), kind.take("k", k), kind.take("v", v)
    out, readouts = _native.attention(*arrays, **take_options(kind, arrays[1], asked), read=read)
    given = {name: kind.give(array) for name, array in readouts.items()}
    return Attended(kind.give(out), given, read, arrays[1].shape[2])


def take_options(kind: Kind, k: NDArray[Any], asked: Options) -> NativeOptions:
    """Options as the engine takes them."""
    mask, sinks, slopes, lengths = asked["mask"], asked["sinks"], asked["alibi_slopes"], asked["lengths"]
    return {
        "mask": None if mask is None else take_mask(kind, mask, k.shape[-2] if k.ndim > 1 else 0),
        "causal": asked["causal"],
        "window": asked["window"],
        "scale": asked["scale"],
        "softcap": asked["softcap"] or 0.0,
        "sinks": None if sinks is None else take_vector(kind, "sinks", sinks, "float32"),
        "alibi_slopes": None if slopes is None else take_vector(kind, "alibi_slopes", slopes, "float32"),
        "lengths": None if lengths is None else take_vector(kind, "lengths", lengths, "int64"),
    }


def wants_gradients(*arrays: object) -> bool:
    """Whether somebody wants gradients of one of these tensors."""
    import torch

    return torch.is_grad_enabled() and any(getattr(array, "requires_grad", False) for array in arrays)


def refuse_tracing(*arrays: object) -> None:
    """Refuses whoever would take this one answer for all, or for a constant."""
    import torch

    if torch._C._get_tracing_state() or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY):
        raise NotImplementedError(
            "a tracer would record the answer as a constant\n"
            "hint: glasshead.torch.scaled_dot_product_attention can be traced; torch.compile takes both"
        )
    refuse_tangents(*arrays)


def refuse_tangents(*arrays: object) -> None:
    """Refuses forward-mode derivatives, which would be lost."""
    import torch

    forward_ad: Any = torch.autograd.forward_ad
    if forward_ad._current_level < 0:
        return
    tensors = [array for array in arrays if isinstance(array, torch.Tensor)]
    if any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise NotImplementedError(
            "forward-mode derivatives\nhint: torch's own function under sdpa_kernel(SDPBackend.MATH) has them"
        )
