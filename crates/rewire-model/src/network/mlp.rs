//! The MLP of a block.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, backend::Backend};
use rewire_hooks::{Hook, HookPoint, Site};

use crate::config::Activation;
use crate::network::backward::BackwardRule;
use crate::network::matrix::Matrix;
use crate::network::norm::Norm;
use crate::network::project::project;

/// Weights of one MLP.
#[derive(Module, Debug)]
pub(crate) struct Mlp<B: Backend> {
    /// `[d_model, d_mlp]`.
    pub(crate) w_in: Matrix<B>,
    /// `[d_mlp]`.
    pub(crate) b_in: Param<Tensor<B, 1>>,
    /// The map of the gate, in gated MLPs.
    pub(crate) gate: Option<Gate<B>>,
    /// `[d_mlp, d_model]`.
    pub(crate) w_out: Matrix<B>,
    /// `[d_model]`.
    pub(crate) b_out: Param<Tensor<B, 1>>,
    /// The norm of the output, in models with post-norms.
    pub(crate) post_norm: Option<Norm<B>>,
    #[module(skip)]
    pub(crate) activation: Activation,
}

/// The map of the gate of a gated MLP.
#[derive(Module, Debug)]
pub(crate) struct Gate<B: Backend> {
    /// `[d_model, d_mlp]`.
    pub(crate) w: Matrix<B>,
    /// `[d_mlp]`.
    pub(crate) b: Param<Tensor<B, 1>>,
}

impl<B: Backend> Mlp<B> {
    /// Returns the MLP output, `[batch, pos, d_model]`, after the norm of the output if there is
    /// one. `x` is the output of the norm before the MLP, `[batch, pos, d_model]`.
    pub(crate) fn forward<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        backward: BackwardRule,
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let at = |site| HookPoint::block(layer, site);
        let post = self.neurons(x, layer, backward, hook);
        let out = project(post, &self.w_out, self.b_out.val());
        let out = match self.post_norm {
            Some(_) => self.after_norm(hook.visit(at(Site::MlpBeforeNorm), out), layer, backward, hook),
            None => out,
        };
        hook.visit(at(Site::MlpOut), out)
    }

    /// Returns the neurons, `[batch, pos, d_mlp]`.
    pub(crate) fn neurons<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        backward: BackwardRule,
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let at = |site| HookPoint::block(layer, site);
        let linear_in = |x, hook: &mut H, site| hook.visit(at(site), project(x, &self.w_in, self.b_in.val()));
        let post = match &self.gate {
            None => backward.activate(linear_in(x, hook, Site::MlpPre), self.activation),
            Some(gate) => {
                let pre = hook.visit(at(Site::MlpPre), project(x.clone(), &gate.w, gate.b.val()));
                let factor = linear_in(x, hook, Site::MlpPreLinear);
                backward.gated(pre, factor, self.activation)
            }
        };
        hook.visit(at(Site::MlpPost), post)
    }

    /// Applies the norm of the output, if there is one, to `x` `[batch, pos, d_model]`.
    pub(crate) fn after_norm<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        backward: BackwardRule,
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let points = [Site::Ln2PostScale, Site::Ln2PostNormalized].map(|site| HookPoint::block(layer, site));
        match &self.post_norm {
            Some(norm) => norm.forward(x, points, backward, hook),
            None => x,
        }
    }
}
