"""What transformers says about who may see whom, as the engine takes it: a few numbers instead of a mask of queries ×
keys."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import masking_utils


@dataclass(frozen=True)
class Visible:
    """Query i may see key j where their positions, ``first_query + i`` and ``first_key + j``, fit."""

    first_query: int
    first_key: int
    keys: int
    causal: bool
    left: int | None
    """How many keys before a query's own position it sees; None for all."""
    padding: Tensor | None
    """bool [batch, keys]: True where a key is real; None where all are."""

    # A mask made by ``generate`` comes to the model as its attention_mask, which asks whether it is one of padding.
    ndim = 4

    def options(self) -> dict[str, Any]:
        """The same as options of ``glasshead.attention``."""
        options: dict[str, Any] = {"causal": self.first_query - self.first_key if self.causal else False}
        if self.left is not None:
            options["window"] = (self.left, None)
        if self.padding is not None:
            if bool((self.padding[:, 1:] <= self.padding[:, :-1]).all()):
                options["lengths"] = self.padding.sum(dim=1)
            else:
                options["mask"] = self.padding[:, None, None, :]
        return options


@dataclass(frozen=True)
class Pattern:
    """What a mask function of transformers hides, apart from padding."""

    causal: bool = False
    left: int | None = None


def recognised(function: Callable[..., Any]) -> Pattern | None:
    """The pattern of the mask functions that most models use; None for any other, whose mask is then written out."""
    if function is masking_utils.causal_mask_function:
        return Pattern(causal=True)
    if function is masking_utils.bidirectional_mask_function:
        return Pattern()
    if not inspect.isfunction(function) or function.__module__ != masking_utils.__name__:
        return None
    inside = inspect.getclosurevars(function).nonlocals
    match function.__qualname__.partition(".")[0]:
        case "sliding_window_overlay" if isinstance(inside.get("sliding_window"), int):
            return Pattern(left=inside["sliding_window"] - 1)
        case "and_masks":
            parts = [recognised(part) for part in inside.get("mask_functions", ())]
            known = [part for part in parts if part is not None]
            if not known or len(known) < len(parts):
                return None
            lefts = [part.left for part in known if part.left is not None]
            return Pattern(any(part.causal for part in known), min(lefts, default=None))
    return None


def mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = masking_utils.causal_mask_function,
    attention_mask: Visible | Tensor | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    **options: Any,
) -> Visible | Tensor:
    """What ``AttentionMaskInterface`` calls: a :class:`Visible`, or a bool mask where the pattern is a user's own.
    Where no skip is allowed the model may calculate with it: it gets a bool mask that remembers what it says."""
    if isinstance(attention_mask, Visible):
        return attention_mask
    pattern = None if use_vmap else recognised(mask_function)
    visible = None
    if pattern is not None and (pattern.causal or (pattern.left is None and int(q_offset) == 0)):
        padding = masking_utils.prepare_padding_mask(attention_mask, kv_length, kv_offset)
        if padding is not None:
            padding = padding[:, kv_offset : kv_offset + kv_length]
            padding = None if bool(padding.all()) else padding
        visible = Visible(int(q_offset), kv_offset, kv_length, pattern.causal, pattern.left, padding)
    if visible is None or not (allow_is_causal_skip or allow_is_bidirectional_skip):
        written = masking_utils.sdpa_mask(
            batch_size=batch_size,
            q_length=q_length,
            kv_length=kv_length,
            q_offset=q_offset,  # type: ignore[arg-type]
            kv_offset=kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
            allow_is_causal_skip=False,
            allow_is_bidirectional_skip=False,
            use_vmap=use_vmap,
            **options,
        )
        assert written is not None, "only a skip gives None"
        if visible is not None and not written.is_inference():
            written.glasshead = (visible, written._version)  # type: ignore[attr-defined]
        return written
    return visible


def remembered(mask: Visible | Tensor | None) -> Visible | Tensor | None:
    """The mask in a few numbers, where it is still what :func:`mask` made."""
    visible, version = getattr(mask, "glasshead", (None, None))
    return visible if isinstance(mask, Tensor) and visible is not None and mask._version == version else mask
