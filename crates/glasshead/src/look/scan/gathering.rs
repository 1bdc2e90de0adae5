//! The watch that keeps what was asked for of every layer, and lets the rest go.

use std::ops::ControlFlow;

use glasshead_attention::{Array, Read, Shape, Values};

use super::readouts::Wanted;
use super::{Onlooker, estimate::gigabytes};
use crate::models::{LayerView, Watch};
use crate::{Error, Result};

/// What is kept while the layers pass by.
pub(super) struct Gathering<'a> {
    wanted: &'a Wanted,
    /// `[1, heads, tokens]` of one layer.
    shape: Shape,
    layers: &'a [usize],
    heads: &'a [usize],
    /// Layers that are computed.
    depth: usize,
    onlooker: &'a mut dyn Onlooker,
    /// `[layers, heads, …]`
    kept: Vec<Array>,
    /// The onlooker has had enough.
    pub(super) stopped: bool,
    done: usize,
}

/// The arrays `[layers, heads, …]` that are kept of the arrays `[1, all heads, …]` of a layer; still empty.
pub(super) fn kept_of(passing: &[Array], layers: usize, heads: usize) -> Vec<Array> {
    let mut kept = passing.to_vec();
    kept.iter_mut().for_each(|array| drop(array.shape.splice(0..2, [layers, heads])));
    kept
}

impl<'a> Gathering<'a> {
    /// Makes room for everything that will be kept.
    ///
    /// # Errors
    /// When memory is not enough.
    pub(super) fn new(
        wanted: &'a Wanted,
        shape: Shape,
        [layers, heads]: [&'a [usize]; 2],
        depth: usize,
        onlooker: &'a mut dyn Onlooker,
    ) -> Result<Self> {
        let passing = wanted.named(wanted.read.arrays(&shape), &shape);
        let mut kept = kept_of(&passing, layers.len(), heads.len());
        for array in &mut kept {
            let count = array.shape.iter().try_fold(1usize, |count, &axis| count.checked_mul(axis));
            let count = count.unwrap_or(usize::MAX);
            let full = match &mut array.values {
                Values::F32(values) => values.try_reserve_exact(count).map(|()| values.resize(count, 0.0)),
                Values::I64(values) => values.try_reserve_exact(count).map(|()| values.resize(count, 0)),
            };
            full.map_err(|_| {
                Error::environment(
                    format!(
                        "the readout {} needs {}, more memory than there is",
                        array.name,
                        gigabytes((count as u64).saturating_mul(4))
                    ),
                    "choose --layers or --heads, fewer rows, coarser segments or larger blocks",
                )
            })?;
        }
        Ok(Self { wanted, shape, layers, heads, depth, onlooker, kept, stopped: false, done: 0 })
    }

    /// What was kept.
    pub(super) fn finish(self) -> Vec<Array> {
        self.kept
    }
}

impl Watch for Gathering<'_> {
    fn layer(&mut self, view: &LayerView<'_>) -> ControlFlow<(), Read> {
        if self.stopped || view.layer >= self.depth {
            return ControlFlow::Break(());
        }
        let wanted = self.layers.contains(&view.layer);
        ControlFlow::Continue(if wanted { self.wanted.read.clone() } else { Read::new() })
    }

    fn seen(&mut self, layer: usize, readouts: Vec<Array>) {
        if let Some(place) = self.layers.iter().position(|&chosen| chosen == layer) {
            for array in self.wanted.named(readouts, &self.shape) {
                let Some(kept) = self.kept.iter_mut().find(|kept| kept.name == array.name) else { continue };
                match (&mut kept.values, &array.values) {
                    (Values::F32(to), Values::F32(from)) => {
                        copy_heads(to, from, place, self.heads, self.shape.heads);
                    }
                    (Values::I64(to), Values::I64(from)) => {
                        copy_heads(to, from, place, self.heads, self.shape.heads);
                    }
                    _ => {}
                }
            }
        }
        self.done += 1;
        self.stopped |= self.onlooker.layer(self.done, self.depth).is_break();
    }
}

/// Copies chosen heads of `from [heads, …]` to layer `place` of `to [layers, chosen heads, …]`.
fn copy_heads<T: Copy>(to: &mut [T], from: &[T], place: usize, chosen: &[usize], heads: usize) {
    let each = from.len() / heads.max(1);
    let layer = &mut to[place * chosen.len() * each..];
    for (slot, &head) in chosen.iter().enumerate() {
        layer[slot * each..(slot + 1) * each].copy_from_slice(&from[head * each..(head + 1) * each]);
    }
}
