//! The model and its one forward.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rewire_device::{float32, product};
use rewire_hooks::{Hook, HookPoint, NormSite};

use crate::attention::AttentionContext;
use crate::block::Block;
use crate::norm::Norm;
use crate::rotary::Rotary;
use crate::run::{KeysValues, Prefix, ReadRows};
use crate::{LastBlock, ModelError, Positions, ReadPositions, Readout, Run, Start, TransformerConfig};

/// A GPT-2- or GPT-NeoX-style language model.
///
/// ```text
/// tokens -> embed -> block 0 .. block n-1 -> final norm -> unembed(readout)
/// ```
///
/// Loaded weights are never on the autodiff tape: gradients are taken with respect to activations, by
/// [`GradientProbes`](rewire_hooks::GradientProbes). A model [made for training](Transformer::trainable) is the exception.
#[derive(Module, Debug)]
pub struct Transformer<B: Backend> {
    /// Token embedding, `[d_vocab, d_model]`.
    pub(crate) w_e: Param<Tensor<B, 2>>,
    /// Position embedding, `[n_ctx, d_model]`; none in rotary models.
    pub(crate) w_pos: Option<Param<Tensor<B, 2>>>,
    pub(crate) blocks: Vec<Block<B>>,
    pub(crate) final_norm: Norm<B>,
    /// Unembedding, `[d_model, d_vocab]`; none while tied to the token embedding.
    pub(crate) w_u: Option<Param<Tensor<B, 2>>>,
    /// `[d_vocab]`; appears when a norm's bias is folded into the unembedding.
    pub(crate) b_u: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    pub(crate) config: TransformerConfig,
}

impl<B: Backend> Transformer<B> {
    /// The model's shape.
    #[must_use]
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// The device that the weights are on.
    #[must_use]
    pub fn device(&self) -> B::Device {
        self.w_e.val().device()
    }

    /// Token ids as a tensor `[batch, pos]`, checked against the vocabulary and the context.
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

    /// Runs the model and returns the logits that `run` asks for, `[batch, positions, columns]`.
    ///
    /// `hook` is called at every point that the run passes, in forward order; pass `()` for none, `&mut hook` to read it
    /// afterwards. A run resumed at layer `l` starts at that block's `resid_pre`.
    ///
    /// # Errors
    /// [`ModelError::ContextExceeded`] and [`ModelError::RunShape`], where the run's parts do not fit the model.
    pub fn forward<H: Hook<B>>(&self, run: Run<B>, mut hook: H) -> Result<Tensor<B, 3>, ModelError> {
        let first = run.prefix.as_ref().map_or(0, Prefix::len);
        let [_, pos, first_layer] = self.check(&run, first)?;
        let device = self.device();
        let read = match &run.readout.positions {
            ReadPositions::Each(positions) => Some(ReadRows::new(positions, first, pos, &device)),
            ReadPositions::All => None,
        };
        let narrow = read.as_ref().filter(|_| run.last_block == LastBlock::Read);
        let (rotary, rotary_read) = match self.config.positions {
            Positions::Rotary { dims, base } => (
                Some(Rotary::shared(dims, base, first..first + pos, &device)),
                narrow.map(|read| Rotary::each(dims, base, &read.positions, &device)),
            ),
            Positions::Learned => (None, None),
        };
        let context = AttentionContext { first, rotary, rotary_read };
        let last = self.blocks.len() - 1;
        let narrow_in = |layer: usize| narrow.filter(|_| layer == last);

        let (mut x, mut next) = match run.start {
            Start::Tokens(tokens) => (self.embed(tokens, first, &mut hook), 0),
            Start::Residual { residual, .. } => (residual, first_layer),
            Start::ResidMid { residual, .. } => {
                let residual = match narrow_in(first_layer) {
                    Some(read) => read.select(residual),
                    None => residual,
                };
                (self.blocks[first_layer].forward_from_mid(residual, first_layer, &mut hook), first_layer + 1)
            }
        };
        while let Some(block) = self.blocks.get(next) {
            let earlier = run.prefix.as_ref().map(|p| p.keys_values[next].clone());
            x = block.forward(x, next, &context, earlier, narrow_in(next), &mut hook);
            next += 1;
        }
        let narrowed = narrow.is_some() && first_layer <= last;
        if let Some(read) = read.as_ref().filter(|_| !narrowed) {
            x = read.select(x);
        }
        let stages = [HookPoint::FinalNorm(NormSite::Scale), HookPoint::FinalNorm(NormSite::Normalized)];
        let x = self.final_norm.forward(float32(x), stages, &mut hook);
        Ok(self.unembed(x, run.readout.columns.as_deref()))
    }

    /// Token plus position embedding of tokens `[batch, pos]` that start at position `first`.
    fn embed<H: Hook<B>>(&self, tokens: Tensor<B, 2, Int>, first: usize, hook: &mut H) -> Tensor<B, 3> {
        let [batch, pos] = tokens.dims();
        let d_model = self.config.d_model;
        let embedded = self.w_e.val().select(0, tokens.reshape([batch * pos])).reshape([batch, pos, d_model]);
        let embedded = hook.visit(HookPoint::Embed, embedded);
        match &self.w_pos {
            None => embedded,
            Some(w_pos) => {
                let positions = w_pos.val().narrow(0, first, pos).unsqueeze_dim::<3>(0).expand([batch, pos, d_model]);
                embedded + hook.visit(HookPoint::PosEmbed, positions)
            }
        }
    }

    /// Logits `[batch, pos, columns]` of the final norm's output `[batch, pos, d_model]`.
    pub(crate) fn unembed(&self, x: Tensor<B, 3>, columns: Option<&[usize]>) -> Tensor<B, 3> {
        let [batch, pos, d_model] = x.dims();
        let device = x.device();
        let index = columns.map(|c| {
            let ids: Vec<i32> = c.iter().map(|&c| c as i32).collect();
            Tensor::<B, 1, Int>::from_data(TensorData::new(ids, [c.len()]), &device)
        });
        // Rows of the embedding are columns of the unembedding: choosing before transposing copies only those.
        let w_u = match (&self.w_u, &index) {
            (Some(w_u), Some(index)) => w_u.val().select(1, index.clone()),
            (Some(w_u), None) => w_u.val(),
            (None, Some(index)) => self.w_e.val().select(0, index.clone()).transpose(),
            (None, None) => self.w_e.val().transpose(),
        };
        let n_columns = w_u.dims()[1];
        let mut logits = product(x.reshape([batch * pos, d_model]), w_u);
        if let Some(b_u) = &self.b_u {
            let b_u = match index {
                Some(index) => b_u.val().select(0, index),
                None => b_u.val(),
            };
            logits = logits + b_u.reshape([1, n_columns]);
        }
        logits.reshape([batch, pos, n_columns])
    }

    /// Whether the parts of a run fit the model and each other; gives batch size, computed positions and first layer.
    fn check(&self, run: &Run<B>, first: usize) -> Result<[usize; 3], ModelError> {
        let TransformerConfig { n_layers, d_model, d_vocab, n_ctx, .. } = self.config;
        let agree = |what, expected, found| match expected == found {
            true => Ok(()),
            false => Err(ModelError::RunShape { what, expected, found }),
        };
        let below = |what, bound, found| match found < bound {
            true => Ok(()),
            false => Err(ModelError::RunShape { what, expected: bound, found }),
        };
        let [batch, pos, layer] = match &run.start {
            Start::Tokens(tokens) => [tokens.dims()[0], tokens.dims()[1], 0],
            Start::Residual { layer, residual } | Start::ResidMid { layer, residual } => {
                let [batch, pos, width] = residual.dims();
                let from_mid = matches!(run.start, Start::ResidMid { .. });
                let layers = if from_mid { n_layers } else { n_layers + 1 };
                below("first layer of the run (of how many layers)", layers, *layer)?;
                if from_mid && self.config.parallel_block {
                    let what = "residual streams between attention and MLP (this model runs them in parallel)";
                    return Err(ModelError::RunShape { what, expected: 0, found: 1 });
                }
                agree("width of the residual stream", d_model, width)?;
                [batch, pos, *layer]
            }
        };
        if batch * pos == 0 {
            return Err(ModelError::NoTokens);
        }
        if first + pos > n_ctx {
            return Err(ModelError::ContextExceeded { found: first + pos, n_ctx });
        }
        if let Some(prefix) = &run.prefix {
            agree("layers of the key/value prefix", n_layers, prefix.keys_values.len())?;
            for KeysValues { keys, values } in &prefix.keys_values {
                for prompts in [keys.dims()[0], values.dims()[0]] {
                    let whole = batch - batch % prompts.max(1);
                    agree("rows that are whole copies of the key/value prefix's prompts", batch, whole)?;
                }
            }
        }
        let Readout { positions, columns } = &run.readout;
        if let ReadPositions::Each(positions) = positions {
            agree("positions read (one a prompt)", batch, positions.len())?;
            for &position in positions {
                below("position read (of how many)", first + pos, position)?;
                below("first computed position (must not come after the one read)", position + 1, first)?;
            }
        }
        for &column in columns.iter().flatten() {
            below("vocabulary column read (of how many)", d_vocab, column)?;
        }
        Ok([batch, pos, layer])
    }
}
