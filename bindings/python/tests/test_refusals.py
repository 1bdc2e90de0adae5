"""What is wrong is said in one sentence with a hint, by an exception of the right class."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import glasshead
from glasshead import Read

X = np.zeros((1, 2, 4, 8), np.float32)


def refused(error, match, q=X, k=X, v=X, **options):
    with pytest.raises(error, match=match) as caught:
        glasshead.attention(q, k, v, **options)
    sentence, _, hint = str(caught.value).partition("\nhint: ")
    assert sentence and hint and "\n" not in sentence + hint and len(sentence) < 300


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (TypeError, "q is list", {"q": [[1.0]]}),
        (TypeError, "k is list and q is a NumPy array", {"k": [[1.0]]}),
        (TypeError, "q is int64", {"q": X.astype(np.int64)}),
        (TypeError, "q is object", {"q": X.astype(object)}),
        (TypeError, "q is uint16", {"q": X.astype(np.uint16)}),
        (TypeError, "v is float64 and q is float32", {"v": X.astype(np.float64)}),
        (ValueError, r"q has the shape \[2, 4, 8\]", {"q": X[0]}),
        (ValueError, r"k has the shape \[2, 4, 8\]", {"k": X[0]}),
        (ValueError, "k: .* does not fit", {"k": X[..., :7]}),
        (ValueError, "v: .* does not fit", {"v": X[:, :, :3]}),
        (ValueError, "q: .* multiple", {"q": X[:, :1]}),
        (ValueError, "q: .* at least one number", {"q": X[..., :0], "k": X[..., :0]}),
        (TypeError, "mask is int64", {"mask": np.ones((4, 4), np.int64)}),
        (TypeError, "mask is list", {"mask": [[True]]}),
        (ValueError, r"mask has the shape \(4, 3\)", {"mask": np.ones((4, 3), bool)}),
        (ValueError, r"mask: \[1, 1, 3, 4\] does not fit", {"mask": np.ones((3, 4), bool)}),
        (ValueError, "mask has the shape", {"mask": np.ones((1, 1, 1, 4, 4), bool)}),
        (ValueError, "mask has the shape", {"mask": np.array(True)}),
        (ValueError, 'causal is "left"', {"causal": "left"}),
        (TypeError, "causal is NoneType", {"causal": None}),
        (ValueError, "window has -2", {"window": (-2, None)}),
        (ValueError, "scale NaN", {"scale": float("nan")}),
        (ValueError, "softcap -1", {"softcap": -1.0}),
        (ValueError, "sinks: .*3", {"sinks": [0.0, 1.0, 2.0]}),
        (TypeError, "sinks is str", {"sinks": ["a", "b"]}),
        (ValueError, "kv_lengths 5", {"lengths": [5]}),
        (ValueError, "kv_lengths -1", {"lengths": [-1]}),
        (ValueError, "kv_lengths: ", {"lengths": [1, 2]}),
        (TypeError, "lengths is float64", {"lengths": [1.0]}),
        (ValueError, 'readout "enropy"', {"read": "enropy"}),
        (ValueError, "Read.rows has 4", {"read": Read(rows=[4])}),
        (ValueError, "Read.rows has -5", {"read": Read(rows=[-5])}),
        (ValueError, "readout", {"read": Read(segments=[3, 2])}),
        (ValueError, "induction", {"read": Read(induction=[1, 2])}),
        (ValueError, "received_weighted", {"read": Read(received_weighted=[1.0])}),
        (ValueError, "of 4 keys", {"read": Read(top=2**62)}),
    ],
)
def test_refused(error, match, options):
    refused(error, match, **options)


@pytest.mark.parametrize("options", [{"top": 0}, {"top": True}, {"blocks": -1}, {"top": 2.0}])
def test_read_refuses_what_is_no_number(options):
    with pytest.raises(ValueError, match="whole number"):
        Read(**options)


def test_window_of_something_else_is_a_type_error():
    with pytest.raises(TypeError):
        glasshead.attention(X, X, X, window=3)
    with pytest.raises(TypeError):
        glasshead.attention(X, X, X, read=7)
    with pytest.raises(TypeError):
        Read(enropy=True)


def test_an_unknown_instruction_set_is_named():
    # In a process of its own: the variable is read once.
    code = "import glasshead, numpy; x = numpy.zeros((1, 1, 1, 1), 'f4'); glasshead.attention(x, x, x)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "GLASSHEAD_ISA": "mmx"}, capture_output=True, text=True
    )
    assert "RuntimeError: no instruction set is called" in done.stderr and "mmx" in done.stderr


def test_what_was_not_read_is_said():
    seen = glasshead.attention(X, X, X, read="entropy")
    with pytest.raises(KeyError, match="lse.*was not read"):
        seen["lse"]
    with pytest.raises(AttributeError, match="read was entropy"):
        _ = seen.lse
