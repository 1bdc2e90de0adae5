//! Numbers as small as a page can show them: rounded to a byte or two, deflated, in base64.
//!
//! A share in one byte lies on a logarithmic scale: 255 is 1, every step down divides by 10^(6/254), and 0 is
//! whatever is below 1e-6. That is a relative error of at most [`BYTE_ERROR`], where a picture shows less.

use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::DeflateEncoder};

/// Powers of ten between the bytes 1 and 255.
pub(super) const DECADES: f64 = 6.0;
const STEPS: f64 = 254.0;
/// Half a step: 10^(6/254/2) − 1.
#[cfg(test)]
const BYTE_ERROR: f64 = 0.0276;

/// A share in a byte; NaN and everything below 1e-6 is 0.
pub(super) fn byte_of(share: f64) -> u8 {
    // `as` saturates, and makes 0 of NaN.
    (255.0 + share.log10() * STEPS / DECADES).round() as u8
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
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes)?;
    Ok(STANDARD.encode(encoder.finish()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_near_its_share() {
        let back = |byte: u8| 10f64.powf((f64::from(byte) - 255.0) * DECADES / STEPS);
        for step in 0..=1200 {
            let share = 10f64.powf(-f64::from(step) / 200.0);
            let error = (back(byte_of(share)) / share - 1.0).abs();
            assert!(error <= BYTE_ERROR, "{share}: off by {error}");
        }
        assert_eq!([0.0, 1e-9, f64::NAN, -1.0, 1.0, 2.0].map(byte_of), [0, 0, 0, 0, 255, 255]);
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
