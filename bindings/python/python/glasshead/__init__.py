"""Exact softmax attention on the CPU that you can see into.

>>> seen = glasshead.attention(q, k, v, causal=True, read=glasshead.Read(entropy=True, top=8))
>>> seen.out, seen.entropy, seen.top_index

``glasshead.torch`` has PyTorch's ``scaled_dot_product_attention``. It alone imports torch.
"""

from __future__ import annotations

from ._attended import Attended
from ._attention import attention
from ._native import __version__, get_num_threads, set_num_threads
from ._read import Read

__all__ = [
    "Attended",
    "Read",
    "__version__",
    "attention",
    "get_num_threads",
    "set_num_threads",
]
