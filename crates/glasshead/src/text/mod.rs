//! A text, cut: into the tokens a model reads, and into the words a person reads, both of which know
//! their bytes in the text.

mod chat;
mod fence;
mod focus;
mod tokens;
mod vocabulary;
mod words;

pub use chat::{ChatTemplate, Message};
pub use focus::{Asked, find_focus, focus_note, parse_focus};
pub use tokens::{Token, Tokenizer};
pub use words::{Unit, tokens_as_units, unknown_words, words};
