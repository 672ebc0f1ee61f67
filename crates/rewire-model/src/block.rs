//! One transformer block.

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use rewire_hooks::{Hook, HookPoint, Site};

use crate::attention::{Attention, AttentionContext};
use crate::mlp::Mlp;
use crate::norm::Norm;

/// Attention and MLP, each behind a norm, each adding to the residual stream.
#[derive(Module, Debug)]
pub(crate) struct Block<B: Backend> {
    pub(crate) ln1: Norm<B>,
    pub(crate) attention: Attention<B>,
    pub(crate) ln2: Norm<B>,
    pub(crate) mlp: Mlp<B>,
    /// Whether the MLP reads what attention read, instead of what attention left.
    pub(crate) parallel: bool,
}

impl<B: Backend> Block<B> {
    /// `x` is the residual stream `[batch, pos, d_model]` before the block; returns it after.
    pub(crate) fn forward<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        context: &AttentionContext<B>,
        prefix: Option<[Tensor<B, 4>; 2]>,
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let at = |site| HookPoint::block(layer, site);
        let resid_pre = hook.visit(at(Site::ResidPre), x);

        let normalized = self.ln1.forward(resid_pre.clone(), [at(Site::Ln1Scale), at(Site::Ln1Normalized)], hook);
        let attn_out = self.attention.forward(normalized, layer, context, prefix, hook);
        let resid_mid = match self.parallel {
            true => None,
            false => Some(hook.visit(at(Site::ResidMid), resid_pre.clone() + attn_out.clone())),
        };

        let mlp_in = resid_mid.clone().unwrap_or_else(|| resid_pre.clone());
        let normalized = self.ln2.forward(mlp_in, [at(Site::Ln2Scale), at(Site::Ln2Normalized)], hook);
        let mlp_out = self.mlp.forward(normalized, layer, hook);

        let before_mlp = resid_mid.unwrap_or_else(|| resid_pre + attn_out);
        hook.visit(at(Site::ResidPost), before_mlp + mlp_out)
    }
}
