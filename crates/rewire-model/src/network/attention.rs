//! Causal multi-head attention.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, backend::Backend};
use rewire_hooks::{Hook, HookPoint, Site};

use crate::kernels::queries::Queries;
use crate::kernels::{mix, scores};
use crate::network::linear::linear;
use crate::network::rotary::Rotary;
use crate::network::run::{KeysValues, ReadRows};

/// Weights of one attention layer.
#[derive(Module, Debug)]
pub(crate) struct Attention<B: Backend> {
    /// `[d_model, 3 * head * d_head]`: all queries, then keys, then values.
    pub(crate) w_qkv: Param<Tensor<B, 2>>,
    /// `[3 * head * d_head]`.
    pub(crate) b_qkv: Param<Tensor<B, 1>>,
    /// `[head * d_head, d_model]`.
    pub(crate) w_o: Param<Tensor<B, 2>>,
    /// `[d_model]`.
    pub(crate) b_o: Param<Tensor<B, 1>>,
    pub(crate) n_heads: usize,
}

/// What the attention layers of one run share.
#[derive(Debug, Clone)]
pub(crate) struct AttentionContext<B: Backend> {
    /// The first computed position.
    pub(crate) first: usize,
    /// Angles of the computed positions, in rotary models.
    pub(crate) rotary: Option<Rotary<B>>,
    /// Angles of the positions that the last block reads, in rotary models that read one a row.
    pub(crate) rotary_read: Option<Rotary<B>>,
}

impl<B: Backend> Attention<B> {
    /// `x` is the norm's output, `[batch, pos, d_model]`; `earlier` holds keys (rotated) and values of earlier positions.
    /// Returns what attention adds to the residual stream; with `read`, only at those rows, `[batch, 1, d_model]`.
    pub(crate) fn forward<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        context: &AttentionContext<B>,
        earlier: Option<KeysValues<B>>,
        read: Option<&ReadRows<B>>,
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let at = |site| HookPoint::block(layer, site);
        let width = self.w_o.dims()[0]; // head * d_head
        let d_head = width / self.n_heads;
        let (w, b) = (self.w_qkv.val(), self.b_qkv.val());
        let part = |x: &Tensor<B, 3>, i: usize| {
            let [batch, pos, _] = x.dims();
            x.clone().narrow(2, i * width, width).reshape([batch, pos, self.n_heads, d_head])
        };

        let [q, k, v] = match read {
            None => {
                let qkv = linear(x, w, b); // [batch, pos, 3 * head * d_head]
                [part(&qkv, 0), part(&qkv, 1), part(&qkv, 2)]
            }
            Some(read) => {
                let q = linear(read.select(x.clone()), w.clone().narrow(1, 0, width), b.clone().narrow(0, 0, width));
                let kv = linear(x, w.narrow(1, width, 2 * width), b.narrow(0, width, 2 * width));
                [part(&q, 0), part(&kv, 0), part(&kv, 1)]
            }
        };
        let mut q = hook.visit(at(Site::Q), q);
        let mut k = hook.visit(at(Site::K), k);
        let v = hook.visit(at(Site::V), v);
        if let Some(rotary) = &context.rotary {
            let rotary_q = if read.is_some() { context.rotary_read.as_ref().unwrap_or(rotary) } else { rotary };
            q = hook.visit(at(Site::RotQ), rotary_q.rotate(q));
            k = hook.visit(at(Site::RotK), rotary.rotate(k));
        }
        let queries = match read {
            Some(read) => Queries::Each(read.positions.clone()),
            None => Queries::From(context.first),
        };
        let (keys, values) = earlier.map(|e| (e.keys, e.values)).unzip();
        let scores = hook.visit(at(Site::AttnScores), scores(q, k, keys, &queries));
        let pattern = hook.visit(at(Site::Pattern), softmax(scores, 3));
        let z = hook.visit(at(Site::Z), mix(pattern, v, values)); // [batch, query, head, d_head]

        let [batch, n, _, _] = z.dims();
        let out = linear(z.reshape([batch, n, width]), self.w_o.val(), self.b_o.val());
        hook.visit(at(Site::AttnOut), out)
    }
}

/// Causal attention: the mixed values of queries, keys (rotated, in rotary models) and values, all `[batch, pos, head, d_head]`.
/// They are of whole prompts, or of the positions behind `earlier`, which holds keys and values of those before,
/// `[prompts, earlier, head, d_head]`; row `r` of the batch has those of prompt `r % prompts`.
#[must_use]
pub fn attend<B: Backend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    earlier: Option<[Tensor<B, 4>; 2]>,
) -> Tensor<B, 4> {
    let (earlier_keys, earlier_values) = earlier.map_or((None, None), |[keys, values]| (Some(keys), Some(values)));
    let first = earlier_keys.as_ref().map_or(0, |keys| keys.dims()[1]);
    mix(softmax(scores(q, k, earlier_keys, &Queries::From(first)), 3), v, earlier_values)
}

/// Values `[batch, pos, head, d_head]` mixed by a pattern `[batch, head, query, key]`.
#[must_use]
pub fn mix_values<B: Backend>(pattern: Tensor<B, 4>, v: Tensor<B, 4>) -> Tensor<B, 4> {
    mix(pattern, v, None)
}
