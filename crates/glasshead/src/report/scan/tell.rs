//! The short table: every layer in a line, and the passages that took most.

use glasshead_attention::Array;

use super::super::{Block, Document, RowKind, Table};
use crate::look::scan::Scan;

/// How many passages are told.
const PASSAGES: usize = 8;

/// How a number is written.
type Written = fn(f64) -> String;

/// What the numbers of a layer are called, and how they are written.
const COLUMNS: &[(&str, &str, Written)] = &[
    ("entropy", "entropy/nats", |x| format!("{x:.2}")),
    ("max_weight", "largest", percent),
    ("first_weight", "first token", percent),
    ("sink_weight", "sink", percent),
    ("distance", "distance", |x| format!("{x:.1}")),
    ("lse", "lse", |x| format!("{x:.2}")),
];

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

pub(super) fn tell(scan: &Scan) -> Document {
    let mut document = Document::default();
    let (tokens, layers, heads) = (scan.tokens.len(), scan.layers.len(), scan.heads.len());
    let texts = match scan.texts.len() {
        0 => String::new(),
        texts => format!("{} of ", counted(texts, "text")),
    };
    document.push(Block::Title(format!(
        "{} read {texts}{tokens} tokens: {} × {}",
        scan.model.name,
        counted(layers, "layer"),
        counted(heads, "head")
    )));
    if let Some(answer) = scan.answer() {
        document.push(Block::Heading("Answer".into()));
        document.push(Block::Text(answer.trim().to_owned()));
    }
    let per_query: Vec<_> =
        COLUMNS.iter().filter_map(|column| Some((column, scan.readout(column.0)?.f32()?))).collect();
    if !per_query.is_empty() {
        let names = per_query.iter().map(|((_, heading, _), _)| format!(">{heading}"));
        let mut table = Table::new([">layer".to_owned()].into_iter().chain(names));
        for (place, layer) in scan.layers.iter().enumerate() {
            let cells = per_query.iter().map(|((.., write), values)| {
                let each = values.len() / layers.max(1);
                write(mean(values[place * each..(place + 1) * each].iter().map(|&x| f64::from(x))))
            });
            table.push(RowKind::Plain, [layer.to_string()].into_iter().chain(cells).collect());
        }
        document.push(Block::Heading("Layers, mean over heads and queries".into()));
        document.push(Block::Table(table));
    }
    if let Some(segments) = scan.readout("segments") {
        passages(scan, segments, &mut document);
    }
    let mut others: Vec<&str> = scan.readouts.iter().map(|array| array.name).collect();
    others.retain(|name| *name != "segments" && !COLUMNS.iter().any(|(known, ..)| known == name));
    if !others.is_empty() {
        document.push(Block::Text(format!(
            "Also read, and too large for a table: {}. Write them with -o FILE.safetensors, .parquet or .json.",
            others.join(", ")
        )));
    }
    document
}

/// The passages by the share of the weight of the queries of interest (of all, where there are none), the
/// first token apart: many heads rest on it whatever it says.
fn passages(scan: &Scan, array: &Array, document: &mut Document) {
    let (Some(weights), count) = (array.f32(), scan.segments.len()) else { return };
    let tokens = scan.tokens.len();
    let mut asked = vec![false; tokens];
    scan.of_interest().for_each(|token| asked[token] = true);
    let of_interest = asked.contains(&true);
    let wanted = |query: usize| !of_interest || asked[query];
    let mut shares: Vec<f64> = vec![0.0; count];
    let mut queries = 0.0;
    for (row, weights) in weights.chunks_exact(count.max(1)).enumerate() {
        if wanted(row % tokens.max(1)) {
            queries += 1.0;
            shares.iter_mut().zip(weights).for_each(|(share, &weight)| *share += f64::from(weight));
        }
    }
    shares.iter_mut().for_each(|share| *share /= f64::max(queries, 1.0));
    let first = scan.readout("first_weight").and_then(Array::f32).map(|first| {
        let chosen = first.iter().enumerate().filter(|(row, _)| wanted(row % tokens.max(1)));
        mean(chosen.map(|(_, &weight)| f64::from(weight)))
    });
    let inside: f64 = shares.iter().sum();
    let mut outside = 1.0 - inside;
    match (first, scan.first_passage) {
        (Some(first), Some(place)) => shares[place] -= first,
        (Some(first), None) => outside -= first,
        (None, _) => {}
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| shares[b].total_cmp(&shares[a]));
    let mut table = Table::new([">share", ">tokens", ">passage", "begins"]);
    if let Some(first) = first {
        let text = scan.tokens.first().map_or_else(String::new, |token| format!("“{}”", token.text.trim()));
        table.push(RowKind::Plain, vec![percent(first), "1".into(), "first token".into(), text]);
    }
    for &index in order.iter().take(PASSAGES) {
        let segment = &scan.segments[index];
        let cells = vec![
            percent(shares[index]),
            segment.tokens.to_string(),
            (index + 1).to_string(),
            segment.label.clone(),
        ];
        table.push(RowKind::Plain, cells);
    }
    let blank = || ["", "", ""].map(str::to_owned);
    let row = |share: f64, what: String| [vec![percent(share)], blank()[..2].to_vec(), vec![what]].concat();
    if count > PASSAGES {
        let rest = order[PASSAGES..].iter().map(|&index| shares[index]).sum();
        table.push(RowKind::Plain, row(rest, format!("{} more passages", count - PASSAGES)));
    }
    // What rounding leaves of nothing is not told.
    if outside >= 5e-4 {
        let sinks = if scan.readout("sink_weight").is_some() { ", and sinks" } else { "" };
        let what = match of_interest {
            true => format!("outside all passages: the question itself, special tokens{sinks}"),
            false => format!("outside all passages: special tokens{sinks}"),
        };
        table.push(RowKind::Plain, row(outside, what));
    }
    let who = match (of_interest, scan.answer()) {
        (true, Some(_)) => "the question's and answer's tokens",
        (true, None) => "the question's tokens",
        (false, _) => "all tokens",
    };
    document.push(Block::Heading(format!("Passages, by the share of the weight of {who}")));
    document.push(Block::Table(table));
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
    sum / f64::max(count, 1.0)
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
