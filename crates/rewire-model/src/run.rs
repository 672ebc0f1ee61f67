//! What a forward pass computes: where it starts, at which positions, and which logits it ends with.

use burn::tensor::{Int, Tensor, backend::Backend};
use rewire_hooks::{ActivationCache, CacheError, Site};

use crate::TransformerConfig;

/// One forward pass. The plain one is [`Run::tokens`]: from tokens, all positions, all logits.
#[derive(Debug, Clone)]
pub struct Run<B: Backend> {
    /// Where the pass starts.
    pub start: Start<B>,
    /// Keys and values of the positions before the computed ones; without it the first computed position is 0.
    pub prefix: Option<Prefix<B>>,
    /// Which logits are wanted.
    pub readout: Readout,
}

/// Where a forward pass starts.
#[derive(Debug, Clone)]
pub enum Start<B: Backend> {
    /// Token ids, `[batch, pos]`.
    Tokens(Tensor<B, 2, Int>),
    /// The residual stream that enters block `layer`.
    Residual {
        /// The first block to run.
        layer: usize,
        /// `[batch, pos, d_model]`.
        residual: Tensor<B, 3>,
    },
}

/// Keys and values, in every layer, of the positions before those that a run computes. Exact whenever those positions are
/// as they were in the run that was cached, which under a causal mask they are until the first position that changes.
#[derive(Debug, Clone)]
pub struct Prefix<B: Backend> {
    /// For each layer, keys (rotated, in rotary models) and values, `[batch, earlier, head, d_head]`.
    pub(crate) keys_values: Vec<[Tensor<B, 4>; 2]>,
    pub(crate) len: usize,
}

impl<B: Backend> Prefix<B> {
    /// The first `len` positions of a cached run.
    ///
    /// # Errors
    /// [`CacheError`] where keys (`hook_rot_k` in rotary models, else `hook_k`) or values of a layer were not recorded, or
    /// fewer than `len` positions were.
    pub fn from_cache(cache: &ActivationCache<B>, config: &TransformerConfig, len: usize) -> Result<Self, CacheError> {
        let key_site = if config.is_rotary() { Site::RotK } else { Site::K };
        let keys_values = (0..config.n_layers).map(|layer| {
            let [keys, values] = [cache.block::<4>(layer, key_site)?, cache.block(layer, Site::V)?];
            let found = keys.dims()[1];
            if found < len {
                return Err(CacheError::Size { what: "cached positions", expected: len, found });
            }
            Ok([keys.narrow(1, 0, len), values.narrow(1, 0, len)])
        });
        Ok(Self { keys_values: keys_values.collect::<Result<_, _>>()?, len })
    }

    /// The same for a batch that holds its prompts `times` times, one copy after the other.
    #[must_use]
    pub fn repeated(&self, times: usize) -> Self {
        let repeat = |kv: &[Tensor<B, 4>; 2]| kv.clone().map(|t| t.repeat_dim(0, times));
        Self { keys_values: self.keys_values.iter().map(repeat).collect(), len: self.len }
    }

    /// How many positions it covers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it covers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Which logits a forward pass ends with: `[batch, positions, columns]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readout {
    /// The positions. The final norm runs, and its hooks see, only these.
    pub positions: ReadPositions,
    /// The vocabulary columns, in this order; `None` for all.
    pub columns: Option<Vec<usize>>,
}

impl Readout {
    /// The same for a batch that holds its prompts `times` times, one copy after the other.
    #[must_use]
    pub fn repeated(&self, times: usize) -> Self {
        let positions = match &self.positions {
            ReadPositions::All => ReadPositions::All,
            ReadPositions::Each(positions) => ReadPositions::Each(positions.repeat(times)),
        };
        Self { positions, columns: self.columns.clone() }
    }
}

/// The positions whose logits are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ReadPositions {
    /// Every computed position.
    #[default]
    All,
    /// One position a prompt, counted from the prompt's start.
    Each(Vec<usize>),
}

impl<B: Backend> Run<B> {
    /// From tokens `[batch, pos]`, every position, every logit.
    #[must_use]
    pub fn tokens(tokens: Tensor<B, 2, Int>) -> Self {
        Self { start: Start::Tokens(tokens), prefix: None, readout: Readout::default() }
    }

    /// From the residual stream `[batch, pos, d_model]` that enters block `layer`.
    #[must_use]
    pub fn resume(layer: usize, residual: Tensor<B, 3>) -> Self {
        Self { start: Start::Residual { layer, residual }, prefix: None, readout: Readout::default() }
    }

    /// The computed positions come after those of `prefix`.
    #[must_use]
    pub fn after(self, prefix: Prefix<B>) -> Self {
        Self { prefix: Some(prefix), ..self }
    }

    /// Only these logits.
    #[must_use]
    pub fn reading(self, readout: Readout) -> Self {
        Self { readout, ..self }
    }
}
