"""``glasshead.ray.scan_corpus``: what a model looks at in many documents, on several workers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray.data

from . import _capture
from ._files import Pending
from ._read import Read
from ._scanner import SUFFIXES, Failed, Scanner, marker
from ._tables import needed

if TYPE_CHECKING:
    from ._scanner import Factory


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
    - ``out``: a folder that all workers see. Of an input come ``NAME.entropy.parquet`` and so on, a line per number
      with its document, and at last ``NAME.documents.parquet``: the tokens of each document, or why it failed.
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
        # Read by the actors: on a machine of one CPU, tasks that read would wait for them, and they for those.
        files = ray.data.from_items([{"path": path} for path in left], override_num_blocks=len(left))
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
