//! The QK fix of AtP* (Kramár et al. 2024): attention patterns are computed again for patched
//! queries and keys, and the gradient starts at the pattern.
//!
//! A pattern is the softmax of scores, and a saturated softmax has nearly no gradient: the plain
//! estimate of queries and keys is then far too small. The softmax is cheap to compute exactly.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::{HookPoint, Site};
use rewire_model::{Differentiable, QUERY_BLOCK, Transformer, TransformerConfig};
use rewire_tensor::{cast_like, matmul, to_f32};

use crate::attribution::linearize::Linearized;
use crate::attribution::lone_keys;
use crate::attribution::shared_keys::for_each_head;
use crate::error::AnalysisError;

/// The site whose gradient the fix needs, beside those of the plain estimates.
pub(super) const PROBED: Site = Site::Z;

/// Returns the sites whose activations the fix needs.
pub(super) fn recorded(config: &TransformerConfig) -> [Site; 3] {
    [query_site(config), config.key_site(), Site::V]
}

/// Returns the hook site of the queries that attention uses.
fn query_site(config: &TransformerConfig) -> Site {
    if config.is_rotary() { Site::RotQ } else { Site::Q }
}

/// The tensor of the inner backend under `B`.
type Inner<B, const D: usize> = Tensor<<B as burn::tensor::backend::AutodiffBackend>::InnerBackend, D>;

/// The queries, keys and values of one layer, of the base run and of the source run.
pub(super) struct Attended<'a, B: Differentiable> {
    model: &'a Transformer<B::InnerBackend>,
    layer: usize,
    /// The first position that is computed.
    first: usize,
    /// Of the base and of the source run, each `[batch, pos, head, d_head]`.
    queries: [Inner<B, 4>; 2],
    /// Of the base and of the source run, each `[batch, pos, key/value head, d_head]`.
    keys: [Inner<B, 4>; 2],
    values: Inner<B, 4>,
    /// Keys and values of the positions before `first`, equal in both runs.
    earlier: Option<[Inner<B, 4>; 2]>,
}

impl<'a, B: Differentiable> Attended<'a, B> {
    /// Takes the activations of block `layer`. `model` is the model that `linear` ran, on the inner
    /// backend.
    pub(super) fn new(
        model: &'a Transformer<B::InnerBackend>,
        linear: &Linearized<B>,
        layer: usize,
    ) -> Result<Self, AnalysisError> {
        let both = |site| -> Result<[Inner<B, 4>; 2], AnalysisError> {
            let point = HookPoint::block(layer, site);
            Ok([linear.base.get::<4>(point)?.inner(), linear.source.get::<4>(point)?.inner()])
        };
        let config = model.config();
        let [values, _] = both(Site::V)?;
        Ok(Self {
            model,
            layer,
            first: linear.first,
            queries: both(query_site(config))?,
            keys: both(config.key_site())?,
            values,
            earlier: linear.prefix.as_ref().map(|prefix| prefix.keys_values(layer).map(Tensor::inner)),
        })
    }

    /// Returns the estimates of queries, `[batch, pos, head, d_head]`, to be summed over `d_head`:
    /// the change of the head's output when the pattern's row is computed with the source run's
    /// query, times the gradient at that output. This is the change of the pattern times its
    /// gradient, because a head's output is linear in its pattern.
    ///
    /// Patterns are held by blocks of queries, as in a forward pass.
    pub(super) fn of_queries(&self, at_z: Inner<B, 4>) -> Inner<B, 4> {
        let [base_key, _] = &self.keys;
        let [base, source] = self.queries.each_ref().map(|queries| {
            let earlier = self.earlier.clone();
            to_f32(self.model.attend(self.layer, queries.clone(), base_key.clone(), self.values.clone(), earlier))
        });
        (source - base) * to_f32(at_z)
    }

    /// Returns the estimates of keys, `[batch, pos, key/value head, 1]`: the change of the
    /// pattern's column when this key alone is that of the source run, times the gradient at the
    /// pattern. A key that heads share has the sum over these heads.
    ///
    /// # Memory
    /// About `60 * n_heads * QUERY_BLOCK * pos` bytes per prompt: the patterns of one block of
    /// queries, and what is computed from them.
    pub(super) fn of_keys(&self, at_z: Inner<B, 4>) -> Inner<B, 4> {
        let [batch, n, heads, _] = at_z.dims();
        let [queries, _] = &self.queries;
        let after_earlier = |of: usize, own: &Inner<B, 4>| match &self.earlier {
            Some(earlier) => Tensor::cat(vec![cast_like(earlier[of].clone(), own), own.clone()], 1),
            None => own.clone(),
        };
        let [base, source] = self.keys.each_ref().map(|keys| after_earlier(0, keys));
        let shared = self.values.dims()[2];
        let copies = heads / shared.max(1);
        let values = for_each_head(to_f32(after_earlier(1, &self.values)), 2, copies);
        let mut total: Inner<B, 3> = Tensor::zeros([batch, heads, n], &at_z.device());
        for from in (0..n).step_by(QUERY_BLOCK) {
            let len = QUERY_BLOCK.min(n - from);
            let seen = self.first + from + len;
            let block = |x: &Inner<B, 4>| x.clone().narrow(1, from, len);
            let scores = |keys: &Inner<B, 4>| {
                let keys = keys.clone().narrow(1, 0, seen);
                to_f32(self.model.attention_scores(self.layer, block(queries), keys, self.first + from))
            };
            // [batch, head, query, d_head] @ [batch, head, d_head, key]
            let values = values.clone().narrow(1, 0, seen).permute([0, 2, 3, 1]);
            let at_pattern = matmul(to_f32(block(&at_z)).swap_dims(1, 2), values);
            let effects = lone_keys::effects(scores(&base), scores(&source), at_pattern);
            let own = effects.narrow(2, self.first, from + len);
            let so_far = total.clone().narrow(2, 0, from + len) + own;
            total = match from + len == n {
                true => so_far,
                false => Tensor::cat(vec![so_far, total.narrow(2, from + len, n - from - len)], 2),
            };
        }
        total.reshape([batch, shared, copies, n]).sum_dim(2).reshape([batch, shared, n, 1]).swap_dims(1, 2)
    }
}

/// Returns the gradient at the outputs of the heads of block `layer`.
pub(super) fn at_z<B: Backend>(
    gradients: &rewire_hooks::ActivationCache<B>,
    layer: usize,
) -> Result<Tensor<B, 4>, AnalysisError> {
    Ok(gradients.get::<4>(HookPoint::block(layer, PROBED))?)
}
