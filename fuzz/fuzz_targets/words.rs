//! `text::words`: any text, cut into tokens at any character boundaries, in any order, special tokens
//! between them.
//!
//! Checked: the pieces of the words are the tokens 0, 1, 2, … each once and in order; a word's text is the
//! text's own bytes; a special token stands alone. Where the tokens come in order, without overlaps,
//! empty ones or special ones between them, no two words claim the same byte, and a word holds its tokens.
#![no_main]

use glasshead::text::{Token, words};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<(u8, u8, u8)>, &str)| {
    let (cuts, text) = input;
    let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let at = |cut: u8| boundaries[usize::from(cut) % boundaries.len()];
    let tokens: Vec<Token> = cuts
        .iter()
        .map(|&(a, b, kind)| {
            if kind == 0 {
                return Token { id: 1, text: "[X]".to_owned(), start: 0, end: 0, special: true };
            }
            let (start, end) = (at(a).min(at(b)), at(a).max(at(b)));
            Token { id: 0, text: text[start..end].to_owned(), start, end, special: false }
        })
        .collect();
    let units = words(text, &tokens);
    assert!(units.iter().flat_map(|unit| unit.pieces.iter().copied()).eq(0..tokens.len()));
    for unit in &units {
        assert!(!unit.pieces.is_empty());
        assert_eq!(unit.special, tokens[unit.pieces[0]].special);
        if unit.special {
            assert_eq!((unit.pieces.len(), unit.text.as_str()), (1, "[X]"));
        } else {
            assert_eq!(unit.text, text[unit.start..unit.end]);
        }
    }
    let ordered: Vec<&Token> = tokens.iter().filter(|token| !token.special).collect();
    // Tokenizers put special tokens around a text, not into it.
    let turns = tokens.windows(2).filter(|pair| !pair[0].special && pair[1].special).count();
    let in_order = turns + usize::from(tokens.last().is_some_and(|token| !token.special)) < 2
        && ordered.windows(2).all(|pair| pair[0].end <= pair[1].start);
    if in_order && ordered.iter().all(|token| token.start < token.end) {
        let shown: Vec<_> = units.iter().filter(|unit| !unit.special).collect();
        assert!(shown.windows(2).all(|pair| pair[0].end <= pair[1].start), "{units:?}");
        for unit in shown {
            // White space around a token belongs to no word.
            let inside = |&piece: &usize| unit.text.contains(tokens[piece].text.trim());
            assert!(unit.pieces.iter().all(inside), "{units:?}");
        }
    }
});
