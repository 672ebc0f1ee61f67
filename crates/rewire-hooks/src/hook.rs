//! The trait of hooks, which a forward pass calls at each hook point.

use burn::tensor::{Tensor, backend::Backend};

use crate::point::HookPoint;

/// Sees every activation of a forward pass, and returns the activation with which the pass
/// continues.
///
/// `()` returns each activation unchanged. A tuple applies its first hook, then its second.
/// `&mut hook` is a hook, which can be read after the run.
pub trait Hook<B: Backend> {
    /// Takes the activation at `point`, with the shape that [`HookPoint::axes`] gives, and returns
    /// the activation with which the pass continues.
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D>;

    /// Returns whether the hook may read or change the activation at `point`. A pass need not visit
    /// points for which this is false: attention then computes long prompts by blocks of queries,
    /// and never holds their scores and patterns as a whole. True by default.
    fn sees(&self, point: HookPoint) -> bool {
        let _ = point;
        true
    }
}

impl<B: Backend> Hook<B> for () {
    fn visit<const D: usize>(&mut self, _: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        activation
    }

    fn sees(&self, _: HookPoint) -> bool {
        false
    }
}

impl<B: Backend, H: Hook<B>> Hook<B> for &mut H {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        (**self).visit(point, activation)
    }

    fn sees(&self, point: HookPoint) -> bool {
        (**self).sees(point)
    }
}

impl<B: Backend, H1: Hook<B>, H2: Hook<B>> Hook<B> for (H1, H2) {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        let activation = self.0.visit(point, activation);
        self.1.visit(point, activation)
    }

    fn sees(&self, point: HookPoint) -> bool {
        self.0.sees(point) || self.1.sees(point)
    }
}
