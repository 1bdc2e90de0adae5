//! The four steps in sentences and tables.

use std::ops::Range;

use super::{
    document::{Block, Document, RowKind, Table},
    lesson,
};
use crate::look::{
    Matrix,
    explain::{Explained, Source},
};

/// Longer tables show their heaviest rows alone.
const MOST_ROWS: usize = 64;
const HEAVIEST: usize = 32;
/// Vectors of up to so many numbers stand whole in one table.
const MOST_COLUMNS: usize = 8;
/// Longer ones are cut into parts of so many, to fit a terminal.
const PART_COLUMNS: usize = 6;
/// Vectors longer than this show their first numbers alone.
const MOST_NUMBERS: usize = 128;

/// The report of one focus word.
pub fn tell(seen: &Explained) -> Document {
    let mut document = Document::default();
    let teller = Teller { seen, shown: heaviest(&seen.steps.weights, seen.steps.focus) };
    teller.opening(&mut document);
    teller.encode(&mut document);
    teller.score(&mut document);
    teller.softmax(&mut document);
    teller.values(&mut document);
    teller.closing(&mut document);
    document
}

struct Teller<'a> {
    seen: &'a Explained,
    /// The units that have a row.
    shown: Vec<usize>,
}

impl Teller<'_> {
    fn focus_text(&self) -> &str {
        &self.seen.encoded.units[self.seen.steps.focus].text
    }

    fn opening(&self, to: &mut Document) {
        let Explained { encoded, .. } = self.seen;
        to.push(Block::Title(format!("What does \"{}\" look at?", self.focus_text())));
        to.push(Block::Text(format!("{}: {}", source(self.seen), encoded.text.trim())));
        let hidden = encoded.units.len() - self.shown.len();
        if hidden > 0 {
            let rest = self.rest(&self.seen.steps.weights);
            to.push(Block::Text(format!(
                "Every table shows {HEAVIEST} rows, the heaviest and the focus; {hidden} more take {rest:.6} of the whole together. \
                 --format csv or json has them all."
            )));
        }
    }

    fn encode(&self, to: &mut Document) {
        let Explained { encoded, steps, .. } = self.seen;
        to.push(Block::Heading("1 · Encode: every word becomes a vector".into()));
        to.push(Block::Text(lesson::ENCODE.into()));
        let dim = encoded.encoding.columns();
        let model = matches!(self.seen.source, Source::Model { .. });
        let mut columns = vec![">#".to_owned(), "word".to_owned()];
        if model {
            to.push(Block::Text(lesson::PROJECTIONS.into()));
            let head = encoded.q.columns();
            let value = encoded.v.columns();
            columns.extend([
                format!("vector [{dim}]"),
                ">length".into(),
                format!("q [{head}]"),
                format!("k [{head}]"),
                format!("v [{value}]"),
            ]);
        } else {
            columns.extend([format!("vector [{dim}]"), ">length".into()]);
        }
        let mut table = Table::new(columns);
        for &unit in &self.shown {
            let pieces = &encoded.units[unit].pieces;
            let vector = encoded.encoding.mean(pieces);
            let mut cells = self.name(unit);
            cells
                .extend([start_of(&vector, if model { 3 } else { MOST_COLUMNS }), decimals(length(&vector))]);
            if model {
                let query = encoded.q.mean(pieces);
                cells.extend(
                    [&query[..], steps.keys.row(unit), steps.values.row(unit)]
                        .map(|vector| start_of(vector, 2)),
                );
            }
            table.push(self.kind(unit), cells);
        }
        to.push(Block::Table(table));
        let count = encoded.units.len();
        let maps = match (encoded.q.columns(), encoded.v.columns()) {
            (head, value) if model => {
                format!(" → q [{count}, {head}], k [{count}, {head}], v [{count}, {value}]")
            }
            _ => String::new(),
        };
        to.push(Block::Formula(format!("vectors [{count}, {dim}]{maps}")));
        if model {
            to.push(Block::Text(
                "Vectors are cut to their first numbers here; --format json has them whole (q of the focus word)."
                    .into(),
            ));
        }
    }

    fn score(&self, to: &mut Document) {
        let Explained { encoded, steps, .. } = self.seen;
        to.push(Block::Heading(format!("2 · Score: every word against \"{}\"", self.focus_text())));
        to.push(Block::Text(if steps.given { lesson::SCORE_GIVEN } else { lesson::SCORE }.into()));
        let merged = !steps.given && steps.dots.iter().any(Option::is_none);
        if merged {
            to.push(Block::Text(lesson::MERGE.into()));
        }
        let warm = encoded.temperature != 1.0;
        let mut columns = vec![">#", "word"];
        columns.extend(if steps.given { vec![">given"] } else { vec![">q·k", ">× scale"] });
        columns.extend(warm.then_some(">÷ temperature"));
        columns.extend(["mask", ">score"]);
        let mut table = Table::new(columns);
        for &unit in &self.shown {
            let score = steps.scores[unit];
            let mut cells = self.name(unit);
            if steps.given {
                cells.push(score.map_or("hidden".into(), |score| decimals(score * encoded.temperature)));
            } else {
                let dot = steps.dots[unit];
                cells.push(dot.map_or("merged".into(), decimals));
                cells.push(dot.map_or("merged".into(), |dot| decimals(dot * encoded.scale)));
            }
            if warm {
                cells.push(score.map_or("hidden".into(), decimals));
            }
            cells.push(if score.is_some() { "visible" } else { "hidden" }.into());
            cells.push(score.map_or("−∞".into(), decimals));
            table.push(self.kind(unit), cells);
        }
        to.push(Block::Table(table));
        let (count, dim) = (encoded.units.len(), encoded.k.columns());
        let warm = if warm { format!(" ÷ temperature {}", encoded.temperature) } else { String::new() };
        to.push(Block::Formula(match steps.given {
            true => format!("scores [{count}] = given [{count}]{warm}"),
            false => format!(
                "scores [{count}] = q [{dim}] · keysᵀ [{dim}, {count}] × scale {:.6}{warm} + mask [{count}]",
                encoded.scale
            ),
        }));
    }

    fn softmax(&self, to: &mut Document) {
        let Explained { encoded, steps, claimed, .. } = self.seen;
        to.push(Block::Heading("3 · Softmax: scores become shares".into()));
        to.push(Block::Text(lesson::SOFTMAX.into()));
        let mut columns = vec![">#", "word", ">score", ">e^(score − max)", ">share", "", ">share × |v|"];
        columns.extend(claimed.is_some().then_some(">claimed"));
        let mut table = Table::new(columns);
        let max = steps.scores.iter().flatten().fold(f64::NEG_INFINITY, |max, &score| max.max(score));
        let heaviest = steps.weights.iter().fold(0.0, |max: f64, &weight| max.max(weight));
        let influence = steps.influence();
        let powers: Vec<f64> =
            steps.scores.iter().map(|score| score.map_or(0.0, |score| (score - max).exp())).collect();
        for &unit in &self.shown {
            let weight = steps.weights[unit];
            let mut cells = self.name(unit);
            cells.push(steps.scores[unit].map_or("−∞".into(), decimals));
            cells.extend([
                decimals(powers[unit]),
                decimals(weight),
                bar(weight / heaviest),
                decimals(influence[unit]),
            ]);
            cells.extend(claimed.as_ref().map(|claimed| claimed.weights[unit].to_string()));
            table.push(self.kind(unit), cells);
        }
        self.push_rest(&mut table, |cells| {
            cells[3] = decimals(self.rest(&powers));
            cells[4] = decimals(self.rest(&steps.weights));
        });
        let mut sum = vec![String::new(); table.columns.len()];
        sum[1] = "sum".into();
        sum[3] = decimals(powers.iter().sum());
        sum[4] = decimals(steps.weights.iter().sum());
        if let Some(claimed) = claimed {
            sum[7] = format!("{:.2}", claimed.sum);
        }
        table.push(RowKind::Sum, sum);
        to.push(Block::Table(table));
        let count = encoded.units.len();
        to.push(Block::Formula(format!(
            "shares [{count}] = e^(scores − max) [{count}] ÷ {:.6}",
            powers.iter().sum::<f64>()
        )));
        if let Some(claimed) = claimed {
            to.push(Block::Text(claimed.finding.clone()));
        }
        let place = match self.seen.source {
            Source::Model { .. } => "step 4 lists it",
            _ => "here the length in step 1",
        };
        to.push(Block::Text(format!(
            "{} |v| is the length of the value vector: {place}.",
            lesson::INFLUENCE
        )));
    }

    fn values(&self, to: &mut Document) {
        let Explained { encoded, steps, .. } = self.seen;
        to.push(Block::Heading(format!("4 · Weighted values: the new vector of \"{}\"", self.focus_text())));
        to.push(Block::Text(lesson::VALUES.into()));
        let dim = steps.output.len();
        let shown = if dim > MOST_NUMBERS { MOST_COLUMNS } else { dim };
        let part = if dim > MOST_COLUMNS { PART_COLUMNS } else { MOST_COLUMNS };
        for first in (0..shown).step_by(part) {
            let last = (first + part).min(shown);
            to.push(Block::Table(self.contributions(first..last, last == shown)));
        }
        let count = encoded.units.len();
        to.push(Block::Formula(format!("output [{dim}] = shares [{count}] · values [{count}, {dim}]")));
        let output: Vec<String> = steps.output.iter().map(|&x| decimals(x)).collect();
        to.push(Block::Text(format!("new vector of \"{}\": {}", self.focus_text(), output.join(" "))));
        if shown < dim {
            to.push(Block::Text(format!(
                "Each row has {dim} numbers; --format csv, json or html has them all."
            )));
        }
    }

    /// Some columns of the table of share × value; the last part ends with the lengths.
    fn contributions(&self, part: Range<usize>, ends: bool) -> Table {
        let Explained { steps, .. } = self.seen;
        let narrow = steps.output.len() <= MOST_COLUMNS;
        let mut columns: Vec<String> = vec![">#".into(), "word".into(), ">share".into()];
        columns.extend(narrow.then(|| "value".to_owned()));
        columns.extend(part.clone().map(|d| format!(">share × v{}", subscript(d + 1))));
        // The values of a model stand cut in step 1: their lengths stand here.
        let lengths = ends && matches!(self.seen.source, Source::Model { .. });
        columns.extend(lengths.then(|| ">|v|".to_owned()));
        columns.extend(ends.then(|| ">share × |v|".to_owned()));
        let mut table = Table::new(columns);
        let influence = steps.influence();
        let rest = |vector: &[f64], value: String, product: f64| {
            let numbers = vector[part.clone()].iter().map(|&x| decimals(x));
            let value = lengths.then_some(value);
            numbers.chain(value).chain(ends.then(|| decimals(product))).collect::<Vec<_>>()
        };
        for &unit in &self.shown {
            let mut cells = self.name(unit);
            cells.push(decimals(steps.weights[unit]));
            cells.extend(narrow.then(|| start_of(steps.values.row(unit), MOST_COLUMNS)));
            let value = decimals(length(steps.values.row(unit)));
            cells.extend(rest(steps.contributions.row(unit), value, influence[unit]));
            table.push(self.kind(unit), cells);
        }
        self.push_rest(&mut table, |cells| {
            cells[2] = decimals(self.rest(&steps.weights));
            let hidden = self.rest_of_rows(&steps.contributions);
            for (cell, x) in cells[if narrow { 4 } else { 3 }..].iter_mut().zip(&hidden[part.clone()]) {
                *cell = decimals(*x);
            }
        });
        let mut sum = vec![String::new(), "new vector".into(), decimals(steps.weights.iter().sum())];
        sum.extend(narrow.then(String::new));
        sum.extend(rest(&steps.output, String::new(), length(&steps.output)));
        table.push(RowKind::Sum, sum);
        table
    }

    fn closing(&self, to: &mut Document) {
        let Explained { steps, notes, .. } = self.seen;
        let sum: f64 = steps.weights.iter().sum();
        let mut list = vec![format!(
            "Check: the shares add to {sum:.12}; the fast f32 kernel's vector is off by at most {:.1e}.",
            steps.max_abs_error
        )];
        let told = self.seen.claimed.as_ref().map(|claimed| &claimed.finding);
        list.extend(notes.iter().filter(|note| Some(*note) != told).cloned());
        to.push(Block::Heading("Notes".into()));
        to.push(Block::List(list));
    }

    fn name(&self, unit: usize) -> Vec<String> {
        vec![unit.to_string(), self.seen.encoded.units[unit].text.clone()]
    }

    fn kind(&self, unit: usize) -> RowKind {
        if unit == self.seen.steps.focus { RowKind::Focus } else { RowKind::Plain }
    }

    /// What the rows without a place in the tables add to.
    fn rest(&self, of: &[f64]) -> f64 {
        let shown: f64 = self.shown.iter().map(|&unit| of[unit]).sum();
        (of.iter().sum::<f64>() - shown).max(0.0)
    }

    fn rest_of_rows(&self, of: &Matrix) -> Vec<f64> {
        let hidden: Vec<usize> = (0..of.rows()).filter(|unit| !self.shown.contains(unit)).collect();
        of.mean(&hidden).into_iter().map(|x| x * hidden.len() as f64).collect()
    }

    fn push_rest(&self, table: &mut Table, fill: impl FnOnce(&mut [String])) {
        let hidden = self.seen.encoded.units.len() - self.shown.len();
        if hidden > 0 {
            let mut cells = vec![String::new(); table.columns.len()];
            cells[1] = format!("{hidden} more");
            fill(&mut cells);
            table.push(RowKind::Plain, cells);
        }
    }
}

fn source(seen: &Explained) -> String {
    match &seen.source {
        Source::Example => "The worked example".into(),
        Source::Vectors { file } => format!("Vectors of {file}"),
        Source::Model { name, info, layer, head, .. } => {
            format!("{name}, layer {layer} of 0–{}, head {head} of 0–{}", info.layers - 1, info.heads - 1)
        }
    }
}

/// All units of a short text, the heaviest and the focus of a long one, in text order.
fn heaviest(weights: &[f64], focus: usize) -> Vec<usize> {
    let mut units: Vec<usize> = (0..weights.len()).collect();
    if units.len() > MOST_ROWS {
        units.sort_by(|&a, &b| {
            let focus_first = (b == focus).cmp(&(a == focus));
            focus_first.then(weights[b].total_cmp(&weights[a])).then(a.cmp(&b))
        });
        units.truncate(HEAVIEST);
        units.sort_unstable();
    }
    units
}

fn length(vector: &[f64]) -> f64 {
    vector.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Six digits behind the point, or powers of ten where that would say nothing.
fn decimals(x: f64) -> String {
    if x != 0.0 && (x.abs() >= 1e7 || x.abs() < 1e-6) { format!("{x:.3e}") } else { format!("{x:.6}") }
}

/// `0.1 0.2 0.3`, with `…` where there is more.
fn start_of(vector: &[f64], most: usize) -> String {
    let short = |x: f64| {
        let text = format!("{x:.4}");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        if x != 0.0 && (x.abs() >= 1e7 || x.abs() < 1e-4) { format!("{x:.2e}") } else { text.to_owned() }
    };
    let mut text = vector.iter().take(most).map(|&x| short(x)).collect::<Vec<_>>().join(" ");
    if vector.len() > most {
        text.push_str(" …");
    }
    text
}

/// A bar of up to eight places for a share of the heaviest.
fn bar(part: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (part.clamp(0.0, 1.0) * 64.0).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

fn subscript(number: usize) -> String {
    number
        .to_string()
        .chars()
        .map(|digit| char::from_u32(digit as u32 - '0' as u32 + '₀' as u32).unwrap_or(digit))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_shows_its_heaviest_rows_and_always_the_focus() {
        let mut weights = vec![0.001; 100];
        weights[50] = 0.5;
        let shown = heaviest(&weights, 99);
        assert_eq!(shown.len(), HEAVIEST);
        assert!(shown.contains(&50) && shown.contains(&99) && shown.is_sorted());
        assert_eq!(heaviest(&weights[..64], 3).len(), 64);
    }

    #[test]
    fn numbers_keep_what_they_say() {
        assert_eq!(decimals(0.165573), "0.165573");
        assert_eq!(decimals(1.5e-9), "1.500e-9");
        assert_eq!(decimals(0.0), "0.000000");
        assert_eq!(start_of(&[1.0, -0.25, 3.0], 2), "1 -0.25 …");
        assert_eq!(bar(1.0), "████████");
        assert_eq!(bar(0.0), "");
        assert_eq!(subscript(32), "₃₂");
    }
}
