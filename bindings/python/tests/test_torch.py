"""The drop-in for PyTorch's function, against PyTorch's own in float64."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import glasshead  # noqa: E402
from glasshead.torch import scaled_dot_product_attention as ours  # noqa: E402

theirs = torch.nn.functional.scaled_dot_product_attention
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def exact(q, k, v, mask=None, **options):
    """PyTorch's function, the plain way, in float64."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if mask is not None and mask.is_floating_point():
        mask = mask.double()
    with sdpa_kernel(SDPBackend.MATH):
        return theirs(q.double(), k.double(), v.double(), attn_mask=mask, **options)


def close(q, k, v, mask=None, **options):
    found = ours(q, k, v, attn_mask=mask, **options)
    expected = exact(q, k, v, mask, **options)
    assert found.dtype == q.dtype and found.shape == expected.shape
    # Computed in float32 and rounded to the type; weights of bfloat16 may have been rounded too, as in torch.
    eps = max(torch.finfo(q.dtype).eps, 1e-14)
    eps = eps if q.dtype in (torch.float16, torch.bfloat16) else 32 * eps
    assert (found.double() - expected).abs().max().item() <= eps * max(1, expected.abs().max().item())
    return found


def make(*shapes, dtype=torch.float32, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=torch.float32).to(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 3, 17, 8)] * 3,
        [(2, 3, 40, 8), (2, 3, 64, 8), (2, 3, 64, 12)],
        [(2, 3, 64, 8), (2, 3, 40, 8), (2, 3, 40, 5)],
        [(1, 1, 1, 64), (1, 1, 300, 64), (1, 1, 300, 64)],
        [(3, 17, 8)] * 3,
        [(17, 8)] * 3,
        [(2, 2, 3, 9, 8)] * 3,
        [(2, 3, 5, 8), (2, 1, 9, 8), (1, 3, 9, 8)],
        [(3, 5, 8), (2, 3, 9, 8), (9, 8)],
        [(2, 1, 3, 8), (3, 2, 1, 3, 8), (3, 2, 1, 3, 8)],
        [(2, 3, 5, 8), (1, 2, 3, 5, 8), (1, 2, 3, 5, 8)],
        [(2, 3, 5, 0), (2, 3, 4, 0), (2, 3, 4, 8)],
        [(2, 3, 5, 8), (2, 3, 4, 8), (2, 3, 4, 0)],
        [(0, 3, 5, 8)] * 3,
        [(2, 3, 0, 8), (2, 3, 4, 8), (2, 3, 4, 8)],
        [(2, 2, 0, 3, 8)] * 3,
    ],
)
def test_shapes(shapes, dtype, is_causal):
    q, k, v = make(*shapes, dtype=dtype)
    if exact(q, k, v, is_causal=is_causal).numel():
        close(q, k, v, is_causal=is_causal)
    else:
        assert ours(q, k, v, is_causal=is_causal).shape == theirs(q, k, v).shape


def test_no_keys_give_zeros():
    q, k = make((2, 3, 5, 8), (2, 3, 0, 8))
    assert torch.equal(ours(q, k, k), torch.zeros(2, 3, 5, 8))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape",
    [
        (20, 30),
        (1, 30),
        (20, 1),
        (1,),
        (30,),
        (3, 20, 30),
        (2, 1, 20, 30),
        (2, 1, 1, 30),
        (1, 3, 20, 1),
        (2, 3, 20, 30),
        (),
    ],
)
@pytest.mark.parametrize("kind", ["bool", "own", "float32"])
def test_masks(shape, kind, dtype):
    q, k, v = make((2, 3, 20, 8), (2, 3, 30, 8), (2, 3, 30, 8), dtype=dtype)
    (mask,) = make(shape, seed=1)
    mask = mask > -0.5 if kind == "bool" else mask.to(dtype if kind == "own" else torch.float32)
    close_of = lambda mask: close(q, k, v, mask if len(shape) > 1 else mask[None])  # noqa: E731
    found = close_of(mask)
    # Neither an expanded mask nor one of other strides is another mask.
    assert torch.equal(ours(q, k, v, mask.expand(2, 3, 20, 30)), found)
    assert torch.equal(ours(q, k, v, mask.expand(2, 3, 20, 30).transpose(2, 3).contiguous().transpose(2, 3)), found)


def test_masks_of_other_numbers_of_axes():
    q, k, v = make((2, 2, 3, 9, 8), (2, 2, 3, 7, 8), (2, 2, 3, 7, 8))
    for shape in [(9, 7), (3, 1, 7), (2, 3, 9, 7), (2, 1, 3, 9, 7)]:
        close(q, k, v, make(shape, seed=2)[0] > 0)
    close(q[0, 0], k[0, 0], v[0, 0], make((3, 9, 7), seed=2)[0] > 0)
    close(q[0, 0, 0], k[0, 0, 0], v[0, 0, 0], make((9, 7), seed=2)[0] > 0)


@pytest.mark.parametrize("queries", [3, 40])
def test_rows_that_see_nothing_are_zero(queries):
    q, k, v = make((2, 3, queries, 8), (2, 3, 40, 8), (2, 3, 40, 8))
    mask = torch.ones(queries, 40, dtype=torch.bool)
    mask[1] = False
    added = torch.zeros(queries, 40).masked_fill(~mask, -torch.inf)
    for one in (mask, added):
        out = ours(q, k, v, one)
        assert torch.equal(out[:, :, 1], torch.zeros(2, 3, 8)) and not out.isnan().any()
        close(q, k, v, one)
    # The lowest number is no −∞: a row of it is a row of equal scores.
    lowest = torch.zeros(queries, 40).masked_fill(~mask, torch.finfo(torch.float32).min)
    torch.testing.assert_close(ours(q, k, v, lowest)[:, :, 1], v.mean(2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 0.5, -1.0, 3])
def test_scale(scale):
    q, k, v = make(*[(2, 3, 20, 8)] * 3)
    close(q, k, v, scale=scale)
    close(q, k, v, scale=scale, is_causal=True)


@pytest.mark.parametrize("heads", [(6, 3, 3), (6, 1, 1), (6, 2, 3), (4, 4, 4)])
@pytest.mark.parametrize("lead", [(), (2,), (2, 2)])
def test_gqa(heads, lead):
    q, k, v = make(*[(*lead, n, 20, 8) for n in heads])
    close(q, k, v, enable_gqa=True)
    close(q, k, v, torch.rand(20, 20) > 0.3, enable_gqa=True)


def strided(x):
    yield x.transpose(1, 2).contiguous().transpose(1, 2)
    yield x.transpose(2, 3).contiguous().transpose(2, 3)
    yield x.repeat_interleave(2, -1)[..., ::2]
    yield torch.nn.functional.pad(x, (3, 3, 1, 1))[..., 1:-1, 3:-3]
    yield x[:1, :1].expand_as(x)
    yield torch.stack([x, x])[1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_strides(dtype):
    q, k, v = make(*[(2, 4, 20, 8)] * 3, dtype=dtype)
    for q2, k2, v2 in zip(strided(q), strided(k), strided(v), strict=True):
        close(q2, k2, v2)
    qkv = torch.randn(2, 20, 3 * 4 * 8).to(dtype)
    close(*(x.view(2, 20, 4, 8).transpose(1, 2) for x in qkv.chunk(3, -1)))


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_the_output_lies_as_query_does(order):
    back = [order.index(axis) for axis in range(3)]
    q, k, v = (x.permute(*order, 3).contiguous().permute(*back, 3) for x in make(*[(2, 3, 5, 8)] * 3))
    out = ours(q, k, v)
    assert out.stride() == q.stride()
    torch.testing.assert_close(out, ours(q.contiguous(), k, v), rtol=0, atol=0)
    once = ours(q[:1, :1].expand_as(q), k, v)
    assert once.is_contiguous()
    # What models do next, without a copy.
    tokens_first = make((2, 5, 3, 8))[0].transpose(1, 2)
    assert ours(tokens_first, k, v).transpose(1, 2).view(2, 5, 24).is_contiguous()


def test_nothing_is_copied():
    q, k, v = make(*[(1, 2, 20, 8)] * 3, dtype=torch.bfloat16)
    taken = glasshead._arrays.TORCH.take("q", q.transpose(1, 2))
    assert taken.ctypes.data == q.data_ptr() and taken.strides == tuple(2 * n for n in q.transpose(1, 2).stride())
    out = glasshead.attention(q, k, v, read="entropy,top=2")
    assert out.out.dtype == torch.bfloat16 and out.entropy.dtype == torch.float32 and out.top_index.dtype == torch.int64


def test_causal_bias():
    from torch.nn.attention.bias import causal_lower_right, causal_upper_left

    q, k, v = make((2, 3, 5, 8), (2, 3, 9, 8), (2, 3, 9, 8))
    close(q, k, v, torch.ones(5, 9, dtype=torch.bool).tril(4))
    lower = ours(q, k, v, causal_lower_right(5, 9))
    torch.testing.assert_close(lower, ours(q, k, v, torch.ones(5, 9, dtype=torch.bool).tril(4)))
    assert torch.equal(ours(q, k, v, causal_upper_left(5, 9)), ours(q, k, v, is_causal=True))
    with pytest.raises(ValueError, match="CausalBias should not be used with causal=True"):
        ours(q, k, v, causal_lower_right(5, 9), is_causal=True)


def test_autocast_computes_in_its_type():
    q, k, v = make(*[(2, 3, 20, 8)] * 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = ours(q, k, v), theirs(q, k, v)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert torch.equal(found, ours(q.bfloat16(), k.bfloat16(), v.bfloat16()))


X = torch.zeros(1, 2, 4, 8)


@pytest.mark.parametrize(
    ("error", "match", "tensors", "options"),
    [
        (
            RuntimeError,
            "Explicit attn_mask should not be set",
            {},
            {"attn_mask": torch.ones(4, 4, dtype=torch.bool), "is_causal": True},
        ),
        (NotImplementedError, "dropout_p is 0.5", {}, {"dropout_p": 0.5}),
        (RuntimeError, "attn_mask is torch.int64", {}, {"attn_mask": torch.ones(4, 4, dtype=torch.int64)}),
        (RuntimeError, "attn_mask is torch.float64", {}, {"attn_mask": torch.ones(4, 4, dtype=torch.float64)}),
        (RuntimeError, "mask", {}, {"attn_mask": torch.ones(4, 3, dtype=torch.bool)}),
        (RuntimeError, "mask", {}, {"attn_mask": torch.ones(3, 4, dtype=torch.bool)}),
        (RuntimeError, "key is torch.float64", {"key": X.double()}, {}),
        (RuntimeError, "query is torch.int32", {"query": X.int(), "key": X.int(), "value": X.int()}, {}),
        (RuntimeError, r"query has the shape \[4\]", {"query": X[0, 0, :, 0]}, {}),
        (RuntimeError, "k: ", {"key": X[..., :7]}, {}),
        (RuntimeError, "v: ", {"value": X[:, :, :3]}, {}),
        (RuntimeError, "have the shapes", {"key": torch.zeros(1, 3, 4, 8)}, {}),
        (RuntimeError, "2 query heads over 4", {"key": torch.zeros(1, 4, 4, 8)}, {"enable_gqa": True}),
        (RuntimeError, "without heads", {"key": X[0, 0]}, {"enable_gqa": True}),
        (RuntimeError, "scale", {}, {"scale": float("inf")}),
        (RuntimeError, "lies on meta", {"query": X.to("meta")}, {}),
        (RuntimeError, "nested", {"query": torch.nested.nested_tensor([X[0], X[0]])}, {}),
        (
            RuntimeError,
            "nested",
            dict.fromkeys(("query", "key", "value"), torch.nested.nested_tensor([X[0], X[0, :1]])),
            {},
        ),
        (RuntimeError, "sparse", {"query": X.to_sparse()}, {}),
        (TypeError, "query is list", {"query": [1.0]}, {}),
        (TypeError, "attn_mask is list", {}, {"attn_mask": [True]}),
    ],
)
def test_refused(error, match, tensors, options):
    with pytest.raises(error, match=match) as caught:
        ours(**{"query": X, "key": X, "value": X, **tensors}, **options)
    assert "\nhint: " in str(caught.value)


def test_the_signature_is_theirs():
    q = torch.zeros(1, 1, 2, 2)
    ours(q, q, q, None, 0.0, False, scale=1.0, enable_gqa=True)
    with pytest.raises(TypeError):
        ours(q, q, q, None, 0.0, False, 1.0)


def test_mixed_kinds_are_refused():
    with pytest.raises(TypeError, match="k is ndarray and q is a torch tensor"):
        glasshead.attention(X, X.numpy(), X)
