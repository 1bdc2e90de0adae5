//! `text::parse_focus` and `text::find_focus`: any argument, any text cut at white space.
//!
//! Checked: the index that is found is one of the units; a word is found where it is asked for as it is
//! written; errors stay on one line and have a hint.
#![no_main]

use glasshead::text::{Asked, Token, find_focus, parse_focus, tokens_as_units};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (text, asked) = input;
    let mut end = 0;
    let mut tokens: Vec<Token> = Vec::new();
    for (index, word) in text.split_inclusive(char::is_whitespace).enumerate() {
        let (start, text) = (end, word.trim().to_owned());
        end += word.len();
        tokens.push(Token { id: 0, start, end: start + text.len(), text, special: index % 7 == 6 });
    }
    let units = tokens_as_units(&tokens);
    match find_focus(&units, Some(asked)) {
        Ok(index) => {
            assert!(index < units.len());
            match parse_focus(asked) {
                Asked::Index(wanted) => assert_eq!(index, wanted),
                Asked::Word { word, .. } => {
                    let found = units[index].text.to_lowercase();
                    assert!(found == word.to_lowercase() || found == asked.to_lowercase());
                }
            }
        }
        Err(error) => {
            let lines = format!("{error}{}", error.hint());
            assert!(!error.hint().is_empty() && !lines.contains(['\n', '\r', '\u{1b}']), "{lines:?}");
        }
    }
    assert_eq!(find_focus(&units, None).is_ok(), !units.is_empty());
    for unit in units.iter().filter(|unit| matches!(parse_focus(&unit.text), Asked::Word { .. })) {
        let found = find_focus(&units, Some(&unit.text)).expect("a word of the text");
        assert_eq!(units[found].text, unit.text);
    }
});
