#!/usr/bin/env python3
"""Makes tiny checkpoints with random weights, and what transformers (eager, f32) computes with them.

    bench/goldens/tiny.py crates/glasshead/tests/data [NAME…]

Needs torch and transformers 5. One folder `tiny-NAME` for each: config.json, model.safetensors (bf16: exactly the
numbers that were used), ids.json, golden.safetensors with

    expect_attention          [layers, heads, tokens, tokens]
    expect_last_hidden_state  [tokens, hidden]
    expect_logits             [vocabulary], of the last token
    expect_written            [8], how the text goes on greedily
    noise                     [3], how far attention, hidden and logits in f32 are from those in f64, at most

Seeded: a second run writes the same.
"""

import json
import pathlib
import shutil
import sys

import torch
import transformers
from safetensors.torch import save_file

TOKENS = 26
WRITTEN = 8
VOCABULARY = 61

# Shared by most: 4 heads over 2 key heads, head_dim · heads ≠ hidden where it is said.
SIZES = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=44, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None,
)  # fmt: skip


def old_rope(config):
    """As configs spelled it before transformers 5."""
    settings = config.pop("rope_parameters")
    config["rope_theta"] = settings.pop("rope_theta")
    if "partial_rotary_factor" in settings:
        config["partial_rotary_factor"] = settings.pop("partial_rotary_factor")
    config["rope_scaling"] = None if settings["rope_type"] == "default" else settings


def old_gemma3(config):
    """As Gemma 3 was published: two bases beside each other, a pattern instead of a kind per layer."""
    settings = config.pop("rope_parameters")
    config["rope_theta"] = settings["full_attention"].pop("rope_theta")
    config["rope_local_base_freq"] = settings["sliding_attention"]["rope_theta"]
    config["rope_scaling"] = settings["full_attention"]
    config.pop("layer_types")
    config["sliding_window_pattern"] = 3


def without_kinds(config):
    """As older Qwen2 configs: the windows follow from max_window_layers."""
    config.pop("layer_types")


MODELS = {
    "llama3": ("Llama", dict(
        SIZES, head_dim=10, tie_word_embeddings=False,
        rope_parameters=dict(rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0,
                             high_freq_factor=3.0, original_max_position_embeddings=12),
    ), old_rope),
    "llama-linear": ("Llama", dict(
        SIZES, num_key_value_heads=1, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=2.5),
    ), None),
    "llama-yarn": ("Llama", dict(
        SIZES, head_dim=16, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="yarn", rope_theta=100.0, factor=4.0, beta_fast=4.0, beta_slow=0.5,
                             original_max_position_embeddings=16),
    ), None),
    "mistral": ("Mistral", dict(
        SIZES, sliding_window=7, rope_parameters=dict(rope_type="default", rope_theta=10000.0),
    ), old_rope),
    "qwen2": ("Qwen2", dict(
        SIZES, use_sliding_window=True, sliding_window=9, max_window_layers=1, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="default", rope_theta=100000.0),
    ), without_kinds),
    "qwen3": ("Qwen3", dict(
        SIZES, head_dim=12, tie_word_embeddings=False,
        rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
    ), None),
    "phi3": ("Phi3", dict(
        SIZES, sliding_window=20, original_max_position_embeddings=18, tie_word_embeddings=False,
        rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.5,
                             short_factor=[1.0, 1.1], long_factor=[1.3, 3.0]),
    ), old_rope),
    "gpt2": ("GPT2", dict(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_inner=44, n_positions=40, bos_token_id=1,
        eos_token_id=2, scale_attn_by_inverse_layer_idx=True,
    ), None),
    "gemma2": ("Gemma2", dict(
        SIZES, head_dim=8, query_pre_attn_scalar=11, sliding_window=6, attn_logit_softcapping=2.0,
        final_logit_softcapping=1.5, rope_parameters=dict(rope_type="default", rope_theta=10000.0),
    ), old_rope),
    "gemma3": ("Gemma3", dict(
        SIZES, num_hidden_layers=3, head_dim=8, query_pre_attn_scalar=10, sliding_window=6,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        rope_parameters=dict(full_attention=dict(rope_type="linear", factor=2.0, rope_theta=1000.0),
                             sliding_attention=dict(rope_type="default", rope_theta=100.0)),
    ), old_gemma3),
    "gemma3-new": ("Gemma3", dict(
        SIZES, head_dim=8, query_pre_attn_scalar=10, sliding_window=6, final_logit_softcapping=2.0,
        layer_types=["full_attention", "sliding_attention"],
        rope_parameters=dict(full_attention=dict(rope_type="linear", factor=2.0, rope_theta=1000.0),
                             sliding_attention=dict(rope_type="default", rope_theta=100.0)),
    ), None),
}  # fmt: skip


def classes(family):
    config = "Gemma3TextConfig" if family == "Gemma3" else family + "Config"
    model = {"GPT2": "GPT2LMHeadModel"}.get(family, family + "ForCausalLM")
    return getattr(transformers, config), getattr(transformers, model)


def randomise(model, seed):
    """Weights with which attention is neither even nor all on one key, biases and norms that matter; all bf16."""
    numbers = torch.Generator().manual_seed(seed)
    around_one = 0.0 if "Gemma" in type(model).__name__ else 1.0
    for name, weight in model.named_parameters():
        x = torch.randn(weight.shape, generator=numbers)
        if weight.ndim == 1:
            x = 0.2 * x + (0.0 if name.endswith("bias") else around_one)
        elif any(part in name for part in ("embed", "wte", "wpe")):
            x = 0.6 * x
        else:
            inputs = weight.shape[0] if ".c_" in name else weight.shape[1]
            x = 1.6 * x / inputs**0.5
        weight.data.copy_(x.bfloat16().float())


def make(folder, name, seed):
    family, sizes, respell = MODELS[name]
    config_class, model_class = classes(family)
    model = model_class(config_class(**sizes, attn_implementation="eager")).eval()
    with torch.no_grad():
        randomise(model, seed)
    model.tie_weights()
    shutil.rmtree(folder, ignore_errors=True)
    model.bfloat16().save_pretrained(folder)
    for file in folder.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    config = json.loads((folder / "config.json").read_text())
    if respell:
        respell(config)
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")

    # What was written is what counts.
    model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.randint(3, VOCABULARY, (1, TOKENS), generator=torch.Generator().manual_seed(seed))
    ids[0, TOKENS // 2] = ids[0, 1]
    with torch.no_grad():
        base = model.base_model(ids, output_attentions=True, use_cache=False)
        logits = model(ids, use_cache=False).logits[0, -1]
        written = ids
        for _ in range(WRITTEN):
            # Without a cache: one full pass for each token.
            last = model(written, use_cache=False).logits[:, -1:].argmax(-1)
            written = torch.cat([written, last], 1)
        attention = torch.stack([layer[0] for layer in base.attentions])
        model.double()
        wide = model.base_model(ids, output_attentions=True, use_cache=False)
        wide_attention = torch.stack([layer[0] for layer in wide.attentions])
        wide_logits = model(ids, use_cache=False).logits[0, -1]
    pairs = [(attention, wide_attention), (base.last_hidden_state, wide.last_hidden_state), (logits, wide_logits)]
    noise = torch.stack([(narrow - wide).abs().max() for narrow, wide in pairs]).float()
    save_file(
        {
            "expect_attention": attention.contiguous(),
            "expect_last_hidden_state": base.last_hidden_state[0].contiguous(),
            "expect_logits": logits.contiguous(),
            "expect_written": written[0, TOKENS:].contiguous(),
            "noise": noise,
        },
        folder / "golden.safetensors",
    )
    (folder / "ids.json").write_text(json.dumps(ids[0].tolist()) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir()) // 1024
    print(f"{name}: {tuple(attention.shape)}, largest weight {attention.max():.2f}, "
          f"hidden std {base.last_hidden_state.std():.2f}, noise {noise.tolist()}, {size} KiB")  # fmt: skip


def main(folder, *names):
    torch.set_num_threads(1)
    for seed, name in enumerate(MODELS):
        if not names or name in names:
            make(pathlib.Path(folder) / f"tiny-{name}", name, seed)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
