"""Attention over torch tensors with its gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from . import _native
from ._arrays import TORCH
from ._attended import Attended
from ._attention import attention, take_options
from ._read import Read

if TYPE_CHECKING:
    from ._attention import Options


def differentiable(q: Tensor, k: Tensor, v: Tensor, asked: Options, read: Read | str | None) -> Attended[Tensor]:
    """As :func:`glasshead.attention`; the output knows where it came from."""
    answers: list[Attended[Tensor]] = []
    sinks, mask = asked["sinks"], asked["mask"]
    if not isinstance(sinks, Tensor):
        sinks = None
    out = AttentionFunction.apply(q, k, v, sinks, mask, asked, read, answers)
    return Attended(out, answers[0]._readouts, read, k.shape[2])


class AttentionFunction(torch.autograd.Function):
    """The output of q, k, v, the sinks and a mask; what was read out is left in ``answers`` and has no gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        sinks: Tensor | None,
        mask: Tensor | None,
        asked: Options,
        read: Read | str | None,
        answers: list[Attended[Tensor]],
    ) -> Tensor:
        seen = attention(q, k, v, **asked, read=with_lse(read))
        readouts = dict(seen)
        ctx.asked = asked
        ctx.save_for_backward(q, k, v, sinks, mask, seen.out, readouts["lse"])
        if not wants_lse(read):
            del readouts["lse"]
        answers.append(Attended(seen.out, readouts))
        out: Tensor = seen.out
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, sinks, mask, out, lse = ctx.saved_tensors
        of_mask = ctx.needs_input_grad[4]
        if is_batched(grad_out) and (asked := as_operator(ctx.asked)):
            # is_grads_batched=True gives several gradients at a time, which operators are taken apart for.
            from ._operators import attention_backward

            *of_qkv, gm = attention_backward(q, k, v, mask, out, lse, grad_out.to(out.dtype), *asked, of_mask)
            return *of_qkv, None, gm if of_mask else None, None, None, None
        with torch.no_grad():
            found = gradients(q, k, v, sinks, mask, ctx.asked, out, lse, grad_out, of_mask)
        if torch.is_grad_enabled():
            # Asked for with create_graph=True: nobody shall take them for constants.
            known = [n for n, x in enumerate(found) if x is not None]
            once = Once.apply(len(known), *(found[n] for n in known), q, k, v, sinks, mask, grad_out)
            for n, x in zip(known, once, strict=True):
                found[n] = x
        return *found, None, None, None


def is_batched(x: Tensor) -> bool:
    """Whether it stands for several tensors, in one of the two ways that torch has."""
    return "Batched" in str(torch._C._dispatch_keys(x))


def as_operator(asked: Options) -> tuple[str, float | None] | None:
    """Causal form and scale, where there are no other options than operators have."""
    causal = asked["causal"]
    known = ("mask", "causal", "scale", "softcap")
    if asked["softcap"] or any(value is not None for name, value in asked.items() if name not in known):
        return None
    if causal and not isinstance(causal, str):
        return None
    return causal or "", asked["scale"]


def gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor | None,
    mask: Tensor | None,
    asked: Options,
    out: Tensor,
    lse: Tensor,
    grad_out: Tensor,
    of_mask: bool,
) -> list[Tensor | None]:
    """Those of q, k, v, the sinks and, if asked for, the mask."""
    asked = asked.copy()
    asked["mask"] = mask
    # A gradient may come as another type, or as one number for all.
    given = {"q": q, "k": k, "v": v, "out": out, "grad_out": grad_out.to(out.dtype)}
    arrays = {name: TORCH.take(name, x) for name, x in given.items()}
    options = take_options(TORCH, arrays["k"], asked)
    *found, of_sinks = _native.backward(**arrays, lse=TORCH.take("lse", lse), **options)
    gq, gk, gv = (TORCH.give(array) for array in found)
    gs = None if sinks is None or of_sinks is None else TORCH.give(of_sinks).to(sinks.dtype)
    return [gq, gk, gv, gs, mask_gradient(q, k, v, asked, out, grad_out) if of_mask else None]


class Once(torch.autograd.Function):
    """Gradients that depend on what they were computed from, and cannot be differentiated again."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for x in tensors[:count] if x is not None)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> NoReturn:
        raise NotImplementedError(
            "gradients of gradients\nhint: torch's own function under sdpa_kernel(SDPBackend.MATH) has them"
        )


def wants_lse(read: Read | str | None) -> bool:
    if isinstance(read, Read):
        return read.lse
    return read is not None and any(item.strip() in ("lse", "all") for item in read.split(","))


def with_lse(read: Read | str | None) -> Read | str:
    """What the backward pass needs beside what was asked for."""
    if read is None:
        return Read(lse=True)
    if wants_lse(read):
        return read
    return replace(read, lse=True) if isinstance(read, Read) else f"{read},lse"


def mask_gradient(q: Tensor, k: Tensor, v: Tensor, asked: Options, out: Tensor, grad_out: Tensor) -> Tensor:
    """The gradient of a mask that is added to the scores, in the mask's shape.

    It is as large as the weights, or a sum of that many: so they are read out row by row, head by head.
    """
    batch, heads, queries, _ = q.shape
    group = heads // k.shape[1]
    mask: Tensor = asked["mask"]
    full = mask[(None,) * (4 - mask.dim())]
    gradient = torch.zeros_like(full, dtype=torch.promote_types(full.dtype, torch.float32))
    for b in range(batch):
        for h in range(heads):
            kv = h // group
            own: dict[str, Any] = dict(asked)
            own["mask"] = full[b if full.shape[0] > 1 else 0, h if full.shape[1] > 1 else 0]
            for name, index in (("sinks", h), ("alibi_slopes", h), ("lengths", b)):
                if own[name] is not None:
                    own[name] = own[name][index : index + 1]
            one = [x[b : b + 1, n : n + 1] for x, n in ((q, h), (k, kv), (v, kv))]
            if q.dtype == torch.float64:
                # Rows are read out in float32; with the identity as values the output is the weights.
                one[2] = torch.eye(k.shape[2], dtype=q.dtype)[None, None]
                weights = attention(*one, **own).out[0, 0]
            else:
                weights = attention(*one, **own, read=Read(rows=range(queries))).rows[0, 0]
            go = grad_out[b, h].to(weights.dtype)
            mean = (go * out[b, h]).sum(-1, keepdim=True)
            # Hidden values may be anything; where there is no weight there is no gradient.
            of_scores = torch.where(weights > 0, weights * (go @ v[b, kv].to(weights.dtype).T - mean), 0.0)
            place = gradient[b if full.shape[0] > 1 else 0, h if full.shape[1] > 1 else 0]
            place += of_scores.sum_to_size(place.shape)
    return gradient.to(mask.dtype).reshape(mask.shape)
