//! Estimates of the memory that an analysis takes, and batch sizes that fit into it.

use burn::tensor::backend::Backend;
use rewire_model::{MlpKind, QUERY_BLOCK, Transformer, TransformerConfig};
use rewire_tensor::Precision;

use crate::run::execution::Execution;

/// Largest number of tokens per pass: more would take memory without saving time.
const MOST_TOKENS: usize = 1 << 16;
/// Largest number of prompt pairs cached at once: more would not save time.
const MOST_PROMPTS: usize = 1024;
/// Largest number of tokens of cached prompts, without a budget.
const MOST_TOKENS_CACHED: usize = 1 << 13;
/// Largest number of tokens per backward pass, without a budget.
const MOST_TOKENS_DIFFERENTIATED: usize = 1 << 11;
/// Largest number of prompt pairs per backward pass.
const MOST_DIFFERENTIATED: usize = 256;

/// Largest estimate. No machine has as much memory, and sums of such estimates fit into 64 bits.
const MOST_BYTES: u64 = 1 << 44;

/// Estimated bytes that an analysis of a model takes. [`Execution`] has the formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Bytes per prompt pair whose activations are cached.
    pub held_a_prompt: u64,
    /// Bytes per prompt pair in a backward pass.
    pub differentiated_a_prompt: u64,
    /// Bytes per token in a pass, including four copies of as many logits as
    /// [`Execution::token_budget`] allows.
    pub pass_a_token: u64,
    /// Bytes per token in a pass, without logits.
    pub pass_a_token_without_logits: u64,
}

impl MemoryEstimate {
    /// Estimates the memory for prompts of `pos` tokens whose scores and patterns are held whole.
    #[must_use]
    pub fn new(config: &TransformerConfig, pos: usize, precision: Precision) -> Self {
        Self::with_scores(config, [pos, pos], precision)
    }

    /// Estimates the memory for prompts of `pos` tokens where nothing sees scores and patterns, so
    /// that attention computes those of [`QUERY_BLOCK`] queries at a time.
    #[must_use]
    pub fn without_patterns(config: &TransformerConfig, pos: usize, precision: Precision) -> Self {
        Self::with_scores(config, [pos, pos.min(QUERY_BLOCK)], precision)
    }

    /// `scores` is the number of scores per token and head that are held.
    fn with_scores(config: &TransformerConfig, [pos, scores]: [usize; 2], precision: Precision) -> Self {
        let [layers, d_model, d_mlp, heads, d_head, pos, bytes] =
            [config.n_layers, config.d_model, config.d_mlp, config.n_heads, config.d_head, pos, precision.bytes()]
                .map(|n| n as u128);
        let scores = heads * scores as u128;
        // Heads may be wider together than the residual stream. A gated MLP holds both factors.
        let d_model = d_model.max(heads * d_head);
        let d_mlp = match config.mlp {
            MlpKind::Plain => d_mlp,
            MlpKind::Gated => d_mlp * 2,
        };
        // Scores, patterns and logits are float32 in every precision. During a pass, the inputs of
        // norms and activation functions are copied to float32, too.
        let pass = 4 * (2 * d_mlp + 8 * d_model + 2 * scores);
        let capped = |bytes: u128| u64::try_from(bytes).unwrap_or(MOST_BYTES).min(MOST_BYTES);
        let held = layers * pos * (bytes * (16 * d_model + 2 * d_mlp) + 4 * 2 * scores);
        let differentiated = 2 * layers * pos * (bytes * (30 * d_model + 8 * d_mlp) + 4 * 6 * scores);
        Self {
            held_a_prompt: capped(held),
            differentiated_a_prompt: capped(differentiated),
            pass_a_token: capped(pass + 4 * 4 * d_mlp),
            pass_a_token_without_logits: capped(pass),
        }
    }

    /// Returns the budget in bytes above which [`Execution::fitted`] chooses no larger sizes.
    #[must_use]
    pub fn enough(&self) -> u64 {
        let most = [
            self.held_a_prompt * MOST_PROMPTS as u64,
            self.differentiated_a_prompt * MOST_DIFFERENTIATED as u64,
            self.pass_a_token * MOST_TOKENS as u64,
        ];
        4 * most.into_iter().max().unwrap_or_default()
    }
}

impl Execution<'_> {
    /// Returns these settings with the largest batch sizes that fit into `budget` bytes. Without a
    /// budget, they fit into the free memory of the model's device. The CPU backends report no free
    /// memory: without a budget they keep their sizes, which are the same on every machine. Long
    /// prompts then share a batch up to 8,192 tokens of cached prompts and 2,048 tokens of a
    /// backward pass.
    ///
    /// By [`MemoryEstimate`], a quarter of the budget is for cached activations (or the tape of a
    /// backward pass) and a quarter for the passes that run at once. The other half is for rounding
    /// up by the backend's allocator. Sizes are powers of two, to give the same passes after a
    /// small change of the free memory. Prompts have `pos` tokens.
    #[must_use]
    pub fn fitted<B: Backend>(self, model: &Transformer<B>, pos: usize, budget: Option<u64>) -> Self {
        let device = model.device();
        let Some(budget) = budget.or_else(|| rewire_tensor::memory::<B>(&device).map(|memory| memory.free)) else {
            return self.for_long_prompts(pos);
        };
        let estimate = MemoryEstimate::new(model.config(), pos, model.precision());
        self.within(&estimate, budget, self.workers::<B>(&device))
    }

    /// Returns these settings as [`fitted`](Self::fitted) does on the CPU, before the model is
    /// loaded.
    #[must_use]
    pub fn fitted_on_cpu(
        self,
        config: &TransformerConfig,
        pos: usize,
        precision: Precision,
        budget: Option<u64>,
    ) -> Self {
        match budget {
            Some(budget) => self.within(&MemoryEstimate::new(config, pos, precision), budget, self.cpu_workers()),
            None => self.for_long_prompts(pos),
        }
    }

    fn within(self, estimate: &MemoryEstimate, budget: u64, workers: usize) -> Self {
        let workers = workers as u64;
        let fits = |share: u64, of_each: u64, most: usize| {
            let fits = usize::try_from(share / of_each.max(1)).unwrap_or(most).clamp(1, most);
            1 << fits.ilog2()
        };
        Self {
            prompt_batch: fits(budget / 4, estimate.held_a_prompt, MOST_PROMPTS),
            gradient_batch: fits(budget / 4 / workers, estimate.differentiated_a_prompt, MOST_DIFFERENTIATED),
            token_budget: fits(budget / 4 / workers, estimate.pass_a_token, MOST_TOKENS),
            ..self
        }
    }

    /// Returns these settings with fewer prompts of `pos` tokens in a batch, if they are long.
    fn for_long_prompts(self, pos: usize) -> Self {
        let at_most = |tokens: usize, size: usize| size.min((tokens / pos.max(1)).max(1));
        Self {
            prompt_batch: at_most(MOST_TOKENS_CACHED, self.prompt_batch),
            gradient_batch: at_most(MOST_TOKENS_DIFFERENTIATED, self.gradient_batch),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    fn gpt2_small() -> TransformerConfig {
        TransformerConfig::gpt2(12, 12, 768, 50_257, 1024)
    }

    #[test]
    fn bfloat16_shrinks_cached_memory_only() {
        let of = |precision| MemoryEstimate::new(&gpt2_small(), 15, precision);
        let (full, short) = (of(Precision::Float32), of(Precision::BFloat16));
        assert!(short.held_a_prompt < full.held_a_prompt * 6 / 10);
        assert_eq!(short.pass_a_token, full.pass_a_token);
        // The formula in the docs of `Execution`, in float32.
        assert_eq!(full.held_a_prompt, 4 * 12 * 15 * (16 * 768 + 2 * 3072 + 2 * 12 * 15));
    }

    #[test]
    fn attention_by_blocks_takes_memory_in_proportion_to_the_prompt() {
        let config = gpt2_small();
        let of = |pos| MemoryEstimate::without_patterns(&config, pos, Precision::Float32);
        assert_eq!(of(QUERY_BLOCK), MemoryEstimate::new(&config, QUERY_BLOCK, Precision::Float32));
        assert_eq!(of(1024).held_a_prompt, 2 * of(512).held_a_prompt);
        assert_eq!(of(1024).pass_a_token, of(512).pass_a_token);
        assert!(of(1024).held_a_prompt < MemoryEstimate::new(&config, 1024, Precision::Float32).held_a_prompt);
    }

    #[test]
    fn batch_sizes_are_powers_of_two_within_the_budget() {
        let config = TransformerConfig::gpt2(2, 2, 16, 50, 32);
        let model: Transformer<Flex> = Transformer::random(&config, 0, &Default::default());
        let execution = Execution { workers: Some(2), ..Execution::default() };
        let untouched = execution.fitted(&model, 8, None);
        assert_eq!([untouched.prompt_batch, untouched.token_budget], [execution.prompt_batch, execution.token_budget]);
        let sizes = |pos| {
            let fitted = execution.fitted(&model, pos, None);
            [fitted.prompt_batch, fitted.gradient_batch]
        };
        assert_eq!([128, 256, 512, 2048, 10_000].map(sizes), [[32, 16], [32, 8], [16, 4], [4, 1], [1, 1]]);
        let estimate = MemoryEstimate::new(&config, 8, Precision::Float32);
        let mut last = 0;
        for budget in [1, 1 << 16, 1 << 20, 1 << 26, u64::MAX / 2] {
            let fitted = execution.fitted(&model, 8, Some(budget));
            for size in [fitted.prompt_batch, fitted.gradient_batch, fitted.token_budget] {
                assert!(size.is_power_of_two(), "{size}");
            }
            assert!(fitted.token_budget == 1 || 8 * fitted.token_budget as u64 * estimate.pass_a_token <= budget);
            assert!(fitted.token_budget >= last);
            last = fitted.token_budget;
        }
        assert_eq!(last, MOST_TOKENS);
        let enough = Execution { workers: Some(1), ..execution }.fitted(&model, 8, Some(estimate.enough()));
        assert_eq!([enough.token_budget, enough.prompt_batch], [MOST_TOKENS, MOST_PROMPTS]);
    }
}
