//! What a pass will cost: said before it begins, and refused where memory is sure to be too small.

use std::time::Duration;

use glasshead_attention::{Array, InstructionSet, Values, ceilings};

use crate::models::Info;
use crate::{Error, Result};

/// What a pass is expected to cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Tokens that are read.
    pub tokens: usize,
    /// Tokens of an answer, at most.
    pub answer: usize,
    /// Layers that are computed: up to the last one that is kept.
    pub layers: usize,
    /// Query heads of a layer.
    pub heads: usize,
    /// Without the answer: two operations per token and number in the matrices of a layer, `4·head_dim` per head and
    /// visible pair of tokens, at a share of the multiply-adds that this machine does in a short measurement.
    pub time: Duration,
    /// Bytes of the arrays that are kept.
    pub kept: u64,
    /// Bytes at the peak: what the process holds now (the weights), what is kept, the readouts of one layer
    /// and its activations (some vectors of the hidden size per token), and for an answer the keys and
    /// values of all tokens.
    pub memory: u64,
    /// Bytes that this machine can still give; `None` where it does not tell.
    pub available: Option<u64>,
}

/// Linear layers and attention together reach about so much of what registers alone reach.
const SHARE: f64 = 0.6;
/// Vectors of the hidden size that a layer holds per token: its input, q, k, v and the merged heads, and a
/// feed-forward block four times as wide, before and after its activation.
const PER_TOKEN: u64 = 16;
/// How long the multiply-adds are measured.
const SECONDS: f64 = 0.01;

impl Estimate {
    /// Of texts of so many tokens each, `at_once` tokens in a pass through `layers` layers; `kept` are the arrays that
    /// will be held, `passing` those of one layer and pass.
    pub(super) fn new(
        info: &Info,
        texts: &[usize],
        [at_once, layers]: [usize; 2],
        answer: usize,
        kept: &[Array],
        passing: &[Array],
    ) -> Self {
        let &Info { heads, kv_heads, head_dim, hidden, causal, layer_size, .. } = info;
        let tokens: usize = texts.iter().sum();
        let linear = 2.0 * layer_size as f64 * tokens as f64;
        let visible = if causal { 0.5 } else { 1.0 };
        let pairs: f64 = texts.iter().map(|&n| visible * n as f64 * n as f64).sum();
        let attention = 4.0 * (head_dim * heads) as f64 * pairs;
        // The best of three: a neighbour who has a core for a moment does not make it a slow machine.
        let rates = [0; 3].map(|_| {
            InstructionSet::default_here().map_or(1.0, |isa| ceilings::fma_gflops::<f32>(isa, SECONDS))
        });
        let rate = rates.into_iter().fold(0.0, f64::max);
        let seconds = (linear + attention) * layers as f64 / (rate.max(0.1) * SHARE * 1e9);
        let kept = bytes(kept);
        let activations = (at_once as u64).saturating_mul(hidden as u64).saturating_mul(4 * PER_TOKEN);
        let cached = if answer == 0 { 0 } else { tokens.saturating_add(answer) } as u64;
        let per_cached = (2 * 4 * layers * kv_heads * head_dim) as u64;
        let working =
            bytes(passing).saturating_add(activations).saturating_add(cached.saturating_mul(per_cached));
        let now = status("/proc/self/status", "VmRSS:").unwrap_or(0);
        Self {
            tokens,
            answer,
            layers,
            heads,
            time: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
            kept,
            memory: now.saturating_add(kept).saturating_add(working),
            available: status("/proc/meminfo", "MemAvailable:").map(|free| free.saturating_add(now)),
        }
    }

    /// Refuses what cannot fit.
    pub(super) fn check(&self) -> Result<()> {
        match self.available {
            Some(available) if self.memory > available => Err(Error::environment(
                format!(
                    "the readouts of {} tokens need {} of memory, and this machine has {} to give",
                    self.tokens,
                    gigabytes(self.memory),
                    gigabytes(available)
                ),
                "choose --layers or --heads, fewer rows, coarser segments or larger blocks",
            )),
            _ => Ok(()),
        }
    }
}

/// Bytes of these arrays.
fn bytes(arrays: &[Array]) -> u64 {
    let of = |array: &Array| {
        let each = if matches!(array.values, Values::I64(_)) { 8 } else { 4 };
        array.shape.iter().fold(each, |bytes: u64, &axis| bytes.saturating_mul(axis as u64))
    };
    arrays.iter().fold(0, |sum, array| sum.saturating_add(of(array)))
}

/// `3.2 GB`, `14 MB`
pub(super) fn gigabytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes >= 1e9 { format!("{:.1} GB", bytes / 1e9) } else { format!("{:.0} MB", (bytes / 1e6).max(1.0)) }
}

/// A line `NAME: N kB` of what Linux tells about memory, in bytes; other systems have no such file.
fn status(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

impl std::fmt::Display for Estimate {
    /// `4096 tokens through 30 layers of 9 heads: about 5 s, 1.2 GB of memory`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tokens, answer, layers, heads, time, memory, .. } = self;
        let seconds = time.as_secs_f64();
        let time = match seconds {
            ..1.0 => "less than 1 s".to_owned(),
            ..120.0 => format!("about {seconds:.0} s"),
            ..7200.0 => format!("about {:.0} min", seconds / 60.0),
            _ => format!("about {:.0} h", seconds / 3600.0),
        };
        write!(
            f,
            "{tokens} tokens through {layers} {} of {heads} heads: {time}, {} of memory",
            if *layers == 1 { "layer" } else { "layers" },
            gigabytes(*memory)
        )?;
        if *answer > 0 {
            write!(f, "; then an answer of up to {answer} tokens")?;
        }
        Ok(())
    }
}
