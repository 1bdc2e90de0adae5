"""Gradients, against PyTorch's autograd through plain attention in float64."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

import glasshead  # noqa: E402
from glasshead.torch import scaled_dot_product_attention as ours  # noqa: E402

theirs = torch.nn.functional.scaled_dot_product_attention


def make(*shapes, dtype=torch.float32, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=torch.float32).to(dtype) for shape in shapes]


def gradients(function, inputs, grad_out, **options):
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs, **options)
    return torch.autograd.grad(out, inputs, grad_out.to(out.dtype))


def exact(inputs, grad_out, **options):
    with sdpa_kernel(SDPBackend.MATH):
        return gradients(theirs, [x.double() for x in inputs], grad_out.double(), **options)


def check(inputs, grad_out, sizes=None, **options):
    """Within twice the error of PyTorch's own, for each gradient, and what a rounded logarithm of the sum costs: it
    makes all weights of a row larger or smaller by that. ``sizes`` are those of sums whose parts cancel."""
    expected = exact(inputs, grad_out, **options)
    found = gradients(ours, inputs, grad_out, **options)
    plain = gradients(theirs, inputs, grad_out, **options)
    q, k = (x.double() for x in inputs[:2])
    largest = (q.shape[-1] ** -0.5 * (q.norm(dim=-1).max() * k.norm(dim=-1).max())).item()
    for got, other, want, x, size in zip(found, plain, expected, inputs, sizes or expected, strict=True):
        assert got.dtype == x.dtype and got.shape == x.shape
        eps = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps * (1 + largest) + torch.finfo(x.dtype).eps
        allowed = 2 * (other.double() - want).abs().max() + eps * size.abs().max()
        assert (got.double() - want).abs().max() <= allowed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 3, 17, 8)] * 3,
        [(1, 2, 300, 64)] * 3,
        [(2, 3, 40, 8), (2, 3, 64, 8), (2, 3, 64, 8)],
        [(2, 3, 64, 24), (2, 3, 40, 24), (2, 3, 40, 24)],
        [(17, 8)] * 3,
    ],
)
def test_within_twice_their_error(shapes, is_causal, dtype):
    *inputs, grad_out = make(*shapes, (*shapes[0][:-1], shapes[2][-1]), dtype=dtype)
    check(inputs, grad_out, is_causal=is_causal)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_key_heads(dtype):
    *inputs, grad_out = make((2, 6, 50, 16), (2, 2, 50, 16), (2, 2, 50, 16), (2, 6, 50, 16), dtype=dtype)
    check(inputs, grad_out, is_causal=True, enable_gqa=True)


def test_any_strides_and_one_number_for_all():
    q, k, v = (x.transpose(1, 2) for x in make(*[(2, 33, 3, 16)] * 3))
    check([q, k, v], torch.ones(1).expand(2, 3, 33, 16))


@pytest.mark.parametrize("shape", [(20, 30), (1, 30), (2, 1, 20, 30), (1, 3, 20, 30), (2, 3, 20, 30), (20, 1)])
def test_masks_and_their_gradients(shape):
    q, k, v, grad_out, bias = make((2, 3, 20, 8), (2, 3, 30, 8), (2, 3, 30, 8), (2, 3, 20, 8), shape)
    check([q, k, v], grad_out, attn_mask=bias > -1)
    whole = bias.double().expand(2, 3, 20, 30)
    *sizes, of_bias = exact([q, k, v, whole], grad_out)
    with sdpa_kernel(SDPBackend.MATH):
        check([q, k, v, bias], grad_out, [*sizes, of_bias.abs().sum_to_size(shape)])


def test_what_is_hidden_has_no_gradient():
    q, k, v, grad_out = make(*[(1, 1, 4, 8)] * 4)
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[1] = False
    mask[:, 2] = False
    k[0, 0, 2] = torch.nan
    v[0, 0, 2] = torch.inf
    of_q, of_k, of_v = gradients(ours, [q, k, v], grad_out, attn_mask=mask)
    assert (of_q[0, 0, 1] == 0).all() and (of_k[0, 0, 2] == 0).all() and (of_v[0, 0, 2] == 0).all()
    assert of_q.isfinite().all() and of_k.isfinite().all() and of_v.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": -0.3}, {"enable_gqa": True}])
def test_gradcheck(options):
    heads = 2 if "enable_gqa" in options else 4
    inputs = make((1, 4, 5, 3), (1, heads, 6, 3), (1, heads, 6, 2), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *x: ours(*x, **options), [x.requires_grad_() for x in inputs])


def test_softcap_window_and_sinks():
    q, k, v = make((2, 4, 40, 8), (2, 2, 40, 8), (2, 2, 40, 8), dtype=torch.float64)
    sinks = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)

    def plain(q, k, v, sinks):
        k, v = (x.repeat_interleave(2, 1) for x in (k, v))
        scores = 3.0 * torch.tanh(q @ k.mT * 8**-0.5 / 3.0)
        far = torch.arange(40)[:, None] - torch.arange(40)
        scores = scores.masked_fill((far < 0) | (far > 7), -torch.inf)
        scores = torch.cat([scores, sinks[None, :, None, None].expand(2, 4, 40, 1)], -1)
        return scores.softmax(-1)[..., :-1] @ v

    def engine(q, k, v, sinks):
        return glasshead.attention(q, k, v, causal=True, window=(7, None), softcap=3.0, sinks=sinks).out

    (grad_out,) = make((2, 4, 40, 8), seed=1)
    expected = gradients(plain, [q, k, v, sinks], grad_out)
    for got, want in zip(gradients(engine, [q, k, v, sinks], grad_out), expected, strict=True):
        # Sinks come to the engine, and their gradients back, in float32.
        torch.testing.assert_close(got, want, rtol=1e-6 if want.dim() == 1 else 1e-10, atol=1e-10)


def test_readouts_come_along_and_lse_only_if_asked():
    q, k, v = (x.requires_grad_() for x in make(*[(1, 2, 9, 8)] * 3))
    for read, names in [
        ("entropy", ["entropy"]),
        ("lse,entropy", ["lse", "entropy"]),
        (glasshead.Read(entropy=True), ["entropy"]),
        (None, []),
    ]:
        seen = glasshead.attention(q, k, v, read=read)
        assert list(seen) == names and seen.out.requires_grad
        assert not any(array.requires_grad for array in seen.values())


def test_only_some_inputs_want_them():
    q, k, v = make(*[(1, 2, 9, 8)] * 3)
    v.requires_grad_()
    ours(q, k, v).sum().backward()
    assert q.grad is None and v.grad is not None
    with torch.no_grad():
        assert not ours(q, k, v).requires_grad


@pytest.mark.parametrize(
    "shapes",
    [
        [(0, 2, 5, 4)] * 3,
        [(2, 0, 5, 4)] * 3,
        [(2, 2, 5, 0), (2, 2, 3, 0), (2, 2, 3, 4)],
        [(2, 2, 5, 4), (2, 2, 3, 4), (2, 2, 3, 0)],
    ],
)
def test_of_nothing(shapes):
    inputs = make(*shapes)
    grad_out = torch.ones(*shapes[0][:-1], shapes[2][-1])
    for found, expected in zip(gradients(ours, inputs, grad_out), exact(inputs, grad_out), strict=True):
        torch.testing.assert_close(found, expected.float())


def test_of_a_mask_in_float64():
    q, k, v, mask = make(*[(2, 2, 9, 8)] * 3, (9, 9), dtype=torch.float64)
    (grad_out,) = make((2, 2, 9, 8), dtype=torch.float64, seed=1)
    of_mask = lambda function: gradients(  # noqa: E731
        lambda q, k, v, mask: function(q, k, v, attn_mask=mask), [q, k, v, mask], grad_out
    )[3]
    torch.testing.assert_close(of_mask(ours), of_mask(theirs), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("options", [{}, {"is_causal": True, "scale": 0.3}])
def test_several_at_a_time(options):
    q, k, v, mask = (x.requires_grad_() for x in make(*[(2, 3, 9, 8)] * 3, (9, 9), dtype=torch.float64))
    (grad_out,) = make((4, 2, 3, 9, 8), dtype=torch.float64, seed=1)
    inputs = [q, k, v] if options else [q, k, v, mask]
    run = lambda function: function(q, k, v, None if options else mask, **options)  # noqa: E731
    together = torch.autograd.grad(run(ours), inputs, grad_out, is_grads_batched=True)
    for n in range(4):
        for found, one in zip(together, torch.autograd.grad(run(ours), inputs, grad_out[n]), strict=True):
            assert torch.equal(found[n], one)
    with pytest.raises(RuntimeError, match="detach"):
        seen = glasshead.attention(q, k, v, softcap=3.0)
        torch.autograd.grad(seen.out, q, grad_out, is_grads_batched=True)


SECOND = {
    "hessian": lambda q, k, v: torch.autograd.functional.hessian(lambda q: (ours(q, k, v) ** 2).sum(), q),
    "hvp": lambda q, k, v: torch.autograd.functional.hvp(lambda q: (ours(q, k, v) ** 2).sum(), q, q),
    "of another": lambda q, k, v: (
        torch.autograd.grad(ours(q.requires_grad_(), k.requires_grad_(), v).sum(), q, create_graph=True)[0]
        .square()
        .sum()
        .backward()
    ),
}


@pytest.mark.parametrize("what", SECOND)
def test_gradients_of_gradients_are_refused(what):
    """They are no zeros."""
    with pytest.raises(NotImplementedError, match="gradients of gradients"):
        SECOND[what](*make(*[(1, 1, 5, 4)] * 3))


@pytest.mark.parametrize("which", range(4))
def test_forward_mode_derivatives_are_refused(which):
    tensors = make(*[(1, 1, 5, 4)] * 3, (5, 5))
    with torch.autograd.forward_ad.dual_level():
        ours(*tensors[:3], attn_mask=tensors[3])
        tensors[which] = torch.autograd.forward_ad.make_dual(tensors[which], tensors[which])
        with pytest.raises(NotImplementedError, match="forward-mode"):
            ours(*tensors[:3], attn_mask=tensors[3])
    q, k, v, _ = make(*[(1, 1, 5, 4)] * 3, (5, 5))
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda q: ours(q, k, v), (q,), (q,))


def test_a_tensor_that_was_changed_is_refused():
    q, k, v = (x.requires_grad_() for x in make(*[(1, 1, 5, 4)] * 3))
    with torch.no_grad():
        other = k.clone()
    out = ours(q, other, v)
    other += 1
    with pytest.raises(RuntimeError, match="inplace"):
        out.sum().backward()
