"""Attention as operators of torch, for what looks at a program instead of running it: ``torch.compile``, ``export``,
tracing, ``vmap``. A call of them costs more than one of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._arrays import TORCH
from ._attention import compute
from ._gradients import gradients

if TYPE_CHECKING:
    from ._attention import Options


def looked_at() -> bool:
    """Whether operators are recorded, or called on something else than numbers."""
    return bool(
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack()
    )


def options(mask: Tensor | None, causal: str, scale: float | None) -> Options:
    return {
        "mask": mask,
        "causal": causal or False,
        "window": None,
        "scale": scale,
        "softcap": None,
        "sinks": None,
        "alibi_slopes": None,
        "lengths": None,
    }


@torch.library.custom_op(
    "glasshead::attention",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? mask, str causal, float? scale) -> (Tensor, Tensor)",
)
def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: str, scale: float | None
) -> tuple[Tensor, Tensor]:
    """The output, and the logarithm of the sum of each query. An empty ``causal`` is none."""
    seen = compute(TORCH, q, k, v, options(mask, causal, scale), "lse")
    return seen.out, seen.lse


@torch.library.custom_op(
    "glasshead::attention_backward",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor out, Tensor lse, Tensor grad_out, str causal, "
    "float? scale, bool of_mask) -> (Tensor, Tensor, Tensor, Tensor)",
)
def attention_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    grad_out: Tensor,
    causal: str,
    scale: float | None,
    of_mask: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the mask; of no mask an empty one."""
    asked = options(mask, causal, scale)
    gq, gk, gv, _, gm = gradients(q, k, v, None, mask, asked, out, lse, grad_out, of_mask)
    assert gq is not None and gk is not None and gv is not None
    return gq, gk, gv, q.new_empty(0) if gm is None else gm


@attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: str, scale: float | None) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:-1], v.shape[-1]), q.new_empty(q.shape[:-1], dtype=torch.float32)


@attention_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *_, of_mask = rest
    of = mask.new_empty(mask.shape) if of_mask and mask is not None else q.new_empty(0)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), of


def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, mask, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, mask, *output)


def differentiate(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, mask, out, lse = ctx.saved_tensors
    of_mask = mask is not None and ctx.needs_input_grad[3]
    gq, gk, gv, gm = attention_backward(q, k, v, mask, out, lse, grad_out, ctx.causal, ctx.scale, of_mask)
    return gq, gk, gv, gm if of_mask else None, None, None


attention.register_autograd(differentiate, setup_context=keep)


def in_front(info: Any, dim: int | None, x: Tensor) -> Tensor:
    """With the axis that ``vmap`` runs over as the first."""
    return x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)


@attention.register_vmap
def _(
    info: Any,
    dims: tuple[int | None, ...],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: str,
    scale: float | None,
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    q, k, v = (in_front(info, dim, x) for dim, x in zip(dims, (q, k, v), strict=False))
    both = q.shape[:2]
    if mask is not None:
        mask = in_front(info, dims[3], mask)
        mask = mask[(slice(None), *(None,) * (5 - mask.dim()))]
        mask = mask.expand(*both, *mask.shape[2:]).flatten(0, 1)
    out, lse = attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), mask, causal, scale)
    return (out.unflatten(0, both), lse.unflatten(0, both)), (0, 0)


@attention_backward.register_vmap
def _(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    of_each = [
        attention_backward(*(x if dim is None else x.select(dim, n) for x, dim in zip(arguments, dims, strict=True)))
        for n in range(info.batch_size)
    ]
    return tuple(torch.stack(gradients) for gradients in zip(*of_each, strict=True)), (0, 0, 0, 0)
