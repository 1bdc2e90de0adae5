//! The worked example `quick-brown-fox`: nine words, nine vectors, the raw scores of `jumps`.

use super::{Encoded, Given, Matrix};
use crate::text::Unit;

/// The sentence.
pub const TEXT: &str = "The quick brown fox jumps over the lazy dog";
/// The focus word where none is asked for.
pub const FOCUS: &str = "jumps";
/// The raw scores of `jumps`, given and not computed from the vectors.
pub const SCORES: [f64; 9] = [0.2, 0.8, 0.4, 1.0, 1.0, 0.6, 0.2, 0.3, 0.5];
/// A row that was published as the softmax of these scores, and is none.
pub const CLAIMED: &str = "0.06, 0.21, 0.10, 0.27, 0.27, 0.16, 0.06, 0.08, 0.13";

/// The example, with the given scores for `jumps`. Word p (from 0) is (3p+1, 3p+2, 3p+3)/10; q = k = v.
pub fn encoded() -> Encoded {
    let mut vectors = Matrix::new(3);
    for word in 0..9 {
        vectors.push((1..=3).map(|x| f64::from(3 * word + x) / 10.0));
    }
    let mut encoded = from_words(TEXT.to_owned(), vectors);
    let focus = encoded.units.iter().position(|unit| unit.text == FOCUS);
    encoded.given = focus.map(|focus| Given { focus, scores: SCORES.to_vec() });
    encoded
}

/// Words apart by white space, one vector each, which is query, key and value at once.
pub(super) fn from_words(text: String, vectors: Matrix) -> Encoded {
    let mut end = 0;
    let units: Vec<Unit> = text
        .split_whitespace()
        .enumerate()
        .map(|(index, word)| {
            let start = end + text[end..].find(word).unwrap_or(0);
            end = start + word.len();
            Unit { text: word.to_owned(), start, end, special: false, pieces: vec![index] }
        })
        .collect();
    Encoded {
        pieces: units.iter().map(|unit| unit.text.clone()).collect(),
        units,
        text,
        scale: 1.0 / (vectors.columns() as f64).sqrt(),
        q: vectors.clone(),
        k: vectors.clone(),
        v: vectors.clone(),
        encoding: vectors,
        temperature: 1.0,
        causal: false,
        given: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_steps_of_jumps() {
        let steps = encoded().steps(4).unwrap();
        let weights =
            [0.074397, 0.135560, 0.090868, 0.165573, 0.165573, 0.110987, 0.074397, 0.082221, 0.100425];
        assert!(steps.weights.iter().zip(weights).all(|(a, b)| (a - b).abs() < 5e-7), "{:?}", steps.weights);
        assert!((steps.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let output = [1.256971, 1.356971, 1.456971];
        assert!(steps.output.iter().zip(output).all(|(a, b)| (a - b).abs() < 5e-7), "{:?}", steps.output);
        assert_eq!(steps.contributions.rows(), 9);
        assert_eq!(steps.weights[3], steps.weights[4]);
        assert_eq!(encoded().units[6].start, 31);
    }
}
