//! candle-nn's CPU flash attention, as a worker of `bench/attention.py`: reads `q.npy`, `k.npy` and `v.npy`
//! (`[batch, heads, tokens, dim]`, f32) from a folder, says `ready`, and then answers `run SECONDS` with the
//! seconds of each run, and `out FILE` by writing the output as f32 in C order.
//!
//! Usage: candle-peer FOLDER f32|bf16 causal|full

use std::{
    error::Error,
    io::{BufRead, Write},
    time::Instant,
};

use candle_core::{DType, Tensor};
use candle_nn::attention::{AttnMask, flash_attn};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, dtype, mask] = &arguments[..] else {
        return Err("usage: candle-peer FOLDER DTYPE MASK".into());
    };
    let dtype = if dtype == "bf16" { DType::BF16 } else { DType::F32 };
    // candle wants [batch, tokens, heads, dim].
    let load = |name: &str| {
        Tensor::read_npy(format!("{folder}/{name}.npy"))?.transpose(1, 2)?.contiguous()?.to_dtype(dtype)
    };
    let (q, k, v) = (load("q")?, load("k")?, load("v")?);
    let scale = 1.0 / (q.dim(3)? as f32).sqrt();
    let run = || {
        let mask = if mask == "causal" { AttnMask::causal() } else { AttnMask::None };
        match dtype {
            DType::BF16 => flash_attn::<half::bf16>(&q, &k, &v, scale, mask, None, None),
            _ => flash_attn::<f32>(&q, &k, &v, scale, mask, None, None),
        }
    };
    run()?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready flash_attn")?;
    stdout.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("run", seconds)) => {
                let (seconds, start) = (seconds.parse::<f64>()?, Instant::now());
                let mut times = Vec::new();
                while times.is_empty() || start.elapsed().as_secs_f64() < seconds {
                    let before = Instant::now();
                    std::hint::black_box(run()?);
                    times.push(before.elapsed().as_secs_f64().to_string());
                }
                writeln!(stdout, "{}", times.join(" "))?;
            }
            Some(("out", path)) => {
                let values = run()?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
                let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
                std::fs::write(path, bytes)?;
                writeln!(stdout, "written")?;
            }
            _ => return Err(format!("unknown command {line:?}").into()),
        }
        stdout.flush()?;
    }
    Ok(())
}
