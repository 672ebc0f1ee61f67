//! Estimates the memory that an analysis on the CPU takes, before the weights are loaded.

use rewire_hooks::NormKind;
use rewire_model::{TransformerConfig, WeightStorage};
use rewire_tensor::Precision;

use crate::run::execution::Execution;
use crate::run::memory::MemoryEstimate;

/// What decides the memory of an analysis.
#[derive(Debug, Clone, Copy)]
pub struct Workload<'a> {
    /// The model.
    pub config: &'a TransformerConfig,
    /// The element type of weights and activations.
    pub precision: Precision,
    /// Where the weights are.
    pub storage: WeightStorage,
    /// Whether the weights are processed. A tied unembedding is then a matrix of its own.
    pub processed: bool,
    /// Number of prompt pairs.
    pub prompts: usize,
    /// Number of nodes whose effect on each prompt is kept. Effects of edges are kept as means.
    pub nodes: u64,
    /// Tokens of the longest prompt.
    pub pos: usize,
    /// The first position at which the two prompts of a pair differ.
    pub first_difference: usize,
    /// The columns of the logits that the metric reads.
    pub columns: LogitColumns,
    /// The passes of the method.
    pub passes: PassKinds,
    /// How attention holds patterns.
    pub patterns: Patterns,
}

/// How attention holds patterns, `[batch, head, pos, pos]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patterns {
    /// Whole, because the method reads or changes them, or differentiates on another backend than
    /// flex.
    Whole,
    /// Those of some queries at a time.
    ByBlocks,
}

/// The columns of the logits that a metric reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitColumns {
    /// Those of the answers.
    Answers,
    /// Those of the whole vocabulary.
    All,
}

/// The passes of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassKinds {
    /// Forward passes only.
    Forward,
    /// Backward passes too.
    Backward,
}

/// Estimated bytes of memory that an analysis on the CPU takes, without the program itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryNeeds {
    /// Weights in memory. Those that stay in mapped files do not count: the system can drop their
    /// pages.
    pub weights: u64,
    /// Matrices that stay in files and are converted to float32 at once, one per thread.
    pub converted: u64,
    /// Activations of the prompts: those that are cached, or those of the backward passes that run
    /// at once.
    pub activations: u64,
    /// The forward passes that run at once.
    pub passes: u64,
    /// The effects of all nodes on all prompts: 8 bytes each, because a part of them is held twice
    /// while results are made. This part alone grows with the number of prompts.
    pub effects: u64,
}

impl MemoryNeeds {
    /// Estimates the memory of a workload, by the formulas of [`Execution`].
    #[must_use]
    pub fn new(workload: &Workload<'_>, execution: &Execution<'_>) -> Self {
        let Workload { config, precision, prompts, pos, .. } = *workload;
        let estimate = match workload.patterns {
            Patterns::Whole => MemoryEstimate::new(config, pos, precision),
            Patterns::ByBlocks => MemoryEstimate::without_patterns(config, pos, precision),
        };
        let workers = execution.cpu_workers() as u64;
        let batch = execution.prompt_batch.min(prompts) as u64;
        let computed = (pos - workload.first_difference.min(pos - 1)) as u64;
        // A pass has at least one patch for every prompt of the batch, and the unpatched runs
        // compute every position.
        let tokens = (workers * (execution.token_budget as u64).max(batch * computed)).max(batch * pos as u64);
        let mut passes = tokens * estimate.pass_a_token_without_logits;
        if workload.columns == LogitColumns::All {
            // Four copies, as in the estimate of a pass.
            let logits = (execution.token_budget as u64 * config.d_mlp as u64).max(batch * config.d_vocab as u64);
            passes = passes.saturating_add(logits.saturating_mul(4 * 4 * workers));
        }
        let cached = batch.saturating_mul(estimate.held_a_prompt);
        let activations = match workload.passes {
            PassKinds::Forward => cached,
            PassKinds::Backward => {
                let size = execution.cpu_gradient_batch(prompts);
                let at_once = workers.min(prompts.div_ceil(size) as u64);
                // Positions before the first difference are not differentiated.
                let of_prompt = estimate.differentiated_a_prompt / pos as u64 * computed;
                cached.max(of_prompt.saturating_mul(at_once * size.min(prompts) as u64))
            }
        };
        let effects = (8 * prompts as u64).saturating_mul(workload.nodes);
        Self { weights: workload.weights(), converted: workload.converted(workers), activations, passes, effects }
    }

    /// Returns the sum.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { weights, converted, activations, passes, effects } = *self;
        [converted, activations, passes, effects].into_iter().fold(weights, u64::saturating_add)
    }
}

impl Workload<'_> {
    /// Returns the bytes of the weights in memory.
    fn weights(&self) -> u64 {
        let config = self.config;
        match self.storage {
            WeightStorage::Float32 => {
                let copied = if self.processed && config.tied_unembedding { config.embedding_count() } else { 0 };
                self.precision.bytes() as u64 * (config.weight_count() + copied)
            }
            WeightStorage::Stored => 0,
        }
    }

    /// Returns the bytes of converted matrices that stay in files.
    fn converted(&self, workers: u64) -> u64 {
        let config = self.config;
        if self.storage == WeightStorage::Float32 {
            return 0;
        }
        // A processing step makes a second tensor before the first is dropped, and measured peaks
        // have a third.
        let copies = if self.processed { 3 } else { 1 };
        // Processing centers the unembedding over the vocabulary in models with layer norms, so
        // that single columns need the whole matrix.
        let is_centered = self.processed && config.norm == NormKind::Layer;
        let of_logits = match self.columns {
            LogitColumns::Answers if !is_centered => 0,
            _ => config.embedding_count(),
        };
        workers * 4 * copies * config.largest_matrix().max(of_logits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> TransformerConfig {
        TransformerConfig::gpt2(12, 12, 768, 50_257, 1024)
    }

    fn needs(change: impl FnOnce(&mut Workload<'_>)) -> MemoryNeeds {
        let config = config();
        let mut workload = Workload {
            config: &config,
            precision: Precision::Float32,
            storage: WeightStorage::Float32,
            processed: true,
            prompts: 8,
            nodes: 144,
            pos: 15,
            first_difference: 10,
            columns: LogitColumns::Answers,
            passes: PassKinds::Forward,
            patterns: Patterns::Whole,
        };
        change(&mut workload);
        MemoryNeeds::new(&workload, &Execution { workers: Some(2), ..Execution::default() })
    }

    #[test]
    fn a_sweep_takes_its_weights_the_cache_and_a_pass_per_thread() {
        let estimate = MemoryEstimate::new(&config(), 15, Precision::Float32);
        let found = needs(|_| {});
        assert_eq!(found.weights, 4 * (124_439_808 + 50_257 * 768));
        assert_eq!(found.activations, 8 * estimate.held_a_prompt);
        assert_eq!(found.passes, 2 * 1024 * estimate.pass_a_token_without_logits);
        assert_eq!([found.converted, needs(|w| w.processed = false).weights], [0, 4 * 124_439_808]);
    }

    #[test]
    fn only_effects_grow_with_the_number_of_prompts() {
        let [some, many] = [100, 10_000].map(|prompts| needs(|w| w.prompts = prompts));
        assert_eq!((some.effects, many.effects), (8 * 144 * 100, 8 * 144 * 10_000));
        assert_eq!(MemoryNeeds { effects: some.effects, ..many }, some);
    }

    #[test]
    fn long_prompts_and_whole_vocabularies_make_larger_passes() {
        let long = needs(|w| (w.pos, w.first_difference) = (1000, 0));
        let estimate = MemoryEstimate::new(&config(), 1000, Precision::Float32);
        assert_eq!(long.passes, 2 * 8000 * estimate.pass_a_token_without_logits);
        assert!(needs(|w| w.columns = LogitColumns::All).passes > needs(|_| {}).passes);
        let blocks = needs(|w| (w.pos, w.first_difference, w.patterns) = (1000, 0, Patterns::ByBlocks));
        assert!(blocks.passes < long.passes && blocks.activations < long.activations);
    }

    #[test]
    fn weights_in_files_take_what_is_converted_at_once() {
        let stored = needs(|w| (w.storage, w.processed) = (WeightStorage::Stored, false));
        assert_eq!([stored.weights, stored.converted], [0, 2 * 4 * 768 * 3072]);
        let all = needs(|w| (w.storage, w.columns) = (WeightStorage::Stored, LogitColumns::All));
        assert_eq!(all.converted, 2 * 3 * 4 * 50_257 * 768);
    }
}
