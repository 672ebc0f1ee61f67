//! One transformer block, in two halves.

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use rewire_hooks::{Hook, HookPoint, Site};

use crate::network::attention::{Attention, AttentionContext};
use crate::network::backward::BackwardRule;
use crate::network::mlp::Mlp;
use crate::network::norm::Norm;

/// Attention and MLP. Each reads the residual stream through a norm and adds to it.
#[derive(Module, Debug)]
pub(crate) struct Block<B: Backend> {
    pub(crate) ln1: Norm<B>,
    pub(crate) attention: Attention<B>,
    pub(crate) ln2: Norm<B>,
    pub(crate) mlp: Mlp<B>,
    /// Whether the MLP reads the residual stream before attention, instead of the one after it.
    pub(crate) parallel: bool,
}

/// The residual stream between the halves of a block.
pub(crate) struct Midway<B: Backend> {
    /// The input of the MLP's norm, `[batch, pos, d_model]`.
    pub(crate) residual: Tensor<B, 3>,
    /// In parallel blocks, the attention output. It is not yet part of `residual`.
    pub(crate) attn_out: Option<Tensor<B, 3>>,
}

impl<B: Backend> Block<B> {
    /// Computes the first half, `x + attention(ln1(x))`. In parallel blocks, the second half does
    /// the addition.
    ///
    /// `x` is the residual stream before the block, `[batch, pos, d_model]`. If `context` reads one
    /// position per row, the result holds only that position.
    pub(crate) fn attention_half<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        context: AttentionContext<B>,
        hook: &mut H,
    ) -> Midway<B> {
        let x = hook.visit(HookPoint::block(layer, Site::ResidPre), x);
        let read = context.read.clone();
        let normalized = self.attention_norm(x.clone(), layer, context.backward, hook);
        let attn_out = self.attention.forward(normalized, layer, context, hook);
        let x = match read {
            Some(read) => read.select(x),
            None => x,
        };
        match self.parallel {
            true => Midway { residual: x, attn_out: Some(attn_out) },
            false => Midway { residual: attn_out + x, attn_out: None },
        }
    }

    /// Computes the second half, `x + mlp(ln2(x))`. Returns the residual stream after the block,
    /// `[batch, pos, d_model]`.
    pub(crate) fn mlp_half<H: Hook<B>>(
        &self,
        mid: Midway<B>,
        layer: usize,
        backward: BackwardRule,
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let x = match &mid.attn_out {
            Some(_) => mid.residual,
            None => hook.visit(HookPoint::block(layer, Site::ResidMid), mid.residual),
        };
        let normalized = self.mlp_norm(x.clone(), layer, backward, hook);
        let mlp_out = self.mlp.forward(normalized, layer, backward, hook);
        let x = match mid.attn_out {
            Some(attn_out) => x + attn_out + mlp_out,
            None => mlp_out + x,
        };
        hook.visit(HookPoint::block(layer, Site::ResidPost), x)
    }

    /// Applies the norm before attention to `x` `[batch, pos, d_model]`.
    pub(crate) fn attention_norm<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        backward: BackwardRule,
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let points = [Site::Ln1Scale, Site::Ln1Normalized].map(|site| HookPoint::block(layer, site));
        self.ln1.forward(x, points, backward, hook)
    }

    /// Applies the norm before the MLP to `x` `[batch, pos, d_model]`.
    pub(crate) fn mlp_norm<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        backward: BackwardRule,
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let points = [Site::Ln2Scale, Site::Ln2Normalized].map(|site| HookPoint::block(layer, site));
        self.ln2.forward(x, points, backward, hook)
    }
}
