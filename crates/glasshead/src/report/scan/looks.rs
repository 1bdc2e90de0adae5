//! Who looks: the answer, the question, the rows that were asked for, all tokens; and what each of them looked
//! at, as means over its queries.

use glasshead_attention::Array;

use crate::look::scan::{Role, Scan};

/// Some of the queries, and the means over them.
pub(super) struct Group {
    /// What a reader calls them.
    pub(super) name: String,
    /// Which they are; `None` for all.
    pub(super) queries: Option<Vec<usize>>,
    /// `[layers, heads, tokens]`: the share of every token, if it was read.
    pub(super) tokens: Option<Vec<f64>>,
    /// `[layers, heads, segments]`, if they were read.
    pub(super) segments: Option<Vec<f64>>,
    /// `[layers, heads]`: the share of the first token, if it is known.
    pub(super) first: Option<Vec<f64>>,
    /// `[layers, heads]` each: the readouts with one number per query.
    pub(super) numbers: Vec<(&'static str, Vec<f64>)>,
}

/// The readouts with one number per query that a page tells.
const NUMBERS: &[&str] =
    &["entropy", "max_weight", "distance", "sink_weight", "previous", "self", "induction", "lse"];

/// All groups, and which of them the page begins with.
pub(super) fn groups(scan: &Scan) -> (Vec<Group>, usize) {
    let of_role = |role: Role| -> Vec<usize> {
        (0..scan.tokens.len()).filter(|&token| scan.tokens[token].role == role).collect()
    };
    let mut groups = Vec::new();
    for (name, queries) in [
        ("the answer", of_role(Role::Answer)),
        ("the question", of_role(Role::Question)),
        (rows_name(scan).as_str(), scan.rows.clone()),
    ] {
        let known = |group: &Group| group.queries.as_ref() == Some(&queries);
        // Without an answer, the rows that were kept are those of the question.
        let joined: usize =
            groups.iter().filter_map(|group: &Group| Some(group.queries.as_ref()?.len())).sum();
        let asked =
            !groups.is_empty() && joined == queries.len() && scan.of_interest().eq(queries.iter().copied());
        if !queries.is_empty() && !groups.iter().any(known) && !asked {
            groups.push(group(scan, name.to_owned(), Some(queries)));
        }
    }
    // The last token of an encoder is a mark like [SEP]: it does not stand for the text.
    let a_mark = |group: &Group| {
        let queries = group.queries.iter().flatten();
        queries.clone().all(|&query| scan.tokens[query].role == Role::Special)
    };
    let begin = if groups.first().is_none_or(a_mark) { groups.len() } else { 0 };
    groups.push(group(scan, format!("all {} tokens", scan.tokens.len()), None));
    (groups, begin)
}

fn rows_name(scan: &Scan) -> String {
    match scan.rows.as_slice() {
        [row] if row + 1 == scan.tokens.len() => format!("the last token {}", quoted(scan, *row)),
        [row] => format!("token {row} {}", quoted(scan, *row)),
        rows => format!("{} chosen tokens", rows.len()),
    }
}

fn quoted(scan: &Scan, token: usize) -> String {
    format!("“{}”", scan.tokens.get(token).map_or("", |token| token.text.trim()))
}

fn group(scan: &Scan, name: String, queries: Option<Vec<usize>>) -> Group {
    let count = scan.tokens.len();
    let heads = scan.layers.len() * scan.heads.len();
    let mean = |array: &Array, axis: usize| mean_over(array, heads, count, axis, queries.as_deref());
    let tokens = shares(scan, heads, queries.as_deref());
    let first = match scan.readout("first_weight") {
        Some(array) => mean(array, 1),
        None => tokens.as_ref().map(|shares| shares.chunks_exact(count.max(1)).map(|row| row[0]).collect()),
    };
    let segments = scan.readout("segments").and_then(|array| mean(array, scan.segments.len()));
    let numbers = NUMBERS.iter().filter_map(|&name| Some((name, mean(scan.readout(name)?, 1)?))).collect();
    Group { name, queries, tokens, segments, first, numbers }
}

/// `[heads, tokens, axis]` → `[heads, axis]`, the mean over some of the tokens.
fn mean_over(
    array: &Array,
    heads: usize,
    count: usize,
    axis: usize,
    queries: Option<&[usize]>,
) -> Option<Vec<f64>> {
    let values = array.f32()?;
    if axis == 0 || values.len() != heads * count * axis {
        return None;
    }
    let of = queries.map_or(count, <[usize]>::len) as f64;
    let mut means = vec![0.0; heads * axis];
    for (sums, rows) in means.chunks_exact_mut(axis).zip(values.chunks_exact(count * axis)) {
        let mut add = |query: usize| {
            let row = &rows[query * axis..(query + 1) * axis];
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        };
        match queries {
            Some(queries) => queries.iter().copied().for_each(&mut add),
            None => (0..count).for_each(&mut add),
        }
        sums.iter_mut().for_each(|sum| *sum /= of);
    }
    Some(means)
}

/// The share of every token: of chosen queries from their rows, of all from what was received.
fn shares(scan: &Scan, heads: usize, queries: Option<&[usize]>) -> Option<Vec<f64>> {
    let count = scan.tokens.len();
    let Some(queries) = queries else {
        let received = scan.readout("received")?.f32()?;
        return Some(received.iter().map(|&sum| f64::from(sum) / count as f64).collect());
    };
    let rows = scan.readout("rows")?.f32()?;
    let places: Option<Vec<usize>> =
        queries.iter().map(|query| scan.rows.iter().position(|row| row == query)).collect();
    let places = places?;
    let mut means = vec![0.0; heads * count];
    for (sums, rows) in means.chunks_exact_mut(count).zip(rows.chunks_exact(scan.rows.len() * count)) {
        for place in &places {
            let row = &rows[place * count..(place + 1) * count];
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        sums.iter_mut().for_each(|sum| *sum /= places.len() as f64);
    }
    Some(means)
}
