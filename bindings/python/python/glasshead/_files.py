"""Captured readouts as files, renamed into place when they are whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._tables import arrow_of, needed

if TYPE_CHECKING:
    from ._captured import Captured
    from ._tokens import Tokenizer


def save(seen: Captured, path: Path, tokenizer: Tokenizer | None, text: int, kind: str | None) -> list[Path]:
    """By the ending of the path; what is said beside it is for a page."""
    page = partial(html, tokenizer, text, kind)
    writers: dict[str, Callable[[Captured, Path], Files]] = {
        ".parquet": parquet,
        ".safetensors": safetensors,
        ".html": page,
    }
    if path.suffix not in writers:
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'}\nhint: write to a file {', '.join(writers)}")
    files = writers[path.suffix](seen, path)
    with Pending() as pending:
        for target, write in files.items():
            write(pending.name(target))
    return list(files)


class Pending:
    """Files of a ``with`` block, written under other names: renamed at its end in their order, or gone."""

    def __init__(self) -> None:
        self.written: list[tuple[Path, Path]] = []

    def name(self, target: Path) -> str:
        """Where to write what is to become ``target``."""
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        self.written.append((Path(name), target))
        return name

    def __enter__(self) -> Pending:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            for temporary, target in self.written if error is None else []:
                # What mkstemp makes is for its owner alone.
                temporary.chmod(0o666 & ~current_umask())
                temporary.replace(target)
        finally:
            for temporary, _ in self.written:
                temporary.unlink(missing_ok=True)


Files = dict[Path, Callable[[str], Any]]


def parquet(seen: Captured, path: Path) -> Files:
    """A file per readout."""
    writer = needed("pyarrow.parquet", "save")
    tables = seen.tables()
    files: Files = {}
    for name, table in tables.items():
        target = path if len(tables) == 1 else path.with_name(f"{path.stem}.{name}.parquet")
        content = arrow_of(table).replace_schema_metadata(seen.recipe())
        files[target] = partial(writer.write_table, content)
    return files


def safetensors(seen: Captured, path: Path) -> Files:
    """One file, an array per layer and readout."""
    writer = needed("safetensors.numpy", "save")
    kinds = seen.kinds()
    arrays = {
        f"{kinds[place.stack]}.{place.number}.{name}": array
        for place, layer in zip(seen.calls, seen, strict=True)
        for name, array in seen[layer].to_numpy().items()
    }
    return {path: partial(writer.save_file, arrays, metadata=seen.recipe())}


def html(tokenizer: Tokenizer | None, text: int, kind: str | None, seen: Captured, path: Path) -> Files:
    """The page of one text."""
    page = seen.page(tokenizer, text, kind)
    return {path: lambda name: Path(name).write_text(page, encoding="utf-8")}


def current_umask() -> int:
    """Asking for it is setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask
