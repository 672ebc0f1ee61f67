//! Estimates of the memory that an analysis takes, and batch sizes that fit into it.

use burn::tensor::backend::Backend;
use rewire_model::{MlpKind, Transformer, TransformerConfig};
use rewire_tensor::Precision;

use crate::run::execution::Execution;

/// Largest number of tokens per pass: more would take memory without saving time.
const MOST_TOKENS: usize = 1 << 16;
/// Largest number of prompt pairs cached at once: more would not save time.
const MOST_PROMPTS: usize = 1024;
/// Largest number of prompt pairs per backward pass.
const MOST_DIFFERENTIATED: usize = 256;

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
    /// Estimates the memory for prompts of `pos` tokens.
    #[must_use]
    pub fn new(config: &TransformerConfig, pos: usize, precision: Precision) -> Self {
        // Heads may be wider together than the residual stream. A gated MLP holds both factors.
        let widest = config.d_model.max(config.n_heads * config.d_head);
        let neurons = match config.mlp {
            MlpKind::Plain => config.d_mlp,
            MlpKind::Gated => config.d_mlp * 2,
        };
        let [layers, d_model, d_mlp, heads, pos, bytes] =
            [config.n_layers, widest, neurons, config.n_heads, pos, precision.bytes()].map(|n| n as u64);
        // Scores, patterns and logits are float32 in every precision. During a pass, the inputs of
        // norms and activation functions are copied to float32, too.
        let pass = 4 * (2 * d_mlp + 8 * d_model + 2 * heads * pos);
        Self {
            held_a_prompt: layers * pos * (bytes * (16 * d_model + 2 * d_mlp) + 4 * 2 * heads * pos),
            differentiated_a_prompt: 2 * layers * pos * (bytes * (30 * d_model + 8 * d_mlp) + 4 * 6 * heads * pos),
            pass_a_token: pass + 4 * 4 * d_mlp,
            pass_a_token_without_logits: pass,
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
    /// memory: without a budget they keep their sizes, which are the same on every machine.
    ///
    /// By [`MemoryEstimate`], a quarter of the budget is for cached activations (or the tape of a
    /// backward pass) and a quarter for the passes that run at once. The other half is for rounding
    /// up by the backend's allocator. Sizes are powers of two, to give the same passes after a
    /// small change of the free memory. Prompts have `pos` tokens.
    #[must_use]
    pub fn fitted<B: Backend>(self, model: &Transformer<B>, pos: usize, budget: Option<u64>) -> Self {
        let device = model.device();
        let Some(budget) = budget.or_else(|| rewire_tensor::memory::<B>(&device).map(|memory| memory.free)) else {
            return self;
        };
        let estimate = MemoryEstimate::new(model.config(), pos, model.precision());
        let workers = self.workers::<B>(&device) as u64;
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
    fn batch_sizes_are_powers_of_two_within_the_budget() {
        let config = TransformerConfig::gpt2(2, 2, 16, 50, 32);
        let model: Transformer<Flex> = Transformer::random(&config, 0, &Default::default());
        let execution = Execution { workers: Some(2), ..Execution::default() };
        let untouched = execution.fitted(&model, 8, None);
        assert_eq!([untouched.prompt_batch, untouched.token_budget], [execution.prompt_batch, execution.token_budget]);
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
