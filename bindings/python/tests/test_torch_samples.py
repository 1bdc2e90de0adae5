"""The drop-in over the inputs with which PyTorch tests its own function, in every type, with gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
# PyTorch's tests come with it, and use this.
pytest.importorskip("expecttest")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

from glasshead.torch import scaled_dot_product_attention as ours  # noqa: E402

theirs = torch.nn.functional.scaled_dot_product_attention


def samples(dtype, requires_grad):
    from torch.testing._internal.common_methods_invocations import op_db

    (op,) = (op for op in op_db if op.name == "nn.functional.scaled_dot_product_attention")
    found = list(op.sample_inputs("cpu", dtype, requires_grad=requires_grad))
    assert len(found) > 10
    return [((one.input, *one.args), one.kwargs) for one in found]


def plain(inputs, options):
    """Theirs, the plain way, or why it refuses."""
    try:
        with sdpa_kernel(SDPBackend.MATH):
            return theirs(*inputs, **options)
    except RuntimeError as error:
        return error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_outputs(dtype):
    for inputs, options in samples(dtype, False):
        if options.get("dropout_p"):
            with pytest.raises(NotImplementedError, match="dropout"):
                ours(*inputs, **options)
            continue
        wide = {name: x.double() if isinstance(x, torch.Tensor) else x for name, x in options.items()}
        expected = plain([x.double() for x in inputs], wide)
        if isinstance(expected, Exception):
            with pytest.raises(RuntimeError):
                ours(*inputs, **options)
            continue
        found = ours(*inputs, **options)
        assert found.shape == expected.shape and found.dtype == dtype
        # A score is off by a rounding of its size, which its weight passes on; the output is rounded once.
        q, k, v = (x.double() for x in inputs)
        largest = (q.norm(dim=-1).max() * k.norm(dim=-1).max() / q.shape[-1] ** 0.5).item()
        eps = torch.finfo(dtype).eps
        allowed = ((4 + largest) * min(eps, 2.0**-23) + eps) * v.abs().max().item()
        assert (found.double() - expected).abs().max().item() <= allowed


def test_gradients():
    """As PyTorch checks those of its function: against slopes of the output, in float64."""
    checked = 0
    for inputs, options in samples(torch.float64, True):
        if options.get("dropout_p") or isinstance(plain(inputs, options), Exception):
            continue
        mask = options.pop("attn_mask", None)
        inputs = [*inputs, *([mask.detach().requires_grad_()] if mask is not None else [])]
        assert torch.autograd.gradcheck(lambda *x, options=options: ours(*x, **options), inputs)
        checked += 1
    assert checked > 5
