//! The number types that q, k and v may have.

use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// A number type of q, k, v and the output: `f32`, `f64`, `f16` or `bf16`.
pub trait Element:
    sealed::Sealed + Copy + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static
{
    /// True where `f32` arithmetic would lose digits of the input: such arrays take the f64 path.
    const WIDER_THAN_F32: bool;
    /// To `f64`, exact for all four types.
    fn to_f64(self) -> f64;
    /// To `f32`, exact for all but `f64`.
    fn to_f32(self) -> f32;
    /// From `f64`, rounded to nearest, ties to even.
    fn from_f64(value: f64) -> Self;
    /// From `f32`, rounded to nearest, ties to even.
    fn from_f32(value: f32) -> Self;
    /// The slice itself where the type is `f32`: such rows are used where they lie, without a copy.
    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl Element for f32 {
    const WIDER_THAN_F32: bool = false;
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn from_f32(value: f32) -> Self {
        value
    }
    fn as_f32(values: &[Self]) -> Option<&[f32]> {
        Some(values)
    }
}

impl Element for f64 {
    const WIDER_THAN_F32: bool = true;
    fn to_f64(self) -> f64 {
        self
    }
    fn to_f32(self) -> f32 {
        self as f32
    }
    fn from_f64(value: f64) -> Self {
        value
    }
    fn from_f32(value: f32) -> Self {
        f64::from(value)
    }
}

macro_rules! half_element {
    ($type:ty) => {
        impl Element for $type {
            const WIDER_THAN_F32: bool = false;
            fn to_f64(self) -> f64 {
                <$type>::to_f64(self)
            }
            fn to_f32(self) -> f32 {
                <$type>::to_f32(self)
            }
            fn from_f64(value: f64) -> Self {
                <$type>::from_f64(value)
            }
            fn from_f32(value: f32) -> Self {
                <$type>::from_f32(value)
            }
        }
    };
}
half_element!(f16);
half_element!(bf16);
