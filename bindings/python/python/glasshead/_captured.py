"""What was captured: readouts by layer, as tables and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch

from ._attended import Attended, NotRead, Readouts
from ._passes import Pass, merged
from ._read import Read, listed
from ._shelf import Shelf

if TYPE_CHECKING:
    import polars
    import pyarrow
    from torch import Tensor
    from torch.nn import Module, ModuleList

    from ._masks import Visible
    from ._tables import Table
    from ._tokens import Tokenizer

Layer: TypeAlias = "int | tuple[str, int]"

# How models name their attention to another text.
CROSS = ("cross", "encdec", "encoder_attn")


@dataclass(frozen=True)
class Place:
    """Where a layer stands: ``model.layers.3.self_attn`` is number 3 of 30 in ``model.layers.self_attn``."""

    stack: str
    number: int
    count: int

    @classmethod
    def of(cls, model: Module, name: str) -> Place:
        """The first number in the name of a module is that of its layer."""
        path = name.split(".")
        at = next((n for n, part in enumerate(path) if part.isdigit()), None)
        if at is None:
            return cls(name, 0, 1)
        layers: ModuleList = model.get_submodule(".".join(path[:at]))  # type: ignore[assignment]
        return cls(".".join(path[:at] + path[at + 1 :]), int(path[at]), len(layers))

    def is_one_of(self, numbers: Sequence[int]) -> bool:
        """Whether it was asked for; −1 is the last one."""
        return self.number in numbers or self.number - self.count in numbers


class Captured(Mapping[Layer, Readouts["Tensor"]]):
    """Readouts by layer: ``seen[3]``, or ``seen["cross", 3]`` where a model has several kinds of layers."""

    def __init__(self, model: Module, read: Read | str, heads: Sequence[int] | None) -> None:
        self.model = type(model).__name__
        family = getattr(getattr(model, "config", None), "model_type", None)
        self.family = family if isinstance(family, str) and family else None
        self.read = read
        self.heads = None if heads is None else list(heads)
        self.shelf = Shelf()
        self.calls: dict[Place, list[Pass]] = {}
        # By layer, the key of the last token, [batch, dim].
        self.ends: dict[Place, Tensor] = {}

    def keep(
        self, place: Place, seen: Attended[Tensor], key: Tensor, visible: Visible | None, ids: Tensor | None
    ) -> None:
        """One call of a layer; of the heads only those that were asked for."""
        heads = slice(None) if self.heads is None else self.heads
        readouts = {name: self.shelf.keep(array[:, heads]) for name, array in seen._readouts.items()}
        batch, of_heads, queries, _ = seen.out.shape
        one = Pass(
            Readouts(readouts),
            batch=batch,
            heads=of_heads,
            queries=queries,
            keys=key.shape[2],
            first_query=None if visible is None else visible.first_query,
            first_key=None if visible is None else visible.first_key,
            causal=visible is not None and visible.causal,
            goes_on=self.goes_on(place, key, queries, visible),
            ids=None if ids is None or ids.shape != (batch, queries) else ids,
        )
        self.calls.setdefault(place, []).append(one)

    def goes_on(self, place: Place, key: Tensor, queries: int, visible: Visible | None) -> bool:
        """Whether the keys before this call are those of the same texts: of all last ones, its own is the nearest."""
        if len(key) == 1 or visible is None or not visible.causal:
            return True
        start = visible.first_query - visible.first_key
        before = self.ends.get(place)
        self.ends[place] = self.shelf.keep(key[:, 0, start + queries - 1].detach())
        if before is None or start == 0 or len(before) != len(key):
            return True
        exact = "donot_use_mm_for_euclid_dist"
        apart = torch.cdist(before.float(), key[:, 0, start - 1].detach().float(), compute_mode=exact)
        return bool((apart.diagonal() <= apart.min(dim=0).values).all())

    def kinds(self) -> dict[str, str]:
        """What the stacks of layers are called: ``encoder``, ``decoder`` and ``cross``; ``self`` where there is no
        other; else by their place in the model."""
        stacks = list(dict.fromkeys(place.stack for place in self.calls))
        kinds: dict[str, str] = {}
        for stack in stacks:
            parts = stack.lower().split(".")
            if any(mark in part for part in parts for mark in CROSS):
                kind = "cross"
            elif len(stacks) == 1:
                kind = "self"
            else:
                kind = next((part for part in parts if part in ("encoder", "decoder")), stack)
            kinds[stack] = stack if kind in kinds.values() else kind
        return kinds

    def place(self, layer: Layer) -> Place:
        """The layer that was asked for."""
        kinds = self.kinds()
        if not kinds:
            raise NotRead("no attention was seen\nhint: run the model inside the with block")
        kind, number = layer if isinstance(layer, tuple) else (None, layer)
        if kind is None and len(kinds) > 1:
            raise NotRead(f"there are layers of several kinds\nhint: {', '.join(map(repr, self))}")
        for place in self.calls:
            if kind in (None, kinds[place.stack]) and place.is_one_of([number]):
                return place
        raise NotRead(f"layer {layer!r} was not seen\nhint: there are {', '.join(map(repr, self))}")

    def __getitem__(self, layer: Layer) -> Readouts[Tensor]:
        return self.whole(self.place(layer))

    def whole(self, place: Place) -> Readouts[Tensor]:
        """What was read of a layer, of all its calls together."""
        block = next(iter(listed(self.read, "blocks", 0)), None)
        return merged(self.calls[place], block=block, cross=self.kinds()[place.stack] == "cross")

    def passes(self, layer: Layer) -> list[Readouts[Tensor]]:
        """What each call of a layer gave, in their order."""
        return [one.readouts for one in self.calls[self.place(layer)]]

    def __iter__(self) -> Iterator[Layer]:
        kinds = self.kinds()
        for place in self.calls:
            yield place.number if len(kinds) == 1 else (kinds[place.stack], place.number)

    def __len__(self) -> int:
        return len(self.calls)

    def tables(self) -> dict[str, Table]:
        """A tidy table for each readout, a line per number, with the kind and the number of its layer."""
        import numpy as np

        from ._tables import tables

        kinds = self.kinds()
        parts: dict[str, list[Table]] = {}
        for place, layer in zip(self.calls, self, strict=True):
            for name, table in tables(self[layer].to_numpy(), self.heads).items():
                lines = len(table["head"])
                of = {"kind": np.full(lines, kinds[place.stack]), "layer": np.full(lines, place.number)}
                parts.setdefault(name, []).append(of | table)
        return {
            name: {column: np.concatenate([table[column] for table in several]) for column in several[0]}
            for name, several in parts.items()
        }

    def to_polars(self) -> dict[str, polars.DataFrame]:
        """A tidy table for each readout: a line per number, beside it the layer, the head, and the token it is of."""
        from ._tables import polars_of

        return {name: polars_of(table) for name, table in self.tables().items()}

    def to_arrow(self) -> dict[str, pyarrow.Table]:
        """As :meth:`to_polars`, tables of pyarrow."""
        from ._tables import arrow_of

        return {name: arrow_of(table) for name, table in self.tables().items()}

    def save(
        self, path: str | Path, tokenizer: Tokenizer | None = None, text: int = 0, kind: str | None = None
    ) -> list[Path]:
        """Writes ``FILE.parquet`` (of several readouts ``FILE.entropy.parquet`` and so on), ``FILE.safetensors``
        with the arrays ``KIND.LAYER.READOUT``, or ``FILE.html``, which is :meth:`page`. Returns what was written; a
        file is there whole or not at all."""
        from ._files import save

        return save(self, Path(path), tokenizer, text, kind)

    def recipe(self) -> dict[str, str]:
        """What stands in every file: how it was made."""
        from ._native import __version__

        heads = "all" if self.heads is None else str(self.heads)
        return {"version": f"glasshead {__version__}", "model": self.model, "read": str(self.read), "heads": heads}

    def page(self, tokenizer: Tokenizer | None = None, text: int = 0, kind: str | None = None) -> str:
        """The page of ``glasshead scan -o FILE.html``, of one text of the batch: a document that needs nothing else.

        With the ``tokenizer`` of the model its tokens are shown as text, else by their ids. Tokens that came one at a
        time behind the others are called the answer. Of a model with several kinds of layers, ``kind`` chooses one.
        What is no self-attention of one text over itself is refused with a ValueError.
        """
        from ._page import of_captured

        return of_captured(self, tokenizer, text, kind)

    def show(self, tokenizer: Tokenizer | None = None, text: int = 0, kind: str | None = None) -> None:
        """Shows :meth:`page` in a notebook, or a short table of what cannot be a page; elsewhere prints it. The page is
        stored with the notebook: some megabytes for thousands of tokens."""
        from ._display import captured_html

        try:
            from IPython.display import display
        except ImportError:
            print(self)
        else:
            display({"text/html": captured_html(self, tokenizer, text, kind), "text/plain": repr(self)}, raw=True)

    def __repr__(self) -> str:
        from ._display import captured_text

        return captured_text(self)

    def _repr_html_(self) -> str:
        from ._display import captured_html

        return captured_html(self)
