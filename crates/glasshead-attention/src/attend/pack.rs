//! How numbers lie while the fused path works on them, and the ways there and back.

use super::{
    prefill::{COLUMNS, KEYS},
    ranges::Ranges,
};
use crate::{Element, TensorView, Vector, isa::Simd, mask::Mask};

/// Bytes of a cache line, and of the largest vector.
const LINE: usize = 64;

/// Numbers that start on a cache line, so that no vector straddles two.
#[derive(Default)]
pub(super) struct Lines(Vec<f32>);

impl Lines {
    pub(super) fn get(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len + LINE {
            self.0.resize(len + LINE, 0.0);
        }
        let start = self.0.as_ptr().align_offset(LINE).min(LINE);
        &mut self.0[start..start + len]
    }
}

/// Rows of f32, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
}

/// Copies `count` queries from `[batch, head, start]` on as `[dim, queries]`; lanes without a query of their
/// own repeat the last one.
#[inline(always)]
pub(super) fn pack_queries<S: Simd, T: Element>(
    simd: S,
    queries: TensorView<T>,
    [batch, head, start]: [usize; 3],
    count: usize,
    to: &mut [f32],
) {
    let width = COLUMNS * S::LANES;
    let dim = to.len() / width;
    let rows = queries.f32_rows(batch, head);
    for block in (0..width).step_by(S::LANES) {
        let mut d = 0;
        if let Some((rows, stride)) = rows.filter(|_| block + S::LANES <= count) {
            while d + S::LANES <= dim {
                let from = &rows[(start + block) * stride + d..];
                simd.transpose(from, stride, &mut to[d * width + block..], width);
                d += S::LANES;
            }
        }
        for lane in block..block + S::LANES {
            let vector = queries.vector(batch, head, start + lane.min(count - 1));
            for (to, value) in to.chunks_exact_mut(width).zip(vector.iter()).skip(d) {
                to[lane] = value.to_f32();
            }
        }
    }
}

/// Copies rows that are not f32, or not dense, as f32 into the workspace.
pub(super) fn widen<'a, T: Element>(
    to: &'a mut [f32],
    dim: usize,
    rows: impl Iterator<Item = Vector<'a, T>>,
) -> Rows<'a> {
    for (to, row) in to.chunks_exact_mut(dim).zip(rows) {
        match row.as_slice() {
            Some(row) => to.iter_mut().zip(row).for_each(|(to, value)| *to = value.to_f32()),
            None => to.iter_mut().zip(row.iter()).for_each(|(to, value)| *to = value.to_f32()),
        }
    }
    Rows { values: to, stride: dim }
}

/// Copies a block of v as `[value_dim / ROWS, KEYS, ROWS]`, the rest of the dims as `[rest, KEYS]`: the order
/// in which [`super::tile::mix`] reads it, whatever the strides were. Done once per block and panel.
#[inline(always)]
pub(super) fn pack_values<'a, T: Element, const ROWS: usize>(
    to: &mut [f32],
    dim: usize,
    rows: impl Iterator<Item = Vector<'a, T>>,
) {
    let whole = dim - dim % ROWS;
    for (key, row) in rows.enumerate() {
        if let Some(row) = row.as_slice() {
            for (to, row) in to.chunks_mut(ROWS * KEYS).zip(row.chunks_exact(ROWS)) {
                for (to, value) in to[key * ROWS..][..ROWS].iter_mut().zip(row) {
                    *to = value.to_f32();
                }
            }
            for (d, value) in (whole..dim).zip(&row[whole..]) {
                to[d * KEYS + key] = value.to_f32();
            }
        } else {
            for (d, value) in row.iter().enumerate() {
                let at =
                    if d < whole { d / ROWS * ROWS * KEYS + key * ROWS + d % ROWS } else { d * KEYS + key };
                to[at] = value.to_f32();
            }
        }
    }
}

/// Turns a block of the mask around, `[keys, queries]`; −∞ where a key is hidden.
pub(super) fn pack_bias(
    mask: &Mask,
    [batch, head, start]: [usize; 3],
    query_at: impl Fn(usize) -> usize,
    ranges: &Ranges,
    bias: &mut [f32],
    width: usize,
) {
    bias.fill(f32::NEG_INFINITY);
    for lane in 0..width {
        // Keys outside the range may lie outside the mask too.
        let from = ranges.starts[lane].clamp(start, start + KEYS);
        let to = ranges.ends[lane].clamp(start, start + KEYS);
        for key in from..to {
            if let Some(value) = mask.bias(batch, head, query_at(lane), key) {
                bias[(key - start) * width + lane] = value as f32;
            }
        }
    }
}

/// Turns oᵀ `[dim, queries]` around into `out [queries, dim]`, rounded to its type; `square` is room for one
/// square of lanes.
#[inline(always)]
pub(super) fn unpack<S: Simd, T: Element>(simd: S, o: &[f32], out: &mut [T], dim: usize, square: &mut [f32]) {
    let width = COLUMNS * S::LANES;
    for (block, out) in out.chunks_mut(S::LANES * dim).enumerate() {
        let lane = block * S::LANES;
        let mut d = 0;
        while d + S::LANES <= dim {
            simd.transpose(&o[d * width + lane..], width, square, S::LANES);
            for (out, row) in out.chunks_exact_mut(dim).zip(square.chunks_exact(S::LANES)) {
                for (out, x) in out[d..d + S::LANES].iter_mut().zip(row) {
                    *out = T::from_f32(*x);
                }
            }
            d += S::LANES;
        }
        for (i, out) in out.chunks_exact_mut(dim).enumerate() {
            for (d, out) in out.iter_mut().enumerate().skip(d) {
                *out = T::from_f32(o[d * width + lane + i]);
            }
        }
    }
}
