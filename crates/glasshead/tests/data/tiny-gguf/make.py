#!/usr/bin/env python3
"""Makes the files of this folder. Needs gguf, numpy, safetensors, sentencepiece, tokenizers and transformers;
with the path of SmolLM2-135M-Instruct.Q4_1.gguf as an argument, its goldens too.

Everything is made from the texts and seeds below; nothing is copied from a model or another project."""

import hashlib
import io
import json
import os
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))

TEXTS = [
    "The animal didn't cross the street because it was too tired.",
    "",
    " ",
    "  two blanks in front, three   inside, one behind ",
    "Zürich, Ænima, naïve café — “quotes” … ¿qué? Å é",
    "東京は大きい。 Привет, мир! مرحبا 안녕하세요",
    "🦀🦀 crab, 👩‍👩‍👧 family, 🇨🇭 flag, e\u0301 composed of two",
    "0 12 345 6789 1234567 3.14159 ½ ² ٣ 1e-5",
    "def f(x):\n    return {'a': x ** 2, \"b\": [i for i in range(10)]}\n\n\n# end\t\ttabs",
    "Line one\nLine two\r\nLine three\n\n\n\nLine four\n",
    "I'm you're we'll they've he'd 'S 'T IT'S DON'T x's",
    "snake_case camelCase UPPER lower MiXeD http://example.org/a?b=c&d=%20 <b>bold</b>",
    "<|im_start|>user\nhello<|im_end|>\n<|endoftext|> and <s> or </s> or [SEP] or <unk>",
    "a\u0000b\u200bc\ufeffd\u00a0e\u3000f",
    "word" * 40,
    "\n",
    "▁ is a block, Ġ a letter",
]


def quants():
    """A row of one block and a row of two of every stored type, and what gguf's own decoder makes of them."""
    rng = np.random.default_rng(7)
    types = [Q.F32, Q.F16, Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K]
    # Where the f16 scales lie in a block: everything else may be any byte.
    scales = {Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.Q2_K: [80, 82], Q.Q3_K: [108],
              Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208]}
    writer = gguf.GGUFWriter(f"{HERE}/quants.gguf", "test")
    expected = {}
    for kind in types:
        name = kind.name.lower()
        block, size = gguf.GGML_QUANT_SIZES[kind]
        if kind in scales:
            rows = rng.integers(0, 256, size=(3, 256 // block, size), dtype=np.uint8)
            for at in scales[kind]:
                scale = rng.uniform(-2, 2, size=(3, 256 // block, 1)).astype(np.float16)
                rows[..., at:at + 2] = scale.view(np.uint8)
            rows = rows.reshape(3, -1)
            numbers = gguf.quants.dequantize(rows, kind)
            writer.add_tensor(name, rows, raw_dtype=kind)
        else:
            numbers = rng.standard_normal((3, 256)).astype(np.float32)
            if kind == Q.F16:
                stored = numbers.astype(np.float16)
                numbers = stored.astype(np.float32)
            elif kind == Q.BF16:
                stored = (numbers.view(np.uint32) >> 16).astype(np.uint16)
                numbers = (stored.astype(np.uint32) << 16).view(np.float32)
                stored = stored.view(np.uint8)
            else:
                stored = numbers
            writer.add_tensor(name, stored, raw_dtype=kind)
        expected[name] = np.ascontiguousarray(numbers, dtype=np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, f"{HERE}/quants.safetensors")


def fuzz_seed():
    """A Llama of one layer, sound as far as the names of its tensors: a start for the fuzzer."""
    writer = gguf.GGUFWriter(f"{HERE}/../../../../../fuzz/seeds/gguf/llama.gguf", "llama")
    writer.add_block_count(1)
    writer.add_context_length(16)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    for name, shape in [("token_embd.weight", (2, 8)), ("output_norm.weight", (8,)), ("blk.0.attn_q.weight", (8, 8)),
                        ("rope_freqs.weight", (2,))]:
        writer.add_tensor(name, np.full(shape, 0.5, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokenizer_file(name, add):
    """A GGUF file with a tokenizer and no tensor."""
    writer = gguf.GGUFWriter(f"{HERE}/{name}.gguf", "llama")
    add(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def corpus():
    return TEXTS * 4


def sentencepiece():
    import sentencepiece as spm

    ids = {}
    for name, prefix in [("spm", True), ("spm-no-prefix", False)]:
        out = io.BytesIO()
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter([t for t in corpus() if t.strip() and "\u0000" not in t]), model_writer=out, vocab_size=520,
            model_type="bpe", byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=prefix,
            remove_extra_whitespaces=False, character_coverage=0.98, allow_whitespace_only_pieces=True,
            hard_vocab_limit=False, minloglevel=2, num_threads=1)
        model = spm.SentencePieceProcessor(model_proto=out.getvalue())
        kinds = lambda i: (2 if model.IsUnknown(i) else 3 if model.IsControl(i) else 6 if model.IsByte(i) else 1)

        def add(writer):
            n = model.vocab_size()
            writer.add_tokenizer_model("llama")
            writer.add_tokenizer_pre("default")
            writer.add_token_list([model.IdToPiece(i).encode() for i in range(n)])
            writer.add_token_scores([model.GetScore(i) for i in range(n)])
            writer.add_token_types([kinds(i) for i in range(n)])
            writer.add_bos_token_id(model.bos_id())
            writer.add_eos_token_id(model.eos_id())
            writer.add_unk_token_id(model.unk_id())
            writer.add_add_bos_token(True)
            writer.add_add_eos_token(False)
            writer.add_add_space_prefix(prefix)

        tokenizer_file(name, add)
        # The library does not look for special tokens in a text; ours does, as programs that run models do.
        ids[name] = [[t, [model.bos_id()] + model.EncodeAsIds(t)] for t in TEXTS if "<s>" not in t]
    return ids


def byte_level():
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    qwen2 = llama3.replace("{1,3}", "")
    bytes_ = lambda regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    split = lambda regex: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), bytes_(False)])
    cuts = {
        "gpt-2": bytes_(True),
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_(True)]),
        "llama-bpe": split(llama3),
        "qwen2": split(qwen2),
    }
    ids = {}
    for pre, cut in cuts.items():
        own = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
        own.pre_tokenizer = cut
        if pre == "qwen2":
            own.normalizer = normalizers.NFC()
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        own.train_from_iterator(corpus(), trainers.BpeTrainer(
            vocab_size=420, special_tokens=special, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
        model = json.loads(own.to_str())["model"]
        vocabulary = sorted(model["vocab"], key=model["vocab"].get)

        def add(writer):
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre(pre)
            writer.add_token_list([t.encode() for t in vocabulary])
            writer.add_token_types([3 if t in special else 1 for t in vocabulary])
            writer.add_token_merges([" ".join(m) for m in model["merges"]])
            writer.add_eos_token_id(0)
            writer.add_add_bos_token(False)

        tokenizer_file(f"bpe-{pre}", add)
        ids[f"bpe-{pre}"] = [[t, own.encode(t).ids] for t in TEXTS]
    return ids


def word_piece():
    from tokenizers import BertWordPieceTokenizer

    ids = {}
    for name, lower in [("wordpiece", True), ("wordpiece-cased", False)]:
        own = BertWordPieceTokenizer(lowercase=lower)
        own.train_from_iterator(corpus(), vocab_size=400, show_progress=False)
        vocab = own.get_vocab()
        vocabulary = sorted(vocab, key=vocab.get)
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        spelled = [t if t in special else t[2:] if t.startswith("##") else "▁" + t for t in vocabulary]

        def add(writer):
            writer.add_tokenizer_model("bert")
            writer.add_tokenizer_pre("default")
            writer.add_token_list([t.encode() for t in spelled])
            writer.add_token_types([3 if t in special else 1 for t in vocabulary])
            writer.add_token_type_count(2)
            writer.add_bos_token_id(vocab["[CLS]"])
            writer.add_uint32("tokenizer.ggml.cls_token_id", vocab["[CLS]"])
            writer.add_sep_token_id(vocab["[SEP]"])
            writer.add_unk_token_id(vocab["[UNK]"])

        tokenizer_file(name, add)
        saved = json.loads(own.to_str())
        ids[name] = [[t, [vocab["[CLS]"]] + [i for i in own.encode(t, add_special_tokens=False).ids] + [vocab["[SEP]"]]]
                     for t in TEXTS if "[SEP]" not in t]
        assert saved["normalizer"]["lowercase"] == lower
    return ids


def smollm2(path):
    """Ids, a conversation, and a hash of every tensor as transformers dequantises them."""
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, name = os.path.split(path)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    # transformers does not look at `tokenizer.ggml.pre`; this is what "smollm" stands for in the model's own
    # tokenizer.json. It makes a difference for ½ and ² only.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    talk = [{"role": "user", "content": "What is attention?"}]
    longer = [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hi\n"},
              {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Zürich?"}]
    chats = [[turns, answer, tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer)]
             for turns in (talk, longer) for answer in (True, False)]
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype="float32")
    state = {k: v.contiguous().numpy() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    hashes = {k: [list(state[k].shape), hashlib.sha256(state[k].tobytes()).hexdigest()[:16]] for k in sorted(state)}
    return {"ids": [[t, tokenizer.encode(t, add_special_tokens=True)] for t in TEXTS], "chats": chats, "tensors": hashes}


def write(name, value):
    with open(f"{HERE}/{name}", "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")


quants()
fuzz_seed()
write("ids.json", {**sentencepiece(), **byte_level(), **word_piece()})
if len(sys.argv) > 1:
    write("smollm2.json", smollm2(sys.argv[1]))
