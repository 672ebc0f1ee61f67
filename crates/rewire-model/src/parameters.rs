//! Weights that are on the autodiff tape only while a model is being trained.

use burn::module::{Param, ParamId};
use burn::tensor::{Tensor, backend::Backend};

/// A parameter that is not tracked: analyses differentiate with respect to activations, never weights.
pub(crate) fn frozen<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Param<Tensor<B, D>> {
    Param::initialized(ParamId::new(), tensor)
}
