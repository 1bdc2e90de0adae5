"""What was read out, and the answer of ``glasshead.attention``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic

from ._arrays import AnyArray

if TYPE_CHECKING:
    import polars
    import pyarrow
    from numpy.typing import NDArray

    from ._read import Read


class NotRead(KeyError):
    """A KeyError that is a sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


class Readouts(Mapping[str, AnyArray], Generic[AnyArray]):
    """Arrays ``[batch, heads, …]`` by the name of the readout: ``seen["entropy"]``, or ``seen.entropy``. They are of
    the caller's kind."""

    def __init__(self, readouts: dict[str, AnyArray]) -> None:
        self._readouts = readouts

    def __getitem__(self, name: str) -> AnyArray:
        try:
            return self._readouts[name]
        except KeyError:
            read = ", ".join(self._readouts) or "nothing"
            raise NotRead(f"{name!r} was not read\nhint: read was {read}; see glasshead.Read") from None

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

    def arrays(self) -> dict[str, AnyArray]:
        """All arrays by name."""
        return dict(self._readouts)

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """The arrays as NumPy arrays; bfloat16 as float32."""
        from ._tables import numpy_of

        return {name: numpy_of(array) for name, array in self.arrays().items()}

    def to_dict(self) -> dict[str, Any]:
        """The arrays as nested lists, as JSON has them."""
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

        return text(type(self).__name__, self.arrays())

    def _repr_html_(self) -> str:
        from ._display import table

        return table(self.arrays())


class Attended(Readouts[AnyArray]):
    """The output ``out [batch, heads, queries, value_dim]``, and the readouts by name."""

    def __init__(
        self, out: AnyArray, readouts: dict[str, AnyArray], read: Read | str | None = None, keys: int | None = None
    ) -> None:
        super().__init__(readouts)
        self.out = out
        self._read = read
        self._keys = keys

    def arrays(self) -> dict[str, AnyArray]:
        """``out`` and the readouts by name."""
        return {"out": self.out, **self._readouts}

    def _repr_html_(self) -> str:
        from ._display import attended_html

        return attended_html(self)
