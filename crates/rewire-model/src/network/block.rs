//! One transformer block.

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use rewire_hooks::{Hook, HookPoint, Site};

use crate::network::attention::{Attention, AttentionContext};
use crate::network::mlp::Mlp;
use crate::network::norm::Norm;
use crate::network::run::{KeysValues, ReadRows};
use crate::network::transformer::behind;

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
    /// `x` is the residual stream `[batch, pos, d_model]` before the block; returns it after. With `read`, only at those
    /// rows, `[batch, 1, d_model]`: queries and MLP are computed nowhere else. `joined` gives the streams, shaped so, that come in between
    /// attention and MLP behind so many rows.
    #[expect(clippy::too_many_arguments, reason = "all that a run says reaches the block from one place")]
    pub(crate) fn forward<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        context: &AttentionContext<B>,
        earlier: Option<KeysValues<B>>,
        read: Option<&ReadRows<B>>,
        joined: impl FnOnce(usize) -> Option<Tensor<B, 3>>,
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let at = |site| HookPoint::block(layer, site);
        let x = hook.visit(at(Site::ResidPre), x);

        let normalized = self.ln1.forward(x.clone(), [at(Site::Ln1Scale), at(Site::Ln1Normalized)], hook);
        let attn_out = self.attention.forward(normalized, layer, context, earlier, read, hook);
        let x = match read {
            Some(read) => read.select(x),
            None => x,
        };
        if !self.parallel {
            return self.forward_from_mid(behind(attn_out + x, joined), layer, hook);
        }
        let normalized = self.ln2.forward(x.clone(), [at(Site::Ln2Scale), at(Site::Ln2Normalized)], hook);
        let mlp_out = self.mlp.forward(normalized, layer, hook);
        hook.visit(at(Site::ResidPost), x + attn_out + mlp_out)
    }

    /// The rest of a sequential block, from the residual stream between attention and MLP.
    pub(crate) fn forward_from_mid<H: Hook<B>>(&self, x: Tensor<B, 3>, layer: usize, hook: &mut H) -> Tensor<B, 3> {
        let at = |site| HookPoint::block(layer, site);
        let resid_mid = hook.visit(at(Site::ResidMid), x);
        let normalized = self.ln2.forward(resid_mid.clone(), [at(Site::Ln2Scale), at(Site::Ln2Normalized)], hook);
        let mlp_out = self.mlp.forward(normalized, layer, hook);
        hook.visit(at(Site::ResidPost), mlp_out + resid_mid)
    }
}
