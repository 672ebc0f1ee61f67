//! Changes of the outputs of attention and MLP in models that normalize these outputs.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::Site;
use rewire_model::Transformer;

/// Returns the change of the output of attention or MLP in `layer`, as it is added to the residual
/// stream, if its heads or neurons write `change`; all are `[row, d_model]`.
///
/// In models with post-norms, `site` is the site before the norm, and `base` returns its activation
/// in the base run. In other models, `change` itself is the result.
pub(super) fn after_norm<B: Backend, E>(
    model: &Transformer<B>,
    (layer, site): (usize, Site),
    base: impl FnOnce() -> Result<Tensor<B, 2>, E>,
    change: Tensor<B, 2>,
) -> Result<Tensor<B, 2>, E> {
    if !model.config().post_norms {
        return Ok(change);
    }
    let base = base()?;
    let [rows, d_model] = change.dims();
    let norm = |x: Tensor<B, 2>| {
        let x = x.reshape([rows, 1, d_model]);
        let normed = match site {
            Site::AttnBeforeNorm => model.after_attention_norm(layer, x),
            _ => model.after_mlp_norm(layer, x),
        };
        normed.reshape([rows, d_model])
    };
    // Both are computed alike, so that no change gives exactly none.
    Ok(norm(base.clone() + change) - norm(base))
}
