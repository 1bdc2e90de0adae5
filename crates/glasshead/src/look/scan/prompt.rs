//! What the model reads: the text, and around it what a question brings along; every token with its place
//! and its role.

use std::ops::Range;
use std::path::Path;

use super::{Role, ScanToken, Source};
use crate::models::Loaded;
use crate::text::Token;
use crate::{Error, Result};

/// Everything that the model reads, cut into tokens.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    /// What was cut; empty for ids.
    pub(super) text: String,
    /// The bytes of the file's own text.
    pub(super) own: Range<usize>,
    /// What the model reads.
    pub(super) tokens: Vec<ScanToken>,
}

impl Prompt {
    /// Cuts `source`, with `ask` behind it.
    pub(super) fn new(source: Source, ask: Option<&str>, loaded: &Loaded, path: &Path) -> Result<Self> {
        match source {
            Source::Ids(ids) if ask.is_none() => {
                Ok(Self { tokens: ids.into_iter().map(numbered).collect(), ..Self::default() })
            }
            Source::Ids(_) => Err(Error::request(
                "--ask needs a text: a question cannot be put behind token ids",
                "give the text itself, or put the question's ids into the list",
            )),
            Source::Text(text) => Self::of_text(text, ask, loaded, path),
        }
    }

    fn of_text(text: String, ask: Option<&str>, loaded: &Loaded, path: &Path) -> Result<Self> {
        if text.trim().is_empty() {
            return Err(Error::request("the text is empty", "give a text with at least one word"));
        }
        let tokenizer = loaded.tokenizer.as_ref().ok_or_else(|| {
            Error::request(
                format!("{} has no tokenizer.json, so the text cannot be cut into tokens", path.display()),
                "put the model's tokenizer.json beside its config.json, or give --ids",
            )
        })?;
        let (text, own, question) = match ask {
            None => (text.clone(), 0..text.len(), 0..0),
            Some(ask) => with_question(&text, ask, loaded)?,
        };
        let mut tokens = tokenizer.encode(&text)?;
        // A template that writes the first special token itself does not get it twice.
        if ask.is_some()
            && matches!(tokens.as_slice(), [first, second, ..] if first.special && first.id == second.id)
        {
            tokens.remove(0);
        }
        let tokens = tokens.into_iter().map(|token| placed(token, &own, &question)).collect();
        Ok(Self { text, own, tokens })
    }

    /// Where each token starts in the text; `None` for one without bytes.
    pub(super) fn starts(&self) -> impl Iterator<Item = Option<usize>> {
        self.tokens.iter().map(|token| (token.start < token.end).then_some(token.start))
    }
}

/// The text and the question as the model reads them: `(all of it, the text's bytes, the question's bytes)`.
fn with_question(text: &str, ask: &str, loaded: &Loaded) -> Result<(String, Range<usize>, Range<usize>)> {
    let question = ask.trim();
    if question.is_empty() {
        return Err(Error::request("the question of --ask is empty", "give a question, or leave --ask out"));
    }
    let gap = if text.ends_with("\n\n") {
        ""
    } else if text.ends_with('\n') {
        "\n"
    } else {
        "\n\n"
    };
    let message = format!("{text}{gap}{question}");
    let Some(all) = in_chat(loaded, &message)? else {
        let question = text.len() + gap.len()..message.len();
        return Ok((message, 0..text.len(), question));
    };
    // Many templates trim what they are given.
    let trimmed = message.trim_start();
    let start = all.rfind(trimmed).ok_or_else(|| {
        Error::request(
            "the chat template of this model changes the text, so its words cannot be followed",
            "leave --ask out and put the question at the end of the text",
        )
    })?;
    let lost = message.len() - trimmed.len();
    let own = start..start + text.len() - lost;
    let question_start = own.end + gap.len();
    Ok((all, own, question_start..question_start + question.len()))
}

/// The message as the model's chat template puts it, ready for an answer; `None`: it has no template.
#[expect(clippy::unnecessary_wraps, reason = "rendering a template can fail")]
fn in_chat(_: &Loaded, _: &str) -> Result<Option<String>> {
    // The one place where a chat template comes in: no family that is run today has one.
    Ok(None)
}

fn numbered(id: u32) -> ScanToken {
    ScanToken { id, text: format!("#{id}"), start: 0, end: 0, role: Role::Text }
}

fn placed(token: Token, own: &Range<usize>, question: &Range<usize>) -> ScanToken {
    let Token { id, text, start, end, special } = token;
    let role = if special {
        Role::Special
    } else if question.contains(&start) {
        Role::Question
    } else if own.contains(&start) {
        Role::Text
    } else {
        Role::Template
    };
    ScanToken { id, text, start, end, role }
}
