//! What is read: a text file byte for byte, or a list of token ids.

use std::io::Read as _;
use std::path::Path;

use crate::weights::read_small;
use crate::{Error, Result};

/// More text than any model reads.
const MAX_TEXT: u64 = 64 << 20;

/// The text of a file, byte for byte; `-` is standard input.
///
/// # Errors
/// A file that cannot be read, is too large, or is not UTF-8 (the error says at which byte).
pub fn text_from_file(path: &Path) -> Result<String> {
    let is_stream = path == Path::new("-");
    let name = if is_stream { "standard input".to_owned() } else { path.display().to_string() };
    let bytes = if is_stream { standard_input()? } else { read_small(path, MAX_TEXT)? };
    String::from_utf8(bytes).map_err(|error| {
        Error::request(
            format!("{name} is not UTF-8 text: byte {} is none", error.utf8_error().valid_up_to()),
            "convert it to UTF-8, for instance with iconv -t UTF-8",
        )
    })
}

fn standard_input() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(|cause| {
        Error::environment(format!("standard input cannot be read: {cause}"), "give the text as a file")
    })?;
    if bytes.len() as u64 > MAX_TEXT {
        let what = format!("standard input has more than {} MB", MAX_TEXT >> 20);
        return Err(Error::request(what, "no model reads so much; give a part of it"));
    }
    Ok(bytes)
}

/// The token ids of a JSON list.
///
/// # Errors
/// A file that cannot be read, is too large, or holds something else.
pub fn ids_from_file(path: &Path) -> Result<Vec<u32>> {
    serde_json::from_slice(&read_small(path, MAX_TEXT)?).map_err(|cause| {
        Error::request(
            format!("{} is no list of token ids: {cause}", path.display()),
            "give a JSON list of whole numbers from 0, like [101, 2023, 102]",
        )
    })
}
