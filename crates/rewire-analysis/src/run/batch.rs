//! Batches of prompt pairs, and which activations can differ between the two runs of a pair.

use std::ops::Range;

use rewire_model::{ReadPositions, Readout, TransformerConfig};
use rewire_tasks::{Metric, PromptPairs, Reads};

use crate::error::AnalysisError;
use crate::node::kind::{Component, Positions};
use crate::run::question::Direction;

/// A batch: consecutive prompt pairs out of all pairs of an analysis.
pub(crate) struct PromptBatch {
    pub(crate) pairs: PromptPairs,
    /// Indices of the prompts among all prompts.
    pub(crate) prompts: Vec<usize>,
    /// Number of prompts in all batches.
    pub(crate) all_prompts: usize,
    /// The logits that the metric reads.
    pub(crate) readout: Readout,
    /// The first computed position: earlier ones are equal in both runs, and the metric does not
    /// read them.
    pub(crate) first_difference: usize,
    /// Whether the two runs have different tokens, by prompt and position. `None` if an
    /// intervention may change activations at every position, including those with equal tokens.
    differing: Option<Vec<Vec<bool>>>,
}

/// The prompt pairs of an analysis in batches. Each batch is made when it is needed, to keep the
/// memory for 100,000 pairs at the size of their tokens.
pub(crate) struct PromptBatches<'a> {
    pairs: &'a PromptPairs,
    reads: Reads,
    /// Number of positions that the metric reads in each prompt.
    reads_per_prompt: usize,
    size: usize,
    reaches: Reaches,
}

/// The positions at which an intervention may change activations.
enum Reaches {
    /// Positions at which the two runs can differ.
    Differing,
    /// All positions, even those with equal tokens.
    Everywhere,
}

/// Cuts the pairs into batches of `size`. Refuses a metric that was made for other pairs.
pub(crate) fn batches<'a, M: Metric>(
    pairs: &'a PromptPairs,
    metric: &M,
    size: usize,
) -> Result<PromptBatches<'a>, AnalysisError> {
    let reads = metric.reads();
    let reads_per_prompt = metric.positions_per_prompt().max(1);
    if reads.positions.len() != pairs.len() * reads_per_prompt {
        let found = reads.positions.len() / reads_per_prompt;
        return Err(AnalysisError::MetricOfOtherPairs { expected: pairs.len(), found });
    }
    if let Some(at) = reads.positions.iter().position(|&p| p >= pairs.width()) {
        let (prompt, position, width) = (at / reads_per_prompt, reads.positions[at], pairs.width());
        return Err(AnalysisError::ReadOutside { prompt, position, width });
    }
    Ok(PromptBatches { pairs, reads, reads_per_prompt, size: size.max(1), reaches: Reaches::Differing })
}

impl PromptBatches<'_> {
    /// Returns the batches for an intervention that may change every position, even those with
    /// equal tokens.
    pub(crate) fn changed_everywhere(self) -> Self {
        Self { reaches: Reaches::Everywhere, ..self }
    }

    /// Returns the number of batches.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len().div_ceil(self.size)
    }

    /// Returns the indices of the prompts of batch `number`.
    pub(crate) fn prompts(&self, number: usize) -> Range<usize> {
        let from = number * self.size;
        from..(from + self.size).min(self.pairs.len())
    }

    /// Makes batch `number`.
    pub(crate) fn get(&self, number: usize) -> PromptBatch {
        let prompts = self.prompts(number);
        let pairs = self.pairs.batch(prompts.clone());
        let per_prompt = self.reads_per_prompt;
        let positions = self.reads.positions[prompts.start * per_prompt..prompts.end * per_prompt].to_vec();
        let differences: Vec<_> = (0..pairs.len()).map(|p| pairs.first_difference(p)).collect();
        let first_difference = positions.iter().chain(differences.iter().flatten()).copied().min().unwrap_or(0);
        let positions = match per_prompt {
            1 => ReadPositions::Each(positions),
            _ => ReadPositions::Several { positions, per_prompt },
        };
        let readout = Readout { positions, columns: self.reads.columns.clone() };
        let differ =
            |(clean, corrupted): (Vec<u32>, Vec<u32>)| clean.iter().zip(&corrupted).map(|(a, b)| a != b).collect();
        let differing = Some(pairs.clean().into_iter().zip(pairs.corrupted()).map(differ).collect());
        let all_prompts = self.pairs.len();
        let batch =
            PromptBatch { pairs, prompts: prompts.collect(), all_prompts, readout, first_difference, differing };
        match self.reaches {
            Reaches::Differing => batch,
            Reaches::Everywhere => batch.changed_everywhere(),
        }
    }

    /// Iterates over all batches and makes each when it is needed.
    pub(crate) fn iter(&self) -> impl Iterator<Item = PromptBatch> {
        (0..self.len()).map(|number| self.get(number))
    }
}

impl PromptBatch {
    /// Returns the batch for an intervention that also changes positions at which both runs are
    /// equal.
    pub(crate) fn changed_everywhere(self) -> Self {
        Self { first_difference: 0, differing: None, ..self }
    }

    /// Returns the number of columns of the logits that the metric reads.
    pub(crate) fn columns(&self, config: &TransformerConfig) -> usize {
        self.readout.columns.as_ref().map_or(config.d_vocab, Vec::len)
    }

    /// Returns the number of rows and of tokens in a run of all prompts from position `first` on.
    pub(crate) fn size_from(&self, first: usize) -> [usize; 2] {
        [self.prompts.len(), self.prompts.len() * (self.pairs.width() - first)]
    }

    /// Returns the positions that the metric reads, prompt by prompt.
    pub(crate) fn all_reads(&self) -> &[usize] {
        match &self.readout.positions {
            ReadPositions::Each(positions) | ReadPositions::Several { positions, .. } => positions,
            ReadPositions::All => &[],
        }
    }

    /// Returns the number of positions that the metric reads in each prompt.
    pub(crate) fn reads_per_prompt(&self) -> usize {
        match self.readout.positions {
            ReadPositions::Several { per_prompt, .. } => per_prompt,
            ReadPositions::Each(_) | ReadPositions::All => 1,
        }
    }

    /// Returns the positions that the metric reads in `prompt` (its index in this batch).
    pub(crate) fn reads(&self, prompt: usize) -> &[usize] {
        let per_prompt = self.reads_per_prompt();
        &self.all_reads()[prompt * per_prompt..][..per_prompt]
    }

    /// Returns the last position that the metric reads in `prompt` (its index in this batch). The
    /// metric does not depend on later positions.
    pub(crate) fn last_read(&self, prompt: usize) -> usize {
        self.reads(prompt).iter().copied().max().unwrap_or_default()
    }

    /// Returns whether patching `component` of `layer` at `positions` can change the metric of
    /// `prompt` (its index in this batch). It cannot if both runs are equal there, or if no
    /// position that the metric reads depends on the patched ones. A patch for which this is false
    /// has an effect of exactly 0.
    pub(crate) fn can_matter(
        &self,
        prompt: usize,
        component: Component,
        layer: usize,
        config: &TransformerConfig,
        positions: &Positions,
    ) -> bool {
        let (reads, last) = (self.reads(prompt), self.last_read(prompt));
        let Some(first) = self.first_differing(prompt).filter(|&first| first <= last) else { return false };
        // In the last block, only keys, values and their inputs reach other positions.
        let reaches_others = matches!(component, Component::ResidPre | Component::HeadK | Component::HeadV)
            || layer + 1 < config.n_layers;
        let at = |position: usize| {
            (first..=last).contains(&position)
                && (reaches_others || reads.contains(&position))
                && self.can_differ(prompt, component, layer, config, position)
        };
        match positions {
            // An attention pattern is 0 above its diagonal in both runs.
            Positions::Cell { dest, src } if src > dest && self.differing.is_some() => false,
            _ => match positions.position(prompt) {
                Some(position) => at(position),
                None => (first..=last).any(at),
            },
        }
    }

    /// Returns whether a component at a position can differ between the two runs in a way that the
    /// model uses. An activation that depends on one token alone differs only if the token does.
    /// Position 0 attends to itself alone and ignores its queries.
    pub(crate) fn can_differ(
        &self,
        prompt: usize,
        component: Component,
        layer: usize,
        config: &TransformerConfig,
        position: usize,
    ) -> bool {
        match (component, &self.differing) {
            (Component::HeadQ, _) | (Component::HeadPattern, Some(_)) if position == 0 => false,
            (_, Some(differing)) => !is_of_own_token(component, layer, config) || differing[prompt][position],
            (_, None) => true,
        }
    }

    /// Returns the first position of `prompt` whose activations can differ between the two runs.
    fn first_differing(&self, prompt: usize) -> Option<usize> {
        self.differing.as_ref().map_or(Some(0), |differing| differing[prompt].iter().position(|differs| *differs))
    }

    /// Returns the first position that a run with this patch must compute: the first that the patch
    /// changes in any prompt or that the metric reads. `None` if the patch can change the metric on
    /// no prompt.
    pub(crate) fn first_changed(
        &self,
        component: Component,
        layer: usize,
        config: &TransformerConfig,
        positions: &Positions,
    ) -> Option<usize> {
        let moved = (0..self.prompts.len()).filter(|&p| self.can_matter(p, component, layer, config, positions));
        let first = moved.map(|p| positions.position(p).unwrap_or(self.first_difference)).min()?;
        self.all_reads().iter().copied().chain([first]).min()
    }

    /// Returns the tokens of the base run, which is patched, and of the source run, which supplies
    /// the activations.
    pub(crate) fn base_and_source(&self, direction: Direction) -> [Vec<Vec<u32>>; 2] {
        match direction {
            Direction::Denoising => [self.pairs.corrupted(), self.pairs.clean()],
            Direction::Noising => [self.pairs.clean(), self.pairs.corrupted()],
        }
    }
}

/// Returns whether an activation depends only on its own position and token. This holds for
/// activations that come before any attention to other tokens.
pub(crate) fn is_of_own_token(component: Component, layer: usize, config: &TransformerConfig) -> bool {
    let reads_embedding = match component {
        Component::ResidPre | Component::HeadQ | Component::HeadK | Component::HeadV => true,
        // A parallel MLP reads the input of the block, not the output of attention.
        Component::MlpOut | Component::MlpPost => config.parallel_block,
        _ => false,
    };
    layer == 0 && reads_embedding
}
