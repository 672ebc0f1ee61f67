//! One search step from the logits back to the input: which heads reach some receivers.

use burn::tensor::backend::Backend;
use ndarray::Array2;
use rewire_analysis::node::{Component, NodeKind};
use rewire_analysis::path::{FreezePolicy, Receiver, path_patching};
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_analysis::{AnalysisError, Outcome};
use rewire_hooks::Head;
use rewire_model::Transformer;
use rewire_tasks::{LogitDiff, PromptPairs};

/// Noising path patching of all heads' outputs into some receivers.
#[derive(Debug, Clone)]
pub struct PathStep {
    /// The receivers of the changed outputs.
    pub receivers: Vec<Receiver>,
    /// Receivers that no head reaches.
    pub unreached: Vec<Receiver>,
    /// The effects, of one kind: `[prompt, layer, head]`.
    pub outcome: Outcome,
    /// Heads whose effect is at most minus the threshold, strongest first: they serve the behavior.
    pub serving: Vec<Head>,
}

impl PathStep {
    /// Patches the paths from every head to `receivers`. MLPs are recomputed and other heads
    /// frozen. Effects and `threshold` are shares of the clean minus the corrupted logit
    /// difference.
    ///
    /// # Errors
    /// [`AnalysisError`], for example for a receiver that the model does not have.
    pub fn find<B: Backend>(
        model: &Transformer<B>,
        pairs: &PromptPairs,
        receivers: Vec<Receiver>,
        threshold: f32,
        execution: &Execution,
    ) -> Result<Self, AnalysisError> {
        let heads = [NodeKind::all(Component::HeadZ)];
        let metric = LogitDiff::new(pairs);
        let found = path_patching(
            model,
            Question::new(pairs, &metric),
            &heads,
            &receivers,
            FreezePolicy::path_patching(),
            Direction::Noising,
            execution,
        )?;
        let mut step = Self { receivers, unreached: found.unreached, outcome: found.outcome, serving: Vec::new() };
        step.serving = beyond(&step.effects(), |effect| effect <= -threshold);
        Ok(step)
    }

    /// Returns the mean effects, `[layer, head]`.
    #[must_use]
    pub fn effects(&self) -> Array2<f32> {
        mean_by_head(&self.outcome, 0)
    }

    /// Returns the heads whose effect is at least the threshold, strongest first: they work against
    /// the behavior.
    #[must_use]
    pub fn opposing(&self, threshold: f32) -> Vec<Head> {
        beyond(&self.effects(), |effect| effect >= threshold)
    }
}

/// Returns the mean effects of one kind of an outcome, `[layer, head]`.
///
/// # Panics
/// If the outcome has no such kind, or its nodes are not heads at all positions.
#[must_use]
pub fn mean_by_head(outcome: &Outcome, kind: usize) -> Array2<f32> {
    outcome.effects[kind].mean().into_dimensionality().expect("layers and heads")
}

/// Returns the heads whose effect passes, strongest first.
fn beyond(effects: &Array2<f32>, passes: impl Fn(f32) -> bool) -> Vec<Head> {
    let mut heads: Vec<(Head, f32)> =
        effects.indexed_iter().map(|(place, v)| (Head::from(place), *v)).filter(|(_, v)| passes(*v)).collect();
    heads.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    heads.into_iter().map(|(head, _)| head).collect()
}
