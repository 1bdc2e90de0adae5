//! One pass over a model that keeps what one layer's attention sees.

use std::ops::ControlFlow;

use glasshead_attention::{Read, TensorView};

use super::Matrix;
use crate::{
    Error, Result,
    models::{LayerView, Model, Watch},
};

/// What enters one layer, and its q, k and v, head by head.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// The layer, from 0.
    pub layer: usize,
    /// `[tokens, hidden]`: what enters the layer.
    pub encoding: Matrix,
    /// Per query head `[tokens, head_dim]`.
    pub q: Vec<Matrix>,
    /// Per query head, the keys that it reads.
    pub k: Vec<Matrix>,
    /// Per query head, the values that it reads.
    pub v: Vec<Matrix>,
    /// What the model multiplies q·k with.
    pub scale: f64,
    /// A token sees only itself and what stands before it.
    pub causal: bool,
}

/// Runs `model` over `ids` as far as `layer` and keeps what is seen there.
///
/// # Errors
/// As [`Model::forward`]; a layer that the model does not have, or that does more with its scores than the four
/// steps show.
pub fn gather(model: &dyn Model, ids: &[u32], layer: usize) -> Result<Gathered> {
    let mut watch = Keep { layer, seen: None, unlike: None };
    model.forward(ids, &mut watch)?;
    if let Some(unlike) = watch.unlike {
        return Err(Error::request(
            format!(
                "layer {layer} of this {} model {unlike}, which the four steps do not show",
                model.info().family
            ),
            "choose another layer or model, or a text that fits into its window",
        ));
    }
    watch.seen.ok_or_else(|| {
        Error::request(
            format!("layer {layer} was never reached"),
            format!("the model has {} layers", model.info().layers),
        )
    })
}

struct Keep {
    layer: usize,
    seen: Option<Gathered>,
    /// What the layer does that the four steps would show wrongly.
    unlike: Option<&'static str>,
}

impl Watch for Keep {
    fn layer(&mut self, view: &LayerView<'_>) -> ControlFlow<(), Read> {
        if view.layer != self.layer {
            return ControlFlow::Continue(Read::new());
        }
        let [_, heads, tokens, _] = view.attention.q().shape();
        if view.softcap != 0.0 {
            self.unlike = Some("bends its scores by a softcap");
        } else if view.window.is_some_and(|window| window < tokens) {
            self.unlike = Some("sees only a window of the text");
        }
        let [_, kv_heads, ..] = view.attention.k().shape();
        let group = heads / kv_heads;
        let mut encoding = Matrix::new(view.input.len() / tokens);
        encoding.push(view.input.iter().map(|&x| f64::from(x)));
        let keep = |tensor: TensorView<'_, f32>, group: usize| {
            (0..heads).map(|head| one_head(tensor, head / group)).collect()
        };
        self.seen = Some(Gathered {
            layer: view.layer,
            encoding,
            q: keep(view.attention.q(), 1),
            k: keep(view.attention.k(), group),
            v: keep(view.attention.v(), group),
            scale: view.attention.scale_factor(),
            causal: view.attention.is_causal(),
        });
        ControlFlow::Break(())
    }
}

fn one_head(tensor: TensorView<'_, f32>, head: usize) -> Matrix {
    let [_, _, tokens, dim] = tensor.shape();
    let mut matrix = Matrix::new(dim);
    for token in 0..tokens {
        matrix.push(tensor.vector(0, head, token).iter().map(f64::from));
    }
    matrix
}
