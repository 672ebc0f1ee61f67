//! Both methods' scores of every head and neuron, and how they compare.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::integrated::{Integrated, IntegratedGradientsOptions, integrated_gradients};
use rewire_analysis::node::{By, Component, Node, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Execution, Intervention, Question};
use rewire_analysis::stats::Comparison;
use rewire_analysis::{Effects, Outcome};
use rewire_hooks::Head;
use rewire_model::Transformer;
use rewire_tasks::{LogitDiff, PromptPairs};

use super::literal::{literal_first_node, literal_means};
use crate::{Setup, StudyError};

/// Heads at all positions.
pub const HEADS: NodeKind = NodeKind { component: Component::HeadResult, by: By::All };
/// Neurons at all positions.
pub const NEURONS: NodeKind = NodeKind { component: Component::MlpPost, by: By::All };
/// The nodes, and what they are called.
pub const KINDS: [(NodeKind, &str); 2] = [(NEURONS, "neurons"), (HEADS, "heads")];
/// The two baselines, in the notebook's order.
pub const BASELINES: [&str; 2] = ["zero", "corrupted"];
/// How many of the largest scores the Jaccard index is about, as in the notebook.
pub const TOP: usize = 30;

/// What the notebook multiplies its figure of heads by before it looks for outliers.
const NOTEBOOK_SCALE: f32 = 1e5;

/// Everything of the notebook's one pair.
pub struct Compared {
    /// By activation patching, noising, as shares of clean less corrupted: neurons, then heads.
    pub exact: Outcome,
    /// To zero and to the corrupted activations.
    pub lines: [Lines; 2],
}

/// Integrated gradients to one baseline, and the notebook's figure of them.
pub struct Lines {
    /// In logits: neurons, then heads.
    pub integrated: Integrated,
    /// The notebook's figure: one gradient near the clean activation.
    pub literal: Integrated,
    /// The notebook's view of it: means over positions and dimensions.
    pub literal_means: Vec<Effects>,
    /// Of the true attributions with the exact effects: neurons, then heads.
    pub comparisons: [Comparison; 2],
    /// Of the literal ones.
    pub literal_comparisons: [Comparison; 2],
}

pub(super) fn compare<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    pair: &PromptPairs,
    integral: &IntegratedGradientsOptions<B::InnerBackend>,
) -> Result<Compared, StudyError> {
    let metric = LogitDiff::new(pair);
    let kinds = KINDS.map(|(kind, _)| kind);
    let question = Question::new(pair, &metric);
    let in_logits = question.in_metric_units();
    let execution = setup.execution(model, pair.width());
    let exact = setup.step("activation patching: every neuron and head", |progress| {
        activation_patching(&model.valid(), question, &kinds, Direction::Noising, &Execution { progress, ..execution })
    })?;
    let exact_means = exact.baselines.means();
    let line = |name: &str, baseline: Intervention<B::InnerBackend>| -> Result<Lines, StudyError> {
        let integral = IntegratedGradientsOptions { baseline: baseline.clone(), ..integral.clone() };
        let what = format!("integrated gradients, {name} baseline");
        let integrated = setup
            .step(&what, |progress| {
                integrated_gradients(model, in_logits, &kinds, &integral, &Execution { progress, ..execution })
            })
            .map_err(|error| StudyError::Step { step: what.clone(), error: Box::new(error) })?;
        let literal = literal_first_node(model, in_logits, &kinds, baseline, &execution)?;
        let with_exact = |of: &Integrated| {
            [0, 1].map(|i| {
                let exact = flat(&exact.effects[i]);
                // Of a few heads the 30 largest are all of them.
                Comparison::new(
                    &shares(&of.outcome.effects[i], &exact_means),
                    &exact,
                    TOP.min((exact.len() / 4).max(1)),
                )
            })
        };
        let (comparisons, literal_comparisons) = (with_exact(&integrated), with_exact(&literal));
        let literal_means = literal_means(&literal, pair, model.config().d_model);
        Ok(Lines { integrated, literal, literal_means, comparisons, literal_comparisons })
    };
    let lines = [line(BASELINES[0], Intervention::Zero)?, line(BASELINES[1], Intervention::Resample)?];
    Ok(Compared { exact, lines })
}

/// The mean effects of a kind, layer by layer.
#[must_use]
pub fn flat(effects: &Effects) -> Vec<f32> {
    effects.mean().into_iter().collect()
}

/// The same of effects in logits, as shares of clean less corrupted.
#[must_use]
pub fn shares(effects: &Effects, [clean, corrupted]: &[f64; 2]) -> Vec<f32> {
    flat(effects).into_iter().map(|v| (f64::from(v) / (clean - corrupted)) as f32).collect()
}

impl Compared {
    /// Clean and corrupted logit difference.
    #[must_use]
    pub fn logit_differences(&self) -> [f64; 2] {
        self.exact.baselines.means()
    }

    /// Heads in a layer, of [`KINDS`] kind `kind`; or neurons.
    #[must_use]
    pub fn units(&self, kind: usize) -> usize {
        self.exact.effects[kind].values.shape()[2]
    }

    /// Layer and number of a node, by its place in a flat list.
    #[must_use]
    pub fn place(&self, kind: usize, flat: usize) -> (usize, usize) {
        (flat / self.units(kind), flat % self.units(kind))
    }

    /// Returns the head at a place in a flat list of all heads.
    fn head(&self, flat: usize) -> Head {
        Head::from(self.place(1, flat))
    }

    /// A head's exact effect, as a share of clean less corrupted.
    #[must_use]
    pub fn exact_of(&self, head: Head) -> f32 {
        self.exact.effects[1].values[[0, head.layer, head.head]]
    }

    /// A head's true attribution to the corrupted baseline, in the same unit.
    #[must_use]
    pub fn integrated_of(&self, head: Head) -> f32 {
        let [clean, corrupted] = self.logit_differences();
        let sum = self.lines[1].integrated.outcome.effects[1].values[[0, head.layer, head.head]];
        sum / (clean - corrupted) as f32
    }

    /// The notebook's figure of it: a mean over positions and dimensions.
    #[must_use]
    pub fn literal_of(&self, head: Head) -> f32 {
        self.lines[1].literal_means[1].values[[0, head.layer, head.head]]
    }

    /// The same as the notebook scales it to look for outliers.
    #[must_use]
    pub fn scaled_literal_of(&self, head: Head) -> f32 {
        self.literal_of(head) * NOTEBOOK_SCALE
    }

    /// Mean size of the notebook's figure, so scaled, as a share of the mean size of patching.
    #[must_use]
    pub fn scaled_literal_share(&self) -> f32 {
        let heads = self.heads_by_effect();
        let mean = |of: &dyn Fn(Head) -> f32| heads.iter().map(|&h| of(h).abs()).sum::<f32>();
        mean(&|h| self.scaled_literal_of(h)) / mean(&|h| self.exact_of(h))
    }

    /// Heads whose exact effect and true attribution to the corrupted baseline differ beyond the limits of agreement.
    #[must_use]
    pub fn outliers(&self) -> Vec<Head> {
        self.lines[1].comparisons[1].difference.outliers().into_iter().map(|i| self.head(i)).collect()
    }

    /// Size of patching less the notebook's scaled figure, head by head.
    fn literal_sizes(&self) -> Vec<(Head, f64)> {
        let heads = (0..flat(&self.exact.effects[1]).len()).map(|i| self.head(i));
        heads.map(|head| (head, f64::from((self.exact_of(head) - self.scaled_literal_of(head)).abs()))).collect()
    }

    /// The notebook's standard deviation: of those sizes over heads, about their mean.
    #[must_use]
    pub fn literal_sd(&self) -> f64 {
        let sizes = self.literal_sizes();
        let n = sizes.len() as f64;
        let mean = sizes.iter().map(|(_, size)| size).sum::<f64>() / n;
        (sizes.iter().map(|(_, size)| (size - mean).powi(2)).sum::<f64>() / n).sqrt()
    }

    /// The notebook's outliers, by its own rule on its own figure: heads whose difference has a
    /// size above 1.96 standard deviations of such sizes, whatever their mean.
    #[must_use]
    pub fn literal_outliers(&self) -> Vec<Head> {
        let sd = self.literal_sd();
        self.literal_sizes().into_iter().filter(|(_, size)| *size > 1.96 * sd).map(|(head, _)| head).collect()
    }

    /// All heads by falling size of their exact effect.
    #[must_use]
    pub fn heads_by_effect(&self) -> Vec<Head> {
        let exact = flat(&self.exact.effects[1]);
        rewire_analysis::stats::top_by_size(&exact, exact.len()).into_iter().map(|i| self.head(i)).collect()
    }
}

/// A head's output at all positions.
pub(super) fn head_node(head: Head) -> Node {
    Node::new(head.layer, Component::HeadResult).unit(head.head)
}
