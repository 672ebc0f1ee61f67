//! The parts of a block one by one, for analyzes that hold attention and follow the residual stream position by position.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rewire_hooks::Hook;

use crate::config::Positions;
use crate::network::linear::linear;
use crate::network::rotary::Rotary;
use crate::network::transformer::Transformer;
use crate::weights::named::HeadInput;

impl<B: Backend> Transformer<B> {
    /// The norm in front of attention of block `layer`, of any vectors `[batch, pos, d_model]`. `hook` sees its scale and output.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    pub fn attention_norm<H: Hook<B>>(&self, layer: usize, x: Tensor<B, 3>, hook: &mut H) -> Tensor<B, 3> {
        self.blocks[layer].attention_norm(x, layer, hook)
    }

    /// The norm in front of the MLP of block `layer`, of any vectors `[batch, pos, d_model]`. `hook` sees its scale and output.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    pub fn mlp_norm<H: Hook<B>>(&self, layer: usize, x: Tensor<B, 3>, hook: &mut H) -> Tensor<B, 3> {
        self.blocks[layer].mlp_norm(x, layer, hook)
    }

    /// What the MLP of block `layer` adds to the residual stream where its norm gives `normalized`, both `[batch, pos, d_model]`.
    /// `hook` sees the neurons and the output.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    pub fn mlp<H: Hook<B>>(&self, layer: usize, normalized: Tensor<B, 3>, hook: &mut H) -> Tensor<B, 3> {
        self.blocks[layer].mlp.forward(normalized, layer, hook)
    }

    /// Queries, keys or values, before any rotation, of some heads of block `layer` where its norm gives `normalized`
    /// `[batch, pos, d_model]`: `[batch, pos, head, d_head]`, heads in the order given.
    ///
    /// # Panics
    /// If the model has no block `layer` or a head is not of it.
    #[must_use]
    pub fn head_inputs(
        &self,
        layer: usize,
        input: HeadInput,
        heads: &[usize],
        normalized: Tensor<B, 3>,
    ) -> Tensor<B, 4> {
        let [batch, pos, d_model] = normalized.dims();
        let d_head = self.config.d_head;
        let index: Vec<i32> = heads.iter().map(|&head| head as i32).collect();
        let index = Tensor::<B, 1, Int>::from_data(TensorData::new(index, [heads.len()]), &normalized.device());
        let w = self.w_head_input(layer, input).select(0, index.clone());
        let w = w.permute([1, 0, 2]).reshape([d_model, heads.len() * d_head]);
        let b = self.b_head_input(layer, input).select(0, index).reshape([heads.len() * d_head]);
        linear(normalized, w, b).reshape([batch, pos, heads.len(), d_head])
    }

    /// Queries or keys `[row, 1, head, d_head]` as they are used at one position a row: rotated in rotary models, else unchanged.
    #[must_use]
    pub fn after_rotary(&self, x: Tensor<B, 4>, positions: &[usize]) -> Tensor<B, 4> {
        match self.config.positions {
            Positions::Rotary { dims, base } => Rotary::each(dims, base, positions, &x.device()).rotate(x),
            Positions::Learned => x,
        }
    }

    /// The norm in front of the unembedding, of any vectors `[batch, pos, d_model]`.
    #[must_use]
    pub fn unembedding_norm(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.normalize(x, &mut ())
    }

    /// The logits, `[batch, pos, d_vocab]`, of what the final norm gives, `[batch, pos, d_model]`: through `W_U` and, if it has one,
    /// its bias.
    #[must_use]
    pub fn logits(&self, normalized: Tensor<B, 3>) -> Tensor<B, 3> {
        self.unembed(normalized, None)
    }
}
