//! Tensors of any rank in one type: the one place that takes burn's primitives apart.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Tensor, TensorMetadata, TensorPrimitive};

/// A float tensor whose rank is known only at run time.
#[derive(Debug, Clone)]
pub(crate) struct Stored<B: Backend>(B::FloatTensorPrimitive);

impl<B: Backend> Stored<B> {
    pub(crate) fn new<const D: usize>(tensor: Tensor<B, D>) -> Self {
        Stored(tensor.into_primitive().tensor())
    }

    /// The sizes of its dimensions.
    pub(crate) fn dims(&self) -> Vec<usize> {
        self.0.shape().to_vec()
    }

    /// The tensor, if it has `D` dimensions.
    pub(crate) fn get<const D: usize>(&self) -> Option<Tensor<B, D>> {
        (self.dims().len() == D).then(|| Tensor::from_primitive(TensorPrimitive::Float(self.0.clone())))
    }
}

impl<B: AutodiffBackend> Stored<B> {
    /// The gradient that a backward pass left for this probe's leaf; zeros where the loss did not depend on it.
    pub(crate) fn take_gradient(self, gradients: &mut B::Gradients) -> Stored<B::InnerBackend> {
        // A probe's leaf is zero, and so is the gradient of a loss that does not depend on it.
        Stored(B::grad_remove(&self.0, gradients).unwrap_or_else(|| B::inner(self.0)))
    }
}

/// A mask whose rank is known only at run time.
#[derive(Debug, Clone)]
pub(crate) struct StoredMask<B: Backend>(B::BoolTensorPrimitive);

impl<B: Backend> StoredMask<B> {
    pub(crate) fn new<const D: usize>(mask: Tensor<B, D, Bool>) -> Self {
        StoredMask(mask.into_primitive())
    }

    pub(crate) fn dims(&self) -> Vec<usize> {
        self.0.shape().to_vec()
    }

    pub(crate) fn get<const D: usize>(&self) -> Option<Tensor<B, D, Bool>> {
        (self.dims().len() == D).then(|| Tensor::from_primitive(self.0.clone()))
    }
}
