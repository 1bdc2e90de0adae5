"""Every readout against the whole matrix in float64, and what results can be turned into."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

import glasshead
import reference
from glasshead import Read

NEAR = {"rtol": 2e-5, "atol": 2e-6}


@pytest.mark.parametrize("queries", [5, 40])
def test_every_readout(make, queries):
    q, k, v = make(queries=queries, keys=40)
    ids = np.random.default_rng(5).integers(0, 6, 40)
    by_query = np.random.default_rng(6).random(queries).astype(np.float32)
    read = Read(
        lse=True, entropy=True, max=True, top=3, received=True, rows=[0, -1], segments=[10, 25], blocks=16,
        distance=True, first=True, previous=True, self_weight=True, induction=list(ids), received_by_value=True,
        received_weighted=by_query, top_by_value=2, rows_by_value=[1],
    )  # fmt: skip
    seen = glasshead.attention(q, k, v, causal="bottom-right", read=read)
    i, j = reference.positions(queries, 40, 40 - queries)
    p = reference.weights(q, k, visible=j <= i)
    norms = np.repeat(np.linalg.norm(v.astype(np.float64), axis=-1), 2, axis=1)[:, :, None]
    same = lambda name, exact: np.testing.assert_allclose(seen[name], exact, **NEAR, err_msg=name)  # noqa: E731
    same("entropy", reference.entropy(p))
    same("max_weight", p.max(axis=-1))
    same("received", p.sum(axis=2))
    same("received_by_value", (p * norms).sum(axis=2))
    same("received_weighted", (p * by_query[:, None]).sum(axis=2))
    same("rows", p[:, :, [0, -1]])
    same("rows_by_value", (p * norms)[:, :, [1]])
    same("segments", np.stack([p[..., :10].sum(-1), p[..., 10:25].sum(-1)], axis=-1))
    padded = np.pad(p, ((0, 0), (0, 0), (0, -queries % 16), (0, 8)))
    same("blocks", padded.reshape(2, 4, -1, 16, 3, 16).sum(axis=(3, 5)))
    same("distance", (p * abs(i - j)).sum(axis=-1))
    at = (i[:, 0] - 1, i[:, 0], 0 * i[:, 0])
    for name, keys in zip(("previous", "self", "first"), at, strict=True):
        same(name, np.where(keys >= 0, p[:, :, np.arange(queries), keys], 0))
    for n, position in enumerate(i[:, 0]):
        earlier = [at for at in range(position) if ids[at] == ids[position]]
        expected = p[:, :, n, earlier[-1] + 1] if earlier else 0
        np.testing.assert_allclose(seen["induction"][:, :, n], expected * np.ones((2, 4)), **NEAR)
    for name, of in (("", p), ("_by_value", p * norms)):
        index, weight = seen[f"top_index{name}"], seen[f"top_weight{name}"]
        heaviest = -np.sort(-of, axis=-1)[..., : index.shape[-1]]
        there = index >= 0
        assert index.dtype == np.int64 and (there == (np.arange(index.shape[-1]) <= i)).all()
        np.testing.assert_allclose(weight, heaviest, **NEAR)
        np.testing.assert_allclose(np.take_along_axis(of, index.clip(0), -1)[there], weight[there], **NEAR)


def test_a_list_reads_as_the_command_does(make):
    q, k, v = make()
    of_list = glasshead.attention(q, k, v, read="entropy, top=2,rows=0:3")
    of_fields = glasshead.attention(q, k, v, read=Read(entropy=True, top=2, rows=[0, 3]))
    assert list(of_list) == ["entropy", "top_index", "top_weight", "rows"] and set(of_list) == set(of_fields)
    assert all(np.array_equal(of_list[name], of_fields[name]) for name in of_list)
    assert len(glasshead.attention(q, k, v, read="all")) == 10


def test_results_become_what_is_wanted(make):
    polars, arrow = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    q, k, v = make(queries=5, keys=7)
    seen = glasshead.attention(q, k, v, causal="top-left", read="all,top=3,blocks=4")
    frames, tables = seen.to_polars(), seen.to_arrow()
    assert list(frames) == list(tables)
    assert "top" in frames and "top_index" not in frames and "out" not in frames
    entropy = frames["entropy"]
    assert entropy.columns == ["batch", "head", "token", "value"]
    line = entropy.filter((polars.col("batch") == 1) & (polars.col("head") == 2) & (polars.col("token") == 3))
    assert line["value"].item() == pytest.approx(seen.entropy[1, 2, 3])
    top = frames["top"]
    assert top.columns == ["batch", "head", "token", "rank", "key", "weight"]
    assert top["key"].min() == 0 and len(top) == 2 * 4 * (1 + 2 + 3 + 3 + 3)
    assert isinstance(tables["received"], arrow.Table) and tables["received"].num_rows == 2 * 4 * 7
    assert frames["rows"].columns[2:] == ["row", "key", "value"]
    assert frames["segments"].columns[2:] == ["token", "segment", "value"]
    assert frames["blocks"].columns[2:] == ["query_block", "key_block", "value"]
    back = json.loads(json.dumps({name: values for name, values in seen.to_dict().items() if name != "lse"}))
    assert np.array_equal(np.array(back["entropy"], np.float32), seen.entropy)


def test_results_show_themselves(make):
    q, k, v = make(heads=14, kv_heads=7, queries=130, keys=130)
    seen = glasshead.attention(q, k, v, causal=True, read="entropy,blocks=1")
    shown = repr(seen)
    assert "entropy  float32  [2, 14, 130]" in shown and "out" in shown and len(shown) < 1000
    shown = seen._repr_html_()
    assert shown.startswith("<div><table>") and "[2, 14, 130]" in shown and "<iframe" in shown, "see test_page.py"
    assert repr(Read(entropy=True, rows=[1])) == "Read(entropy=True, rows=(1,))"
    nothing = glasshead.attention(*(x[:0] for x in (q, k, v)), read="blocks=4")
    assert "–" in repr(nothing) and "No page: nothing looks at anything" in nothing._repr_html_()


def test_results_can_be_copied_and_sent(make):
    seen = glasshead.attention(*make(), read="entropy")
    for other in (copy.copy(seen), copy.deepcopy(seen), pickle.loads(pickle.dumps(seen))):
        assert np.array_equal(other.out, seen.out) and np.array_equal(other.entropy, seen.entropy)
