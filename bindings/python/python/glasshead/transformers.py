"""glasshead as the attention of models of transformers.

>>> glasshead.transformers.register()
>>> model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="glasshead")
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from . import _capture
from ._attention import attention
from ._masks import Visible, mask, remembered
from ._read import Read

NAME = "glasshead"


def register(name: str = NAME) -> None:
    """Makes ``attn_implementation="glasshead"`` known to transformers, with the masks that go with it."""
    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, mask)


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Visible | Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    output_attentions: bool | None = False,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """The attention of one layer: ``query [batch, heads, queries, dim]`` to ``[batch, queries, heads, dim]``.

    Other keywords are of other implementations: a sliding window comes with the mask. The second result is all weights
    where ``output_attentions`` asks for them, in memory that grows with queries × keys.
    """
    if dropout:
        raise NotImplementedError(f"dropout is {dropout}\nhint: weights are never dropped here; call model.eval()")
    attention_mask = remembered(attention_mask)
    options = visibility(module, query, key, attention_mask, is_causal)
    if position_bias is not None:
        options["mask"] = added(position_bias, options.get("mask"), key.shape[2])
    options |= {"scale": scaling, "softcap": softcap, "sinks": s_aux}
    watch = _capture.watching(module)
    seen = attention(query, key, value, read=None if watch is None else watch.read, **options)
    if watch is not None:
        watch.see(module, seen, key, attention_mask if isinstance(attention_mask, Visible) else None)
    weights = None
    if output_attentions:
        with torch.no_grad():
            rows = Read(rows=range(query.shape[2]))
            weights = attention(query, key, value, read=rows, **options).rows.to(query.dtype)
    return seen.out.transpose(1, 2).contiguous(), weights


def visibility(
    module: torch.nn.Module, query: Tensor, key: Tensor, mask: Visible | Tensor | None, is_causal: bool | None
) -> dict[str, Any]:
    """Who may see whom, as options of ``glasshead.attention``."""
    queries, keys = query.shape[2], key.shape[2]
    if mask is None:
        # No mask was made: the layer itself knows whether it is causal, and one query is the last one.
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        return {"causal": "top-left" if causal and queries > 1 else False}
    if isinstance(mask, Visible):
        if mask.keys != keys:
            raise ValueError(
                f"the mask was made for {mask.keys} keys and the layer has {keys}\n"
                "hint: this cache is not known here; use DynamicCache or StaticCache"
            )
        return mask.options()
    # A mask of somebody else; some are longer than the keys.
    return {"mask": mask[..., :keys]}


def added(bias: Tensor, mask: Tensor | None, keys: int) -> Tensor:
    """A bias on the scores, −∞ where a bool mask hides a key."""
    bias = bias[..., :keys]
    if mask is None:
        return bias
    return bias.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else bias + mask
