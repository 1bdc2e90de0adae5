"""Attention over torch tensors with its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from ._attended import Attended
from ._attention import attention


def attend(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Attended[Tensor]:
    """As :func:`glasshead.attention`; the output knows where it came from."""
    sinks = options.get("sinks")
    sinks_need = sinks is not None and sinks.requires_grad
    if not (torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad or sinks_need)):
        return attention(q, k, v, **options)
    answers: list[Attended[Tensor]] = []
    out = AttentionFunction.apply(q, k, v, sinks, options, answers)
    return Attended(out, answers[0]._readouts)


class AttentionFunction(torch.autograd.Function):
    """The output of q, k, v and the sinks; what was read out is left in ``answers`` and has no gradients."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        sinks: Tensor | None,
        options: dict[str, Any],
        answers: list[Attended[Tensor]],
    ) -> Tensor:
        answers.append(attention(q, k, v, **options))
        return answers[0].out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError(
            "glasshead computes no gradients yet\nhint: train with another attention, or call it under torch.no_grad()"
        )
