//! How much of a sweep fits into a device's memory, by estimate.

use burn::tensor::backend::Backend;
use rewire_model::{Transformer, TransformerConfig};
use rewire_tensor::Precision;

use crate::run::execution::Execution;

/// Tokens in a pass above which nothing gets faster, and only the memory fuller.
const MOST_TOKENS: usize = 1 << 16;
/// Prompt pairs above which holding more at once saves nothing.
const MOST_PROMPTS: usize = 1024;
const MOST_DIFFERENTIATED: usize = 256;

/// Bytes that an analysis of a model takes, by estimate: see [`Execution`], where the same is said in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Of each prompt pair whose activations are held.
    pub held_a_prompt: u64,
    /// Of each prompt pair that is differentiated.
    pub differentiated_a_prompt: u64,
    /// Of each token in a pass, with as many logits as [`Execution::token_budget`] allows for, four times over.
    pub pass_a_token: u64,
    /// The same without logits.
    pub pass_a_token_without_logits: u64,
}

impl MemoryEstimate {
    /// For prompts of `pos` tokens.
    #[must_use]
    pub fn new(config: &TransformerConfig, pos: usize, precision: Precision) -> Self {
        let [layers, d_model, d_mlp, heads, pos, bytes] =
            [config.n_layers, config.d_model, config.d_mlp, config.n_heads, pos, precision.bytes()].map(|n| n as u64);
        // Scores, patterns and logits are of float32 whatever the rest is; and so is, while a pass runs, a copy of what norms and activation
        // functions read.
        let pass = 4 * (2 * d_mlp + 8 * d_model + 2 * heads * pos);
        Self {
            held_a_prompt: layers * pos * (bytes * (16 * d_model + 2 * d_mlp) + 4 * 2 * heads * pos),
            differentiated_a_prompt: 2 * layers * pos * (bytes * (30 * d_model + 8 * d_mlp) + 4 * 6 * heads * pos),
            pass_a_token: pass + 4 * 4 * d_mlp,
            pass_a_token_without_logits: pass,
        }
    }

    /// The budget above which [`Execution::fitted`] chooses no more at once.
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
    /// The same with as much at once as fits into `budget` bytes, or, without one, into the memory that is free on the model's
    /// device. The CPU backends have no device to ask: without a budget they keep what they have, the same on every machine.
    ///
    /// By [`MemoryEstimate`], a quarter is for activations that are held (or, of gradients, for the tape), a quarter for the passes
    /// that run at once; the other half is for what the backend rounds up to. Sizes are powers of two, so that a little more or less of
    /// free memory gives the same passes. Prompts are of `pos` tokens.
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
    fn shorter_numbers_need_less_where_they_are_held() {
        let of = |precision| MemoryEstimate::new(&gpt2_small(), 15, precision);
        let (full, short) = (of(Precision::Float32), of(Precision::BFloat16));
        assert!(short.held_a_prompt < full.held_a_prompt * 6 / 10);
        assert_eq!(short.pass_a_token, full.pass_a_token);
        // The formula of `Execution`, in float32.
        assert_eq!(full.held_a_prompt, 4 * 12 * 15 * (16 * 768 + 2 * 3072 + 2 * 12 * 15));
    }

    #[test]
    fn sizes_are_powers_of_two_within_the_budget() {
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
