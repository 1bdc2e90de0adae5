//! `glasshead doctor`

use glasshead::{
    Result,
    attention::InstructionSet,
    report::{Block, Document, RowKind, Table, table},
    weights::{cache_folder, catalogue, locate},
};

use crate::printer;

/// CPU features that matter to attention, now or later.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<(&'static str, bool)> {
    macro_rules! have {
        ($($name:tt),*) => { vec![$(($name, is_x86_feature_detected!($name))),*] };
    }
    have!("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512bf16", "avx512fp16", "avx512vnni")
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<(&'static str, bool)> {
    Vec::new()
}

/// Environment variables that change what glasshead does.
const KNOBS: [(&str, &str); 8] = [
    ("GLASSHEAD_ISA", "forces an instruction set: scalar, avx2, avx512"),
    ("GLASSHEAD_CACHE", "folder for models"),
    ("RAYON_NUM_THREADS", "number of threads"),
    ("HF_HOME", "folder of the Hugging Face cache, looked into before any download"),
    ("HF_HUB_OFFLINE", "1: never ask the Hugging Face hub"),
    ("HF_ENDPOINT", "another hub"),
    ("HF_TOKEN", "token for the hub"),
    ("NO_COLOR", "plain text on terminals"),
];

pub(crate) fn run() -> Result<()> {
    let mut document = Document::default();
    let mut machine = Table::new(["machine", ""]);
    let mut line = |name: &str, value: String| machine.push(RowKind::Plain, vec![name.into(), value]);
    line(
        "glasshead",
        format!("{} on {} {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH),
    );
    line("cpu", cpu_name().unwrap_or_else(|| "unknown".into()));
    let (have, lack): (Vec<_>, Vec<_>) = features().into_iter().partition(|(_, here)| *here);
    let names = |features: Vec<(&'static str, bool)>| {
        features.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
    };
    line("features", names(have));
    line("lacking", names(lack));
    let sets = InstructionSet::here().into_iter().map(InstructionSet::name).collect::<Vec<_>>().join(", ");
    let chosen = InstructionSet::default_here();
    line("instruction sets", sets);
    line(
        "used",
        chosen.as_ref().map_or_else(
            |error| format!("none: {error}"),
            |set| format!("{}, {} numbers at a time", set.name(), set.lanes()),
        ),
    );
    line("threads", rayon::current_num_threads().to_string());
    document.blocks.push(Block::Table(machine));

    let mut knobs = Table::new(["variable", "value", "what it does"]);
    for (name, what) in KNOBS {
        let value = std::env::var_os(name).map_or("not set".into(), |value| {
            if name == "HF_TOKEN" { "set".into() } else { value.to_string_lossy().into_owned() }
        });
        knobs.push(RowKind::Plain, vec![name.into(), value, what.into()]);
    }
    document.blocks.push(Block::Heading("Knobs".into()));
    document.blocks.push(Block::Table(knobs));

    let mut caches = Table::new(["cache", ""]);
    let folder = cache_folder().map_or_else(|error| error.to_string(), |path| path.display().to_string());
    caches.push(RowKind::Plain, vec!["models".into(), folder]);
    for entry in catalogue::CATALOGUE {
        let here = match locate(entry.name) {
            Ok(Some(path)) => path.display().to_string(),
            Ok(None) => format!("not fetched ({:.0} MB)", entry.bytes() as f64 / 1e6),
            Err(error) => error.to_string(),
        };
        caches.push(RowKind::Plain, vec![entry.name.into(), here]);
    }
    document.blocks.push(Block::Heading("Caches".into()));
    document.blocks.push(Block::Table(caches));

    document.blocks.push(Block::Heading("What would be slow".into()));
    document.blocks.push(Block::List(slow(chosen.ok())));
    printer::data(&table(&document, &printer::style()))
}

fn slow(used: Option<InstructionSet>) -> Vec<String> {
    let mut slow = Vec::new();
    match (used, InstructionSet::here().pop()) {
        (None, _) => slow.push(
            "Everything: GLASSHEAD_ISA names a set that cannot be used, so attention is refused.".into(),
        ),
        (Some(used), Some(best)) if used != best => {
            slow.push(format!(
                "All attention: {} is forced although this CPU has {}.",
                used.name(),
                best.name()
            ));
        }
        (Some(InstructionSet::Scalar), _) => {
            slow.push("All attention: this CPU has neither AVX2 nor AVX-512.".into())
        }
        _ => {}
    }
    if cfg!(debug_assertions) {
        slow.push("All attention: this is a debug build; build with --release.".into());
    }
    slow.extend(
        [
            "Readouts of fewer than 16 queries, and blocks below 16: row by row in f64, by the reference.",
            "F64 arrays: half as many numbers in a vector, and arithmetic in f64.",
            "F16 arrays, and BF16 arrays where pairs are not multiplied faster: widened to f32 (no AMX).",
            "Few queries over long keys in small memory pages: each page has to be looked up (huge pages help).",
        ]
        .map(str::to_owned),
    );
    slow
}

fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
