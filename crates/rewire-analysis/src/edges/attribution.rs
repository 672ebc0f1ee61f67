//! Estimated effects of edges, from gradients at the inputs of all readers.

use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use ndarray::{Array3, Axis as Dimension, concatenate};
use rewire_hooks::{ActivationCache, Hook, HookPoint, Patch, Site};
use rewire_model::{BackwardRule, Differentiable, Run, Transformer};
use rewire_tasks::Metric;
use rewire_tensor::{cast_like, to_f32};

use crate::attribution::linearize::{Differentiated, Linearized, Points, differentiate, linearize};
use crate::attribution::nodes::{Estimated, by_batch, by_rule};
use crate::attribution::slope::{Linearity, Metrics};
use crate::edges::effects::EdgeEffects;
use crate::edges::graph::{Edge, EdgeGraph};
use crate::edges::readers::{effects, is_probed, recorded, written};
use crate::effects::{Method, Reduce};
use crate::error::AnalysisError;
use crate::integrated::quadrature::Quadrature;
use crate::patching::groups::GroupOutcome;
use crate::patching::pass_cost::Costs;
use crate::run::batch::{PromptBatch, batches};
use crate::run::checkpoint::{Checkpoint, PlannedWork, WorkId};
use crate::run::cost::Cost;
use crate::run::execution::Execution;
use crate::run::fit::{catch_device_faults, ensure_healthy};
use crate::run::question::{Direction, Question};
use crate::run::record::{baselines, check_pairs, effect_scale};
use crate::run::transfer::to_vecs;

/// The runs at which edge attribution takes gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GradientsAt {
    /// The base run: EAP (Syed et al. 2023).
    Base,
    /// Runs from embeddings on the line from the corrupted run to the clean run: EAP-IG on inputs
    /// (Hanna et al. 2024).
    Inputs(Quadrature),
    /// Base runs in which the embedding, the output of one attention layer or the output of one MLP
    /// is between its values in the corrupted and in the clean run: EAP-IG on activations. Every
    /// run counts for all edges. The output is a constant in its run: no gradient passes through
    /// it.
    Activations(Quadrature),
}

impl GradientsAt {
    /// Returns the number of runs at which gradients are taken, in a model of this many layers.
    #[must_use]
    pub fn n_gradients(self, n_layers: usize) -> usize {
        match self {
            GradientsAt::Base => 1,
            GradientsAt::Inputs(line) => line.steps,
            // A line for the embedding, and for the heads and the MLP of each layer.
            GradientsAt::Activations(line) => line.steps * (1 + 2 * n_layers),
        }
    }
}

/// Returns the estimated effect of every edge of the model:
/// `(source - base output of the writer) . gradient of the metric at the reader's input`, summed
/// over positions.
///
/// Signs and effect scale are those of
/// [`activation_patching`](crate::patching::activation_patching). EAP-IG's own scores are of a loss
/// and have the other sign. With [`GradientsAt::Base`], the effects of all edges out of a head sum
/// to the head's attribution. A norm after attention is linearized at the base run. With a
/// [backward rule](Question::by_rule), the numbers that it passes back stand in the place of the
/// gradients, and the norms of edges have constant scales if the rule holds them.
///
/// The gradient goes back from each reader's input through its weights and its norm once, not once
/// per edge. All edges into one layer are one matmul.
///
/// # Memory
/// Each thread holds `4 * pos * n_writers * d_model` bytes per prompt of its batch, beside the
/// activations of three runs and one backward pass; `pos` counts positions from the first different
/// one on. The effects take `4 * n_writers * n_readers` bytes: per prompt if they are kept per
/// prompt, else per batch of [`Execution::gradient_batch`] prompts until the batches are summed.
///
/// # Errors
/// As [`attribution_patching`](crate::attribution::attribution_patching), and the errors of
/// [`Quadrature::nodes`].
pub fn attribute_all_edges<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    at: GradientsAt,
    reduce: Reduce,
    direction: Direction,
    execution: &Execution,
) -> Result<EdgeEffects, AnalysisError> {
    let Question { pairs, metric, scale, .. } = question;
    check_pairs(model, pairs)?;
    let estimation = Estimation::new(model, question, at, reduce, direction)?;
    catch_device_faults::<B, _>(&model.device(), || {
        let size = execution.gradient_batch_size::<B>(pairs.len(), &model.device());
        let batched = batches(pairs, metric, size)?;
        let costs = Costs::of(model);
        let planned = |batch: PromptBatch| PlannedWork {
            id: estimation.id(&batch),
            cost: costs.whole_run(&batch, batch.first_difference) * (3.0 * estimation.n_gradients() as f64),
            setup: Cost::default(),
        };
        execution.checkpoint.begin(&|| batched.iter().map(&planned).collect());
        // Along a line, the gradient does not vanish on all runs.
        let linearity = matches!(at, GradientsAt::Base).then_some(Linearity {
            method: "edge attribution",
            at: direction,
            has_other_direction: true,
        });
        let work = |batch: &PromptBatch| estimation.resumed(batch, execution.checkpoint);
        let found = by_batch(model, question, linearity, execution, work)?;
        let vanished = found.metrics.vanished(pairs, metric)?;
        let Metrics { base, source, .. } = found.metrics;
        let baselines = baselines(direction, base, source);
        let factor = effect_scale(&baselines, scale)?;
        let values = join(found.parts, reduce, factor, pairs.len());
        let graph = estimation.graph;
        check(&graph, &values, reduce)?;
        let method = Method::AttributionPatching;
        Ok(EdgeEffects { graph, method, direction, scale, metric: metric.name(), baselines, vanished, values })
    })
}

/// Returns the estimated effect of each of these edges, `[prompt, edge]`, as
/// [`attribute_all_edges`] does. It estimates all edges of each prompt, because chosen edges would
/// not take less time.
///
/// # Errors
/// As [`attribute_all_edges`], and [`AnalysisError::NoSuchEdge`] for an edge that the model lacks.
pub fn attribute_edges<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    edges: &[Edge],
    at: GradientsAt,
    direction: Direction,
    execution: &Execution,
) -> Result<GroupOutcome, AnalysisError> {
    let graph = EdgeGraph::new(model.config());
    edges.iter().try_for_each(|edge| graph.place(edge).map(|_| ()))?;
    let found = attribute_all_edges(model, question, at, Reduce::PerPrompt, direction, execution)?;
    let values = found.of(edges)?;
    let EdgeEffects { direction, scale, metric, baselines, vanished, .. } = found;
    Ok(GroupOutcome { direction, scale, metric, baselines, vanished, values })
}

/// Joins the estimates of all batches: concatenates them, or adds the sums into the mean.
fn join(parts: Vec<Array3<f32>>, reduce: Reduce, factor: f64, prompts: usize) -> Array3<f32> {
    // Adding 0 turns -0 into 0.
    match reduce {
        Reduce::PerPrompt => {
            let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
            let all = concatenate(Dimension(0), &views).expect("batches that differ in their prompts alone");
            all.mapv(|value| (f64::from(value) * factor) as f32 + 0.0)
        }
        Reduce::Mean => {
            let sum = parts.into_iter().map(|part| part.mapv(f64::from)).reduce(|sum, part| sum + part);
            sum.unwrap_or_default().mapv(|sum| (sum * factor / prompts.max(1) as f64) as f32 + 0.0)
        }
    }
}

/// Refuses effects `[prompt, writer, reader]` that are not finite.
fn check(graph: &EdgeGraph, values: &Array3<f32>, reduce: Reduce) -> Result<(), AnalysisError> {
    let Some(((prompt, writer, reader), &value)) = values.indexed_iter().find(|(_, value)| !value.is_finite()) else {
        return Ok(());
    };
    let what = format!("the estimated effect of the edge {}", graph.edge([writer, reader]));
    Err(AnalysisError::NotFinite { what, value, prompt: (reduce == Reduce::PerPrompt).then_some(prompt), first: None })
}

/// The estimation of all edges on batches of prompts.
struct Estimation<'a, B: Differentiable, M> {
    model: &'a Transformer<B>,
    metric: &'a M,
    backward: BackwardRule,
    graph: EdgeGraph,
    at: GradientsAt,
    /// The places between the source run (0) and the base run (1), with their weights.
    line: Vec<(f64, f64)>,
    reduce: Reduce,
    direction: Direction,
}

/// Effects of the edges of each group of readers, still on the device.
type Sums<B> = Vec<Tensor<<B as burn::tensor::backend::AutodiffBackend>::InnerBackend, 1>>;

impl<'a, B: Differentiable, M: Metric> Estimation<'a, B, M> {
    fn new(
        model: &'a Transformer<B>,
        question: Question<'a, M>,
        at: GradientsAt,
        reduce: Reduce,
        direction: Direction,
    ) -> Result<Self, AnalysisError> {
        let line = match at {
            GradientsAt::Base => Vec::new(),
            GradientsAt::Inputs(quadrature) | GradientsAt::Activations(quadrature) => {
                let place = |at: f64| match direction {
                    Direction::Noising => at,
                    Direction::Denoising => 1.0 - at,
                };
                quadrature.nodes()?.into_iter().map(|node| (place(node.at), node.weight)).collect()
            }
        };
        let Question { metric, backward, .. } = question;
        Ok(Self { model, metric, backward, graph: EdgeGraph::new(model.config()), at, line, reduce, direction })
    }

    /// Returns the id of a batch in the checkpoint. Its text must stay the same in every version.
    fn id(&self, batch: &PromptBatch) -> WorkId {
        let at = match self.at {
            GradientsAt::Base => "the base run".to_owned(),
            GradientsAt::Inputs(Quadrature { rule, steps }) => format!("inputs, {rule} {steps}"),
            GradientsAt::Activations(Quadrature { rule, steps }) => format!("activations, {rule} {steps}"),
        };
        let (direction, reduce) = (self.direction, self.reduce);
        let backward = by_rule(self.backward);
        let plan = format!("edges {direction} at {at}, {reduce}, {} prompts{backward}", batch.prompts.len());
        WorkId::new(batch.prompts[0], 0, &plan)
    }

    /// Returns the number of gradients that a batch takes.
    fn n_gradients(&self) -> usize {
        self.at.n_gradients(self.model.config().n_layers)
    }

    /// Returns a batch's estimates and metrics from the checkpoint, or computes and stores them.
    /// Returns `None` if another process computes them.
    fn resumed(
        &self,
        batch: &PromptBatch,
        checkpoint: &dyn Checkpoint,
    ) -> Result<Option<Estimated<Array3<f32>>>, AnalysisError> {
        let (id, prompts) = (self.id(batch), batch.prompts.len());
        let shape = self.shape(prompts);
        let size = shape.0 * shape.1 * shape.2;
        if let Some(mut kept) = checkpoint.load(id).filter(|kept| kept.len() == size + 3 * prompts) {
            let slope = kept.split_off(size + 2 * prompts);
            let source = kept.split_off(size + prompts);
            let base = kept.split_off(size);
            let values = Array3::from_shape_vec(shape, kept).expect("a number for each place");
            return Ok(Some((values, Metrics { base, source, slope })));
        }
        if !checkpoint.takes(id) {
            return Ok(None);
        }
        let (values, metrics) = self.batch(batch)?;
        let of_metric = [&metrics.base, &metrics.source, &metrics.slope];
        let numbers: Vec<f32> = values.iter().chain(of_metric.into_iter().flatten()).copied().collect();
        ensure_healthy::<B>(&self.model.device())?;
        checkpoint.store(id, &numbers).map_err(AnalysisError::Checkpoint)?;
        Ok(Some((values, metrics)))
    }

    fn shape(&self, prompts: usize) -> (usize, usize, usize) {
        let kept = if self.reduce == Reduce::PerPrompt { prompts } else { 1 };
        (kept, self.graph.n_writers(), self.graph.n_readers())
    }

    /// Estimates the edges on a batch.
    fn batch(&self, batch: &PromptBatch) -> Result<Estimated<Array3<f32>>, AnalysisError> {
        let Self { model, metric, direction, .. } = *self;
        let config = model.config();
        let linear = linearize(model, metric, self.backward, batch, direction, self.points_of_base())?;
        let written = written(model, &linear)?;
        let effects = |run: &Linearized<B>| effects(model, &self.graph, run, &written, self.reduce);
        let mut slope = linear.slope.clone();
        let mut sums: Option<Sums<B>> = None;
        let mut add = |run: &Linearized<B>, weight: f64| -> Result<(), AnalysisError> {
            let found = effects(run)?.into_iter().map(|effects| effects * weight);
            sums = Some(match sums.take() {
                None => found.collect(),
                Some(sums) => sums.into_iter().zip(found).map(|(sum, effects)| sum + effects).collect(),
            });
            slope = slope.clone().max_pair(run.slope.clone());
            Ok(())
        };
        match self.at {
            GradientsAt::Base => add(&linear, 1.0)?,
            GradientsAt::Inputs(_) => {
                for &(at, weight) in &self.line {
                    add(&self.interpolated_inputs(&linear, batch, at)?, weight)?;
                }
            }
            GradientsAt::Activations(_) => {
                let outputs = (2 * config.n_layers + 1) as f64;
                for &(at, weight) in &self.line {
                    add(&self.interpolated_inputs(&linear, batch, at)?, weight / outputs)?;
                    for layer in 0..config.n_layers {
                        for site in [Site::AttnOut, Site::MlpOut] {
                            let point = HookPoint::block(layer, site);
                            add(&self.interpolated_output(&linear, batch, point, at)?, weight / outputs)?;
                        }
                    }
                }
            }
        }
        // Read everything in one transfer: until then the device only queues operations.
        let metrics = [linear.base_metric.clone(), linear.source_metric.clone(), slope];
        let mut read = to_vecs(sums.unwrap_or_default().into_iter().chain(metrics).collect());
        let [slope, source, base] = [(); 3].map(|()| read.pop().unwrap_or_default());
        let metrics = Metrics { base, source, slope };
        metrics.check(&model.valid(), metric.name(), batch, direction)?;
        Ok((self.table(read, batch.prompts.len()), metrics))
    }

    /// The points of the base and source runs. Gradients of the base run count only for EAP.
    fn points_of_base(
        &self,
    ) -> Points<
        impl Fn(HookPoint) -> bool + Clone + Send + Sync + 'static,
        impl Fn(HookPoint) -> bool + Send + Sync + 'static,
    > {
        let (Points { recorded, probed }, at) = (self.points(), self.at);
        Points { recorded, probed: move |point: HookPoint| at == GradientsAt::Base && probed(point) }
    }

    /// The points to record and to differentiate.
    fn points(
        &self,
    ) -> Points<
        impl Fn(HookPoint) -> bool + Clone + Send + Sync + 'static,
        impl Fn(HookPoint) -> bool + Send + Sync + 'static,
    > {
        let (sites, config) = (recorded(self.model.config()), self.model.config().clone());
        Points {
            recorded: move |point: HookPoint| point.site().is_some_and(|site| sites.contains(&site)),
            probed: move |point: HookPoint| is_probed(&config, point),
        }
    }

    /// Differentiates a run from embeddings on the line from the source run to the base run.
    fn interpolated_inputs(
        &self,
        linear: &Linearized<B>,
        batch: &PromptBatch,
        at: f64,
    ) -> Result<Linearized<B>, AnalysisError> {
        let embedded = between(linear, HookPoint::block(0, Site::ResidPre), at)?;
        self.differentiated(linear, batch, Run::from_residual(0, embedded), ())
    }

    /// Differentiates the base run with the output of an attention layer or an MLP on the line from
    /// the source run to the base run.
    fn interpolated_output(
        &self,
        linear: &Linearized<B>,
        batch: &PromptBatch,
        point: HookPoint,
        at: f64,
    ) -> Result<Linearized<B>, AnalysisError> {
        let mut patch = Patch::new().replace(point, between(linear, point, at)?);
        let [base, _] = batch.base_and_source(self.direction);
        let rest: Vec<Vec<u32>> = base.iter().map(|tokens| tokens[linear.first..].to_vec()).collect();
        let found = self.differentiated(linear, batch, Run::tokens(self.model.tokens(&rest)?), &mut patch)?;
        patch.finish()?;
        Ok(found)
    }

    fn differentiated(
        &self,
        linear: &Linearized<B>,
        batch: &PromptBatch,
        run: Run<B>,
        patch: impl Hook<B>,
    ) -> Result<Linearized<B>, AnalysisError> {
        let run = run.with_readout(batch.readout.clone()).with_backward(self.backward);
        let run = match &linear.prefix {
            Some(prefix) => run.with_prefix(prefix.clone()),
            None => run,
        };
        let Differentiated { cache, gradients, metric, slope } =
            differentiate(self.model, self.metric, batch, run, patch, self.points())?;
        Ok(Linearized {
            first: linear.first,
            prefix: linear.prefix.clone(),
            base: cache,
            source: ActivationCache::new(),
            gradients,
            base_metric: metric,
            source_metric: linear.source_metric.clone(),
            slope,
            backward: self.backward,
        })
    }

    /// Shapes the numbers of all groups of readers as `[prompt, writer, reader]`.
    fn table(&self, groups: Vec<Vec<f32>>, prompts: usize) -> Array3<f32> {
        let mut values = Array3::zeros(self.shape(prompts));
        let heads = (0..self.graph.n_layers()).map(|layer| self.graph.heads_of(layer));
        let groups_of_readers = heads.flat_map(|heads| [heads.clone(), heads.end..heads.end + 1]);
        let logits = self.graph.n_readers() - 1;
        let all = groups_of_readers.chain(std::iter::once(logits..logits + 1));
        for (readers, numbers) in all.zip(groups) {
            let mut numbers = numbers.into_iter();
            for mut of_prompt in values.outer_iter_mut() {
                for reader in readers.clone() {
                    for writer in 0..self.graph.n_writers_to(reader) {
                        of_prompt[[writer, reader]] = numbers.next().unwrap_or_default();
                    }
                }
            }
        }
        values
    }
}

/// Returns an activation on the line from the source run (0) to the base run (1), as a constant.
fn between<B: Differentiable>(
    linear: &Linearized<B>,
    point: HookPoint,
    at: f64,
) -> Result<Tensor<B, 3>, AnalysisError> {
    let base = linear.base.get::<3>(point)?.inner();
    let mixed = linear.difference::<3>(point)? * (1.0 - at) + to_f32(base.clone());
    Ok(Tensor::from_inner(cast_like(mixed, &base)))
}
