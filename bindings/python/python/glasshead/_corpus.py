"""``glasshead.ray.scan_corpus``: what a model looks at in many documents, on several workers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import ray.data

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


@dataclass(frozen=True)
class Scanned:
    """What a scan has done: the files that it wrote, and how many documents of how many inputs are in them."""

    files: list[Path]
    inputs: int
    documents: int
    failed: list[Failed]
    finished_before: int
    """Inputs that an earlier run had finished."""


def scan_corpus(
    dataset: str | Path | Sequence[str | Path] | ray.data.Dataset,
    model: str | Path | Factory,
    read: Read | str,
    out: str | Path,
    *,
    text: str = "text",
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    max_tokens: int | None = None,
    workers: int = 1,
    num_cpus: int = 1,
) -> Scanned:
    """Reads out a model on every document of a corpus, and writes the tables of :func:`glasshead.capture` as Parquet.

    - ``dataset``: a folder, a file, or several files: ``.parquet`` (a document per line, in the column ``text``),
      ``.jsonl`` (in the field ``text``), ``.txt`` (one document). Or a Dataset of whole files, as
      ``ray.data.read_binary_files(paths, include_paths=True)`` makes it of any storage.
    - ``model``: the folder of a model of transformers with its tokenizer, or a function without arguments that gives
      a model, and what is called as ``tokenizer(text, return_tensors="pt")``. Each of up to ``workers`` actors loads it
      once, and computes on ``num_cpus`` threads.
    - ``read``, ``layers``, ``heads``: as of :func:`glasshead.capture`.
    - ``out``: a folder that all workers see. Of an input come ``NAME.entropy.parquet`` and so on, a line per number with
      its document, and at last ``NAME.documents.parquet``: the tokens of each document, or why it failed.
    - ``max_tokens``: longer documents fail instead of filling the memory.

    A file is there whole or not at all, and an input that has its ``documents`` is not done again: who starts the same
    scan a second time goes on where the first one ended.
    """
    _capture.check(read)
    if not callable(model):
        # Said here once, instead of by every worker.
        needed("transformers", "scan_corpus").AutoConfig.from_pretrained(model)
    for library in ("torch", "pyarrow.parquet"):
        needed(library, "scan_corpus")
    folder = Path(out).absolute()
    settings = {
        "model": f"{model.__module__}.{model.__qualname__}" if callable(model) else str(model),
        "read": str(read),
        "text": text,
        "layers": None if layers is None else list(layers),
        "heads": None if heads is None else list(heads),
        "max_tokens": max_tokens,
    }
    begin(folder, settings)
    if isinstance(dataset, ray.data.Dataset):
        names = dataset.schema().names
        if not {"path", "bytes"} <= set(names):
            raise ValueError(
                f"the dataset has the columns {', '.join(names)}, not path and bytes\n"
                "hint: ray.data.read_binary_files(paths, include_paths=True) makes one of whole files"
            )
        files, finished = dataset, 0
    else:
        paths = list(inputs_of(dataset))
        left = [str(path) for path in paths if not marker(folder, str(path)).exists()]
        finished = len(paths) - len(left)
        if not left:
            return Scanned([], 0, 0, [], finished)
        files = ray.data.read_binary_files(left, include_paths=True, override_num_blocks=len(left))
    scanner = {
        "model": model, "read": read, "layers": layers, "heads": heads, "out": folder, "text": text,
        "max_tokens": max_tokens, "threads": num_cpus,
    }  # fmt: skip
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=workers)
    scanned = files.map_batches(
        Scanner, fn_constructor_kwargs=scanner, batch_size=1, batch_format="pyarrow", compute=pool, num_cpus=num_cpus
    )
    lines = [json.loads(row["told"]) for row in scanned.iter_rows()]
    done = [line for line in lines if not line["before"]]
    return Scanned(
        [Path(path) for line in done for path in line["files"]],
        sum(bool(line["files"]) for line in done),
        sum(line["documents"] for line in done),
        [Failed(*one) for line in done for one in line["failed"]],
        finished + len(lines) - len(done),
    )


def begin(out: Path, settings: dict[str, Any]) -> None:
    """Notes what is asked for, so that nobody goes on with a scan that asked for something else."""
    out.mkdir(parents=True, exist_ok=True)
    note = out / "scan.json"
    if not note.exists():
        with Pending() as pending:
            Path(pending.name(note)).write_text(json.dumps(settings, indent=1))
        return
    before = json.loads(note.read_text())
    for name, value in settings.items():
        if before.get(name) != value:
            raise ValueError(
                f"{out} holds a scan with {name} {before.get(name)!r}, not {value!r}\nhint: write to another folder"
            )


def inputs_of(dataset: str | Path | Sequence[str | Path]) -> Iterator[Path]:
    """The files, those of a folder in the order of their names."""
    for given in [dataset] if isinstance(dataset, (str, Path)) else dataset:
        path = Path(given).absolute()
        if path.is_dir():
            found = sorted(one for one in path.rglob("*") if one.suffix in SUFFIXES)
            if not found:
                raise FileNotFoundError(f"{given} holds no input\nhint: files that end in {', '.join(SUFFIXES)}")
            yield from found
        elif path.suffix not in SUFFIXES:
            raise ValueError(f"{given} ends in {path.suffix or 'nothing'}\nhint: give files {', '.join(SUFFIXES)}")
        elif not path.exists():
            raise FileNotFoundError(f"{given} is not there\nhint: give a folder, a file, or a list of files")
        else:
            yield path


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
        told = [json.dumps(self.file(row["path"], row["bytes"])) for row in batch.to_pylist()]
        return needed("pyarrow", "scan_corpus").table({"told": told})

    def file(self, path: str, content: bytes) -> dict[str, Any]:
        """All documents of one input, written as they are read out."""
        if marker(self.out, path).exists():
            return {"before": True}
        parquet = needed("pyarrow.parquet", "scan_corpus")
        failed: list[Failed] = []
        tokens: list[int | None] = []
        writers: dict[str, Any] = {}
        targets: list[Path] = []
        try:
            documents = documents_of(path, content, self.text)
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
