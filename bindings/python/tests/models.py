"""Tiny models of transformers with random weights, one of each kind of attention."""

from __future__ import annotations

import copy

import torch
import transformers as tf

SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
DECODER = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 256, "head_dim": 8, "pad_token_id": 0}

CONFIGS = {
    "bert": lambda: tf.BertConfig(**SMALL),
    "gpt2": lambda: tf.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2),
    "llama": lambda: tf.LlamaConfig(**DECODER),
    "qwen3": lambda: tf.Qwen3Config(**DECODER),
    "mistral with a window": lambda: tf.MistralConfig(**DECODER, sliding_window=5),
    "gemma2 with a softcap": lambda: tf.Gemma2Config(
        **DECODER, sliding_window=6, attn_logit_softcapping=2.0, query_pre_attn_scalar=8
    ),
    "gpt-oss with sinks": lambda: tf.GptOssConfig(
        **DECODER, sliding_window=6, num_local_experts=2, num_experts_per_tok=1,
        experts_implementation="eager",
    ),
    "t5": lambda: tf.T5Config(
        vocab_size=99, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    ),
    "whisper": lambda: tf.WhisperConfig(
        vocab_size=99, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=8, max_source_positions=30,
        max_target_positions=40, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
    ),
}  # fmt: skip
CLASSES = {"bert": "AutoModelForMaskedLM", "t5": "AutoModelForSeq2SeqLM", "whisper": "WhisperForConditionalGeneration"}
DECODERS = [name for name in CONFIGS if name not in ("bert", "t5", "whisper")]
SEQ2SEQ = ["t5", "whisper"]
# What these cannot do in transformers itself.
NO_SDPA = ["gemma2 with a softcap", "gpt-oss with sinks"]


def make(name: str):
    """The model, with weights large enough that attention is not all even."""
    torch.manual_seed(0)
    config = CONFIGS[name]()
    model = getattr(tf, CLASSES.get(name, "AutoModelForCausalLM"))
    model = (model._from_config if hasattr(model, "_from_config") else model.from_config)(config).eval()
    with torch.no_grad():
        for path, weight in model.named_parameters():
            if weight.dim() > 1 and "embed" not in path:
                weight.mul_(4)
            if path.endswith("sinks"):
                weight.normal_()
    return model


def with_attention(model, attention: str, dtype=torch.float32):
    """A copy that attends so."""
    other = copy.deepcopy(model).to(dtype)
    for part in other.modules():
        # Before 5.24 it did not reach the parts of a T5.
        if hasattr(part, "set_attn_implementation"):
            part.set_attn_implementation(attention)
    return other


def inputs_of(name: str, batch=2, tokens=20, seed=1):
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 99, (batch, tokens), generator=random)
    if name == "t5":
        return {"input_ids": ids, "decoder_input_ids": ids[:, :7].flip(1)}
    if name == "whisper":
        return {"input_features": torch.randn(batch, 8, 60, generator=random), "decoder_input_ids": ids[:, :7]}
    return {"input_ids": ids}


def exact(module, query, key, value, mask, scaling=None, softcap=None, s_aux=None, position_bias=None, **_):
    """Attention in float64, every step and the whole matrix: eager itself rounds its weights to float32."""
    q, k, v = query.double(), key.double(), value.double()
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if position_bias is not None:
        scores = scores + position_bias.double()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.double()
    elif getattr(module, "is_causal", False) and q.shape[2] > 1:
        scores = scores.masked_fill(~torch.ones(scores.shape[2:], dtype=torch.bool).tril(), -torch.inf)
    if s_aux is not None:
        sinks = s_aux.double().reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = scores.softmax(-1).nan_to_num(0)[..., : k.shape[2]]
    return (weights @ v).to(query.dtype).transpose(1, 2).contiguous(), weights


def exact_mask(**options):
    """All of it, written out."""
    options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return tf.masking_utils.sdpa_mask(**options)


tf.AttentionInterface.register("exact", exact)
tf.AttentionMaskInterface.register("exact", exact_mask)
