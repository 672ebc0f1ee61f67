//! What every analysis does first: run clean and corrupted prompts, record, and evaluate the metric.

use std::ops::Range;

use rewire_model::{ReadPositions, Readout, TransformerConfig};
use rewire_tasks::{Metric, PromptPairs, Reads};

use crate::error::AnalysisError;
use crate::node::kind::{Component, Positions};
use crate::run::question::Direction;

/// Consecutive pairs of all those that an analysis is over.
pub(crate) struct PromptBatch {
    pub(crate) pairs: PromptPairs,
    /// Their numbers among all.
    pub(crate) prompts: Vec<usize>,
    /// How many there are in all.
    pub(crate) all_prompts: usize,
    /// The logits that the metric reads.
    pub(crate) readout: Readout,
    /// Positions before this one are the same in both runs, and not read.
    pub(crate) first_difference: usize,
    /// By prompt and position, whether the two runs have different tokens there; `None` where an
    /// intervention may change activations at every position, whatever the tokens are.
    differing: Option<Vec<Vec<bool>>>,
}

/// The pairs of an analysis in portions. A portion is made when it is needed, so that 100,000 pairs
/// take no more memory than their tokens.
pub(crate) struct PromptBatches<'a> {
    pairs: &'a PromptPairs,
    reads: Reads,
    size: usize,
    reaches: Reaches,
}

/// At which positions an intervention may change activations.
enum Reaches {
    /// Where the two runs can differ.
    Differing,
    /// Everywhere, whatever the tokens are.
    Everywhere,
}

/// Cuts the pairs into portions of `size`; refuses a metric that was made for other pairs.
pub(crate) fn batches<'a, M: Metric>(
    pairs: &'a PromptPairs,
    metric: &M,
    size: usize,
) -> Result<PromptBatches<'a>, AnalysisError> {
    let reads = metric.reads();
    if reads.positions.len() != pairs.len() {
        return Err(AnalysisError::MetricOfOtherPairs { expected: pairs.len(), found: reads.positions.len() });
    }
    if let Some(prompt) = reads.positions.iter().position(|&p| p >= pairs.width()) {
        let (position, width) = (reads.positions[prompt], pairs.width());
        return Err(AnalysisError::ReadOutside { prompt, position, width });
    }
    Ok(PromptBatches { pairs, reads, size: size.max(1), reaches: Reaches::Differing })
}

impl PromptBatches<'_> {
    /// The same for an intervention that may reach every position, whatever the tokens are.
    pub(crate) fn changed_everywhere(self) -> Self {
        Self { reaches: Reaches::Everywhere, ..self }
    }

    /// How many portions there are.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len().div_ceil(self.size)
    }

    /// The numbers of the prompts of portion `number`.
    pub(crate) fn prompts(&self, number: usize) -> Range<usize> {
        let from = number * self.size;
        from..(from + self.size).min(self.pairs.len())
    }

    /// PromptBatch `number`.
    pub(crate) fn get(&self, number: usize) -> PromptBatch {
        let prompts = self.prompts(number);
        let pairs = self.pairs.batch(prompts.clone());
        let positions = self.reads.positions[prompts.clone()].to_vec();
        let differences: Vec<_> = (0..pairs.len()).map(|p| pairs.first_difference(p)).collect();
        let first_difference = positions.iter().chain(differences.iter().flatten()).copied().min().unwrap_or(0);
        let readout = Readout { positions: ReadPositions::Each(positions), columns: self.reads.columns.clone() };
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

    /// All portions, one after another.
    pub(crate) fn iter(&self) -> impl Iterator<Item = PromptBatch> {
        (0..self.len()).map(|number| self.get(number))
    }
}

impl PromptBatch {
    /// The same for interventions that change positions at which both runs are the same, too.
    pub(crate) fn changed_everywhere(self) -> Self {
        Self { first_difference: 0, differing: None, ..self }
    }

    /// How many columns of the logits the metric reads.
    pub(crate) fn columns(&self, config: &TransformerConfig) -> usize {
        self.readout.columns.as_ref().map_or(config.d_vocab, Vec::len)
    }

    /// Rows and tokens of a run of all prompts from a position on.
    pub(crate) fn size_from(&self, first: usize) -> [usize; 2] {
        [self.prompts.len(), self.prompts.len() * (self.pairs.width() - first)]
    }

    /// The position that the metric reads, per prompt.
    pub(crate) fn readout_positions(&self) -> &[usize] {
        match &self.readout.positions {
            ReadPositions::Each(positions) => positions,
            ReadPositions::All => &[],
        }
    }

    /// Whether patching `component` of `layer` at `positions` can move the metric of `prompt`
    /// (counted in this portion): not where both runs are the same, nor where no position that is
    /// read depends on it. A patch that this refuses has exactly no effect.
    pub(crate) fn can_matter(
        &self,
        prompt: usize,
        component: Component,
        layer: usize,
        config: &TransformerConfig,
        positions: &Positions,
    ) -> bool {
        let read = self.readout_positions()[prompt];
        let Some(first) = self.first_differing(prompt).filter(|&first| first <= read) else { return false };
        // In the last block only keys and values, and what they are made of, are used at another position than their own.
        let reaches_others = matches!(component, Component::ResidPre | Component::HeadK | Component::HeadV)
            || layer + 1 < config.n_layers;
        let at = |position: usize| {
            (first..=read).contains(&position)
                && (reaches_others || position == read)
                && self.can_differ(prompt, component, layer, config, position)
        };
        match positions {
            // A pattern is 0 above its diagonal in both runs.
            Positions::Cell { dest, src } if src > dest && self.differing.is_some() => false,
            _ => match positions.position(prompt) {
                Some(position) => at(position),
                None => (first..=read).any(at),
            },
        }
    }

    /// Returns whether a component at a position can differ between the two runs in a way that the
    /// model uses. An activation that depends on one token alone differs only if the token does.
    /// Position 0 attends to itself alone, whatever its queries are.
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

    /// The first position that such a patch changes in any prompt, or that is read; `None` if it can matter in none.
    pub(crate) fn first_changed(
        &self,
        component: Component,
        layer: usize,
        config: &TransformerConfig,
        positions: &Positions,
    ) -> Option<usize> {
        let moved = (0..self.prompts.len()).filter(|&p| self.can_matter(p, component, layer, config, positions));
        let first = moved.map(|p| positions.position(p).unwrap_or(self.first_difference)).min()?;
        self.readout_positions().iter().copied().chain([first]).min()
    }

    /// Tokens of the run that is patched, and of the one patched from.
    pub(crate) fn base_and_source(&self, direction: Direction) -> [Vec<Vec<u32>>; 2] {
        match direction {
            Direction::Denoising => [self.pairs.corrupted(), self.pairs.clean()],
            Direction::Noising => [self.pairs.clean(), self.pairs.corrupted()],
        }
    }
}

/// Whether an activation at a position depends on that position and its token alone: nothing has
/// attended to other tokens yet.
pub(crate) fn is_of_own_token(component: Component, layer: usize, config: &TransformerConfig) -> bool {
    let reads_embedding = match component {
        Component::ResidPre | Component::HeadQ | Component::HeadK | Component::HeadV => true,
        // Beside attention, not after it.
        Component::MlpOut | Component::MlpPost => config.parallel_block,
        _ => false,
    };
    layer == 0 && reads_embedding
}
