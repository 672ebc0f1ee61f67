//! The model and its one forward.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rewire_hooks::{Hook, HookPoint, NormSite};
use rewire_tensor::{matmul, to_f32};

use crate::config::TransformerConfig;
use crate::error::ModelError;
use crate::network::backward::BackwardRule;
use crate::network::block::Block;
use crate::network::matrix::Matrix;
use crate::network::norm::Norm;
use crate::network::run::Run;
use crate::network::segments::Segments;

/// A language model of one of the supported [families](crate::Architecture).
///
/// ```text
/// tokens -> embed -> block 0 .. block n-1 -> final norm -> unembed(readout)
/// ```
///
/// Loaded weights are never on the autodiff tape. Gradients are taken with respect to activations,
/// by [`GradientProbes`](rewire_hooks::GradientProbes). A model [made for
/// training](Transformer::trainable) is the exception.
#[derive(Module, Debug)]
pub struct Transformer<B: Backend> {
    /// Token embedding, `[d_vocab, d_model]`.
    pub(crate) w_e: Matrix<B>,
    /// Position embedding, `[n_ctx, d_model]`; `None` in rotary models.
    pub(crate) w_pos: Option<Param<Tensor<B, 2>>>,
    pub(crate) blocks: Vec<Block<B>>,
    pub(crate) final_norm: Norm<B>,
    /// Unembedding, `[d_model, d_vocab]`; `None` while it is tied to the token embedding.
    pub(crate) w_u: Option<Matrix<B>>,
    /// Bias of the unembedding, `[d_vocab]`; present in models that have it, and once a norm's bias
    /// is folded into the unembedding.
    pub(crate) b_u: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    pub(crate) config: TransformerConfig,
}

impl<B: Backend> Transformer<B> {
    /// Returns the model's configuration.
    #[must_use]
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// Returns the device that holds the weights.
    #[must_use]
    pub fn device(&self) -> B::Device {
        self.w_e.device()
    }

    /// Returns token ids as a tensor `[batch, pos]`, checked against the vocabulary and the
    /// context.
    ///
    /// # Errors
    /// [`ModelError::NoTokens`], [`ModelError::UnequalPrompts`], [`ModelError::ContextExceeded`] or
    /// [`ModelError::TokenOutsideVocabulary`].
    pub fn tokens(&self, prompts: &[Vec<u32>]) -> Result<Tensor<B, 2, Int>, ModelError> {
        let expected = prompts.first().map_or(0, Vec::len);
        if expected == 0 {
            return Err(ModelError::NoTokens);
        }
        let TransformerConfig { n_ctx, d_vocab, .. } = self.config;
        if expected > n_ctx {
            return Err(ModelError::ContextExceeded { found: expected, n_ctx });
        }
        for (prompt, tokens) in prompts.iter().enumerate() {
            if tokens.len() != expected {
                return Err(ModelError::UnequalPrompts { prompt, expected, found: tokens.len() });
            }
            if let Some(position) = tokens.iter().position(|&t| t as usize >= d_vocab) {
                return Err(ModelError::TokenOutsideVocabulary { token: tokens[position], prompt, position, d_vocab });
            }
        }
        let ids: Vec<i32> = prompts.iter().flatten().map(|&t| t as i32).collect();
        Ok(Tensor::from_data(TensorData::new(ids, [prompts.len(), expected]), &self.device()))
    }

    /// Runs the model and returns the logits that `run` reads, `[batch, positions, columns]`.
    ///
    /// A run that [stops early](Run::stop_at) or [reads nothing](crate::Readout::nothing) returns
    /// the residual stream at its end instead, `[batch, positions, d_model]`.
    ///
    /// `hook` is called at every point that the run passes, in forward order. Pass `()` for no
    /// hook, and `&mut hook` to read the hook after the run. A run that starts at layer `l` begins
    /// with that block's `resid_pre`.
    ///
    /// # Errors
    /// [`ModelError::ContextExceeded`], [`ModelError::NoTokens`] and [`ModelError::RunShape`] if
    /// the run's parts do not fit the model.
    pub fn forward<H: Hook<B>>(&self, run: Run<B>, mut hook: H) -> Result<Tensor<B, 3>, ModelError> {
        let mut run = Segments::new(run, &self.config, &self.device())?;
        // `None` until the first rows of the batch enter.
        let mut x = run.tokens().map(|(tokens, first)| self.embed(tokens, first, &mut hook));
        for (layer, block) in self.blocks.iter().enumerate().take(run.n_blocks()) {
            x = run.enter_block(layer, x);
            let mid = x.map(|x| block.attention_half(x, layer, run.attention(layer), &mut hook));
            x = run.enter_mid(layer, mid).map(|mid| block.mlp_half(mid, layer, run.backward(), &mut hook));
        }
        let x = run.leave(x).ok_or(ModelError::NoTokens)?;
        match run.columns() {
            None => Ok(x),
            Some(columns) => Ok(self.unembed(self.normalize(x, run.backward(), &mut hook), columns)),
        }
    }

    /// Returns the token plus position embedding of tokens `[batch, pos]`, whose first position is
    /// `first`.
    fn embed<H: Hook<B>>(&self, tokens: Tensor<B, 2, Int>, first: usize, hook: &mut H) -> Tensor<B, 3> {
        let [batch, pos] = tokens.dims();
        let d_model = self.config.d_model;
        let embedded = self.w_e.select(0, tokens.reshape([batch * pos])).reshape([batch, pos, d_model]);
        let embedded = match self.config.embedding_scale {
            Some(scale) => embedded * scale,
            None => embedded,
        };
        let embedded = hook.visit(HookPoint::Embed, embedded);
        match &self.w_pos {
            None => embedded,
            Some(w_pos) => {
                let positions = w_pos.val().narrow(0, first, pos).unsqueeze_dim::<3>(0).expand([batch, pos, d_model]);
                embedded + hook.visit(HookPoint::PosEmbed, positions)
            }
        }
    }

    /// Applies the final norm to `x` `[batch, pos, d_model]`.
    pub(crate) fn normalize<H: Hook<B>>(&self, x: Tensor<B, 3>, backward: BackwardRule, hook: &mut H) -> Tensor<B, 3> {
        let points = [NormSite::Scale, NormSite::Normalized].map(HookPoint::FinalNorm);
        self.final_norm.forward(to_f32(x), points, backward, hook)
    }

    /// Returns logits, `[batch, pos, columns]`, for the final norm's output `x`
    /// `[batch, pos, d_model]`.
    pub(crate) fn unembed(&self, x: Tensor<B, 3>, columns: Option<&[usize]>) -> Tensor<B, 3> {
        let [batch, pos, d_model] = x.dims();
        let device = x.device();
        let index = columns.map(|c| {
            let ids: Vec<i32> = c.iter().map(|&c| c as i32).collect();
            Tensor::<B, 1, Int>::from_data(TensorData::new(ids, [c.len()]), &device)
        });
        let w_u = match &index {
            Some(index) => self.unembedding_columns(index.clone()),
            None => self.unembedding(),
        };
        let n_columns = w_u.dims()[1];
        let mut logits = matmul(x.reshape([batch * pos, d_model]), w_u);
        if let Some(b_u) = &self.b_u {
            let b_u = match index {
                Some(index) => b_u.val().select(0, index),
                None => b_u.val(),
            };
            logits = logits + b_u.reshape([1, n_columns]);
        }
        self.bounded_logits(logits).reshape([batch, pos, n_columns])
    }
}
