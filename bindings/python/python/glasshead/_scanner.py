"""The actor of ``glasshead.ray.scan_corpus``: one model, and files whose documents it reads out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from . import _capture
from ._files import Pending
from ._read import Read
from ._tables import needed
from ._worker import use_threads

if TYPE_CHECKING:
    import pyarrow

# The model, and what makes its inputs of a text: a tokenizer, or a function of the same arguments.
Factory: TypeAlias = Callable[[], tuple[Any, Callable[..., Any]]]

SUFFIXES = (".parquet", ".jsonl", ".txt")


class Failed(NamedTuple):
    """A document that could not be read out, counted from 0 in its file; None where the file itself could not."""

    path: str
    document: int | None
    error: str


def marker(out: Path, path: str, readout: str = "documents") -> Path:
    """The file of a readout of an input; inputs of one name in several folders are told apart."""
    digest = hashlib.sha256(path.encode()).hexdigest()[:8]
    return out / f"{Path(path).stem}-{digest}.{readout}.parquet"


class Scanner:
    """An actor with one model."""

    def __init__(
        self,
        model: str | Path | Factory,
        read: Read | str,
        layers: Sequence[int] | None,
        heads: Sequence[int] | None,
        out: Path,
        text: str,
        max_tokens: int | None,
        threads: int,
    ) -> None:
        import torch

        use_threads(threads)
        torch.set_num_threads(threads)
        self.model, self.tokenizer = model() if callable(model) else load(model)
        self.model.eval()
        self.read, self.layers, self.heads = read, layers, heads
        self.out, self.text, self.max_tokens = out, text, max_tokens

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """Files in, a line about each out."""
        told = [json.dumps(self.file(row["path"], row.get("bytes"))) for row in batch.to_pylist()]
        return needed("pyarrow", "scan_corpus").table({"told": told})

    def file(self, path: str, content: bytes | None) -> dict[str, Any]:
        """All documents of one input, written as they are read out."""
        if marker(self.out, path).exists():
            return {"before": True}
        parquet = needed("pyarrow.parquet", "scan_corpus")
        failed: list[Failed] = []
        tokens: list[int | None] = []
        writers: dict[str, Any] = {}
        targets: list[Path] = []
        try:
            documents = documents_of(path, Path(path).read_bytes() if content is None else content, self.text)
        except Exception as error:
            return {"before": False, "files": [], "documents": 0, "failed": [Failed(path, None, sentence(error))]}

        def write(pending: Pending, readout: str, table: pyarrow.Table) -> None:
            if readout not in writers:
                targets.append(marker(self.out, path, readout))
                writers[readout] = parquet.ParquetWriter(pending.name(targets[-1]), table.schema)
            writers[readout].write_table(table)

        with Pending() as pending:
            try:
                for number, document in enumerate(documents):
                    try:
                        count, tables = self.document(path, number, document)
                    except Exception as error:
                        failed.append(Failed(path, number, sentence(error)))
                        tokens.append(None)
                        continue
                    tokens.append(count)
                    for readout, table in tables.items():
                        write(pending, readout, table)
                # The last one to be renamed: where it is, the others are.
                write(pending, "documents", self.overview(path, tokens, failed))
            finally:
                for writer in writers.values():
                    writer.close()
        counted = len(tokens) - len(failed)
        return {"before": False, "files": list(map(str, targets)), "documents": counted, "failed": failed}

    def document(self, path: str, number: int, text: object) -> tuple[int, dict[str, pyarrow.Table]]:
        """How many tokens it has, and its tables."""
        import torch

        if isinstance(text, Exception):
            raise text
        if not isinstance(text, str):
            raise TypeError(f"the document is {type(text).__name__}, not a text")
        inputs = self.tokenizer(text, return_tensors="pt")
        tokens = next(iter(inputs.values())).shape[1]
        if not tokens:
            raise ValueError("the document has no tokens")
        if self.max_tokens is not None and tokens > self.max_tokens:
            raise ValueError(f"the document has {tokens} tokens, more than max_tokens {self.max_tokens}")
        with _capture.capture(self.model, self.read, self.layers, self.heads) as seen, torch.no_grad():
            self.model(**inputs)
        numbers = needed("numpy", "scan_corpus")
        tables = {
            readout: table.add_column(0, "document", [numbers.full(table.num_rows, number)])
            for readout, table in seen.to_arrow().items()
        }
        metadata = {**seen.recipe(), "input": path}
        return tokens, {readout: table.replace_schema_metadata(metadata) for readout, table in tables.items()}

    def overview(self, path: str, tokens: list[int | None], failed: list[Failed]) -> pyarrow.Table:
        """A line per document."""
        arrow = needed("pyarrow", "scan_corpus")
        errors = {one.document: one.error for one in failed}
        table: pyarrow.Table = arrow.table(
            {
                "document": arrow.array(range(len(tokens)), arrow.int64()),
                "tokens": arrow.array(tokens, arrow.int64()),
                "error": arrow.array([errors.get(number) for number in range(len(tokens))], arrow.string()),
            }
        )
        return table.replace_schema_metadata({"input": path})


def load(model: str | Path) -> tuple[Any, Callable[..., Any]]:
    """The model without a head: logits are not looked at."""
    from transformers import AutoModel, AutoTokenizer

    return AutoModel.from_pretrained(model), AutoTokenizer.from_pretrained(model)


def documents_of(path: str, content: bytes, text: str) -> list[Any]:
    """The documents of a file; an exception where one cannot be read."""
    match Path(path).suffix:
        case ".txt":
            return [content.decode()]
        case ".jsonl":
            return [field_of(line, text) for line in content.splitlines() if line.strip()]
        case ".parquet":
            parquet = needed("pyarrow.parquet", "scan_corpus")
            table = parquet.read_table(needed("pyarrow", "scan_corpus").BufferReader(content))
            if text not in table.column_names:
                raise ValueError(f"there is no column {text}, but {', '.join(table.column_names)}")
            documents: list[Any] = table[text].to_pylist()
            return documents
    raise ValueError(f"it ends in none of {', '.join(SUFFIXES)}")


def field_of(line: bytes, text: str) -> Any:
    try:
        return json.loads(line)[text]
    except (ValueError, TypeError, KeyError) as error:
        return ValueError(f"the line is no JSON object with the field {text}: {sentence(error)}")


def sentence(error: Exception) -> str:
    """What went wrong."""
    return f"{type(error).__name__}: {error}"
