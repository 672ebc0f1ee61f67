//! Path patching with many senders or receivers.

use crate::path::ends::{Path, check_ends};
use crate::run::record::baselines;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use burn::tensor::backend::Backend;
use ndarray::{Array2, ArrayD};
use rewire_hooks::{HookPoint, Site};
use rewire_model::{Transformer, TransformerConfig};
use rewire_tasks::{Metric, PromptPairs};

use crate::effects::{Method, Outcome, join};
use crate::error::AnalysisError;
use crate::node::index::{effect_index, no_effects, positions_of, units};
use crate::node::kind::{Node, NodeKind, named};
use crate::patching::groups::{GroupOutcome, check_group_effects};
use crate::patching::pass_cost::Costs;
use crate::path::followed::{Ends, Followed};
use crate::path::policy::{FreezePolicy, Recompute};
use crate::path::propagate::Carrier;
use crate::path::reachability::Reach;
use crate::path::receiver::{Receiver, named as named_receivers};
use crate::path::reference;
use crate::path::schedule::{Job, PathPair, WorkChunk};
use crate::path::second_run::{Receiving, reads_of_base};
use crate::run::batch::{PromptBatch, batches};
use crate::run::checkpoint::{PlannedWork, WorkId};
use crate::run::cost::Cost;
use crate::run::execution::{Execution, Reuse};
use crate::run::finite::check_changed;
use crate::run::fit::{catch_device_faults, ensure_healthy};
use crate::run::moves::moving;
use crate::run::question::{Direction, Question};
use crate::run::record::{check, effect_scale, record, run_baselines};
use crate::run::workers;

/// The result of [`path_patching`].
#[derive(Debug, Clone, PartialEq)]
pub struct PathPatching {
    /// Effects, one array per kind of senders; 0 for a sender that reaches no receiver.
    pub outcome: Outcome,
    /// The freeze policy that was used.
    pub policy: FreezePolicy,
    /// Receivers that no sender reaches.
    ///
    /// A receiver is unreached if no sender writes before it reads, if the two runs do not differ
    /// there, or if the metric does not depend on it. An unreached receiver has effect 0 alone.
    /// Together with other receivers, it keeps its activation from the base run.
    pub unreached: Vec<Receiver>,
}

/// Returns the effect of every node of the given kinds along the paths to the receivers alone
/// (Goldowsky-Dill et al. 2023; Wang et al. 2022).
///
/// Path patching makes two runs per sender:
///
/// 1. The base run takes the sender's activation from the source run, and `policy` freezes the
///    rest. The activations at the receivers are recorded.
/// 2. The base run is repeated, and all receivers are updated at once from the recorded
///    activations.
///
/// Effects are exact. Signs and effect scale are as in
/// [`activation_patching`](crate::patching::engine::activation_patching).
///
/// Senders write to the residual stream: heads, attention and MLP outputs, neurons, and the stream
/// itself. The embeddings are the stream before block 0. Attention is frozen, so a change stays at
/// its position until a receiver reads it.
///
/// # Errors
/// Returns the errors of [`activation_patching`](crate::patching::engine::activation_patching), and
/// an error for senders that write nothing, or receivers that the model or the prompts do not have.
pub fn path_patching<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    senders: &[NodeKind],
    receivers: &[Receiver],
    policy: FreezePolicy,
    direction: Direction,
    execution: &Execution,
) -> Result<PathPatching, AnalysisError> {
    let Question { pairs, metric, scale, .. } = question;
    check(model, pairs, senders)?;
    let config = model.config();
    let nodes = nodes(senders, pairs, config);
    let sets: Vec<Vec<Node>> = nodes.iter().map(|(_, node)| vec![node.clone()]).collect();
    let pairs_of: Vec<PathPair> = (0..sets.len()).map(|senders| PathPair::new(senders, 0)).collect();
    let to = [receivers.to_vec()];
    let ends = Ends { senders: &sets, receivers: &to, paths: &pairs_of };
    let found = follow(model, question, ends, policy, direction, execution)?;
    let mut changes: Vec<ArrayD<f32>> =
        senders.iter().map(|kind| no_effects(*kind, config, pairs.len(), pairs.width())).collect();
    for (path, (number, node)) in nodes.iter().enumerate() {
        for prompt in 0..pairs.len() {
            let index = effect_index(prompt, node.layer, node.unit, &node.positions);
            changes[*number][index.as_slice()] = found.changes[[prompt, path]];
        }
    }
    let unreached = found.unreached(receivers);
    let outcome = Outcome {
        method: Method::PathPatching,
        direction,
        scale,
        metric: metric.name(),
        baselines: found.baselines,
        vanished: Vec::new(),
        effects: join(Method::PathPatching, senders, vec![changes], found.factor, pairs)?,
    };
    Ok(PathPatching { outcome, policy, unreached })
}

/// Returns the least cost of the steps that dominate the time of [`path_patching`].
///
/// The cost counts both unpatched runs, the second runs from their entries on, and the MLPs between
/// each sender and the last receiver, at the positions at which receivers read. It leaves out the
/// matmuls of the receiving heads, and the bytes of the weights of MLPs that senders propagate
/// through.
///
/// # Errors
/// Returns the errors of [`path_patching`].
pub fn path_patching_cost<B: Backend, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
    senders: &[NodeKind],
    receivers: &[Receiver],
    policy: FreezePolicy,
    execution: &Execution,
) -> Result<Cost, AnalysisError> {
    check(model, pairs, senders)?;
    let sets: Vec<Vec<Node>> = nodes(senders, pairs, model.config()).into_iter().map(|(_, node)| vec![node]).collect();
    let paths: Vec<PathPair> = (0..sets.len()).map(|senders| PathPair::new(senders, 0)).collect();
    let ends = Ends { senders: &sets, receivers: &[receivers.to_vec()], paths: &paths };
    follow_cost(model, pairs, metric, ends, policy, execution)
}

/// Returns the least cost of [`follow`].
pub(crate) fn follow_cost<B: Backend, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
    ends: Ends,
    policy: FreezePolicy,
    execution: &Execution,
) -> Result<Cost, AnalysisError> {
    let (config, costs) = (model.config(), Costs::of(model));
    let Ends { senders, receivers, paths } = ends;
    check_ends(model, pairs, senders, receivers)?;
    let of_batch = |batch: &PromptBatch| {
        let job = Job::of_batch(senders, receivers, paths, batch);
        let units = job.units(batch, config, execution.token_budget);
        let of_unit =
            |unit: &WorkChunk| Reach::new(&job, unit, batch, config).cost(costs, policy.mlps, execution.token_budget);
        costs.whole_run(batch, 0) * 2.0 + units.iter().map(of_unit).sum()
    };
    Ok(batches(pairs, metric, execution.prompt_batch)?.iter().map(|batch| of_batch(&batch)).sum())
}

/// Returns every node of these kinds, with the index of its kind.
fn nodes(kinds: &[NodeKind], pairs: &PromptPairs, config: &TransformerConfig) -> Vec<(usize, Node)> {
    let mut nodes = Vec::new();
    for (number, &kind) in kinds.iter().enumerate() {
        for layer in 0..config.n_layers {
            for positions in positions_of(kind, pairs) {
                for unit in 0..units(kind, config) {
                    let unit = kind.unit_axis().map(|_| unit);
                    nodes.push((number, Node { layer, component: kind.component, unit, positions: positions.clone() }));
                }
            }
        }
    }
    nodes
}

/// Returns the effect of each path. The senders of a path are patched together, and its receivers
/// are updated together.
///
/// Effects are exact; signs and effect scale are as in [`path_patching`]. Nothing is stored in
/// [`Execution::checkpoint`].
///
/// # Errors
/// Returns the errors of [`path_patching`], and an error for a path without senders or receivers.
pub fn patch_paths<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    paths: &[Path],
    policy: FreezePolicy,
    direction: Direction,
    execution: &Execution,
) -> Result<GroupOutcome, AnalysisError> {
    let mut senders = Numbered { sets: Vec::new(), numbers: HashMap::new() };
    let mut receivers = Numbered { sets: Vec::new(), numbers: HashMap::new() };
    // Equal sets share one index: senders that several paths share are propagated once.
    let mut numbers = Vec::with_capacity(paths.len());
    for Path { senders: from, receivers: to } in paths {
        numbers.push(PathPair::new(senders.number(from), receivers.number(to)));
    }
    let execution = &Execution { checkpoint: &(), ..*execution };
    let ends = Ends { senders: &senders.sets, receivers: &receivers.sets, paths: &numbers };
    let found = follow(model, question, ends, policy, direction, execution)?;
    let values = found.effects();
    let groups: Vec<Vec<Node>> = paths.iter().map(|path| path.senders.clone()).collect();
    check_group_effects(&groups, &values)?;
    let (metric, scale, baselines) = (question.metric.name(), question.scale, found.baselines);
    Ok(GroupOutcome { direction, scale, metric, baselines, vanished: Vec::new(), values })
}

/// Distinct sets in the order in which they first appear, and the index of each set.
struct Numbered<'a, T> {
    sets: Vec<Vec<T>>,
    numbers: HashMap<&'a [T], usize>,
}

impl<'a, T: Clone + Eq + Hash> Numbered<'a, T> {
    fn number(&mut self, set: &'a [T]) -> usize {
        *self.numbers.entry(set).or_insert_with(|| {
            self.sets.push(set.to_vec());
            self.sets.len() - 1
        })
    }
}

/// Returns the changes of the metric along the paths.
pub(crate) fn follow<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    ends: Ends,
    policy: FreezePolicy,
    direction: Direction,
    execution: &Execution,
) -> Result<Followed, AnalysisError> {
    let Question { pairs, metric, scale, .. } = question;
    let Ends { senders, receivers, paths } = ends;
    check_ends(model, pairs, senders, receivers)?;
    catch_device_faults::<B, _>(&model.device(), || {
        let batches = batches(pairs, metric, execution.prompt_batch)?;
        let mut changes = Array2::zeros((pairs.len(), paths.len()));
        let mut received = BTreeSet::new();
        let (mut done, total) = (0, pairs.len() * paths.len());
        (execution.progress)(done, total);
        // Baselines that coincide are refused before any path is computed. A single prompt batch
        // reuses its two runs; memory cannot hold the runs of several batches.
        let single = (batches.len() == 1 && execution.reuse == Reuse::Everything).then(|| batches.get(0));
        let planned = |batch: &PromptBatch| planned(model, ends, batch, policy, direction, execution);
        let begin = || {
            if execution.reuse == Reuse::Everything {
                execution.checkpoint.begin(&|| batches.iter().flat_map(|batch| planned(&batch)).collect());
            }
        };
        let (mut only, baselines) = match &single {
            Some(batch) => {
                begin();
                let job = Job::of_batch(senders, receivers, paths, batch);
                let units = job.units(batch, model.config(), execution.token_budget);
                if !is_ours(&job, &units, batch, (direction, policy), execution) {
                    return Err(AnalysisError::PassesLeft);
                }
                let runs = CachedRuns::new(model, metric, batch, ends, policy, direction)?;
                let found = baselines(direction, runs.base_metric.clone(), runs.source_metric.clone());
                (Some(runs), Some(found))
            }
            None => {
                let costs = Costs::of(model);
                let cost = |batch: &PromptBatch| costs.whole_run(batch, 0) * 2.0;
                let found = run_baselines(model, metric, &batches, execution, cost)?;
                begin();
                (None, found)
            }
        };
        let factor = baselines.as_ref().map(|found| effect_scale(found, scale)).transpose()?;
        let mut is_complete = true;
        for batch in batches.iter() {
            let batch = &batch;
            let from = batch.prompts[0];
            let job = Job::of_batch(senders, receivers, paths, batch);
            let units = job.units(batch, model.config(), execution.token_budget);
            received.extend(units.iter().flat_map(|unit| job.received(unit, batch, model.config())));
            if execution.reuse == Reuse::Nothing {
                for (number, path) in paths.iter().enumerate() {
                    let ends = (job.senders[path.senders].as_slice(), job.receivers[path.receivers].as_slice());
                    let of_path = reference::changes(model, metric, batch, ends, policy, direction)?;
                    for (prompt, change) in of_path.into_iter().enumerate() {
                        changes[[from + prompt, number]] = change;
                    }
                    done += batch.prompts.len();
                    (execution.progress)(done, total);
                }
                continue;
            }
            let runs = match only.take() {
                Some(runs) => runs,
                None if !is_ours(&job, &units, batch, (direction, policy), execution) => {
                    is_complete = false;
                    continue;
                }
                None => CachedRuns::new(model, metric, batch, ends, policy, direction)?,
            };
            let moves = moving(&job.senders, batch, model.config(), &runs.base, &runs.source)?;
            let n_prompts = batch.prompts.len();
            done += n_prompts * (paths.len() - units.iter().map(|unit| unit.paths.len()).sum::<usize>());
            let work = |i: usize| runs.unit(&job, &units[i], i, execution);
            workers::run(units.len(), execution.workers::<B>(&model.device()), work, |i, metrics| {
                let Some(metrics) = metrics else {
                    is_complete = false;
                    return Ok(());
                };
                for (&path, metrics) in units[i].paths.iter().zip(metrics.chunks(n_prompts)) {
                    let moves = &moves[paths[path].senders];
                    for (prompt, metric) in metrics.iter().enumerate().filter(|(prompt, _)| moves[*prompt]) {
                        changes[[from + prompt, path]] = metric - runs.base_metric[prompt];
                    }
                }
                done += metrics.len();
                (execution.progress)(done, total);
                Ok::<_, AnalysisError>(())
            })?;
        }
        (execution.progress)(total, total);
        match (baselines, factor, is_complete) {
            (Some(baselines), Some(factor), true) => Ok(Followed { baselines, factor, changes, received }),
            _ => Err(AnalysisError::PassesLeft),
        }
    })
}

/// Returns the passes over a batch, with their costs.
fn planned<B: Backend>(
    model: &Transformer<B>,
    Ends { senders, receivers, paths }: Ends,
    batch: &PromptBatch,
    policy: FreezePolicy,
    direction: Direction,
    execution: &Execution,
) -> Vec<PlannedWork> {
    let (config, costs) = (model.config(), Costs::of(model));
    let job = Job::of_batch(senders, receivers, paths, batch);
    let setup = costs.whole_run(batch, 0) * 2.0;
    let of_unit = |(number, unit): (usize, &WorkChunk)| PlannedWork {
        id: id(&unit_names(&job, unit), number, batch, direction, policy),
        cost: Reach::new(&job, unit, batch, config).cost(costs, policy.mlps, execution.token_budget),
        setup,
    };
    job.units(batch, config, execution.token_budget).iter().enumerate().map(of_unit).collect()
}

/// Returns whether this process takes one of the passes over a batch, or there is none, or the
/// checkpoint has one.
fn is_ours(
    job: &Job,
    units: &[WorkChunk],
    batch: &PromptBatch,
    (direction, policy): (Direction, FreezePolicy),
    execution: &Execution,
) -> bool {
    let is_ours = |(number, unit): (usize, &WorkChunk)| {
        let id = id(&unit_names(job, unit), number, batch, direction, policy);
        execution.checkpoint.takes(id) || execution.checkpoint.load(id).is_some()
    };
    units.is_empty() || units.iter().enumerate().any(is_ours)
}

/// Returns the name of each path of a work chunk.
fn unit_names(job: &Job, unit: &WorkChunk) -> Vec<String> {
    let name = |&path: &usize| {
        let PathPair { senders, receivers, through } = job.paths[path];
        let (senders, receivers) = (named(&job.senders[senders]), named_receivers(&job.receivers[receivers]));
        match through {
            Some(head) => format!("{senders} sent to {receivers} for head {head}"),
            None => format!("{senders} sent to {receivers}"),
        }
    };
    unit.paths.iter().map(name).collect()
}

/// Returns the id in the checkpoint of the work chunk with these paths.
fn id(paths: &[String], number: usize, batch: &PromptBatch, direction: Direction, policy: FreezePolicy) -> WorkId {
    WorkId::new(batch.prompts[0], number, &format!("path patching {direction} {policy} {}", paths.join("; ")))
}

/// The base run and the source run on one prompt batch.
struct CachedRuns<'a, B: Backend, M> {
    model: &'a Transformer<B>,
    metric: &'a M,
    batch: &'a PromptBatch,
    base: rewire_hooks::ActivationCache<B>,
    source: rewire_hooks::ActivationCache<B>,
    base_metric: Vec<f32>,
    source_metric: Vec<f32>,
    policy: FreezePolicy,
    direction: Direction,
}

impl<'a, B: Backend, M: Metric> CachedRuns<'a, B, M> {
    fn new(
        model: &'a Transformer<B>,
        metric: &'a M,
        batch: &'a PromptBatch,
        Ends { senders, receivers, .. }: Ends,
        policy: FreezePolicy,
        direction: Direction,
    ) -> Result<Self, AnalysisError> {
        let config = model.config().clone();
        let [base, source] = batch.base_and_source(direction);
        let mut sites: Vec<Site> = senders.iter().flatten().map(|n| NodeKind::all(n.component).site()).collect();
        sites.sort_unstable();
        sites.dedup();
        let sent = sites.clone();
        let received: Vec<Receiver> = receivers.iter().flatten().cloned().collect();
        let of_base = move |point: HookPoint| {
            let scales = policy.norms == Recompute::Frozen;
            let normed = config.post_norms;
            let held = |site| {
                [Site::AttnOut, Site::MlpOut].contains(&site)
                    || scales && [Site::Ln1Scale, Site::Ln2Scale].contains(&site)
                    || normed && [Site::AttnBeforeNorm, Site::MlpBeforeNorm].contains(&site)
            };
            point.site().is_some_and(|site| sent.contains(&site) || held(site))
                || reads_of_base(point, &received, &config)
        };
        let base = record(model, &base, batch, metric, of_base)?;
        // A sender that is all neurons together sends the MLP's output.
        let of_source = move |point: HookPoint| {
            let whole = sites.contains(&Site::MlpPost) && point.site() == Some(Site::MlpOut);
            point.site().is_some_and(|site| sites.contains(&site)) || whole
        };
        let source = record(model, &source, batch, metric, of_source)?;
        Ok(Self {
            model,
            metric,
            batch,
            base: base.cache,
            source: source.cache,
            base_metric: base.metric,
            source_metric: source.metric,
            policy,
            direction,
        })
    }

    /// Returns the metric of every prompt, path by path. Loads it from the checkpoint if it was
    /// stored. Returns `None` if another process computes it.
    fn unit(
        &self,
        job: &Job,
        unit: &WorkChunk,
        number: usize,
        execution: &Execution,
    ) -> Result<Option<Vec<f32>>, AnalysisError> {
        let ends = unit_names(job, unit);
        let id = id(&ends, number, self.batch, self.direction, self.policy);
        let expected = unit.paths.len() * self.base_metric.len();
        let sent = |path: usize| ends[path].clone();
        let check = |metrics: Vec<f32>| {
            check_changed(self.metric.name(), &self.batch.prompts, &metrics, sent)?;
            Ok(metrics)
        };
        if let Some(kept) = execution.checkpoint.load(id).filter(|kept| kept.len() == expected) {
            return check(kept).map(Some);
        }
        if !execution.checkpoint.takes(id) {
            return Ok(None);
        }
        let carrier = Carrier {
            model: self.model,
            batch: self.batch,
            base: &self.base,
            source: &self.source,
            policy: self.policy,
        };
        let receiving = Receiving::new(&carrier, self.metric, &self.base_metric, job, unit)?;
        let metrics = check(receiving.metrics(&unit.paths, execution.token_budget)?)?;
        ensure_healthy::<B>(&self.model.device())?;
        execution.checkpoint.store(id, &metrics).map_err(AnalysisError::Checkpoint)?;
        Ok(Some(metrics))
    }
}
