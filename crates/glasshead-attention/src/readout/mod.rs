//! What the attention looked at. Each readout stands in a file of its own and has the same three verbs:
//! [`Readout::start`] one per head, [`Head::see`] every row, [`Head::finish`] into arrays.
//!
//! To add one: write its file, name it in the list of modules and in `READOUTS` below.

#[cfg(test)]
mod against_rows;
mod blocks;
mod chosen;
mod column;
mod distance;
mod duplicate;
mod entropy;
mod fused;
mod lse;
mod max_weight;
mod merge;
mod query_weights;
mod received;
mod rows;
mod segments;
mod sink_weight;
mod top_k;

use std::{fmt::Debug, ops::Range, sync::Arc};

pub use merge::{Part, Parts, merge, shares};

pub(crate) use column::{Column, Slots};
pub(crate) use fused::{Block, Fuse, Needs, PerLane, Tile, Weights};

use crate::{
    AttentionError,
    isa::Simd,
    reference::{Normalizer, Row},
    threads,
    views::{count, fits},
};

/// The readouts that a list can name, in the order in which `all` gives them: the name, what a list may
/// say after it, and how that is read.
const READOUTS: &[(&str, Parse)] = &[
    ("lse", lse::parse),
    ("entropy", entropy::parse),
    ("max", max_weight::parse),
    ("top", top_k::parse),
    ("received", received::parse),
    ("rows", rows::parse),
    ("segments", segments::parse),
    ("blocks", blocks::parse),
    ("distance", distance::parse),
];

/// Reads the text after `NAME=`, `None` where there is none. [`Argument::All`] asks for a default that
/// suits the shape.
type Parse = fn(Argument, &Shape) -> Result<Arc<dyn Readout>, String>;

/// Memory of a readout at work on one head, beside its numbers: about so many times 8 bytes.
const PER_HEAD: usize = 16;

/// What stands after the name of a readout.
#[derive(Clone, Copy, Debug)]
enum Argument<'a> {
    /// The list says `all`.
    All,
    /// `NAME` alone.
    Missing,
    /// `NAME=…`
    Text(&'a str),
}

/// The sizes that a readout needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Batch elements.
    pub batch: usize,
    /// Query heads.
    pub heads: usize,
    /// Queries per head.
    pub queries: usize,
    /// Keys per head.
    pub keys: usize,
}

/// One named array of a readout.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// `entropy`, `top_index`, …
    pub name: &'static str,
    /// `[batch, heads, …]`
    pub shape: Vec<usize>,
    /// In C order.
    pub values: Values,
}

/// The values of an [`Array`].
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Weights, sums of weights, nats, positions.
    F32(Vec<f32>),
    /// Indices of keys, −1 for none.
    I64(Vec<i64>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }
}

impl Array {
    /// An empty array of floats; `axes` are those after `[batch, heads]`.
    pub fn of_f32(name: &'static str, axes: impl Into<Vec<usize>>) -> Self {
        Self { name, shape: axes.into(), values: Values::F32(Vec::new()) }
    }

    /// An empty array of indices; `axes` are those after `[batch, heads]`.
    pub fn of_i64(name: &'static str, axes: impl Into<Vec<usize>>) -> Self {
        Self { name, shape: axes.into(), values: Values::I64(Vec::new()) }
    }

    /// The memory of its values, in bytes.
    pub fn bytes(&self) -> usize {
        match &self.values {
            Values::F32(values) => size_of_val(&values[..]),
            Values::I64(values) => size_of_val(&values[..]),
        }
    }

    /// The values where they are floats.
    pub fn f32(&self) -> Option<&[f32]> {
        match &self.values {
            Values::F32(values) => Some(values),
            Values::I64(_) => None,
        }
    }

    /// The values where they are indices.
    pub fn i64(&self) -> Option<&[i64]> {
        match &self.values {
            Values::I64(values) => Some(values),
            Values::F32(_) => None,
        }
    }
}

/// Something that can be read out of every head.
pub trait Readout: Debug + Send + Sync {
    /// The arrays that [`Head::finish`] gives: name, type and the axes after `[batch, heads]`, still empty.
    fn arrays(&self, shape: &Shape) -> Vec<Array>;
    /// Whether the request fits the shape; the error says in words what does not.
    ///
    /// # Errors
    /// A sentence without a subject, for instance "asks for row 9 of 4".
    fn check(&self, shape: &Shape) -> Result<(), String> {
        let _ = shape;
        Ok(())
    }
    /// The readout of one head, before its first row.
    fn start(&self, shape: &Shape) -> Box<dyn Head>;
    /// The arrays over all keys from those over parts of them, see [`merge`]; `lse` is that of all keys,
    /// `[batch, heads, queries]`.
    ///
    /// # Errors
    /// A sentence without a subject: why it cannot be done.
    fn merge(&self, parts: &Parts, lse: &[f64]) -> Result<Vec<Values>, String> {
        let _ = (parts, lse);
        Err("cannot be merged".into())
    }
    /// Whether it adds up queries. Parts of the keys then read it in a second pass, in which every query counts by
    /// the share that the part has of its weight.
    fn adds_up_queries(&self) -> bool {
        false
    }
    /// What it is to be asked of a part of the keys for [`Readout::merge`] to give that of all; None where it is the
    /// same. `shares [batch, heads, queries]` are those of the second pass, and None where they are not yet known.
    fn of_part(&self, keys: &Range<usize>, shares: Option<&[f32]>) -> Option<Arc<dyn Readout>> {
        let _ = (keys, shares);
        None
    }
    /// The same inside the fused pass; readouts without it see rows of the reference, in f64 and slowly.
    #[doc(hidden)]
    fn fuse(&self, shape: &Shape) -> Option<Fused> {
        let _ = shape;
        None
    }
}

/// A readout at work on one head.
pub trait Head: Send {
    /// One query's row; rows come in ascending order.
    fn see(&mut self, row: &Row);
    /// The values of [`Readout::arrays`], in the same order.
    fn finish(self: Box<Self>) -> Vec<Values>;
}

/// A readout of this crate at work on some queries of one head, inside the fused pass.
#[doc(hidden)]
pub struct Fused(pub(crate) AtWork<'static>);

/// The kinds of readouts that can be fused; each method is that of the kind.
macro_rules! at_work {
    ($($kind:ident($head:ty)),*) => {
        pub(crate) enum AtWork<'a> {
            $($kind($head)),*
        }

        impl<'a> AtWork<'a> {
            pub(crate) fn needs(&self) -> Needs {
                match self { $(Self::$kind(head) => head.needs()),* }
            }
            pub(crate) fn room(&self) -> usize {
                match self { $(Self::$kind(head) => head.room()),* }
            }
            #[inline(always)]
            pub(crate) fn start_tile<S: Simd>(&self, simd: S, room: &mut [S::N]) {
                match self { $(Self::$kind(head) => head.start_tile(simd, room)),* }
            }
            #[inline(always)]
            pub(crate) fn see_block<S: Simd>(&mut self, simd: S, block: &Block<S>, room: &mut [S::N]) {
                match self { $(Self::$kind(head) => head.see_block(simd, block, room)),* }
            }
            #[inline(always)]
            pub(crate) fn finish_tile<S: Simd>(&mut self, simd: S, tile: &Tile<S>, room: &mut [S::N]) {
                match self { $(Self::$kind(head) => head.finish_tile(simd, tile, room)),* }
            }
            #[inline(always)]
            pub(crate) fn see_weights<S: Simd>(&mut self, simd: S, weights: &Weights<S>) {
                match self { $(Self::$kind(head) => head.see_weights(simd, weights)),* }
            }
            #[inline(always)]
            pub(crate) fn see_lanes<S: Simd>(&mut self, tile: &Tile<S>, lanes: Range<usize>, room: &[S::N]) {
                match self { $(Self::$kind(head) => head.see_lanes(tile, lanes, room)),* }
            }
            pub(crate) fn see(&mut self, row: &Row) {
                match self { $(Self::$kind(head) => head.see(row)),* }
            }
            pub(crate) fn sum_is_enough(&self) -> bool {
                match self { $(Self::$kind(head) => head.sum_is_enough()),* }
            }
            pub(crate) fn see_sum(&mut self, sum: &Normalizer) {
                match self { $(Self::$kind(head) => head.see_sum(sum)),* }
            }
            pub(crate) fn by_query(&self) -> bool {
                match self { $(Self::$kind(head) => head.by_query()),* }
            }
            pub(crate) fn fill(&mut self, slots: &mut dyn Iterator<Item = Slots<'a>>) {
                match self { $(Self::$kind(head) => head.fill(slots)),* }
            }
            pub(crate) fn absorb(&mut self, later: Self) {
                match (self, later) {
                    $((Self::$kind(head), Self::$kind(later)) => head.absorb(later),)*
                    (_, _) => unreachable!("the same list of readouts for all queries"),
                }
            }
            pub(crate) fn finish(self) -> Vec<Values> {
                match self { $(Self::$kind(head) => Box::new(head).finish()),* }
            }
        }
    };
}
at_work!(
    PerQuery(PerQuery<'a>),
    Chosen(chosen::ChosenHead<'a>),
    Duplicate(duplicate::DuplicateHead<'a>),
    TopK(top_k::TopKHead<'a>),
    Received(received::ReceivedHead),
    Rows(rows::RowsHead),
    Segments(segments::SegmentsHead<'a>),
    Blocks(blocks::BlocksHead)
);

/// A list of readouts.
#[derive(Clone, Debug, Default)]
pub struct Read {
    items: Vec<Arc<dyn Readout>>,
}

impl Read {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more readout, one's own for instance.
    pub fn with(mut self, readout: impl Readout + 'static) -> Self {
        self.items.push(Arc::new(readout));
        self
    }

    /// Reads a list as the command takes it: `lse,entropy,top=8,rows=0:4`, or `all`.
    ///
    /// `all` stands for every readout: the top 8, the last row, the four quarters of the keys as
    /// segments, blocks of 64; an item after it replaces its default.
    ///
    /// # Errors
    /// [`AttentionError::Readout`] with the item that is wrong.
    pub fn parse(list: &str, shape: &Shape) -> Result<Self, AttentionError> {
        let mut items: Vec<(&str, Arc<dyn Readout>)> = Vec::new();
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let wrong = |problem: String| AttentionError::Readout { item: item.to_owned(), problem };
            if item == "all" {
                for (name, parse) in READOUTS {
                    if !items.iter().any(|(taken, _)| taken == name) {
                        items.push((name, parse(Argument::All, shape).map_err(wrong)?));
                    }
                }
                continue;
            }
            let (name, argument) = match item.split_once('=') {
                Some((name, text)) => (name.trim(), Argument::Text(text.trim())),
                None => (item, Argument::Missing),
            };
            let Some((name, parse)) = READOUTS.iter().find(|(known, _)| *known == name) else {
                let names: Vec<_> = READOUTS.iter().map(|(name, _)| *name).collect();
                return Err(wrong(format!(
                    "there is no such readout; there are {} and all",
                    names.join(", ")
                )));
            };
            let readout = parse(argument, shape).map_err(wrong)?;
            readout.check(shape).map_err(wrong)?;
            items.retain(|(taken, _)| taken != name);
            items.push((name, readout));
        }
        Ok(Self { items: items.into_iter().map(|(_, readout)| readout).collect() })
    }

    /// The arrays that a run over this shape gives, `[batch, heads, …]`, still empty. A run with sinks adds
    /// `sink_weight`.
    pub fn arrays(&self, shape: &Shape) -> Vec<Array> {
        let mut arrays: Vec<Array> = self.items.iter().flat_map(|readout| readout.arrays(shape)).collect();
        arrays.iter_mut().for_each(|array| drop(array.shape.splice(0..0, [shape.batch, shape.heads])));
        arrays
    }

    /// True when nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn items(&self) -> &[Arc<dyn Readout>] {
        &self.items
    }

    fn items_with_sinks(&self, sink_weight: bool) -> Vec<Arc<dyn Readout>> {
        let mut items = self.items.clone();
        if sink_weight {
            items.push(Arc::new(sink_weight::SinkWeight));
        }
        items
    }

    /// Whether any of it adds up queries, so that parts of the keys are to be read twice, see [`merge`].
    pub fn adds_up_queries(&self) -> bool {
        self.items.iter().any(|readout| readout.adds_up_queries())
    }

    /// What is to be asked of a part of the keys: in the first pass what adds up no queries, and `lse`; with shares the
    /// rest.
    pub(crate) fn of_part(&self, keys: &Range<usize>, shares: Option<&[f32]>) -> Self {
        let own = self.items.iter().filter(|readout| readout.adds_up_queries() == shares.is_some());
        let read = Self { items: own.map(|own| own.of_part(keys, shares).unwrap_or(own.clone())).collect() };
        let none = Shape { batch: 0, heads: 0, queries: 0, keys: 0 };
        match shares.is_some() || read.arrays(&none).iter().any(|array| array.name == "lse") {
            true => read,
            false => read.lse(),
        }
    }

    /// Refuses what does not fit the shape.
    pub(crate) fn check(&self, shape: &Shape) -> Result<(), AttentionError> {
        let wrong = |item, problem| AttentionError::Readout { item: format!("{item:?}"), problem };
        self.items.iter().try_for_each(|item| item.check(shape).map_err(|problem| wrong(item, problem)))
    }

    /// Starts readouts that have been checked.
    pub(crate) fn start(&self, shape: &Shape, sink_weight: bool) -> Result<Readouts, AttentionError> {
        let items = self.items_with_sinks(sink_weight);
        for readout in &items {
            let wrong = |problem| AttentionError::Readout { item: format!("{readout:?}"), problem };
            for array in readout.arrays(shape) {
                // Even an array without numbers has something at work on every head.
                let per_head = count(array.shape).unwrap_or(usize::MAX).max(PER_HEAD);
                if fits::<u64>([shape.batch, shape.heads, per_head]).is_none() {
                    return Err(wrong("asks for more numbers than memory can hold".into()));
                }
            }
        }
        Ok(Readouts { items, shape: *shape })
    }
}

/// The checked readouts of one run.
pub(crate) struct Readouts {
    items: Vec<Arc<dyn Readout>>,
    shape: Shape,
}

impl Readouts {
    /// Every readout of one head that sees rows, before its first one.
    pub(crate) fn by_row(&self) -> Vec<Box<dyn Head>> {
        let readouts = self.items.iter().filter(|readout| readout.fuse(&self.shape).is_none());
        readouts.map(|readout| readout.start(&self.shape)).collect()
    }

    /// Every fused readout, at work on nothing yet.
    pub(crate) fn fused(&self) -> Vec<AtWork<'static>> {
        self.items.iter().filter_map(|readout| readout.fuse(&self.shape)).map(|fused| fused.0).collect()
    }

    /// The arrays `[batch, heads, …]`, still empty.
    pub(crate) fn arrays(&self) -> Vec<Array> {
        let mut arrays: Vec<Array> = self.items.iter().flat_map(|item| item.arrays(&self.shape)).collect();
        arrays.iter_mut().for_each(|array| {
            array.shape.splice(0..0, [self.shape.batch, self.shape.heads]);
        });
        arrays
    }

    /// A place for every number that comes query by query.
    pub(crate) fn places<'a>(&'a self, arrays: &'a mut [Array]) -> Places<'a> {
        let mut rest = arrays.iter_mut();
        let mut left = Vec::new();
        for readout in &self.items {
            let own = rest.by_ref().take(readout.arrays(&self.shape).len());
            match readout.fuse(&self.shape) {
                Some(Fused(head)) if head.by_query() => {
                    left.extend(own.map(|array| (array.shape[3..].iter().product(), Slots::all(array))));
                }
                _ => own.for_each(drop),
            }
        }
        Places { readouts: self, left }
    }

    /// What is to stand in each array, head by head in the order `[batch, heads]`: of readouts that see rows, and of
    /// fused ones, in parts that say their head and their first query. Nothing of what has come query by query.
    pub(crate) fn finish(
        &self,
        by_row: Vec<Vec<Box<dyn Head>>>,
        parts: Vec<(usize, usize, Vec<AtWork>)>,
    ) -> Vec<Vec<Values>> {
        if self.items.is_empty() {
            return Vec::new();
        }
        let mut heads: Vec<_> = by_row.into_iter().map(HeadParts::new).collect();
        for (head, first, seen) in parts {
            heads[head].parts.push((first, seen));
        }
        let in_place =
            |readout: &dyn Readout| readout.fuse(&self.shape).is_some_and(|head| head.0.by_query());
        let gathered = self.items.iter().filter(|readout| !in_place(readout.as_ref()));
        let arrays = gathered.flat_map(|readout| readout.arrays(&self.shape));
        let per_head: usize = arrays.map(|array| array.shape.iter().product::<usize>()).sum();
        let spread = heads.len().saturating_mul(per_head) > WORTH_A_THREAD;
        threads::for_each(&mut heads, spread, |head| head.finish(self));

        let arrays = self.items.iter().map(|readout| readout.arrays(&self.shape).len()).sum();
        let mut values: Vec<Vec<Values>> = (0..arrays).map(|_| Vec::new()).collect();
        for head in heads {
            head.done.into_iter().for_each(|(array, more)| values[array].push(more));
        }
        values
    }
}

/// Puts what [`Readouts::finish`] gives into the arrays.
pub(crate) fn put(arrays: &mut [Array], values: Vec<Vec<Values>>) {
    let count = values.iter().flatten().map(Values::len).sum::<usize>();
    let mut moving = Vec::new();
    for (array, values) in arrays.iter_mut().zip(values) {
        side_by_side(array, values, &mut moving);
    }
    threads::for_each(&mut moving, count > WORTH_A_THREAD, Moving::arrive);
}

/// From so many numbers on, putting them together is shared out.
const WORTH_A_THREAD: usize = 1 << 16;

/// The places of what comes query by query, which are given away in their order: head by head.
pub(crate) struct Places<'a> {
    readouts: &'a Readouts,
    /// Of each array: how many numbers a query has, and what is left.
    left: Vec<(usize, Slots<'a>)>,
}

impl<'a> Places<'a> {
    /// Every fused readout, at work on the next so many queries.
    pub(crate) fn take(&mut self, queries: usize) -> Vec<AtWork<'a>> {
        let mut seen: Vec<AtWork<'a>> = self.readouts.fused();
        let mut slots = self.left.iter_mut().map(|(count, left)| left.take(queries * *count));
        seen.iter_mut().for_each(|readout| readout.fill(&mut slots));
        seen
    }
}

/// What was read out of one head.
struct HeadParts<'a> {
    by_row: Vec<Box<dyn Head>>,
    /// From which query on, and one of every fused readout.
    parts: Vec<(usize, Vec<AtWork<'a>>)>,
    /// Of which array.
    done: Vec<(usize, Values)>,
}

impl<'a> HeadParts<'a> {
    fn new(by_row: Vec<Box<dyn Head>>) -> Self {
        Self { by_row, parts: Vec::new(), done: Vec::new() }
    }

    /// Takes parts together where they add up.
    fn finish(&mut self, readouts: &Readouts) {
        let mut fused: Vec<AtWork<'a>> = readouts.fused();
        self.parts.sort_by_key(|(first, _)| *first);
        for (_, seen) in self.parts.drain(..) {
            fused.iter_mut().zip(seen).for_each(|(all, later)| all.absorb(later));
        }
        let (mut by_row, mut fused) = (self.by_row.drain(..), fused.into_iter());
        let mut first = 0;
        for readout in &readouts.items {
            let count = readout.arrays(&readouts.shape).len();
            let values = match readout.fuse(&readouts.shape) {
                Some(_) => fused.next().filter(|head| !head.by_query()).map(AtWork::finish),
                None => by_row.next().map(Head::finish),
            };
            self.done.extend((first..first + count).zip(values.into_iter().flatten()));
            first += count;
        }
    }
}

/// Numbers on the way to their final place, which holds as many of the same type.
struct Moving<'a> {
    to: Slots<'a>,
    from: Values,
}

impl Moving<'_> {
    fn arrive(&mut self) {
        match (&mut self.to, &mut self.from) {
            (Slots::F32(to), Values::F32(from)) => to.copy_from_slice(&std::mem::take(from)),
            (Slots::I64(to), Values::I64(from)) => to.copy_from_slice(&std::mem::take(from)),
            (_, _) => unreachable!("a readout gives numbers of the type that it announced"),
        }
    }
}

/// Makes room in an array of known shape and lists what is to be copied there; what is all of it already is moved.
fn side_by_side<'a>(array: &'a mut Array, mut parts: Vec<Values>, moving: &mut Vec<Moving<'a>>) {
    let count: usize = array.shape.iter().product();
    if parts.is_empty() && array.values.len() == count {
        return;
    }
    let announced = std::mem::discriminant(&array.values);
    assert!(
        parts.iter().all(|part| std::mem::discriminant(part) == announced)
            && parts.iter().map(Values::len).sum::<usize>() == count,
        "{} gives numbers of the type and shape that it announced",
        array.name
    );
    parts.retain(|part| part.len() > 0);
    if parts.len() == 1 {
        array.values = parts.remove(0);
        return;
    }
    let mut left = Slots::all(array);
    moving.extend(parts.into_iter().map(|from| Moving { to: left.take(from.len()), from }));
}

/// A readout with one number per query.
pub(crate) struct PerQuery<'a> {
    values: Column<'a, f32>,
    of: fn(&Row) -> f64,
    of_lanes: fn(&PerLane) -> &[f64],
    of_sum: Option<fn(&Normalizer) -> f64>,
    moments: bool,
}

impl PerQuery<'_> {
    fn new(of: fn(&Row) -> f64, of_lanes: fn(&PerLane) -> &[f64]) -> Self {
        Self { values: Column::new(), of, of_lanes, of_sum: None, moments: false }
    }

    /// The same, of what the sum of a row says.
    fn of_sum(of: fn(&Row) -> f64, of_lanes: fn(&PerLane) -> &[f64], of_sum: fn(&Normalizer) -> f64) -> Self {
        Self { of_sum: Some(of_sum), ..Self::new(of, of_lanes) }
    }

    /// The same, of what has to be summed beside the weights.
    fn of_moments(of: fn(&Row) -> f64, of_lanes: fn(&PerLane) -> &[f64]) -> Self {
        Self { moments: true, ..Self::new(of, of_lanes) }
    }
}

impl Head for PerQuery<'_> {
    fn see(&mut self, row: &Row) {
        self.values.push((self.of)(row) as f32);
    }

    fn finish(self: Box<Self>) -> Vec<Values> {
        vec![Values::F32(self.values.into_list())]
    }
}

impl<'a> Fuse<'a> for PerQuery<'a> {
    fn needs(&self) -> Needs {
        Needs { lanes: true, moments: self.moments, ..Needs::default() }
    }

    fn see_lanes<S: Simd>(&mut self, tile: &Tile<S>, lanes: Range<usize>, _: &[S::N]) {
        self.values.extend((self.of_lanes)(tile.lanes)[lanes].iter().map(|x| *x as f32));
    }

    fn sum_is_enough(&self) -> bool {
        self.of_sum.is_some()
    }

    fn see_sum(&mut self, sum: &Normalizer) {
        self.values.extend(self.of_sum.iter().map(|of| of(sum) as f32));
    }

    fn by_query(&self) -> bool {
        true
    }

    fn fill(&mut self, slots: &mut dyn Iterator<Item = Slots<'a>>) {
        self.values.fill(slots);
    }
}

/// For readouts without an argument.
fn nothing_after(argument: Argument) -> Result<(), String> {
    match argument {
        Argument::Text(_) => Err("takes nothing after its name".into()),
        Argument::All | Argument::Missing => Ok(()),
    }
}

/// For readouts with one number: `NAME=N`, at least 1.
fn one_number(argument: Argument, default: usize, what: &str) -> Result<usize, String> {
    match argument {
        Argument::All => Ok(default),
        Argument::Missing => Err(format!("says no {what}; write for instance ={default}")),
        Argument::Text(text) => match text.parse() {
            Ok(0) | Err(_) => Err(format!("{text:?} is no {what}: a whole number from 1")),
            Ok(number) => Ok(number),
        },
    }
}

/// For readouts with a list of numbers: `NAME=I:J:…`.
fn numbers(
    argument: Argument,
    default: impl FnOnce() -> Vec<usize>,
    what: &str,
) -> Result<Vec<usize>, String> {
    match argument {
        Argument::All => Ok(default()),
        Argument::Missing => Err(format!("says no {what}; write for instance =0:4")),
        Argument::Text(text) => text
            .split(':')
            .map(|item| {
                item.trim().parse().map_err(|_| format!("{item:?} is no {what}: a whole number from 0"))
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { batch: 1, heads: 1, queries: 5, keys: 10 };

    #[test]
    fn all_gives_every_readout_once_and_later_items_replace_its_defaults() {
        let read = Read::parse("all, rows=0:2", &SHAPE).unwrap();
        assert_eq!(read.items.len(), READOUTS.len());
        assert!(read.items.iter().any(|item| format!("{item:?}") == "Rows([0, 2])"));
    }

    #[test]
    fn wrong_lists_are_refused_by_item() {
        for list in [
            "enropy",
            "top",
            "top=0",
            "top=-1",
            "top=99999999999",
            "rows=5",
            "rows=",
            "segments=4:3",
            "segments=11",
            "blocks=0",
            "lse=3",
            "rows=a:b",
        ] {
            let error = Read::parse(list, &SHAPE).unwrap_err().to_string();
            assert!(error.contains(list), "{error}");
        }
    }

    /// Arrays of no numbers may have axes of any length, so a file of 200 bytes can ask for all of memory.
    #[test]
    fn endless_axes_are_refused_and_not_allocated() {
        use crate::{Attention, TensorView};
        let huge = 1 << 50;
        let none: [f32; 0] = [];
        let one = [0f32];
        let view = |data, shape| TensorView::contiguous(data, shape).unwrap();
        let (q, k) = (view(&one, [1, 1, 1, 1]), view(&none, [1, 1, 0, 1]));
        assert!(Attention::new(q, k, view(&none, [1, 1, 0, huge])).run().is_err());
        let wide = view(&none, [huge, 1, 0, 1]);
        assert!(Attention::new(wide, wide, wide).read(Read::new().lse()).run().is_err());
        let long = view(&none, [0, 1, usize::MAX, 1]);
        let read = Read::parse("all", &Shape { batch: 0, heads: 1, queries: 0, keys: usize::MAX }).unwrap();
        let short = view(&none, [0, 1, 0, 1]);
        assert!(
            Attention::new(short, long, long).causal(crate::Causal::BottomRight).read(read).run().is_ok()
        );
    }
}
