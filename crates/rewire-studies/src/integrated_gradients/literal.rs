//! The figure that the notebook computes in place of integrated gradients, from one gradient per
//! line.
//!
//! The notebook's metric reads row 0 of a batch that holds all nodes of the quadrature, so only the
//! first node has a gradient. The figure is the change of the activation times that gradient, times
//! the weight of the first node.

use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::integrated::{
    Integrated, IntegratedGradientsOptions, Quadrature, QuadratureNode, QuadratureNodes, integrated_gradients,
};
use rewire_analysis::node::{By, Component, NodeKind};
use rewire_analysis::run::{Execution, Intervention, Question};
use rewire_analysis::{AnalysisError, Effects};
use rewire_model::Transformer;
use rewire_tasks::{Metric, PromptPairs};

/// Computes the notebook's figure of each node, on the line from the clean activation to the
/// baseline's.
///
/// The gradient is the one at the first of Captum's 50 nodes, next to the clean activation. The
/// figure is *not* integrated gradients: its completeness gap is nearly the whole change of the
/// metric.
///
/// # Errors
/// As [`integrated_gradients`], except that a gap of any size is accepted.
pub fn literal_first_node<B: AutodiffBackend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    kinds: &[NodeKind],
    baseline: Intervention<B::InnerBackend>,
    execution: &Execution,
) -> Result<Integrated, AnalysisError> {
    one_gradient(model, question, kinds, baseline, first_node()?, execution)
}

/// Computes the notebook's figure of each node on the line from the baseline's activation to the
/// clean activation, as the notebook does for its contrastive pair.
///
/// The gradient is the one next to the baseline's activation. Attributions, gaps and changes have
/// the sign of that direction: a node with an attribution above 0 supports the behavior.
///
/// # Errors
/// As [`literal_first_node`].
pub fn literal_first_node_backward<B: AutodiffBackend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    kinds: &[NodeKind],
    baseline: Intervention<B::InnerBackend>,
    execution: &Execution,
) -> Result<Integrated, AnalysisError> {
    let QuadratureNode { at, weight } = first_node()?;
    let last = QuadratureNode { at: 1.0 - at, weight };
    let mut found = one_gradient(model, question, kinds, baseline, last, execution)?;
    let of_lines = found.completeness.iter_mut().flat_map(|complete| [&mut complete.gap, &mut complete.change]);
    for values in found.outcome.effects.iter_mut().map(|effects| &mut effects.values).chain(of_lines) {
        // A subtraction, because the negative of 0 would be -0.
        values.mapv_inplace(|v| 0.0 - v);
    }
    Ok(found)
}

/// Returns the attributions summed over positions as the notebook shows them: means over positions
/// and, for all nodes except neurons, over the `d_model` dimensions of the residual stream.
#[must_use]
pub fn literal_means(found: &Integrated, pairs: &PromptPairs, d_model: usize) -> Vec<Effects> {
    let mean = |effects: &Effects| {
        let numbers = if effects.kind.component == Component::MlpPost { 1 } else { d_model };
        let mut values = effects.values.clone();
        for (prompt, mut of_prompt) in values.outer_iter_mut().enumerate() {
            of_prompt /= ((pairs.end(prompt) + 1) * numbers) as f32;
        }
        Effects { values, ..effects.clone() }
    };
    found.outcome.effects.iter().filter(|e| e.kind.by == By::All).map(mean).collect()
}

/// Returns the first node of Captum's own quadrature, which the notebook uses.
fn first_node() -> Result<QuadratureNode, AnalysisError> {
    let nodes = Quadrature::default().nodes()?;
    nodes.first().copied().ok_or(AnalysisError::NoQuadratureNodes)
}

/// Computes attributions from one node of a quadrature. Accepts completeness gaps of any size.
fn one_gradient<B: AutodiffBackend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    kinds: &[NodeKind],
    baseline: Intervention<B::InnerBackend>,
    node: QuadratureNode,
    execution: &Execution,
) -> Result<Integrated, AnalysisError> {
    let quadrature = QuadratureNodes::List(vec![node]);
    let integral = IntegratedGradientsOptions {
        baseline,
        quadrature,
        tolerance: f64::INFINITY,
        ..IntegratedGradientsOptions::default()
    };
    integrated_gradients(model, question, kinds, &integral, execution)
}
