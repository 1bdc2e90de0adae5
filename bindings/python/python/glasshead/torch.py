"""PyTorch's ``scaled_dot_product_attention``, computed by glasshead.

>>> from glasshead.torch import scaled_dot_product_attention
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn.functional import pad

from ._attention import attention, refuse_tangents
from ._operators import attention as operator
from ._operators import looked_at

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As :func:`torch.nn.functional.scaled_dot_product_attention`, for tensors on the CPU.

    ``query [..., L, E]``, ``key [..., S, E]``, ``value [..., S, Ev]``. ``attn_mask`` is bool (True: this query may
    attend to this key) or float (added to the scores). ``is_causal`` is top-left: query i sees keys j ≤ i, also where
    there are more keys than queries. A query that may see no key gives 0. With ``enable_gqa`` neighbouring query heads
    share a key head. The output lies in memory as ``query`` does. Gradients are computed without keeping the weights.
    What cannot be done is refused: dropout, nested tensors, gradients of gradients, forward-mode derivatives.
    """
    if dropout_p != 0.0:
        raise NotImplementedError(f"dropout_p is {dropout_p}\nhint: weights are never dropped here; give 0.0")
    if torch.is_autocast_enabled("cpu"):
        query, key, value, attn_mask = autocast(query, key, value, attn_mask)
    causal: str | bool = "top-left" if is_causal else False
    if attn_mask is not None:
        if is_causal:
            if causal_bias(attn_mask)[0] is None:
                raise ValueError("CausalBias should not be used with causal=True\nhint: give one of them")
            refuse(
                "_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True",
                "put the causal form into the mask, or give one of them",
            )
        attn_mask, causal = causal_bias(attn_mask)
    q, k, v, mask = query, key, value, attn_mask
    if not as_usual(query, key, value, attn_mask, enable_gqa):
        check(query, key, value, attn_mask)
        if 0 in query.shape[:-2] or not value.shape[-1]:
            # No numbers, which still know where they came from.
            shape = [*leading(query, key, value, enable_gqa), query.shape[-2], value.shape[-1]]
            return query.new_zeros(shape) + 0 * (query.sum() + key.sum() + value.sum())
        if not query.shape[-1] and not key.shape[-1]:
            # All scores are 0, as those of one more number that is 0.
            query, key = pad(query, (0, 1)), pad(key, (0, 1))
        mask = attn_mask[None] if attn_mask is not None and attn_mask.dim() == 0 else attn_mask
        q, k, v, mask = four_axes(query, key, value, mask, enable_gqa)
    try:
        if looked_at():
            refuse_tangents(q, k, v, mask)
            out = operator(q, k, v, mask, causal or "", scale)[0]
        else:
            out = attention(q, k, v, mask=mask, causal=causal, scale=scale).out
    except (TypeError, ValueError) as error:
        # The class that torch's own function raises.
        raise RuntimeError(str(error)) from None
    if q is not query:
        out = out.reshape(*leading(query, key, value, enable_gqa), *out.shape[-2:])
    return out if query.is_contiguous() else laid_out_as(query, out)


def laid_out_as(query: Tensor, out: Tensor) -> Tensor:
    """The same with its axes in the order in which those of query lie in memory: what was a view of [tokens, heads] is
    one again."""
    strides = query.stride()
    if query.dim() != out.dim() or 0 in strides:
        return out
    last = query.dim() - 1
    order = [*sorted(range(last), key=lambda axis: (-strides[axis], axis)), last]
    back = sorted(range(last + 1), key=order.__getitem__)
    return out.permute(order).contiguous().permute(back)


def refuse(problem: str, hint: str) -> NoReturn:
    raise RuntimeError(f"{problem}\nhint: {hint}")


def autocast(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Inside ``torch.autocast`` torch's function computes in the type that is set there."""
    dtype = torch.get_autocast_dtype("cpu")
    casts = (torch.float32, torch.float16, torch.bfloat16)
    return tuple(x.to(dtype) if isinstance(x, Tensor) and x.dtype in casts else x for x in tensors)


def causal_bias(mask: Tensor) -> tuple[Tensor | None, str | bool]:
    """``torch.nn.attention.bias`` says a causal form without a mask; any other mask is one."""
    if type(mask) is Tensor or not hasattr(mask, "variant"):
        return mask, False
    from torch.nn.attention.bias import CausalBias, CausalVariant

    if not isinstance(mask, CausalBias):
        return mask, False
    return None, "top-left" if mask.variant == CausalVariant.UPPER_LEFT else "bottom-right"


def as_usual(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, enable_gqa: bool) -> bool:
    """Whether these are [batch, heads, tokens, dim] that the engine takes as they are: told in few steps, because all
    others take as long as a small attention."""
    return (
        mask is None
        and type(query) is type(key) is type(value) is Tensor
        and query.dtype is key.dtype is value.dtype
        and query.dtype in FLOATS
        and not (query.is_nested or key.is_nested or value.is_nested)
        and query.dim() == key.dim() == value.dim() == 4
        and query.size(0) == key.size(0) == value.size(0) > 0
        and query.size(1) > 0 < key.size(1) == value.size(1)
        and (query.size(1) % key.size(1) == 0 if enable_gqa else query.size(1) == key.size(1))
        and query.size(3) > 0 < value.size(3)
    )


def check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
    """What torch's function refuses, and what cannot be done here."""
    for name, x in (("query", query), ("key", key), ("value", value)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} is {type(x).__name__}\nhint: give a torch tensor")
        if x.is_nested:
            refuse(f"{name} is a nested tensor", "give a plain one, with a mask for what is padding")
        if x.dim() < 2:
            refuse(f"{name} has the shape {list(x.shape)}", "the last two axes are tokens and dim")
        if x.dtype != query.dtype or x.dtype not in FLOATS:
            refuse(f"{name} is {x.dtype} and query is {query.dtype}", "all are float32, float64, float16 or bfloat16")
    if mask is None:
        return
    if not isinstance(mask, Tensor):
        raise TypeError(f"attn_mask is {type(mask).__name__}\nhint: give a torch tensor")
    if mask.dtype not in (torch.bool, torch.float32, query.dtype):
        refuse(
            f"attn_mask is {mask.dtype} and query is {query.dtype}", "a mask is bool, float32, or of the query's type"
        )


def leading(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> list[int]:
    """The axes before tokens and dim of the output."""
    end = -3 if enable_gqa else -2
    try:
        shape = torch.broadcast_shapes(*(x.shape[:end] for x in (query, key, value)))  # type: ignore[no-untyped-call]
    except RuntimeError:
        shapes = ", ".join(str(list(x.shape)) for x in (query, key, value))
        refuse(f"query, key and value have the shapes {shapes}", "their leading axes are alike, or 1")
    return [*shape, *query.shape[end:-2]]


def four_axes(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, enable_gqa: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """[batch, heads, tokens, dim]: axes in front are added, or taken together."""
    if enable_gqa:
        key, value = shared_heads(query, key, value)
    kv_heads_fit = enable_gqa or query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    if (
        query.dim() == key.dim() == value.dim() == 4
        and kv_heads_fit
        and query.shape[0] == key.shape[0] == value.shape[0]
    ):
        return query, key, value, mask
    axes = leading(query, key, value, enable_gqa)

    def shaped(x: Tensor) -> Tensor:
        own = [*axes[:-1], x.shape[-3]] if enable_gqa else axes
        x = x.expand(*own, *x.shape[-2:])
        heads = own[-1] if own else 1
        return x.reshape(-1 if x.numel() else numel(own[:-1]), heads, *x.shape[-2:])

    if mask is not None and mask.dim() > 3 and len(axes) != 2:
        pairs = (query.shape[-2], key.shape[-2])
        mask = mask.expand(*axes, *pairs).reshape(
            -1 if mask.numel() else numel(axes[:-1]), axes[-1] if axes else 1, *pairs
        )
    return shaped(query), shaped(key), shaped(value), mask


def numel(shape: list[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def shared_heads(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Key heads that query heads share. The engine wants as many of values as of keys."""
    if min(x.dim() for x in (query, key, value)) < 3:
        refuse("enable_gqa=True and a tensor without heads", "the axes are [..., heads, tokens, dim]")
    heads, key_heads, value_heads = query.shape[-3], key.shape[-3], value.shape[-3]
    if not key_heads or not value_heads or heads % key_heads or heads % value_heads:
        refuse(
            f"{heads} query heads over {key_heads} key heads and {value_heads} value heads",
            "the heads of query are a multiple of both",
        )
    if key_heads != value_heads:
        key = key.repeat_interleave(heads // key_heads, -3)
        value = value.repeat_interleave(heads // value_heads, -3)
    return key, value
