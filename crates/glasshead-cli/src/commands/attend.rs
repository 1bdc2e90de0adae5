//! `glasshead attend`

use std::collections::BTreeMap;

use glasshead::{
    Error, Result,
    attention::{
        Array, Attention, AttentionError, Element, InstructionSet, Mask, MaskValues, Read, Shape, TensorView,
        Values,
    },
    weights::{ArrayData, Arrays, NewArray, check_target, read_safetensors, safetensors},
};

use crate::{args::AttendArgs, interrupt, printer};

/// The arrays that are read.
const KNOWN: [&str; 7] = ["q", "k", "v", "mask", "kv_lengths", "sinks", "alibi_slopes"];

pub(crate) fn run(args: AttendArgs) -> Result<()> {
    check_target(&args.output, &[&args.input])?;
    interrupt::watch()?;
    let arrays = read_safetensors(&args.input)?;
    let unknown: Vec<&str> =
        arrays.list().map(|(name, _)| name).filter(|name| !KNOWN.contains(name)).collect();
    if !unknown.is_empty() {
        printer::note(&format!("note: not used: {}", unknown.join(", ")));
    }
    let out = in_pool(args.threads, || match &arrays.get("q")?.0 {
        ArrayData::F32(_) => attend::<f32>(&args, &arrays),
        ArrayData::F64(_) => attend::<f64>(&args, &arrays),
        ArrayData::F16(_) => attend::<Half>(&args, &arrays),
        ArrayData::Bf16(_) => attend::<Brain>(&args, &arrays),
        other => Err(Error::request(
            format!("{}: q is {:?}", args.input.display(), other.dtype()),
            "q, k and v are all F32, all F16, all BF16 or all F64",
        )),
    })??;
    let metadata = BTreeMap::from([
        ("command".to_owned(), super::command_line()),
        ("version".to_owned(), format!("glasshead {}", env!("CARGO_PKG_VERSION"))),
    ]);
    interrupt::write(&args.output, safetensors(&out, &metadata)?)
}

/// Runs on so many threads, or on all.
pub(super) fn in_pool<R: Send>(threads: Option<u16>, work: impl FnOnce() -> R + Send) -> Result<R> {
    let Some(threads) = threads else { return Ok(work()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build();
    let pool = pool.map_err(|error| {
        Error::environment(format!("{threads} threads cannot be started: {error}"), "ask for fewer")
    })?;
    Ok(pool.install(work))
}

pub(super) type Half = glasshead::attention::f16;
pub(super) type Brain = glasshead::attention::bf16;

/// The four types of q, k and v, and how they lie in [`ArrayData`].
trait Typed: Element {
    fn take(data: ArrayData) -> Option<Vec<Self>>;
    fn give(values: Vec<Self>) -> ArrayData;
}

macro_rules! typed {
    ($($type:ty => $variant:ident),*) => {$(
        impl Typed for $type {
            fn take(data: ArrayData) -> Option<Vec<Self>> {
                if let ArrayData::$variant(values) = data { Some(values) } else { None }
            }
            fn give(values: Vec<Self>) -> ArrayData {
                ArrayData::$variant(values)
            }
        }
    )*};
}
typed!(f32 => F32, f64 => F64, Half => F16, Brain => Bf16);

fn attend<T: Typed>(args: &AttendArgs, arrays: &Arrays) -> Result<Vec<NewArray<'static>>> {
    let file = args.input.display();
    let wrong = |error: AttentionError| Error::request(format!("{file}: {error}"), hint_for(&error));
    let q_dtype = arrays.get("q")?.0.dtype();
    let tensor = |name: &str| -> Result<(Vec<T>, [usize; 4])> {
        let (data, shape) = arrays.get(name)?;
        let dtype = data.dtype();
        let values = T::take(data).ok_or_else(|| {
            Error::request(
                format!("{file}: {name} is {dtype:?} and q is {q_dtype:?}"),
                "q, k and v have one dtype",
            )
        })?;
        let shape = shape.try_into().map_err(|_| {
            Error::request(
                format!("{file}: {name} has the shape {shape:?}"),
                format!("{name} has four axes: [batch, heads, tokens, dim]"),
            )
        })?;
        Ok((values, shape))
    };
    let ((q, q_shape), (k, k_shape), (v, v_shape)) = (tensor("q")?, tensor("k")?, tensor("v")?);
    let mask = optional(arrays, "mask")?;
    let lengths = match optional(arrays, "kv_lengths")? {
        None => None,
        Some((ArrayData::I64(values), [_])) => Some(values),
        Some((data, shape)) => return Err(odd(args, "kv_lengths", &data, shape, "I64 [batch]")),
    };
    let per_head = |name: &str| match optional(arrays, name)? {
        None => Ok(None),
        Some((ArrayData::F32(values), [_])) => Ok(Some(values)),
        Some((data, shape)) => Err(odd(args, name, &data, shape, "F32 [heads of q]")),
    };
    let (sinks, slopes) = (per_head("sinks")?, per_head("alibi_slopes")?);

    let view = |values, shape| TensorView::contiguous(values, shape).map_err(wrong);
    let mut request =
        Attention::new(view(&q, q_shape)?, view(&k, k_shape)?, view(&v, v_shape)?).softcap(args.softcap);
    if let Some(scale) = args.scale {
        request = request.scale(scale);
    }
    if let Some(causal) = args.causal {
        request = request.causal(causal);
    }
    if let Some(window) = args.window {
        request = request.window(window);
    }
    if let Some((data, shape)) = &mask {
        let values = match data {
            ArrayData::Bool(values) => MaskValues::Bool(values),
            ArrayData::F32(values) => MaskValues::F32(values),
            ArrayData::F64(values) => MaskValues::F64(values),
            ArrayData::F16(values) => MaskValues::F16(values),
            ArrayData::Bf16(values) => MaskValues::Bf16(values),
            ArrayData::I64(_) => {
                return Err(odd(
                    args,
                    "mask",
                    data,
                    shape,
                    "BOOL (true = may attend) or a float that is added to the scores",
                ));
            }
        };
        request = request.mask(Mask::new(values, shape).map_err(wrong)?);
    }
    if let Some(lengths) = &lengths {
        request = request.kv_lengths(lengths);
    }
    if let Some(sinks) = &sinks {
        request = request.sinks(sinks);
    }
    if let Some(slopes) = &slopes {
        request = request.alibi_slopes(slopes);
    }
    let flag = |error: AttentionError| Error::request(error.to_string(), hint_for(&error));
    if let Some(isa) = &args.isa {
        request = request.instruction_set(instruction_set(isa)?);
    }
    let shape = Shape { batch: q_shape[0], heads: q_shape[1], queries: q_shape[2], keys: k_shape[2] };
    let read = Read::parse(&args.read.join(","), &shape).map_err(|error| {
        Error::request(
            format!("--read: {error}"),
            "for instance --read lse,entropy,top=8,rows=0:4,segments=16:32,blocks=64",
        )
    })?;
    let seen = request.read(read).run().map_err(|error| match error {
        AttentionError::Value { option: option @ ("scale" | "softcap"), value, problem } => {
            Error::request(format!("--{option} {value} {problem}"), "leave the flag out for the usual value")
        }
        AttentionError::UnknownInstructionSet(_) | AttentionError::MissingInstructionSet { .. } => {
            // --isa was looked at above: what is left is the variable, or a set this CPU lacks.
            flag(error)
        }
        error => wrong(error),
    })?;
    let mut out = vec![NewArray::new("out", &seen.shape, &T::give(seen.out))];
    out.extend(seen.readouts.into_iter().map(|Array { name, shape, values }| {
        let data = match values {
            Values::F32(values) => ArrayData::F32(values),
            Values::I64(values) => ArrayData::I64(values),
        };
        NewArray::new(name, &shape, &data)
    }));
    Ok(out)
}

fn optional<'a>(arrays: &'a Arrays, name: &str) -> Result<Option<(ArrayData, &'a [usize])>> {
    arrays.info(name).map(|_| arrays.get(name)).transpose()
}

fn odd(args: &AttendArgs, name: &str, data: &ArrayData, shape: &[usize], expected: &str) -> Error {
    let (file, dtype) = (args.input.display(), data.dtype());
    Error::request(format!("{file}: {name} is {dtype:?} {shape:?}"), format!("{name} is {expected}"))
}

/// The set of this name, where this machine has it.
pub(super) fn instruction_set(name: &str) -> Result<InstructionSet> {
    let found = InstructionSet::from_name(name).and_then(|asked| match asked.is_here() {
        true => Ok(asked),
        false => Err(AttentionError::MissingInstructionSet { asked }),
    });
    found.map_err(|error| Error::request(error.to_string(), hint_for(&error)))
}

pub(super) fn hint_for(error: &AttentionError) -> &'static str {
    match error {
        AttentionError::MissingInstructionSet { .. } => {
            "leave --isa and GLASSHEAD_ISA out; glasshead doctor tells what this machine has"
        }
        AttentionError::UnknownInstructionSet(_) => "leave --isa and GLASSHEAD_ISA out to use the best one",
        AttentionError::Readout { .. } => "see --read in glasshead attend --help",
        AttentionError::Shape { what: "mask", .. } => {
            "every axis of a mask is as long as that of the scores or 1; its last axis may be shorter than the keys, never longer"
        }
        AttentionError::Shape { what: "sinks" | "alibi_slopes", .. } => "give one number per head of q",
        AttentionError::Shape { what: "kv_lengths", .. }
        | AttentionError::Value { option: "kv_lengths", .. } => {
            "give one length per batch element: how many of its keys are real, the others being padding"
        }
        AttentionError::Shape { what: "out", .. } => "give fewer heads or queries at a time",
        _ => {
            "shapes are q [batch, heads, queries, dim], k [batch, kv_heads, keys, dim], v [batch, kv_heads, keys, value_dim]"
        }
    }
}
