//! Numbers as small as a page can show them: rounded to a byte or two, deflated, in base64.
//!
//! The share of a token in one head lies on a logarithmic scale: the largest byte is 1, every step down divides by
//! 10^(5/30), and 0 is whatever is below 1e-5. That is a relative error of at most [`BYTE_ERROR`], where a picture shows
//! less. What is coloured by its square root is rounded by its square root: every step is one of the colours.

use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::DeflateEncoder};

/// Powers of ten between the smallest byte and the largest.
pub(super) const DECADES: f64 = 5.0;
/// Steps between them.
pub(super) const STEPS: f64 = 30.0;
/// Half a step: 10^(5/30/2) − 1.
#[cfg(test)]
const BYTE_ERROR: f64 = 0.212;
/// Steps of a square root from 0 to 1: in a map, and of a heaviest key.
pub(super) const SHADES: f64 = 40.0;
pub(super) const FINE_SHADES: f64 = 255.0;

/// A share in a byte; NaN and everything below 1e-5 is 0.
pub(super) fn byte_of(share: f64) -> u8 {
    // `as` saturates, and makes 0 of NaN.
    (STEPS + 1.0 + share.log10() * STEPS / DECADES).round().clamp(0.0, STEPS + 1.0) as u8
}

/// The square root of a share in a byte, in so many steps: a share is off by at most √share / steps.
pub(super) fn root_of(share: f64, steps: f64) -> u8 {
    (share.clamp(0.0, 1.0).sqrt() * steps).round() as u8
}

/// Every row of a map as what it adds to the row above, modulo 256: what is alike is smaller when it is deflated.
pub(super) fn to_differences(map: &mut [u8], side: usize) {
    for at in (side..map.len()).rev() {
        map[at] = map[at].wrapping_sub(map[at - side]);
    }
}

/// A share in two bytes, in steps of 1/65535.
pub(super) fn word_of(share: f64) -> u16 {
    (share * 65535.0).round() as u16
}

/// Numbers as little-endian float32, in base64.
pub(super) fn floats(values: impl IntoIterator<Item = f64>) -> String {
    let bytes: Vec<u8> = values.into_iter().flat_map(|x| (x as f32).to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

/// Bytes deflated (RFC 1951), in base64.
pub(super) fn deflated(bytes: &[u8]) -> io::Result<String> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(STANDARD.encode(encoder.finish()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_near_its_share() {
        let back = |byte: u8| 10f64.powf((f64::from(byte) - STEPS - 1.0) * DECADES / STEPS);
        for step in 0..=1000 {
            let share = 10f64.powf(-f64::from(step) / 200.0);
            let error = (back(byte_of(share)) / share - 1.0).abs();
            assert!(error <= BYTE_ERROR, "{share}: off by {error}");
        }
        let one = STEPS as u8 + 1;
        assert_eq!([0.0, 1e-8, f64::NAN, -1.0, 1.0, 2.0].map(byte_of), [0, 0, 0, 0, one, one]);
    }

    #[test]
    fn a_root_is_near_its_share() {
        for steps in [SHADES, FINE_SHADES] {
            for step in 0..=1000 {
                let share = f64::from(step) / 1000.0;
                let back = (f64::from(root_of(share, steps)) / steps).powi(2);
                let most = (share.sqrt() + 0.5 / steps) / steps;
                assert!((back - share).abs() <= most, "{share}: {back}");
            }
            assert_eq!([f64::NAN, -0.5, 1.5].map(|share| root_of(share, steps)), [0, 0, steps as u8]);
        }
    }

    #[test]
    fn differences_add_up_again() {
        let map = [3, 200, 7, 5, 1, 7, 255, 0, 9];
        let mut packed = map;
        to_differences(&mut packed, 3);
        assert_eq!(packed[..6], [3, 200, 7, 2, 57, 0]);
        for at in 3..9 {
            packed[at] = packed[at].wrapping_add(packed[at - 3]);
        }
        assert_eq!(packed, map);
    }

    #[test]
    fn two_bytes_are_near_their_share() {
        for step in 0..=1000 {
            let share = f64::from(step) / 1000.0;
            assert!((f64::from(word_of(share)) / 65535.0 - share).abs() <= 0.5 / 65535.0 + 1e-12);
        }
        assert_eq!([f64::NAN, -0.5, 1.5].map(word_of), [0, 0, 65535]);
    }

    #[test]
    fn what_is_deflated_comes_back() {
        let bytes: Vec<u8> = (0..10_000u32).map(|x| ((x * x) >> 7) as u8).collect();
        let packed = STANDARD.decode(deflated(&bytes).unwrap()).unwrap();
        let mut back = flate2::write::DeflateDecoder::new(Vec::new());
        back.write_all(&packed).unwrap();
        assert_eq!(back.finish().unwrap(), bytes);
    }
}
