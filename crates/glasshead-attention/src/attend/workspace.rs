//! Memory of one thread, kept from call to call: small problems must not pay for fresh pages.

use std::{any::Any, cell::RefCell, ops::Range};

use super::{backlog::Backlog, copies::Copies};
use crate::{isa::Number, reference::Row};

/// Bytes of a cache line, and of the largest vector.
pub(super) const LINE: usize = 64;

/// Numbers that start on a cache line, so that no vector straddles two.
#[derive(Default)]
pub(super) struct Lines<N>(Vec<N>);

impl<N: Number> Lines<N> {
    /// So many numbers, whatever they are.
    pub(super) fn get(&mut self, len: usize) -> &mut [N] {
        if self.0.len() < len + LINE {
            // Nothing is kept: fresh memory costs nothing until it is written to.
            self.0 = Vec::new();
            self.0 = vec![N::default(); len + LINE];
        }
        let start = self.0.as_ptr().align_offset(LINE).min(LINE);
        &mut self.0[start..start + len]
    }
}

/// What readouts keep of one tile, see [`super::reading::Kept`].
#[derive(Default)]
pub(super) struct Room<N> {
    pub(super) blocks: Vec<Range<usize>>,
    pub(super) bases: Vec<N>,
    pub(super) spans: Vec<Range<usize>>,
    pub(super) sums: Vec<N>,
    pub(super) own: Lines<N>,
    /// Weights of this tile and, until they are seen, of the one before in its place
    pub(super) backlog: Backlog<N>,
}

/// What the backward pass keeps of a panel of queries and a block of keys.
#[derive(Default)]
pub(super) struct Backward<N> {
    /// The gradient of the output, packed as q is
    pub(super) grad: Lines<N>,
    /// q and the gradient of the output with dims in the lanes
    pub(super) q_rows: Lines<N>,
    pub(super) grad_rows: Lines<N>,
    /// Gradients of the scores, as they come from a softcap
    pub(super) scores: Lines<N>,
    pub(super) slopes: Lines<N>,
}

/// O(panel · dim), whatever the number of keys, and O(keys) more for readouts; the partial results of a decode are one more.
#[derive(Default)]
pub(super) struct Workspace<N> {
    /// q, packed
    pub(super) q: Lines<N>,
    /// Scores, then weights, of one block of keys
    pub(super) p: Lines<N>,
    /// The mask's share of the scores
    pub(super) bias: Lines<N>,
    /// The output so far, packed
    pub(super) o: Lines<N>,
    /// Rows of k, where they can't be used as they lie
    pub(super) k: Copies<N>,
    /// Rows of v, where they can't be used as they lie
    pub(super) v: Copies<N>,
    /// Weights as items, where readouts need them as numbers
    pub(super) items: Lines<N>,
    /// What only the backward pass needs
    pub(super) backward: Backward<N>,
    /// One per tile of a panel
    pub(super) rooms: Vec<Room<N>>,
    pub(super) row: Row,
}

thread_local! {
    static SPACES: RefCell<(Workspace<f32>, Workspace<f64>)> = RefCell::default();
    static PARTIALS: RefCell<(Vec<f32>, Vec<f64>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// The one of the pair that is an `A`.
fn pick<'a, A: 'static>(first: &'a mut dyn Any, second: &'a mut dyn Any) -> Option<&'a mut A> {
    match first.is::<A>() {
        true => first.downcast_mut(),
        false => second.downcast_mut(),
    }
}

/// Lends this thread's workspace to `work`, which must not share out work of its own.
pub(super) fn with<N: Number, R>(work: impl FnOnce(&mut Workspace<N>) -> R) -> R {
    SPACES.with_borrow_mut(|(single, double)| match pick(single, double) {
        Some(workspace) => work(workspace),
        None => work(&mut Workspace::default()),
    })
}

/// Takes the memory for partial results from this thread; give it back with [`give_partials`].
pub(super) fn take_partials<N: Number>() -> Vec<N> {
    PARTIALS
        .with_borrow_mut(|(single, double)| pick::<Vec<N>>(single, double).map(std::mem::take))
        .unwrap_or_default()
}

pub(super) fn give_partials<N: Number>(partials: Vec<N>) {
    PARTIALS.with_borrow_mut(|(single, double)| {
        if let Some(place) = pick(single, double) {
            *place = partials;
        }
    });
}
