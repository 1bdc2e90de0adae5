"""Every block of docs/recipes.md, in its order, with models that are tiny and know nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
tf = pytest.importorskip("transformers")

from models import make  # noqa: E402

import glasshead  # noqa: E402

RECIPES = Path(__file__).parents[3] / "docs" / "recipes.md"


class Words:
    """A tokenizer of whole words."""

    all_special_ids = ()

    def __init__(self):
        self.ids = {}

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return tf.BatchEncoding({"input_ids": [self.ids.setdefault(word, len(self.ids) + 3) for word in text.split()]})

    def convert_ids_to_tokens(self, one):
        return next((word for word, number in self.ids.items() if number == one), None)

    def decode(self, ids, **_):
        return " ".join(map(self.convert_ids_to_tokens, ids))


@pytest.mark.skipif(not RECIPES.exists(), reason="docs/recipes.md is not here")
def test_recipes(capsys, monkeypatch, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", RECIPES.read_text(), re.S | re.M)
    assert len(blocks) == 7
    monkeypatch.chdir(tmp_path)
    # One name space, as a reader would have it.
    names = {
        "torch": torch,
        "glasshead": glasshead,
        "tokenizer": Words(),
        "model": make("llama"),
        "translator": make("t5"),
    }
    for block in blocks:
        exec(compile(block, str(RECIPES), "exec"), names)
    shares = names["shares"]
    assert shares.shape == (2, 4, 3) and ((shares > 0) & (shares < 1)).all()
    page = Path("documents.html").read_text()
    assert "the lamp was lit in june the contract" in page and '"label":"the contract was signed by anna"' in page
    assert names["parked"].shape == (2, 4) and (names["parked"] > 0).all()
    assert len(names["scores"]) == 8 and all(0 <= share <= 1 for share in names["scores"].values())
    assert names["kept"].shape == names["h2o"].shape == (4, 6)
    assert len(names["alignment"]) == 6 and all(
        0 <= key < ids for ids in [names["source"].shape[1]] for _, key in names["alignment"]
    )
    assert "looked most at document 1" in capsys.readouterr().out
