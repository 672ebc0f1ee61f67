//! Patches several nodes at once.

use crate::node::kind::named;
use std::collections::BTreeSet;
use std::ops::Range;

use burn::tensor::backend::Backend;
use ndarray::{Array1, Array2, Axis as Dimension};
use rewire_hooks::{ActivationCache, HookPoint, Site};
use rewire_model::{LastBlock, Prefix, Run, Transformer};
use rewire_tasks::{Metric, PromptPairs};

use crate::effects::Baselines;
use crate::error::AnalysisError;
use crate::node::kind::{Node, NodeKind};
use crate::patching::pass_cost::Costs;
use crate::patching::plan::{Entry, PlannedPass, at_once};
use crate::patching::reference;
use crate::run::batch::PromptBatch;
use crate::run::checkpoint::{PlannedWork, WorkId};
use crate::run::cost::Cost;
use crate::run::execution::{Execution, Reuse};
use crate::run::finite::{Watch, check_changed};
use crate::run::fit::{MemoryLimiter, catch_device_faults, ensure_healthy};
use crate::run::intervention::{Intervention, batches_for};
use crate::run::moves::moving;
use crate::run::question::{Direction, Question, Scale};
use crate::run::record::{check_pairs, effect_scale, evaluate, record, run_baselines};
use crate::run::transfer::to_vec;
use crate::run::workers;

/// The effects of groups of nodes, each group patched together.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupOutcome {
    /// Which run was patched.
    pub direction: Direction,
    /// The effect scale.
    pub scale: Scale,
    /// The metric's name.
    pub metric: &'static str,
    /// The metric of the unpatched runs.
    pub baselines: Baselines,
    /// Filled for estimates only, as [`Outcome::vanished`](crate::effects::Outcome::vanished).
    pub vanished: Vec<usize>,
    /// Effects, `[prompt, group]`.
    pub values: Array2<f32>,
}

impl GroupOutcome {
    /// Returns the mean over prompts, `[group]`.
    #[must_use]
    pub fn mean(&self) -> Array1<f32> {
        let sum = self.values.mapv(f64::from).sum_axis(Dimension(0));
        sum.mapv(|total| (total / self.values.nrows().max(1) as f64) as f32)
    }
}

/// Groups that run in one batch, because they start at the same layer and position.
struct GroupPass {
    layer: usize,
    first: usize,
    /// Indices of the groups.
    groups: Vec<usize>,
}

/// Returns the effect of each group: the change of `metric` when the base run takes all nodes of
/// the group from the source run at once.
///
/// Effects are exact. Signs and effect scale are as in
/// [`activation_patching`](crate::patching::engine::activation_patching).
///
/// A group's run starts at its lowest layer and at the first position that differs. Groups that
/// start at the same layer and position run in one batch. All groups on a batch of prompts are one
/// pass of the checkpoint.
///
/// # Errors
/// Returns the errors of [`activation_patching`](crate::patching::engine::activation_patching), and
/// an error for an empty group or a node outside the model.
pub fn patch_groups<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    groups: &[Vec<Node>],
    direction: Direction,
    execution: &Execution,
) -> Result<GroupOutcome, AnalysisError> {
    replace_groups(model, question, groups, &Intervention::Resample, direction, execution)
}

/// Returns the change of the metric when each group is replaced.
pub(crate) fn replace_groups<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    groups: &[Vec<Node>],
    intervention: &Intervention<B>,
    direction: Direction,
    execution: &Execution,
) -> Result<GroupOutcome, AnalysisError> {
    let Question { pairs, metric, scale, .. } = question;
    check_groups(model, pairs, groups)?;
    let kinds: Vec<NodeKind> = groups.iter().flatten().map(|node| NodeKind::all(node.component)).collect();
    intervention.check(&kinds, model.config())?;
    catch_device_faults::<B, _>(&model.device(), || {
        let batches = batches_for(intervention, pairs, metric, execution.prompt_batch)?;
        let costs = Costs::of(model);
        let of_runs = |batch: &PromptBatch| costs.whole_run(batch, 0) * 2.0;
        let baselines = run_baselines(model, metric, &batches, execution, of_runs)?;
        let factor = baselines.as_ref().map(|found| effect_scale(found, scale)).transpose()?;
        let planned = |batch: &PromptBatch| PlannedWork {
            id: id(groups, intervention, direction, batch),
            cost: of_groups(costs, groups, batch),
            setup: of_runs(batch),
        };
        if execution.reuse == Reuse::Everything {
            execution.checkpoint.begin(&|| batches.iter().map(|batch| planned(&batch)).collect());
        }
        let mut values = Array2::zeros((pairs.len(), groups.len()));
        let mut is_complete = true;
        let total = pairs.len() * groups.len();
        (execution.progress)(0, total);
        for batch in batches.iter() {
            let (from, n_prompts) = (batch.prompts[0], batch.prompts.len());
            let done = from * groups.len();
            let progress = |patches| (execution.progress)(done + patches, total);
            let asked = Asked { model, metric, batch: &batch, intervention, direction };
            let id = id(groups, intervention, direction, &batch);
            let Some(changes) = asked.resumed(id, groups, execution, progress)? else {
                is_complete = false;
                continue;
            };
            for (number, change) in changes.into_iter().enumerate() {
                values[[from + number % n_prompts, number / n_prompts]] = change;
            }
        }
        (execution.progress)(total, total);
        let (Some(baselines), Some(factor), true) = (baselines, factor, is_complete) else {
            return Err(AnalysisError::PassesLeft);
        };
        // Adding 0 turns a negative zero into 0.
        values.mapv_inplace(|change| (f64::from(change) * factor) as f32 + 0.0);
        check_group_effects(groups, &values)?;
        Ok(GroupOutcome { direction, scale, metric: metric.name(), baselines, vanished: Vec::new(), values })
    })
}

/// Returns the id in the checkpoint of the groups' patches on a batch.
fn id<B: Backend>(
    groups: &[Vec<Node>],
    intervention: &Intervention<B>,
    direction: Direction,
    batch: &PromptBatch,
) -> WorkId {
    let names: Vec<String> = groups.iter().map(|group| named(group)).collect();
    let plan =
        format!("groups by {} {direction}, {} prompts: {}", intervention.name(), batch.prompts.len(), names.join("; "));
    WorkId::new(batch.prompts[0], 0, &plan)
}

/// Returns the cost of the groups' patches on a batch: one run for each group, from its lowest
/// layer on.
fn of_groups(costs: Costs, groups: &[Vec<Node>], batch: &PromptBatch) -> Cost {
    let mut by_layer = std::collections::BTreeMap::<usize, usize>::new();
    for layer in groups.iter().filter_map(|group| group.iter().map(|node| node.layer).min()) {
        *by_layer.entry(layer).or_default() += 1;
    }
    let of_layer = |(layer, n): (usize, usize)| {
        costs.pass(&PlannedPass::of_one_entry(Entry::Pre(layer), batch.first_difference, n), batch)
    };
    by_layer.into_iter().map(of_layer).sum()
}

/// The groups' patches on one batch of prompts.
struct Asked<'a, B: Backend, M> {
    model: &'a Transformer<B>,
    metric: &'a M,
    batch: &'a PromptBatch,
    intervention: &'a Intervention<B>,
    direction: Direction,
}

impl<B: Backend, M: Metric> Asked<'_, B, M> {
    /// Returns the change of the metric, group by group and prompt by prompt: from the checkpoint,
    /// or computed and stored. Returns `None` if another process computes it.
    fn resumed(
        &self,
        id: WorkId,
        groups: &[Vec<Node>],
        execution: &Execution,
        progress: impl Fn(usize),
    ) -> Result<Option<Vec<f32>>, AnalysisError> {
        let n_prompts = self.batch.prompts.len();
        let of_batch = |node: &Node| Node {
            positions: node.positions.of_prompts(self.batch.prompts[0], n_prompts),
            ..node.clone()
        };
        let groups: Vec<Vec<Node>> = groups.iter().map(|group| group.iter().map(of_batch).collect()).collect();
        if execution.reuse == Reuse::Nothing {
            let Self { model, metric, batch, intervention, direction } = *self;
            let changes = reference::changes(model, metric, batch, &groups, intervention, direction)?;
            return Ok(Some(changes.into_iter().flatten().collect()));
        }
        let expected = groups.len() * n_prompts;
        if let Some(kept) = execution.checkpoint.load(id).filter(|kept| kept.len() == expected) {
            return Ok(Some(kept));
        }
        if !execution.checkpoint.takes(id) {
            return Ok(None);
        }
        let changes = self.changes(&groups, execution, progress)?;
        ensure_healthy::<B>(&self.model.device())?;
        execution.checkpoint.store(id, &changes).map_err(AnalysisError::Checkpoint)?;
        Ok(Some(changes))
    }

    /// Patches the groups, whose positions are those of the batch.
    fn changes(
        &self,
        groups: &[Vec<Node>],
        execution: &Execution,
        progress: impl Fn(usize),
    ) -> Result<Vec<f32>, AnalysisError> {
        let Self { model, metric, batch, intervention, direction } = *self;
        let n_prompts = batch.prompts.len();
        let runs = CachedRuns::new(model, metric, batch, groups, intervention, direction)?;
        let passes = plan(&runs, execution);
        let limiter = MemoryLimiter::new(model, batch, execution, "groups in one batch");
        let mut changes = vec![0.0; groups.len() * n_prompts];
        let mut done = 0;
        workers::run(
            passes.len(),
            execution.workers::<B>(&model.device()),
            |i| {
                let size = batch.size_from(passes[i].first);
                let metrics = limiter.run(0..passes[i].groups.len(), size, |groups| runs.pass(&passes[i], groups))?;
                let replaced = |copy: usize| format!("{} replaced", named(&groups[passes[i].groups[copy]]));
                check_changed(metric.name(), &batch.prompts, &metrics, replaced)?;
                Ok::<_, AnalysisError>(metrics)
            },
            |i, metrics| {
                for (row, value) in metrics.into_iter().enumerate() {
                    let (group, prompt) = (passes[i].groups[row / n_prompts], row % n_prompts);
                    if runs.moves[group][prompt] {
                        changes[group * n_prompts + prompt] = value - runs.base_metric[prompt];
                    }
                }
                done += passes[i].groups.len() * n_prompts;
                progress(done);
                Ok(())
            },
        )?;
        Ok(changes)
    }
}

/// Refuses effects of groups, `[prompt, group]`, that are not finite.
pub(crate) fn check_group_effects(groups: &[Vec<Node>], effects: &Array2<f32>) -> Result<(), AnalysisError> {
    match effects.indexed_iter().find(|(_, value)| !value.is_finite()) {
        None => Ok(()),
        Some(((prompt, group), &value)) => {
            let what = format!("the effect of {}", named(&groups[group]));
            Err(AnalysisError::NotFinite { what, value, prompt: Some(prompt), first: None })
        }
    }
}

/// Refuses empty groups, and nodes that the model or the prompts do not have.
pub(crate) fn check_groups<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    groups: &[Vec<Node>],
) -> Result<(), AnalysisError> {
    check_pairs(model, pairs)?;
    if groups.is_empty() {
        return Err(AnalysisError::NoNodes);
    }
    if let Some(group) = groups.iter().position(Vec::is_empty) {
        return Err(AnalysisError::EmptyGroup { group });
    }
    groups.iter().flatten().try_for_each(|node| node.check(model.config(), pairs))
}

/// Plans which groups run in one batch. Groups that cannot change anything are in no pass.
fn plan<B: Backend, M: Metric>(runs: &CachedRuns<B, M>, execution: &Execution) -> Vec<GroupPass> {
    let CachedRuns { model, batch, groups, moves, .. } = runs;
    let mut by_start = std::collections::BTreeMap::<(usize, usize), Vec<usize>>::new();
    for (number, group) in groups.iter().enumerate().filter(|(number, _)| moves[*number].contains(&true)) {
        let changed = |n: &Node| batch.first_changed(n.component, n.layer, model.config(), &n.positions);
        if let (Some(first), Some(layer)) =
            (group.iter().filter_map(changed).min(), group.iter().map(|n| n.layer).min())
        {
            by_start.entry((layer, first)).or_default().push(number);
        }
    }
    let pass = |((layer, first), groups): ((usize, usize), Vec<usize>)| {
        let at_once = at_once(model.config(), batch, first, execution.token_budget);
        groups.chunks(at_once).map(|c| GroupPass { layer, first, groups: c.to_vec() }).collect::<Vec<_>>()
    };
    by_start.into_iter().flat_map(pass).collect()
}

/// The unpatched runs that the groups' patches read.
struct CachedRuns<'a, B: Backend, M> {
    model: &'a Transformer<B>,
    metric: &'a M,
    batch: &'a PromptBatch,
    groups: &'a [Vec<Node>],
    base: ActivationCache<B>,
    base_metric: Vec<f32>,
    source: ActivationCache<B>,
    /// By group and prompt, whether the group's activations differ between base and source in a way
    /// that can change the metric.
    moves: Vec<Vec<bool>>,
}

impl<'a, B: Backend, M: Metric> CachedRuns<'a, B, M> {
    fn new(
        model: &'a Transformer<B>,
        metric: &'a M,
        batch: &'a PromptBatch,
        groups: &'a [Vec<Node>],
        intervention: &Intervention<B>,
        direction: Direction,
    ) -> Result<Self, AnalysisError> {
        let [base, _] = batch.base_and_source(direction);
        let keys = model.config().key_site();
        let points: BTreeSet<HookPoint> = groups.iter().flatten().map(Node::point).collect();
        let compared = points.clone();
        let read = move |p: HookPoint| {
            compared.contains(&p) || p.site().is_some_and(|s| [Site::ResidPre, keys, Site::V].contains(&s))
        };
        let base = record(model, &base, batch, metric, read)?;
        let source = intervention.source(model, metric, batch, direction, move |p| points.contains(&p))?.cache;
        let moves = moving(groups, batch, model.config(), &base.cache, &source)?;
        Ok(Self { model, metric, batch, groups, base: base.cache, base_metric: base.metric, source, moves })
    }

    /// Returns the metric for the groups `some` of a pass, group by group and prompt by prompt.
    fn pass(&self, pass: &GroupPass, some: Range<usize>) -> Result<Vec<f32>, AnalysisError> {
        let groups: Vec<&[Node]> = pass.groups[some].iter().map(|&g| self.groups[g].as_slice()).collect();
        let prompts = self.batch.prompts.len();
        let mut patch = reference::patch(&groups, &self.source, prompts, pass.first, &self.model.device())?;
        let residual = self.base.block::<3>(pass.layer, Site::ResidPre)?;
        let pos = residual.dims()[1] - pass.first;
        let residual = residual.narrow(1, pass.first, pos).repeat_dim(0, groups.len());
        let last = self.model.config().n_layers - 1;
        let last_block = match groups.iter().copied().flatten().any(|n| n.layer == last) {
            true => LastBlock::AllPositions,
            false => LastBlock::ReadPositions,
        };
        let mut run = Run::from_residual(pass.layer, residual)
            .with_readout(self.batch.readout.repeated(groups.len()))
            .with_last_block(last_block);
        if pass.first > 0 {
            run = run.with_prefix(Prefix::from_cache(&self.base, self.model.config(), pass.first)?);
        }
        let mut watch = Watch::new();
        let logits = self.model.forward(run, (&mut patch, &mut watch))?;
        patch.finish()?;
        Ok(to_vec(watch.mark(evaluate(self.metric, logits, &self.batch.prompts.repeat(groups.len())))))
    }
}
