"""``glasshead.capture``: what is read out is what the model's own weights, all of them kept, say."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
tf = pytest.importorskip("transformers")

from models import inputs_of, make, with_attention  # noqa: E402

import glasshead  # noqa: E402
from glasshead import Read  # noqa: E402

READ = Read(entropy=True, top=3, received=True, rows=[-1], blocks=4)
WITH_SEGMENTS = replace(READ, segments=[4, 10])


def entropy(p):
    return -torch.special.xlogy(p, p).sum(-1)


def agree(seen, p):
    """One layer's readouts with all its weights [batch, heads, queries, keys]."""
    near = {"atol": 2e-5, "rtol": 1e-4}
    torch.testing.assert_close(seen.entropy, entropy(p), **near)
    torch.testing.assert_close(seen.received, p.sum(2), **near)
    if "segments" in seen:
        torch.testing.assert_close(seen.segments, torch.stack([p[..., :4].sum(-1), p[..., 4:10].sum(-1)], -1), **near)
    there = seen.top_index >= 0
    torch.testing.assert_close(p.gather(-1, seen.top_index.clamp(min=0))[there], seen.top_weight[there], **near)
    torch.testing.assert_close(p.topk(3).values * there, seen.top_weight, **near)
    if "blocks" not in seen:
        return
    queries, keys = p.shape[2:]
    whole = torch.nn.functional.pad(p, (0, -keys % 4, 0, -queries % 4))
    tiles = whole.unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).sum((3, 5))
    torch.testing.assert_close(seen.blocks, tiles, **near)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "mistral with a window"])
def test_layers(name):
    model, inputs = make(name), inputs_of(name)
    with torch.no_grad():
        weights = with_attention(model, "eager")(**inputs, output_attentions=True).attentions
        with glasshead.capture(model, WITH_SEGMENTS) as seen:
            model(**inputs)
    assert list(seen) == [0, 1] and len(seen) == 2
    for layer, p in enumerate(weights):
        agree(seen[layer], p)
        torch.testing.assert_close(seen[layer].rows, p[:, :, -1:], atol=2e-5, rtol=1e-4)
    assert seen[-1] is seen[1] or torch.equal(seen[-1].entropy, seen[1].entropy)


def test_it_works_where_gradients_are_on():
    model = make("llama")
    with glasshead.capture(model, "entropy") as seen:
        model(**inputs_of("llama"))
    assert not seen[0].entropy.requires_grad


@pytest.mark.parametrize("name", ["t5", "whisper"])
def test_encoder_decoder_models(name):
    model, inputs = make(name), inputs_of(name)
    with torch.no_grad():
        out = with_attention(model, "eager")(**inputs, output_attentions=True)
        with glasshead.capture(model, READ) as seen:
            model(**inputs)
    assert list(seen) == [(kind, n) for kind in ("encoder",) for n in (0, 1)] + [
        (kind, n) for n in (0, 1) for kind in ("decoder", "cross")
    ]
    kinds = {"encoder": out.encoder_attentions, "decoder": out.decoder_attentions, "cross": out.cross_attentions}
    for kind, weights in kinds.items():
        for layer, p in enumerate(weights):
            agree(seen[kind, layer], p)
    with pytest.raises(KeyError, match="several kinds"):
        seen[0]


def whole(model, inputs, tokens, length, **options):
    """All weights of a text with its answer, in one pass."""
    with torch.no_grad():
        return with_attention(model, "eager")(tokens[:, :length], output_attentions=True, **options).attentions


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["llama", "mistral with a window", "gpt2"])
def test_an_answer_joins_its_prompt(name, cache):
    model, inputs = make(name), inputs_of(name, batch=1, tokens=14)
    read = replace(WITH_SEGMENTS, rows=None)
    if "window" in name:
        # The keys that a window has left behind are no longer there, and those that are begin in no block.
        read = replace(read, segments=None, blocks=None)
    with glasshead.capture(model, read) as seen:
        tokens = model.generate(
            **inputs, max_new_tokens=9, min_new_tokens=9, do_sample=False, cache_implementation=cache
        )
    assert tokens.shape[1] == 23 and len(seen.passes(0)) == 9
    if cache == "static":
        # The keys of a static cache are as many as it has room for.
        keys = seen[0].received.shape[-1]
        assert keys >= 22
    for layer, p in enumerate(whole(model, inputs, tokens, 22)):
        one = seen[layer].arrays()
        if cache == "static":
            one["received"] = one["received"][..., :22]
            if "blocks" in one:
                one["blocks"] = one["blocks"][..., :6]
        agree(glasshead.Readouts(one), p)


def test_what_cannot_be_put_together_is_said():
    model, inputs = make("llama"), inputs_of("llama")
    with glasshead.capture(model, "entropy") as seen, torch.no_grad():
        model(**inputs)
        model(**inputs)
    with pytest.raises(ValueError, match="called 2 times.*\nhint: .*passes"):
        seen[0]
    assert len(seen.passes(0)) == 2
    with glasshead.capture(model, "entropy") as seen:
        model.generate(**inputs, num_beams=2, max_new_tokens=3)
    assert len(seen.passes(1)) == 3


def test_layers_and_heads_are_chosen():
    model, inputs = make("llama"), inputs_of("llama")
    with glasshead.capture(model, READ) as all_of_it, torch.no_grad():
        model(**inputs)
    with glasshead.capture(model, READ, layers=[-1], heads=[3, 1]) as seen, torch.no_grad():
        model(**inputs)
    assert list(seen) == [1]
    torch.testing.assert_close(seen[1].entropy, all_of_it[1].entropy[:, [3, 1]], atol=1e-5, rtol=1e-5)
    frame = seen.tables()["entropy"]
    assert set(frame["head"]) == {1, 3} and set(frame["layer"]) == {1} and set(frame["kind"]) == {"self"}
    here = (frame["batch"] == 1) & (frame["head"] == 3) & (frame["token"] == 5)
    assert frame["value"][here].item() == seen[1].entropy[1, 0, 5].item()
    with pytest.raises(KeyError, match="layer 0 was not seen\nhint: there are 1"):
        seen[0]
    with pytest.raises(ValueError, match="the model has none of them"):
        glasshead.capture(model, layers=[2])
    with pytest.raises(IndexError), glasshead.capture(model, heads=[4]), torch.no_grad():
        model(**inputs)
    assert model.config._attn_implementation != "glasshead"


def test_the_model_has_its_own_attention_again():
    model = with_attention(make("t5"), "eager")
    inputs = inputs_of("t5")
    with torch.no_grad():
        before = model(**inputs).logits
        with pytest.raises(ZeroDivisionError), glasshead.capture(model, "entropy"):
            1 / 0
        assert model.config._attn_implementation == model.encoder.config._attn_implementation == "eager"
        with glasshead.capture(model, "entropy") as seen:
            model(**inputs)
        count = len(seen.passes(("cross", 0)))
        assert torch.equal(model(**inputs).logits, before)
        assert len(seen.passes(("cross", 0))) == count, "it went on watching"


def test_two_models_in_two_threads():
    models = [make("llama"), make("gpt2")]
    found = {}

    def work(at):
        with glasshead.capture(models[at], "entropy") as seen, torch.no_grad():
            for _ in range(5):
                models[at](**inputs_of("llama"))
        found[at] = seen

    threads = [threading.Thread(target=work, args=(at,)) for at in range(2)]
    [thread.start() for thread in threads]
    [thread.join(120) for thread in threads]
    assert [len(found[at].passes(0)) for at in range(2)] == [5, 5]
    assert found[0].model != found[1].model


def test_misuse_is_refused():
    model = make("llama")
    once = glasshead.capture(model, "entropy")
    with once as seen, pytest.raises(RuntimeError, match="captured already"), glasshead.capture(model):
        pass
    with pytest.raises(RuntimeError, match="closed"), once:
        pass
    with pytest.raises(KeyError, match="no attention was seen"):
        seen[0]
    with pytest.raises(TypeError, match="Linear is no model"):
        glasshead.capture(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match='read is "all"'):
        glasshead.capture(model, "all")
    with pytest.raises(ValueError, match="enropy"), glasshead.capture(model, "enropy"), torch.no_grad():
        model(**inputs_of("llama"))


@pytest.fixture
def captured():
    model = make("llama")
    with glasshead.capture(model, Read(entropy=True, top=2, received=True)) as seen, torch.no_grad():
        model(**inputs_of("llama"))
    return seen


def test_files(captured, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    from safetensors.numpy import load_file

    files = captured.save(tmp_path / "x.parquet")
    assert [path.name for path in files] == ["x.entropy.parquet", "x.received.parquet", "x.top.parquet"]
    assert sorted(tmp_path.iterdir()) == sorted(files), "something else was left behind"
    table = parquet.read_table(files[2])
    assert table.column_names == ["kind", "layer", "batch", "head", "token", "rank", "key", "weight"]
    assert b"glasshead" in table.schema.metadata[b"version"] and table.schema.metadata[b"model"] == b"LlamaForCausalLM"
    assert table.equals(captured.to_arrow()["top"])
    (path,) = captured.save(str(tmp_path / "x.safetensors"))
    arrays = load_file(path)
    assert np.array_equal(arrays["self.1.entropy"], captured[1].entropy.numpy()) and len(arrays) == 8
    (one,) = only_entropy(captured).save(tmp_path / "y.parquet")
    assert one.name == "y.parquet"
    with pytest.raises(ValueError, match=r"x.csv ends in \.csv"):
        captured.save(tmp_path / "x.csv")
    with pytest.raises(FileNotFoundError):
        captured.save(tmp_path / "nowhere" / "x.safetensors")


def has(library):
    import importlib.util

    return importlib.util.find_spec(library) is not None


def only_entropy(captured):
    for passes in captured.calls.values():
        for one in passes:
            one.readouts._readouts = {"entropy": one.readouts["entropy"]}
    return captured


def test_a_file_that_fails_leaves_nothing(captured, tmp_path, monkeypatch):
    import safetensors.numpy

    def fails(arrays, name, metadata):
        with open(name, "w") as file:
            file.write("half")
        raise OSError("no space left")

    monkeypatch.setattr(safetensors.numpy, "save_file", fails)
    with pytest.raises(OSError, match="no space"):
        captured.save(tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_it_shows_itself(captured):
    shown = repr(captured)
    assert "LlamaForCausalLM: 2 layers" in shown and "entropy" in shown.splitlines()[2]
    frames = captured.to_polars() if has("polars") else {}
    assert all(frame.columns[:3] == ["kind", "layer", "batch"] for frame in frames.values())
