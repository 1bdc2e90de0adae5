//! Weights that somebody published for a row, checked against the softmax of its scores.

use serde::Serialize;

use super::own::Printed;

/// Claimed weights and what came of the check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claimed {
    /// As they were published.
    pub weights: Vec<f64>,
    /// What they add to.
    pub sum: f64,
    /// The first thing that is wrong with them, if anything.
    pub wrong: Option<Finding>,
    /// The same in one sentence.
    pub finding: String,
}

/// What is wrong with claimed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Below 0 or above 1.
    NoShare,
    /// They do not add to 1, and are the raw scores times a factor.
    ScaledScores,
    /// They do not add to 1.
    Sum,
    /// A heavier weight for a lower score.
    Order,
    /// Shares of one whole, but other ones than the softmax gives.
    Values,
}

impl Claimed {
    /// Checks `claimed` against scores (`None`: hidden) and their softmax; `words` name the places.
    ///
    /// A published number is taken as rounded once to the digits that it shows; sums of n of them may be
    /// off by n half units.
    pub fn check(claimed: &[Printed], scores: &[Option<f64>], weights: &[f64], words: &[&str]) -> Self {
        let values: Vec<f64> = claimed.iter().map(|printed| printed.value).collect();
        let sum: f64 = values.iter().sum();
        let found = find(claimed, &values, sum, scores, weights, words);
        let finding = match &found {
            Some((_, sentence)) => sentence.clone(),
            None => {
                "The claimed weights agree with the softmax of the scores, to the digits they show.".into()
            }
        };
        Self { weights: values, sum, wrong: found.map(|(finding, _)| finding), finding }
    }
}

/// How far a published number may be from the truth: half a unit of its last digit.
fn rounding(printed: &Printed) -> f64 {
    0.5 * 10f64.powi(-(printed.decimals as i32)) + 1e-9
}

fn find(
    claimed: &[Printed],
    values: &[f64],
    sum: f64,
    scores: &[Option<f64>],
    weights: &[f64],
    words: &[&str],
) -> Option<(Finding, String)> {
    if let Some(at) = values.iter().position(|x| !(0.0..=1.0).contains(x)) {
        let sentence = format!(
            "The claimed weight of \"{}\" is {}, which is no share of anything: a softmax lies between 0 and 1.",
            words[at], values[at]
        );
        return Some((Finding::NoShare, sentence));
    }
    if (sum - 1.0).abs() > claimed.iter().map(rounding).sum::<f64>() {
        if let Some((least, most)) = factors_of_scores(claimed, values, scores) {
            let (least, most) = (two_digits(least), two_digits(most));
            let each = if least == most {
                format!("proportional to the raw scores ({least} times each)")
            } else {
                format!("roughly proportional to the raw scores ({least} to {most} times each)")
            };
            let sentence = format!(
                "The claimed weights add to {}, not to 1: they are {each}, so they are no softmax at all.",
                short(sum)
            );
            return Some((Finding::ScaledScores, sentence));
        }
        let sentence = format!(
            "The claimed weights add to {}, not to 1, so they are not shares of one whole.",
            short(sum)
        );
        return Some((Finding::Sum, sentence));
    }
    for (at, score) in scores.iter().enumerate() {
        for (other, lower) in scores.iter().enumerate() {
            let room = rounding(&claimed[at]) + rounding(&claimed[other]);
            if score > lower && values[at] + room < values[other] {
                let sentence = format!(
                    "The claimed weights are out of order: \"{}\" has the higher score than \"{}\", but the smaller weight; softmax keeps the order.",
                    words[at], words[other]
                );
                return Some((Finding::Order, sentence));
            }
        }
    }
    let at = (0..values.len()).find(|&at| (values[at] - weights[at]).abs() > rounding(&claimed[at]))?;
    let sentence = format!(
        "The claimed weights add to 1 but are another distribution: softmax gives \"{}\" {:.6}, the claim is {}.",
        words[at], weights[at], values[at]
    );
    Some((Finding::Values, sentence))
}

/// The least and the largest factor between scores and claimed weights, where one factor fits all of them to a
/// unit of their last digit (published numbers are often rounded twice, once on the way).
fn factors_of_scores(claimed: &[Printed], values: &[f64], scores: &[Option<f64>]) -> Option<(f64, f64)> {
    let scores: Vec<f64> = scores.iter().map(|score| score.unwrap_or(0.0)).collect();
    let factor = values.iter().sum::<f64>() / scores.iter().sum::<f64>();
    let fits = |((printed, value), score): ((&Printed, &f64), &f64)| {
        (value - factor * score).abs() <= 2.0 * rounding(printed)
    };
    let fitting = factor.is_finite() && factor > 0.0 && claimed.iter().zip(values).zip(&scores).all(fits);
    // A score of 0 has no factor: any would do.
    let each =
        values.iter().zip(&scores).filter(|(_, score)| **score != 0.0).map(|(value, score)| value / score);
    fitting.then(|| {
        each.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), x| (least.min(x), most.max(x)))
    })
}

/// Two digits that say something: 0.25, 0.0031, 1.3, 140.
fn two_digits(x: f64) -> String {
    let size = if x == 0.0 { 0.0 } else { x.abs().log10().floor() };
    format!("{x:.*}", (1.0 - size).max(0.0) as usize)
}

/// Up to four digits behind the point, without trailing zeros.
fn short(x: f64) -> String {
    let text = format!("{x:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{example, own::parse_list};
    use super::*;

    fn check(claimed: &str) -> Claimed {
        let steps = example::encoded().steps(4).unwrap();
        let words: Vec<&str> = example::TEXT.split_whitespace().collect();
        Claimed::check(&parse_list(claimed).unwrap(), &steps.scores, &steps.weights, &words)
    }

    #[test]
    fn the_published_row_is_the_scores_in_disguise() {
        let claimed = check(example::CLAIMED);
        assert_eq!(claimed.wrong, Some(Finding::ScaledScores));
        assert!(
            claimed.finding.contains("add to 1.34")
                && claimed.finding.contains("proportional to the raw scores")
        );
        // 0.10 of 0.4 and 0.06 of 0.2: no one factor, however they were rounded.
        assert!(claimed.finding.contains("roughly") && claimed.finding.contains("(0.25 to 0.30 times each)"));
    }

    #[test]
    fn one_factor_is_told_as_one() {
        let claimed = check("0.06,0.24,0.12,0.30,0.30,0.18,0.06,0.09,0.15");
        assert!(claimed.finding.contains("they are proportional to the raw scores (0.30 times each)"));
        assert_eq!(
            [0.2625, 0.0031, 1.34, 140.0, 0.0].map(two_digits),
            ["0.26", "0.0031", "1.3", "140", "0.0"]
        );
    }

    #[test]
    fn the_first_thing_wrong_is_told() {
        let right = "0.074397,0.135560,0.090868,0.165573,0.165573,0.110987,0.074397,0.082221,0.100425";
        assert_eq!(check(right).wrong, None);
        assert_eq!(check("0.07,0.14,0.09,0.17,0.17,0.11,0.07,0.08,0.10").wrong, None);
        for (claimed, wrong) in [
            ("-0.1,0.2,0.1,0.2,0.2,0.1,0.1,0.1,0.1", Finding::NoShare),
            ("0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5", Finding::Sum),
            ("0.30,0.10,0.10,0.10,0.10,0.10,0.05,0.05,0.10", Finding::Order),
            ("0.01,0.18,0.05,0.26,0.26,0.10,0.01,0.04,0.09", Finding::Values),
        ] {
            assert_eq!(check(claimed).wrong, Some(wrong), "{claimed}");
        }
    }
}
