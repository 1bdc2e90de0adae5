"""Whole corpora on a local Ray."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="NOT TESTED: ray is not here (pip install 'ray[data]')")
pytest.importorskip("ray.data", reason="NOT TESTED: ray.data is not here (pip install 'ray[data]')")
for needed in ("torch", "transformers", "tokenizers"):
    pytest.importorskip(needed, reason=f"NOT TESTED: {needed} is not here")
arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

import torch  # noqa: E402
import transformers as tf  # noqa: E402
from models import make as make_model  # noqa: E402
from test_ray import START  # noqa: E402

import glasshead  # noqa: E402
import glasshead.ray  # noqa: E402

RECIPES = Path(__file__).parents[3] / "docs" / "recipes.md"
WORDS = ["the", "lamp", "was", "lit", "in", "june", "contract", "signed", "by", "anna", "boat", "left", "at", "noon"]


@pytest.fixture(scope="module")
def local():
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(num_cpus=2, **START)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    path = tmp_path_factory.mktemp("model")
    make_model("llama").save_pretrained(path)
    words = Tokenizer(models.WordLevel({word: at + 3 for at, word in enumerate(WORDS)}))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tf.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(path)
    return path


def texts(seed, count):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(2, 12))) for _ in range(count)]


@pytest.fixture
def corpus(tmp_path):
    """Three files, in which two documents cannot be read."""
    path = tmp_path / "corpus"
    (path / "deep").mkdir(parents=True)
    parquet.write_table(arrow.table({"text": [*texts(1, 3), None, *texts(2, 1)]}), path / "a.parquet")
    lines = [json.dumps({"text": text}) for text in texts(3, 2)]
    (path / "b.jsonl").write_text("\n".join([lines[0], "{no json", lines[1]]))
    (path / "deep" / "b.txt").write_text(texts(4, 1)[0])
    (path / "notes.md").write_text("no input")
    return path


def written(scanned, out, readout):
    files = sorted(path for path in scanned.files if path.name.endswith(f".{readout}.parquet"))
    assert all(path.parent == out for path in files)
    return {path.name.partition("-")[0]: parquet.read_table(path) for path in files}


def test_every_document_is_read_out(local, folder, corpus, tmp_path):
    out = tmp_path / "out"
    read = "entropy,top=2,received"
    scanned = glasshead.ray.scan_corpus(corpus, folder, read, out, workers=2)
    assert (scanned.inputs, scanned.documents, scanned.finished_before) == (3, 7, 0)
    assert sorted((Path(one.path).name, one.document) for one in scanned.failed) == [("a.parquet", 3), ("b.jsonl", 1)]
    assert any("NoneType, not a text" in one.error for one in scanned.failed)
    assert any("no JSON object with the field text" in one.error for one in scanned.failed)
    # Two inputs are called b; nothing else was left behind.
    assert len(scanned.files) == 3 * 4 and len({path.name for path in scanned.files}) == 12
    assert {path.name for path in out.iterdir()} == {path.name for path in scanned.files} | {"scan.json"}

    documents = written(scanned, out, "documents")["a"].to_pydict()
    assert documents["document"] == [0, 1, 2, 3, 4]
    assert documents["tokens"] == [*(len(text.split()) for text in texts(1, 3)), None, len(texts(2, 1)[0].split())]
    assert [error is None for error in documents["error"]] == [True, True, True, False, True]

    # The same tables as one capture gives.
    model = tf.AutoModel.from_pretrained(folder).eval()
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    with glasshead.capture(model, read) as seen, torch.no_grad():
        model(**tokenizer(texts(2, 1)[0], return_tensors="pt"))
    for readout, expected in seen.to_arrow().items():
        table = written(scanned, out, readout)["a"]
        assert table.column_names == ["document", *expected.column_names]
        own = table.filter(arrow.compute.equal(table["document"], 4)).drop(["document"])
        for column in expected.column_names:
            got, exact = own[column].to_pylist(), expected[column].to_pylist()
            assert got == exact if column in ("kind", "layer", "head", "token", "key") else True
            if column in ("value", "weight"):
                # Another number of threads may add up the model's own products in another order.
                np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-5)
        assert set(table["document"].to_pylist()) == {0, 1, 2, 4}
        assert table.schema.metadata[b"read"] == read.encode() and b"a.parquet" in table.schema.metadata[b"input"]


def test_what_is_finished_is_not_done_again(local, folder, corpus, tmp_path):
    out = tmp_path / "out"
    first = glasshead.ray.scan_corpus(corpus / "a.parquet", folder, "entropy", out, layers=[-1])
    before = {path: path.stat().st_mtime_ns for path in first.files}
    # A run that was stopped in the middle has left some of an input's files, and no list of its documents.
    (out / "half-00000000.entropy.parquet").write_bytes(b"half")
    second = glasshead.ray.scan_corpus([corpus], folder, "entropy", out, layers=[-1])
    assert (second.inputs, second.documents, second.finished_before) == (2, 3, 1)
    assert {path: path.stat().st_mtime_ns for path in first.files} == before
    third = glasshead.ray.scan_corpus(corpus, folder, "entropy", out, layers=[-1])
    assert (third.files, third.inputs, third.documents, third.finished_before) == ([], 0, 0, 3)
    again = next(path for path in second.files if path.name.startswith("b-") and "documents" in path.name)
    again.unlink()
    fourth = glasshead.ray.scan_corpus(corpus, folder, "entropy", out, layers=[-1])
    assert (fourth.inputs, fourth.finished_before) == (1, 2) and again in fourth.files
    for changed in ({"read": "top=2"}, {"layers": None}, {"max_tokens": 3}):
        asked = {"read": "entropy", "layers": [-1], **changed}
        with pytest.raises(ValueError, match=f"holds a scan with {next(iter(changed))}"):
            glasshead.ray.scan_corpus(corpus, folder, out=out, **asked)


def test_a_factory_a_dataset_and_a_broken_file(local, folder, corpus, tmp_path):
    """The model of a function; files through a Dataset; one file that is not what it is called."""
    (corpus / "c.parquet").write_bytes(b"not parquet")
    loaded = tmp_path / "loaded"
    loaded.mkdir()
    where = str(folder)

    def factory():
        import tempfile

        from transformers import AutoModelForCausalLM, AutoTokenizer

        tempfile.mkstemp(dir=loaded)
        return AutoModelForCausalLM.from_pretrained(where), AutoTokenizer.from_pretrained(where)

    paths = [str(corpus / name) for name in ("a.parquet", "b.jsonl", "c.parquet")]
    files = ray.data.read_binary_files(paths, include_paths=True)
    out = tmp_path / "out"
    scanned = glasshead.ray.scan_corpus(files, factory, glasshead.Read(entropy=True), out, max_tokens=6)
    assert scanned.inputs == 2 and scanned.documents + len(scanned.failed) == 8 + 1
    # Loaded once, not for each file or document.
    assert len(list(loaded.iterdir())) == 1
    too_long = [one for one in scanned.failed if "more than max_tokens 6" in one.error]
    assert len(too_long) == sum(len(text.split()) > 6 for text in [*texts(1, 3), *texts(2, 1), *texts(3, 2)]) > 0
    (broken,) = [one for one in scanned.failed if one.document is None]
    assert broken.path.endswith("c.parquet") and not any(path.name.startswith("c-") for path in scanned.files)
    # What could not be read is tried again, what is finished is not.
    again = glasshead.ray.scan_corpus(files, factory, glasshead.Read(entropy=True), out, max_tokens=6)
    assert (again.inputs, again.finished_before, len(again.failed)) == (0, 2, 1)


def test_a_wrong_request_starts_nothing(local, folder, corpus, tmp_path):
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    scan = lambda *given, **options: glasshead.ray.scan_corpus(*given, "entropy", out, **options)  # noqa: E731
    with pytest.raises(FileNotFoundError, match="is not there\nhint: "):
        scan(corpus / "d.jsonl", folder)
    with pytest.raises(FileNotFoundError, match="holds no input\nhint: "):
        scan(empty, folder)
    with pytest.raises(ValueError, match="ends in .md\nhint: "):
        scan(corpus / "notes.md", folder)
    with pytest.raises(ValueError, match="columns item, not path and bytes\nhint: "):
        scan(ray.data.from_items([{"item": 1}]), folder)
    for read, sentence in (("all", 'read is "all"'), ("entropyy", "no such readout")):
        with pytest.raises(ValueError, match=sentence):
            glasshead.ray.scan_corpus(corpus, folder, read, out)
    with pytest.raises(OSError):
        scan(corpus, tmp_path / "no model")


@pytest.mark.skipif(not RECIPES.exists(), reason="docs/recipes.md is not here")
def test_recipes(local, folder, corpus, tmp_path, monkeypatch):
    pytest.importorskip("polars")
    blocks = re.findall(r"^```python ray\n(.*?)^```", RECIPES.read_text(), re.S | re.M)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    names = {"torch": torch}
    for block in blocks:
        exec(compile(block.replace("path/of/a/model", str(folder)), str(RECIPES), "exec"), names)
    far, near = names["far"].to_numpy(), names["near"].to_numpy()
    for name, array in near.items():
        np.testing.assert_allclose(far[name], array, rtol=1e-6, atol=1e-6, err_msg=name)
    assert names["done"].documents == 7 and len(names["done"].failed) == 2
    assert names["first"].collect().shape == (8, 3)
