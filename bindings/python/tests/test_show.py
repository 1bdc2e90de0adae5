"""``seen.page``, ``show`` and ``save``: what a model looked at, as the page of ``glasshead scan``."""

from __future__ import annotations

import sys
import threading
import types
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
tf = pytest.importorskip("transformers")

import models  # noqa: E402
from pages import EVERY, data_of, floats, framed, names_of, packed  # noqa: E402

import glasshead  # noqa: E402
from glasshead._page import NoPage  # noqa: E402
from glasshead._tokens import spelled  # noqa: E402


def capture(name="llama", read=EVERY, run=None, **options):
    model = models.make(name)
    with glasshead.capture(model, read, **options) as seen, torch.no_grad():
        run(model) if run else model(**models.inputs_of(name))
    return model, seen


def test_the_numbers_of_a_page_are_those_captured():
    _, seen = capture()
    page = seen.page(text=1)
    data = data_of(page)
    assert names_of(data) == [f"#{one}" for one in models.inputs_of("llama")["input_ids"][1].tolist()]
    assert (data["layers"], data["heads"], data["missing"]) == ([0, 1], [0, 1, 2, 3], [])
    arrays = {name: np.stack([seen[layer].to_numpy()[name][1] for layer in seen]) for name in seen[0]}
    rows, every = data["groups"]
    assert rows["queries"] == [19, 0] and every["queries"] is None
    same = lambda text, expected: np.testing.assert_allclose(floats(text), np.ravel(expected), rtol=1e-6)  # noqa: E731
    for group, queries in ((rows, [19, 0]), (every, range(20))):
        numbers = dict(group["numbers"])
        for name in ("entropy", "max_weight", "distance", "lse", "previous", "self"):
            same(numbers[name], arrays[name][..., queries].mean(-1))
        same(group["first"], arrays["first"][..., queries].mean(-1))
    same(rows["tokens"], arrays["rows"].mean((0, 1, 2)))
    same(every["tokens"], arrays["received"].mean((0, 1)) / 20)
    words = packed(page, "segments").view("<u2").reshape(2, 2, 4, 2) / 65535
    for group, queries in enumerate(([19, 0], range(20))):
        np.testing.assert_allclose(words[group], arrays["segments"][:, :, queries].mean(2), atol=1e-5)
    for layer in range(2):
        of_rows, received = packed(page, f"layer-{layer}").reshape(2, 4, 20)
        for found, expected in ((of_rows, arrays["rows"][layer].mean(1)), (received, arrays["received"][layer] / 20)):
            shares = np.where(found == 0, 0, 10 ** ((found - 31.0) * 5 / 30))
            np.testing.assert_allclose(shares, expected, rtol=0.22, atol=1e-5)
        for head in range(4):
            found = packed(page, f"head-{layer}-{head}")
            squares = np.cumsum(found[:100].reshape(10, 10), axis=0, dtype=np.uint8) / 40
            np.testing.assert_allclose(squares, np.sqrt(arrays["blocks"][layer, head] / 2), atol=0.5 / 40 + 1e-6)
            low, high, weights = found[100:].reshape(3, 20, 3)
            index = (low + 256 * high.astype(np.int64)).astype(np.int16)
            assert (index == arrays["top_index"][layer, head]).all()
            np.testing.assert_allclose(weights / 255, np.sqrt(arrays["top_weight"][layer, head]), atol=0.5 / 255 + 1e-6)


def test_chosen_layers_and_heads():
    _, seen = capture(layers=[-1], heads=[-1, 1])
    data = data_of(seen.page())
    recipe = dict(data["recipe"])
    assert (data["layers"], data["heads"]) == ([1], [3, 1]) and recipe["heads"] == "3, 1 (of 0–3)"
    assert recipe["model"] == "LlamaForCausalLM (llama)" and recipe["layers"] == "1 (of 0–1)"
    assert recipe["call"] == "glasshead.capture, text 0 of 2" and repr(EVERY) in recipe["quantity"]
    with pytest.raises(IndexError, match="text is 2 and there are 2"):
        seen.page(text=2)


def words(pad="<pad>"):
    """A tokenizer of 99 words, the first three of them special."""
    import tokenizers

    names = [pad, "<s>", "</s>", *(f"w{n}" for n in range(3, 99))]
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({name: n for n, name in enumerate(names)}, unk_token=pad))
    made.decoder = tokenizers.decoders.WordPiece("##")
    return tf.PreTrainedTokenizerFast(tokenizer_object=made, pad_token=pad, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_an_answer_joins_its_prompt(cache):
    ids = torch.tensor([[1, 7, 8, 9, 10, 7, 8]])
    read = replace(EVERY, rows=[-1])
    if cache == "static":
        read = replace(read, segments=None)
    written = []
    run = lambda model: written.append(  # noqa: E731
        model.generate(ids, max_new_tokens=5, min_new_tokens=5, do_sample=False, cache_implementation=cache)
    )
    _, seen = capture(read=read, run=run)
    data = data_of(seen.page(words()))
    # The last word is written and never read.
    text = written[0][0].tolist()[:-1]
    assert names_of(data)[1:7] == ["w7", " w8", " w9", " w10", " w7", " w8"]
    assert data["text"].startswith("w7 w8 w9 w10 w7 w8 ") and len(data["tokens"]["start"]) == len(text) == 11
    assert data["tokens"]["role"] == ["special"] + ["text"] * 6 + ["answer"] * 4
    names = {group["name"]: group["queries"] for group in data["groups"]}
    assert names["the answer"] == [7, 8, 9, 10] and names["5 chosen tokens"] == [6, 7, 8, 9, 10]
    assert data["map"] == {"side": 6, "block": 2}
    (answer,) = (group for group in data["groups"] if group["name"] == "the answer")
    np.testing.assert_allclose(
        floats(answer["tokens"]),
        np.mean([seen[layer].to_numpy()["rows"][0, :, 1:, :11].mean((0, 1)) for layer in seen], axis=0),
        rtol=1e-5,
    )


def test_tokens_that_hold_parts_of_a_letter():
    import tokenizers

    # A word of the vocabulary for every byte.
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=made)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    (turn,) = tokenizer.convert_tokens_to_ids(["<|turn|>"])
    text = "a bé🦀c"
    ids = [turn, *tokenizer(text, add_special_tokens=False).input_ids]
    spelled_text, tokens = spelled(ids, 9, tokenizer)
    assert spelled_text == text
    assert tokens[:4] == [("<|turn|>", 0, 0, "special"), ("a", 0, 1, "text"), (" ", 1, 2, "text"), ("b", 2, 3, "text")]
    assert [token[1:3] for token in tokens[4:]] == [(3, 5)] * 2 + [(5, 9)] * 4 + [(9, 10)]
    assert [token[3] for token in tokens[8:]] == ["text", "answer", "answer"]
    # A letter that was not finished is a sign for a broken one; a turn in it is a turn.
    broken, tokens = spelled([*ids[:5], turn, ids[1]], 99, tokenizer)
    assert broken == "a b\ufffda" and [token[0] for token in tokens] == [
        "<|turn|>",
        "a",
        " ",
        "b",
        "\ufffd",
        "<|turn|>",
        "a",
    ]


def test_texts_with_padding():
    ids = torch.tensor([[0, 0, 0, 1, 20, 21], [1, 30, 31, 32, 33, 34]])
    _, seen = capture(run=lambda model: model(input_ids=ids, attention_mask=(ids != 0).long()))
    data = data_of(seen.page(words()))
    assert names_of(data) == ["<pad>"] * 3 + ["<s>", "w20", " w21"] and data["text"] == "w20 w21"
    assert data_of(seen.page(words(), text=-1))["text"] == "w30 w31 w32 w33 w34"


def test_what_was_given_as_vectors_is_numbered():
    def run(model):
        model(inputs_embeds=torch.randn(1, 6, 32))

    _, seen = capture(run=run)
    assert names_of(data_of(seen.page())) == list("012345")
    with pytest.raises(ValueError, match="given vectors\nhint: "):
        seen.page(words())


def test_ids_by_place_and_through_a_part_of_the_model():
    ids = models.inputs_of("llama")["input_ids"]
    for run in (lambda model: model(ids), lambda model: model.model(ids), lambda model: model.model(input_ids=ids)):
        _, seen = capture(run=run)
        assert names_of(data_of(seen.page()))[:2] == [f"#{one}" for one in ids[0, :2].tolist()]


def test_the_model_has_no_hooks_afterwards():
    model = models.make("bert")

    def hooks():
        return [one for part in model.modules() for one in (*part._forward_pre_hooks, *part._forward_hooks)]

    capturing = glasshead.capture(model, "entropy")
    assert hooks() == []
    with capturing as seen, torch.no_grad():
        assert hooks() != []
        with pytest.raises(IndexError):
            model(input_ids=torch.tensor([[500]]))
        assert capturing.ids.running == [], "a call that fails has ended too"
        model(**models.inputs_of("bert"))
    assert hooks() == []
    assert names_of(data_of(seen.page())) == [f"#{one}" for one in models.inputs_of("bert")["input_ids"][0].tolist()]


@pytest.mark.parametrize("name", ["t5", "whisper"])
def test_a_stack_is_chosen(name):
    inputs = models.inputs_of(name)
    _, seen = capture(name, "entropy,top=2,received")
    assert "several kinds" in seen._repr_html_() and "kind=" in seen._repr_html_()
    data = data_of(seen.page(kind="decoder"))
    assert names_of(data) == [f"#{one}" for one in inputs["decoder_input_ids"][0].tolist()]
    assert "of kind 'decoder'" in dict(data["recipe"])["call"]
    names = names_of(data_of(seen.page(kind="encoder")))
    assert names == (
        [f"#{one}" for one in inputs["input_ids"][0].tolist()] if name == "t5" else [str(n) for n in range(30)]
    )
    with pytest.raises(NoPage, match="keys of another"):
        seen.page(kind="cross")
    with pytest.raises(ValueError, match="kind is 'self'\nhint: there are 'encoder'"):
        seen.page(kind="self")


def no_page(seen, match):
    """It says why in one line, and shows a plain table."""
    with pytest.raises(NoPage, match=match):
        seen.page()
    shown = seen._repr_html_()
    assert "<iframe" not in shown and "No page: " in shown and shown.count("<p>") == 2
    return shown


def test_what_is_no_page():
    inputs = models.inputs_of("llama")
    _, seen = capture(run=lambda model: (model(**inputs), model(**inputs)))
    shown = no_page(seen, "called 2 times")
    assert "<th style='text-align:left'>entropy</th>" in shown and "<td style='text-align:left'>1</td>" in shown
    assert "entropy" in repr(seen)
    _, seen = capture(read="entropy", run=lambda model: model.generate(**inputs, num_beams=3, max_new_tokens=6))
    no_page(seen, "changed places|different sizes")
    _, seen = capture(run=lambda model: None)
    no_page(seen, "no attention was seen")

    model = models.make("llama")
    with torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
        with glasshead.capture(model, EVERY) as seen:
            model.model(**inputs, past_key_values=cache, use_cache=True)
    no_page(seen, "20 queries look at 40 keys")


def test_several_answers_are_no_beam_search():
    inputs = models.inputs_of("llama")
    run = lambda model: model.generate(**inputs, num_return_sequences=2, do_sample=True, max_new_tokens=6)  # noqa: E731
    _, seen = capture(read="entropy,received", run=run)
    assert len(data_of(seen.page(text=3))["tokens"]["start"]) == 25


def test_it_shows_itself(capsys, monkeypatch, tmp_path):
    _, seen = capture()
    data = data_of(framed(seen._repr_html_()))
    assert data == data_of(seen.page()) and "Text 0 of 2; seen.show(text=1)" in seen._repr_html_()
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    seen.show()
    assert "LlamaForCausalLM" in capsys.readouterr().out
    shown = []
    notebook = types.ModuleType("IPython.display")
    notebook.display = lambda bundle, raw: shown.append(bundle)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    seen.show(words(), text=1)
    assert data_of(framed(shown[0]["text/html"]))["text"].startswith("w") and shown[0]["text/plain"] == repr(seen)
    (path,) = seen.save(tmp_path / "x.html", words())
    assert path.read_text(encoding="utf-8") == seen.page(words()) and list(tmp_path.iterdir()) == [path]
    with pytest.raises(TypeError, match="tokenizer is str\nhint: "):
        seen.save(tmp_path / "y.html", "gpt2")
    assert list(tmp_path.iterdir()) == [path]


def test_pages_in_threads():
    both = [models.make("llama"), models.make("gpt2")]
    found = {}

    def work(at):
        ids = models.inputs_of("llama", seed=at)["input_ids"]
        for _ in range(3):
            with glasshead.capture(both[at], "entropy,received") as seen, torch.no_grad():
                both[at](input_ids=ids)
            found.setdefault(at, []).append(names_of(data_of(seen.page())) == [f"#{one}" for one in ids[0].tolist()])

    threads = [threading.Thread(target=work, args=(at,)) for at in range(2)]
    [thread.start() for thread in threads]
    [thread.join(120) for thread in threads]
    assert found == {0: [True] * 3, 1: [True] * 3}
