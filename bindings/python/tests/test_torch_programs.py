"""Programs of PyTorch that are looked at before they run: each gives what running the function gives."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")

from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

import glasshead  # noqa: E402
from glasshead.torch import scaled_dot_product_attention as ours  # noqa: E402


def make(*shapes, dtype=torch.float32, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=torch.float32).to(dtype) for shape in shapes]


class Module(torch.nn.Module):
    def forward(self, q, k, v):
        return ours(q, k, v, is_causal=True)


def traced(q, k, v):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(Module(), (q, k, v))


PROGRAMS = {
    "compile": lambda q, k, v: torch.compile(Module(), backend="aot_eager", fullgraph=True),
    "compile of any size": lambda q, k, v: torch.compile(Module(), backend="aot_eager", fullgraph=True, dynamic=True),
    "export": lambda q, k, v: torch.export.export(Module(), (q, k, v)).module(),
    "jit.trace": traced,
    "make_fx": lambda q, k, v: make_fx(lambda *x: Module()(*x))(q, k, v),
    "make_fx of no numbers": lambda q, k, v: make_fx(lambda *x: Module()(*x), tracing_mode="fake")(q, k, v),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("program", PROGRAMS)
def test_gives_the_same(program, dtype):
    program = PROGRAMS[program](*make(*[(2, 3, 20, 8)] * 3, dtype=dtype, seed=1))
    q, k, v = make(*[(2, 3, 20, 8)] * 3, dtype=dtype)
    assert torch.equal(program(q, k, v), ours(q, k, v, is_causal=True))


def test_compiled_with_gradients():
    compiled = torch.compile(lambda q, k, v, m: ours(q, k, v, m, scale=0.3).sin(), backend="aot_eager", fullgraph=True)
    found, expected = ([x.requires_grad_() for x in make(*[(2, 3, 20, 8)] * 3, (20, 20))] for _ in range(2))
    compiled(*found).sum().backward()
    ours(*expected[:3], expected[3], scale=0.3).sin().sum().backward()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("dims", [(0, None, None), (2, 0, 1), (None, None, 3)])
@pytest.mark.parametrize("mask", [None, 0, 2])
def test_vmap(dims, mask):
    tensors = [x if dim is None else x.movedim(0, dim) for x, dim in zip(make_many(dims), dims, strict=True)]
    (masks,) = make((4, 5, 5), seed=3)
    if mask is None:
        found = torch.vmap(ours, in_dims=dims)(*tensors)
        masks = [None] * 4
    else:
        found = torch.vmap(ours, in_dims=(*dims, mask))(*tensors, masks.movedim(0, mask))
    at = lambda x, dim, n: x if dim is None else x.select(dim, n)  # noqa: E731
    for n in range(4):
        one = [at(x, dim, n) for x, dim in zip(tensors, dims, strict=True)]
        torch.testing.assert_close(found[n], ours(*one, masks[n]))


def make_many(dims):
    return make(*[(2, 3, 5, 8) if dim is None else (4, 2, 3, 5, 8) for dim in dims])


def test_what_would_record_a_constant_is_refused():
    q, k, v = make(*[(1, 1, 5, 4)] * 3)
    with pytest.raises(NotImplementedError, match="as a constant"):
        torch.jit.trace(lambda q: glasshead.attention(q, k, v).out, (q,))
    with pytest.raises(NotImplementedError, match="as a constant"):
        make_fx(lambda q: glasshead.attention(q, k, v).out)(q)


def test_operators_are_well_behaved():
    """PyTorch's own check: schema, shapes without numbers, gradients, compilation."""
    q, k, v, mask = (x.requires_grad_() for x in make(*[(2, 3, 5, 8)] * 3, (5, 5), dtype=torch.float64))
    torch.library.opcheck(torch.ops.glasshead.attention, (q, k, v, mask, "", 0.5))
    torch.library.opcheck(torch.ops.glasshead.attention, (q, k, v, None, "top-left", None))
