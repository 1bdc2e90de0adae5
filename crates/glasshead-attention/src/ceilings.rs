//! What this machine can do at best: the ceilings that a figure is a fraction of. Measured, not looked up,
//! on the threads of the caller's pool, so that a noisy minute lowers ceiling and figure alike.

use std::{hint::black_box, marker::PhantomData, time::Instant};

use crate::{
    Element, InstructionSet,
    isa::{Dot, Kernel, Number, Simd},
    threads,
};

/// Independent sums that hide the latency of a multiply-add on every CPU of today.
const SUMS: usize = 12;
/// Multiply-adds per sum and run: some ten microseconds.
const STEPS: usize = 4096;
/// Bytes that no cache holds.
const BUFFER: usize = 1 << 28;

/// Billions of operations per second of multiply-adds on registers alone, the kind by which products of `T` are
/// formed, over all threads of the pool: the best of several runs that last about `seconds` together.
pub fn fma_gflops<T: Element>(isa: InstructionSet, seconds: f64) -> f64 {
    let runs = 64;
    let fma = || T::run(isa, Fma::<T>(PhantomData));
    let flops = (threads::count() * runs * fma()) as f64;
    best(seconds, || {
        threads::on_each(|| {
            (0..runs).for_each(|_| {
                fma();
            });
        });
    })
    .map_or(0.0, |time| flops / time / 1e9)
}

/// Billions of bytes per second that all threads of the pool read together from a buffer that no cache
/// holds: the best of several runs that last about `seconds` together.
pub fn read_gbps(isa: InstructionSet, seconds: f64) -> f64 {
    let mut buffer = vec![1f32; BUFFER / size_of::<f32>()];
    let part = buffer.len() / threads::count();
    best(seconds, || {
        threads::for_each_chunk(
            &mut buffer,
            part,
            || (),
            |(), _, part| {
                black_box(f32::dispatch(isa, Read(part)));
            },
        );
    })
    .map_or(0.0, |time| BUFFER as f64 / time / 1e9)
}

/// The shortest time of one run.
fn best(seconds: f64, mut run: impl FnMut()) -> Option<f64> {
    let start = Instant::now();
    let mut best: Option<f64> = None;
    while best.is_none() || start.elapsed().as_secs_f64() < seconds {
        let before = Instant::now();
        run();
        let time = before.elapsed().as_secs_f64();
        best = Some(best.map_or(time, |best| best.min(time)));
    }
    best
}

struct Fma<T>(PhantomData<T>);

impl<T: Element> Kernel<T::Number> for Fma<T> {
    /// Operations.
    type Out = usize;

    #[inline(always)]
    fn run<S: Simd<N = T::Number>>(self, simd: S) -> usize {
        let zero = T::Number::default();
        let item = |x: f64| <T::Dot<S> as Dot<S>>::item(T::Number::from_f64(x), zero);
        let (a, b) = (simd.splat(black_box(item(0.999))), simd.splat(black_box(item(1e-3))));
        let mut sums = [simd.constant(black_box(1.0)); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = <T::Dot<S> as Dot<S>>::mul_add(simd, a, b, *sum);
            }
        }
        black_box(sums);
        STEPS * SUMS * S::LANES * <T::Dot<S> as Dot<S>>::DEPTH * 2
    }
}

struct Read<'a>(&'a [f32]);

impl Kernel<f32> for Read<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd<N = f32>>(self, simd: S) -> f32 {
        let mut sums = [simd.splat(0.0); 8];
        for line in self.0.chunks_exact(8 * S::LANES) {
            for (sum, part) in sums.iter_mut().zip(line.chunks_exact(S::LANES)) {
                *sum = simd.add(*sum, simd.load(part));
            }
        }
        let mut lanes = [0.0; 16];
        let mut total = 0.0;
        for sum in sums {
            simd.store(sum, &mut lanes);
            total += lanes[..S::LANES].iter().sum::<f32>();
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn ceilings_are_numbers_above_zero() {
        for isa in InstructionSet::here() {
            assert!(fma_gflops::<f32>(isa, 0.01) > 0.1);
            assert!(fma_gflops::<f64>(isa, 0.01) > 0.1);
            assert!(fma_gflops::<bf16>(isa, 0.01) > 0.1);
        }
        assert!(read_gbps(InstructionSet::Scalar, 0.01) > 0.1);
    }
}
