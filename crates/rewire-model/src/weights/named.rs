//! Access to the weights by their usual names, for analyses that read them.

use burn::module::Param;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rewire_tensor::{to_f32, zeros_like};

use crate::config::TransformerConfig;
use crate::network::attention::HeadInput;
use crate::network::backward::BackwardRule;
use crate::network::transformer::Transformer;

impl<B: Backend> Transformer<B> {
    /// Returns `W_Q`, `W_K` or `W_V` of block `layer`, `[head, d_model, d_head]`, with a head for
    /// each key/value head for `W_K` and `W_V`.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn w_head_input(&self, layer: usize, input: HeadInput) -> Tensor<B, 3> {
        let TransformerConfig { d_model, d_head, .. } = self.config;
        let attention = &self.blocks[layer].attention;
        let [from, width] = attention.columns(input);
        let w = attention.w_qkv.val().narrow(1, from, width);
        w.reshape([d_model, width / d_head, d_head]).permute([1, 0, 2])
    }

    /// Returns `b_Q`, `b_K` or `b_V` of block `layer`, `[head, d_head]`, with a head for each
    /// key/value head for `b_K` and `b_V`.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn b_head_input(&self, layer: usize, input: HeadInput) -> Tensor<B, 2> {
        let d_head = self.config.d_head;
        let attention = &self.blocks[layer].attention;
        let [from, width] = attention.columns(input);
        attention.b_qkv.val().narrow(0, from, width).reshape([width / d_head, d_head])
    }

    /// Returns the gain of the norm before attention of block `layer`, `[d_model]`, or `None` once
    /// it is folded into the weights, and in models without that norm.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn attention_norm_gain(&self, layer: usize) -> Option<Tensor<B, 1>> {
        self.blocks[layer].ln1.gain.as_ref().map(Param::val)
    }

    /// Returns the gain of the norm after attention of block `layer`, `[d_model]`, or `None` in
    /// models without that norm. It is never folded: the residual stream has no weights to fold it
    /// into.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn after_attention_norm_gain(&self, layer: usize) -> Option<Tensor<B, 1>> {
        self.blocks[layer].attention.post_norm.as_ref()?.gain.as_ref().map(Param::val)
    }

    /// Returns the gain of the norm after the MLP of block `layer`, `[d_model]`, or `None` in
    /// models without that norm. It is never folded.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn after_mlp_norm_gain(&self, layer: usize) -> Option<Tensor<B, 1>> {
        self.blocks[layer].mlp.post_norm.as_ref()?.gain.as_ref().map(Param::val)
    }

    /// Returns the gain of the final norm, `[d_model]`, or `None` once it is folded into the
    /// unembedding.
    #[must_use]
    pub fn final_norm_gain(&self) -> Option<Tensor<B, 1>> {
        self.final_norm.gain.as_ref().map(Param::val)
    }

    /// Returns `W_O` of block `layer`, `[head, d_head, d_model]`.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn w_o(&self, layer: usize) -> Tensor<B, 3> {
        let config = &self.config;
        self.blocks[layer].attention.w_o.val().reshape([config.n_heads, config.d_head, config.d_model])
    }

    /// Returns `b_O` of block `layer`, `[d_model]`.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn b_o(&self, layer: usize) -> Tensor<B, 1> {
        self.blocks[layer].attention.b_o.val()
    }

    /// Returns the neurons of block `layer`, as the output projection reads them, for a residual
    /// stream of zeros: `[d_mlp]`. They are the activation function of `b_in`. If the norm is not
    /// folded, its bias is added through `W_in`.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn neurons_at_zero(&self, layer: usize) -> Tensor<B, 1> {
        let block = &self.blocks[layer];
        let mlp = &block.mlp;
        let zeros = zeros_like([1, 1, self.config.d_model], &mlp.b_in.val());
        let read = block.mlp_norm(zeros, layer, BackwardRule::Gradient, &mut ());
        mlp.neurons(read, layer, BackwardRule::Gradient, &mut ()).reshape([self.config.d_mlp])
    }

    /// Returns `W_in` `[d_model, d_mlp]` and `b_in` `[d_mlp]` of block `layer`. In a gated MLP,
    /// they make the factor of the activated gate.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn mlp_in(&self, layer: usize) -> (Tensor<B, 2>, Tensor<B, 1>) {
        let mlp = &self.blocks[layer].mlp;
        (mlp.w_in.val(), mlp.b_in.val())
    }

    /// Returns `W_gate` `[d_model, d_mlp]` and `b_gate` `[d_mlp]` of block `layer`, or `None` if
    /// the MLP is not gated.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn mlp_gate(&self, layer: usize) -> Option<(Tensor<B, 2>, Tensor<B, 1>)> {
        self.blocks[layer].mlp.gate.as_ref().map(|gate| (gate.w.val(), gate.b.val()))
    }

    /// Returns `W_out` `[d_mlp, d_model]` and `b_out` `[d_model]` of block `layer`.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn mlp_out(&self, layer: usize) -> (Tensor<B, 2>, Tensor<B, 1>) {
        let mlp = &self.blocks[layer].mlp;
        (mlp.w_out.val(), mlp.b_out.val())
    }

    /// Returns `W_E`, `[d_vocab, d_model]`.
    #[must_use]
    pub fn w_e(&self) -> Tensor<B, 2> {
        self.w_e.val()
    }

    /// Returns `W_pos`, `[n_ctx, d_model]`, or `None` in rotary models.
    #[must_use]
    pub fn w_pos(&self) -> Option<Tensor<B, 2>> {
        self.w_pos.as_ref().map(Param::val)
    }

    /// Returns `W_U`, `[d_model, d_vocab]`.
    #[must_use]
    pub fn unembedding(&self) -> Tensor<B, 2> {
        match &self.w_u {
            Some(w_u) => w_u.val(),
            None => self.w_e.val().transpose(),
        }
    }

    /// Returns the columns of `W_U` for these tokens, `[d_model, token]`.
    pub(crate) fn unembedding_columns(&self, tokens: Tensor<B, 1, Int>) -> Tensor<B, 2> {
        match &self.w_u {
            Some(w_u) => w_u.select(1, tokens),
            // Selecting before transposing copies only the selected rows of the embedding.
            None => self.w_e.select(0, tokens).transpose(),
        }
    }

    /// Returns `b_U`, `[d_vocab]`. It is `None` in models without that bias until a norm's bias is
    /// folded into it.
    #[must_use]
    pub fn b_u(&self) -> Option<Tensor<B, 1>> {
        self.b_u.as_ref().map(Param::val)
    }

    /// Returns each prompt's logit difference direction, `[prompt, d_model]`: the mean column of
    /// `W_U` for `answers` minus the mean column for `wrong_answers`. Along it, the centered and
    /// scaled residual stream raises the logit difference.
    ///
    /// If `gain` is [`Applied`](FinalNormGain::Applied) and the final norm's gain is not yet folded
    /// into `W_U`, the direction is multiplied by that gain.
    #[must_use]
    pub fn logit_direction(
        &self,
        answers: &[Vec<u32>],
        wrong_answers: &[Vec<u32>],
        gain: FinalNormGain,
    ) -> Tensor<B, 2> {
        let device = self.device();
        let mean_column = |ids: &Vec<u32>| {
            let index: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
            let index = Tensor::<B, 1, Int>::from_data(TensorData::new(index, [ids.len()]), &device);
            to_f32(self.unembedding_columns(index)).mean_dim(1).transpose() // [1, d_model]
        };
        let rows = answers.iter().zip(wrong_answers).map(|(right, wrong)| mean_column(right) - mean_column(wrong));
        let direction: Tensor<B, 2> = Tensor::cat(rows.collect(), 0);
        match (gain, self.final_norm_gain()) {
            (FinalNormGain::Applied, Some(gain)) => direction * to_f32(gain).unsqueeze_dim(0),
            _ => direction,
        }
    }

    /// Returns the part of each prompt's logit difference that depends on no activation:
    /// `[prompt]`. It is the unembedding's bias and, until it is folded, the final norm's bias
    /// along [`logit_direction`](Self::logit_direction).
    #[must_use]
    pub fn logit_bias(&self, answers: &[Vec<u32>], wrong_answers: &[Vec<u32>]) -> Tensor<B, 1> {
        let after_norm = self.logit_direction(answers, wrong_answers, FinalNormGain::LeftOut);
        let [prompts, d_model] = after_norm.dims();
        let of_norm = match &self.final_norm.bias {
            Some(bias) => (after_norm * to_f32(bias.val()).reshape([1, d_model])).sum_dim(1).reshape([prompts]),
            None => Tensor::zeros([prompts], &after_norm.device()),
        };
        let Some(b_u) = self.b_u() else { return of_norm };
        let mean = |ids: &Vec<u32>| {
            let index: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
            let index = Tensor::<B, 1, Int>::from_data(TensorData::new(index, [ids.len()]), &b_u.device());
            to_f32(b_u.clone().select(0, index)).mean()
        };
        let of_unembedding = answers.iter().zip(wrong_answers).map(|(right, wrong)| mean(right) - mean(wrong));
        of_norm + Tensor::cat(of_unembedding.collect(), 0)
    }
}

/// Whether a logit direction includes the final norm's gain. The two variants differ only for
/// unprocessed weights: folding ([`processed`](Transformer::processed)) moves the gain into `W_U`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FinalNormGain {
    /// The gain is included: a vector's dot product with the direction is the amount that it adds
    /// to the logit difference.
    #[default]
    Applied,
    /// The gain is left out, as in TransformerLens' `logit_attrs` and `apply_ln_to_stack` on
    /// unprocessed weights. These numbers do not sum to the logits.
    LeftOut,
}
