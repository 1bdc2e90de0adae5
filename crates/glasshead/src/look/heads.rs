//! A card for every head: how it behaves, over several texts. One text shows what a head did there; how far
//! texts differ says whether that is its way.
//!
//! Every number is a mean over the queries of a text, from the second token on (the first one of a causal
//! model can see nothing but itself):
//!
//! ```text
//! entropy    −Σ p ln p
//! first      weight on the first token, the usual sink
//! previous   weight on the token before
//! self       weight on the token itself
//! induction  weight on the token after the last earlier occurrence of the query's token (Olsson et al. 2022); of
//!            queries whose token has one that is not right before it
//! duplicate  weight on all earlier occurrences of the query's token; of queries whose token has one
//! distance   Σ p·|query − key|
//! ```
//!
//! All of them are readouts of the engine, inside its fused pass.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use glasshead_attention::{Array, Read};

use super::scan::Onlooker;
use crate::models::{self, Info, LayerView, Loaded, Watch};
use crate::{Error, Result};

/// The names of [`Card::measures`], in their order.
pub const MEASURES: [&str; 7] =
    ["entropy", "first", "previous", "self", "induction", "duplicate", "distance"];

/// The texts that are read where none are given: prose, a list, a program, a conversation.
pub const TEXTS: [(&str, &str); 4] = [
    ("harbour", include_str!("texts/harbour.txt")),
    ("dough", include_str!("texts/dough.txt")),
    ("program", include_str!("texts/program.txt")),
    ("telephone", include_str!("texts/telephone.txt")),
];

/// What is to be read.
#[derive(Clone, Debug)]
pub struct Request {
    /// The name the model goes by.
    pub model: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Names and texts, two at least.
    pub texts: Vec<(String, String)>,
    /// The command line, for the recipe.
    pub command: String,
}

/// A card for every head.
#[derive(Clone, Debug)]
pub struct Heads {
    /// Names of the texts, and how many tokens each has.
    pub texts: Vec<(String, usize)>,
    /// Layer by layer.
    pub cards: Vec<Card>,
    /// What the model is.
    pub info: Info,
    /// The name the model goes by.
    pub model: String,
    /// The command line.
    pub command: String,
}

/// How one head behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Card {
    /// The layer, from 0.
    pub layer: usize,
    /// The query head, from 0.
    pub head: usize,
    /// As [`MEASURES`] names them; `None`: fewer than two texts have a query that it is about.
    pub measures: [Option<Spread>; 7],
}

/// A number over texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The mean of the texts' means.
    pub mean: f64,
    /// Their standard deviation (n − 1).
    pub deviation: f64,
    /// How many texts it is of.
    pub texts: usize,
}

/// Reads the texts and makes the cards. `onlooker` is told of layers, those of all texts together.
///
/// # Errors
/// Fewer than two texts, one that is empty or too long, a model without a tokenizer, an onlooker that has
/// had enough.
pub fn heads(request: Request, onlooker: &mut dyn Onlooker) -> Result<Heads> {
    let Request { model: name, path, texts, command } = request;
    if texts.len() < 2 {
        return Err(Error::request(
            format!("a card needs at least two texts, and there is {}", texts.len()),
            "one text shows what a head did there, not its way; give more files, or none for the built-in texts",
        ));
    }
    let Loaded { model, tokenizer, .. } = models::load(&path)?;
    let info = model.info().clone();
    let tokenizer = tokenizer.ok_or_else(|| {
        Error::request(
            format!("{} has no tokenizer.json, so texts cannot be cut into tokens", path.display()),
            "put the model's tokenizer.json beside its config.json",
        )
    })?;
    let mut lengths = Vec::new();
    let mut all_ids = Vec::new();
    for (text_name, text) in texts {
        let of_text = |error: Error| Error::request(format!("{text_name}: {error}"), error.hint());
        if text.trim().is_empty() {
            return Err(of_text(Error::request("the text is empty", "give texts of some sentences")));
        }
        let ids: Vec<u32> = tokenizer.encode(&text).map_err(of_text)?.iter().map(|token| token.id).collect();
        info.check(&ids).map_err(of_text)?;
        lengths.push((text_name, ids.len()));
        all_ids.push(ids);
    }
    // [text][layer · heads + head]
    let mut seen: Vec<Vec<Means>> = Vec::new();
    for ids in &all_ids {
        let mut watch = Looking {
            read: readouts(ids),
            queries: Queries::of(ids),
            before: seen.len() * info.layers,
            layers: all_ids.len() * info.layers,
            onlooker,
            stopped: false,
            means: Vec::new(),
        };
        model.forward(ids, &mut watch)?;
        if watch.stopped {
            return Err(Error::environment(
                "stopped before the last text; nothing was written",
                "run it again",
            ));
        }
        seen.push(watch.means);
    }
    let card = |place: usize| {
        let mut measures = [None; 7];
        for (index, measure) in measures.iter_mut().enumerate() {
            *measure = Spread::over(seen.iter().filter_map(|text| text.get(place)?[index]));
        }
        Card { layer: place / info.heads, head: place % info.heads, measures }
    };
    let cards = (0..info.layers * info.heads).map(card).collect();
    Ok(Heads { texts: lengths, cards, info, model: name, command })
}

impl Spread {
    /// `None` for fewer than two values.
    fn over(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.collect();
        let texts = values.len();
        if texts < 2 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / texts as f64;
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        Some(Self { mean, deviation: (squares / (texts - 1) as f64).sqrt(), texts })
    }
}

/// The means of one text and head; `None`: no query of the text has what it is about.
type Means = [Option<f64>; 7];

/// The watch over one text.
struct Looking<'a> {
    read: Read,
    queries: Queries,
    /// Layers of the texts before, and of all.
    before: usize,
    layers: usize,
    onlooker: &'a mut dyn Onlooker,
    stopped: bool,
    means: Vec<Means>,
}

impl Watch for Looking<'_> {
    fn layer(&mut self, _: &LayerView<'_>) -> ControlFlow<(), Read> {
        ControlFlow::Continue(self.read.clone())
    }

    fn seen(&mut self, layer: usize, readouts: Vec<Array>) -> ControlFlow<()> {
        self.means.extend(self.queries.means(&readouts));
        self.stopped |= self.onlooker.layer(self.before + layer + 1, self.layers).is_break();
        if self.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// What is read out, in the order of [`MEASURES`].
fn readouts(ids: &[u32]) -> Read {
    let read = Read::new().entropy().first().previous().self_weight();
    read.induction(ids).duplicate(ids).distance()
}

/// The queries of a text that count.
#[derive(Debug)]
struct Queries {
    /// Per token: the last one before it of the same id.
    last: Vec<Option<usize>>,
}

impl Queries {
    fn of(ids: &[u32]) -> Self {
        let mut last = HashMap::new();
        Self { last: ids.iter().enumerate().map(|(place, &id)| last.insert(id, place)).collect() }
    }

    /// Whether a measure is about this query.
    fn count(&self, measure: &str, query: usize) -> bool {
        match (measure, self.last[query]) {
            _ if query == 0 => false,
            // What follows a token right before the query is the query itself.
            ("induction", last) => last.is_some_and(|last| last + 1 < query),
            ("duplicate", last) => last.is_some(),
            _ => true,
        }
    }

    /// The means of every head of a layer, from arrays `[1, heads, tokens]`.
    fn means(&self, readouts: &[Array]) -> Vec<Means> {
        let tokens = self.last.len();
        let mut means = Vec::new();
        for (index, (array, measure)) in readouts.iter().zip(MEASURES).enumerate() {
            let queries: Vec<usize> = (0..tokens).filter(|&query| self.count(measure, query)).collect();
            for (head, values) in array.f32().unwrap_or_default().chunks_exact(tokens).enumerate() {
                means.resize(means.len().max(head + 1), [None; 7]);
                let sum: f64 = queries.iter().map(|&query| f64::from(values[query])).sum();
                // A model that gives NaN has no way of its own.
                let mean = sum / queries.len() as f64;
                means[head][index] = (!mean.is_nan()).then_some(mean);
            }
        }
        means
    }
}

#[cfg(test)]
mod tests {
    use glasshead_attention::{Attention, Causal, TensorView};

    use super::*;

    /// Zero queries: every visible key has the same weight, and every measure is a count.
    #[test]
    fn measures_of_uniform_attention_by_hand() {
        let ids = [5, 6, 5, 6, 6];
        let zeros = [0.0f32; 5];
        let view = TensorView::contiguous(&zeros, [1, 1, 5, 1]).expect("fits");
        let request = Attention::new(view, view, view).causal(Causal::TopLeft).read(readouts(&ids));
        let seen = request.run().expect("runs");
        let [got] = Queries::of(&ids).means(&seen.readouts)[..] else { panic!("one head") };
        // Query i = 1…4 has 1/(i+1) on each of its i+1 keys.
        let shares = [1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0, 1.0 / 5.0];
        let each: f64 = shares.iter().sum::<f64>() / 4.0;
        let entropy = shares.iter().map(|p| -f64::ln(*p)).sum::<f64>() / 4.0;
        // Of queries 2 and 3: 1 and 2 follow the last occurrence. That of query 4 is right before it.
        let induction = (1.0 / 3.0 + 1.0 / 4.0) / 2.0;
        // Earlier occurrences: {0}, {1}, {1, 3}.
        let duplicate = (1.0 / 3.0 + 1.0 / 4.0 + 2.0 / 5.0) / 3.0;
        let distance = (0.5 + 1.0 + 1.5 + 2.0) / 4.0;
        let expected = [entropy, each, each, each, induction, duplicate, distance];
        for ((got, expected), name) in got.iter().zip(expected).zip(MEASURES) {
            let got = got.expect("there are such queries");
            assert!((got - expected).abs() < 1e-6, "{name}: {got}, expected {expected}");
        }
    }

    #[test]
    fn without_repetitions_there_is_no_induction() {
        let zeros = [0.0f32; 3];
        let view = TensorView::contiguous(&zeros, [1, 1, 3, 1]).expect("fits");
        for (ids, expected) in [([1, 2, 3], [false, false]), ([1, 1, 2], [false, true])] {
            let seen = Attention::new(view, view, view).read(readouts(&ids)).run().expect("runs");
            let means = Queries::of(&ids).means(&seen.readouts);
            assert_eq!([means[0][4].is_some(), means[0][5].is_some()], expected);
        }
    }

    #[test]
    fn a_spread_needs_two_values() {
        assert_eq!(Spread::over([1.0].into_iter()), None);
        let spread = Spread::over([1.0, 3.0].into_iter()).expect("two");
        assert_eq!((spread.mean, spread.texts), (2.0, 2));
        assert!((spread.deviation - 2f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn the_built_in_texts_repeat_words() {
        for (name, text) in TEXTS {
            let words: Vec<&str> = text.split_whitespace().collect();
            let distinct: std::collections::HashSet<_> = words.iter().collect();
            assert!(distinct.len() < words.len() * 9 / 10, "{name}");
        }
    }
}
