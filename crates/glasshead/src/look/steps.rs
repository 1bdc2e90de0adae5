//! The four steps for one focus unit: encode, score, softmax, weighted values.
//!
//! A unit is a token, or a word of several tokens (its pieces). Numbers are computed piece by piece and
//! then merged so that every table still adds up: a word's weight is the sum over its pieces, a focus
//! word's own row the mean over its pieces.

use glasshead_attention::{Attention, AttentionError, Causal, Mask, MaskValues, TensorView, reference};

use super::Matrix;
use crate::{Error, Result, text::Unit};

/// All that the four steps need: one text, encoded for one head.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// The text.
    pub text: String,
    /// What is shown: words or tokens.
    pub units: Vec<Unit>,
    /// The text of every piece.
    pub pieces: Vec<String>,
    /// `[pieces, dim]`: the vectors that enter the layer.
    pub encoding: Matrix,
    /// `[pieces, head_dim]`: what each piece asks for.
    pub q: Matrix,
    /// `[pieces, head_dim]`: what each piece offers to be found by.
    pub k: Matrix,
    /// `[pieces, value_dim]`: what each piece hands over.
    pub v: Matrix,
    /// What q·k is multiplied with.
    pub scale: f64,
    /// What scores are divided by.
    pub temperature: f64,
    /// A piece sees only itself and what stands before it.
    pub causal: bool,
    /// Scores that are given instead of computed.
    pub given: Option<Given>,
}

/// Raw scores for one focus unit, used as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// The unit.
    pub focus: usize,
    /// One score per unit; −∞ hides it.
    pub scores: Vec<f64>,
}

/// The numbers of the four steps, one entry per unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    /// The focus unit.
    pub focus: usize,
    /// Whether the scores were given, so that q and k played no part.
    pub given: bool,
    /// `[head_dim]`: q of the focus.
    pub query: Vec<f64>,
    /// `[units, head_dim]`
    pub keys: Matrix,
    /// `[units, value_dim]`
    pub values: Matrix,
    /// q·k before scale and mask, where the unit and the focus are one piece each.
    pub dots: Vec<Option<f64>>,
    /// After scale, temperature and mask; `None` where hidden.
    pub scores: Vec<Option<f64>>,
    /// Their softmax.
    pub weights: Vec<f64>,
    /// `[units, value_dim]`: weight × value.
    pub contributions: Matrix,
    /// `[value_dim]`: the sum of the contributions, the new vector.
    pub output: Vec<f64>,
    /// The largest difference between `output` and what the fused f32 kernel gives for the same row.
    pub max_abs_error: f64,
}

impl Steps {
    /// weight × length of the value vector, per unit.
    pub fn influence(&self) -> Vec<f64> {
        self.contributions.iter().map(super::matrix::length).collect()
    }

    /// −Σ p ln p of the weights, in nats.
    pub fn entropy(&self) -> f64 {
        -self.weights.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>()
    }
}

impl Encoded {
    /// The four steps for the unit `focus`.
    ///
    /// # Errors
    /// When no key is visible to the focus, or numbers overflow.
    ///
    /// # Panics
    /// When `focus` is not a unit.
    pub fn steps(&self, focus: usize) -> Result<Steps> {
        let asking = &self.units[focus].pieces;
        let given = self.given.as_ref().filter(|given| given.focus == focus);
        let rows = match given {
            Some(given) => vec![given_row(&given.scores, self.temperature)],
            None => asking
                .iter()
                .map(|&piece| self.computed_row(piece))
                .collect::<Result<_, _>>()
                .map_err(impossible)?,
        };
        if rows.iter().any(|row| !row.lse.is_finite()) {
            return Err(Error::request(
                format!("the scores of \"{}\" have no softmax: {}", self.units[focus].text, why_not(&rows)),
                "check the vectors, --scale and --scores for numbers that are far too large, or a mask that hides everything",
            ));
        }
        let mut steps = self.merge(focus, &rows);
        steps.given = given.is_some();
        if !steps.given && asking.len() == 1 {
            let dot = |unit: &Unit| match unit.pieces[..] {
                [piece] => Some(dot(self.q.row(asking[0]), self.k.row(piece))),
                _ => None,
            };
            steps.dots = self.units.iter().map(dot).collect();
        }
        let fused = self.fused(asking, given).map_err(impossible)?;
        // NaN is the largest of all.
        let off = steps.output.iter().zip(fused).map(|(a, b)| (a - b).abs());
        steps.max_abs_error = off.max_by(f64::total_cmp).unwrap_or(0.0);
        Ok(steps)
    }

    /// One piece's row from the reference, with scores divided by the temperature.
    fn computed_row(&self, piece: usize) -> Result<PieceRow, AttentionError> {
        let mut request = Attention::new(view(&self.q)?, view(&self.k)?, view(&self.v)?)
            .scale(self.scale / self.temperature);
        if self.causal {
            request = request.causal(Causal::TopLeft);
        }
        let row = reference::row(&request, 0, 0, piece)?;
        let mut scores = vec![f64::NEG_INFINITY; self.pieces.len()];
        let mut weights = vec![0.0; self.pieces.len()];
        for ((&key, &score), &weight) in row.keys.iter().zip(&row.scores).zip(&row.weights) {
            (scores[key], weights[key]) = (score, weight);
        }
        Ok(PieceRow { scores, weights, lse: row.lse })
    }

    /// Merges the rows of the focus' pieces into one row over units.
    fn merge(&self, focus: usize, rows: &[PieceRow]) -> Steps {
        let share = 1.0 / rows.len() as f64;
        let lse = rows.iter().map(|row| row.lse * share).sum::<f64>();
        let mut steps = Steps {
            focus,
            given: false,
            query: self.q.mean(&self.units[focus].pieces),
            keys: Matrix::new(self.k.columns()),
            values: Matrix::new(self.v.columns()),
            dots: vec![None; self.units.len()],
            scores: Vec::new(),
            weights: Vec::new(),
            contributions: Matrix::new(self.v.columns()),
            output: vec![0.0; self.v.columns()],
            max_abs_error: 0.0,
        };
        for unit in &self.units {
            let mut contribution = vec![0.0; self.v.columns()];
            let mut weight = 0.0;
            for row in rows {
                for &piece in &unit.pieces {
                    let p = row.weights[piece] * share;
                    weight += p;
                    // A hidden value is not multiplied with 0: it may be NaN.
                    if p > 0.0 {
                        for (sum, value) in contribution.iter_mut().zip(self.v.row(piece)) {
                            *sum += p * value;
                        }
                    }
                }
            }
            let seen =
                rows.iter().any(|row| unit.pieces.iter().any(|&piece| row.scores[piece] > f64::NEG_INFINITY));
            let single = rows.len() == 1 && unit.pieces.len() == 1;
            steps.scores.push(match (seen, single) {
                (false, _) => None,
                (true, true) => Some(rows[0].scores[unit.pieces[0]]),
                // The score whose softmax is the merged weight: for one focus piece, ln Σ exp over the pieces.
                (true, false) => Some(weight.ln() + lse),
            });
            steps.values.push(match unit.pieces[..] {
                [piece] => self.v.row(piece).to_vec(),
                _ if weight > 0.0 => contribution.iter().map(|x| x / weight).collect(),
                _ => self.v.mean(&unit.pieces),
            });
            steps.keys.push(self.k.mean(&unit.pieces));
            for (sum, x) in steps.output.iter_mut().zip(&contribution) {
                *sum += x;
            }
            steps.weights.push(weight);
            steps.contributions.push(contribution);
        }
        steps
    }

    /// The same output from the fused kernel in f32: a second computation, to check the first.
    fn fused(&self, asking: &[usize], given: Option<&Given>) -> Result<Vec<f64>, AttentionError> {
        let narrow = |matrix: &Matrix| matrix.values().iter().map(|&x| x as f32).collect::<Vec<_>>();
        let (k, v) = (narrow(&self.k), narrow(&self.v));
        let keys = self.pieces.len();
        let v = TensorView::contiguous(&v, [1, 1, keys, self.v.columns()])?;
        let scores: Vec<f64>;
        let rows = match given {
            // Given scores enter as a mask that is added to q·k = 0.
            Some(given) => {
                scores = given.scores.iter().map(|score| score / self.temperature).collect();
                let zeros = vec![0f32; keys];
                let k = TensorView::contiguous(&zeros, [1, 1, keys, 1])?;
                let q = TensorView::contiguous(&zeros, [1, 1, 1, 1])?;
                Attention::new(q, k, v).mask(Mask::new(MaskValues::F64(&scores), &[keys])?).run()?.out
            }
            None => {
                let k = TensorView::contiguous(&k, [1, 1, keys, self.k.columns()])?;
                let mut rows = Vec::new();
                for &piece in asking {
                    let q: Vec<f32> = self.q.row(piece).iter().map(|&x| x as f32).collect();
                    let q = TensorView::contiguous(&q, [1, 1, 1, self.q.columns()])?;
                    let mut request = Attention::new(q, k, v).scale(self.scale / self.temperature);
                    if self.causal {
                        request = request.causal(Causal::Offset(piece as i64));
                    }
                    rows.extend(request.run()?.out);
                }
                rows
            }
        };
        let count = (rows.len() / self.v.columns()) as f64;
        let mut mean = vec![0.0; self.v.columns()];
        for row in rows.chunks_exact(self.v.columns()) {
            for (mean, x) in mean.iter_mut().zip(row) {
                *mean += f64::from(*x) / count;
            }
        }
        Ok(mean)
    }
}

/// One piece's row over all pieces: −∞ and weight 0 where hidden.
struct PieceRow {
    scores: Vec<f64>,
    weights: Vec<f64>,
    lse: f64,
}

fn given_row(scores: &[f64], temperature: f64) -> PieceRow {
    let scores: Vec<f64> = scores.iter().map(|score| score / temperature).collect();
    let mut weights = vec![0.0; scores.len()];
    let lse = reference::softmax(&scores, None, &mut weights).lse;
    PieceRow { scores, weights, lse }
}

fn why_not(rows: &[PieceRow]) -> &'static str {
    let hidden = |row: &PieceRow| row.scores.iter().all(|score| *score == f64::NEG_INFINITY);
    if rows.iter().any(hidden) { "every one of them is hidden" } else { "they overflow or are not numbers" }
}

fn view(matrix: &Matrix) -> Result<TensorView<'_, f64>, AttentionError> {
    TensorView::contiguous(matrix.values(), [1, 1, matrix.rows(), matrix.columns()])
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn impossible(error: AttentionError) -> Error {
    Error::request(
        format!("attention cannot be computed: {error}"),
        "check the vectors, --scale and --temperature for numbers that are far too large or too small",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(units: &[&[usize]]) -> Encoded {
        let pieces = units.iter().map(|unit| unit.len()).sum();
        let table = |columns: usize, seed: f64| {
            let mut matrix = Matrix::new(columns);
            for piece in 0..pieces {
                matrix.push((0..columns).map(|d| ((piece * columns + d) as f64 * seed).sin()));
            }
            matrix
        };
        let unit = |pieces: &&[usize]| Unit {
            text: format!("{pieces:?}"),
            start: 0,
            end: 1,
            special: false,
            pieces: pieces.to_vec(),
        };
        Encoded {
            text: String::new(),
            units: units.iter().map(unit).collect(),
            pieces: vec![String::new(); pieces],
            encoding: table(4, 0.1),
            q: table(4, 1.3),
            k: table(4, 2.1),
            v: table(3, 0.7),
            scale: 0.5,
            temperature: 1.0,
            causal: false,
            given: None,
        }
    }

    #[test]
    fn merged_words_add_up_and_agree_with_their_tokens() {
        let tokens = encoded(&[&[0], &[1], &[2], &[3], &[4]]);
        let words = encoded(&[&[0], &[1, 2, 3], &[4]]);
        let (t1, t2, t3) = (tokens.steps(1).unwrap(), tokens.steps(2).unwrap(), tokens.steps(3).unwrap());
        let word = words.steps(1).unwrap();
        let mean = |of: &dyn Fn(&Steps) -> f64| (of(&t1) + of(&t2) + of(&t3)) / 3.0;
        assert!((word.weights[0] - mean(&|s| s.weights[0])).abs() < 1e-15);
        assert!((word.weights[1] - mean(&|s| s.weights[1..4].iter().sum())).abs() < 1e-15);
        assert!((word.output[2] - mean(&|s| s.output[2])).abs() < 1e-15);
        assert!((word.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let mut softmax = [0.0; 3];
        let scores: Vec<f64> = word.scores.iter().map(|s| s.unwrap()).collect();
        reference::softmax(&scores, None, &mut softmax);
        assert!(softmax.iter().zip(&word.weights).all(|(a, b)| (a - b).abs() < 1e-12));
        for (row, (weight, value)) in
            word.contributions.iter().zip(word.weights.iter().zip(word.values.iter()))
        {
            assert!(row.iter().zip(value).all(|(c, v)| (c - weight * v).abs() < 1e-15));
        }
        // One focus piece: the word's score is ln Σ exp of its pieces'.
        let first = words.steps(0).unwrap();
        let pieces = tokens.steps(0).unwrap();
        let sum: f64 = pieces.scores[1..4].iter().map(|s| s.unwrap().exp()).sum();
        assert!((first.scores[1].unwrap() - sum.ln()).abs() < 1e-12);
        assert!(word.max_abs_error < 1e-6 && word.max_abs_error > 0.0);
    }

    #[test]
    fn a_causal_row_hides_what_comes_after() {
        let mut tokens = encoded(&[&[0], &[1], &[2]]);
        tokens.causal = true;
        let steps = tokens.steps(1).unwrap();
        assert_eq!(steps.scores[2], None);
        assert_eq!(steps.weights[2], 0.0);
        assert!(steps.max_abs_error < 1e-6);
    }

    #[test]
    fn temperature_divides_given_scores_and_hidden_ones_stay_hidden() {
        let mut tokens = encoded(&[&[0], &[1], &[2]]);
        tokens.given = Some(Given { focus: 0, scores: vec![1.0, f64::NEG_INFINITY, 3.0] });
        tokens.temperature = 2.0;
        let steps = tokens.steps(0).unwrap();
        assert_eq!(steps.scores, [Some(0.5), None, Some(1.5)]);
        assert!((steps.weights[2] / steps.weights[0] - 1f64.exp()).abs() < 1e-12);
        assert!(steps.given && !tokens.steps(1).unwrap().given);
    }

    #[test]
    fn scores_that_overflow_are_an_error() {
        let mut tokens = encoded(&[&[0], &[1]]);
        tokens.scale = 1e308;
        tokens.temperature = 1e-300;
        assert!(tokens.steps(0).is_err());
    }
}
