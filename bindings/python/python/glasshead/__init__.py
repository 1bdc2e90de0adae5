"""Exact softmax attention on the CPU that you can see into.

>>> seen = glasshead.attention(q, k, v, causal=True, read=glasshead.Read(entropy=True, top=8))
>>> seen.out, seen.entropy, seen.top_index

``glasshead.torch`` has PyTorch's ``scaled_dot_product_attention``, ``glasshead.transformers`` registers the attention
of a model, ``glasshead.capture`` reads it out, and ``glasshead.ray`` does both on several machines. None of their
libraries is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._attended import Attended, Readouts
from ._attention import attention
from ._native import __version__, get_num_threads, set_num_threads
from ._parts import Partial, merge, part_shares, partial_attention
from ._read import Read

if TYPE_CHECKING:
    from ._capture import capture
    from ._captured import Captured

__all__ = [
    "Attended",
    "Captured",
    "Partial",
    "Read",
    "Readouts",
    "__version__",
    "attention",
    "capture",
    "get_num_threads",
    "merge",
    "part_shares",
    "partial_attention",
    "set_num_threads",
]


def __getattr__(name: str) -> object:
    # These import torch.
    if name == "capture":
        from ._capture import capture

        return capture
    if name == "Captured":
        from ._captured import Captured

        return Captured
    raise AttributeError(f"module 'glasshead' has no attribute {name!r}")
