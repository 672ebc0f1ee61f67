//! The MLP of a block.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, backend::Backend};
use rewire_hooks::{Hook, HookPoint, Site};

use crate::config::Activation;
use crate::kernels::activate;
use crate::network::linear::linear;

/// Weights of one MLP.
#[derive(Module, Debug)]
pub(crate) struct Mlp<B: Backend> {
    /// `[d_model, d_mlp]`.
    pub(crate) w_in: Param<Tensor<B, 2>>,
    /// `[d_mlp]`.
    pub(crate) b_in: Param<Tensor<B, 1>>,
    /// `[d_mlp, d_model]`.
    pub(crate) w_out: Param<Tensor<B, 2>>,
    /// `[d_model]`.
    pub(crate) b_out: Param<Tensor<B, 1>>,
    #[module(skip)]
    pub(crate) activation: Activation,
}

impl<B: Backend> Mlp<B> {
    /// Returns the MLP output, `[batch, pos, d_model]`. `x` is the norm's output,
    /// `[batch, pos, d_model]`.
    pub(crate) fn forward<H: Hook<B>>(&self, x: Tensor<B, 3>, layer: usize, hook: &mut H) -> Tensor<B, 3> {
        let at = |site| HookPoint::block(layer, site);
        let pre = hook.visit(at(Site::MlpPre), linear(x, self.w_in.val(), self.b_in.val()));
        let post = hook.visit(at(Site::MlpPost), activate(pre, self.activation));
        hook.visit(at(Site::MlpOut), linear(post, self.w_out.val(), self.b_out.val()))
    }
}
