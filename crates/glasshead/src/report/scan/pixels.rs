//! A picture as PNG, with an 8 × 8 font that travels along (the public-domain glyphs of the crate `font8x8`):
//! no font of the system is needed. A sign that the font lacks is drawn as a box; the metadata of the file
//! holds the recipe in full.

use font8x8::UnicodeFonts;

use super::picture::{CHARACTER, Colour, LINE, Picture, Shape};
use crate::look::scan::Scan;
use crate::weights::Writer;
use crate::{Error, Result};

/// Pixels of the file per pixel of the picture, in both directions.
const SCALE: usize = 2;
/// What a sign without a glyph looks like.
const BOX: [u8; 8] = [0x7e, 0x42, 0x42, 0x42, 0x42, 0x42, 0x7e, 0];

/// Rows of red, green and blue bytes.
struct Canvas {
    width: usize,
    bytes: Vec<u8>,
}

pub(super) fn png<'a>(picture: &Picture, scan: &'a Scan) -> Result<Writer<'a>> {
    let (width, height) = (picture.width * SCALE, picture.height * SCALE);
    let size = (u32::try_from(width), u32::try_from(height), width.checked_mul(height * 3));
    let (Ok(wide), Ok(high), Some(bytes)) = size else {
        return Err(Error::request("the picture is too large for PNG", "write it as SVG, or scan less text"));
    };
    let mut canvas = Canvas { width, bytes: vec![255; bytes] };
    for shape in &picture.shapes {
        match shape {
            Shape::Rectangle(place, colour) => canvas.fill(place.map(|x| x * SCALE), *colour),
            Shape::Text([x, y], colour, text) => {
                for (index, sign) in text.chars().enumerate() {
                    let left = x + index * CHARACTER;
                    canvas.sign(sign, [left * SCALE, (y + (LINE - 8) / 2) * SCALE], *colour);
                }
            }
        }
    }
    let title = picture.title.clone();
    Ok(Box::new(move |out| {
        let mut encoder = png::Encoder::new(out, wide, high);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.add_itxt_chunk("Title".into(), title)?;
        for (name, value) in scan.metadata() {
            encoder.add_itxt_chunk(name, value)?;
        }
        let mut writer = encoder.write_header().map_err(io_error)?;
        writer.write_image_data(&canvas.bytes).map_err(io_error)?;
        writer.finish().map_err(io_error)
    }))
}

impl Canvas {
    /// A rectangle; what lies outside is left out.
    fn fill(&mut self, [x, y, width, height]: [usize; 4], colour: Colour) {
        let (left, right) = (x.min(self.width), (x + width).min(self.width));
        for row in self.bytes.chunks_exact_mut(3 * self.width).skip(y).take(height) {
            row[3 * left..3 * right].as_chunks_mut().0.fill(colour);
        }
    }

    fn sign(&mut self, sign: char, [x, y]: [usize; 2], colour: Colour) {
        for (row, bits) in glyph(sign).into_iter().enumerate() {
            for column in (0..8).filter(|column| bits >> column & 1 == 1) {
                self.fill([x + column * SCALE, y + row * SCALE, SCALE, SCALE], colour);
            }
        }
    }
}

/// Eight rows of eight bits, the lowest one left.
fn glyph(sign: char) -> [u8; 8] {
    let plain = match sign {
        '“' | '”' | '„' => '"',
        '‘' | '’' => '\'',
        '–' | '—' | '−' => '-',
        '\u{a0}' => ' ',
        sign => sign,
    };
    font8x8::BASIC_FONTS
        .get(plain)
        .or_else(|| font8x8::LATIN_FONTS.get(plain))
        .or_else(|| font8x8::GREEK_FONTS.get(plain))
        .or_else(|| font8x8::HIRAGANA_FONTS.get(plain))
        .or_else(|| font8x8::BOX_FONTS.get(plain))
        .unwrap_or(BOX)
}

/// A full disk is told as such, not as an error of the format.
fn io_error(error: png::EncodingError) -> std::io::Error {
    match error {
        png::EncodingError::IoError(cause) => cause,
        error => std::io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_over_the_edge_is_cut() {
        let mut canvas = Canvas { width: 4, bytes: vec![255; 4 * 3 * 3] };
        canvas.fill([3, 2, 9, 9], [1, 2, 3]);
        canvas.fill([9, 9, 1, 1], [1, 2, 3]);
        assert_eq!(canvas.bytes.iter().filter(|&&x| x != 255).count(), 3);
        assert_eq!(canvas.bytes[4 * 3 * 3 - 3..], [1, 2, 3]);
    }

    #[test]
    fn every_sign_has_a_look() {
        assert_eq!(glyph('—'), glyph('-'));
        assert_ne!(glyph('ä'), BOX);
        assert_eq!(glyph('🦀'), BOX);
    }
}
