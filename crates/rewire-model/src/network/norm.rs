//! Layer norm and RMSNorm, with a hook point at their scale.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, backend::Backend};
use rewire_hooks::{Hook, HookPoint, NormKind};
use rewire_tensor::{cast_like, to_f32};

use crate::kernels::{moments, normalize};
use crate::network::linear::frozen;

/// A norm. It has no gain and bias once they are folded into the weights after it.
#[derive(Module, Debug)]
pub(crate) struct Norm<B: Backend> {
    /// `[width]`.
    pub(crate) gain: Option<Param<Tensor<B, 1>>>,
    /// `[width]`; RMSNorm has none.
    pub(crate) bias: Option<Param<Tensor<B, 1>>>,
    eps: f64,
    #[module(skip)]
    pub(crate) kind: NormKind,
}

impl<B: Backend> Norm<B> {
    pub(crate) fn new(kind: NormKind, gain: Tensor<B, 1>, bias: Option<Tensor<B, 1>>, eps: f64) -> Self {
        Self { gain: Some(frozen(gain)), bias: bias.map(frozen), eps, kind }
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
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let (sigma, moments) = moments(to_f32(x.clone()), self.kind, self.eps);
        let sigma = hook.visit(scale, sigma); // [batch, pos, 1]
        hook.visit(normalized, cast_like(self.normalized(moments, sigma), &x))
    }

    /// Applies the norm to each head of `x` `[batch, pos, head, d_head]`.
    pub(crate) fn of_heads(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let [batch, pos, heads, d_head] = x.dims();
        let (sigma, moments) = moments(to_f32(x.clone().reshape([batch, pos * heads, d_head])), self.kind, self.eps);
        cast_like(self.normalized(moments, sigma).reshape([batch, pos, heads, d_head]), &x)
    }

    fn normalized(&self, moments: crate::kernels::Moments<B>, sigma: Tensor<B, 3>) -> Tensor<B, 3> {
        normalize(moments, sigma, self.gain.as_ref().map(Param::val), self.bias.as_ref().map(Param::val))
    }
}
