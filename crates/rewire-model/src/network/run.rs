//! Descriptions of forward passes: the start, the end, the positions, and the logits.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use rewire_hooks::{ActivationCache, CacheError, Site};

use crate::config::TransformerConfig;
use crate::network::attention::KeysValues;
use crate::network::backward::BackwardRule;

/// One forward pass. [`Run::tokens`] makes the plain one: from tokens, all positions, all logits.
#[derive(Debug, Clone)]
pub struct Run<B: Backend> {
    /// The start of the pass.
    pub start: RunStart<B>,
    /// Further rows of the batch, which join the run at later starts. They are residual streams at
    /// the same positions, each no shallower than the one before it. They follow the earlier rows
    /// in the batch.
    pub joining: Vec<RunStart<B>>,
    /// Keys and values of the positions before the computed ones. Without them, the first computed
    /// position is 0.
    pub prefix: Option<Prefix<B>>,
    /// The logits that are computed.
    pub readout: Readout,
    /// The positions that the last block computes.
    pub last_block: LastBlock,
    /// The block before which the run stops. `None` runs to the logits.
    pub stop_at: Option<usize>,
    /// What a backward pass through the run computes.
    pub backward: BackwardRule,
}

/// The start of a forward pass.
#[derive(Debug, Clone)]
pub enum RunStart<B: Backend> {
    /// Token ids, `[batch, pos]`.
    Tokens(Tensor<B, 2, Int>),
    /// The residual stream that enters block `layer` or, after the last block, the final norm.
    Residual {
        /// The first block to run. The number of layers stands for the final norm.
        layer: usize,
        /// The residual stream, `[batch, pos, d_model]`.
        residual: Tensor<B, 3>,
    },
    /// The residual stream between attention and MLP of block `layer`, in models with sequential
    /// blocks.
    ResidMid {
        /// The block whose MLP runs first.
        layer: usize,
        /// The residual stream, `[batch, pos, d_model]`.
        residual: Tensor<B, 3>,
    },
}

/// The positions at which the last block computes its queries and everything after them. The logits
/// depend on the last block only at the positions that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastBlock {
    /// Every computed position.
    #[default]
    AllPositions,
    /// Only the positions that the readout names. If it names one or several per prompt, hooks see
    /// `hook_q` and every later point of the last block with as many positions.
    /// [`ReadPositions::All`] names every computed position.
    ReadPositions,
}

/// Keys and values, in every layer, of the positions before those that a run computes.
///
/// The result is exact if those positions are unchanged from the cached run. Under a causal mask,
/// all positions before the first changed one are unchanged.
#[derive(Debug, Clone)]
pub struct Prefix<B: Backend> {
    pub(crate) keys_values: Vec<KeysValues<B>>,
    pub(crate) len: usize,
}

impl<B: Backend> RunStart<B> {
    /// Returns the depth of the start, in halves of a block.
    pub(crate) fn depth(&self) -> usize {
        match self {
            RunStart::Tokens(_) => 0,
            RunStart::Residual { layer, .. } => 2 * layer,
            RunStart::ResidMid { layer, .. } => 2 * layer + 1,
        }
    }

    /// Returns the number of rows and of positions that start here.
    pub(crate) fn rows(&self) -> [usize; 2] {
        match self {
            RunStart::Tokens(tokens) => tokens.dims(),
            RunStart::Residual { residual, .. } | RunStart::ResidMid { residual, .. } => {
                let [batch, pos, _] = residual.dims();
                [batch, pos]
            }
        }
    }
}

impl<B: AutodiffBackend> Prefix<B> {
    /// Makes a prefix for a run on the autodiff backend from the prefix of an untracked run. It is
    /// constant there.
    #[must_use]
    pub fn from_inner(prefix: Prefix<B::InnerBackend>) -> Self {
        let constant = |kv: KeysValues<B::InnerBackend>| KeysValues {
            keys: Tensor::from_inner(kv.keys),
            values: Tensor::from_inner(kv.values),
        };
        Self { keys_values: prefix.keys_values.into_iter().map(constant).collect(), len: prefix.len }
    }
}

impl<B: Backend> Prefix<B> {
    /// Makes a prefix from the first `len` positions of a cached run. It serves batches that hold
    /// that run's prompts any number of times, one copy after the other.
    ///
    /// # Errors
    /// [`CacheError`] if keys (`hook_rot_k` in rotary models, else `hook_k`) or values of a layer
    /// were not recorded, or if the cache holds fewer than `len` positions.
    pub fn from_cache(cache: &ActivationCache<B>, config: &TransformerConfig, len: usize) -> Result<Self, CacheError> {
        let key_site = config.key_site();
        let keys_values = (0..config.n_layers).map(|layer| {
            let [keys, values] = [cache.block::<4>(layer, key_site)?, cache.block(layer, Site::V)?];
            let found = keys.dims()[1];
            if found < len {
                return Err(CacheError::Size { what: "cached positions", expected: len, found });
            }
            Ok(KeysValues { keys: keys.narrow(1, 0, len), values: values.narrow(1, 0, len) })
        });
        Ok(Self { keys_values: keys_values.collect::<Result<_, _>>()?, len })
    }

    /// Returns the keys (rotated in rotary models) and values of block `layer`, each `[prompts,
    /// earlier, key/value head, d_head]`.
    ///
    /// # Panics
    /// If the model has no block `layer`.
    #[must_use]
    pub fn keys_values(&self, layer: usize) -> [Tensor<B, 4>; 2] {
        let KeysValues { keys, values } = self.keys_values[layer].clone();
        [keys, values]
    }

    /// Returns the prefix with only the prompts of these rows, in this order.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let index: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let select = |t: &Tensor<B, 4>| {
            let index = Tensor::<B, 1, Int>::from_data(TensorData::new(index.clone(), [rows.len()]), &t.device());
            t.clone().select(0, index)
        };
        let of_layer = |kv: &KeysValues<B>| KeysValues { keys: select(&kv.keys), values: select(&kv.values) };
        Self { keys_values: self.keys_values.iter().map(of_layer).collect(), len: self.len }
    }

    /// Returns this prefix followed by the positions of `next`, which must have the same prompts.
    pub(crate) fn followed_by(self, next: Prefix<B>) -> Self {
        let join = |(a, b): (KeysValues<B>, KeysValues<B>)| KeysValues {
            keys: Tensor::cat(vec![a.keys, b.keys], 1),
            values: Tensor::cat(vec![a.values, b.values], 1),
        };
        let len = self.len + next.len;
        Self { keys_values: self.keys_values.into_iter().zip(next.keys_values).map(join).collect(), len }
    }

    /// Returns the number of positions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether it has no positions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The logits that a forward pass computes and returns: `[batch, positions, columns]`.
///
/// An analysis derives the readout from the logits that its metric asks for (`Reads` in
/// rewire-tasks): `Reads` belongs to all prompts, and a readout to one run of a batch of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readout {
    /// The positions. The final norm runs only at these, and its hooks see only these.
    pub positions: ReadPositions,
    /// The vocabulary columns, in this order; `None` for all. With an empty list, the run ends
    /// after the last block; see [`nothing`](Self::nothing).
    pub columns: Option<Vec<usize>>,
}

impl Readout {
    /// Reads no logits. Final norm and unembedding do not run, and
    /// [`forward`](crate::Transformer::forward) returns the residual stream after the last block.
    /// Use it for runs that only record activations.
    #[must_use]
    pub fn nothing() -> Self {
        Self { positions: ReadPositions::All, columns: Some(Vec::new()) }
    }

    /// Returns the readout for a batch that holds its prompts `times` times, one copy after the
    /// other.
    #[must_use]
    pub fn repeated(&self, times: usize) -> Self {
        let positions = match &self.positions {
            ReadPositions::All => ReadPositions::All,
            ReadPositions::Each(positions) => ReadPositions::Each(positions.repeat(times)),
            ReadPositions::Several { positions, per_prompt } => {
                ReadPositions::Several { positions: positions.repeat(times), per_prompt: *per_prompt }
            }
        };
        Self { positions, columns: self.columns.clone() }
    }
}

/// The positions at which logits are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ReadPositions {
    /// Every computed position.
    #[default]
    All,
    /// One position per prompt, counted from the prompt's start.
    Each(Vec<usize>),
    /// Several positions per prompt, counted from the prompt's start. A position may be named
    /// twice.
    Several {
        /// The positions of the first prompt, then those of the second, and so on.
        positions: Vec<usize>,
        /// The number of positions of each prompt.
        per_prompt: usize,
    },
}

impl<B: Backend> Run<B> {
    /// Starts from tokens `[batch, pos]`, and reads every logit at every position.
    #[must_use]
    pub fn tokens(tokens: Tensor<B, 2, Int>) -> Self {
        Self::new(RunStart::Tokens(tokens))
    }

    /// Starts from the residual stream `[batch, pos, d_model]` that enters block `layer`, and reads
    /// every logit at every position.
    #[must_use]
    pub fn from_residual(layer: usize, residual: Tensor<B, 3>) -> Self {
        Self::new(RunStart::Residual { layer, residual })
    }

    /// Starts from `start`, and reads every logit at every position.
    #[must_use]
    pub fn new(start: RunStart<B>) -> Self {
        Self {
            start,
            joining: Vec::new(),
            prefix: None,
            readout: Readout::default(),
            last_block: LastBlock::AllPositions,
            stop_at: None,
            backward: BackwardRule::Gradient,
        }
    }

    /// Adds rows that join the run at later starts.
    #[must_use]
    pub fn with_joining(self, joining: Vec<RunStart<B>>) -> Self {
        Self { joining, ..self }
    }

    /// Places the computed positions after those of `prefix`.
    #[must_use]
    pub fn with_prefix(self, prefix: Prefix<B>) -> Self {
        Self { prefix: Some(prefix), ..self }
    }

    /// Sets the logits that are computed.
    #[must_use]
    pub fn with_readout(self, readout: Readout) -> Self {
        Self { readout, ..self }
    }

    /// Sets the positions that the last block computes.
    #[must_use]
    pub fn with_last_block(self, last_block: LastBlock) -> Self {
        Self { last_block, ..self }
    }

    /// Sets what a backward pass through the run computes. Activations and logits do not depend on
    /// it.
    #[must_use]
    pub fn with_backward(self, backward: BackwardRule) -> Self {
        Self { backward, ..self }
    }

    /// Stops before block `layer`. [`forward`](crate::Transformer::forward) then returns the
    /// residual stream that enters that block, `[batch, pos, d_model]`, as with TransformerLens'
    /// `stop_at_layer`. Hooks see no point from that block on. With the number of layers, the run
    /// stops before the final norm.
    #[must_use]
    pub fn stop_at(self, layer: usize) -> Self {
        Self { stop_at: Some(layer), ..self }
    }
}
