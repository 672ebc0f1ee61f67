//! Integrated gradients along a line of activations, with the completeness gap in the result.
//!
//! The line enters the model as the residual stream that it changes
//! ([`line`](crate::integrated::line)). A run therefore starts at the node's layer and at the first
//! position that differs. All quadrature nodes share one batch, each with its own metric. Heads and
//! neurons write to the residual stream through a matrix. One averaged gradient of the residual
//! stream, multiplied by the transposed matrix, therefore serves all heads or neurons of a layer.

use crate::integrated::lines::LineScope;
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use ndarray::ArrayD;
use rewire_model::{Differentiable, Transformer, TransformerConfig};
use rewire_tasks::Metric;
use rewire_tensor::is_synchronous;

use crate::effects::{Method, Outcome, join};
use crate::error::AnalysisError;
use crate::integrated::line::{Ends, Moved, check_linear};
use crate::integrated::lines::{Found, OfLine, Work};
use crate::integrated::quadrature::{Quadrature, QuadratureNodes};
use crate::node::index::{no_effects, units};
use crate::node::kind::{By, Node, NodeKind, Positions};
use crate::patching::plan::at_once;
use crate::run::batch::{PromptBatch, batches};
use crate::run::checkpoint::WorkId;
use crate::run::execution::Execution;
use crate::run::fit::{catch_device_faults, ensure_healthy};
use crate::run::intervention::{Intervention, batches_for};
use crate::run::question::{Direction, Question};
use crate::run::record::{check, effect_scale, run_baselines};
use crate::run::workers;

/// How an integral along a line is computed.
#[derive(Debug, Clone)]
pub struct IntegratedGradientsOptions<B: Backend> {
    /// The end of the line, which starts at the clean run's activation. For neurons,
    /// [`Intervention::Zero`] is the activation that they have if the MLP's residual stream input
    /// is zero. Once norms are folded, that is the activation function of the neurons' bias.
    pub baseline: Intervention<B>,
    /// Which activations of a layer move along one line.
    pub scope: LineScope,
    /// The quadrature nodes at which gradients are taken: a rule, or any list of nodes.
    pub quadrature: QuadratureNodes,
    /// The completeness gap allowed: a share of the change of the metric, plus a bound on the
    /// rounding inside the metric ([`Metric::rounding`]).
    ///
    /// The share is taken of the change plus a hundredth of the terms that cancel in it: the sizes
    /// of the attributions and of the two metrics. Rounding is allowed because no number of
    /// quadrature nodes brings a sum closer to a difference than the difference is known.
    ///
    /// If the gap of a prompt is larger, a rule gets twice as many nodes. A list of nodes cannot
    /// grow, so a larger gap is an error.
    pub tolerance: f64,
    /// How often the nodes of a rule may be doubled before a layer fails.
    pub refinements: usize,
}

/// The default tolerance, as a share of the change of the metric.
pub const DEFAULT_TOLERANCE: f64 = 0.01;

impl<B: Backend> Default for IntegratedGradientsOptions<B> {
    fn default() -> Self {
        Self {
            baseline: Intervention::Resample,
            scope: LineScope::Layer,
            quadrature: Quadrature::default().into(),
            tolerance: DEFAULT_TOLERANCE,
            refinements: 4,
        }
    }
}

/// How complete the attributions of one kind of node are.
#[derive(Debug, Clone, PartialEq)]
pub struct Completeness {
    /// The kind of node.
    pub kind: NodeKind,
    /// Sum of attributions minus the change of the metric, `[prompt, layer]`; with
    /// [`LineScope::Node`], `[prompt, layer, unit]` for heads and neurons.
    pub gap: ArrayD<f32>,
    /// Change of the metric from the clean end of the line to the other end, in the shape of
    /// [`gap`](Self::gap).
    pub change: ArrayD<f32>,
    /// Final number of quadrature nodes by layer: the largest over prompts and lines.
    pub steps: Vec<usize>,
}

/// Attributions, and how complete they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Integrated {
    /// The attributions, in the effect scale of the question.
    pub outcome: Outcome,
    /// The completeness of each kind, in the order of the kinds and in the effect scale of the
    /// question.
    pub completeness: Vec<Completeness>,
}

/// Returns integrated gradients (Sundararajan et al. 2017) of the activations of each layer, per
/// prompt.
///
/// An attribution is `(end - clean) . integral of the gradient of the metric`, summed over a node's
/// dimensions. The integral runs along the line from the clean run's activation to the baseline's.
///
/// Attributions sum to the change of the metric along the line, within
/// [`IntegratedGradientsOptions::tolerance`] and the metric's own rounding. A larger gap is an
/// error. The sign is that of noising: a node that supports the behavior has an attribution below
/// 0.
///
/// Nodes must be added to the residual stream: heads (`head_z` and `head_result` have the same
/// attributions), neurons, attention outputs, MLP outputs, and the residual stream itself.
/// Attributions are summed over all positions, or given by position.
///
/// If one prompt misses the tolerance, all prompts of its batch ([`Execution::gradient_batch`]) get
/// more quadrature nodes. Within the tolerance, a prompt's attributions therefore depend on the
/// other prompts of its batch.
///
/// # Errors
/// [`AnalysisError`] if a node is not added to the residual stream, if the quadrature has no nodes,
/// or if the shape of the baseline does not match; [`AnalysisError::Incomplete`] if the gap exceeds
/// the tolerance after all refinements.
pub fn integrated_gradients<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    nodes: &[NodeKind],
    integral: &IntegratedGradientsOptions<B::InnerBackend>,
    execution: &Execution,
) -> Result<Integrated, AnalysisError> {
    let Question { pairs, metric, scale } = question;
    check(model, pairs, nodes)?;
    if !metric.is_differentiable() {
        return Err(AnalysisError::NotDifferentiable { metric: metric.name() });
    }
    nodes.iter().try_for_each(|kind| check_kind(*kind, model.config()))?;
    integral.quadrature.nodes()?;
    catch_device_faults::<B, _>(&model.device(), || {
        let inner = model.valid();
        let config = model.config();
        let baselines = run_baselines(&inner, metric, &batches(pairs, metric, execution.prompt_batch)?, execution)?;
        let factor = effect_scale(&baselines, scale)?;

        let works = works(nodes, integral.scope, config);
        let total = works.len() * pairs.len();
        let size = execution.gradient_batch_size::<B>(pairs.len(), &model.device());
        let batched = batches_for(&integral.baseline, pairs, metric, size)?;
        execution.checkpoint.begin(&|| {
            let lines = |prompt| works.iter().enumerate().map(move |(i, work)| id(nodes, *work, i, integral, prompt));
            (0..batched.len()).flat_map(|number| lines(batched.prompts(number).start)).collect()
        });
        let mut done = 0;
        (execution.progress)(done, total);
        let mut parts = Vec::new();
        let mut most_steps = vec![vec![0; config.n_layers]; nodes.len()];
        for batch in batched.iter() {
            let integration = Integration {
                model,
                metric,
                batch: &batch,
                integral,
                ends: Ends::new(&inner, metric, &batch, nodes, &integral.baseline)?,
            };
            let mut found = Found::new(nodes, integral.scope, config, &batch, pairs.width());
            workers::run(
                works.len(),
                execution.workers::<B>(&model.device()),
                |number| integration.kept(nodes, works[number], number, execution),
                |number, of_line| {
                    let Work { kind, layer, .. } = works[number];
                    most_steps[kind][layer] = most_steps[kind][layer].max(of_line.steps);
                    found.write(works[number], &of_line);
                    done += batch.prompts.len();
                    (execution.progress)(done, total);
                    Ok(())
                },
            )?;
            found.clear(nodes, config, &batch);
            parts.push(found);
        }
        let of_all = |which: fn(&mut Found) -> &mut Vec<ArrayD<f32>>, parts: &mut [Found]| {
            let parts = parts.iter_mut().map(|part| std::mem::take(which(part))).collect();
            join(Method::IntegratedGradients, nodes, parts, factor, pairs)
        };
        let effects = of_all(|f| &mut f.attributions, &mut parts)?;
        let gaps = of_all(|f| &mut f.gap, &mut parts)?.into_iter().map(|e| e.values);
        let changes = of_all(|f| &mut f.change, &mut parts)?.into_iter().map(|e| e.values);
        let completeness = nodes.iter().zip(gaps).zip(changes).zip(most_steps);
        let completeness = completeness
            .map(|(((kind, gap), change), steps)| Completeness { kind: *kind, gap, change, steps })
            .collect();
        let outcome = Outcome {
            method: Method::IntegratedGradients,
            direction: Direction::Noising,
            scale,
            metric: metric.name(),
            baselines,
            vanished: Vec::new(),
            effects,
        };
        Ok(Integrated { outcome, completeness })
    })
}

/// Refuses nodes that do not move along a line, and divisions that a line does not have.
fn check_kind(kind: NodeKind, config: &TransformerConfig) -> Result<(), AnalysisError> {
    if matches!(kind.by, By::Cell | By::Marked) {
        let reason = "a line moves all positions together; divide by all or by position";
        return Err(AnalysisError::UnsupportedNode { method: "integrated gradients", node: kind, reason });
    }
    check_linear(kind, config)
}

/// Returns the lines to integrate along, the longest runs first.
fn works(nodes: &[NodeKind], scope: LineScope, config: &TransformerConfig) -> Vec<Work> {
    let mut works = Vec::new();
    for layer in 0..config.n_layers {
        for (kind, node) in nodes.iter().enumerate() {
            match (scope, node.unit_axis()) {
                (LineScope::Node, Some(_)) => {
                    works.extend((0..units(*node, config)).map(|unit| Work { kind, layer, unit: Some(unit) }));
                }
                _ => works.push(Work { kind, layer, unit: None }),
            }
        }
    }
    works
}

/// Returns the id in the checkpoint of a line, of the batch that begins with `prompt`.
fn id<B: Backend>(
    nodes: &[NodeKind],
    Work { kind, layer, unit }: Work,
    number: usize,
    integral: &IntegratedGradientsOptions<B>,
    prompt: usize,
) -> WorkId {
    let IntegratedGradientsOptions { baseline, scope, quadrature, tolerance, refinements } = integral;
    let kind = nodes[kind];
    let node = Node { layer, component: kind.component, unit, positions: Positions::All };
    let plan = format!(
        "integrated gradients of {kind}, line of {scope} {node} to {}, {quadrature}, tolerance {tolerance}, refined {refinements} times, refined",
        baseline.name(),
    );
    WorkId::new(prompt, number, &plan)
}

/// Integrals over one batch of prompts.
struct Integration<'a, B: Differentiable, M> {
    model: &'a Transformer<B>,
    metric: &'a M,
    batch: &'a PromptBatch,
    integral: &'a IntegratedGradientsOptions<B::InnerBackend>,
    ends: Ends<'a, B::InnerBackend, M>,
}

impl<B: Differentiable, M: Metric> Integration<'_, B, M> {
    /// Returns the stored result of a line, or integrates along the line and stores the result.
    fn kept(
        &self,
        nodes: &[NodeKind],
        work: Work,
        number: usize,
        execution: &Execution,
    ) -> Result<OfLine, AnalysisError> {
        let kind = nodes[work.kind];
        let pass = id(nodes, work, number, self.integral, self.batch.prompts[0]);
        let n_prompts = self.batch.prompts.len();
        let of_layer = no_effects(kind, self.model.config(), n_prompts, self.batch.pairs.width()).len()
            / self.model.config().n_layers;
        let of_line = if work.unit.is_some() { of_layer / units(kind, self.model.config()) } else { of_layer };
        if let Some(mut kept) = execution.checkpoint.load(pass).filter(|kept| kept.len() == of_line + 2 * n_prompts + 1)
        {
            let steps = kept.pop().unwrap_or_default() as usize;
            let change = kept.split_off(kept.len() - n_prompts);
            let gap = kept.split_off(kept.len() - n_prompts);
            return Ok(OfLine { attributions: kept, gap, change, steps });
        }
        let found = self.line(kind, work, execution)?;
        let OfLine { attributions, gap, change, steps } = &found;
        let numbers: Vec<f32> = [attributions.as_slice(), gap, change, &[*steps as f32]].concat();
        ensure_healthy::<B>(&self.model.device())?;
        execution.checkpoint.store(pass, &numbers).map_err(AnalysisError::Checkpoint)?;
        Ok(found)
    }

    fn line(
        &self,
        kind: NodeKind,
        Work { layer, unit, .. }: Work,
        execution: &Execution,
    ) -> Result<OfLine, AnalysisError> {
        let moved = Moved { component: kind.component, layer, unit, positions: &Positions::All };
        let line = self.ends.line(moved)?;
        let n_prompts = self.batch.prompts.len();
        // An autodiff tape holds every activation of its rows, so a pass gets half the token
        // budget.
        let at_once = at_once(self.model.config(), self.batch, self.ends.first(), execution.token_budget / 2);
        let at_once = match is_synchronous::<B>(&self.model.device()) {
            true => at_once,
            // The memory of a tape was budgeted for `gradient_batch` prompts.
            false => at_once.min(execution.gradient_batch / n_prompts).max(1),
        };
        let ends = self.ends.metric_at_ends(&line)?;
        let mut quadrature = self.integral.quadrature.clone();
        let mut refinement = 0;
        loop {
            let nodes = quadrature.nodes()?;
            let gradient = line.mean_gradient(self.model, self.metric, self.batch, &nodes, at_once)?;
            let (found, ends) = self.ends.attributions(moved, &line, gradient, ends.clone())?;
            let of_end = |which: usize, prompt: usize| f64::from(ends[which * n_prompts + prompt]);
            let mut of_line = OfLine { attributions: vec![], gap: vec![], change: vec![], steps: nodes.len() };
            let mut missed = None;
            for prompt in 0..n_prompts {
                let [start, end, start_rounding, end_rounding] = [0, 1, 2, 3].map(|which| of_end(which, prompt));
                let change = end - start;
                let [sum, sizes] = found.sums(prompt);
                let gap = sum - change;
                let cancels = sizes + start.abs() + end.abs();
                let rounding = start_rounding + end_rounding;
                let allowed = self.integral.tolerance * (change.abs() + 0.01 * cancels) + rounding;
                let attributions = found.in_order(prompt, kind.by, self.ends.first());
                let numbers = attributions.iter().copied().chain([gap as f32, change as f32]);
                if let Some(value) = numbers.into_iter().find(|number| !number.is_finite()) {
                    let what = format!("integrated gradients of {kind}, layer {layer},");
                    let prompt = Some(self.batch.prompts[prompt]);
                    return Err(AnalysisError::NotFinite { what, value, prompt, first: None });
                }
                if gap.abs() > allowed {
                    missed = missed.or(Some((prompt, gap, change, allowed)));
                }
                of_line.attributions.extend(attributions);
                of_line.gap.push(gap as f32);
                of_line.change.push(change as f32);
            }
            let Some((prompt, gap, change, allowed)) = missed else { return Ok(of_line) };
            quadrature = match quadrature.doubled() {
                Some(doubled) if refinement < self.integral.refinements => doubled,
                _ => {
                    let (prompt, steps) = (self.batch.prompts[prompt], nodes.len());
                    return Err(AnalysisError::Incomplete { kind, layer, prompt, gap, change, allowed, steps });
                }
            };
            refinement += 1;
        }
    }
}
