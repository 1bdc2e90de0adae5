//! `glasshead bench attention`

use std::time::Instant;

use glasshead::{
    Error, Result,
    attention::{
        Array, Attended, Attention, AttentionError, Element, InstructionSet, Mask, MaskValues, Read, Shape,
        TensorView, ceilings, reference,
    },
    report::{Block, Document, RowKind, Table, table},
};
use peakmem_alloc::PeakMemAllocTrait;
use serde_json::{Value, json};

use super::attend::{Brain, Half, hint_for, in_pool, instruction_set};
use crate::{
    MEMORY,
    args::{BenchArgs, BenchAttentionArgs, BenchFormat, BenchWhat, DtypeArg, LayoutArg, MaskArg},
    printer,
};

/// How many runs there are at least.
const LEAST_RUNS: usize = 5;
/// How long each ceiling is measured, before the runs and after them.
const CEILING_SECONDS: f64 = 0.2;
/// What a tenth of the normal numbers is above.
const TENTH: f32 = 1.281_551_6;
/// Rows that are compared with the reference.
const SAMPLED_ROWS: usize = 64;

pub(crate) fn run(args: BenchArgs) -> Result<()> {
    let BenchWhat::Attention(args) = args.what;
    let figures = in_pool(args.threads, || match args.dtype {
        DtypeArg::F32 => attention::<f32>(&args),
        DtypeArg::F64 => attention::<f64>(&args),
        DtypeArg::F16 => attention::<Half>(&args),
        DtypeArg::Bf16 => attention::<Brain>(&args),
    })??;
    match args.format {
        BenchFormat::Json => printer::data(&format!("{figures}\n")),
        BenchFormat::Table => {
            let mut rows = Table::new(["figure", ">value"]);
            for (name, value) in figures.as_object().into_iter().flatten() {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                rows.push(RowKind::Plain, vec![name.clone(), value]);
            }
            printer::data(&table(&Document { blocks: vec![Block::Table(rows)] }, &printer::style()))
        }
    }
}

fn attention<T: Element>(args: &BenchAttentionArgs) -> Result<Value> {
    let wrong = |error: AttentionError| Error::request(error.to_string(), hint_for(&error));
    let (batch, heads, queries, dim) = (args.batch, args.heads, args.queries, args.dim);
    let kv_heads = args.kv_heads.unwrap_or(heads);
    let keys = args.keys.unwrap_or(queries);
    let value_dim = args.value_dim.unwrap_or(dim);
    let mut random = Random(1);
    let q = random.array::<T>([batch, heads, queries, dim])?;
    let k = random.array::<T>([batch, kv_heads, keys, dim])?;
    let v = random.array::<T>([batch, kv_heads, keys, value_dim])?;
    let isa = match &args.isa {
        Some(name) => instruction_set(name)?,
        None => InstructionSet::default_here().map_err(wrong)?,
    };
    let view = |values, [batch, heads, tokens, dim]: [usize; 4]| {
        match args.layout {
            LayoutArg::Heads => TensorView::contiguous(values, [batch, heads, tokens, dim]),
            LayoutArg::Tokens => TensorView::from_tokens(values, batch, tokens, heads, dim),
        }
        .map_err(wrong)
    };
    let mask = match args.mask {
        Some(_) => random.array::<f32>([1, 1, queries, keys])?,
        None => Vec::new(),
    };
    let visible: Vec<bool> = mask.iter().map(|x| *x < TENTH).collect();
    let hide = |x: &f32| if *x < TENTH { *x } else { f32::NEG_INFINITY };
    let additive: Vec<f32> = mask.iter().map(hide).collect();
    let slopes: Vec<f32> = (1..=heads).map(|head| (-8.0 * head as f32 / heads as f32).exp2()).collect();
    let mut request = Attention::new(
        view(&q, [batch, heads, queries, dim])?,
        view(&k, [batch, kv_heads, keys, dim])?,
        view(&v, [batch, kv_heads, keys, value_dim])?,
    )
    .softcap(args.softcap)
    .instruction_set(isa);
    if let Some(causal) = args.causal {
        request = request.causal(causal);
    }
    if let Some(window) = args.window {
        request = request.window(window);
    }
    if let Some(kind) = args.mask {
        let values = match kind {
            MaskArg::Bool => MaskValues::Bool(&visible),
            MaskArg::Additive => MaskValues::F32(&additive),
        };
        request = request.mask(Mask::new(values, &[queries, keys]).map_err(wrong)?);
    }
    if args.alibi {
        request = request.alibi_slopes(&slopes);
    }
    let read = Read::parse(&args.read.join(","), &Shape { batch, heads, queries, keys }).map_err(wrong)?;
    let plain = (!read.is_empty()).then(|| request.clone());
    let request = request.read(read);
    let pairs = request.visible_pairs().map_err(wrong)?;

    // The first run warms up, says what is held beside inputs and outputs, and is checked.
    MEMORY.reset_peak_memory();
    let seen = request.run().map_err(wrong)?;
    let outputs = size_of_val(&seen.out[..]) + seen.readouts.iter().map(Array::bytes).sum::<usize>();
    let extra_bytes = MEMORY.get_peak_memory().saturating_sub(outputs);
    let max_abs_error = worst(&request, &seen).map_err(wrong)?;
    let mut out = seen.out;

    let ceilings =
        || (ceilings::fma_gflops::<T>(isa, CEILING_SECONDS), ceilings::read_gbps(isa, CEILING_SECONDS));
    let first = ceilings();
    let mut time = |request: &Attention<T>| {
        let before = Instant::now();
        std::hint::black_box(std::hint::black_box(request).run_into(&mut out).map_err(wrong)?);
        Ok::<_, Error>(before.elapsed().as_secs_f64())
    };
    let (mut times, mut plain_times) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while times.len() < LEAST_RUNS || start.elapsed().as_secs_f64() < args.seconds {
        if let Some(plain) = &plain {
            plain_times.push(time(plain)?);
        }
        times.push(time(&request)?);
    }
    let last = ceilings();
    let (peak, gbps) = (first.0.max(last.0), first.1.max(last.1));
    // Neighbours, which the machine has treated alike.
    let ratios = times.iter().zip(&plain_times).map(|(read, plain)| read / plain).collect();
    let runs = times.len();
    let [best, median] = best_and_median(times);
    let gflops = pairs as f64 * 2.0 * (dim + value_dim) as f64 / best / 1e9;
    let bytes = (size_of_val(&q[..]) + size_of_val(&k[..]) + size_of_val(&v[..])) as f64
        + (batch * heads * queries * value_dim * size_of::<T>()) as f64;
    let mut figures = json!({
        "min_ms": best * 1e3,
        "median_ms": median * 1e3,
        "runs": runs,
        "gflops": gflops,
        "peak_gflops": peak,
        "read_gbps": gbps,
        "fraction_of_peak": gflops / peak,
        "fraction_of_bandwidth": bytes / best / 1e9 / gbps,
        "max_abs_error": max_abs_error,
        "extra_bytes": extra_bytes,
        "isa": isa.name(),
        "threads": rayon::current_num_threads(),
    });
    if plain.is_some() {
        let [plain_best, _] = best_and_median(plain_times);
        let [_, ratio] = best_and_median(ratios);
        figures["plain_min_ms"] = json!(plain_best * 1e3);
        figures["added_percent"] = json!((best / plain_best - 1.0) * 100.0);
        figures["added_median_percent"] = json!((ratio - 1.0) * 100.0);
    }
    Ok(figures)
}

/// The least and the middle one.
fn best_and_median(mut times: Vec<f64>) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    [times[0], times[times.len() / 2]]
}

/// The largest difference to the f64 reference on rows spread over the whole output, NaN if any is.
fn worst<T: Element>(request: &Attention<T>, seen: &Attended<T>) -> Result<f64, AttentionError> {
    let [batch, heads, queries, value_dim] = seen.shape;
    let rows = batch * heads * queries;
    let mut worst: f64 = 0.0;
    for sample in 0..rows.min(SAMPLED_ROWS) {
        let at = sample * rows / rows.min(SAMPLED_ROWS);
        let exact = reference::output(request, at / (heads * queries), at / queries % heads, at % queries)?;
        for (got, exact) in seen.out[at * value_dim..(at + 1) * value_dim].iter().zip(exact) {
            worst = std::cmp::max_by(worst, (got.to_f64() - exact).abs(), f64::total_cmp);
        }
    }
    Ok(worst)
}

/// Splitmix64.
struct Random(u64);

impl Random {
    /// Nearly normal numbers of variance 1: sums of twelve uniform ones.
    fn array<T: Element>(&mut self, shape: [usize; 4]) -> Result<Vec<T>> {
        let count = shape.into_iter().try_fold(1usize, usize::checked_mul);
        let too_large = || {
            Error::request(
                format!("arrays of the shape {shape:?} do not fit into memory"),
                "ask for smaller ones",
            )
        };
        let count = count.filter(|count| *count <= (isize::MAX as usize) / 8).ok_or_else(too_large)?;
        let mut values = Vec::new();
        values.try_reserve_exact(count).map_err(|_| too_large())?;
        values.extend((0..count).map(|_| T::from_f64((0..12).map(|_| self.unit()).sum::<f64>() - 6.0)));
        Ok(values)
    }

    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}
