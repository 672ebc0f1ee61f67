//! Integrated gradients along a line of activations, with the completeness gap in the result.
//!
//! The line enters the model as the residual stream that it changes
//! ([`line`](crate::integrated::line)). A run therefore starts at the node's layer and at the first
//! position that differs. All quadrature nodes share one batch, each with its own metric. Heads and
//! neurons write to the residual stream, or to the norm before it, through a matrix. One averaged
//! gradient of the written vectors, multiplied by the transposed matrix, therefore serves all heads
//! or neurons of a layer.

use crate::integrated::lines::LineScope;
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use ndarray::ArrayD;
use rewire_model::{BackwardRule, Differentiable, Transformer, TransformerConfig};
use rewire_tasks::Metric;
use rewire_tensor::is_synchronous;

use crate::effects::{Method, Outcome, concatenated, join};
use crate::error::AnalysisError;
use crate::integrated::completeness::{Completeness, GapPolicy, Integrated};
use crate::integrated::line::{Attributions, Ends, Moved, check_linear};
use crate::integrated::lines::{Found, OfLine, Work};
use crate::integrated::panels::{Along, Panel, to_halve};
use crate::integrated::quadrature::{Quadrature, QuadratureNodes};
use crate::node::index::{no_effects, units};
use crate::node::kind::{By, Node, NodeKind, Positions};
use crate::patching::pass_cost::Costs;
use crate::patching::plan::at_once;
use crate::run::batch::{PromptBatch, batches};
use crate::run::checkpoint::{PlannedWork, WorkId};
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
    /// If the gap of a prompt is larger, the line is divided into panels, each with all nodes of
    /// the rule: the panels with large gaps are halved until the tolerance is met. A list of nodes
    /// is never divided.
    pub tolerance: f64,
    /// Largest number of panels of a line; with 1, a line is never divided.
    pub panels: usize,
    /// What to do if a gap stays larger than the tolerance allows.
    pub gaps: GapPolicy,
}

/// The default of [`IntegratedGradientsOptions::panels`].
pub const DEFAULT_PANELS: usize = 64;

/// The default tolerance, as a share of the change of the metric.
pub const DEFAULT_TOLERANCE: f64 = 0.01;

impl<B: Backend> Default for IntegratedGradientsOptions<B> {
    fn default() -> Self {
        Self {
            baseline: Intervention::Resample,
            scope: LineScope::Layer,
            quadrature: Quadrature::default().into(),
            tolerance: DEFAULT_TOLERANCE,
            panels: DEFAULT_PANELS,
            gaps: GapPolicy::Refuse,
        }
    }
}

/// Returns integrated gradients (Sundararajan et al. 2017) of the activations of each layer, per
/// prompt.
///
/// An attribution is `(end - clean) . integral of the gradient of the metric`, summed over a node's
/// dimensions. The integral runs along the line from the clean run's activation to the baseline's.
///
/// Attributions sum to the change of the metric along the line, within
/// [`IntegratedGradientsOptions::tolerance`] and the metric's own rounding. A larger gap is an
/// error, unless [`GapPolicy::Report`] is set. The sign is that of noising: a node that supports
/// the behavior has an attribution below 0.
///
/// In models with norms after attention and MLP, a line of heads or neurons is straight before the
/// norm, and every point of it passes the norm.
///
/// Nodes must be added to the residual stream: heads (`head_z` and `head_result` have the same
/// attributions), neurons, attention outputs, MLP outputs, and the residual stream itself.
/// Attributions are summed over all positions, or given by position.
///
/// If one prompt misses the tolerance, all prompts of its batch ([`Execution::gradient_batch`]) get
/// the same panels. Within the tolerance, a prompt's attributions therefore depend on the
/// other prompts of its batch.
///
/// # Errors
/// [`AnalysisError::UnsupportedRule`] for a backward rule other than the gradient;
/// [`AnalysisError`] if a node is not added to the residual stream, if the quadrature has no nodes,
/// or if the shape of the baseline does not match; [`AnalysisError::Incomplete`] if the gap exceeds
/// the tolerance with the largest number of panels.
pub fn integrated_gradients<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    nodes: &[NodeKind],
    integral: &IntegratedGradientsOptions<B::InnerBackend>,
    execution: &Execution,
) -> Result<Integrated, AnalysisError> {
    let Question { pairs, metric, scale, backward } = question;
    check(model, pairs, nodes)?;
    if backward != BackwardRule::Gradient {
        let reason = "attributions by another rule do not sum to the change of the metric";
        return Err(AnalysisError::UnsupportedRule { method: "integrated gradients", rule: backward, reason });
    }
    if !metric.is_differentiable() {
        return Err(AnalysisError::NotDifferentiable { metric: metric.name() });
    }
    nodes.iter().try_for_each(|kind| check_kind(*kind))?;
    integral.quadrature.nodes()?;
    catch_device_faults::<B, _>(&model.device(), || {
        let inner = model.valid();
        let config = model.config();
        let costs = Costs::of(&inner);
        let of_runs = |batch: &PromptBatch| costs.whole_run(batch, 0) * 2.0;
        let of_baselines = batches(pairs, metric, execution.prompt_batch)?;
        let baselines = run_baselines(&inner, metric, &of_baselines, execution, of_runs)?;
        let factor = baselines.as_ref().map(|found| effect_scale(found, scale)).transpose()?;

        let works = works(nodes, integral.scope, config);
        let total = works.len() * pairs.len();
        let size = execution.gradient_batch_size::<B>(pairs.len(), &model.device());
        let batched = batches_for(&integral.baseline, pairs, metric, size)?;
        let n_gradients = integral.quadrature.nodes()?.len();
        let planned = |batch: PromptBatch| {
            let of_line = |(number, work): (usize, &Work)| PlannedWork {
                id: id(nodes, *work, number, integral, batch.prompts[0]),
                cost: costs.line(nodes[work.kind], work.layer, &batch, n_gradients),
                setup: of_runs(&batch),
            };
            works.iter().enumerate().map(of_line).collect::<Vec<_>>()
        };
        execution.checkpoint.begin(&|| batched.iter().flat_map(planned).collect());
        let mut is_complete = true;
        let mut done = 0;
        (execution.progress)(done, total);
        let mut parts = Vec::new();
        let mut most_steps = vec![vec![0; config.n_layers]; nodes.len()];
        for batch in batched.iter() {
            let takes = |(number, work): (usize, &Work)| {
                let pass = id(nodes, *work, number, integral, batch.prompts[0]);
                execution.checkpoint.takes(pass) || execution.checkpoint.load(pass).is_some()
            };
            if !works.iter().enumerate().any(takes) {
                is_complete = false;
                continue;
            }
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
                    let Some(of_line) = of_line else {
                        is_complete = false;
                        return Ok(());
                    };
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
        let (Some(baselines), Some(factor), true) = (baselines, factor, is_complete) else {
            return Err(AnalysisError::PassesLeft);
        };
        let of_all = |which: fn(&mut Found) -> &mut Vec<ArrayD<f32>>, parts: &mut [Found]| {
            let parts = parts.iter_mut().map(|part| std::mem::take(which(part))).collect();
            join(Method::IntegratedGradients, nodes, parts, factor, pairs)
        };
        let effects = of_all(|f| &mut f.attributions, &mut parts)?;
        let gaps = of_all(|f| &mut f.gap, &mut parts)?.into_iter().map(|e| e.values);
        let changes = of_all(|f| &mut f.change, &mut parts)?.into_iter().map(|e| e.values);
        // A tolerance may be infinite, so these are not checked as effects are.
        let of_kind = |kind: usize, parts: &mut [Found]| {
            let parts = parts.iter_mut().map(|part| std::mem::take(&mut part.allowed[kind])).collect();
            concatenated(parts, factor.abs())
        };
        let allowed: Vec<_> = (0..nodes.len()).map(|kind| of_kind(kind, &mut parts)).collect();
        let completeness = nodes.iter().zip(gaps).zip(changes).zip(allowed).zip(most_steps);
        let completeness = completeness
            .map(|((((kind, gap), change), allowed), steps)| Completeness { kind: *kind, gap, change, allowed, steps })
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
fn check_kind(kind: NodeKind) -> Result<(), AnalysisError> {
    if matches!(kind.by, By::Cell | By::Marked) {
        let reason = "a line moves all positions together; divide by all or by position";
        return Err(AnalysisError::UnsupportedNode { method: "integrated gradients", node: kind, reason });
    }
    check_linear(kind)
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
    let IntegratedGradientsOptions { baseline, scope, quadrature, tolerance, panels, gaps: _ } = integral;
    let kind = nodes[kind];
    let node = Node { layer, component: kind.component, unit, positions: Positions::All };
    let plan = format!(
        "integrated gradients of {kind}, line of {scope} {node} to {}, {quadrature}, tolerance {tolerance}, at most {panels} panels",
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
    /// Returns `None` if another process integrates along it.
    fn kept(
        &self,
        nodes: &[NodeKind],
        work: Work,
        number: usize,
        execution: &Execution,
    ) -> Result<Option<OfLine>, AnalysisError> {
        let kind = nodes[work.kind];
        let pass = id(nodes, work, number, self.integral, self.batch.prompts[0]);
        let n_prompts = self.batch.prompts.len();
        let of_layer = no_effects(kind, self.model.config(), n_prompts, self.batch.pairs.width()).len()
            / self.model.config().n_layers;
        let of_line = if work.unit.is_some() { of_layer / units(kind, self.model.config()) } else { of_layer };
        let kept = execution.checkpoint.load(pass).filter(|kept| kept.len() == of_line + 3 * n_prompts + 1);
        if let Some(mut kept) = kept {
            let steps = kept.pop().unwrap_or_default() as usize;
            let allowed = kept.split_off(kept.len() - n_prompts);
            let change = kept.split_off(kept.len() - n_prompts);
            let gap = kept.split_off(kept.len() - n_prompts);
            let found = OfLine { attributions: kept, gap, change, allowed, steps };
            return self.accepted(kind, work.layer, found).map(Some);
        }
        if !execution.checkpoint.takes(pass) {
            return Ok(None);
        }
        let found = self.accepted(kind, work.layer, self.line(kind, work, execution)?)?;
        let OfLine { attributions, gap, change, allowed, steps } = &found;
        let numbers: Vec<f32> = [attributions.as_slice(), gap, change, allowed, &[*steps as f32]].concat();
        ensure_healthy::<B>(&self.model.device())?;
        execution.checkpoint.store(pass, &numbers).map_err(AnalysisError::Checkpoint)?;
        Ok(Some(found))
    }

    /// Returns the result of a line, or an error if its gap is too large and gaps are refused.
    fn accepted(&self, kind: NodeKind, layer: usize, found: OfLine) -> Result<OfLine, AnalysisError> {
        match found.missed().first() {
            Some(&missed) if self.integral.gaps == GapPolicy::Refuse => {
                let [gap, change, allowed] =
                    [&found.gap, &found.change, &found.allowed].map(|values| f64::from(values[missed]));
                let (prompt, steps) = (self.batch.prompts[missed], found.steps);
                Err(AnalysisError::Incomplete { kind, layer, prompt, gap, change, allowed, steps })
            }
            _ => Ok(found),
        }
    }

    /// Integrates along a line, and divides it into panels until the tolerance is met or there are
    /// as many panels as allowed.
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
        let nodes = self.integral.quadrature.nodes()?;
        let Self { model, metric, batch, integral, ends } = self;
        let along = Along { model: *model, metric: *metric, batch, ends, line: &line, nodes: &nodes, at_once };
        let at_ends = ends.metric_at_ends(&line)?;
        let gradient = along.gradient([0.0, 1.0])?;
        let (found, read) = ends.attributions(moved, &line, gradient.clone(), at_ends.clone())?;
        let mut of_line = self.judged(kind, layer, &found, &read)?;
        let metric = [0, n_prompts].map(|from| read[from..from + n_prompts].to_vec());
        let mut panels = vec![Panel { span: [0.0, 1.0], metric, gradient, gap: of_line.gap.clone() }];
        let most = match integral.quadrature {
            QuadratureNodes::Rule(_) => integral.panels,
            QuadratureNodes::List(_) => 1,
        };
        loop {
            of_line.steps = nodes.len() * panels.len();
            let halved = to_halve(&panels, &of_line.missed(), &of_line.allowed, most);
            if halved.is_empty() {
                return Ok(of_line);
            }
            panels = along.halve(panels, &halved)?;
            let gradient = panels.iter().map(|panel| panel.gradient.clone()).reduce(|sum, gradient| sum + gradient);
            let gradient = gradient.ok_or(AnalysisError::NoQuadratureNodes)?;
            let (found, read) = ends.attributions(moved, &line, gradient, at_ends.clone())?;
            of_line = self.judged(kind, layer, &found, &read)?;
        }
    }

    /// Returns the attributions of a line with their gaps, and the gaps that are allowed. `ends` is
    /// what [`Ends::metric_at_ends`] returns. The number of steps is left at 0.
    fn judged(
        &self,
        kind: NodeKind,
        layer: usize,
        found: &Attributions,
        ends: &[f32],
    ) -> Result<OfLine, AnalysisError> {
        let n_prompts = self.batch.prompts.len();
        let of_end = |which: usize, prompt: usize| f64::from(ends[which * n_prompts + prompt]);
        let mut of_line = OfLine { attributions: vec![], gap: vec![], change: vec![], allowed: vec![], steps: 0 };
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
            of_line.attributions.extend(attributions);
            of_line.gap.push(gap as f32);
            of_line.change.push(change as f32);
            of_line.allowed.push(allowed as f32);
        }
        Ok(of_line)
    }
}
