from typing import Any

from numpy import float32, int64
from numpy.typing import NDArray

from ._page import Scan
from ._parts import Given
from ._read import Read

__all__ = [
    "__version__",
    "adds_up_queries",
    "attention",
    "backward",
    "get_num_threads",
    "merge",
    "page",
    "set_num_threads",
    "shares",
]

__version__: str

def attention(
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    *,
    mask: NDArray[Any] | None,
    causal: bool | str | int,
    window: tuple[int | None, int | None] | None,
    scale: float | None,
    softcap: float,
    sinks: NDArray[float32] | None,
    alibi_slopes: NDArray[float32] | None,
    lengths: NDArray[int64] | None,
    read: Read | str | None,
    part: tuple[int, int] | None = None,
    shares: NDArray[float32] | None = None,
) -> tuple[NDArray[Any], dict[str, NDArray[float32] | NDArray[int64]]]: ...
def adds_up_queries(read: Read | str, shape: tuple[int, int, int, int]) -> bool: ...
def merge(
    parts: list[Given], *, read: Read | str | None, sinks: NDArray[float32] | None
) -> tuple[NDArray[Any], dict[str, NDArray[float32] | NDArray[int64]]]: ...
def shares(parts: list[Given], *, sinks: NDArray[float32] | None) -> list[NDArray[float32]]: ...
def backward(
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    out: NDArray[Any],
    grad_out: NDArray[Any],
    lse: NDArray[float32] | None,
    *,
    mask: NDArray[Any] | None,
    causal: bool | str | int,
    window: tuple[int | None, int | None] | None,
    scale: float | None,
    softcap: float,
    sinks: NDArray[float32] | None,
    alibi_slopes: NDArray[float32] | None,
    lengths: NDArray[int64] | None,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[float32] | None]: ...
def page(scan: Scan) -> str: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
