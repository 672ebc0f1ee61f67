//! Exact activation patching that computes only the activations that a patch can change.
//!
//! A patch of one node changes the residual stream by a known amount
//! ([`delta`](crate::patching::delta)). This allows four savings:
//!
//! - The run starts where the change enters, at the first position that it changes.
//! - Earlier positions take their keys and values from the base run.
//! - The last block computes queries and MLP only at the positions that the metric reads.
//! - Patches that start at one place run in one batch ([`plan`](crate::patching::plan)).

use crate::node::index::effect_index;
use crate::run::record::{baselines, run_baselines};
use std::collections::BTreeSet;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::ArrayD;
use rewire_hooks::HookPoint;
use rewire_model::{LastBlock, Prefix, Run, Transformer};
use rewire_tasks::Metric;

use crate::effects::{Baselines, Method, Outcome, join};
use crate::error::AnalysisError;
use crate::node::index::{NodeIndex, count, no_effects};
use crate::node::kind::{Node, NodeKind};
use crate::patching::delta::{Deltas, reads_of_base, reads_of_source};
use crate::patching::pass_cost::Costs;
use crate::patching::plan::{Entry, EntryGroup, PlannedPass, UnitSlice, plan};
use crate::patching::reference;
use crate::run::batch::{PromptBatch, PromptBatches};
use crate::run::checkpoint::{PlannedWork, WorkId};
use crate::run::execution::{Execution, Reuse};
use crate::run::finite::{Watch, check_changed, check_effects};
use crate::run::fit::{MemoryLimiter, catch_device_faults, ensure_healthy};
use crate::run::intervention::{Intervention, batches_for};
use crate::run::question::{Direction, Question};
use crate::run::record::{Recorded, check, effect_scale, evaluate, record};
use crate::run::transfer::to_vecs;
use crate::run::workers;

/// Returns the effect of every node of the given kinds: the change of `metric` when the base run
/// takes the node's activation from the source run (Vig et al. 2020; Meng et al. 2022).
///
/// Effects are exact and per prompt, `[prompt, layer, ..]`. `direction` says which run is the base
/// run. `question` sets the metric and the effect scale.
///
/// # Errors
/// Returns an [`AnalysisError`] for an empty list of nodes, nodes that the model does not have,
/// pairs that it cannot run, or baselines that coincide.
pub fn activation_patching<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    nodes: &[NodeKind],
    direction: Direction,
    execution: &Execution,
) -> Result<Outcome, AnalysisError> {
    sweep(model, question, nodes, SweepTarget::resampled(direction), execution)
}

/// The replacement that a sweep uses, and the nodes that it replaces.
pub(crate) struct SweepTarget<'a, B: Backend> {
    pub(crate) direction: Direction,
    pub(crate) intervention: &'a Intervention<B>,
    /// If set, only these nodes are patched; the effects of all others are NaN.
    pub(crate) only: Option<&'a BTreeSet<NodeIndex>>,
}

impl<B: Backend> SweepTarget<'_, B> {
    /// Targets every node, with its activation from the other run of the pair.
    pub(crate) fn resampled(direction: Direction) -> Self {
        Self { direction, intervention: &Intervention::Resample, only: None }
    }
}

/// Returns the change of the metric when each node is replaced.
pub(crate) fn sweep<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    nodes: &[NodeKind],
    target: SweepTarget<B>,
    execution: &Execution,
) -> Result<Outcome, AnalysisError> {
    check(model, question.pairs, nodes)?;
    target.intervention.check(nodes, model.config())?;
    catch_device_faults::<B, _>(&model.device(), || sweep_within(model, question, nodes, &target, execution))
}

/// Runs [`sweep`] after its arguments are validated.
fn sweep_within<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    nodes: &[NodeKind],
    target: &SweepTarget<B>,
    execution: &Execution,
) -> Result<Outcome, AnalysisError> {
    let Question { pairs, metric, scale, .. } = question;
    let SweepTarget { direction, intervention, only } = *target;
    let method = Method::ActivationPatching;
    let config = model.config();
    let batches = batches_for(intervention, pairs, metric, execution.prompt_batch)?;
    let single = (batches.len() == 1).then(|| batches.get(0));
    let (mut cached, baselines) = unpatched(model, metric, nodes, target, (&batches, single.as_ref()), execution)?;
    let factor = baselines.as_ref().map(|found| effect_scale(found, scale)).transpose()?;

    let all: usize = nodes.iter().map(|kind| count(*kind, config, pairs.width())).sum();
    let total = pairs.len() * only.map_or(all, BTreeSet::len);
    let mut done = 0;
    (execution.progress)(done, total);
    let mut changes = Vec::new();
    let mut is_complete = true;
    for batch in batches.iter() {
        let batch = &batch;
        let mut values: Vec<_> =
            nodes.iter().map(|kind| no_effects(*kind, config, batch.pairs.len(), pairs.width())).collect();
        match execution.reuse {
            Reuse::Nothing => {
                reference::sweep(model, metric, batch, nodes, intervention, direction, &mut values)?;
            }
            Reuse::Everything => {
                let sweep = match cached.take() {
                    Some((sweep, pair)) => (sweep, Some(pair)),
                    None => (Sweep::new(model, metric, batch, nodes, target, execution), None),
                };
                let made: usize = sweep.0.passes.iter().map(PlannedPass::variants).sum::<usize>() * batch.pairs.len();
                done += total * batch.pairs.len() / pairs.len() - made;
                is_complete &= patch(sweep, baselines.as_ref(), target, execution, &mut values, |patches| {
                    done += patches;
                    (execution.progress)(done, total);
                })?;
            }
        }
        for (kind, values) in nodes.iter().zip(&values) {
            check_effects(&method.to_string(), *kind, batch.prompts[0], values)?;
        }
        if let Some(only) = only {
            mask_unselected(&mut values, only);
        }
        changes.push(values);
    }
    (execution.progress)(total, total);
    let (Some(baselines), Some(factor), true) = (baselines, factor, is_complete) else {
        return Err(AnalysisError::PassesLeft);
    };
    Ok(Outcome {
        method,
        direction,
        scale,
        metric: metric.name(),
        baselines,
        vanished: Vec::new(),
        effects: join(method, nodes, changes, factor, pairs)?,
    })
}

/// Announces the passes, and returns the metric on the unpatched runs; `None` if other processes
/// compute them. Baselines that coincide are refused before the first patch.
///
/// A single prompt batch reuses its two runs for the patches; they are returned, too. Several
/// batches repeat these runs, because memory cannot hold the runs of all batches.
fn unpatched<'a, B: Backend, M: Metric>(
    model: &'a Transformer<B>,
    metric: &'a M,
    nodes: &'a [NodeKind],
    target: &SweepTarget<B>,
    (batches, single): (&PromptBatches, Option<&'a PromptBatch>),
    execution: &Execution,
) -> Result<Unpatched<'a, B, M>, AnalysisError> {
    let begin = || {
        if execution.reuse == Reuse::Everything {
            let of_batch = |batch: PromptBatch| Sweep::new(model, metric, &batch, nodes, target, execution).planned();
            execution.checkpoint.begin(&|| batches.iter().flat_map(&of_batch).collect());
        }
    };
    match (single, target.intervention) {
        (Some(single), Intervention::Resample) if execution.reuse == Reuse::Everything => {
            let sweep = Sweep::new(model, metric, single, nodes, target, execution);
            begin();
            if !sweep.is_ours(execution) {
                return Err(AnalysisError::PassesLeft);
            }
            let runs = sweep.pair(target)?;
            let found = baselines(target.direction, runs.base.metric.clone(), runs.source.metric.clone());
            Ok((Some((sweep, runs)), Some(found)))
        }
        _ => {
            let costs = Costs::of(model);
            let cost = |batch: &PromptBatch| costs.whole_run(batch, 0) * 2.0;
            let found = run_baselines(model, metric, batches, execution, cost)?;
            begin();
            Ok((None, found))
        }
    }
}

/// The two runs of a single prompt batch with its sweep, and the baselines of all prompts.
type Unpatched<'a, B, M> = (Option<(Sweep<'a, B, M>, Pair<B>)>, Option<Baselines>);

/// Makes the patches of one prompt batch. Makes the unpatched runs only if `pair` is absent and the
/// checkpoint lacks a pass that this process takes. Returns whether every pass is finished.
fn patch<B: Backend, M: Metric>(
    (sweep, pair): (Sweep<'_, B, M>, Option<Pair<B>>),
    baselines: Option<&Baselines>,
    target: &SweepTarget<B>,
    execution: &Execution,
    values: &mut [ArrayD<f32>],
    progress: impl FnMut(usize),
) -> Result<bool, AnalysisError> {
    let pair = match pair {
        None if sweep.has_work(execution) => Some(sweep.pair(target)?),
        pair => pair,
    };
    let prompts = &sweep.batch.prompts;
    let base_metric = match (baselines, &pair, target.direction) {
        (Some(found), _, Direction::Denoising) => &found.corrupted[prompts[0]..][..prompts.len()],
        (Some(found), _, Direction::Noising) => &found.clean[prompts[0]..][..prompts.len()],
        (None, Some(pair), _) => &pair.base.metric,
        (None, None, _) => return Ok(false),
    };
    Patches { sweep: &sweep, pair: pair.as_ref(), base_metric }.run(execution, values, progress)
}

/// Sets the effects of nodes that are not in `only` to NaN.
fn mask_unselected(values: &mut [ArrayD<f32>], only: &BTreeSet<NodeIndex>) {
    for (kind, values) in values.iter_mut().enumerate() {
        for (index, value) in values.indexed_iter_mut() {
            let place = NodeIndex { kind, index: ndarray::Dimension::slice(&index)[1..].to_vec() };
            if !only.contains(&place) {
                *value = f32::NAN;
            }
        }
    }
}

/// The passes over one prompt batch.
struct Sweep<'a, B: Backend, M> {
    model: &'a Transformer<B>,
    metric: &'a M,
    batch: &'a PromptBatch,
    nodes: &'a [NodeKind],
    direction: Direction,
    /// Name of the intervention.
    by: &'static str,
    /// Whether the caller gives the replacements. Given activations can make the residual stream
    /// overflow.
    is_given: bool,
    passes: Vec<PlannedPass>,
}

/// The unpatched runs that patches read.
struct Pair<B: Backend> {
    base: Recorded<B>,
    source: Recorded<B>,
}

/// The patches of a sweep over one prompt batch.
struct Patches<'a, B: Backend, M> {
    sweep: &'a Sweep<'a, B, M>,
    /// The unpatched runs; absent if the checkpoint has every pass.
    pair: Option<&'a Pair<B>>,
    /// The metric of the base run, per prompt.
    base_metric: &'a [f32],
}

impl<'a, B: Backend, M: Metric> Sweep<'a, B, M> {
    fn new(
        model: &'a Transformer<B>,
        metric: &'a M,
        batch: &'a PromptBatch,
        nodes: &'a [NodeKind],
        target: &SweepTarget<B>,
        execution: &Execution,
    ) -> Self {
        let layers = execution.layers::<B>(&model.device());
        let passes = plan(nodes, model.config(), batch, target.only, execution.token_budget, layers);
        let by = target.intervention.name();
        let is_given = matches!(target.intervention, Intervention::Fixed(_));
        Self { model, metric, batch, nodes, direction: target.direction, by, is_given, passes }
    }

    /// Runs the prompts unpatched and records the activations that patches read.
    fn pair(&self, target: &SweepTarget<B>) -> Result<Pair<B>, AnalysisError> {
        let Self { model, metric, batch, nodes, .. } = *self;
        let config = model.config();
        let [base, _] = batch.base_and_source(target.direction);
        let (kinds, shape, width) = (nodes.to_vec(), config.clone(), batch.pairs.width());
        let base = record(model, &base, batch, metric, move |p: HookPoint| reads_of_base(&kinds, &shape, width, p))?;
        let (kinds, shape) = (nodes.to_vec(), config.clone());
        let accepts = move |p: HookPoint| reads_of_source(&kinds, &shape, p);
        let source = target.intervention.source(model, metric, batch, target.direction, accepts)?;
        Ok(Pair { base, source })
    }

    /// Returns the id of a pass in the checkpoint.
    fn id(&self, number: usize) -> WorkId {
        let plan = format!("{} by {} {}", self.direction, self.by, self.passes[number].describe(self.nodes));
        WorkId::new(self.batch.prompts[0], number, &plan)
    }

    /// Returns all passes with their costs.
    fn planned(&self) -> Vec<PlannedWork> {
        let costs = Costs::of(self.model);
        let setup = costs.whole_run(self.batch, 0) * 2.0;
        let of_pass = |number: usize| PlannedWork {
            id: self.id(number),
            cost: costs.pass(&self.passes[number], self.batch),
            setup,
        };
        (0..self.passes.len()).map(of_pass).collect()
    }

    /// Returns the metrics of a pass, if the checkpoint has them.
    fn kept(&self, number: usize, execution: &Execution) -> Option<Vec<f32>> {
        let expected = self.passes[number].variants() * self.batch.prompts.len();
        execution.checkpoint.load(self.id(number)).filter(|metrics| metrics.len() == expected)
    }

    /// Returns whether this process must run a pass: one that it takes and the checkpoint lacks.
    fn has_work(&self, execution: &Execution) -> bool {
        let is_work = |number| execution.checkpoint.takes(self.id(number)) && self.kept(number, execution).is_none();
        (0..self.passes.len()).any(is_work)
    }

    /// Returns whether this process takes a pass, or there is none, or the checkpoint has one.
    fn is_ours(&self, execution: &Execution) -> bool {
        let is_ours = |number| execution.checkpoint.takes(self.id(number)) || self.kept(number, execution).is_some();
        self.passes.is_empty() || (0..self.passes.len()).any(is_ours)
    }
}

impl<B: Backend, M: Metric> Patches<'_, B, M> {
    /// Makes the passes that this process takes, and writes the changes of the metric in all
    /// finished passes into `changes`, one array `[prompt, layer, ..]` per kind. Returns whether
    /// every pass is finished.
    fn run(
        &self,
        execution: &Execution,
        changes: &mut [ArrayD<f32>],
        mut progress: impl FnMut(usize),
    ) -> Result<bool, AnalysisError> {
        let Sweep { model, batch, .. } = *self.sweep;
        let passes = &self.sweep.passes;
        let workers = execution.workers::<B>(&model.device());
        let limiter = MemoryLimiter::new(model, batch, execution, "patches in one batch");
        let work = |number: usize| {
            let planned = &passes[number];
            match (self.sweep.kept(number, execution), self.pair) {
                (None, _) if !execution.checkpoint.takes(self.sweep.id(number)) => Ok(None),
                (None, Some(pair)) => {
                    let size = batch.size_from(planned.first);
                    let part = |patches| self.pass(pair, &planned.part(patches));
                    let metrics = self.check(planned, limiter.run(0..planned.variants(), size, part)?)?;
                    ensure_healthy::<B>(&model.device())?;
                    execution.checkpoint.store(self.sweep.id(number), &metrics).map_err(AnalysisError::Checkpoint)?;
                    Ok(Some(metrics))
                }
                (Some(metrics), _) => self.check(planned, metrics).map(Some),
                (None, None) => Err(AnalysisError::Checkpoint(std::io::Error::other(
                    "the checkpoint no longer has a finished pass; run the sweep again",
                ))),
            }
        };
        let mut is_complete = true;
        workers::run(passes.len(), workers, work, |number, metrics| {
            match metrics {
                Some(metrics) => {
                    self.write(&passes[number], &metrics, changes);
                    progress(metrics.len());
                }
                None => is_complete = false,
            }
            Ok(())
        })?;
        Ok(is_complete)
    }

    /// Refuses metrics that are not finite.
    fn check(&self, pass: &PlannedPass, metrics: Vec<f32>) -> Result<Vec<f32>, AnalysisError> {
        let replaced = |patch: usize| {
            let slice = pass.part(patch..patch + 1).slices().next().cloned();
            slice.map_or_else(String::new, |UnitSlice { kind, layer, positions, units }| {
                let kind = self.sweep.nodes[kind];
                let unit = kind.unit_axis().map(|_| units.start);
                format!("{} replaced", Node { layer, component: kind.component, unit, positions })
            })
        };
        check_changed(self.sweep.metric.name(), &self.sweep.batch.prompts, &metrics, replaced)?;
        Ok(metrics)
    }

    /// Returns the metric, patch by patch and prompt by prompt.
    ///
    /// The metric is exactly the base run's if the entering stream equals the base run's stream at
    /// every position that the metric depends on.
    fn pass(&self, pair: &Pair<B>, pass: &PlannedPass) -> Result<Vec<f32>, AnalysisError> {
        let Sweep { model, metric, batch, nodes, is_given, .. } = *self.sweep;
        let deltas = Deltas { model, batch, base: &pair.base.cache, source: &pair.source.cache };
        let mut starts = Vec::with_capacity(pass.parts.len());
        let mut all_sizes = Vec::with_capacity(pass.slices().count());
        for EntryGroup { entry, slices } in &pass.parts {
            let entering = |slice: &UnitSlice| deltas.entering(slice, nodes[slice.kind].component, *entry, pass.first);
            let entering = slices.iter().map(entering).collect::<Result<Vec<_>, _>>()?;
            let (mut residuals, sizes): (Vec<Tensor<B, 3>>, Vec<_>) = entering.into_iter().unzip();
            all_sizes.extend(sizes);
            let residual = if residuals.len() == 1 { residuals.remove(0) } else { Tensor::cat(residuals, 0) };
            starts.push(entry.start(residual));
        }
        let joining = starts.split_off(1);
        let variants = pass.variants();
        let mut run = Run::new(starts.remove(0))
            .with_joining(joining)
            .with_readout(batch.readout.repeated(variants))
            .with_last_block(LastBlock::ReadPositions);
        if pass.first > 0 {
            run = run.with_prefix(Prefix::from_cache(&pair.base.cache, model.config(), pass.first)?);
        }
        let prompts = batch.prompts.repeat(variants);
        let metrics = match is_given {
            true => {
                let mut watch = Watch::new();
                let logits = model.forward(run, &mut watch)?;
                watch.mark(evaluate(metric, logits, &prompts))
            }
            false => evaluate(metric, model.forward(run, ())?, &prompts),
        };
        let mut read = to_vecs(vec![metrics, Tensor::cat(all_sizes, 0)]);
        let [sizes, mut metrics] = [(); 2].map(|()| read.pop().unwrap_or_default());
        self.keep_still(pass, &sizes, &mut metrics);
        Ok(metrics)
    }

    /// Sets the metric of rows that enter unchanged to the base run's metric, because a run of
    /// another shape would round differently.
    ///
    /// `sizes` are the sizes of the changes, `[row * pos]`.
    fn keep_still(&self, pass: &PlannedPass, sizes: &[f32], metrics: &mut [f32]) {
        let (n_prompts, pos) = (self.sweep.batch.prompts.len(), self.sweep.batch.pairs.width() - pass.first);
        let last = Entry::Mid(self.sweep.model.config().n_layers - 1).depth();
        let depths = pass.parts.iter().flat_map(|p| std::iter::repeat_n(p.entry.depth(), p.variants() * n_prompts));
        for (row, ((depth, sizes), metric)) in depths.zip(sizes.chunks(pos)).zip(metrics).enumerate() {
            let prompt = row % n_prompts;
            let batch = self.sweep.batch;
            // After attention of the last block, logits at a position depend on that position
            // alone.
            let is_still = match depth >= last {
                true => batch.reads(prompt).iter().all(|read| sizes[read - pass.first] == 0.0),
                false => sizes[..=batch.last_read(prompt) - pass.first].iter().all(|size| *size == 0.0),
            };
            if is_still {
                *metric = self.base_metric[prompt];
            }
        }
    }

    fn write(&self, pass: &PlannedPass, metrics: &[f32], changes: &mut [ArrayD<f32>]) {
        let n_prompts = self.sweep.batch.prompts.len();
        let mut rows = metrics.iter();
        for slice in pass.slices() {
            let kind = self.sweep.nodes[slice.kind];
            for unit in slice.units.clone() {
                for (prompt, metric) in rows.by_ref().take(n_prompts).enumerate() {
                    let (component, config) = (kind.component, self.sweep.model.config());
                    if self.sweep.batch.can_matter(prompt, component, slice.layer, config, &slice.positions) {
                        let unit = kind.unit_axis().map(|_| unit);
                        let index = effect_index(prompt, slice.layer, unit, &slice.positions);
                        changes[slice.kind][index.as_slice()] = metric - self.base_metric[prompt];
                    }
                }
            }
        }
    }
}
