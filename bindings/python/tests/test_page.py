"""The page of ``glasshead scan``, of what was read out in Python. That it is drawn, a browser checks: see
``tests/page`` of the repository."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pages import EVERY, data_of, floats, framed, names_of

import glasshead
from glasshead import _native
from glasshead._page import Scan

COUNT = 4


def scan(**changed) -> Scan:
    """One layer of two heads over four tokens."""
    heads, ones = 2, np.ones((2, COUNT), np.float32)
    given = {
        "model": "m", "family": None, "sizes": (3, 8), "call": "a test", "read": "entropy", "text": "aé b",
        "tokens": [("<s>", 0, 0, "special"), ("a", 0, 1, "text"), ("é", 1, 3, "text"), (" b", 3, 5, "answer")],
        "layers": [1], "heads": [5, 0], "rows": [3], "segment_ends": [2, 4], "block": 2,
        "readouts": [("entropy", [ones]), ("rows", [np.ones((heads, 1, COUNT), np.float32)]),
                     ("segments", [np.ones((heads, COUNT, 2), np.float32)]),
                     ("blocks", [np.ones((heads, 2, 2), np.float32)]),
                     ("top_index", [np.zeros((heads, COUNT, 3), np.int64) - 1]),
                     ("top_weight", [np.zeros((heads, COUNT, 3), np.float32)]),
                     ("received_by_value", [np.ones(5, "S1")])],
    }  # fmt: skip
    return Scan(**(given | changed))


def test_a_page_says_what_it_is_of():
    page = _native.page(scan())
    data = data_of(page)
    assert names_of(data) == ["<s>", "a", "é", " b"]
    assert data["tokens"]["role"] == ["special", "text", "text", "answer"]
    assert (data["layers"], data["heads"], data["map"]) == ([1], [5, 0], {"side": 2, "block": 2})
    assert [
        (one["label"], one["start"], one["end"], one["tokens"], one["holds_first"]) for one in data["segments"]
    ] == [
        ("a", 0, 1, 2, True),
        ("é b", 1, 4, 2, False),
    ]
    recipe = dict(data["recipe"])
    assert recipe["call"] == "a test" and recipe["model"] == "m" and recipe["layers"] == "1 (of 0–2)"
    assert "sha256" not in recipe and "command" not in recipe, "nobody knows them"
    assert ["received", "received=True"] in data["missing"] and data["ask"] == ["Read(", ", ", ")"]
    assert "--read" not in page and "without <code>" not in page, "there is no command to give a flag to"


@pytest.mark.parametrize(
    ("error", "match", "changed"),
    [
        (ValueError, "tokens has 0", {"tokens": []}),
        (ValueError, "place 1", {"tokens": [("a", 0, 1, "text"), ("b", 1, 2, "text")] * 2}),
        (ValueError, "place 0", {"tokens": [("a", 3, 1, "text")] * 4}),
        (ValueError, "place 0", {"tokens": [("a", 0, 99, "text")] * 4}),
        (ValueError, "place 0", {"tokens": [("a", 0, 1, "poet")] * 4}),
        (ValueError, "layers is empty", {"layers": []}),
        (ValueError, "heads is empty", {"heads": []}),
        (ValueError, "layers holds 3, and there are 3", {"layers": [3]}),
        (ValueError, "heads holds 8", {"heads": [8, 0]}),
        (ValueError, "rows holds 4", {"rows": [4]}),
        (ValueError, "segment_ends holds 5", {"segment_ends": [2, 5]}),
        (ValueError, "segment_ends does not ascend", {"segment_ends": [2, 1]}),
        (ValueError, "block is 0", {"block": 0}),
        (ValueError, "block is None", {"block": None}),
        (ValueError, "blocks has the shape", {"block": 4}),
        (ValueError, r"rows has the shape \[2, 1, 4\], not \[2, 2, 4\]", {"rows": [0, 3]}),
        (ValueError, "entropy is of 1 layers, not of 2", {"layers": [1, 0]}),
        (ValueError, "entropy has the shape", {"readouts": [("entropy", [np.ones((2, 5), np.float32)])]}),
        (ValueError, "entropy is there twice", {"readouts": [("entropy", [np.ones((2, 4), np.float32)])] * 2}),
        (TypeError, "entropy is .*float64", {"readouts": [("entropy", [np.ones((2, 4))])]}),
        (ValueError, "entropy does not lie in C", {"readouts": [("entropy", [np.ones((4, 2), np.float32).T])]}),
        (ValueError, "top_index is not shaped", {"readouts": [("top_index", [np.zeros((2, 4, 3), np.int64)])]}),
        (ValueError, "top_index holds no keys", {"readouts": [("top_index", [np.zeros((2, 4, 0), np.int64)])]}),
        (ValueError, "top_index holds 4", {"readouts": [("top_index", [np.zeros((2, 4, 3), np.int64) + 4]),
                                                        ("top_weight", [np.zeros((2, 4, 3), np.float32)])]}),
        (ValueError, "top_index holds -2", {"readouts": [("top_index", [np.zeros((2, 4, 3), np.int64) - 2]),
                                                         ("top_weight", [np.zeros((2, 4, 3), np.float32)])]}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(error, match, changed):
    with pytest.raises(error, match=match) as caught:
        _native.page(scan(**changed))
    sentence, _, hint = str(caught.value).partition("\nhint: ")
    assert sentence and hint and "\n" not in sentence + hint


def test_numbers_of_another_kind_are_refused():
    for changed in ({"layers": [-1]}, {"layers": [2**70]}, {"tokens": [1]}, {"readouts": [("entropy", [[1.0]])]}):
        with pytest.raises((TypeError, OverflowError)):
            _native.page(scan(**changed))


def test_nothing_of_a_text_becomes_part_of_the_page():
    attack = "</script><script>alert(1)</script><!--"
    page = _native.page(scan(model=attack, call=attack, text=attack, tokens=[(attack, 0, 0, "special")] * 4))
    assert "alert(1)</script>" not in page and data_of(page)["text"] == attack


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_an_attention_shows_itself(make, library):
    q, k, v = make(queries=33, keys=33)
    if library == "torch":
        torch = pytest.importorskip("torch")
        q, k, v = map(torch.from_numpy, (q, k, v))
        q.requires_grad_()
    seen = glasshead.attention(q, k, v, causal=True, read=replace(EVERY, segments=[10, 33]))
    shown = seen._repr_html_()
    data = data_of(framed(shown))
    assert names_of(data) == [str(at) for at in range(33)] and data["layers"] == [0] and data["missing"] == []
    assert "batch element 0 of 2" in shown and "<td style='text-align:left'>entropy</td>" in shown
    assert data["groups"][0]["queries"] == [32, 0]
    numbers = dict(data["groups"][-1]["numbers"])
    entropy = np.asarray(seen.entropy if library == "numpy" else seen.entropy.numpy())
    np.testing.assert_allclose(floats(numbers["entropy"]), entropy[0].mean(-1), rtol=1e-6)
    assert {"previous", "self", "lse"} <= numbers.keys()


def test_what_is_no_page_of_an_attention(make):
    q, k, v = make()
    shown = glasshead.attention(q, k, v, read="entropy")._repr_html_()
    assert "20 queries look at 33 keys" in shown and "<table>" in shown and "<iframe" not in shown
    shown = glasshead.attention(q, q[:, :2], v[:, :, :20])._repr_html_()
    assert "<table>" in shown and "<iframe" not in shown and "No page" not in shown, "nothing was read"
    part = glasshead.partial_attention(q, k, v, first_key=0, keys=33, read="lse")
    assert "several places" in glasshead.merge([part], "lse")._repr_html_()


def test_every_readout_of_a_list_has_its_place(make):
    q, k, v = make(queries=70, keys=70)
    data = data_of(framed(glasshead.attention(q, k, v, causal=True, read="all")._repr_html_()))
    assert data["map"] == {"side": 2, "block": 64} and data["groups"][0]["queries"] == [69]
    assert [one["label"] for one in data["segments"]] == [
        "tokens 0 to 17", "tokens 17 to 35", "tokens 35 to 52", "tokens 52 to 70",
    ]  # fmt: skip
