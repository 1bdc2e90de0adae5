"""Readouts as tidy tables, with the columns that ``glasshead scan -o FILE.parquet`` has."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars
    import pyarrow
    from numpy.typing import NDArray

    Table: TypeAlias = dict[str, NDArray[Any]]

# The axes behind [batch, heads], by the name of the array; all others have one number per query.
AXES = {
    "received": ["key"],
    "received_weighted": ["key"],
    "received_by_value": ["key"],
    "top_weight": ["token", "rank"],
    "top_weight_by_value": ["token", "rank"],
    "rows": ["row", "key"],
    "rows_by_value": ["row", "key"],
    "segments": ["token", "segment"],
    "blocks": ["query_block", "key_block"],
}
# Of the two arrays of the heaviest keys it is the weights that make the table.
INDEX_OF = {"top_weight": "top_index", "top_weight_by_value": "top_index_by_value"}


def numpy_of(array: Any) -> NDArray[Any]:
    """Any array as a NumPy array; bfloat16 as float32."""
    if not isinstance(array, np.ndarray):
        array = array.detach()
        array = (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()
    values: NDArray[Any] = array
    return values.astype(np.float32) if values.dtype.name == "bfloat16" else values


def tables(arrays: Mapping[str, NDArray[Any]], heads: Sequence[int] | None = None) -> dict[str, Table]:
    """A table for each readout, a line per number; ``heads`` says which they are where not all are there."""
    made = {}
    for name, values in arrays.items():
        if name == "out" or name in INDEX_OF.values():
            continue
        at: tuple[NDArray[Any], ...] = np.indices(values.shape, sparse=True)
        axes = ["batch", "head", *AXES.get(name, ["token"])]
        table: Table = {
            axis: np.broadcast_to(index, values.shape).ravel() for axis, index in zip(axes, at, strict=True)
        }
        if heads is not None:
            table["head"] = np.asarray(heads, np.int64)[table["head"]]
        if name in INDEX_OF:
            keys = arrays[INDEX_OF[name]].ravel()
            there = keys >= 0
            table |= {"key": keys, "weight": values.ravel()}
            table = {column: numbers[there] for column, numbers in table.items()}
        else:
            table["value"] = values.ravel()
        made[name.replace("top_weight", "top")] = table
    return made


def polars_of(table: Table) -> polars.DataFrame:
    """A frame of Polars."""
    frame: polars.DataFrame = needed("polars", "to_polars").DataFrame(table)
    return frame


def arrow_of(table: Table) -> pyarrow.Table:
    """A table of pyarrow."""
    made: pyarrow.Table = needed("pyarrow", "to_arrow").table(table)
    return made


def needed(library: str, caller: str) -> Any:
    """An optional library."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(f"{caller} needs {library}\nhint: pip install {library}") from error
