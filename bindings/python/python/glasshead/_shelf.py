"""Memory for what is kept from layer to layer."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

# Pages that nothing was written to are not there yet.
BYTES = 64 << 20
ALIGNED = 64


class Shelf:
    """Keeps arrays apart from the memory in which layers compute. Small arrays that stay there leave holes between
    them, too small for the next layer's: kept so, 5 MB of readouts cost a model 600 MB."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, BYTES)
        self.used = 0

    def keep(self, array: Tensor) -> Tensor:
        """A copy on the shelf."""
        size = array.numel() * array.element_size()
        if not size:
            return array.clone()
        if size > len(self.memory) - self.used:
            # The arrays hold on to what is full.
            self.memory, self.used = mmap.mmap(-1, max(BYTES, size)), 0
        kept = torch.frombuffer(self.memory, dtype=array.dtype, count=array.numel(), offset=self.used)
        self.used += -(-size // ALIGNED) * ALIGNED
        return kept.view(array.shape).copy_(array)
