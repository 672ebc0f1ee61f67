//! Holding the weights in shorter numbers.

use burn::module::Param;
use burn::tensor::{DType, Tensor, backend::Backend};
use rewire_tensor::Precision;

use crate::network::linear::frozen;
use crate::network::transformer::Transformer;

impl<B: Backend> Transformer<B> {
    /// The same model with weights, and so activations, in these numbers. With [`Precision::BFloat16`] gain and bias of the norms
    /// stay in float32, and so does what is computed of norms, attention scores, softmax, activation functions and logits: of the
    /// [hook points](rewire_hooks::HookPoint), the norms' scales, attention's scores and patterns and the final norm are of float32,
    /// the others of bfloat16.
    ///
    /// Weights are to be processed before: folding and centering shortened ones would round twice.
    #[must_use]
    pub fn to_precision(mut self, precision: Precision) -> Self {
        if precision == self.precision() {
            return self;
        }
        fn cast<B: Backend, const D: usize>(param: &mut Param<Tensor<B, D>>, precision: Precision) {
            *param = frozen(param.val().cast(precision.dtype()));
        }
        cast(&mut self.w_e, precision);
        self.w_pos.iter_mut().for_each(|w| cast(w, precision));
        self.w_u.iter_mut().for_each(|w| cast(w, precision));
        for block in &mut self.blocks {
            let (attention, mlp) = (&mut block.attention, &mut block.mlp);
            for w in [&mut attention.w_qkv, &mut attention.w_o, &mut mlp.w_in, &mut mlp.w_out] {
                cast(w, precision);
            }
            for b in [&mut attention.b_qkv, &mut attention.b_o, &mut mlp.b_in, &mut mlp.b_out] {
                cast(b, precision);
            }
        }
        self
    }

    /// The numbers that the weights are held in.
    #[must_use]
    pub fn precision(&self) -> Precision {
        match self.w_e.val().dtype() {
            DType::BF16 => Precision::BFloat16,
            _ => Precision::Float32,
        }
    }
}
