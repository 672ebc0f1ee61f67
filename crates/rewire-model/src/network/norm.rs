//! Layer norm, with a hook point at its scale.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, backend::Backend};
use rewire_hooks::{Hook, HookPoint};
use rewire_tensor::{cast_like, to_f32};

use crate::kernels::{moments, normalize};
use crate::network::linear::frozen;

/// Layer norm. It has no gain and bias once they are folded into the weights after it.
#[derive(Module, Debug)]
pub(crate) struct Norm<B: Backend> {
    /// `[d_model]`.
    pub(crate) gain: Option<Param<Tensor<B, 1>>>,
    /// `[d_model]`.
    pub(crate) bias: Option<Param<Tensor<B, 1>>>,
    eps: f64,
}

impl<B: Backend> Norm<B> {
    pub(crate) fn new(gain: Tensor<B, 1>, bias: Tensor<B, 1>, eps: f64) -> Self {
        Self { gain: Some(frozen(gain)), bias: Some(frozen(bias)), eps }
    }

    /// Removes and returns gain and bias, for folding.
    pub(crate) fn take_affine(&mut self) -> Option<(Tensor<B, 1>, Tensor<B, 1>)> {
        Some((self.gain.take()?.val(), self.bias.take()?.val()))
    }

    /// Applies the norm to `x` `[batch, pos, d_model]`. The hook is called at the points `scale`
    /// and `normalized`.
    pub(crate) fn forward<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        [scale, normalized]: [HookPoint; 2],
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let (sigma, moments) = moments(to_f32(x.clone()), self.eps);
        let sigma = hook.visit(scale, sigma); // [batch, pos, 1]
        let affine = self.gain.as_ref().zip(self.bias.as_ref()).map(|(gain, bias)| (gain.val(), bias.val()));
        hook.visit(normalized, cast_like(normalize(moments, sigma, affine), &x))
    }
}
