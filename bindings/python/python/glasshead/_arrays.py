"""Arrays of the caller's kind, as NumPy arrays over the same memory, and back.

NumPy has no bfloat16: its bits go to the engine as uint16, and come back so.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any] | torch.Tensor

# What NumPy calls uint16.
BITS = "H"

AnyArray = TypeVar("AnyArray", bound="Array")


def is_bf16(dtype: np.dtype[Any]) -> bool:
    """Whether it is the bfloat16 of ml_dtypes, a type that NumPy has no letter for."""
    return dtype.char not in "fdeH?" and dtype.name == "bfloat16"


class Kind(Protocol):
    """One library's arrays."""

    name: str

    def is_mine(self, array: object) -> bool: ...
    def take(self, name: str, array: Any) -> NDArray[Any]:
        """The array as the engine takes it, over the same memory."""
        ...

    def give(self, array: NDArray[Any]) -> Any: ...


class NumpyKind:
    """NumPy arrays, with the bfloat16 of ml_dtypes."""

    name = "a NumPy array"

    def __init__(self, bf16: np.dtype[Any] | None = None) -> None:
        self.bf16 = bf16

    def is_mine(self, array: object) -> bool:
        import numpy as np

        return isinstance(array, np.ndarray)

    def take(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        if not self.is_mine(array):
            raise another_kind(name, array, self)
        if is_bf16(array.dtype):
            return array.view(np.uint16)
        if array.dtype.char == BITS:
            raise TypeError(f"{name} is uint16\nhint: bfloat16 numbers come as a view of ml_dtypes.bfloat16")
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

    def give(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.view(self.bf16) if self.bf16 is not None and array.dtype.char == BITS else array


class TorchKind:
    """Tensors of PyTorch in the memory of the CPU."""

    name = "a torch tensor"
    bf16: torch.dtype | None = None

    def is_mine(self, array: object) -> bool:
        torch = sys.modules.get("torch")
        if torch is None:
            return False
        self.bf16 = torch.bfloat16
        return isinstance(array, torch.Tensor)

    def take(self, name: str, array: torch.Tensor) -> NDArray[Any]:
        # To ask first would take as long as a small attention: numpy() refuses all that needs care.
        try:
            if array.dtype is self.bf16:
                return bits_of(array)
            numbers: NDArray[Any] = array.numpy()
        except (AttributeError, TypeError, RuntimeError):
            numbers = self.take_with_care(name, array)
        return numbers

    def take_with_care(self, name: str, array: torch.Tensor) -> NDArray[Any]:
        """Of tensors that numpy() refuses: the same memory, or why not."""
        import torch

        if not self.is_mine(array):
            raise another_kind(name, array, self)
        if not array.is_cpu:
            raise ValueError(
                f"{name} lies on {array.device}\nhint: glasshead computes on the CPU; move it there with .cpu()"
            )
        if array.layout != torch.strided or array.is_nested:
            kind = "nested" if array.is_nested else str(array.layout)
            raise TypeError(
                f"{name} is a {kind} tensor\nhint: give a plain one, with lengths or a mask for what is padding"
            )
        if array.is_neg() or array.is_conj():
            array = array.resolve_conj().resolve_neg()
        if array.requires_grad:
            array = array.detach()
        if array.dtype == torch.bfloat16:
            return bits_of(array)
        numbers: NDArray[Any] = array.numpy()
        return numbers

    def give(self, array: NDArray[Any]) -> torch.Tensor:
        import torch

        bf16 = array.dtype.char == BITS
        given: torch.Tensor = torch.from_numpy(array.view("int16") if bf16 else array)
        return given.view(torch.bfloat16) if bf16 else given


def bits_of(array: torch.Tensor) -> NDArray[Any]:
    """Those of bfloat16: numpy() knows none, and uint16 only in newer versions; the bits of int16 are the same."""
    import torch

    return array.view(torch.int16).numpy().view("uint16")


TORCH = TorchKind()


def kind_of(name: str, array: object) -> Kind:
    """The kind of the caller's arrays, told by the first of them."""
    if TORCH.is_mine(array):
        return TORCH
    numpy = NumpyKind()
    if not numpy.is_mine(array):
        raise TypeError(f"{name} is {type(array).__name__}\nhint: give NumPy arrays or torch tensors")
    dtype: np.dtype[Any] = array.dtype  # type: ignore[attr-defined]
    return NumpyKind(dtype) if is_bf16(dtype) else numpy


def another_kind(name: str, array: object, kind: Kind) -> TypeError:
    return TypeError(f"{name} is {type(array).__name__} and q is {kind.name}\nhint: give all arrays as one kind")


def take_mask(kind: Kind, mask: object, keys: int) -> NDArray[Any]:
    """A mask in C order, each repeated axis once; True and False as uint8."""
    import numpy as np

    array = kind.take("mask", mask)
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    elif array.dtype.kind != "f" and array.dtype != np.uint16:
        raise TypeError(
            f"mask is {array.dtype.name}\nhint: give bool (True = may attend) or floats, which are added to the scores"
        )
    if not 1 <= array.ndim <= 4:
        raise ValueError(
            f"mask has the shape {array.shape}\nhint: 1 to 4 axes, the last ones of [batch, heads, queries, keys]"
        )
    if array.shape[-1] != keys:
        if array.shape[-1] != 1:
            raise ValueError(
                f"mask has the shape {array.shape} and there are {keys} keys\n"
                "hint: the last axis of a mask is as long as the keys, or 1; lengths hides keys at the end"
            )
        array = np.broadcast_to(array, (*array.shape[:-1], keys))
    # The engine repeats axes of one itself, all but the last.
    once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides[:-1])
    return np.require(array[once], requirements=["C", "A"])


def take_vector(kind: Kind, name: str, values: object, dtype: str) -> NDArray[Any]:
    """A short list of numbers, copied."""
    import numpy as np

    array = kind.take(name, values) if kind.is_mine(values) else np.asarray(values)
    if array.dtype.name == "uint16":
        # bfloat16: the upper half of a float32.
        array = (array.astype(np.uint32) << 16).view(np.float32)
    wanted = "iu" if dtype == "int64" else "fiu"
    if array.dtype.kind not in wanted or array.ndim != 1:
        raise TypeError(f"{name} is {array.dtype.name} {list(array.shape)}\nhint: a list of {dtype} numbers")
    return np.ascontiguousarray(array, dtype=dtype)
