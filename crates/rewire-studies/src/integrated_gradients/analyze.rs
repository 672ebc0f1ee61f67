//! Both methods' scores for every head and neuron, and their comparison.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::integrated::{Integrated, IntegratedGradientsOptions, integrated_gradients};
use rewire_analysis::node::{By, Component, Node, NodeKind};
use rewire_analysis::patching::activation_patching;
use rewire_analysis::run::{Direction, Intervention, Question};
use rewire_analysis::stats::Comparison;
use rewire_analysis::{Effects, Outcome};
use rewire_hooks::Head;
use rewire_model::Transformer;
use rewire_tasks::{LogitDiff, PromptPairs};

use super::incomplete::incomplete;
use super::literal::{literal_first_node, literal_means};
use crate::setup::complete;
use crate::{Setup, StudyError};

/// The kind of node for heads at all positions.
pub const HEADS: NodeKind = NodeKind { component: Component::HeadResult, by: By::All };
/// The kind of node for neurons at all positions.
pub const NEURONS: NodeKind = NodeKind { component: Component::MlpPost, by: By::All };
/// The kinds of nodes with their names.
pub const KINDS: [(NodeKind, &str); 2] = [(NEURONS, "neurons"), (HEADS, "heads")];
/// The two baselines, in the notebook's order.
pub const BASELINES: [&str; 2] = ["zero", "corrupted"];
/// Number of the largest scores that the Jaccard index compares, as in the notebook.
pub const TOP: usize = 30;

/// Factor by which the notebook multiplies its figure for heads before it searches for outliers.
const NOTEBOOK_SCALE: f32 = 1e5;

/// The scores on the notebook's pair.
pub struct Compared {
    /// Effects of activation patching, noising, as shares of the clean minus corrupted logit
    /// difference: neurons, then heads.
    pub exact: Outcome,
    /// Integrated gradients to the zero and to the corrupted baseline.
    pub lines: [Lines; 2],
}

/// Integrated gradients and the notebook's figure to one baseline.
pub struct Lines {
    /// Integrated gradients in logits: neurons, then heads.
    pub integrated: Integrated,
    /// The notebook's figure: one gradient near the clean activation.
    pub literal: Integrated,
    /// The notebook's figure as the notebook shows it: means over positions and dimensions.
    pub literal_means: Vec<Effects>,
    /// Comparisons of integrated gradients with the exact effects: neurons, then heads.
    pub comparisons: [Comparison; 2],
    /// Comparisons of the notebook's figure with the exact effects: neurons, then heads.
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
    let integrate = |name: &str, baseline: Intervention<B::InnerBackend>| {
        let integral = IntegratedGradientsOptions { baseline, ..integral.clone() };
        let what = format!("integrated gradients, {name} baseline");
        setup.share(&what, execution, |execution| {
            integrated_gradients(model, in_logits, &kinds, &integral, execution)
                .map_err(|error| StudyError::Step { step: what.clone(), error: Box::new(error) })
        })
    };
    let to_zero = integrate(BASELINES[0], Intervention::Zero)?;
    let to_corrupted = integrate(BASELINES[1], Intervention::Resample)?;
    let exact = setup.share("activation patching: every neuron and head", execution, |execution| {
        activation_patching(&model.valid(), question, &kinds, Direction::Noising, execution)
    })?;
    let (exact, to_zero, to_corrupted) = (complete(exact)?, complete(to_zero)?, complete(to_corrupted)?);
    let compared = |integrated: Integrated, baseline: Intervention<B::InnerBackend>| -> Result<Lines, StudyError> {
        let literal = literal_first_node(model, in_logits, &kinds, baseline, &execution)?;
        let [comparisons, literal_comparisons] = [&integrated, &literal].map(|of| with_exact(of, &exact));
        let literal_means = literal_means(&literal, pair, model.config().d_model);
        Ok(Lines { integrated, literal, literal_means, comparisons, literal_comparisons })
    };
    let lines = [compared(to_zero, Intervention::Zero)?, compared(to_corrupted, Intervention::Resample)?];
    Ok(Compared { exact, lines })
}

/// Compares attributions with the exact effects: neurons, then heads.
fn with_exact(of: &Integrated, exact: &Outcome) -> [Comparison; 2] {
    let means = exact.baselines.means();
    [0, 1].map(|kind| {
        let exact = flat(&exact.effects[kind]);
        // In a model with few heads the 30 largest would be all heads.
        let top = TOP.min((exact.len() / 4).max(1));
        Comparison::new(&shares(&of.outcome.effects[kind], &means), &exact, top)
    })
}

/// Returns the mean effects of a kind in one list, layer by layer.
#[must_use]
pub fn flat(effects: &Effects) -> Vec<f32> {
    effects.mean().into_iter().collect()
}

/// Returns effects in logits as shares of the clean minus corrupted logit difference, layer by
/// layer.
#[must_use]
pub fn shares(effects: &Effects, [clean, corrupted]: &[f64; 2]) -> Vec<f32> {
    flat(effects).into_iter().map(|v| (f64::from(v) / (clean - corrupted)) as f32).collect()
}

impl Compared {
    /// Returns a sentence for each baseline and kind of node with layers whose attributions do not
    /// sum to the change of the metric within the tolerance.
    #[must_use]
    pub fn incomplete(&self) -> Vec<String> {
        let of_baseline = BASELINES.iter().zip(&self.lines);
        of_baseline
            .flat_map(|(baseline, lines)| incomplete(&format!("{baseline} baseline"), &lines.integrated.completeness))
            .collect()
    }

    /// Returns the clean and the corrupted logit difference.
    #[must_use]
    pub fn logit_differences(&self) -> [f64; 2] {
        self.exact.baselines.means()
    }

    /// Returns the number of neurons or heads in a layer; `kind` is an index in [`KINDS`].
    #[must_use]
    pub fn units(&self, kind: usize) -> usize {
        self.exact.effects[kind].values.shape()[2]
    }

    /// Returns the layer of a node and its index in the layer, from its index in the list of
    /// [`flat`].
    #[must_use]
    pub fn place(&self, kind: usize, flat: usize) -> (usize, usize) {
        (flat / self.units(kind), flat % self.units(kind))
    }

    /// Returns the head at an index in the list of [`flat`].
    fn head(&self, flat: usize) -> Head {
        Head::from(self.place(1, flat))
    }

    /// Returns a head's exact effect, as a share of the clean minus corrupted logit difference.
    #[must_use]
    pub fn exact_of(&self, head: Head) -> f32 {
        self.exact.effects[1].values[[0, head.layer, head.head]]
    }

    /// Returns a head's integrated gradients to the corrupted baseline, as a share of the clean
    /// minus corrupted logit difference.
    #[must_use]
    pub fn integrated_of(&self, head: Head) -> f32 {
        let [clean, corrupted] = self.logit_differences();
        let sum = self.lines[1].integrated.outcome.effects[1].values[[0, head.layer, head.head]];
        sum / (clean - corrupted) as f32
    }

    /// Returns the notebook's figure for a head to the corrupted baseline: a mean over positions
    /// and dimensions.
    #[must_use]
    pub fn literal_of(&self, head: Head) -> f32 {
        self.lines[1].literal_means[1].values[[0, head.layer, head.head]]
    }

    /// Returns the notebook's figure for a head times 1e5, as the notebook's outlier rule scales
    /// it.
    #[must_use]
    pub fn scaled_literal_of(&self, head: Head) -> f32 {
        self.literal_of(head) * NOTEBOOK_SCALE
    }

    /// Returns the mean absolute value of the notebook's scaled figure, as a share of the mean
    /// absolute effect of patching.
    #[must_use]
    pub fn scaled_literal_share(&self) -> f32 {
        let heads = self.heads_by_effect();
        let mean = |of: &dyn Fn(Head) -> f32| heads.iter().map(|&h| of(h).abs()).sum::<f32>();
        mean(&|h| self.scaled_literal_of(h)) / mean(&|h| self.exact_of(h))
    }

    /// Returns the heads whose exact effect and integrated gradients to the corrupted baseline
    /// differ beyond the limits of agreement.
    #[must_use]
    pub fn outliers(&self) -> Vec<Head> {
        self.lines[1].comparisons[1].difference.outliers().into_iter().map(|i| self.head(i)).collect()
    }

    /// Returns the absolute value of patching minus the notebook's scaled figure, one per head.
    fn literal_sizes(&self) -> Vec<(Head, f64)> {
        let heads = (0..flat(&self.exact.effects[1]).len()).map(|i| self.head(i));
        heads.map(|head| (head, f64::from((self.exact_of(head) - self.scaled_literal_of(head)).abs()))).collect()
    }

    /// Returns the notebook's standard deviation: over heads, of the absolute differences between
    /// patching and the notebook's scaled figure, around their mean.
    #[must_use]
    pub fn literal_sd(&self) -> f64 {
        let sizes = self.literal_sizes();
        let n = sizes.len() as f64;
        let mean = sizes.iter().map(|(_, size)| size).sum::<f64>() / n;
        (sizes.iter().map(|(_, size)| (size - mean).powi(2)).sum::<f64>() / n).sqrt()
    }

    /// Returns the outliers by the notebook's rule on the notebook's figure: heads whose absolute
    /// difference exceeds 1.96 standard deviations of the absolute differences. The rule ignores
    /// the mean of the differences.
    #[must_use]
    pub fn literal_outliers(&self) -> Vec<Head> {
        let sd = self.literal_sd();
        self.literal_sizes().into_iter().filter(|(_, size)| *size > 1.96 * sd).map(|(head, _)| head).collect()
    }

    /// Returns all heads, largest absolute exact effect first.
    #[must_use]
    pub fn heads_by_effect(&self) -> Vec<Head> {
        let exact = flat(&self.exact.effects[1]);
        rewire_analysis::stats::top_by_size(&exact, exact.len()).into_iter().map(|i| self.head(i)).collect()
    }
}

/// Returns the node for a head's output at all positions.
pub(super) fn head_node(head: Head) -> Node {
    Node::new(head.layer, Component::HeadResult).unit(head.head)
}
