//! Quantities that are derived from a cache: the residual stream and its decomposition, head
//! outputs, and logit attribution.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

use crate::cache::{ActivationCache, CacheError};
use crate::head::Head;
use crate::point::{HookPoint, NormKind, NormSite, Site};
use rewire_tensor::{matmul, to_f32};

/// Tensors stacked along a leading axis, with a label for each.
#[derive(Debug, Clone)]
pub struct Labeled<B: Backend> {
    /// One label per component, as in TransformerLens (`0_pre`, `0_attn_out`, `L0H0`).
    pub labels: Vec<String>,
    /// `[component, batch, pos, d_model]`.
    pub values: Tensor<B, 4>,
}

/// Which stages of the residual stream [`ActivationCache::accumulated_residual`] lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResidualStream {
    /// The residual stream before every block and after the last block.
    BetweenBlocks,
    /// Also the residual stream between attention and MLP; only for sequential blocks.
    WithMid,
}

impl<B: Backend> ActivationCache<B> {
    /// Returns the number of blocks in the cache.
    fn n_layers(&self) -> usize {
        let layers = self.points().filter_map(|p| match p {
            HookPoint::Block { layer, .. } => Some(layer + 1),
            _ => None,
        });
        layers.max().unwrap_or(0)
    }

    /// Returns the residual stream at each stage: `0_pre`, (`0_mid`,) `1_pre`, .., `final_post`.
    ///
    /// # Errors
    /// [`CacheError::Missing`] if a stage was not recorded.
    pub fn accumulated_residual(&self, stages: ResidualStream) -> Result<Labeled<B>, CacheError> {
        let n_layers = self.n_layers();
        let mut parts = Vec::new();
        for layer in 0..n_layers {
            parts.push((format!("{layer}_pre"), self.block(layer, Site::ResidPre)?));
            if stages == ResidualStream::WithMid {
                parts.push((format!("{layer}_mid"), self.block(layer, Site::ResidMid)?));
            }
        }
        parts.push(("final_post".to_owned(), self.block(n_layers.saturating_sub(1), Site::ResidPost)?));
        Ok(stack(parts))
    }

    /// Returns each component's write to the residual stream: `embed`, (`pos_embed`,) `0_attn_out`,
    /// `0_mlp_out`, ... They sum to the last `resid_post`.
    ///
    /// # Errors
    /// [`CacheError::Missing`] if a component was not recorded. A cache without `hook_pos_embed`
    /// counts as a rotary model's.
    pub fn decomposed_residual(&self) -> Result<Labeled<B>, CacheError> {
        let mut parts = vec![("embed".to_owned(), self.get(HookPoint::Embed)?)];
        if let Ok(pos_embed) = self.get(HookPoint::PosEmbed) {
            parts.push(("pos_embed".to_owned(), pos_embed));
        }
        for layer in 0..self.n_layers() {
            parts.push((format!("{layer}_attn_out"), self.block(layer, Site::AttnOut)?));
            parts.push((format!("{layer}_mlp_out"), self.block(layer, Site::MlpOut)?));
        }
        Ok(stack(parts))
    }

    /// Returns the output of each head of block `layer`: `z @ W_O`, `[batch, pos, head, d_model]`,
    /// for `w_o` `[head, d_head, d_model]`. The sum over heads plus the output bias is `attn_out`,
    /// or, in models with a norm after attention, the input of that norm (`attn.hook_out`).
    ///
    /// # Errors
    /// [`CacheError`] if `z` was not recorded or `w_o` has another number of heads.
    pub fn head_results(&self, layer: usize, w_o: Tensor<B, 3>) -> Result<Tensor<B, 4>, CacheError> {
        let z: Tensor<B, 4> = self.block(layer, Site::Z)?;
        let [batch, pos, n_heads, d_head] = z.dims();
        let [w_heads, w_d_head, d_model] = w_o.dims();
        check_size("heads of W_O", n_heads, w_heads)?;
        check_size("d_head of W_O", d_head, w_d_head)?;
        // [head, batch * pos, d_head] @ [head, d_head, d_model]
        let z = z.permute([2, 0, 1, 3]).reshape([n_heads, batch * pos, d_head]);
        let results = matmul(z, w_o).reshape([n_heads, batch, pos, d_model]);
        Ok(results.permute([1, 2, 0, 3]))
    }

    /// Returns the output of every head, labeled `L0H0`, `L0H1`, ... `w_o` holds one
    /// `[head, d_head, d_model]` per layer.
    ///
    /// # Errors
    /// As [`head_results`](Self::head_results).
    pub fn stacked_head_results(&self, w_o: &[Tensor<B, 3>]) -> Result<Labeled<B>, CacheError> {
        check_size("layers of W_O", self.n_layers(), w_o.len())?;
        let mut labels = Vec::new();
        let mut layers = Vec::new();
        for (layer, w_o) in w_o.iter().enumerate() {
            labels.extend((0..w_o.dims()[0]).map(|head| Head::new(layer, head).to_string()));
            layers.push(self.head_results(layer, w_o.clone())?.permute([2, 0, 1, 3]));
        }
        Ok(Labeled { labels, values: Tensor::cat(layers, 0) })
    }

    /// Direct logit attribution. Returns the amount that each component adds along a direction of
    /// the logits, at one position per prompt: `[component, batch]`. The final norm's scale is
    /// frozen at its value on this run.
    ///
    /// `direction` is `[batch, d_model]`, such as `W_U[:, answer] - W_U[:, wrong answer]` with the
    /// final norm's gain folded in. `end` is the position that is read, per prompt. `norm` is the
    /// kind of the final norm (`model.config().norm`).
    ///
    /// # Errors
    /// [`CacheError`] if `ln_final.hook_scale` was not recorded or the batch sizes differ.
    pub fn logit_attribution(
        &self,
        components: Tensor<B, 4>,
        direction: Tensor<B, 2>,
        end: &[usize],
        norm: NormKind,
    ) -> Result<Tensor<B, 2>, CacheError> {
        let scale: Tensor<B, 3> = self.get(HookPoint::FinalNorm(NormSite::Scale))?;
        let [n_components, batch, pos, d_model] = components.dims();
        check_size("prompts of the final scale", batch, scale.dims()[0])?;
        check_size("prompts of the direction", batch, direction.dims()[0])?;
        check_size("positions read", batch, end.len())?;
        if let Some(&past) = end.iter().find(|&&e| e >= pos) {
            return Err(CacheError::Size {
                what: "position read (must be below the expected number)",
                expected: pos,
                found: past,
            });
        }
        let device = components.device();
        let flat: Vec<i64> = end.iter().enumerate().map(|(b, e)| (b * pos + e) as i64).collect();
        let rows = Tensor::<B, 1, Int>::from_data(flat.as_slice(), &device);
        let at_end = to_f32(components).reshape([n_components, batch * pos, d_model]).select(1, rows.clone());
        let scale = scale.reshape([batch * pos, 1]).select(0, rows).reshape([1, batch, 1]);
        let along = (norm.centered(at_end) / scale) * to_f32(direction).reshape([1, batch, d_model]);
        Ok(along.sum_dim(2).reshape([n_components, batch]))
    }
}

fn stack<B: Backend>(parts: Vec<(String, Tensor<B, 3>)>) -> Labeled<B> {
    let (labels, tensors): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    Labeled { labels, values: Tensor::stack(tensors, 0) }
}

fn check_size(what: &'static str, expected: usize, found: usize) -> Result<(), CacheError> {
    if expected == found { Ok(()) } else { Err(CacheError::Size { what, expected, found }) }
}
