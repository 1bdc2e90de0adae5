//! The oracle of the backward pass: what the chain rule says, in f64, one query after the other.
//!
//! ```text
//! gv[j] += weight[j] · go[i]
//! gw[j]  = go[i]·v[j]
//! gs[j]  = weight[j] · (gw[j] − Σ weight·gw)         gs[sink] = −weight[sink] · Σ weight·gw
//! gx[j]  = gs[j] · (1 − tanh²(x[j] / softcap))       x[j] = q[i]·k[j] · scale
//! gq[i] += gx[j] · scale · k[j]                      gk[j] += gx[j] · scale · q[i]
//! ```

use super::{Row, dot};
use crate::{Attention, AttentionError, Element, TensorView, attend::Problem};

/// Gradients in f64, each in the shape of what it is the gradient of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gradients {
    /// `[batch, heads, queries, dim]`
    pub q: Vec<f64>,
    /// `[batch, kv_heads, keys, dim]`
    pub k: Vec<f64>,
    /// `[batch, kv_heads, keys, value_dim]`
    pub v: Vec<f64>,
    /// `[heads]`; zeros where there are no sinks.
    pub sinks: Vec<f64>,
}

/// Gradients of a loss whose gradient with respect to the output is `grad_out [batch, heads, queries, value_dim]`.
///
/// # Errors
/// As [`Attention::backward`].
pub fn gradients<T: Element>(
    request: &Attention<T>,
    grad_out: TensorView<T>,
) -> Result<Gradients, AttentionError> {
    let problem = request.checked()?;
    problem.check_output("grad_out", grad_out)?;
    let mut all = Gradients { sinks: vec![0.0; problem.heads], ..Gradients::default() };
    for batch in 0..problem.batch {
        for key_head in 0..problem.heads / problem.group {
            let head = of_head(&problem, grad_out, batch, key_head);
            all.q.extend(head.q);
            all.k.extend(head.k);
            all.v.extend(head.v);
            let sinks = &mut all.sinks[key_head * problem.group..];
            sinks.iter_mut().zip(head.sinks).for_each(|(all, sink)| *all += sink);
        }
    }
    Ok(all)
}

/// Gradients of one key head and of the query heads that read it.
pub(crate) fn of_head<T: Element>(
    problem: &Problem<T>,
    grad_out: TensorView<T>,
    batch: usize,
    key_head: usize,
) -> Gradients {
    let &Problem { group, queries, keys, dim, value_dim, scale, softcap, .. } = problem;
    let mut gradients = Gradients {
        q: vec![0.0; group * queries * dim],
        k: vec![0.0; keys * dim],
        v: vec![0.0; keys * value_dim],
        sinks: vec![0.0; group],
    };
    let mut row = Row::default();
    for member in 0..group {
        let head = key_head * group + member;
        for query in 0..queries {
            row.compute(problem, batch, head, query);
            let go = grad_out.vector(batch, head, query).to_f64();
            let q = problem.q.vector(batch, head, query).to_f64();
            let value = |key: usize| problem.v.vector(batch, key_head, key);
            let gw: Vec<f64> = row.keys.iter().map(|key| dot(&go, value(*key))).collect();
            let mean: f64 = row.weights.iter().zip(&gw).map(|(weight, gw)| weight * gw).sum();
            gradients.sinks[member] -= row.sink_weight * mean;
            let gq = &mut gradients.q[(member * queries + query) * dim..][..dim];
            for ((&key, &weight), gw) in row.keys.iter().zip(&row.weights).zip(gw) {
                let gv = &mut gradients.v[key * value_dim..][..value_dim];
                gv.iter_mut().zip(&go).for_each(|(gv, go)| *gv += weight * go);
                let k = problem.k.vector(batch, key_head, key);
                let mut gx = weight * (gw - mean) * scale;
                if softcap > 0.0 {
                    gx *= 1.0 - (dot(&q, k) * scale / softcap).tanh().powi(2);
                }
                gq.iter_mut().zip(k.iter()).for_each(|(gq, k)| *gq += gx * k.to_f64());
                let gk = &mut gradients.k[key * dim..][..dim];
                gk.iter_mut().zip(&q).for_each(|(gk, q)| *gk += gx * q);
            }
        }
    }
    gradients
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Causal, Mask, MaskValues, reference};

    /// A loss Σ out · go, and what it loses or gains by a small step of one input.
    #[test]
    fn gradients_are_the_slopes_of_the_output() {
        let number = |n: usize| ((n * 7919 + 13) % 31) as f64 / 17.0 - 0.9;
        let [queries, keys, dim, value_dim] = [3, 4, 2, 3];
        let inputs: Vec<f64> = (0..2 * queries * dim + keys * (dim + value_dim)).map(number).collect();
        let go: Vec<f64> = (0..2 * queries * value_dim).map(|n| number(n + 99)).collect();
        let go = TensorView::contiguous(&go, [1, 2, queries, value_dim]).unwrap();
        let bias: Vec<f64> =
            (0..queries * keys).map(|n| if n == 5 { f64::NEG_INFINITY } else { number(n) }).collect();
        let mask = Mask::new(MaskValues::F64(&bias), &[queries, keys]).unwrap();
        let with = |inputs: &[f64], sinks: &[f32], gradients: bool| {
            let (q, rest) = inputs.split_at(2 * queries * dim);
            let (k, v) = rest.split_at(keys * dim);
            let request = Attention::new(
                TensorView::contiguous(q, [1, 2, queries, dim]).unwrap(),
                TensorView::contiguous(k, [1, 1, keys, dim]).unwrap(),
                TensorView::contiguous(v, [1, 1, keys, value_dim]).unwrap(),
            );
            let request =
                request.causal(Causal::BottomRight).softcap(1.5).mask(mask).alibi_slopes(&[0.5, 0.1]);
            let request = request.sinks(sinks);
            let out = reference::attention(&request).unwrap().out;
            let loss: f64 = out
                .iter()
                .enumerate()
                .map(|(n, out)| out * go.vector(0, n / 9, n % 9 / 3).to_f64()[n % 3])
                .sum();
            (loss, gradients.then(|| super::gradients(&request, go).unwrap()))
        };
        let sinks = [0.25f32, -0.5];
        let Gradients { q, k, v, sinks: sink_gradients } = with(&inputs, &sinks, true).1.unwrap();
        let step = 1e-5;
        for (n, gradient) in q.into_iter().chain(k).chain(v).enumerate() {
            let moved = |by: f64| {
                let mut inputs = inputs.clone();
                inputs[n] += by;
                with(&inputs, &sinks, false).0
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((gradient - slope).abs() < 1e-8, "input {n}: {gradient}, not {slope}");
        }
        for (n, gradient) in sink_gradients.into_iter().enumerate() {
            let step = 2f32.powi(-12);
            let moved = |by: f32| {
                let mut sinks = sinks;
                sinks[n] += by;
                with(&inputs, &sinks, false).0
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            assert!((gradient - slope).abs() < 1e-7, "sink {n}: {gradient}, not {slope}");
        }
    }
}
