//! The model and its one forward.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rewire_hooks::{Hook, HookPoint, NormSite};
use rewire_tensor::{float32, product};

use crate::config::{Positions, TransformerConfig};
use crate::error::ModelError;
use crate::network::attention::AttentionContext;
use crate::network::block::Block;
use crate::network::norm::Norm;
use crate::network::rotary::Rotary;
use crate::network::run::{KeysValues, LastBlock, Prefix, ReadPositions, ReadRows, Readout, Run, Start};

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
        let Run { start, joining, prefix, readout, last_block } = run;
        let [_, pos, first_layer] = self.check(&start, &joining, prefix.as_ref(), &readout, first)?;
        let device = self.device();
        let last = self.blocks.len() - 1;
        // The rows of the batch that are there at some depth, and where each of them is read.
        let read = |rows: Range<usize>| match &readout.positions {
            ReadPositions::Each(positions) => Some(ReadRows::new(&positions[rows], first, pos, &device)),
            ReadPositions::All => None,
        };
        let narrow = |rows: Range<usize>| if last_block == LastBlock::Read { read(rows) } else { None };
        let rotary = match self.config.positions {
            Positions::Rotary { dims, base } => Some(Rotary::shared(dims, base, first..first + pos, &device)),
            Positions::Learned => None,
        };
        let mut context = AttentionContext { first, rotary, rotary_read: None };
        let mut joining = joining.into_iter().peekable();
        // All that join at a depth, behind the `rows` that are there; past attention of the last block only what is read of them.
        let mut joined = |depth: usize, rows: usize| -> Option<Tensor<B, 3>> {
            let mut residuals = Vec::new();
            let mut end = rows;
            while let Some(start) = joining.next_if(|start| start.depth() == depth) {
                let (Start::Residual { residual, .. } | Start::ResidMid { residual, .. }) = start else { continue };
                let from = end;
                end += residual.dims()[0];
                let read = match depth {
                    after if after > 2 * last + 1 => read(from..end),
                    mid if mid > 2 * last => narrow(from..end),
                    _ => None,
                };
                residuals.push(match read {
                    Some(read) => read.select(residual),
                    None => residual,
                });
            }
            (!residuals.is_empty()).then(|| Tensor::cat(residuals, 0))
        };

        let (mut x, mut next) = match start {
            Start::Tokens(tokens) => (self.embed(tokens, first, &mut hook), 0),
            Start::Residual { residual, .. } => (residual, first_layer),
            Start::ResidMid { residual, .. } => {
                let rows = 0..residual.dims()[0];
                let residual = match (first_layer == last).then(|| narrow(rows)).flatten() {
                    Some(read) => read.select(residual),
                    None => residual,
                };
                let residual = behind(residual, |rows| joined(2 * first_layer + 1, rows));
                (self.blocks[first_layer].forward_from_mid(residual, first_layer, &mut hook), first_layer + 1)
            }
        };
        while let Some(block) = self.blocks.get(next) {
            x = behind(x, |rows| joined(2 * next, rows));
            let read = (next == last).then(|| narrow(0..x.dims()[0])).flatten();
            if let (Some(read), Positions::Rotary { dims, base }) = (&read, &self.config.positions) {
                context.rotary_read = Some(Rotary::each(*dims, *base, &read.positions, &device));
            }
            let earlier = prefix.as_ref().map(|p| p.keys_values[next].clone());
            let joining = |rows| joined(2 * next + 1, rows);
            x = block.forward(x, next, &context, earlier, read.as_ref(), joining, &mut hook);
            next += 1;
        }
        let narrowed = last_block == LastBlock::Read && first_layer <= last;
        if let Some(read) = (!narrowed).then(|| read(0..x.dims()[0])).flatten() {
            x = read.select(x);
        }
        x = behind(x, |rows| joined(2 * next, rows));
        let stages = [HookPoint::FinalNorm(NormSite::Scale), HookPoint::FinalNorm(NormSite::Normalized)];
        let x = self.final_norm.forward(float32(x), stages, &mut hook);
        Ok(self.unembed(x, readout.columns.as_deref()))
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
    fn check(
        &self,
        start: &Start<B>,
        joining: &[Start<B>],
        prefix: Option<&Prefix<B>>,
        readout: &Readout,
        first: usize,
    ) -> Result<[usize; 3], ModelError> {
        let TransformerConfig { n_layers, d_model, d_vocab, n_ctx, .. } = self.config;
        let agree = |what, expected, found| match expected == found {
            true => Ok(()),
            false => Err(ModelError::RunShape { what, expected, found }),
        };
        let below = |what, bound, found| match found < bound {
            true => Ok(()),
            false => Err(ModelError::RunShape { what, expected: bound, found }),
        };
        for start in [start].into_iter().chain(joining) {
            if let Start::Residual { layer, residual } | Start::ResidMid { layer, residual } = start {
                let from_mid = matches!(start, Start::ResidMid { .. });
                let layers = if from_mid { n_layers } else { n_layers + 1 };
                below("first layer of the run (of how many layers)", layers, *layer)?;
                if from_mid && self.config.parallel_block {
                    let what = "residual streams between attention and MLP (this model runs them in parallel)";
                    return Err(ModelError::RunShape { what, expected: 0, found: 1 });
                }
                agree("width of the residual stream", d_model, residual.dims()[2])?;
            }
        }
        let [mut batch, pos] = start.rows();
        let mut depth = start.depth();
        for start in joining {
            let [rows, of_start] = start.rows();
            agree("positions of rows that join (tokens cannot)", pos, of_start)?;
            if matches!(start, Start::Tokens(_)) || start.depth() < depth {
                let what = "depth, in halves of a block, of rows that join (after deeper ones, or from tokens)";
                return Err(ModelError::RunShape { what, expected: depth, found: start.depth() });
            }
            (batch, depth) = (batch + rows, start.depth());
        }
        let layer = start.depth() / 2;
        if batch * pos == 0 {
            return Err(ModelError::NoTokens);
        }
        if first + pos > n_ctx {
            return Err(ModelError::ContextExceeded { found: first + pos, n_ctx });
        }
        if let Some(prefix) = prefix {
            agree("layers of the key/value prefix", n_layers, prefix.keys_values.len())?;
            for KeysValues { keys, values } in &prefix.keys_values {
                for prompts in [keys.dims()[0], values.dims()[0]] {
                    for [rows, _] in [start].into_iter().chain(joining).map(Start::rows) {
                        let whole = rows - rows % prompts.max(1);
                        agree("rows that are whole copies of the key/value prefix's prompts", rows, whole)?;
                    }
                }
            }
        }
        let Readout { positions, columns } = readout;
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

/// `x` and, behind its rows, those that join it, if any do.
pub(crate) fn behind<B: Backend>(x: Tensor<B, 3>, joined: impl FnOnce(usize) -> Option<Tensor<B, 3>>) -> Tensor<B, 3> {
    match joined(x.dims()[0]) {
        Some(others) => Tensor::cat(vec![x, others], 0),
        None => x,
    }
}
