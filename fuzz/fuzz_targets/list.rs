//! `look::own::parse_list`, any text: the lists of `--scores` and `--claimed`.
//!
//! Checked: no empty list; every number finite or −∞; printed digits in a sane range; the list written
//! plainly is read as the same numbers; every refusal is one line.
#![no_main]

use glasshead::look::own::parse_list;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let list = match parse_list(text) {
        Ok(list) => list,
        Err(what) => {
            return assert!(!what.is_empty() && !what.contains('\n') && what.len() < 1000, "{what:?}");
        }
    };
    assert!(!list.is_empty());
    assert!(list.iter().all(|item| item.value.is_finite() || item.value == f64::NEG_INFINITY));
    assert!(list.iter().all(|item| item.decimals <= 300));
    let plain = list.iter().map(|item| item.value.to_string()).collect::<Vec<_>>().join(",");
    let again = parse_list(&plain).expect("what was read can be read again");
    assert!(again.iter().map(|item| item.value).eq(list.iter().map(|item| item.value)), "{plain}");
});
