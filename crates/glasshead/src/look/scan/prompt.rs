//! What the model reads: the text, and around it what a question brings along; every token with its place
//! and its role.

use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::{Role, ScanToken, Source};
use crate::look::segments::{Cut, Segment};
use crate::models::Loaded;
use crate::text::{Message, Token, Tokenizer};
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
    /// The texts where there are several.
    pub(super) texts: Vec<Segment>,
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
        let tokenizer = tokenizer_of(loaded, path)?;
        let (text, own, question, in_chat) = match ask {
            None => (text.clone(), 0..text.len(), 0..0, false),
            Some(ask) => with_question(&text, ask, loaded)?,
        };
        // A template writes the special tokens itself; nothing is added to them.
        let tokens = if in_chat { tokenizer.encode_as_is(&text) } else { tokenizer.encode(&text) }?;
        let tokens = tokens.into_iter().map(|token| placed(token, &own, &question)).collect();
        Ok(Self { text, own, tokens, texts: Vec::new() })
    }

    /// Cuts `text` into passages, and each of them into tokens as a text of its own.
    pub(super) fn of_each(text: String, cut: &Cut, loaded: &Loaded, path: &Path) -> Result<Self> {
        let tokenizer = tokenizer_of(loaded, path)?;
        let mut texts = cut.apply(&text)?;
        for one in &mut texts {
            one.end = one.start + text[one.start..one.end].trim_end_matches(['\n', '\r']).len();
        }
        texts.retain(|one| !text[one.start..one.end].trim().is_empty());
        if texts.is_empty() {
            return Err(Error::request("the text is empty", "give a text with at least one word"));
        }
        let tokens_of = |one: &mut Segment| -> Result<Vec<ScanToken>> {
            let own = one.start..one.end;
            let mut tokens = tokenizer.encode(&text[own.clone()])?;
            one.tokens = tokens.len();
            for token in tokens.iter_mut().filter(|token| token.start < token.end) {
                token.start += own.start;
                token.end += own.start;
            }
            Ok(tokens.into_iter().map(|token| placed(token, &own, &(0..0))).collect())
        };
        let of_each = texts.par_iter_mut().map(tokens_of).collect::<Result<Vec<_>>>()?;
        let tokens = of_each.into_iter().flatten().collect();
        Ok(Self { own: 0..text.len(), text, tokens, texts })
    }

    /// Takes in what the model wrote behind it.
    pub(super) fn answered(&mut self, written: &[u32], tokenizer: Option<&Tokenizer>) -> Result<()> {
        let (Some(tokenizer), false) = (tokenizer, self.text.is_empty()) else {
            let answer = written.iter().map(|&id| ScanToken { role: Role::Answer, ..numbered(id) });
            self.tokens.extend(answer);
            return Ok(());
        };
        let last = self.tokens.last().map(|token| token.id);
        let (answer, ranges) = tokenizer.decode_after(last, written)?;
        let start = self.text.len();
        self.text.push_str(&answer);
        for (&id, range) in written.iter().zip(ranges) {
            let text = answer.get(range.clone()).unwrap_or_default().to_owned();
            let (start, end) =
                if range.is_empty() { (0, 0) } else { (start + range.start, start + range.end) };
            self.tokens.push(ScanToken { id, text, start, end, role: Role::Answer });
        }
        Ok(())
    }

    /// Where each token starts in the text; `None` for one without bytes.
    pub(super) fn starts(&self) -> impl Iterator<Item = Option<usize>> {
        self.tokens.iter().map(|token| (token.start < token.end).then_some(token.start))
    }
}

/// The text and the question as the model reads them: all of it, the text's bytes, the question's bytes, and
/// whether a chat template wrote it.
type Asked = (String, Range<usize>, Range<usize>, bool);

fn with_question(text: &str, ask: &str, loaded: &Loaded) -> Result<Asked> {
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
        return Ok((message, 0..text.len(), question, false));
    };
    // Many templates trim what they are given; the question ends without a blank.
    let trimmed = message.trim_start();
    let lost = message.len() - trimmed.len();
    let found = all.rfind(&message).map(|start| (start, 0)).or_else(|| Some((all.rfind(trimmed)?, lost)));
    let (start, lost) = found.ok_or_else(|| {
        Error::request(
            "the chat template of this model changes the text, so its words cannot be followed",
            "leave --ask out and put the question at the end of the text",
        )
    })?;
    let own = start..start + text.len() - lost;
    let question_start = own.end + gap.len();
    Ok((all, own, question_start..question_start + question.len(), true))
}

/// The message as the model's chat template puts it, ready for an answer; `None`: it has no template.
fn in_chat(loaded: &Loaded, message: &str) -> Result<Option<String>> {
    let chat = loaded.chat.as_ref();
    chat.map(|chat| chat.render(&[Message::user(message)], true)).transpose()
}

fn tokenizer_of<'a>(loaded: &'a Loaded, path: &Path) -> Result<&'a Tokenizer> {
    loaded.tokenizer.as_ref().ok_or_else(|| {
        Error::request(
            format!("{} has no tokenizer.json, so the text cannot be cut into tokens", path.display()),
            "put the model's tokenizer.json beside its config.json, or give --ids",
        )
    })
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
