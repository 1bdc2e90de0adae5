//! The architectures of GGUF files: how the keys and tensors of each are called by its authors.
//!
//! The names are those that the converter of llama.cpp gives; the forms are what it does to the numbers.

use serde_json::{Map, Value, json};

use super::gguf::Facts;
use crate::Result;

/// One value of `general.architecture`.
pub(super) struct Architecture {
    pub(super) name: &'static str,
    /// The keys of the family's `config.json`.
    pub(super) config: fn(&mut Facts<'_>) -> Result<Map<String, Value>>,
    /// Tensors outside the layers: theirs, ours.
    top: &'static [(&'static str, &'static str, Form)],
    /// What stands before the number of a layer.
    layer: &'static str,
    /// Tensors of a layer: theirs, ours.
    inside: &'static [(&'static str, &'static str, Form)],
    /// Beginnings of tensors that are read otherwise, or that belong to a head the forward does not have.
    pub(super) beside: &'static [&'static str],
}

/// What the converter does to a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Same,
    /// Rows of the query heads are interleaved.
    Query,
    /// Rows of the key heads are interleaved.
    Key,
    /// Norm weights have 1 added.
    Shifted,
    /// Matrices are transposed, biases are not.
    Transposed,
}
use Form::{Key, Query, Same, Shifted, Transposed};

impl Architecture {
    /// Our name for a tensor of the file, and its form.
    pub(super) fn translate(&self, name: &str, layers: usize) -> Option<(String, Form)> {
        let (stem, suffix) = name.rsplit_once('.')?;
        if suffix != "weight" && suffix != "bias" {
            return None;
        }
        let find = |list: &'static [(&str, &'static str, Form)], stem: &str| {
            list.iter().find(|(theirs, ..)| *theirs == stem).map(|&(_, ours, form)| (ours, form))
        };
        let Some(inside) = stem.strip_prefix("blk.") else {
            let (ours, form) = find(self.top, stem)?;
            return Some((format!("{ours}.{suffix}"), form));
        };
        let (number, stem) = inside.split_once('.')?;
        let layer: usize = number.parse().ok().filter(|&layer| layer < layers)?;
        // `blk.007` and `blk.+7` are no other names of `blk.7`.
        let (ours, form) = find(self.inside, stem).filter(|_| layer.to_string() == number)?;
        Some((format!("{}.{layer}.{ours}.{suffix}", self.layer), form))
    }
}

/// Every architecture that is read. Mistral is "llama" here, as in the files.
pub(super) const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "llama",
        config: llama,
        top: DECODER,
        layer: "model.layers",
        inside: &[
            ("attn_norm", "input_layernorm", Same),
            ("attn_q", "self_attn.q_proj", Query),
            ("attn_k", "self_attn.k_proj", Key),
            ("attn_v", "self_attn.v_proj", Same),
            ("attn_output", "self_attn.o_proj", Same),
            ("ffn_norm", "post_attention_layernorm", Same),
            ("ffn_gate", "mlp.gate_proj", Same),
            ("ffn_up", "mlp.up_proj", Same),
            ("ffn_down", "mlp.down_proj", Same),
        ],
        beside: &["rope_freqs."],
    },
    Architecture {
        name: "qwen2",
        config: qwen2,
        top: DECODER,
        layer: "model.layers",
        inside: BY_HALVES,
        beside: &[],
    },
    Architecture {
        name: "qwen3",
        config: qwen3,
        top: DECODER,
        layer: "model.layers",
        inside: BY_HALVES,
        beside: &[],
    },
    Architecture {
        name: "phi3",
        config: phi3,
        top: DECODER,
        layer: "model.layers",
        inside: &[
            ("attn_norm", "input_layernorm", Same),
            ("attn_qkv", "self_attn.qkv_proj", Same),
            ("attn_output", "self_attn.o_proj", Same),
            ("ffn_norm", "post_attention_layernorm", Same),
            ("ffn_up", "mlp.gate_up_proj", Same),
            ("ffn_down", "mlp.down_proj", Same),
        ],
        beside: &["rope_factors_long.", "rope_factors_short."],
    },
    Architecture {
        name: "gemma2",
        config: gemma2,
        top: GEMMA,
        layer: "model.layers",
        inside: GEMMA_LAYER,
        beside: &[],
    },
    Architecture {
        name: "gemma3",
        config: gemma3,
        top: GEMMA,
        layer: "model.layers",
        inside: GEMMA_LAYER,
        beside: &[],
    },
    Architecture {
        name: "gpt2",
        config: gpt2,
        top: &[
            ("token_embd", "transformer.wte", Same),
            ("position_embd", "transformer.wpe", Same),
            ("output_norm", "transformer.ln_f", Same),
            ("output", "lm_head", Same),
        ],
        layer: "transformer.h",
        inside: &[
            ("attn_norm", "ln_1", Same),
            ("attn_qkv", "attn.c_attn", Transposed),
            ("attn_output", "attn.c_proj", Transposed),
            ("ffn_norm", "ln_2", Same),
            ("ffn_up", "mlp.c_fc", Transposed),
            ("ffn_down", "mlp.c_proj", Transposed),
        ],
        beside: &[],
    },
    Architecture {
        name: "bert",
        config: bert,
        top: &[
            ("token_embd", "bert.embeddings.word_embeddings", Same),
            ("token_types", "bert.embeddings.token_type_embeddings", Same),
            ("position_embd", "bert.embeddings.position_embeddings", Same),
            ("token_embd_norm", "bert.embeddings.LayerNorm", Same),
        ],
        layer: "bert.encoder.layer",
        inside: &[
            ("attn_q", "attention.self.query", Same),
            ("attn_k", "attention.self.key", Same),
            ("attn_v", "attention.self.value", Same),
            ("attn_output", "attention.output.dense", Same),
            ("attn_output_norm", "attention.output.LayerNorm", Same),
            ("ffn_up", "intermediate.dense", Same),
            ("ffn_down", "output.dense", Same),
            ("layer_output_norm", "output.LayerNorm", Same),
        ],
        beside: &["cls.", "pooler."],
    },
];

const DECODER: &[(&str, &str, Form)] = &[
    ("token_embd", "model.embed_tokens", Same),
    ("output_norm", "model.norm", Same),
    ("output", "lm_head", Same),
];

const GEMMA: &[(&str, &str, Form)] = &[
    ("token_embd", "model.embed_tokens", Same),
    ("output_norm", "model.norm", Shifted),
    ("output", "lm_head", Same),
];

/// Layers whose positions turn halves, in the files as in the checkpoints.
const BY_HALVES: &[(&str, &str, Form)] = &[
    ("attn_norm", "input_layernorm", Same),
    ("attn_q", "self_attn.q_proj", Same),
    ("attn_q_norm", "self_attn.q_norm", Same),
    ("attn_k", "self_attn.k_proj", Same),
    ("attn_k_norm", "self_attn.k_norm", Same),
    ("attn_v", "self_attn.v_proj", Same),
    ("attn_output", "self_attn.o_proj", Same),
    ("ffn_norm", "post_attention_layernorm", Same),
    ("ffn_gate", "mlp.gate_proj", Same),
    ("ffn_up", "mlp.up_proj", Same),
    ("ffn_down", "mlp.down_proj", Same),
];

const GEMMA_LAYER: &[(&str, &str, Form)] = &[
    ("attn_norm", "input_layernorm", Shifted),
    ("attn_q", "self_attn.q_proj", Same),
    ("attn_q_norm", "self_attn.q_norm", Shifted),
    ("attn_k", "self_attn.k_proj", Same),
    ("attn_k_norm", "self_attn.k_norm", Shifted),
    ("attn_v", "self_attn.v_proj", Same),
    ("attn_output", "self_attn.o_proj", Same),
    ("post_attention_norm", "post_attention_layernorm", Shifted),
    ("ffn_norm", "pre_feedforward_layernorm", Shifted),
    ("ffn_gate", "mlp.gate_proj", Same),
    ("ffn_up", "mlp.up_proj", Same),
    ("ffn_down", "mlp.down_proj", Same),
    ("post_ffw_norm", "post_feedforward_layernorm", Shifted),
];

/// What all decoders with rotary positions have.
struct Rotary {
    map: Map<String, Value>,
    hidden: u64,
    heads: u64,
    layers: u64,
    head_dim: u64,
}

impl Rotary {
    fn read(facts: &mut Facts<'_>, family: &str, activation: (&str, &str)) -> Result<Self> {
        let hidden = facts.size("embedding_length")?;
        let heads = facts.size("attention.head_count")?;
        let layers = facts.size("block_count")?;
        let kv_heads = facts.size_if_any("attention.head_count_kv")?.unwrap_or(heads);
        let head_dim = match facts.size_if_any("attention.key_length")? {
            Some(length) => length,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let what = format!("is {heads}, which does not divide the {hidden} numbers of a vector");
                return Err(facts.unsupported("attention.head_count", &what));
            }
        };
        if facts.count("attention.value_length")?.is_some_and(|length| length != head_dim) {
            return Err(
                facts.unsupported("attention.value_length", &format!("differs from the {head_dim} of a key"))
            );
        }
        for (key, most) in [("expert_count", 0), ("expert_used_count", 0)] {
            if facts.count(key)?.is_some_and(|experts| experts > most) {
                return Err(facts.unsupported(key, "is not 0: mixtures of experts are not supported"));
            }
        }
        let map = [
            ("model_type", json!(family)),
            ("hidden_size", json!(hidden)),
            ("intermediate_size", json!(facts.size("feed_forward_length")?)),
            ("num_hidden_layers", json!(layers)),
            ("num_attention_heads", json!(heads)),
            ("num_key_value_heads", json!(kv_heads)),
            ("max_position_embeddings", json!(facts.size("context_length")?)),
            ("rms_norm_eps", json!(facts.needed("attention.layer_norm_rms_epsilon")?)),
            ("rope_theta", json!(facts.number("rope.freq_base")?.unwrap_or(10000.0))),
            ("vocab_size", json!(facts.rows("token_embd.weight")?)),
            ("tie_word_embeddings", json!(!facts.has("output.weight"))),
            activation_key(activation),
        ];
        let map = map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Ok(Self { map, hidden, heads, layers, head_dim })
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.map.insert(key.to_owned(), value.into());
    }

    /// All numbers of a head turn with the position, unless the family says otherwise.
    fn turns_whole(&self, facts: &mut Facts<'_>) -> Result<()> {
        let turning = facts.count("rope.dimension_count")?;
        if turning.is_some_and(|turning| turning != self.head_dim) {
            let what = format!("differs from the {} numbers of a head", self.head_dim);
            return Err(facts.unsupported("rope.dimension_count", &what));
        }
        Ok(())
    }

    /// `rope.scaling.*` as the object `rope_scaling`.
    fn scaling(&mut self, facts: &mut Facts<'_>) -> Result<()> {
        let scale = facts.number("rope.scale_linear")?;
        let kind = facts.word("rope.scaling.type")?;
        let factor = facts.number("rope.scaling.factor")?.or(scale);
        let original = facts.count("rope.scaling.original_context_length")?;
        let kind = kind.unwrap_or_else(|| {
            if factor.is_some_and(|factor| factor != 1.0) { "linear" } else { "none" }.to_owned()
        });
        let mut scaling = Map::new();
        match kind.as_str() {
            "none" => return Ok(()),
            "linear" => {}
            "yarn" => {
                scaling.insert("original_max_position_embeddings".to_owned(), json!(original));
                let both = [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")];
                for (theirs, ours) in both {
                    if let Some(value) = facts.number(&format!("rope.scaling.{theirs}"))? {
                        scaling.insert(ours.to_owned(), json!(value));
                    }
                }
            }
            _ => return Err(facts.unsupported("rope.scaling.type", "is not none, linear or yarn")),
        }
        if facts.number("rope.scaling.attn_factor")?.is_some_and(|factor| factor != 1.0) {
            return Err(facts.unsupported("rope.scaling.attn_factor", "is not 1, which is not supported"));
        }
        let factor = factor
            .ok_or_else(|| facts.unsupported("rope.scaling.factor", "is needed beside rope.scaling.type"))?;
        scaling.insert("rope_type".to_owned(), json!(kind));
        scaling.insert("factor".to_owned(), json!(factor));
        self.set("rope_scaling", scaling);
        Ok(())
    }
}

fn activation_key<'a>((key, word): (&'a str, &str)) -> (&'a str, Value) {
    (key, json!(word))
}

const SILU: (&str, &str) = ("hidden_act", "silu");
const GELU_TANH: (&str, &str) = ("hidden_activation", "gelu_pytorch_tanh");

fn llama(facts: &mut Facts<'_>) -> Result<Map<String, Value>> {
    let window = facts.count("attention.sliding_window")?.filter(|&window| window > 0);
    let mut rotary = Rotary::read(facts, if window.is_some() { "mistral" } else { "llama" }, SILU)?;
    rotary.turns_whole(facts)?;
    rotary.scaling(facts)?;
    rotary.set("head_dim", rotary.head_dim);
    match window {
        Some(window) => rotary.set("sliding_window", window),
        None => {
            rotary.set("attention_bias", facts.has("blk.0.attn_q.bias"));
            rotary.set("mlp_bias", facts.has("blk.0.ffn_up.bias"));
        }
    }
    // Llama 3.1 and later: the converter has worked `rope_scaling` of type llama3 out. Frequency i of the
    // head_dim / 2 is divided by factor i; no config.json has this key.
    if let Some(factors) = facts.factors("rope_freqs.weight", rotary.head_dim / 2)? {
        rotary.set("rope_factors", factors);
    }
    Ok(rotary.map)
}

fn qwen2(facts: &mut Facts<'_>) -> Result<Map<String, Value>> {
    let mut rotary = Rotary::read(facts, "qwen2", SILU)?;
    rotary.turns_whole(facts)?;
    rotary.scaling(facts)?;
    if rotary.head_dim * rotary.heads != rotary.hidden {
        rotary.set("head_dim", rotary.head_dim);
    }
    Ok(rotary.map)
}

fn qwen3(facts: &mut Facts<'_>) -> Result<Map<String, Value>> {
    let mut rotary = Rotary::read(facts, "qwen3", SILU)?;
    rotary.turns_whole(facts)?;
    rotary.scaling(facts)?;
    rotary.set("head_dim", rotary.head_dim);
    rotary.set("attention_bias", facts.has("blk.0.attn_q.bias"));
    Ok(rotary.map)
}

fn phi3(facts: &mut Facts<'_>) -> Result<Map<String, Value>> {
    let mut rotary = Rotary::read(facts, "phi3", SILU)?;
    let turning = facts.size_if_any("rope.dimension_count")?.unwrap_or(rotary.head_dim);
    if turning != rotary.head_dim {
        rotary.set("partial_rotary_factor", turning as f64 / rotary.head_dim as f64);
    }
    if let Some(window) = facts.count("attention.sliding_window")?.filter(|&window| window > 0) {
        rotary.set("sliding_window", window);
    }
    let long = facts.factors("rope_factors_long.weight", turning / 2)?;
    let short = facts.factors("rope_factors_short.weight", turning / 2)?;
    let (Some(long), Some(short)) = (long, short) else {
        rotary.scaling(facts)?;
        return Ok(rotary.map);
    };
    // The factor of the scores follows from the two lengths, in the files as in the checkpoints.
    facts.number("rope.scaling.attn_factor")?;
    if facts.word("rope.scaling.type")?.is_some_and(|kind| kind != "longrope") {
        return Err(facts.unsupported("rope.scaling.type", "is not longrope, beside factors of longrope"));
    }
    let original = facts.size("rope.scaling.original_context_length")?;
    rotary.set("original_max_position_embeddings", original);
    rotary.set("rope_scaling", json!({"rope_type": "longrope", "long_factor": long, "short_factor": short}));
    Ok(rotary.map)
}

fn gemma2(facts: &mut Facts<'_>) -> Result<Map<String, Value>> {
    let mut rotary = gemma(facts, "gemma2", 46)?;
    for (theirs, ours) in [
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
    ] {
        let cap = facts.needed(theirs)?;
        rotary.set(ours, cap);
    }
    Ok(rotary.map)
}

fn gemma3(facts: &mut Facts<'_>) -> Result<Map<String, Value>> {
    let mut rotary = gemma(facts, "gemma3_text", 62)?;
    rotary.scaling(facts)?;
    rotary.set("rope_local_base_freq", facts.number("rope.freq_base_swa")?.unwrap_or(10000.0));
    // One layer of six sees everything; the files do not say so.
    rotary.set("sliding_window_pattern", facts.count("attention.sliding_window_pattern")?.unwrap_or(6));
    if let Some(cap) = facts.number("final_logit_softcapping")? {
        rotary.set("final_logit_softcapping", cap);
    }
    Ok(rotary.map)
}

fn gemma(facts: &mut Facts<'_>, family: &str, layers_of_27b: u64) -> Result<Rotary> {
    let mut rotary = Rotary::read(facts, family, GELU_TANH)?;
    rotary.turns_whole(facts)?;
    rotary.set("head_dim", rotary.head_dim);
    rotary.set("sliding_window", facts.size("attention.sliding_window")?);
    // Not in the files: the models of 27 billion numbers scale by another width than that of their heads.
    let scaled = if rotary.layers == layers_of_27b { rotary.hidden / rotary.heads } else { rotary.head_dim };
    rotary.set("query_pre_attn_scalar", scaled);
    Ok(rotary)
}

fn gpt2(facts: &mut Facts<'_>) -> Result<Map<String, Value>> {
    let config = json!({
        "model_type": "gpt2",
        "n_embd": facts.size("embedding_length")?,
        "n_layer": facts.size("block_count")?,
        "n_head": facts.size("attention.head_count")?,
        "n_inner": facts.size("feed_forward_length")?,
        "n_positions": facts.size("context_length")?,
        "layer_norm_epsilon": facts.needed("attention.layer_norm_epsilon")?,
        "activation_function": "gelu_new",
        "vocab_size": facts.rows("token_embd.weight")?,
        "tie_word_embeddings": !facts.has("output.weight"),
    });
    Ok(object(config))
}

fn bert(facts: &mut Facts<'_>) -> Result<Map<String, Value>> {
    facts.only("attention.causal", false)?;
    let config = json!({
        "model_type": "bert",
        "hidden_size": facts.size("embedding_length")?,
        "intermediate_size": facts.size("feed_forward_length")?,
        "num_hidden_layers": facts.size("block_count")?,
        "num_attention_heads": facts.size("attention.head_count")?,
        "max_position_embeddings": facts.rows("position_embd.weight")?,
        "layer_norm_eps": facts.needed("attention.layer_norm_epsilon")?,
        "hidden_act": "gelu",
        "vocab_size": facts.rows("token_embd.weight")?,
        "type_vocab_size": facts.rows("token_types.weight")?,
    });
    // The table of positions says the same, and is what is read.
    facts.size("context_length")?;
    Ok(object(config))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
