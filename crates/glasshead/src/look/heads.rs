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
//! induction  weight on tokens that follow an earlier occurrence of the query's token (Olsson et al. 2022);
//!            of queries whose token has one
//! duplicate  weight on earlier occurrences of the query's token; of queries whose token has one
//! distance   Σ p·|query − key|
//! ```

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use glasshead_attention::{Array, Head, Read, Readout, Shape, Values, reference::Row};

use super::scan::{Onlooker, Recipe};
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
    /// How it was made.
    pub recipe: Recipe,
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
            read: Read::new().with(Behaviour { ids: Arc::new(Ids::new(ids)) }),
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
    let recipe = Recipe {
        command,
        model: name,
        sha256: info.sha256.clone(),
        read: MEASURES.join(","),
        version: env!("CARGO_PKG_VERSION"),
    };
    Ok(Heads { texts: lengths, cards, info, recipe })
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
    /// Layers of the texts before, and of all.
    before: usize,
    layers: usize,
    onlooker: &'a mut dyn Onlooker,
    stopped: bool,
    means: Vec<Means>,
}

impl Watch for Looking<'_> {
    fn layer(&mut self, _: &LayerView<'_>) -> ControlFlow<(), Read> {
        if self.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(self.read.clone()) }
    }

    fn seen(&mut self, layer: usize, readouts: Vec<Array>) {
        let values = readouts.first().and_then(Array::f32).unwrap_or_default();
        self.means.extend(values.as_chunks::<7>().0.iter().map(|means| {
            // NaN stands for "no such query"; a real NaN of the model is none of its ways either.
            means.map(|mean| (!mean.is_nan()).then_some(f64::from(mean)))
        }));
        self.stopped |= self.onlooker.layer(self.before + layer + 1, self.layers).is_break();
    }
}

/// Where each token of a text stood before.
#[derive(Debug)]
struct Ids {
    /// Per token: the last one before it of the same id.
    previous: Vec<Option<usize>>,
}

impl Ids {
    fn new(ids: &[u32]) -> Self {
        let mut last = HashMap::new();
        Self { previous: ids.iter().enumerate().map(|(place, &id)| last.insert(id, place)).collect() }
    }

    /// The earlier tokens of the same id as this one, from the nearest on.
    fn earlier(&self, token: usize) -> impl Iterator<Item = usize> {
        let before = |token: usize| self.previous.get(token).copied().flatten();
        std::iter::successors(before(token), move |&token| before(token))
    }
}

/// The readout `behaviour [batch, heads, 7]`: the means of [`MEASURES`] over the queries.
#[derive(Debug)]
struct Behaviour {
    ids: Arc<Ids>,
}

impl Readout for Behaviour {
    fn arrays(&self, _: &Shape) -> Vec<Array> {
        vec![Array::of_f32("behaviour", [MEASURES.len()])]
    }

    fn start(&self, _: &Shape) -> Box<dyn Head> {
        Box::new(BehaviourHead { ids: self.ids.clone(), sums: [0.0; 7], counts: [0; 7] })
    }
}

struct BehaviourHead {
    ids: Arc<Ids>,
    sums: [f64; 7],
    counts: [usize; 7],
}

impl Head for BehaviourHead {
    fn see(&mut self, row: &Row) {
        let query = row.query;
        if query == 0 {
            return;
        }
        let weight = |key: usize| row.keys.binary_search(&key).map_or(0.0, |at| row.weights[at]);
        let entropy = row.weights.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        let weighted = row.keys.iter().zip(&row.weights);
        let distance = weighted.map(|(&key, p)| p * query.abs_diff(key) as f64).sum();
        let is_repeated = self.ids.earlier(query).next().is_some();
        let of_repeated = |sum: f64| is_repeated.then_some(sum);
        let measures = [
            Some(entropy),
            Some(weight(0)),
            Some(weight(query - 1)),
            Some(weight(query)),
            // The follower of an occurrence right before the query is the query itself: that is no induction.
            of_repeated(
                self.ids.earlier(query).map(|key| key + 1).filter(|&key| key != query).map(weight).sum(),
            ),
            of_repeated(self.ids.earlier(query).map(weight).sum()),
            Some(distance),
        ];
        for ((sum, count), measure) in self.sums.iter_mut().zip(&mut self.counts).zip(measures) {
            if let Some(measure) = measure {
                *sum += measure;
                *count += 1;
            }
        }
    }

    fn finish(self: Box<Self>) -> Vec<Values> {
        let mean =
            |(sum, &count): (&f64, &usize)| if count == 0 { f32::NAN } else { (sum / count as f64) as f32 };
        vec![Values::F32(self.sums.iter().zip(&self.counts).map(mean).collect())]
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
        let read = Read::new().with(Behaviour { ids: Arc::new(Ids::new(&ids)) });
        let seen = Attention::new(view, view, view).causal(Causal::TopLeft).read(read).run().expect("runs");
        let got = seen.readouts[0].f32().expect("numbers");
        // Query i = 1…4 has 1/(i+1) on each of its i+1 keys.
        let shares = [1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0, 1.0 / 5.0];
        let each: f64 = shares.iter().sum::<f64>() / 4.0;
        let entropy = shares.iter().map(|p| -f64::ln(*p)).sum::<f64>() / 4.0;
        // Of queries 2, 3, 4: followers of earlier occurrences are {1}, {2}, {2} (4 itself does not count).
        let induction = (1.0 / 3.0 + 1.0 / 4.0 + 1.0 / 5.0) / 3.0;
        // Earlier occurrences: {0}, {1}, {1, 3}.
        let duplicate = (1.0 / 3.0 + 1.0 / 4.0 + 2.0 / 5.0) / 3.0;
        let distance = (0.5 + 1.0 + 1.5 + 2.0) / 4.0;
        let expected = [entropy, each, each, each, induction, duplicate, distance];
        for ((got, expected), name) in got.iter().zip(expected).zip(MEASURES) {
            assert!((f64::from(*got) - expected).abs() < 1e-6, "{name}: {got}, expected {expected}");
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
