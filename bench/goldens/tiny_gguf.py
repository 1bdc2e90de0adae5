#!/usr/bin/env python3
"""Writes the tiny checkpoints of tiny.py as GGUF files, as llama.cpp's converter would.

    bench/goldens/tiny_gguf.py crates/glasshead/tests/data

Needs gguf, numpy, torch and safetensors. Names of tensors and keys are those of the package gguf. What the converter
does to the numbers: rows of q and k of Llama and Mistral are interleaved per head, GPT-2's matrices transposed, norms
of Gemma have 1 added, the scaling `llama3` becomes a factor per frequency. What a GGUF file cannot say is left out:
the test changes it in the config.json that it compares with.
"""

import json
import math
import pathlib
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from safetensors.torch import load_file

# Folder: architecture of the file.
MODELS = {
    "llama3": gguf.MODEL_ARCH.LLAMA,
    "llama-linear": gguf.MODEL_ARCH.LLAMA,
    "llama-yarn": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "gpt2": gguf.MODEL_ARCH.GPT2,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3": gguf.MODEL_ARCH.GEMMA3,
}


def interleaved(x, heads):
    """Row j of the first half of a head goes to 2j, of the second half to 2j + 1."""
    per_head = x.reshape(heads, x.shape[0] // heads, *x.shape[1:])
    out = np.empty_like(per_head)
    half = per_head.shape[1] // 2
    out[:, 0::2], out[:, 1::2] = per_head[:, :half], per_head[:, half:]
    return out.reshape(x.shape)


def llama3_factors(rope, head_dim):
    """What each frequency is divided by."""
    factors = []
    for i in range(head_dim // 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (2 * i / head_dim)
        turns = rope["original_max_position_embeddings"] / wavelength
        if turns > rope["high_freq_factor"]:
            factors.append(1.0)
        elif turns < rope["low_freq_factor"]:
            factors.append(rope["factor"])
        else:
            smooth = (turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def write_keys(writer, config, rope):
    if config["model_type"] == "gpt2":
        writer.add_block_count(config["n_layer"])
        writer.add_context_length(config["n_positions"])
        writer.add_embedding_length(config["n_embd"])
        writer.add_feed_forward_length(config["n_inner"])
        writer.add_head_count(config["n_head"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        return
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if config.get("head_dim"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    family = config["model_type"]
    if family in ("llama", "mistral"):
        writer.add_rope_dimension_count(head_dim)
        writer.add_vocab_size(config["vocab_size"])
    if family == "phi3":
        writer.add_rope_dimension_count(int(head_dim * config["partial_rotary_factor"]))
        original = config["original_max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(original)
        longer = config["max_position_embeddings"] / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(longer) / math.log(original)))
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
    if family in ("mistral", "phi3", "gemma2", "gemma3_text"):
        writer.add_sliding_window(config["sliding_window"])
    if family == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if family == "gemma3_text":
        writer.add_rope_freq_base_swa(config["rope_local_base_freq"])
        writer.add_sliding_window_pattern(config["sliding_window_pattern"])
        writer.add_final_logit_softcapping(2.0)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])


def write(data, name):
    folder = data / f"tiny-{name}"
    config = json.loads((folder / "config.json").read_text())
    family = config["model_type"]
    arch = MODELS[name]
    rope = {"rope_type": "default", "rope_theta": config.get("rope_theta")}
    rope.update(config.get("rope_scaling") or config.get("rope_parameters") or {})
    layers = config.get("num_hidden_layers") or config["n_layer"]
    names = gguf.get_tensor_name_map(arch, layers)
    path = data / "tiny-gguf" / f"model-{name}.gguf"
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    write_keys(writer, config, rope)

    def add(name, numbers, dtype):
        if numbers.ndim == 1 or dtype == Q.F32:
            writer.add_tensor(name, numbers.astype(np.float32))
        else:
            writer.add_tensor(name, gguf.quants.quantize(numbers.astype(np.float32), dtype), raw_dtype=dtype)

    for tensor, numbers in sorted(load_file(folder / "model.safetensors").items()):
        numbers = numbers.float().numpy()
        if family in ("llama", "mistral") and "q_proj" in tensor:
            numbers = interleaved(numbers, config["num_attention_heads"])
        if family in ("llama", "mistral") and "k_proj" in tensor:
            numbers = interleaved(numbers, config["num_key_value_heads"])
        if family.startswith("gemma") and tensor.endswith("norm.weight"):
            numbers = numbers + np.float32(1)
        if family == "gpt2" and tensor.endswith(".weight") and ".c_" in tensor:
            numbers = np.ascontiguousarray(numbers.T)
        # Norms and biases are f32 in the files, matrices are kept as they are: bf16.
        add(names.get_name(tensor, (".weight", ".bias")), numbers, Q.BF16)
    if rope["rope_type"] == "llama3":
        add("rope_freqs.weight", llama3_factors(rope, config["head_dim"]), Q.F32)
    if rope["rope_type"] == "longrope":
        for kind in ("long", "short"):
            add(f"rope_factors_{kind}.weight", np.array(rope[f"{kind}_factor"], dtype=np.float32), Q.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{path.name}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for model in MODELS:
        write(pathlib.Path(sys.argv[1]), model)
