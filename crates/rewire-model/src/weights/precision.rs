//! Converts the weights to another element type.

use burn::module::Param;
use burn::tensor::{Tensor, backend::Backend};
use rewire_tensor::Precision;

use crate::network::linear::frozen;
use crate::network::matrix::Matrix;
use crate::network::transformer::Transformer;

impl<B: Backend> Transformer<B> {
    /// Returns the model with weights, and therefore activations, of this element type.
    ///
    /// With [`Precision::BFloat16`], gains and biases of the norms stay in float32. Norms,
    /// attention scores, softmax, activation functions and logits are still computed in float32. At
    /// the [hook points](rewire_hooks::HookPoint), the norms' scales, attention scores and patterns
    /// and the final norm are float32, and the others are bfloat16.
    ///
    /// Process the weights before this conversion: folding and centering bfloat16 weights would
    /// round twice.
    #[must_use]
    pub fn to_precision(mut self, precision: Precision) -> Self {
        if precision == self.precision() {
            return self;
        }
        fn cast<B: Backend, const D: usize>(param: &mut Param<Tensor<B, D>>, precision: Precision) {
            *param = frozen(param.val().cast(precision.dtype()));
        }
        fn cast_matrix<B: Backend>(matrix: &mut Matrix<B>, precision: Precision) {
            *matrix = matrix.clone().cast(precision);
        }
        cast_matrix(&mut self.w_e, precision);
        self.w_pos.iter_mut().for_each(|w| cast(w, precision));
        self.w_u.iter_mut().for_each(|w| cast_matrix(w, precision));
        for block in &mut self.blocks {
            let (attention, mlp) = (&mut block.attention, &mut block.mlp);
            for w in [&mut attention.w_qkv, &mut attention.w_o, &mut mlp.w_in, &mut mlp.w_out] {
                cast_matrix(w, precision);
            }
            for b in [&mut attention.b_qkv, &mut attention.b_o, &mut mlp.b_in, &mut mlp.b_out] {
                cast(b, precision);
            }
            if let Some(gate) = &mut mlp.gate {
                cast_matrix(&mut gate.w, precision);
                cast(&mut gate.b, precision);
            }
        }
        self
    }

    /// Returns the element type of the weights.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.w_e.precision()
    }
}
