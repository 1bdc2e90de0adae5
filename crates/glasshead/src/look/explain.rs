//! From a request to the four steps: finds the source, the focus and the head, and checks what is claimed.

use std::path::PathBuf;

use super::{
    Claimed, Encoded, Given, Matrix, Steps, example, gather,
    own::{self, Printed},
};
use crate::{
    Error, Result,
    models::{self, Info, Loaded},
    text::{Token, Unit, find_focus, focus_note, tokens_as_units, unknown_words, words},
};

/// What is to be explained, and how.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The text; `None`: the worked example.
    pub text: Option<String>,
    /// `WORD`, `WORD:N` or an index; `None`: the example's `jumps`, else the last word.
    pub focus: Option<String>,
    /// Where the vectors come from.
    pub origin: Origin,
    /// The layer, from 0; `None`: the middle one.
    pub layer: Option<usize>,
    /// The head, from 0; `None`: the one whose focus row has the lowest entropy.
    pub head: Option<usize>,
    /// Raw scores for the focus row, used as given.
    pub scores: Option<Vec<Printed>>,
    /// Weights that somebody published for this row.
    pub claimed: Option<Vec<Printed>>,
    /// What is one row of every table.
    pub units: Units,
    /// What q·k is multiplied with; `None`: the model's own, or 1/√dim.
    pub scale: Option<f64>,
    /// What scores are divided by; `None`: 1.
    pub temperature: Option<f64>,
    /// The command line, for the recipe.
    pub command: String,
}

/// Where the vectors come from.
#[derive(Clone, Debug, Default)]
pub enum Origin {
    /// The vectors of the worked example.
    #[default]
    Example,
    /// A file with vectors of one's own.
    Vectors(PathBuf),
    /// A model on disk, and the name it goes by.
    Model {
        /// The catalogue's name, or the path as it was given.
        name: String,
        /// A folder.
        path: PathBuf,
    },
}

/// What is one row of every table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Units {
    /// Pieces of one word are merged.
    #[default]
    Words,
    /// As the tokenizer cut them.
    Tokens,
}

/// The source of the numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The worked example.
    Example,
    /// A file of vectors.
    Vectors {
        /// Its path.
        file: String,
    },
    /// One head of a model.
    Model {
        /// The name it goes by.
        name: String,
        /// What it is.
        info: Info,
        /// The layer, from 0.
        layer: usize,
        /// The head, from 0.
        head: usize,
        /// Whether the head was chosen by its entropy.
        head_chosen: bool,
    },
}

/// Everything that a report tells.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Where the numbers come from.
    pub source: Source,
    /// The text, cut and encoded for the head.
    pub encoded: Encoded,
    /// Words or tokens.
    pub units: Units,
    /// The four steps of the focus.
    pub steps: Steps,
    /// Published weights and their check.
    pub claimed: Option<Claimed>,
    /// What a reader has to know about these numbers.
    pub notes: Vec<String>,
    /// The command line that made it.
    pub command: String,
}

/// Takes the four steps.
///
/// # Errors
/// Input that is wrong or does not fit together; the sentence names the flag or file.
pub fn explain(request: Request) -> Result<Explained> {
    let numbers =
        [("--temperature", request.temperature, 0.0), ("--scale", request.scale, f64::NEG_INFINITY)];
    for (flag, value, above) in numbers {
        if let Some(value) = value.filter(|value| !(value.is_finite() && *value > above)) {
            let expected = if above == 0.0 { "a number above 0" } else { "a finite number" };
            return Err(Error::request(
                format!("{flag} {value} is not {expected}"),
                format!("give for instance {flag} 0.5"),
            ));
        }
    }
    let asked = request.focus.clone();
    let is_model = matches!(request.origin, Origin::Model { .. });
    if !is_model && (request.layer.is_some() || request.head.is_some()) {
        return Err(Error::request(
            "--layer and --head need a model: these vectors have no layers and no heads",
            "add a text and --model minilm, or leave the two flags out",
        ));
    }
    let mut notes = Vec::new();
    let (source, mut encoded, focus) = match &request.origin {
        Origin::Example => from_example(&request, &mut notes)?,
        Origin::Vectors(path) => {
            let encoded = own::vectors(path, request.text.as_deref())?;
            let focus = find_focus(&encoded.units, request.focus.as_deref())?;
            notes.push(
                "q, k and v are the vectors themselves: no model has learned any projection of them.".into(),
            );
            (Source::Vectors { file: path.display().to_string() }, encoded, focus)
        }
        Origin::Model { name, path } => from_model(&request, name, path, &mut notes)?,
    };
    notes.extend(asked.and_then(|asked| focus_note(&encoded.units, &asked, focus)));
    let count = encoded.units.len();
    let fits = |flag: &str, list: &[Printed]| {
        if list.len() == count {
            return Ok(());
        }
        let shown: Vec<&str> = encoded.units.iter().take(20).map(|unit| unit.text.as_str()).collect();
        let more = if count > 20 { " …" } else { "" };
        Err(Error::request(
            format!("{flag} has {} numbers for {count} words", list.len()),
            format!("give one number for each of: {}{more}", shown.join(" ")),
        ))
    };
    if let Some(scores) = &request.scores {
        fits("--scores", scores)?;
        if encoded.units.iter().any(|unit| unit.pieces.len() > 1) {
            return Err(Error::request(
                "--scores cannot be spread over words of several tokens",
                "add --units tokens and give one score per token",
            ));
        }
        encoded.given = Some(Given { focus, scores: scores.iter().map(|score| score.value).collect() });
    }
    let given = encoded.given.as_ref().is_some_and(|given| given.focus == focus);
    if given && request.scale.is_some() {
        return Err(Error::request(
            "--scale has nothing to scale: the scores of this row are given, not computed",
            "--temperature divides given scores too",
        ));
    }
    encoded.scale = request.scale.unwrap_or(encoded.scale);
    encoded.temperature = request.temperature.unwrap_or(1.0);
    let steps = encoded.steps(focus)?;
    if let Some(temperature) = request.temperature {
        let effect = match temperature {
            t if t > 1.0 => "flatter: the shares move towards 1/n",
            t if t < 1.0 => "sharper: the largest score takes more",
            _ => "the same as without it",
        };
        notes.push(format!("Scores are divided by the temperature {temperature}: {effect}."));
    }
    if encoded.units.iter().any(|unit| unit.pieces.len() > 1) {
        notes.push(MERGED.into());
    }
    let claimed = match request.claimed {
        Some(claimed) => {
            fits("--claimed", &claimed)?;
            Some(claimed)
        }
        // The published row belongs to the example's own scores, as they are.
        None if matches!(source, Source::Example)
            && given
            && request.scores.is_none()
            && encoded.temperature == 1.0 =>
        {
            own::parse_list(example::CLAIMED).ok()
        }
        None => None,
    };
    let texts: Vec<&str> = encoded.units.iter().map(|unit| unit.text.as_str()).collect();
    let claimed = claimed.map(|claimed| Claimed::check(&claimed, &steps.scores, &steps.weights, &texts));
    if let Some(claimed) = &claimed {
        notes.push(claimed.finding.clone());
    }
    Ok(Explained { source, encoded, units: request.units, steps, claimed, notes, command: request.command })
}

const MERGED: &str = "Words of several tokens are merged: a word's weight is the sum over its pieces, a focus word's \
     row is the mean over its pieces, and its score is the one whose softmax is that weight; --units tokens \
     shows the model's own numbers.";

fn from_example(request: &Request, notes: &mut Vec<String>) -> Result<(Source, Encoded, usize)> {
    let encoded = example::encoded();
    let focus = find_focus(&encoded.units, Some(request.focus.as_deref().unwrap_or(example::FOCUS)))?;
    let is_given = encoded.given.as_ref().is_some_and(|given| given.focus == focus);
    if !is_given && request.scores.is_none() {
        notes.push(format!(
            "The example gives raw scores for \"{}\" alone; those of \"{}\" are computed from the vectors: q·k/√3 with q = k = v.",
            example::FOCUS, encoded.units[focus].text
        ));
    }
    Ok((Source::Example, encoded, focus))
}

fn from_model(
    request: &Request,
    name: &str,
    path: &std::path::Path,
    notes: &mut Vec<String>,
) -> Result<(Source, Encoded, usize)> {
    let text = request.text.clone().unwrap_or_else(|| example::TEXT.to_owned());
    if text.trim().is_empty() {
        return Err(Error::request(
            "the text is empty",
            "give a sentence, for instance \"The quick brown fox\"",
        ));
    }
    let Loaded { model, tokenizer, .. } = models::load(path)?;
    let info = model.info().clone();
    let tokenizer = tokenizer.ok_or_else(|| {
        Error::request(
            format!("{} has no tokenizer.json, so the text cannot be cut into tokens", path.display()),
            "put the model's tokenizer.json beside its config.json",
        )
    })?;
    let layer = in_range("--layer", request.layer.unwrap_or(info.layers / 2), info.layers, "layers")?;
    if let Some(head) = request.head {
        in_range("--head", head, info.heads, "heads")?;
    }
    let tokens = tokenizer.encode(&text)?;
    let units = match request.units {
        Units::Words => words(&text, &tokens),
        Units::Tokens => tokens_as_units(&tokens),
    };
    let default = request.text.is_none().then_some(example::FOCUS);
    let focus = find_focus(&units, request.focus.as_deref().or(default))?;
    notes.extend(unknown_words(&tokenizer, &tokens, || units.clone(), name));
    let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
    let gathered = gather(&*model, &ids, layer)?;

    let mut encoded = Encoded {
        text,
        units,
        pieces: tokens.into_iter().map(|token: Token| token.text).collect(),
        encoding: gathered.encoding,
        q: Matrix::default(),
        k: Matrix::default(),
        v: Matrix::default(),
        scale: gathered.scale,
        temperature: request.temperature.unwrap_or(1.0),
        causal: gathered.causal,
        given: None,
    };
    let model_scale = encoded.scale;
    encoded.scale = request.scale.unwrap_or(model_scale);
    let mut best: Option<(f64, usize)> = None;
    let mut heads: Vec<_> = gathered.q.into_iter().zip(gathered.k).zip(gathered.v).map(Some).collect();
    for (head, parts) in
        heads.iter_mut().enumerate().filter(|(head, _)| request.head.is_none_or(|asked| asked == *head))
    {
        let Some(((q, k), v)) = parts.take() else { continue };
        let kept = (
            std::mem::replace(&mut encoded.q, q),
            std::mem::replace(&mut encoded.k, k),
            std::mem::replace(&mut encoded.v, v),
        );
        let entropy = encoded.steps(focus)?.entropy();
        if best.is_none_or(|(lowest, _)| entropy < lowest) {
            best = Some((entropy, head));
        } else {
            (encoded.q, encoded.k, encoded.v) = kept;
        }
    }
    encoded.scale = model_scale;
    let (entropy, head) =
        best.ok_or_else(|| Error::request("the model has no heads", "give another model"))?;
    let of_word = &encoded.units[focus].text;
    if request.layer.is_none() {
        notes.push(format!(
            "Layer {layer} is the middle one of 0 to {}; --layer chooses another.",
            info.layers - 1
        ));
    }
    if request.head.is_none() {
        notes.push(format!(
            "Head {head} is the one of 0 to {} whose row for \"{of_word}\" has the lowest entropy ({entropy:.3} nats); --head chooses another.",
            info.heads - 1
        ));
    }
    notes.push(format!(
        "The vectors of step 1 are what enters layer {layer}; q, k and v are its linear maps for head {head}."
    ));
    let special: Vec<&Unit> = encoded.units.iter().filter(|unit| unit.special).collect();
    if !special.is_empty() {
        let names: Vec<&str> = special.iter().map(|unit| unit.text.as_str()).collect();
        notes.push(format!(
            "{} are tokens of the model, not of the text; heads often park weight there that is needed nowhere else.",
            names.join(" and ")
        ));
    }
    let head_chosen = request.head.is_none();
    Ok((Source::Model { name: name.to_owned(), info, layer, head, head_chosen }, encoded, focus))
}

fn in_range(flag: &str, asked: usize, count: usize, what: &str) -> Result<usize> {
    if asked < count {
        return Ok(asked);
    }
    Err(Error::request(
        format!("{flag} {asked} is out of range: the model has {count} {what}"),
        format!("they are counted from 0: 0 to {}", count.saturating_sub(1)),
    ))
}
