//! Layer norm and RMSNorm, with a hook point at their scale.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, backend::Backend};
use rewire_hooks::{Hook, HookPoint, NormKind};
use rewire_tensor::{cast_like, to_f32};

use crate::kernels::{Moments, moments, normalize};
use crate::network::backward::BackwardRule;
use crate::network::linear::frozen;

/// A norm, or the identity in its place. A norm has no gain and bias once they are folded into the
/// weights after it.
#[derive(Module, Debug)]
pub(crate) struct Norm<B: Backend> {
    /// `[width]`.
    pub(crate) gain: Option<Param<Tensor<B, 1>>>,
    /// `[width]`; RMSNorm has none.
    pub(crate) bias: Option<Param<Tensor<B, 1>>>,
    eps: f64,
    /// `None` for the identity: its scale is 1, so that everything that reads or freezes scales
    /// works in models without this norm.
    #[module(skip)]
    pub(crate) kind: Option<NormKind>,
}

/// The norm of queries or keys, with the vectors that it divides, for analyses that linearize it.
/// These are those of each head, or one of all heads.
#[derive(Debug, Clone)]
pub struct HeadNorm<B: Backend> {
    /// Queries or keys before the norm, `[batch, pos, head, d_head]`, or `[batch, pos, 1, head *
    /// d_head]`.
    pub input: Tensor<B, 4>,
    /// The scale that divides them, `[batch, pos, head or 1, 1]`.
    pub scale: Tensor<B, 4>,
    /// The gain that multiplies the quotient, `[d_head]` or `[head * d_head]`.
    pub gain: Option<Tensor<B, 1>>,
}

impl<B: Backend> Norm<B> {
    pub(crate) fn new(kind: NormKind, gain: Tensor<B, 1>, bias: Option<Tensor<B, 1>>, eps: f64) -> Self {
        Self { gain: Some(frozen(gain)), bias: bias.map(frozen), eps, kind: Some(kind) }
    }

    /// Returns the identity in the place of a norm that a model does not have.
    pub(crate) fn identity() -> Self {
        Self { gain: None, bias: None, eps: 0.0, kind: None }
    }

    /// Removes and returns gain and bias, for folding. `None` if they are folded already.
    pub(crate) fn take_affine(&mut self) -> Option<(Tensor<B, 1>, Option<Tensor<B, 1>>)> {
        let gain = self.gain.take()?.val();
        Some((gain, self.bias.take().map(|bias| bias.val())))
    }

    /// Applies the norm to `x` `[batch, pos, d_model]`. The hook is called at the points `scale`
    /// and `normalized`.
    pub(crate) fn forward<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        [scale, normalized]: [HookPoint; 2],
        backward: BackwardRule,
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let (sigma, moments) = self.moments(to_f32(x.clone()));
        let sigma = hook.visit(scale, backward.scale(sigma)); // [batch, pos, 1]
        hook.visit(normalized, cast_like(self.normalized(moments, sigma), &x))
    }

    /// Applies the norm to each head of `x` `[batch, pos, head, d_head]` or, if its gain is that of
    /// all heads, to all heads together.
    pub(crate) fn of_heads(&self, x: Tensor<B, 4>, backward: BackwardRule) -> Tensor<B, 4> {
        let [batch, pos, heads, d_head] = x.dims();
        let width = self.gain.as_ref().map_or(d_head, |gain| gain.val().dims()[0]);
        let rows = to_f32(x.clone().reshape([batch, pos * heads * d_head / width, width]));
        let (sigma, moments) = self.moments(rows);
        cast_like(self.normalized(moments, backward.scale(sigma)).reshape([batch, pos, heads, d_head]), &x)
    }

    /// Returns the norm with the vectors of `x` `[batch, pos, head, d_head]` that it divides.
    pub(crate) fn at_heads(&self, x: Tensor<B, 4>) -> HeadNorm<B> {
        let [batch, pos, heads, d_head] = x.dims();
        let gain = self.gain.as_ref().map(Param::val);
        let width = gain.as_ref().map_or(d_head, |gain| gain.dims()[0]);
        let vectors = heads * d_head / width;
        let (sigma, _) = self.moments(to_f32(x.clone().reshape([batch, pos * vectors, width])));
        HeadNorm {
            input: x.reshape([batch, pos, vectors, width]),
            scale: sigma.reshape([batch, pos, vectors, 1]),
            gain,
        }
    }

    fn moments(&self, x: Tensor<B, 3>) -> (Tensor<B, 3>, Moments<B>) {
        match self.kind {
            Some(kind) => moments(x, kind, self.eps),
            None => {
                let [batch, pos, _] = x.dims();
                (Tensor::ones([batch, pos, 1], (&x.device(), x.dtype())), Moments::Ready(x))
            }
        }
    }

    fn normalized(&self, moments: Moments<B>, sigma: Tensor<B, 3>) -> Tensor<B, 3> {
        normalize(moments, sigma, self.gain.as_ref().map(Param::val), self.bias.as_ref().map(Param::val))
    }
}
