//! A study: one model, prompt pairs, a metric and settings, with one method per analysis.

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use rewire_analysis::Outcome;
use rewire_analysis::Reduce;
use rewire_analysis::attribution::{
    EdgeAttribution, EdgeAttributionOptions, Estimator, NormJacobian, attribution_patching, attribution_patching_by,
    edge_attribution,
};
use rewire_analysis::edges::{Edge, EdgeEffects, GradientsAt, attribute_all_edges, patch_all_edges, patch_edges};
use rewire_analysis::heads::logit_attribution;
use rewire_analysis::integrated::{Integrated, IntegratedGradientsOptions, integrated_gradients};
use rewire_analysis::node::{Node, NodeKind};
use rewire_analysis::patching::{
    GroupOutcome, Screened, ablation, activation_patching, patch_groups, screen_then_verify,
};
use rewire_analysis::path::{FreezePolicy, PathPatching, Receiver, path_patching};
use rewire_analysis::run::{Direction, Execution, Intervention, Question, Scale};
use rewire_model::{BackwardRule, FinalNormGain, Transformer};
use rewire_tasks::{Metric, PromptPairs};

use crate::error::Error;
use crate::language_model::LanguageModel;

/// A model, prompt pairs, a metric and settings, with one method per analysis.
///
/// The study is denoising unless [`noising`](Self::noising) is called. Its effects are fractions of
/// the metric's change from corrupted to clean unless [`in_metric_units`](Self::in_metric_units) is
/// called. Exact methods run on the model's own backend, and gradients run on the autodiff backend
/// over it.
///
/// # Example
/// ```
/// use rewire::prelude::*;
/// use rewire::tasks::ioi::demo_pairs;
///
/// let model = Pretrained::open("toy-gpt2")?.load::<Cpu>()?;
/// let pairs = demo_pairs(model.tokenizer()?, model.bos()).unwrap();
/// let study = Study::new(&model, &pairs, LogitDiff::new(&pairs)).noising();
///
/// let exact = study.patch([Component::HeadZ])?;
/// let estimated = study.attribute([Component::HeadZ])?;
/// let agreement = rewire::stats::Agreement::new(&exact.effects[0], &estimated.effects[0], 5)?;
/// println!("Pearson correlation {:?}", agreement.pearson);
/// # Ok::<(), rewire::Error>(())
/// ```
pub struct Study<'a, B: Backend, M> {
    model: &'a Transformer<B>,
    pairs: &'a PromptPairs,
    metric: M,
    scale: Scale,
    direction: Direction,
    backward: BackwardRule,
    execution: Execution<'a>,
}

impl<'a, B: Backend, M: Metric> Study<'a, B, M> {
    /// Makes a denoising study of a model. Effects are fractions of the metric's change.
    #[must_use]
    pub fn new(model: &'a LanguageModel<B>, pairs: &'a PromptPairs, metric: M) -> Self {
        Self::of(model.transformer(), pairs, metric)
    }

    /// Makes a denoising study of a transformer without a tokenizer. Effects are fractions of the
    /// metric's change.
    #[must_use]
    pub fn of(model: &'a Transformer<B>, pairs: &'a PromptPairs, metric: M) -> Self {
        Self {
            model,
            pairs,
            metric,
            scale: Scale::Normalized,
            direction: Direction::Denoising,
            backward: BackwardRule::Gradient,
            execution: Execution::default().fitted(model, pairs.width(), None),
        }
    }

    /// Patches the clean run with activations from the corrupted run. Finds the nodes that are
    /// necessary for the behavior.
    #[must_use]
    pub fn noising(self) -> Self {
        Self { direction: Direction::Noising, ..self }
    }

    /// Patches the corrupted run with activations from the clean run (the default). Finds the nodes
    /// that are sufficient for the behavior.
    #[must_use]
    pub fn denoising(self) -> Self {
        Self { direction: Direction::Denoising, ..self }
    }

    /// Sets the effect scale to the metric's own units, instead of fractions of its change.
    #[must_use]
    pub fn in_metric_units(self) -> Self {
        Self { scale: Scale::Metric, ..self }
    }

    /// Sets what the backward pass of estimates computes: RelP or GIM instead of the gradient. Head
    /// edges then have frozen norms. Exact methods do not use it, and
    /// [`integrate`](Self::integrate) refuses it.
    #[must_use]
    pub fn by_rule(self, backward: BackwardRule) -> Self {
        Self { backward, ..self }
    }

    /// Calls `progress` with the number of finished patches and the number of all patches.
    #[must_use]
    pub fn on_progress(self, progress: &'a (dyn Fn(usize, usize) + Sync)) -> Self {
        Self { execution: Execution { progress, ..self.execution }, ..self }
    }

    /// Sets the execution settings, such as the batch size and the checkpoint. By default, batch
    /// sizes [fit](Execution::fitted) the length of the prompts and the memory of the device.
    #[must_use]
    pub fn with_execution(self, execution: Execution<'a>) -> Self {
        Self { execution, ..self }
    }

    /// Activation patching. Returns the exact effect of every node of these kinds.
    ///
    /// # Errors
    /// [`Error::Analysis`] if the model lacks a node, or if the metric is equal on the clean and
    /// corrupted prompts.
    pub fn patch<K: Into<NodeKind>>(&self, kinds: impl IntoIterator<Item = K>) -> Result<Outcome, Error> {
        Ok(activation_patching(self.model, self.question(), &nodes(kinds), self.direction, &self.execution)?)
    }

    /// Activation patching of groups. Returns the exact effect of patching all nodes of a group
    /// together, for each group.
    ///
    /// # Errors
    /// As [`patch`](Self::patch).
    pub fn patch_groups(&self, groups: &[Vec<Node>]) -> Result<GroupOutcome, Error> {
        Ok(patch_groups(self.model, self.question(), groups, self.direction, &self.execution)?)
    }

    /// Attribution patching. Returns the estimated effect of every node of these kinds, from one
    /// backward pass.
    ///
    /// # Errors
    /// As [`patch`](Self::patch), and [`Error::Analysis`] if the metric has no gradient.
    pub fn attribute<K: Into<NodeKind>>(&self, kinds: impl IntoIterator<Item = K>) -> Result<Outcome, Error> {
        Ok(attribution_patching(&self.autodiff(), self.question(), &nodes(kinds), self.direction, &self.execution)?)
    }

    /// Attribution patching by another estimator, such as [`Estimator::atp_star`].
    ///
    /// # Errors
    /// As [`attribute`](Self::attribute).
    pub fn attribute_by<K: Into<NodeKind>>(
        &self,
        kinds: impl IntoIterator<Item = K>,
        estimator: Estimator,
    ) -> Result<Outcome, Error> {
        let (model, kinds) = (self.autodiff(), nodes(kinds));
        Ok(attribution_patching_by(&model, self.question(), &kinds, estimator, self.direction, &self.execution)?)
    }

    /// Edge patching. Returns the exact effect of every edge of the edge graph, as the mean over
    /// prompts.
    ///
    /// # Errors
    /// As [`patch`](Self::patch).
    pub fn patch_all_edges(&self) -> Result<EdgeEffects, Error> {
        Ok(patch_all_edges(self.model, self.question(), Reduce::Mean, self.direction, &self.execution)?)
    }

    /// Edge patching of these edges. Returns the exact effect of each.
    ///
    /// # Errors
    /// As [`patch`](Self::patch), and [`Error::Analysis`] for an edge that the model lacks.
    pub fn patch_edges(&self, edges: &[Edge]) -> Result<GroupOutcome, Error> {
        Ok(patch_edges(self.model, self.question(), edges, self.direction, &self.execution)?)
    }

    /// Returns the estimated effect of every edge of the edge graph, as the mean over prompts, from
    /// gradients at these runs: EAP, or EAP-IG.
    ///
    /// # Errors
    /// As [`attribute`](Self::attribute).
    pub fn attribute_all_edges(&self, at: GradientsAt) -> Result<EdgeEffects, Error> {
        let model = self.autodiff();
        Ok(attribute_all_edges(&model, self.question(), at, Reduce::Mean, self.direction, &self.execution)?)
    }

    /// Patches the `k` nodes with the largest estimated effects exactly. Reports which nodes were
    /// skipped.
    ///
    /// # Errors
    /// As [`attribute`](Self::attribute), and [`Error::Analysis`] if there are fewer than `k`
    /// nodes.
    pub fn screen<K: Into<NodeKind>>(&self, kinds: impl IntoIterator<Item = K>, k: usize) -> Result<Screened, Error> {
        Ok(screen_then_verify(&self.autodiff(), self.question(), &nodes(kinds), k, self.direction, &self.execution)?)
    }

    /// Edge attribution. Returns the estimated effect of every edge from a head's output to a later
    /// head's queries, keys or values, as the mean over prompts.
    ///
    /// # Errors
    /// As [`attribute`](Self::attribute).
    pub fn attribute_edges(&self) -> Result<EdgeAttribution, Error> {
        let edges = EdgeAttributionOptions { norm: NormJacobian::of_rule(self.backward), reduce: Reduce::Mean };
        Ok(edge_attribution(&self.autodiff(), self.question(), edges, self.direction, &self.execution)?)
    }

    /// Integrated gradients along the line that `integral` describes. Returns the attributions and
    /// the completeness gap.
    ///
    /// # Errors
    /// As [`attribute`](Self::attribute), and [`Error::Analysis`] if the attributions do not sum to
    /// the metric's change.
    pub fn integrate<K: Into<NodeKind>>(
        &self,
        kinds: impl IntoIterator<Item = K>,
        integral: &IntegratedGradientsOptions<B>,
    ) -> Result<Integrated, Error> {
        Ok(integrated_gradients(&self.autodiff(), self.question(), &nodes(kinds), integral, &self.execution)?)
    }

    /// Path patching. Returns the exact effect of every sender through the receivers alone.
    ///
    /// # Errors
    /// As [`patch`](Self::patch), and [`Error::Analysis`] if the model lacks a receiver.
    pub fn path_patch<K: Into<NodeKind>>(
        &self,
        senders: impl IntoIterator<Item = K>,
        receivers: &[Receiver],
        policy: FreezePolicy,
    ) -> Result<PathPatching, Error> {
        let senders = nodes(senders);
        Ok(path_patching(self.model, self.question(), &senders, receivers, policy, self.direction, &self.execution)?)
    }

    /// Ablation. Returns the change of the metric on the clean prompts when each node is replaced.
    ///
    /// # Errors
    /// As [`patch`](Self::patch).
    pub fn ablate<K: Into<NodeKind>>(
        &self,
        kinds: impl IntoIterator<Item = K>,
        replacement: &Intervention<B>,
    ) -> Result<Outcome, Error> {
        Ok(ablation(self.model, self.question(), &nodes(kinds), replacement, &self.execution)?)
    }

    /// Direct logit attribution. Returns the amount that each node adds directly to the logit
    /// difference, on the clean prompts. It does not use the study's metric.
    ///
    /// # Errors
    /// As [`patch`](Self::patch), and [`Error::Analysis`] for nodes that write nothing to the
    /// residual stream.
    pub fn logit_attribution<K: Into<NodeKind>>(&self, kinds: impl IntoIterator<Item = K>) -> Result<Outcome, Error> {
        Ok(logit_attribution(self.model, self.pairs, &nodes(kinds), FinalNormGain::Applied, &self.execution)?)
    }

    fn question(&self) -> Question<'_, M> {
        Question::new(self.pairs, &self.metric).on_scale(self.scale).by_rule(self.backward)
    }

    fn autodiff(&self) -> Transformer<Autodiff<B>> {
        self.model.autodiff()
    }
}

fn nodes<K: Into<NodeKind>>(kinds: impl IntoIterator<Item = K>) -> Vec<NodeKind> {
    kinds.into_iter().map(Into::into).collect()
}
