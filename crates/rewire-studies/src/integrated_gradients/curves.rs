//! Interpolation curves of single heads, and the contrastive pair.

use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use rewire_analysis::integrated::{
    Curves, IntegratedGradientsOptions, Quadrature, integrated_gradients, interpolation_curves,
};
use rewire_analysis::patching::patch_groups;
use rewire_analysis::run::{Direction, Execution, Intervention, Question};
use rewire_hooks::Head;
use rewire_model::Transformer;
use rewire_tasks::{LogitDiff, PromptPairs};

use super::analyze::{Compared, HEADS, head_node};
use super::literal::{literal_first_node_backward, literal_means};
use super::prompts::Prompts;
use crate::{KnownModel, Setup, StudyError};

/// The heads that the notebook draws, in its order.
const NOTEBOOK: [Head; 9] = [
    Head::new(9, 6),
    Head::new(0, 2),
    Head::new(7, 3),
    Head::new(10, 6),
    Head::new(11, 10),
    Head::new(9, 9),
    Head::new(8, 10),
    Head::new(2, 5),
    Head::new(10, 3),
];
/// Largest number of curves in one chart.
const MOST: usize = 9;
/// Number of points of a wide curve.
const WIDE: usize = 101;

/// The metric along the lines of some heads.
pub struct Drawn {
    /// The heads, one per curve.
    pub heads: Vec<Head>,
    /// Curves from the clean to the corrupted activation, at the nodes of the quadrature.
    pub inside: Curves,
    /// Curves that extend beyond both activations.
    pub wide: Curves,
}

/// The scores of one head on one contrastive pair.
pub struct Contrasted {
    /// Name of the pair: `as printed` or `aligned`.
    pub name: &'static str,
    /// The clean and the corrupted text.
    pub prompts: [String; 2],
    /// The clean and the corrupted logit difference.
    pub logit_differences: [f64; 2],
    /// The head.
    pub head: Head,
    /// Integrated gradients of the head, in logits.
    pub integrated: f32,
    /// Completeness gap of the head's layer: the sum of the attributions minus the change of the
    /// metric.
    pub gap: f32,
    /// The notebook's figure: from one gradient next to the corrupted activation, as a mean over
    /// positions and dimensions.
    pub literal: f32,
    /// Completeness gap of the notebook's figure in the head's layer.
    pub literal_gap: f32,
    /// The exact effect of the head, in logits.
    pub patched: f32,
    /// The logit difference along the head's line.
    pub curve: Curves,
}

/// Returns the places of the notebook's curves on the line, from 0 to 1.
fn places() -> Result<Vec<f64>, StudyError> {
    Ok(Quadrature::default().nodes()?.iter().map(|node| node.at).collect())
}

pub(super) fn draw<B: Backend>(
    model: &Transformer<B>,
    setup: &Setup,
    prompts: &Prompts,
    compared: &Compared,
    [from, to]: [f64; 2],
    known: KnownModel,
) -> Result<Drawn, StudyError> {
    let heads = if known == KnownModel::Gpt2Small { NOTEBOOK.to_vec() } else { chosen(compared) };
    let nodes: Vec<_> = heads.iter().copied().map(head_node).collect();
    let wide: Vec<f64> = (0..WIDE).map(|i| from + (to - from) * i as f64 / (WIDE - 1) as f64).collect();
    let metric = LogitDiff::new(&prompts.pair);
    let along = |places: &[f64], what: &str| {
        setup.step(what, |progress| {
            let execution = Execution { progress, ..setup.execution(model, prompts.pair.width()) };
            interpolation_curves(model, &prompts.pair, &metric, &nodes, places, &Intervention::Resample, &execution)
        })
    };
    Ok(Drawn { inside: along(&places()?, "curves")?, wide: along(&wide, "curves beyond both ends")?, heads })
}

/// Chooses the heads to draw: outliers, then the heads of largest effect, and two heads of smallest
/// nonzero effect.
fn chosen(compared: &Compared) -> Vec<Head> {
    let by_effect = compared.heads_by_effect();
    let moved = by_effect.iter().rev().filter(|&&head| compared.exact_of(head) != 0.0).take(2);
    let mut heads: Vec<Head> = Vec::new();
    let first = compared.outliers().into_iter().chain(by_effect.iter().copied().take(4));
    for head in first.take(MOST - 2).chain(moved.copied()) {
        if !heads.contains(&head) {
            heads.push(head);
        }
    }
    heads
}

/// Computes the scores on both contrastive pairs, for the notebook's name mover or, in other
/// models, for the head of largest effect in the last layer.
pub(super) fn contrasts<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    prompts: &Prompts,
    compared: &Compared,
    known: KnownModel,
    integral: &IntegratedGradientsOptions<B::InnerBackend>,
) -> Result<Vec<Contrasted>, StudyError> {
    let last = model.config().n_layers - 1;
    let of_last = || compared.heads_by_effect().into_iter().find(|head| head.layer == last);
    let Some(head) = (known == KnownModel::Gpt2Small).then_some(NOTEBOOK[0]).or_else(of_last) else {
        return Ok(Vec::new());
    };
    let names = ["as printed", "aligned"];
    names
        .into_iter()
        .zip(&prompts.contrasts)
        .map(|(name, pair)| contrast(model, setup, name, pair, head, integral))
        .collect()
}

fn contrast<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    name: &'static str,
    (pair, texts): &(PromptPairs, [String; 2]),
    head: Head,
    integral: &IntegratedGradientsOptions<B::InnerBackend>,
) -> Result<Contrasted, StudyError> {
    let metric = LogitDiff::new(pair);
    let question = Question::new(pair, &metric).in_metric_units();
    let execution = setup.execution(model, pair.width());
    let inner = model.valid();
    // Only the head's layer is reported, so gaps in other layers must not cause an error.
    let any_gap = IntegratedGradientsOptions { tolerance: f64::INFINITY, ..integral.clone() };
    let integrated = integrated_gradients(model, question, &[HEADS], &any_gap, &execution)?;
    let literal = literal_first_node_backward(model, question, &[HEADS], any_gap.baseline, &execution)?;
    let nodes = [head_node(head)];
    let patched = patch_groups(&inner, question, &[nodes.to_vec()], Direction::Noising, &execution)?;
    let curve = interpolation_curves(&inner, pair, &metric, &nodes, &places()?, &Intervention::Resample, &execution)?;
    Ok(Contrasted {
        name,
        prompts: texts.clone(),
        logit_differences: patched.baselines.means(),
        head,
        integrated: integrated.outcome.effects[0].values[[0, head.layer, head.head]],
        gap: integrated.completeness[0].gap[[0, head.layer]],
        literal: literal_means(&literal, pair, model.config().d_model)[0].values[[0, head.layer, head.head]],
        literal_gap: literal.completeness[0].gap[[0, head.layer]],
        patched: patched.values[[0, 0]],
        curve,
    })
}
