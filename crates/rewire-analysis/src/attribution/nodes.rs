//! Attribution patching: first-order estimates of all nodes' effects, from two forward passes and
//! one backward pass.

use crate::run::record::{baselines, check_pairs};
use burn::module::AutodiffModule;
use ndarray::{ArrayD, Axis as Dimension, IxDyn, Slice};
use rewire_hooks::{Axis, HookPoint, Site};
use rewire_model::{BackwardRule, Differentiable, Transformer};
use rewire_tasks::Metric;

use crate::attribution::edges;
use crate::attribution::edges::{EdgeAttribution, EdgeAttributionOptions};
use crate::attribution::estimator::Estimator;
use crate::attribution::linearize::{Linearized, Points, linearize};
use crate::attribution::norm_jacobian::NormJacobian;
use crate::attribution::pending_sum::PendingSum;
use crate::attribution::products::{self, Products};
use crate::attribution::slope::{Linearity, Metrics};
use crate::effects::{Method, Outcome, join};
use crate::error::AnalysisError;
use crate::node::index::no_effects;
use crate::node::kind::{By, NodeKind};
use crate::patching::pass_cost::Costs;
use crate::run::batch::{PromptBatch, batches};
use crate::run::checkpoint::{Checkpoint, PlannedWork, WorkId};
use crate::run::cost::Cost;
use crate::run::execution::Execution;
use crate::run::finite::check_effects;
use crate::run::fit::{catch_device_faults, ensure_healthy};
use crate::run::moves::clear;
use crate::run::question::{Direction, Question};
use crate::run::record::{check, effect_scale};
use crate::run::workers;

/// Returns the estimated effect of every node of the given kinds:
/// `(source - base) . gradient of the metric at base`, summed over the node's dimensions (Nanda
/// 2022). With a [backward rule](Question::by_rule), the numbers that it passes back stand in the
/// place of the gradient.
///
/// The estimate is linear: the effects of the parts of a node sum to the effect of the node.
/// Effects are per prompt, `[prompt, layer, ..]`, with the signs and the effect scale of
/// [`activation_patching`]. The estimate ignores the network's curvature between base and source.
///
/// [`activation_patching`]: crate::patching::engine::activation_patching
///
/// # Errors
/// As [`activation_patching`], and [`AnalysisError::NotDifferentiable`].
pub fn attribution_patching<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    nodes: &[NodeKind],
    direction: Direction,
    execution: &Execution,
) -> Result<Outcome, AnalysisError> {
    attribution_patching_by(model, question, nodes, Estimator::default(), direction, execution)
}

/// Returns the estimated effect of every node of the given kinds, by an estimator: that of
/// [`attribution_patching`], with a correction of AtP* (Kramár et al. 2024) or with both.
///
/// **The QK fix** ([`PatternChange::QkFix`](crate::attribution::PatternChange)) estimates queries
/// and keys by `(pattern with the patched query or key - base pattern) . gradient at the pattern`.
/// One query or one key is patched at a time, and the estimate of several positions is the sum of
/// theirs. Other nodes keep the plain estimate.
///
/// **GradDrop** ([`GradientPaths::GradDrop`](crate::attribution::GradientPaths)) drops the
/// gradient through the attention and the MLP of one layer, for each of the `n` layers. The
/// estimate is the sum of the absolute values over the dropped layers, divided by `n - 1`: without
/// its own layer, a node has the estimate 0. Estimates are per prompt, have no sign, and do not add
/// up over nodes. They take up to `n / 2` further forward and backward passes.
///
/// # Errors
/// As [`attribution_patching`], and [`AnalysisError::UnsupportedNode`] for GradDrop of the residual
/// stream or in a model of one layer.
pub fn attribution_patching_by<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    nodes: &[NodeKind],
    estimator: Estimator,
    direction: Direction,
    execution: &Execution,
) -> Result<Outcome, AnalysisError> {
    check(model, question.pairs, nodes)?;
    products::check(estimator, nodes, model.config(), question.backward)?;
    Ok(estimate_all(model, question, nodes, Asked { estimator, edges: None }, direction, execution)?.0)
}

/// Returns [`attribution_patching`] and
/// [`edge_attribution`](crate::attribution::nodes::edge_attribution) from the same two forward
/// passes and one backward pass.
///
/// # Errors
/// As [`attribution_patching`].
pub fn attribution_patching_with_edges<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    nodes: &[NodeKind],
    paths: EdgeAttributionOptions,
    direction: Direction,
    execution: &Execution,
) -> Result<(Outcome, EdgeAttribution), AnalysisError> {
    check(model, question.pairs, nodes)?;
    let (outcome, parts) = estimate_all(model, question, nodes, Asked::with_edges(paths), direction, execution)?;
    let of_metric = (outcome.baselines.clone(), outcome.vanished.clone());
    let paths = edges::join(parts, paths, of_metric, question.scale, &question.pairs.lengths())?;
    Ok((outcome, paths))
}

/// The estimates that are asked for.
#[derive(Clone, Copy)]
struct Asked {
    estimator: Estimator,
    edges: Option<EdgeAttributionOptions>,
}

impl Asked {
    fn with_edges(edges: EdgeAttributionOptions) -> Self {
        Self { estimator: Estimator::default(), edges: Some(edges) }
    }
}

/// Returns the estimates of nodes, and the edge effects of each batch if they are asked for.
fn estimate_all<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    nodes: &[NodeKind],
    asked: Asked,
    direction: Direction,
    execution: &Execution,
) -> Result<(Outcome, Vec<ArrayD<f32>>), AnalysisError> {
    let Asked { estimator, edges } = asked;
    let Question { pairs, metric, scale, backward } = question;
    if backward.holds_norm_scales() && edges.is_some_and(|edges| edges.norm == NormJacobian::Exact) {
        return Err(AnalysisError::ExactNorms { rule: backward });
    }
    catch_device_faults::<B, _>(&model.device(), || {
        let at = Linearity { method: "attribution patching", at: direction, has_other_direction: true };
        let width = pairs.width();
        let estimation = Estimation { model, metric, backward, nodes, estimator, edges, direction, width };
        let passes = 2.0 + estimator.backward_passes(model.config().n_layers);
        let size = execution.gradient_batch_size::<B>(pairs.len(), &model.device());
        let batched = batches(pairs, metric, size)?;
        let costs = Costs::of(model);
        let planned = |batch: PromptBatch| PlannedWork {
            id: estimation.id(&batch),
            cost: costs.whole_run(&batch, batch.first_difference) * passes,
            setup: Cost::default(),
        };
        execution.checkpoint.begin(&|| batched.iter().map(&planned).collect());
        let estimated =
            by_batch(model, question, Some(at), execution, |batch| estimation.resumed(batch, execution.checkpoint))?;
        let vanished = estimated.metrics.vanished(pairs, metric)?;
        let Metrics { base, source, .. } = estimated.metrics;
        let baselines = baselines(direction, base, source);
        let factor = effect_scale(&baselines, scale)?;
        let factor = if estimator.is_unsigned() { factor.abs() } else { factor };
        let (estimates, edges): (Vec<_>, Vec<_>) = estimated
            .parts
            .into_iter()
            .map(|mut of_batch| {
                let edges = of_batch.split_off(nodes.len());
                (of_batch, edges)
            })
            .unzip();
        let outcome = Outcome {
            method: Method::AttributionPatching,
            direction,
            scale,
            metric: metric.name(),
            baselines,
            vanished,
            effects: join(Method::AttributionPatching, nodes, estimates, factor, pairs)?,
        };
        Ok((outcome, edges.into_iter().flatten().collect()))
    })
}

/// The estimation of nodes, and of edges if they are asked for, on batches of prompts.
struct Estimation<'a, B: Differentiable, M> {
    model: &'a Transformer<B>,
    metric: &'a M,
    backward: BackwardRule,
    nodes: &'a [NodeKind],
    estimator: Estimator,
    edges: Option<EdgeAttributionOptions>,
    direction: Direction,
    /// Positions of the longest prompt of all batches.
    width: usize,
}

impl<B: Differentiable, M: Metric> Estimation<'_, B, M> {
    /// Returns the id of a batch in the checkpoint.
    fn id(&self, batch: &PromptBatch) -> WorkId {
        WorkId::new(batch.prompts[0], 0, &self.description(batch))
    }

    /// Returns a batch's estimates and metrics from the checkpoint, or computes and stores them.
    /// Returns `None` if another process computes them.
    fn resumed(
        &self,
        batch: &PromptBatch,
        checkpoint: &dyn Checkpoint,
    ) -> Result<Option<Estimated<Vec<ArrayD<f32>>>>, AnalysisError> {
        let pass = self.id(batch);
        let shapes = self.shapes(batch.prompts.len());
        if let Some(kept) = checkpoint.load(pass).and_then(|kept| split_checkpoint(kept, &shapes)) {
            return Ok(Some(kept));
        }
        if !checkpoint.takes(pass) {
            return Ok(None);
        }
        let (of_batch, metrics) = self.batch(batch)?;
        let of_metric = [&metrics.base, &metrics.source, &metrics.slope];
        let numbers: Vec<f32> = of_batch.iter().flatten().chain(of_metric.into_iter().flatten()).copied().collect();
        ensure_healthy::<B>(&self.model.device())?;
        checkpoint.store(pass, &numbers).map_err(AnalysisError::Checkpoint)?;
        Ok(Some((of_batch, metrics)))
    }

    /// Describes the work on a batch for its checkpoint. The text must stay the same in every
    /// version.
    fn description(&self, batch: &PromptBatch) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(ToString::to_string).collect();
        let edges = self.edges.map_or_else(|| "none".to_owned(), |edges| format!("{} {}", edges.norm, edges.reduce));
        let by = by_estimator(self.estimator) + &by_rule(self.backward);
        format!("attribution of {}, edges {edges}, {} prompts{by}", nodes.join(" "), batch.prompts.len())
    }

    /// The shapes of a batch's arrays: one per kind of node, the edges, and the three metrics.
    fn shapes(&self, n_prompts: usize) -> Vec<Vec<usize>> {
        let config = self.model.config();
        let kinds = self.nodes.iter().map(|kind| no_effects(*kind, config, n_prompts, self.width).shape().to_vec());
        let edges = self.edges.map(|edges| edges::shape(edges.reduce, config, n_prompts, self.width));
        kinds.chain(edges).chain([vec![n_prompts], vec![n_prompts], vec![n_prompts]]).collect()
    }

    /// Estimates a batch from two forward passes and the backward passes of the estimator.
    fn batch(&self, batch: &PromptBatch) -> Result<Estimated<Vec<ArrayD<f32>>>, AnalysisError> {
        let Self { model, metric, .. } = *self;
        let linear = self.linearized(batch)?;
        let sums = Products::new(model, &linear, self.nodes, self.estimator).sums(batch, self.direction)?;
        let of_edges = match self.edges {
            Some(edges) => edges::paths(model, &linear, edges)?,
            None => Vec::new(),
        };
        // Read everything in one transfer: until then the device only queues operations.
        let metrics = [linear.base_metric.clone(), linear.source_metric.clone(), linear.slope.clone()];
        let (estimates, mut read) = PendingSum::read(sums, of_edges.into_iter().chain(metrics));
        let (Some(slope), Some(source), Some(base)) = (read.pop(), read.pop(), read.pop()) else {
            unreachable!("two metrics and a slope were read")
        };
        let metrics = Metrics { base, source, slope };
        metrics.check(&model.valid(), metric.name(), batch, self.direction)?;
        let mut of_batch = self.by_kind(batch, linear.first, estimates)?;
        if let Some(edges) = self.edges {
            of_batch.push(edges::array(read, edges, model.config(), batch, linear.first));
        }
        Ok((of_batch, metrics))
    }

    /// Runs a batch forward and backward, with the activations and gradients that the estimates
    /// need.
    fn linearized(&self, batch: &PromptBatch) -> Result<Linearized<B>, AnalysisError> {
        let sites: Vec<Site> = self.nodes.iter().map(|kind| kind.site()).collect();
        let config = self.model.config();
        let [mut recorded, mut probed] = products::sites(self.estimator, config);
        if self.edges.is_some() {
            recorded.extend(edges::recorded(config));
            probed.extend(edges::probed(config));
        }
        let accepts = |more: Vec<Site>| {
            let sites = sites.clone();
            move |p: HookPoint| p.site().is_some_and(|s| sites.contains(&s) || more.contains(&s))
        };
        let points = Points { recorded: accepts(recorded), probed: accepts(probed) };
        linearize(self.model, self.metric, self.backward, batch, self.direction, points)
    }

    /// Places the estimates of all layers, which begin at position `first`, into one array per
    /// kind, `[prompt, layer, ..]`.
    fn by_kind(
        &self,
        batch: &PromptBatch,
        first: usize,
        estimates: Vec<ArrayD<f32>>,
    ) -> Result<Vec<ArrayD<f32>>, AnalysisError> {
        let config = self.model.config();
        let mut estimates = estimates.into_iter();
        let mut kinds = Vec::with_capacity(self.nodes.len() + 1);
        for &kind in self.nodes {
            let mut of_kind = no_effects(kind, config, batch.pairs.len(), self.width);
            for (layer, estimate) in estimates.by_ref().take(config.n_layers).enumerate() {
                let mut of_layer = of_kind.index_axis_mut(Dimension(1), layer);
                write(kind, batch, first, &estimate, of_layer.view_mut());
                clear(kind, layer, batch, config, of_layer);
            }
            check_effects("attribution patching", kind, batch.prompts[0], &of_kind)?;
            kinds.push(of_kind);
        }
        Ok(kinds)
    }
}

/// Returns the end of the description of work by an estimator. The plain estimate, which is older
/// than the others, is not named.
fn by_estimator(estimator: Estimator) -> String {
    match estimator == Estimator::default() {
        true => String::new(),
        false => format!(", by {estimator}"),
    }
}

/// Returns the end of the description of work by a backward rule. The gradient, which is older than
/// the other rules, is not named.
pub(crate) fn by_rule(backward: BackwardRule) -> String {
    match backward {
        BackwardRule::Gradient => String::new(),
        rule => format!(", backward {rule}"),
    }
}

/// Splits the stored numbers of a batch into arrays of these shapes, and its metrics from the last
/// three arrays. Returns `None` if the count of numbers does not match.
fn split_checkpoint(kept: Vec<f32>, shapes: &[Vec<usize>]) -> Option<Estimated<Vec<ArrayD<f32>>>> {
    let sizes = shapes.iter().map(|shape| shape.iter().product::<usize>());
    if sizes.clone().sum::<usize>() != kept.len() {
        return None;
    }
    let mut rest = kept.into_iter();
    let array = |(shape, size): (&Vec<usize>, usize)| {
        ArrayD::from_shape_vec(IxDyn(shape), rest.by_ref().take(size).collect()).ok()
    };
    let mut arrays = shapes.iter().zip(sizes).map(array).collect::<Option<Vec<_>>>()?;
    let [slope, source, base] = [(); 3].map(|()| arrays.pop().unwrap_or_default().into_iter().collect());
    Some((arrays, Metrics { base, source, slope }))
}

/// The result of one batch, and its metrics.
pub(crate) type Estimated<T> = (T, Metrics);

/// The results of all batches in order, and the metrics of all prompts.
pub(crate) struct ByBatch<T> {
    pub(crate) parts: Vec<T>,
    pub(crate) metrics: Metrics,
}

/// Runs `estimate` on every batch of prompts, with one thread per worker. `estimate` returns a
/// batch's result and its metrics, or `None` if another process computes them. `at` is the run
/// whose gradient must not be 0, if the estimate is of first order.
///
/// # Errors
/// [`AnalysisError::PassesLeft`] if other processes compute a batch.
pub(crate) fn by_batch<B: Differentiable, M: Metric, T: Send>(
    model: &Transformer<B>,
    question: Question<M>,
    at: Option<Linearity>,
    execution: &Execution,
    estimate: impl Fn(&PromptBatch) -> Result<Option<Estimated<T>>, AnalysisError> + Sync,
) -> Result<ByBatch<T>, AnalysisError> {
    let Question { pairs, metric, .. } = question;
    if !metric.is_differentiable() {
        return Err(AnalysisError::NotDifferentiable { metric: metric.name() });
    }
    at.iter().try_for_each(|at| at.check(metric))?;
    let workers = execution.workers::<B>(&model.device());
    let batches = batches(pairs, metric, execution.gradient_batch_size::<B>(pairs.len(), &model.device()))?;
    let mut done = 0;
    (execution.progress)(done, pairs.len());
    let mut estimated: Vec<Option<Estimated<T>>> = (0..batches.len()).map(|_| None).collect();
    workers::run(
        batches.len(),
        workers,
        |i| estimate(&batches.get(i)),
        |i, found| {
            estimated[i] = found;
            done += batches.prompts(i).len();
            (execution.progress)(done, pairs.len());
            Ok(())
        },
    )?;
    if estimated.iter().any(Option::is_none) {
        return Err(AnalysisError::PassesLeft);
    }
    let mut all = ByBatch { parts: Vec::new(), metrics: Metrics::default() };
    for (part, metrics) in estimated.into_iter().flatten() {
        all.parts.push(part);
        all.metrics.extend(metrics);
    }
    Ok(all)
}

/// Writes the estimates of the computed positions into the estimates of all positions,
/// `[prompt, ..]`.
fn write(
    kind: NodeKind,
    batch: &PromptBatch,
    first: usize,
    estimate: &ArrayD<f32>,
    mut into: ndarray::ArrayViewMutD<'_, f32>,
) {
    let axes = kind.axes();
    match kind.by {
        By::All => into.assign(estimate),
        By::Position | By::Cell => {
            let axis =
                1 + axes.iter().position(|a| matches!(a, Axis::Pos | Axis::Query)).expect("an axis of positions");
            into.slice_axis_mut(Dimension(axis), Slice::from(first..)).assign(estimate);
        }
        By::Marked => {
            let position = Dimension(estimate.ndim() - 1);
            for (prompt, &mark) in batch.pairs.marked_positions().into_iter().flatten().enumerate() {
                // Before the first difference an estimate keeps its initial value, 0.
                if mark >= first {
                    let of_prompt = estimate.index_axis(position, mark - first);
                    into.index_axis_mut(Dimension(0), prompt).assign(&of_prompt.index_axis(Dimension(0), prompt));
                }
            }
        }
    }
}

/// Returns the estimated effect of every edge from a head's output, through the residual stream, to
/// the queries, keys or values of a later head.
///
/// An effect is `(source - base) . gradient`: the change of the start head's output between the two
/// runs, times the gradient of the metric at the end head's input (Nanda 2022; edges of Syed et al.
/// 2023).
///
/// Signs and the effect scale are those of
/// [`activation_patching`](crate::patching::engine::activation_patching).
///
/// One backward pass serves all edges: the gradient at a head's queries goes back through `W_Q` and
/// the norm to the residual stream once per head, not once per edge.
///
/// # Memory
/// Each thread holds `4 * pos * n_layers * n_heads * d_model` bytes per prompt of its batch; `pos`
/// counts positions from the first different one on. Edge effects take
/// `12 * (n_layers * n_heads)^2 * pos` bytes: per prompt if they are kept per prompt, else per
/// batch of [`Execution::gradient_batch`] prompts until the batches are summed. A device holds all
/// edge effects, and a copy of the heads' outputs, until they are read.
///
/// # Errors
/// As [`attribution_patching`].
pub fn edge_attribution<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    paths: EdgeAttributionOptions,
    direction: Direction,
    execution: &Execution,
) -> Result<EdgeAttribution, AnalysisError> {
    check_pairs(model, question.pairs)?;
    let (outcome, parts) = estimate_all(model, question, &[], Asked::with_edges(paths), direction, execution)?;
    let of_metric = (outcome.baselines, outcome.vanished);
    edges::join(parts, paths, of_metric, question.scale, &question.pairs.lengths())
}
