//! A fence around a library that panics on hostile input: the tokenizers crate does so on a `decoder` that
//! is cut off and on a broken character map, where a sentence is due.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`. `None`: it panicked; nothing of that is printed. Panics outside are told as ever.
pub(super) fn fenced<R>(work: impl FnOnce() -> R) -> Option<R> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !INSIDE.get() {
                usual(info);
            }
        }));
    });
    let before = INSIDE.replace(true);
    // What `work` has half done is dropped, or belongs to a tokenizer that is only read.
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(before);
    outcome.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_none_and_the_next_call_works() {
        assert_eq!(fenced(|| "text"[..1].to_owned()), Some("t".to_owned()));
        assert_eq!(fenced(|| "é".split_at(1).0.len()), None);
        assert_eq!(fenced(|| fenced(|| "é".split_at(1).0.len())), Some(None));
        assert!(!INSIDE.get());
        assert_eq!(fenced(|| 3), Some(3));
    }
}
