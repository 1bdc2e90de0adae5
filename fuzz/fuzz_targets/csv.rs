//! `look::own::parse_csv`, any bytes.
//!
//! Checked: as many words as rows, at least one of each; words without white space; finite numbers only.
//! What is refused is refused in one line. What was read can be written plainly and read again.
#![no_main]

use glasshead::look::own::parse_csv;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (words, vectors) = match parse_csv(bytes) {
        Ok(read) => read,
        Err(what) => {
            return assert!(!what.is_empty() && !what.contains('\n') && what.len() < 1000, "{what:?}");
        }
    };
    assert!(!words.is_empty() && vectors.columns() > 0);
    assert_eq!(words.len(), vectors.rows());
    assert!(words.iter().all(|word| !word.is_empty() && !word.contains(char::is_whitespace)));
    assert!(vectors.values().iter().all(|x| x.is_finite()));
    let plain: String = words
        .iter()
        .zip(vectors.iter())
        .map(|(word, row)| {
            let numbers: String = row.iter().map(|x| format!(",{x:?}")).collect();
            format!("\"{}\"{numbers}\n", word.replace('"', "\"\""))
        })
        .collect();
    assert_eq!(parse_csv(plain.as_bytes()), Ok((words, vectors)), "{plain}");
});
