"""The answer of ``glasshead.attention``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic

from ._arrays import AnyArray

if TYPE_CHECKING:
    import polars
    import pyarrow
    from numpy.typing import NDArray


class Attended(Mapping[str, AnyArray], Generic[AnyArray]):
    """The output ``out [batch, heads, queries, value_dim]``, and the readouts by name: ``seen["entropy"]``, or
    ``seen.entropy``. Arrays are of the caller's kind."""

    __slots__ = ("_readouts", "out")

    def __init__(self, out: AnyArray, readouts: dict[str, AnyArray]) -> None:
        self.out = out
        self._readouts = readouts

    def __getitem__(self, name: str) -> AnyArray:
        try:
            return self._readouts[name]
        except KeyError:
            read = ", ".join(self._readouts) or "nothing"
            raise KeyError(f"{name!r} was not read\nhint: read was {read}; see glasshead.Read") from None

    def __getattr__(self, name: str) -> AnyArray:
        # Names of the language are asked for by copy, pickle and the notebook.
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._readouts)

    def __len__(self) -> int:
        return len(self._readouts)

    def __reduce__(self) -> tuple[Any, ...]:
        return Attended, (self.out, self._readouts)

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """``out`` and the readouts as NumPy arrays; bfloat16 as float32."""
        from ._tables import numpy_of

        return {name: numpy_of(array) for name, array in (("out", self.out), *self._readouts.items())}

    def to_dict(self) -> dict[str, Any]:
        """``out`` and the readouts as nested lists, as JSON has them."""
        return {name: array.tolist() for name, array in self.to_numpy().items()}

    def to_polars(self) -> dict[str, polars.DataFrame]:
        """A tidy table for each readout: a line per number, beside it the batch element, the head, and the token it
        is of."""
        from ._tables import polars_of, tables

        return {name: polars_of(table) for name, table in tables(self.to_numpy()).items()}

    def to_arrow(self) -> dict[str, pyarrow.Table]:
        """As :meth:`to_polars`, tables of pyarrow."""
        from ._tables import arrow_of, tables

        return {name: arrow_of(table) for name, table in tables(self.to_numpy()).items()}

    def __repr__(self) -> str:
        from ._display import text

        return text(self)

    def _repr_html_(self) -> str:
        from ._display import html

        return html(self)
