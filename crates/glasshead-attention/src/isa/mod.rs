//! Instruction sets: a dozen vector operations, and the only unsafe code of the project.
//!
//! A set is a token of size zero whose `new` asks the CPU; holding one is the proof that its
//! instructions exist. Kernels are written once over [`Simd`] and run by [`Number::dispatch`], which
//! enters them through one `#[target_feature]` trampoline per set.

/// [`Simd::apart`] of a token that proves these features.
#[cfg(target_arch = "x86_64")]
macro_rules! apart {
    ($features:literal) => {
        #[inline(always)]
        fn apart(self, work: impl FnOnce()) {
            #[target_feature(enable = $features)]
            #[inline(never)]
            fn trampoline(work: impl FnOnce()) {
                work();
            }
            // SAFETY: the token proves that the CPU has the features.
            unsafe { trampoline(work) }
        }
    };
}

/// Operations of [`Simd`] that are one instruction.
#[cfg(target_arch = "x86_64")]
macro_rules! instructions {
    ($($name:ident($($arg:ident),+) = $intrinsic:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self::F),+) -> Self::F {
            // SAFETY: the token proves that the CPU has the set.
            unsafe { $intrinsic($($arg),+) }
        }
    )+};
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
mod cpu;
mod dot;
mod product;
mod scalar;
mod stored;

pub(crate) use dot::{Dot, MOST_DEPTH, Single};
pub(crate) use product::{COLUMNS, Grid, UNROLL, add_product, dots, product};
pub(crate) use stored::{Lanes, Stored};

use std::sync::OnceLock;

use half::{bf16, f16};

use crate::AttentionError;

/// Bytes of the second cache of a core; 0 where that is not known.
pub(crate) fn second_cache() -> usize {
    #[cfg(target_arch = "x86_64")]
    return cpu::second_cache();
    #[cfg(not(target_arch = "x86_64"))]
    return 0;
}

/// The most numbers of a vector, over all sets.
pub(crate) const MAX_LANES: usize = 16;

/// A type that kernels compute in: `f32`, or `f64` for f64 arrays.
pub trait Number:
    Stored<Number = Self> + Default + PartialOrd + std::fmt::Debug + Send + Sync + 'static
{
    /// Coefficients of 2ᶠ on |f| ≤ ½, the constant first.
    const EXP2: &'static [Self];
    /// From which |x| on the quotient of exponentials is near enough to tanh x.
    const TANH_SMALL: Self;
    /// 2ⁿ of this n and lower ones is taken for 0: far from 1, and far enough from the smallest normal number for products
    /// with it to be normal too, for some CPUs take a hundred cycles for an operation on subnormal ones.
    const LEAST_POWER: i32;
    /// Half the distance to the next number is no more than 64 below this one.
    const FAR: Self;
    /// The nearest number.
    fn from_f64(x: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// An index, up to `u32::MAX`, as the bits of a number: to be moved and selected, nothing else.
    fn from_index(index: usize) -> Self;
    /// The index of [`Number::from_index`].
    fn to_index(self) -> usize;
    /// How many of them a vector of this set holds.
    fn lanes(isa: InstructionSet) -> usize;
    /// Runs a kernel with this set; with the plain one where this CPU lacks it.
    fn dispatch<K: Kernel<Self>>(isa: InstructionSet, kernel: K) -> K::Out;
}

/// Vectors of numbers and what can be done with them. Methods are safe: the token is the proof.
pub trait Simd: Copy + Send + Sync {
    /// What a lane holds.
    type N: Number;
    /// `LANES` numbers.
    type F: Copy + Send + Sync;
    /// How products multiply arrays of bf16.
    type Bf16: Dot<Self>;
    /// How many numbers a vector holds.
    const LANES: usize;
    /// Rows of a register tile of [`COLUMNS`] vectors: enough to hide the latency of a multiply-add.
    const ROWS: usize;
    /// Vectors side by side in a tile of two rows.
    const WIDE: usize;
    /// Bytes of a block of keys and values: that block, the next one and a panel's queries and output share the second
    /// cache.
    const BLOCK: usize = 256 << 10;
    /// A power of 2 that [`Simd::mul_pow2`] multiplies with besides.
    const LIFT: f64 = 1.0;
    /// The same number in every lane.
    fn splat(self, x: Self::N) -> Self::F;
    /// The same number in every lane, rounded from `f64`.
    #[inline(always)]
    fn constant(self, x: f64) -> Self::F {
        self.splat(Self::N::from_f64(x))
    }
    /// `0, 1, 2, …`
    fn lanes(self) -> Self::F;
    /// The `LANES` numbers at `from`.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load_at(self, from: *const Self::N) -> Self::F;
    /// The first `LANES` numbers of `from`.
    #[inline(always)]
    fn load(self, from: &[Self::N]) -> Self::F {
        // SAFETY: the slice index proves that they are readable.
        unsafe { self.load_at(from[..Self::LANES].as_ptr()) }
    }
    /// The `LANES` numbers of type f16 at `from`, by their bits, widened.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load_f16_at(self, from: *const u16) -> Self::F;
    /// As [`Simd::load_f16_at`], of type bf16.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load_bf16_at(self, from: *const u16) -> Self::F;
    /// Writes the lanes to the first `LANES` places of `to`.
    fn store(self, x: Self::F, to: &mut [Self::N]);
    /// As [`Simd::store`], rounded to nearest, ties to even.
    fn store_f16(self, x: Self::F, to: &mut [f16]);
    /// As [`Simd::store_f16`]; a NaN may become anything.
    fn store_bf16(self, x: Self::F, to: &mut [bf16]);
    /// Asks for the cache line at `from`, whatever is there.
    #[inline(always)]
    fn prefetch<A>(self, _from: *const A) {}
    /// Turns a square of `LANES` rows around: `to[j · to_stride + i] = from[i · from_stride + j]`.
    ///
    /// # Safety
    /// `LANES` values are readable at each of the `LANES` rows of `from`, and as many writable at those of `to`.
    unsafe fn transpose_at<L: Lanes<Number = Self::N>>(
        self,
        from: *const L,
        from_stride: usize,
        to: *mut Self::N,
        to_stride: usize,
    );
    /// Turns `[rows, columns]` around, square by square; both are multiples of `LANES`.
    ///
    /// # Panics
    /// When a row lies outside its slice.
    #[inline(always)]
    fn transpose<L: Lanes<Number = Self::N>>(
        self,
        [rows, columns]: [usize; 2],
        from: &[L],
        from_stride: usize,
        to: &mut [Self::N],
        to_stride: usize,
    ) {
        if rows < Self::LANES || columns < Self::LANES {
            return;
        }
        let end =
            |rows: usize, stride: usize, len: usize| (rows - 1).saturating_mul(stride).saturating_add(len);
        assert!(end(rows, from_stride, columns) <= from.len(), "the rows lie in their slice");
        assert!(end(columns, to_stride, rows) <= to.len(), "the columns lie in their slice");
        let (from, to) = (from.as_ptr(), to.as_mut_ptr());
        for row in (0..=rows - Self::LANES).step_by(Self::LANES) {
            for column in (0..=columns - Self::LANES).step_by(Self::LANES) {
                // Apart, for the compiler would keep an address for each row of the square through both loops.
                self.apart(|| {
                    // SAFETY: the asserts above; the square ends before `rows` and `columns` do.
                    unsafe {
                        let from = from.add(row * from_stride + column);
                        self.transpose_at(from, from_stride, to.add(column * to_stride + row), to_stride);
                    }
                });
            }
        }
    }
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once where the set can do that.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a · b + c`, rounded once wherever f64 can help with that.
    #[inline(always)]
    fn mul_add_once(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        self.mul_add(a, b, c)
    }
    /// `a > b ? a : b`: b where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? a : b`: b where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// Whether `a < b` in any lane.
    fn any_less(self, a: Self::F, b: Self::F) -> bool;
    /// `a < b ? yes : no`, by lane; no where either is NaN.
    fn select_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// `(n, f)` with whole n, |f| ≤ ½ and n + f = x, exactly where |x| < 2²²; (−∞ or very low, anything
    /// finite) for −∞, NaN twice for NaN. How n is written is known to [`Simd::mul_pow2`] alone.
    fn split(self, x: Self::F) -> (Self::F, Self::F);
    /// `x · 2ⁿ · LIFT` for the n that [`Simd::split`] gives, up to 64; 0 from [`Number::LEAST_POWER`] on downwards.
    fn mul_pow2(self, x: Self::F, n: Self::F) -> Self::F;
    /// Calls `work`, as a function of its own where registers are few: inlined, the compiler would keep what
    /// comes after in registers, and sums in memory. `work` is one call of an `#[inline(always)]` function.
    #[inline(always)]
    fn apart(self, work: impl FnOnce()) {
        work();
    }
    /// Called after each step of a register tile: where registers are few, the compiler must not load vectors of
    /// the next step before, for it would keep a sum in memory instead.
    #[inline(always)]
    fn end_step(self) {}
    /// Called between the steps of a computation on several vectors: where the CPU looks not far ahead, the compiler must
    /// not put one vector's steps all before the next one's.
    #[inline(always)]
    fn abreast<const V: usize>(self, x: [Self::F; V]) -> [Self::F; V] {
        x
    }
    /// The sum of the lanes, in pairs of halves.
    fn sum(self, x: Self::F) -> Self::N;
    /// The sums of the lanes of each, all in the same order.
    #[inline(always)]
    fn sums(self, [a, b, c, d]: [Self::F; 4]) -> [Self::N; 4] {
        [self.sum(a), self.sum(b), self.sum(c), self.sum(d)]
    }
}

/// Something to run with vectors, whatever the set. Implementations of `run` are `#[inline(always)]`, so
/// that they are compiled inside the trampoline of each set.
pub trait Kernel<N> {
    /// What comes out.
    type Out;
    /// Runs with the vectors of `simd`.
    fn run<S: Simd<N = N>>(self, simd: S) -> Self::Out;
}

impl Number for f32 {
    // A weighted minimax fit, then the last bits searched for the smallest error of the whole computation.
    const EXP2: &'static [f32] = &[
        1.0,
        std::f32::consts::LN_2,
        0.240_226_45,
        0.055_503_327,
        0.009_618_437,
        0.001_339_887_4,
        0.000_153_533_62,
    ];
    const TANH_SMALL: f32 = 0.625;
    const FAR: f32 = (1u64 << 31) as f32;
    const LEAST_POWER: i32 = -100;

    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn from_index(index: usize) -> Self {
        Self::from_bits(index as u32)
    }
    #[inline(always)]
    fn to_index(self) -> usize {
        self.to_bits() as usize
    }
    fn lanes(isa: InstructionSet) -> usize {
        match isa {
            InstructionSet::Scalar => 4,
            InstructionSet::Avx2 => 8,
            InstructionSet::Avx512 => 16,
        }
    }
    fn dispatch<K: Kernel<f32>>(isa: InstructionSet, kernel: K) -> K::Out {
        #[cfg(target_arch = "x86_64")]
        match isa {
            InstructionSet::Avx512 => {
                if let Some(token) = avx512::Avx512::new() {
                    return token.enter(token, kernel);
                }
            }
            InstructionSet::Avx2 => {
                if let Some(token) = avx2::Avx2::new() {
                    return token.enter(token, kernel);
                }
            }
            InstructionSet::Scalar => {}
        }
        kernel.run(scalar::Scalar::<f32, 4, false>::new())
    }
}

impl Number for f64 {
    // (ln 2)ᵏ / k!: the fourteenth term is below a quarter of the last place.
    const EXP2: &'static [f64] = &[
        1.0,
        std::f64::consts::LN_2,
        0.2402265069591007,
        0.055504108664821576,
        0.009618129107628477,
        0.0013333558146428441,
        0.00015403530393381606,
        1.5252733804059838e-05,
        1.3215486790144305e-06,
        1.0178086009239696e-07,
        7.054911620801121e-09,
        4.44553827187081e-10,
        2.5678435993488196e-11,
        1.3691488853904124e-12,
    ];
    const TANH_SMALL: f64 = 0.0;
    const FAR: f64 = (1u64 << 60) as f64;
    const LEAST_POWER: i32 = -990;

    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn from_index(index: usize) -> Self {
        Self::from_bits(index as u64)
    }
    #[inline(always)]
    fn to_index(self) -> usize {
        self.to_bits() as usize
    }
    fn lanes(isa: InstructionSet) -> usize {
        match isa {
            InstructionSet::Scalar => 2,
            InstructionSet::Avx2 => 4,
            InstructionSet::Avx512 => 8,
        }
    }
    // Arrays, which the compiler turns into the vectors of the trampoline.
    fn dispatch<K: Kernel<f64>>(isa: InstructionSet, kernel: K) -> K::Out {
        #[cfg(target_arch = "x86_64")]
        match isa {
            InstructionSet::Avx512 => {
                if let Some(token) = avx512::Avx512::new() {
                    return token.enter(scalar::Scalar::<f64, 8, true>::new(), kernel);
                }
            }
            InstructionSet::Avx2 => {
                if let Some(token) = avx2::Avx2::new() {
                    return token.enter(scalar::Scalar::<f64, 4, true>::new(), kernel);
                }
            }
            InstructionSet::Scalar => {}
        }
        kernel.run(scalar::Scalar::<f64, 2, false>::new())
    }
}

/// An instruction set for the fused path. All give the same answer within rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstructionSet {
    /// Plain Rust, on every CPU.
    Scalar,
    /// AVX2 with FMA: 8 numbers at a time.
    Avx2,
    /// AVX-512F: 16 numbers at a time.
    Avx512,
}

/// Names an instruction set that every request without one of its own uses.
const VARIABLE: &str = "GLASSHEAD_ISA";

impl InstructionSet {
    /// All sets, the best last.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// The name that the command line takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The set of this name, whether this CPU has it or not.
    ///
    /// # Errors
    /// [`AttentionError::UnknownInstructionSet`]
    pub fn from_name(name: &str) -> Result<Self, AttentionError> {
        let unknown = || AttentionError::UnknownInstructionSet(name.to_owned());
        Self::ALL.into_iter().find(|set| set.name() == name).ok_or_else(unknown)
    }

    /// How many f32 it computes at a time.
    pub fn lanes(self) -> usize {
        <f32 as Number>::lanes(self)
    }

    /// Whether this CPU has it.
    pub fn is_here(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::Avx2::new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::Avx512::new().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// The sets of this CPU, the best last.
    pub fn here() -> Vec<Self> {
        Self::ALL.into_iter().filter(|set| set.is_here()).collect()
    }

    pub(crate) fn names_here() -> String {
        Self::here().into_iter().map(Self::name).collect::<Vec<_>>().join(", ")
    }

    /// The set that a request without one of its own uses: that of the environment variable
    /// `GLASSHEAD_ISA`, else the best of this CPU.
    ///
    /// # Errors
    /// When the variable names an unknown set, or one that this CPU lacks.
    pub fn default_here() -> Result<Self, AttentionError> {
        static DEFAULT: OnceLock<Result<InstructionSet, AttentionError>> = OnceLock::new();
        DEFAULT
            .get_or_init(|| match std::env::var(VARIABLE) {
                Ok(name) if !name.is_empty() => Self::from_name(&name)?.checked(),
                _ => Ok(Self::here().pop().unwrap_or(Self::Scalar)),
            })
            .clone()
    }

    /// The set asked for, or the default.
    pub(crate) fn choose(asked: Option<Self>) -> Result<Self, AttentionError> {
        asked.map_or_else(Self::default_here, Self::checked)
    }

    fn checked(self) -> Result<Self, AttentionError> {
        if self.is_here() { Ok(self) } else { Err(AttentionError::MissingInstructionSet { asked: self }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Operations;

    impl Kernel<f32> for Operations {
        type Out = Vec<Vec<f32>>;

        #[inline(always)]
        fn run<S: Simd<N = f32>>(self, simd: S) -> Self::Out {
            let nan = simd.splat(f32::NAN);
            let (two, three) = (simd.splat(2.0), simd.splat(3.0));
            let lanes = simd.lanes();
            let times = |x: f32| simd.mul_pow2(simd.constant(3.0 / S::LIFT), simd.split(simd.splat(x)).0);
            let results = [
                simd.add(two, three),
                simd.sub(two, three),
                simd.mul(two, three),
                simd.div(three, two),
                simd.mul_add(two, three, two),
                simd.max(two, three),
                simd.max(two, nan),
                simd.max(nan, two),
                simd.select_less(two, three, lanes, nan),
                simd.select_less(nan, three, nan, two),
                simd.split(simd.splat(-3.75)).1,
                times(2.25),
                times(-99.0),
                times(-100.0),
                times(4.0),
            ];
            let mut out = vec![vec![0.0; S::LANES]; results.len()];
            for (out, result) in out.iter_mut().zip(results) {
                simd.store(result, out);
            }
            let loaded = simd.load(&(0..S::LANES).map(|i| i as f32).collect::<Vec<_>>());
            let mut back = vec![0.0; S::LANES];
            simd.store(loaded, &mut back);
            out.push(back);
            let rows = [lanes, simd.mul(lanes, three), two, simd.sub(lanes, two)];
            out.push(simd.sums(rows).to_vec());
            out.push(rows.map(|row| simd.sum(row)).to_vec());
            let square: Vec<f32> = (0..S::LANES * (S::LANES + 3)).map(|i| i as f32).collect();
            let mut turned = vec![-1.0; S::LANES * (S::LANES + 1)];
            simd.transpose([S::LANES; 2], &square, S::LANES + 3, &mut turned, S::LANES + 1);
            out.push(turned);
            out
        }
    }

    #[test]
    fn every_set_of_this_machine_does_the_same() {
        let tiny = 3.0 * 2f32.powi(-99);
        let first =
            [5.0, -1.0, 6.0, 1.5, 8.0, 3.0, f32::NAN, 2.0, 0.0, 2.0, 0.25, 12.0, tiny, 0.0, 48.0, 0.0];
        for set in InstructionSet::ALL {
            if !set.is_here() {
                eprintln!("NOT TESTED: this CPU has no {}", set.name());
                continue;
            }
            let got = f32::dispatch(set, Operations);
            let same = |x: f32, y: f32| x == y || x.is_nan() && y.is_nan();
            for (at, (row, expected)) in got.iter().zip(first).enumerate() {
                assert!(same(row[0], expected), "{set:?}: {row:?}, expected {expected}");
                // The lanes of the ramps differ.
                let all = row.iter().all(|x| same(*x, expected));
                assert!(all || [8, 15].contains(&at), "{set:?}: {row:?}, expected {expected} in every lane");
            }
            let ramp: Vec<f32> = (0..got[0].len()).map(|i| i as f32).collect();
            assert_eq!(got[8], ramp, "{set:?}");
            assert_eq!(got[15], ramp, "{set:?}");
            let lanes = ramp.len();
            assert_eq!(got[16], got[17], "{set:?}");
            for (at, x) in got[18].iter().enumerate() {
                let (j, i) = (at / (lanes + 1), at % (lanes + 1));
                let expected = if i < lanes { (i * (lanes + 3) + j) as f32 } else { -1.0 };
                assert_eq!(*x, expected, "{set:?} [{j}, {i}]");
            }
        }
    }

    #[test]
    fn a_missing_set_is_an_error_and_no_fallback() {
        for set in InstructionSet::ALL {
            assert_eq!(InstructionSet::choose(Some(set)).is_ok(), set.is_here());
        }
        assert!(InstructionSet::from_name("avx1024").is_err());
    }
}
