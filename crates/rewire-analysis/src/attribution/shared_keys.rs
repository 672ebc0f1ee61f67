//! Gradients at the keys and values of single attention heads, where heads share keys and values
//! (grouped-query attention).

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use rewire_hooks::{HookPoint, Site};
use rewire_model::{Differentiable, Transformer};
use rewire_tensor::to_f32;

use crate::attribution::linearize::Linearized;
use crate::error::AnalysisError;

/// The sites whose activations [`gradients`] needs, beside the gradient at z.
pub(crate) const RECORDED: [Site; 3] = [Site::Q, Site::K, Site::V];

/// Returns the gradients at the keys and at the values of each attention head of block `layer`,
/// each `[prompts, pos, head, d_head]`.
///
/// Every head reads a copy of its own of the keys and values of its group, and passes to it the
/// gradient at its z. The gradients of a group's heads sum to the gradient at the keys or values
/// that they share. Keys are before the rotary embedding, as at `hook_k`.
pub(crate) fn gradients<B: Differentiable>(
    model: &Transformer<B>,
    linear: &Linearized<B>,
    layer: usize,
) -> Result<[Tensor<B::InnerBackend, 4>; 2], AnalysisError> {
    let copies = model.config().heads_per_key_value_head();
    let base = |site| linear.base.get::<4>(HookPoint::block(layer, site)).map(|x| to_f32(x.inner()));
    let copied = |site| Ok::<_, AnalysisError>(for_each_head(base(site)?, 2, copies));
    let queries = Tensor::<B, 4>::from_inner(base(Site::Q)?);
    let [keys, values] = [copied(Site::K)?, copied(Site::V)?].map(|x| Tensor::<B, 4>::from_inner(x).require_grad());
    let [prompts, pos, heads, d_head] = queries.dims();
    let positions: Vec<usize> = (0..prompts).flat_map(|_| linear.first..linear.first + pos).collect();
    let rotated = |x: Tensor<B, 4>| {
        let x = model.after_rotary(layer, x.reshape([prompts * pos, 1, heads, d_head]), &positions);
        x.reshape([prompts, pos, heads, d_head])
    };
    let earlier = linear.prefix.as_ref().map(|prefix| {
        prefix.keys_values(layer).map(|x| Tensor::from_inner(for_each_head(to_f32(x.inner()), 2, copies)))
    });
    let qkv = [rotated(queries), rotated(keys.clone()), values.clone()];
    let z = model.attend_by_rule(layer, qkv, earlier, linear.backward);
    let at_z = Tensor::from_inner(to_f32(linear.gradients.get::<4>(HookPoint::block(layer, Site::Z))?));
    let mut found = (z * at_z).sum().backward();
    Ok([keys, values].map(|x| match x.grad_remove(&mut found) {
        Some(gradient) => gradient,
        None => x.zeros_like().inner(),
    }))
}

/// Repeats each key/value head along axis `dim` for the `copies` attention heads that share it.
pub(crate) fn for_each_head<B: Backend, const D: usize>(x: Tensor<B, D>, dim: usize, copies: usize) -> Tensor<B, D> {
    if copies == 1 {
        return x;
    }
    let heads = x.dims()[dim] * copies;
    let shared: Vec<i32> = (0..heads).map(|head| (head / copies) as i32).collect();
    let shared = Tensor::<B, 1, Int>::from_data(TensorData::new(shared, [heads]), &x.device());
    x.select(dim, shared)
}
