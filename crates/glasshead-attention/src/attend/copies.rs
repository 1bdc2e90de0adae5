//! Copies of keys and values that products can't use where they lie. Those of a head stay as long as a thread reads it:
//! its panels look at the same tokens again and again.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Problem, workspace::Lines};
use crate::{Element, isa::Number};

/// The most bytes of k and v that a thread keeps.
const KEPT: usize = 4 << 20;

/// Tells what a run reads from what any other does: memory may be the same, and hold other numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Run(u64);

impl Run {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self(COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Copies that stay: those of the tokens of a sequence in one key head.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Stay {
    run: Run,
    batch: usize,
    head: usize,
    /// The first token, from which items are counted, and how many there may be.
    first: usize,
    tokens: usize,
}

impl Stay {
    /// If they are few enough.
    pub(super) fn new<T: Element>(
        problem: &Problem<T>,
        [batch, head]: [usize; 2],
        first: usize,
    ) -> Option<Self> {
        let tokens = problem.keys.saturating_sub(first);
        can_stay(problem).then_some(Self { run: problem.run, batch, head, first, tokens })
    }
}

/// Whether copies of the keys and values of a head stay.
pub(super) fn can_stay<T: Element>(problem: &Problem<T>) -> bool {
    let row = problem.dim.saturating_add(problem.value_dim).saturating_mul(size_of::<T::Number>());
    problem.keys.saturating_mul(row) <= KEPT
}

/// Copies of keys, or of values.
#[derive(Default)]
pub(super) struct Copies<N> {
    room: Lines<N>,
    of: Option<Stay>,
    /// What is there, so many numbers for so many tokens.
    tokens: Range<usize>,
    item: [usize; 2],
}

impl<N: Number> Copies<N> {
    /// Room for the copies of some tokens, `item` numbers for so many of them, and which tokens the caller is to copy
    /// there: the last ones.
    #[inline(always)]
    pub(super) fn of(
        &mut self,
        stay: Option<Stay>,
        tokens: &Range<usize>,
        item: [usize; 2],
    ) -> (&mut [N], Range<usize>) {
        let Some(own) = stay else {
            self.of = None;
            return (self.room.get(numbers(tokens.len(), item)), tokens.clone());
        };
        let joined = self.tokens.start <= tokens.start && tokens.start <= self.tokens.end;
        if self.of != stay || !joined {
            (self.of, self.tokens, self.item) = (stay, tokens.start..tokens.start, item);
        }
        let mut missing = tokens.end..tokens.end;
        if self.tokens.end < tokens.end {
            // A last item of one token gets its second now.
            missing.start = self.tokens.end - (self.tokens.end - own.first) % item[1];
            self.tokens.end = tokens.end;
        }
        (self.at(own, tokens), missing)
    }

    /// The copies of some tokens, if all are there.
    pub(super) fn get(&mut self, stay: Option<Stay>, tokens: &Range<usize>) -> Option<&[N]> {
        let own = stay.filter(|_| self.of == stay)?;
        let there = self.tokens.start <= tokens.start && tokens.end <= self.tokens.end;
        there.then(|| &*self.at(own, tokens))
    }

    /// Where the copies of some tokens stand.
    #[inline(always)]
    fn at(&mut self, own: Stay, tokens: &Range<usize>) -> &mut [N] {
        let before = |token: usize| numbers(token - own.first, self.item);
        let place = before(tokens.start)..before(tokens.end);
        &mut self.room.get(numbers(own.tokens, self.item))[place]
    }
}

/// How many numbers the items of so many tokens take.
fn numbers(tokens: usize, [unit, depth]: [usize; 2]) -> usize {
    tokens.div_ceil(depth) * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copies tokens as their own numbers, two to an item; which ones were missing.
    fn copy(copies: &mut Copies<f32>, stay: Option<Stay>, tokens: Range<usize>) -> Range<usize> {
        let (room, missing) = copies.of(stay, &tokens, [2, 2]);
        assert_eq!(room.len(), tokens.len().next_multiple_of(2));
        let done = tokens.len() - missing.len();
        room[done..].fill(0.0);
        for (to, token) in room[done..].iter_mut().zip(missing.clone()) {
            *to = token as f32;
        }
        let expected = tokens.clone().map(|token| token as f32);
        assert!(room.iter().copied().zip(expected).all(|(got, token)| got == token), "{tokens:?}: {room:?}");
        missing
    }

    #[test]
    fn only_what_is_missing_is_copied_and_nothing_of_another_run() {
        let stay = |run| Some(Stay { run, batch: 0, head: 0, first: 3, tokens: 20 });
        let (run, other) = (Run::new(), Run::new());
        let mut copies = Copies::default();
        assert_eq!(copy(&mut copies, stay(run), 3..7), 3..7);
        assert_eq!(copy(&mut copies, stay(run), 3..7), 7..7);
        // The last of an odd number lies in an item of its own until the next one comes.
        assert_eq!(copy(&mut copies, stay(run), 7..10), 7..10);
        assert_eq!(copy(&mut copies, stay(run), 7..12), 9..12);
        assert_eq!(copy(&mut copies, stay(run), 3..12), 12..12);
        assert_eq!(copies.get(stay(run), &(5..9)), Some(&[5.0, 6.0, 7.0, 8.0][..]));
        assert_eq!(copies.get(stay(run), &(11..13)), None);
        assert_eq!(copies.get(stay(other), &(5..9)), None);
        // Behind a gap, and in another run, all is new.
        assert_eq!(copy(&mut copies, stay(run), 15..19), 15..19);
        assert_eq!(copy(&mut copies, stay(run), 3..7), 3..7);
        assert_eq!(copy(&mut copies, stay(other), 3..7), 3..7);
        // What does not stay is copied every time, and leaves nothing behind.
        assert_eq!(copy(&mut copies, None, 3..7), 3..7);
        assert_eq!(copy(&mut copies, None, 3..7), 3..7);
        assert_eq!(copy(&mut copies, stay(other), 3..7), 3..7);
    }
}
