//! Causal multi-head attention.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Tensor, backend::Backend};
use rewire_hooks::{Hook, HookPoint, Site};

use crate::rotary::Rotary;

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
    /// `[1, 1, query, key]`, true where a query may not look.
    pub(crate) mask: Tensor<B, 4, Bool>,
    /// Angles of the computed positions, in rotary models.
    pub(crate) rotary: Option<Rotary<B>>,
}

impl<B: Backend> AttentionContext<B> {
    /// For queries at positions `first .. first + len`, which see the keys of `0 .. first + len` up to their own.
    pub(crate) fn new(rotary: Option<Rotary<B>>, first: usize, len: usize, device: &B::Device) -> Self {
        let mask = Tensor::<B, 2, Bool>::tril_mask([len, first + len], first as i64, device);
        Self { mask: mask.reshape([1, 1, len, first + len]), rotary }
    }
}

impl<B: Backend> Attention<B> {
    /// `x` is the norm's output, `[batch, pos, d_model]`; `prefix` holds keys (rotated) and values of earlier positions,
    /// each `[batch, earlier, head, d_head]`. Returns what attention adds to the residual stream.
    pub(crate) fn forward<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        context: &AttentionContext<B>,
        prefix: Option<[Tensor<B, 4>; 2]>,
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let at = |site| HookPoint::block(layer, site);
        let [batch, pos, d_model] = x.dims();
        let width = self.w_o.dims()[0]; // head * d_head
        let d_head = width / self.n_heads;

        let qkv = linear(x, self.w_qkv.val(), self.b_qkv.val()); // [batch, pos, 3 * head * d_head]
        let part = |i: usize| qkv.clone().narrow(2, i * width, width).reshape([batch, pos, self.n_heads, d_head]);
        let mut q = hook.visit(at(Site::Q), part(0));
        let mut k = hook.visit(at(Site::K), part(1));
        let mut v = hook.visit(at(Site::V), part(2));
        if let Some(rotary) = &context.rotary {
            q = hook.visit(at(Site::RotQ), rotary.rotate(q));
            k = hook.visit(at(Site::RotK), rotary.rotate(k));
        }
        if let Some([earlier_k, earlier_v]) = prefix {
            k = Tensor::cat(vec![earlier_k, k], 1);
            v = Tensor::cat(vec![earlier_v, v], 1);
        }

        // [batch, head, query, d_head] @ [batch, head, d_head, key]
        let scores = q.swap_dims(1, 2).matmul(k.permute([0, 2, 3, 1])) / (d_head as f64).sqrt();
        let mask = context.mask.clone().expand(scores.shape());
        let scores = hook.visit(at(Site::AttnScores), scores.mask_fill(mask, f32::NEG_INFINITY));
        let pattern = hook.visit(at(Site::Pattern), softmax(scores, 3));
        let z = pattern.matmul(v.swap_dims(1, 2)).swap_dims(1, 2); // [batch, query, head, d_head]
        let z = hook.visit(at(Site::Z), z);

        let out = linear(z.reshape([batch, pos, width]), self.w_o.val(), self.b_o.val());
        debug_assert_eq!(out.dims(), [batch, pos, d_model]);
        hook.visit(at(Site::AttnOut), out)
    }
}

/// `x @ w + b` over the last axis; `x` is `[batch, pos, from]`, `w` `[from, to]`, `b` `[to]`.
pub(crate) fn linear<B: Backend>(x: Tensor<B, 3>, w: Tensor<B, 2>, b: Tensor<B, 1>) -> Tensor<B, 3> {
    let [batch, pos, from] = x.dims();
    let [_, to] = w.dims();
    // One product over all rows: a batch of small ones is several times slower.
    let rows = x.reshape([batch * pos, from]).matmul(w) + b.reshape([1, to]);
    rows.reshape([batch, pos, to])
}
