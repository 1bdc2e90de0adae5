//! One page that needs nothing else: which passages were looked at, which heads did that, what one head is like.
//! The parts lie in `../html/scan/` (and, shared with the page of `explain`, in `../html/`).
//!
//! What a reader sees first stands in one JSON object; what belongs to one layer or one head stands at the end,
//! packed, and is unpacked when it is looked at: the page answers while the browser still reads it.

use std::io;

use serde::Serialize;

use super::super::html::{BASE, PARTS, escape, filled, in_script};
use super::super::lesson;
use super::looks::{Group, groups};
use super::packed::{
    DECADES, FINE_SHADES, SHADES, STEPS, byte_of, deflated, floats, root_of, to_differences, word_of,
};
use crate::look::scan::{Origin, Scan, square_of};
use crate::weights::Writer;

const PAGE: &str = include_str!("../html/scan/page.html");
const STYLES: [&str; 2] = [BASE, include_str!("../html/scan/page.css")];
const SCRIPTS: [&str; 6] = [
    PARTS,
    include_str!("../html/scan/state.js"),
    include_str!("../html/scan/text.js"),
    include_str!("../html/scan/passages.js"),
    include_str!("../html/scan/heads.js"),
    include_str!("../html/scan/map.js"),
];
const LAST: &str = include_str!("../html/scan/page.js");
/// Where the packed numbers stand in the template.
const PACKED: &str = "<!--{{packed}}-->";
/// Squares of all maps together; a larger page would no longer be a few megabytes.
const SQUARES: usize = 20_000_000;
/// Squares along one side, from which a map is coarsened to stay below [`SQUARES`].
const COARSEST: usize = 64;
/// Heaviest keys of all heads together, for the same reason.
const KEYS: usize = 300_000;
/// Keys of a query, where not all can be kept.
const FEW: usize = 5;

/// What the page shows first; the field names are those of `html/scan/state.js`.
#[derive(Serialize)]
struct Data<'a> {
    version: &'static str,
    model: &'a str,
    text: &'a str,
    tokens: DataTokens<'a>,
    segments: Vec<DataSegment<'a>>,
    layers: &'a [usize],
    heads: &'a [usize],
    groups: Vec<DataGroup<'a>>,
    group: usize,
    map: Option<DataMap>,
    top: Option<DataTop>,
    /// How shares are rounded, see `packed.rs`.
    decades: f64,
    steps: f64,
    shades: f64,
    fine_shades: f64,
    weight: &'static str,
    missing: Vec<(&'static str, String)>,
    /// What stands before, between and behind what is to be read too, where somebody asks for it.
    ask: [&'static str; 3],
    notes: Vec<String>,
    recipe: Vec<(&'static str, String)>,
}

#[derive(Serialize)]
struct DataTokens<'a> {
    /// In UTF-16 units, as JavaScript counts.
    start: Vec<u32>,
    end: Vec<u32>,
    role: Vec<&'static str>,
    /// The names of tokens without bytes, by index.
    names: Vec<(usize, &'a str)>,
}

#[derive(Serialize)]
struct DataSegment<'a> {
    label: &'a str,
    start: u32,
    end: u32,
    tokens: usize,
    holds_first: bool,
}

#[derive(Serialize)]
struct DataGroup<'a> {
    name: &'a str,
    queries: Option<&'a [usize]>,
    /// Base64 of float32 `[tokens]`: the mean over all heads, unrounded.
    tokens: Option<String>,
    /// Base64 of float32 `[layers, heads]`.
    first: Option<String>,
    numbers: Vec<(&'static str, String)>,
    segments: bool,
}

#[derive(Serialize)]
struct DataMap {
    side: usize,
    /// Tokens along one side of a square.
    block: usize,
}

#[derive(Serialize)]
struct DataTop {
    keys: usize,
    queries: Vec<usize>,
    /// How many keys of how many queries were read out.
    read: [usize; 2],
    /// Bytes of an index.
    index: usize,
}

/// The page, written piece by piece: no part of it is in memory twice.
///
/// The arrays of the scan have the shapes that [`Scan::readouts`] tells.
pub fn page(scan: &Scan) -> Writer<'_> {
    Box::new(move |out| {
        let (groups, begin) = groups(scan);
        let map = map(scan);
        let top = top(scan);
        let data = data(scan, &groups, begin, map.as_ref(), top.as_ref());
        let json = serde_json::to_string(&data)?;
        let title = format!("What did {} look at? · glasshead", scan.model.name);
        let (before, after) = PAGE.split_once(PACKED).unwrap_or((PAGE, ""));
        let parts = [
            ("{{title}}", escape(&title)),
            ("{{noscript}}", place(scan).without_script.to_owned()),
            ("/*{{css}}*/", STYLES.join("\n")),
            ("{{data}}", in_script(&json)),
            ("/*{{js}}*/", [&SCRIPTS.join("\n"), LAST].join("\n")),
        ];
        out.write_all(filled(before, &parts).as_bytes())?;
        let mut pack = |id: String, bytes: &[u8]| -> io::Result<()> {
            if bytes.is_empty() {
                return Ok(());
            }
            writeln!(out, "<script type=\"text/plain\" id=\"{id}\">{}</script>", deflated(bytes)?)
        };
        pack("packed-segments".into(), &segments(&groups))?;
        for layer in 0..scan.layers.len() {
            pack(format!("packed-layer-{layer}"), &layer_bytes(scan, &groups, layer))?;
            for head in 0..scan.heads.len() {
                let place = layer * scan.heads.len() + head;
                pack(
                    format!("packed-head-{layer}-{head}"),
                    &head_bytes(scan, place, map.as_ref(), top.as_ref()),
                )?;
            }
        }
        out.write_all(filled(after, &parts).as_bytes())
    })
}

fn data<'a>(
    scan: &'a Scan,
    groups: &'a [Group],
    begin: usize,
    map: Option<&Map>,
    top: Option<&Top<'_>>,
) -> Data<'a> {
    let units = Units::new(&scan.text);
    let tokens = scan.tokens.iter();
    Data {
        version: scan.recipe.version,
        model: &scan.model.name,
        text: &scan.text,
        tokens: DataTokens {
            start: tokens.clone().map(|token| units.at(token.start)).collect(),
            end: tokens.clone().map(|token| units.at(token.end)).collect(),
            role: tokens.clone().map(|token| token.role.name()).collect(),
            names: tokens
                .enumerate()
                .filter(|(_, token)| token.start == token.end)
                .map(|(index, token)| (index, token.text.as_str()))
                .collect(),
        },
        segments: scan
            .segments
            .iter()
            .enumerate()
            .map(|(index, segment)| DataSegment {
                label: &segment.label,
                start: units.at(segment.start),
                end: units.at(segment.end),
                tokens: segment.tokens,
                holds_first: scan.first_passage == Some(index),
            })
            .collect(),
        layers: &scan.layers,
        heads: &scan.heads,
        groups: groups.iter().map(|group| data_group(scan, group)).collect(),
        group: begin,
        map: map.map(|map| DataMap { side: map.side, block: map.block }),
        top: top.map(|top| DataTop {
            keys: top.keys,
            queries: top.queries.clone(),
            read: [top.each, scan.tokens.len()],
            index: top.index_bytes,
        }),
        decades: DECADES,
        steps: STEPS,
        shades: SHADES,
        fine_shades: FINE_SHADES,
        weight: lesson::WEIGHT,
        missing: missing(scan),
        ask: place(scan).ask,
        notes: notes(scan, map, top),
        recipe: recipe(scan),
    }
}

fn data_group<'a>(scan: &Scan, group: &'a Group) -> DataGroup<'a> {
    let heads = scan.layers.len() * scan.heads.len();
    let mean = |shares: &Vec<f64>| {
        let mut means = vec![0.0; scan.tokens.len()];
        for row in shares.chunks_exact(means.len().max(1)) {
            means.iter_mut().zip(row).for_each(|(sum, x)| *sum += x / heads as f64);
        }
        floats(means)
    };
    DataGroup {
        name: &group.name,
        queries: group.queries.as_deref(),
        tokens: group.tokens.as_ref().map(mean),
        first: group.first.as_ref().map(|first| floats(first.iter().copied())),
        numbers: group.numbers.iter().map(|(name, of)| (*name, floats(of.iter().copied()))).collect(),
        segments: group.segments.is_some(),
    }
}

/// Of every group that has them: two bytes `[layers, heads, segments]`.
fn segments(groups: &[Group]) -> Vec<u8> {
    let known = groups.iter().filter_map(|group| group.segments.as_ref());
    known.flatten().flat_map(|&share| word_of(share).to_le_bytes()).collect()
}

/// Of every group that knows the shares of tokens: one byte `[heads, tokens]`.
fn layer_bytes(scan: &Scan, groups: &[Group], layer: usize) -> Vec<u8> {
    let each = scan.heads.len() * scan.tokens.len();
    let known = groups.iter().filter_map(|group| group.tokens.as_ref());
    known.flat_map(|shares| shares[layer * each..(layer + 1) * each].iter().map(|&x| byte_of(x))).collect()
}

/// The map, then the heaviest keys: indices `[queries, keys]`, all their first bytes before all their second ones, and
/// a byte for each of their weights.
fn head_bytes(scan: &Scan, place: usize, map: Option<&Map>, top: Option<&Top<'_>>) -> Vec<u8> {
    let mut bytes = map.map_or_else(Vec::new, |map| map.of(scan, place));
    let Some(top) = top else { return bytes };
    let head = place * scan.tokens.len();
    let rows = top.queries.iter().map(|query| {
        let row = (head + query) * top.each;
        row..row + top.keys
    });
    for byte in 0..top.index_bytes {
        // −1, none, is the largest number of so many bytes.
        let indices = rows.clone().flat_map(|row| &top.indices[row]);
        bytes.extend(indices.map(|&index| (index as u32).to_le_bytes()[byte]));
    }
    let weights = rows.flat_map(|row| &top.weights[row]);
    bytes.extend(weights.map(|&weight| root_of(weight.into(), FINE_SHADES)));
    bytes
}

/// The maps of all heads, alike in shape.
struct Map {
    /// Squares of the readout along one side.
    read: usize,
    /// How many of them become one, in both directions.
    merged: usize,
    side: usize,
    block: usize,
}

fn map(scan: &Scan) -> Option<Map> {
    let (array, block) = (scan.readout("blocks")?, scan.block?);
    let read = *array.shape.last()?;
    let heads = scan.layers.len() * scan.heads.len();
    let mut merged = 1;
    let side = |merged: usize| read.div_ceil(merged);
    while side(merged) > COARSEST && side(merged).pow(2).saturating_mul(heads) > SQUARES {
        merged *= 2;
    }
    Some(Map { read, merged, side: side(merged), block: block * merged })
}

impl Map {
    /// `[side, side]`: of a query among the tokens of a row, the mean share on the keys of a column; rows as
    /// differences.
    fn of(&self, scan: &Scan, place: usize) -> Vec<u8> {
        let &Self { read, merged, side, block } = self;
        let values = scan.readout("blocks").and_then(|array| array.f32()).unwrap_or_default();
        let Some(values) = values.get(place * read * read..(place + 1) * read * read) else {
            return Vec::new();
        };
        let mut sums = vec![0.0; side * side];
        for (at, &sum) in values.iter().enumerate() {
            sums[at / read / merged * side + at % read / merged] += f64::from(sum);
        }
        let rows = sums.chunks_exact(side).enumerate();
        let squares = rows.flat_map(|(row, sums)| {
            let queries = (scan.tokens.len() - row * block).min(block) as f64;
            sums.iter().map(move |sum| root_of(sum / queries, SHADES))
        });
        let mut squares: Vec<u8> = squares.collect();
        to_differences(&mut squares, side);
        squares
    }
}

/// Which of the heaviest keys the page holds.
struct Top<'a> {
    indices: &'a [i64],
    weights: &'a [f32],
    /// Keys of a query that were read.
    each: usize,
    /// Keys of a query that are kept.
    keys: usize,
    queries: Vec<usize>,
    index_bytes: usize,
}

fn top(scan: &Scan) -> Option<Top<'_>> {
    let (indices, weights) = (scan.readout("top_index")?, scan.readout("top_weight")?.f32()?);
    let each = *indices.shape.last()?;
    let heads = (scan.layers.len() * scan.heads.len()).max(1);
    let count = scan.tokens.len();
    let all = count.saturating_mul(heads).saturating_mul(each) <= KEYS;
    let keys = if all { each } else { each.min(FEW) };
    let mut chosen = vec![all; count];
    if !all {
        // Those that were asked about, and of the others every so many.
        let room = (KEYS / heads / keys.max(1)).max(16);
        let asked = scan.of_interest().chain(scan.rows.iter().copied());
        asked.take(room / 2).for_each(|query| chosen[query] = true);
        let left = room - chosen.iter().filter(|&&is| is).count();
        (0..count).step_by(count.div_ceil(left)).for_each(|query| chosen[query] = true);
    }
    Some(Top {
        indices: indices.i64()?,
        weights,
        each,
        keys,
        queries: (0..count).filter(|&query| chosen[query]).collect(),
        index_bytes: if count < 0xffff { 2 } else { 4 },
    })
}

/// The readouts that a page misses where they were not read; and how they are asked for, by `--read` and by the
/// fields of `glasshead.Read` in Python.
const MISSING: [(&str, [&str; 2]); 9] = [
    ("segments", ["segments=paragraph", "segments=[…]"]),
    ("received", ["received", "received=True"]),
    ("rows", ["rows=last", "rows=[-1]"]),
    ("first_weight", ["first", "first=True"]),
    ("entropy", ["entropy", "entropy=True"]),
    ("max_weight", ["max", "max=True"]),
    ("distance", ["distance", "distance=True"]),
    ("blocks", ["blocks", "blocks="]),
    ("top_index", ["top=8", "top=8"]),
];

/// What a reader can do where the scan was made.
struct Place {
    /// Which words of [`MISSING`].
    column: usize,
    /// What stands before, between and behind them.
    ask: [&'static str; 3],
    everything: &'static str,
    without_script: &'static str,
}

fn place(scan: &Scan) -> Place {
    match scan.recipe.origin {
        Origin::Command { .. } => Place {
            column: 0,
            ask: ["--read ", ",", ""],
            everything: "-o FILE.safetensors, .parquet or .json",
            without_script: "<code>glasshead scan</code> without <code>--format html</code> prints a short table of the \
                             same scan.",
        },
        Origin::Python { .. } => Place {
            column: 1,
            ask: ["Read(", ", ", ")"],
            everything: "the arrays themselves",
            without_script: "<code>print</code> shows a short table of the same readouts.",
        },
    }
}

/// What was not read, and what to ask for.
fn missing(scan: &Scan) -> Vec<(&'static str, String)> {
    let column = place(scan).column;
    let missing = MISSING.into_iter().filter(|(name, _)| scan.readout(name).is_none());
    let said = |words: &str| match words.ends_with('=') {
        true => format!("{words}{}", square_of(scan.tokens.len())),
        false => words.to_owned(),
    };
    missing.map(|(name, words)| (name, said(words[column]))).collect()
}

/// What the page leaves out or rounds.
fn notes(scan: &Scan, map: Option<&Map>, top: Option<&Top<'_>>) -> Vec<String> {
    let mut notes = vec![
        "Shares of tokens in single layers and heads are rounded to within 22 % of their value, and 0 below one in \
         100,000; squares of maps to steps of their colour (1 % to within 0.3 percentage points, 25 % to within 1.3); \
         heaviest keys to within 0.4 percentage points. Means over all heads and passages are finer than what is shown."
            .to_owned(),
    ];
    if let Some(map) = map.filter(|map| map.merged > 1) {
        notes.push(format!(
            "The maps were read in squares of {} × {} tokens; for this page {1} × {1} tokens are one square.",
            map.block / map.merged,
            map.block
        ));
    }
    if let Some(top) = top.filter(|top| top.queries.len() < scan.tokens.len() || top.keys < top.each) {
        notes.push(format!(
            "Of the heaviest keys the page holds {} of {} for {} of {} queries; all of them are in {}.",
            top.keys,
            top.each,
            top.queries.len(),
            scan.tokens.len(),
            place(scan).everything
        ));
    }
    let broken = scan.readouts.iter().filter_map(|array| array.f32());
    let broken: usize = broken.map(|values| values.iter().filter(|x| x.is_nan()).count()).sum();
    if broken > 0 {
        notes.push(format!(
            "{broken} numbers that were read out are not numbers (NaN): they were computed so. Where they are drawn, \
             they are drawn as 0."
        ));
    }
    notes
}

/// What is needed to make the page again.
fn recipe(scan: &Scan) -> Vec<(&'static str, String)> {
    let list = |chosen: &[usize], of: usize| {
        if chosen.iter().copied().eq(0..of) {
            return format!("all {of}");
        }
        let numbers: Vec<_> = chosen.iter().map(usize::to_string).collect();
        format!("{} (of 0–{})", numbers.join(", "), of.saturating_sub(1))
    };
    let mut recipe = scan.recipe.origin.told();
    recipe.insert(1, ("model", scan.model.with_family()));
    recipe.extend([
        ("tokens", scan.tokens.len().to_string()),
        ("layers", list(&scan.layers, scan.model.layers)),
        ("heads", list(&scan.heads, scan.model.heads)),
        ("quantity", format!("attention weights, read out as {}", scan.recipe.read)),
        (
            "normalisation",
            "softmax: the weights of one query in one head add to 1 over all keys that it may see".to_owned(),
        ),
        ("version", format!("glasshead {}", scan.recipe.version)),
    ]);
    recipe
}

/// Where a byte of a text lies in UTF-16 units.
struct Units(Vec<u32>);

impl Units {
    fn new(text: &str) -> Self {
        let mut units = Vec::with_capacity(text.len() + 1);
        let mut at = 0;
        for sign in text.chars() {
            units.extend(std::iter::repeat_n(at, sign.len_utf8()));
            at += sign.len_utf16() as u32;
        }
        units.push(at);
        Self(units)
    }

    fn at(&self, byte: usize) -> u32 {
        self.0.get(byte).or(self.0.last()).copied().unwrap_or(0)
    }
}
