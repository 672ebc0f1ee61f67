//! The components of a block, one by one, for analyses that freeze attention and follow the
//! residual stream position by position.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rewire_hooks::Hook;

use crate::network::attention::HeadInput;
use crate::network::linear::linear;
use crate::network::rotary::{Rotary, Turning};
use crate::network::transformer::Transformer;

impl<B: Backend> Transformer<B> {
    /// Applies the norm before attention of block `layer` to vectors `[batch, pos, d_model]`.
    /// `hook` sees its scale and output.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    pub fn attention_norm<H: Hook<B>>(&self, layer: usize, x: Tensor<B, 3>, hook: &mut H) -> Tensor<B, 3> {
        self.blocks[layer].attention_norm(x, layer, hook)
    }

    /// Applies the norm before the MLP of block `layer` to vectors `[batch, pos, d_model]`. `hook`
    /// sees its scale and output.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    pub fn mlp_norm<H: Hook<B>>(&self, layer: usize, x: Tensor<B, 3>, hook: &mut H) -> Tensor<B, 3> {
        self.blocks[layer].mlp_norm(x, layer, hook)
    }

    /// Returns the MLP output of block `layer`, as it is added to the residual stream, for the norm
    /// output `normalized`, both `[batch, pos, d_model]`. `hook` sees the neurons and the output.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    pub fn mlp<H: Hook<B>>(&self, layer: usize, normalized: Tensor<B, 3>, hook: &mut H) -> Tensor<B, 3> {
        self.blocks[layer].mlp.forward(normalized, layer, hook)
    }

    /// Applies the norm after attention of block `layer` to the sum of its heads' outputs
    /// `[batch, pos, d_model]`, biases included. Returns it unchanged for models without that norm.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn after_attention_norm(&self, layer: usize, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.blocks[layer].attention.after_norm(x, layer, &mut ())
    }

    /// Applies the norm after the MLP of block `layer` to the MLP's output `[batch, pos, d_model]`.
    /// Returns it unchanged for models without that norm.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn after_mlp_norm(&self, layer: usize, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.blocks[layer].mlp.after_norm(x, layer, &mut ())
    }

    /// Returns the queries, keys or values of some heads of block `layer`, before the rotary
    /// embedding and after a norm on queries or keys: `[batch, pos, head, d_head]`. Heads, or
    /// key/value heads for keys and values, are in the given order. `normalized` is the norm's
    /// output, `[batch, pos, d_model]`.
    ///
    /// # Panics
    /// If the model has no block `layer`, or the block has no such head.
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
        let found = linear(normalized, w, b).reshape([batch, pos, heads.len(), d_head]);
        self.blocks[layer].attention.normed(input, found)
    }

    /// Mixes values by causal attention of block `layer` from queries to keys (rotated in rotary
    /// models). All tensors are `[batch, pos, head, d_head]`, and may hold any of the heads. If
    /// there are fewer keys and values than queries, equal groups of queries share them.
    ///
    /// The tensors cover whole prompts, or the positions after `earlier`. `earlier` holds keys and
    /// values of the positions before, `[prompts, earlier, head, d_head]`. Row `r` of the batch
    /// uses those of prompt `r % prompts`.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn attend(
        &self,
        layer: usize,
        q: Tensor<B, 4>,
        k: Tensor<B, 4>,
        v: Tensor<B, 4>,
        earlier: Option<[Tensor<B, 4>; 2]>,
    ) -> Tensor<B, 4> {
        self.blocks[layer].attention.attend(q, k, v, earlier)
    }

    /// Applies the rotary embedding to queries or keys `[row, 1, head, d_head]`, at one position
    /// per row. Returns them unchanged for models without rotary positions.
    #[must_use]
    pub fn after_rotary(&self, x: Tensor<B, 4>, positions: &[usize]) -> Tensor<B, 4> {
        match Turning::of(&self.config) {
            Some(turning) => Rotary::each(turning, positions, 1, &x.device()).rotate(x),
            None => x,
        }
    }

    /// Applies the norm before the unembedding to vectors `[batch, pos, d_model]`.
    #[must_use]
    pub fn unembedding_norm(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.normalize(x, &mut ())
    }

    /// Returns the logits, `[batch, pos, d_vocab]`, for the final norm's output `normalized`,
    /// `[batch, pos, d_model]`. They include the bias of the unembedding if the model has one.
    #[must_use]
    pub fn logits(&self, normalized: Tensor<B, 3>) -> Tensor<B, 3> {
        self.unembed(normalized, None)
    }
}
