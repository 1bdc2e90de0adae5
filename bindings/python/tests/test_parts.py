"""Attention over parts of the keys, merged to that over all of them."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest

import glasshead
import reference
from glasshead import Read

CUTS = ([0, 33], [0, 9, 33], [0, 20, 21, 33], [0, 1, 7, 8, 25, 33], [0, 0, 16, 16, 33])
EVERYTHING = {
    "lse": True, "entropy": True, "max": True, "top": 3, "received": True, "received_by_value": True, "rows": [0, -1],
    "rows_by_value": [2], "segments": [4, 21, 33], "blocks": 5, "distance": True, "first": True, "previous": True,
    "self_weight": True, "induction": [at * at % 7 for at in range(33)], "top_by_value": 2,
}  # fmt: skip
SEEN = {
    "dense": {},
    "bottom-right": {"causal": "bottom-right"},
    "top-left": {"causal": "top-left"},
    "offset": {"causal": 3, "softcap": 2.0},
    "window": {"causal": "bottom-right", "window": (6, None)},
    "both sides": {"window": (4, 2), "alibi_slopes": [0.5, 0.1, 0.0, 0.2]},
    "lengths": {"lengths": [33, 12], "scale": 0.7},
}


def in_parts(q, k, v, cuts, read, *, sinks=None, mask=None, **options):
    """Both passes, part by part."""
    keys = k.shape[2]

    def part(first, end, shares=None):
        own = None if mask is None else mask[..., first:end]
        return glasshead.partial_attention(
            q, k[:, :, first:end], v[:, :, first:end], first_key=first, keys=keys, mask=own, read=read, shares=shares,
            **options,
        )  # fmt: skip

    places = list(pairwise(cuts))
    parts = [part(*place) for place in places]
    shares = glasshead.part_shares(parts, read, sinks=sinks)
    sums = shares and [part(*place, share) for place, share in zip(places, shares, strict=True)]
    return glasshead.merge(parts, read, sums, sinks=sinks)


def same(merged, whole, keys=33):
    assert list(merged) == list(whole)
    for name, expected in whole.arrays().items():
        got = merged.arrays()[name]
        assert got.dtype == expected.dtype and got.shape == expected.shape, name
        if got.dtype == np.int64:
            np.testing.assert_array_equal(got, expected, err_msg=name)
        else:
            # Means of positions are taken from positions, as large as the number of keys.
            unit = keys * 2.0**-23 if name == "distance" else 1e-6
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=unit, err_msg=name)


@pytest.mark.parametrize("cuts", CUTS, ids=lambda cuts: f"{len(cuts) - 1} parts")
@pytest.mark.parametrize("how", SEEN)
@pytest.mark.parametrize("queries", [5, 20])
def test_parts_are_the_whole(make, queries, how, cuts):
    q, k, v = make(queries=queries)
    # Queries that see nothing of a part, or nothing at all, do not count its sink.
    for sinks in (None, [0.5, -1.0, 2.0, 0.0]):
        read = Read(**EVERYTHING, received_weighted=np.linspace(0, 1, queries))
        whole = glasshead.attention(q, k, v, sinks=sinks, read=read, **SEEN[how])
        same(in_parts(q, k, v, cuts, read, sinks=sinks, **SEEN[how]), whole)


def test_a_mask_has_the_columns_of_its_part(make):
    q, k, v = make()
    mask = np.random.default_rng(3).random((2, 1, 20, 33)) > 0.4
    for one in (mask, np.where(mask, 0.3, -np.inf).astype(np.float32)):
        whole = glasshead.attention(q, k, v, mask=one, read="all")
        same(in_parts(q, k, v, [0, 11, 33], "all", mask=one), whole)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_types(make, dtype):
    bf16 = pytest.importorskip("ml_dtypes").bfloat16
    q, k, v = (x.astype(bf16 if dtype == "bfloat16" else dtype) for x in make())
    read = Read(**EVERYTHING)
    whole = glasshead.attention(q, k, v, causal="bottom-right", read=read)
    merged = in_parts(q, k, v, [0, 9, 20, 33], read, causal="bottom-right")
    i, j = reference.positions(20, 33, 13)
    exact = reference.attention(q, k, v, visible=j <= i)
    error = lambda seen: np.abs(seen.out.astype(np.float64) - exact).max()  # noqa: E731
    # The output of a part is rounded to the type once more; what parts are weighed by, lse, is float32.
    assert merged.out.dtype == whole.out.dtype and error(merged) <= 2 * error(whole) + 2**-23 * np.abs(exact).max()
    whole.out = merged.out
    same(merged, whole)


def test_torch_tensors_and_copies(make):
    torch = pytest.importorskip("torch")
    q, k, v = (torch.from_numpy(x) for x in make())
    whole = glasshead.attention(q, k, v, causal="bottom-right", read="entropy,received")
    merged = in_parts(q, k, v, [0, 9, 33], "entropy,received", causal="bottom-right")
    assert isinstance(merged.out, torch.Tensor)
    for name, array in whole.arrays().items():
        torch.testing.assert_close(merged.arrays()[name], array, rtol=1e-6, atol=1e-6)
    part = glasshead.partial_attention(q, k, v, first_key=0, keys=33)
    assert pickle.loads(pickle.dumps(part)).place == range(33)
    with pytest.raises(ValueError, match="no gradients"):
        glasshead.partial_attention(q.requires_grad_(), k, v, first_key=0, keys=33)


def test_weights_of_queries_may_differ_by_head(make):
    q, k, v = make()
    weights = np.random.default_rng(4).random((2, 4, 20)).astype(np.float32)
    p = reference.weights(q, k)
    for given in (weights, weights.tolist()):
        seen = glasshead.attention(q, k, v, read=Read(received_weighted=given))
        np.testing.assert_allclose(seen.received_weighted, np.einsum("bhq,bhqk->bhk", weights, p), rtol=2e-5)
    assert hash(Read(received_weighted=weights)) == hash(Read(received_weighted=weights.tolist()))
    for wrong in (weights[:1], weights[:, :3], weights[..., :5], weights[0, 0, :5]):
        with pytest.raises(ValueError, match="received_weighted.*has"):
            glasshead.attention(q, k, v, read=Read(received_weighted=wrong))


def test_what_does_not_fit_is_refused(make):
    q, k, v = make()
    parts = [
        glasshead.partial_attention(q, k[:, :, a:b], v[:, :, a:b], first_key=a, keys=33, read="entropy,received")
        for a, b in ((0, 20), (20, 33))
    ]
    for wrong, sentence in (
        (lambda: glasshead.merge(parts[::-1]), "should start at 0"),
        (lambda: glasshead.merge(parts[1:]), "should start at 0"),
        (lambda: glasshead.merge(parts, "top=2"), "not read out of part 0"),
        (lambda: glasshead.merge(parts, "received"), "second pass"),
        (lambda: glasshead.merge(parts, "received", [{}]), "2 parts and 1 sums"),
        (lambda: glasshead.merge(parts, "received", parts), "second pass"),
        (lambda: glasshead.merge(parts, sinks=[1.0]), "sinks"),
        (lambda: glasshead.partial_attention(q, k, v, first_key=1, keys=33), "part 1"),
        (lambda: glasshead.partial_attention(q, k, v, first_key=0, keys=40, causal=True), "two ways"),
        (lambda: glasshead.partial_attention(q, k, v, first_key=0, keys=33, shares=np.ones((1, 4, 20), "f")), "shares"),
    ):
        with pytest.raises(ValueError, match=sentence) as refused:
            wrong()
        assert "\nhint: " in str(refused.value)
    other = glasshead.partial_attention(q[:, :, :5], k[:, :, 20:], v[:, :, 20:], first_key=20, keys=33)
    with pytest.raises(ValueError, match="as in the first part"):
        glasshead.merge([parts[0], other])
    parts[0]._readouts["entropy"] = parts[0]._readouts["entropy"][:, :, :7]
    with pytest.raises(ValueError, match=r"has the shape \[2, 4, 7\] in part 0"):
        glasshead.merge(parts, "entropy")
    for nothing in ([], [glasshead.attention(q, k, v)]):
        with pytest.raises(TypeError, match="partial_attention gives"):
            glasshead.merge(nothing)
