//! The components of a block, one by one, for analyses that freeze attention and follow the
//! residual stream position by position.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rewire_hooks::Hook;
use rewire_tensor::{cast_like, matmul};

use crate::config::QueryKeyNorms;
use crate::kernels::queries::Queries;
use crate::kernels::scores;
use crate::network::attention::HeadInput;
use crate::network::backward::BackwardRule;
use crate::network::linear::linear;
use crate::network::norm::HeadNorm;
use crate::network::rotary::{Rotary, Turning};
use crate::network::transformer::Transformer;

impl<B: Backend> Transformer<B> {
    /// Applies the norm before attention of block `layer` to vectors `[batch, pos, d_model]`.
    /// `hook` sees its scale and output.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    pub fn attention_norm<H: Hook<B>>(&self, layer: usize, x: Tensor<B, 3>, hook: &mut H) -> Tensor<B, 3> {
        self.blocks[layer].attention_norm(x, layer, BackwardRule::Gradient, hook)
    }

    /// Applies the norm before the MLP of block `layer` to vectors `[batch, pos, d_model]`. `hook`
    /// sees its scale and output.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    pub fn mlp_norm<H: Hook<B>>(&self, layer: usize, x: Tensor<B, 3>, hook: &mut H) -> Tensor<B, 3> {
        self.blocks[layer].mlp_norm(x, layer, BackwardRule::Gradient, hook)
    }

    /// Applies the norm before the MLP of block `layer` to vectors `[batch, pos, d_model]`, with a
    /// backward rule.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn mlp_norm_by_rule(&self, layer: usize, x: Tensor<B, 3>, backward: BackwardRule) -> Tensor<B, 3> {
        self.blocks[layer].mlp_norm(x, layer, backward, &mut ())
    }

    /// Returns the MLP output of block `layer`, as it is added to the residual stream, for the norm
    /// output `normalized`, both `[batch, pos, d_model]`. `hook` sees the neurons and the output.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    pub fn mlp<H: Hook<B>>(&self, layer: usize, normalized: Tensor<B, 3>, hook: &mut H) -> Tensor<B, 3> {
        self.blocks[layer].mlp.forward(normalized, layer, BackwardRule::Gradient, hook)
    }

    /// Applies the norm after attention of block `layer` to the sum of its heads' outputs
    /// `[batch, pos, d_model]`, biases included. Returns it unchanged for models without that norm.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn after_attention_norm(&self, layer: usize, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.blocks[layer].attention.after_norm(x, layer, BackwardRule::Gradient, &mut ())
    }

    /// Applies the norm after the MLP of block `layer` to the MLP's output `[batch, pos, d_model]`.
    /// Returns it unchanged for models without that norm.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn after_mlp_norm(&self, layer: usize, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.blocks[layer].mlp.after_norm(x, layer, BackwardRule::Gradient, &mut ())
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
        let attention = &self.blocks[layer].attention;
        if self.config.query_key_norms == QueryKeyNorms::AllHeads && input != HeadInput::V {
            // The norm of one head depends on all heads.
            let index = head_index(heads, &normalized.device());
            let all: Vec<usize> = (0..attention.columns(input)[1] / self.config.d_head).collect();
            return attention
                .normed(input, self.projected(layer, input, &all, normalized), BackwardRule::Gradient)
                .select(2, index);
        }
        attention.normed(input, self.projected(layer, input, heads, normalized), BackwardRule::Gradient)
    }

    /// Returns the queries, keys or values of heads of block `layer` that each read a stream of
    /// their own, before the rotary embedding and after a norm on queries or keys:
    /// `[row, head, d_head]`. `heads` are heads, or key/value heads for keys and values, and may
    /// name a head several times. `normalized` is the norm's output that each of them reads,
    /// `[head, row, d_model]`.
    ///
    /// # Panics
    /// If the model has no block `layer`, or the block has no such head.
    #[must_use]
    pub fn each_head_input(
        &self,
        layer: usize,
        input: HeadInput,
        heads: &[usize],
        normalized: Tensor<B, 3>,
    ) -> Tensor<B, 3> {
        let [_, rows, _] = normalized.dims();
        let d_head = self.config.d_head;
        if self.config.query_key_norms == QueryKeyNorms::AllHeads && input != HeadInput::V {
            // The norm of one head depends on all heads.
            let of_head = |(place, head): (usize, &usize)| {
                self.head_inputs(layer, input, &[*head], normalized.clone().narrow(0, place, 1))
            };
            let each: Vec<Tensor<B, 4>> = heads.iter().enumerate().map(of_head).collect();
            return Tensor::cat(each, 2).reshape([rows, heads.len(), d_head]);
        }
        let index = head_index(heads, &normalized.device());
        let w = cast_like(self.w_head_input(layer, input).select(0, index.clone()), &normalized);
        let b = cast_like(self.b_head_input(layer, input).select(0, index), &normalized);
        let x = matmul(normalized, w).swap_dims(0, 1) + b.unsqueeze_dim::<3>(0);
        let x = x.reshape([rows, 1, heads.len(), d_head]);
        let x = self.blocks[layer].attention.normed(input, x, BackwardRule::Gradient);
        x.reshape([rows, heads.len(), d_head])
    }

    /// Returns the norm of the queries or keys of block `layer`, with the vectors that it divides.
    /// These are of every head, or of every key/value head for keys. Returns `None` for values, and
    /// for models without such norms. `normalized` is the output of the norm before attention,
    /// `[batch, pos, d_model]`.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn head_norm(&self, layer: usize, input: HeadInput, normalized: Tensor<B, 3>) -> Option<HeadNorm<B>> {
        let attention = &self.blocks[layer].attention;
        let norm = attention.norm_of(input)?;
        let [_, width] = attention.columns(input);
        let heads: Vec<usize> = (0..width / self.config.d_head).collect();
        Some(norm.at_heads(self.projected(layer, input, &heads, normalized)))
    }

    /// Returns the queries, keys or values of some heads before a norm on them.
    fn projected(&self, layer: usize, input: HeadInput, heads: &[usize], normalized: Tensor<B, 3>) -> Tensor<B, 4> {
        let [batch, pos, d_model] = normalized.dims();
        let d_head = self.config.d_head;
        let index = head_index(heads, &normalized.device());
        let w = self.w_head_input(layer, input).select(0, index.clone());
        let w = w.permute([1, 0, 2]).reshape([d_model, heads.len() * d_head]);
        let b = self.b_head_input(layer, input).select(0, index).reshape([heads.len() * d_head]);
        linear(normalized, w, b).reshape([batch, pos, heads.len(), d_head])
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
        self.attend_by_rule(layer, [q, k, v], earlier, BackwardRule::Gradient)
    }

    /// As [`attend`](Self::attend) for queries, keys and values, with a backward rule.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn attend_by_rule(
        &self,
        layer: usize,
        qkv: [Tensor<B, 4>; 3],
        earlier: Option<[Tensor<B, 4>; 2]>,
        backward: BackwardRule,
    ) -> Tensor<B, 4> {
        self.blocks[layer].attention.attend(qkv, earlier, backward)
    }

    /// Returns the attention scores of block `layer`, `[batch, head, query, key]`, as attention
    /// takes their softmax: divided, bounded, and `-inf` for the keys that a query does not see.
    ///
    /// Queries `q` are `[batch, query, head, d_head]`, at position `first` and the following ones.
    /// Keys `k` are `[batch, key, key/value head, d_head]`, from position 0 on. Both are rotated in
    /// rotary models.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn attention_scores(&self, layer: usize, q: Tensor<B, 4>, k: Tensor<B, 4>, first: usize) -> Tensor<B, 4> {
        scores(q, k, None, &Queries::From(first), self.blocks[layer].attention.rule)
    }

    /// Applies the rotary embedding of block `layer` to queries or keys `[row, 1, head, d_head]`,
    /// at one position per row. Returns them unchanged for models without rotary positions.
    #[must_use]
    pub fn after_rotary(&self, layer: usize, x: Tensor<B, 4>, positions: &[usize]) -> Tensor<B, 4> {
        match Turning::of(&self.config, layer) {
            Some(turning) => Rotary::each(turning, positions, 1, &x.device()).rotate(x),
            None => x,
        }
    }

    /// Applies the norm before the unembedding to vectors `[batch, pos, d_model]`.
    #[must_use]
    pub fn unembedding_norm(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.normalize(x, BackwardRule::Gradient, &mut ())
    }

    /// Returns the logits, `[batch, pos, d_vocab]`, for the final norm's output `normalized`,
    /// `[batch, pos, d_model]`. They include the bias of the unembedding if the model has one.
    #[must_use]
    pub fn logits(&self, normalized: Tensor<B, 3>) -> Tensor<B, 3> {
        self.unembed(normalized, None)
    }
}

/// Returns an index of these heads.
fn head_index<B: Backend>(heads: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let index: Vec<i32> = heads.iter().map(|&head| head as i32).collect();
    Tensor::from_data(TensorData::new(index, [heads.len()]), device)
}
