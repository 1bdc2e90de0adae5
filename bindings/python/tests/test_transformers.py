"""Models of transformers with ``attn_implementation="glasshead"``: in float32 they are off by at most twice what eager
and sdpa are, from the same model in float64."""

from __future__ import annotations

import inspect

import pytest

torch = pytest.importorskip("torch")
tf = pytest.importorskip("transformers")

from models import CONFIGS, DECODERS, NO_SDPA, SEQ2SEQ, inputs_of, make, with_attention  # noqa: E402

import glasshead.transformers  # noqa: E402
from glasshead import _masks  # noqa: E402

glasshead.transformers.register()

# Called past_key_values before 5.24.
CACHE = "cache" if "cache" in inspect.signature(tf.LlamaForCausalLM.forward).parameters else "past_key_values"


def logits(model, inputs, **options):
    inputs = {name: x.to(model.dtype) if x.is_floating_point() else x for name, x in inputs.items()}
    with torch.no_grad():
        return model(**inputs, **options).logits.double()


def close(name, inputs, real=None, run=logits):
    """Compares where tokens are real: what stands at padding is nobody's."""
    model = make(name)
    real = slice(None) if real is None else real
    exact = run(with_attention(model, "exact", torch.float64), inputs)[real]
    theirs = [run(with_attention(model, "eager"), inputs)[real]]
    if name not in NO_SDPA:
        theirs.append(run(with_attention(model, "sdpa"), inputs)[real])
    ours = run(with_attention(model, "glasshead"), inputs)[real]
    error = max((one - exact).abs().max().item() for one in theirs)
    assert error < 1e-3 * exact.abs().max(), "the case itself is no good"
    assert (ours - exact).abs().max().item() <= 2 * error


@pytest.mark.parametrize("name", CONFIGS)
def test_logits(name):
    close(name, inputs_of(name))


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "whisper"])
def test_padding(name, side):
    inputs = inputs_of(name, batch=3)
    mask = torch.ones_like(inputs["input_ids"])
    if side in ("left", "both"):
        mask[1, :9] = 0
    if side in ("right", "both"):
        mask[2, 13:] = 0
    inputs["attention_mask"] = mask
    if name not in ("t5", "bert"):
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    close(name, inputs, None if name == "t5" else mask.bool())


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("name", DECODERS)
def test_a_cache(name, cache, padded):
    inputs = inputs_of(name)["input_ids"]
    mask = torch.ones_like(inputs)
    if padded:
        mask[1, :4] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    def run(model, _):
        made = {
            "dynamic": lambda: tf.DynamicCache(config=model.config),
            "static": lambda: tf.StaticCache(config=model.config, max_cache_len=32),
        }[cache]()
        parts = []
        with torch.no_grad():
            for start, end in [(0, 9), (9, 12), *((at, at + 1) for at in range(12, 20))]:
                options = {"attention_mask": mask[:, :end], "position_ids": positions[:, start:end]}
                parts.append(model(inputs[:, start:end], **{CACHE: made}, **options).logits.double())
        return torch.cat(parts, dim=1)

    close(name, inputs, mask.bool(), run)


@pytest.mark.parametrize("name", [*DECODERS, *SEQ2SEQ])
def test_generate(name):
    model = make(name)
    inputs = {key: x for key, x in inputs_of(name).items() if key != "decoder_input_ids"}
    if name in DECODERS:
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["attention_mask"][0, :5] = 0
    options = {"max_new_tokens": 12, "do_sample": False, "min_new_tokens": 12}
    texts = [with_attention(model, one).generate(**inputs, **options) for one in ("eager", "glasshead")]
    assert torch.equal(*texts)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_all_weights(name):
    inputs = inputs_of(name)

    def learned(attention, dtype=torch.float32):
        model = with_attention(make(name), attention, dtype)
        cast = {key: x.to(dtype) if x.is_floating_point() else x for key, x in inputs.items()}
        found = model(**cast).logits.double()
        (found * torch.linspace(-1, 1, found.numel(), dtype=torch.float64).reshape(found.shape)).sum().backward()
        return {path: weight.grad.double() for path, weight in model.named_parameters() if weight.grad is not None}

    exact, theirs, ours = learned("exact", torch.float64), learned("eager"), learned("glasshead")
    assert exact.keys() == ours.keys()

    def error(found):
        """The worst over all weights, each relative to its largest gradient."""
        return max(
            ((found[path] - want).abs().max() / want.abs().max().clamp(min=1e-20)).item()
            for path, want in exact.items()
        )

    assert error(ours) <= 2 * error(theirs)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masks_of_the_user(kind):
    inputs = inputs_of("llama")
    seen = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(2)) < 0.5
    seen |= torch.eye(20, dtype=torch.bool)
    for dtype in (torch.float32, torch.float64):
        added = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    mask = seen if kind == "bool" else added.float()

    def run(model, inputs):
        own = (
            mask
            if kind == "bool" and model.config._attn_implementation not in ("eager", "exact")
            else added.to(model.dtype)
        )
        return logits(model, inputs, attention_mask=own)

    close("llama", inputs, run=run)


def test_packed_sequences():
    inputs = inputs_of("llama", batch=1)
    inputs["position_ids"] = torch.cat([torch.arange(8), torch.arange(12)])[None]
    close("llama", inputs, run=lambda model, inputs: logits(model, inputs, use_cache=False))


def visible(**changes):
    options = {"batch_size": 2, "q_length": 6, "kv_length": 9, "q_offset": 3, "kv_offset": 0}
    return _masks.mask(**(options | changes))


def written(**changes):
    options = {"batch_size": 2, "q_length": 6, "kv_length": 9, "q_offset": 3, "kv_offset": 0}
    return tf.masking_utils.sdpa_mask(**(options | changes), allow_is_causal_skip=False)


PADDING = torch.ones(2, 12, dtype=torch.bool)
PADDING[0, :2], PADDING[1, 7:] = False, False


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("padding", [None, PADDING, PADDING[1:].expand(2, -1)])
@pytest.mark.parametrize("kv_offset", [0, 2])
def test_a_few_numbers_say_what_the_mask_says(window, padding, kv_offset):
    function = (
        tf.masking_utils.sliding_window_causal_mask_function(window)
        if window
        else tf.masking_utils.causal_mask_function
    )
    options = {"mask_function": function, "attention_mask": padding, "kv_offset": kv_offset}
    said = visible(**options)
    assert isinstance(said, _masks.Visible)
    q, k = torch.randn(2, 1, 6, 4), torch.randn(2, 1, 9, 4)
    read = glasshead.Read(rows=range(6))
    seen = glasshead.attention(q, k, k, **said.options(), read=read).rows
    exact = glasshead.attention(q, k, k, mask=written(**options), read=read).rows
    assert torch.equal(seen > 0, exact > 0)
    torch.testing.assert_close(seen, exact)


def test_patterns_that_are_not_known_are_written_out():
    functions = [
        lambda b, h, q, k: k <= q + 1,
        tf.masking_utils.or_masks(tf.masking_utils.causal_mask_function, lambda b, h, q, k: k < 2),
        tf.masking_utils.and_masks(tf.masking_utils.causal_mask_function, lambda b, h, q, k: k > 0),
        tf.masking_utils.chunked_causal_mask_function(3, torch.zeros(2, dtype=torch.int64)),
        tf.masking_utils.sliding_window_bidirectional_mask_function(2),
    ]
    for function in functions:
        assert torch.equal(visible(mask_function=function), written(mask_function=function))


def test_a_mask_that_the_model_calculates_with_is_looked_at_again():
    mask = visible(allow_is_causal_skip=False, attention_mask=PADDING)
    assert torch.equal(mask, written(attention_mask=PADDING)) and isinstance(_masks.remembered(mask), _masks.Visible)
    assert torch.equal(_masks.remembered(mask[:, :, 1:]), mask[:, :, 1:])
    mask[:, :, :, 2] = False
    assert _masks.remembered(mask) is mask
    with torch.inference_mode():
        mask = visible(allow_is_causal_skip=False)
        assert _masks.remembered(mask) is mask
    said = visible()
    assert visible(attention_mask=said) is said and _masks.remembered(said) is said and _masks.remembered(None) is None


def test_all_weights_where_they_are_asked_for():
    model, inputs = make("llama"), inputs_of("llama")
    with torch.no_grad():
        ours = with_attention(model, "glasshead")(**inputs, output_attentions=True).attentions
        theirs = with_attention(model, "eager")(**inputs, output_attentions=True).attentions
    assert len(ours) == 2
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_training_with_dropout_is_refused():
    model = with_attention(make("bert"), "glasshead").train()
    with pytest.raises(NotImplementedError, match="dropout is 0.1"):
        model(**inputs_of("bert"))
