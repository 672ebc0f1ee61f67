//! The metric of circuits: sets of edges that carry the clean run, while everything outside them is
//! replaced.

use burn::tensor::backend::Backend;
use ndarray::Array2;
use rewire_hooks::{ActivationCache, Hook, HookPoint, Patch, Recorder, Site};
use rewire_model::{Prefix, Run, Transformer};
use rewire_tasks::Metric;

use crate::edges::carried::{Carried, Outside, recorded};
use crate::edges::edge_set::EdgeSet;
use crate::edges::graph::EdgeGraph;
use crate::edges::inside::{Inside, Needed};
use crate::effects::Baselines;
use crate::error::AnalysisError;
use crate::patching::pass_cost::Costs;
use crate::run::batch::PromptBatch;
use crate::run::checkpoint::{PlannedWork, WorkId};
use crate::run::execution::{Execution, Reuse};
use crate::run::finite::{Watch, check_changed, check_run, the_metric};
use crate::run::fit::{catch_device_faults, ensure_healthy};
use crate::run::intervention::{Intervention, batches_for};
use crate::run::question::{Direction, Question};
use crate::run::record::{check_pairs, evaluate, record};
use crate::run::transfer::to_vec;
use crate::run::workers;

/// Vectors of `d_model` numbers that a pass may hold, for each token of the token budget.
const VECTORS: usize = 128;

/// The metric of circuits, per prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitOutcome {
    /// The metric's name.
    pub metric: &'static str,
    /// The metric on the unpatched runs.
    pub baselines: Baselines,
    /// The metric of the circuit without edges. With [`Intervention::Resample`], it is that of the
    /// corrupted run.
    pub empty: Vec<f32>,
    /// The metric of each circuit, `[prompt, circuit]`.
    pub values: Array2<f32>,
}

/// Returns the metric of each circuit.
///
/// In the run of a circuit, the input of each reader carries, for each edge inside the circuit, the
/// writer's output in this run. For every other edge, it carries the writer's output in the source
/// run, which `outside` gives: the corrupted prompt, zero, or a mean. Everything inside is
/// recomputed. This is the evaluation of EAP-IG and MIB (Hanna et al. 2024, Mueller et al. 2025),
/// which call resampling `patching`. Position embeddings and the bias of attention belong to no
/// writer and stay in place.
///
/// Several circuits run side by side along the batch. A run computes the positions from the first
/// difference of its prompts on, and only the heads and MLPs that reach the logits in a circuit.
/// In models with a norm after attention, the outputs of a layer's heads reach the stream through
/// that norm together.
///
/// [`Intervention::Fixed`] needs `blocks.0.hook_resid_pre`, `attn.hook_z` and `hook_mlp_out` of
/// every layer.
///
/// # Memory
/// A pass holds about `512 * token_budget * d_model` bytes on each thread, and at least one prompt
/// of one circuit: up to `4 * pos * d_model * (2 n_writers + 18 n_heads)` bytes.
///
/// # Errors
/// [`AnalysisError::OtherGraph`] for a circuit of another model; otherwise as
/// [`ablation`](crate::patching::ablation).
pub fn evaluate_circuits<B: Backend, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    circuits: &[EdgeSet],
    outside: &Intervention<B>,
    execution: &Execution,
) -> Result<CircuitOutcome, AnalysisError> {
    let Question { pairs, metric, .. } = question;
    check_pairs(model, pairs)?;
    let evaluation = Evaluation { model, metric, graph: EdgeGraph::new(model.config()), outside, execution };
    let needed = evaluation.needed(circuits)?;
    let names: Vec<String> = circuits.iter().map(members).collect();
    let plan = format!("circuits by {}: {}", outside.name(), names.join(" "));
    catch_device_faults::<B, _>(&model.device(), || {
        let batches = batches_for(outside, pairs, metric, evaluation.prompt_batch(pairs.width()))?;
        let costs = Costs::of(model);
        // The text must stay the same in every version.
        let id =
            |batch: &PromptBatch| WorkId::new(batch.prompts[0], 0, &format!("{plan}, {} prompts", batch.prompts.len()));
        let planned = |batch: PromptBatch| {
            let [setup, run] = [0, batch.first_difference].map(|first| costs.whole_run(&batch, first));
            PlannedWork { id: id(&batch), cost: run * (2.0 * circuits.len() as f64), setup: setup * 2.0 }
        };
        execution.checkpoint.begin(&|| batches.iter().map(planned).collect());
        let mut outcome = CircuitOutcome::new(metric.name(), pairs.len(), circuits.len());
        let mut is_complete = true;
        let total = pairs.len() * circuits.len();
        (execution.progress)(0, total);
        for batch in batches.iter() {
            match evaluation.resumed(&batch, id(&batch), &needed)? {
                Some(found) => outcome.extend(&batch, &found),
                None => is_complete = false,
            }
            (execution.progress)((batch.prompts[0] + batch.prompts.len()) * circuits.len(), total);
        }
        if is_complete { Ok(outcome) } else { Err(AnalysisError::PassesLeft) }
    })
}

/// The runs that all circuits of a search share, on all prompts, to evaluate one circuit after
/// another.
///
/// A run of a circuit starts at the first layer with a reader that the circuit does not feed
/// completely.
///
/// # Memory
/// The activations of all prompts are in memory: about `8 * n_layers * pos * d_model` bytes per
/// prompt and run, twice.
pub struct CircuitRuns<'a, B: Backend, M> {
    evaluation: Evaluation<'a, B, M>,
    batches: Vec<(PromptBatch, Shared<B>)>,
    outcome: CircuitOutcome,
}

impl<'a, B: Backend, M: Metric> CircuitRuns<'a, B, M> {
    /// Makes the runs on the unpatched prompts.
    ///
    /// # Errors
    /// As [`evaluate_circuits`].
    pub fn new(
        model: &'a Transformer<B>,
        question: Question<'a, M>,
        outside: &'a Intervention<B>,
        execution: &'a Execution<'a>,
    ) -> Result<Self, AnalysisError> {
        let Question { pairs, metric, .. } = question;
        check_pairs(model, pairs)?;
        let evaluation = Evaluation { model, metric, graph: EdgeGraph::new(model.config()), outside, execution };
        catch_device_faults::<B, _>(&model.device(), || {
            let mut outcome = CircuitOutcome::new(metric.name(), pairs.len(), 0);
            let mut all = Vec::new();
            for batch in batches_for(outside, pairs, metric, evaluation.prompt_batch(pairs.width()))?.iter() {
                let shared = evaluation.shared(&batch)?;
                outcome.extend(&batch, &shared.metrics.concat());
                all.push((batch, shared));
            }
            Ok(Self { evaluation, batches: all, outcome })
        })
    }

    /// Returns the graph of the model.
    #[must_use]
    pub fn graph(&self) -> EdgeGraph {
        self.evaluation.graph
    }

    /// Returns the metric of each circuit, with the metrics without a circuit.
    ///
    /// # Errors
    /// As [`evaluate_circuits`].
    pub fn evaluate(&self, circuits: &[EdgeSet]) -> Result<CircuitOutcome, AnalysisError> {
        let needed = self.evaluation.needed(circuits)?;
        catch_device_faults::<B, _>(&self.evaluation.model.device(), || {
            let prompts = self.outcome.empty.len();
            let mut outcome = CircuitOutcome::new(self.outcome.metric, prompts, circuits.len());
            for (batch, shared) in &self.batches {
                let found = self.evaluation.metrics(batch, shared, &needed)?;
                outcome.extend(batch, &[shared.metrics.concat(), found].concat());
            }
            Ok(outcome)
        })
    }

    /// Returns the metrics without a circuit. There are no values.
    #[must_use]
    pub fn unpatched(&self) -> &CircuitOutcome {
        &self.outcome
    }
}

impl CircuitOutcome {
    fn new(metric: &'static str, prompts: usize, circuits: usize) -> Self {
        let baselines = Baselines { clean: Vec::new(), corrupted: Vec::new() };
        Self { metric, baselines, empty: Vec::new(), values: Array2::zeros((prompts, circuits)) }
    }

    /// Adds the metrics of a batch: of the clean run, the corrupted run, the empty circuit and each
    /// circuit, one after the other.
    fn extend(&mut self, batch: &PromptBatch, metrics: &[f32]) {
        let (from, prompts) = (batch.prompts[0], batch.prompts.len());
        let of = |number: usize| &metrics[number * prompts..][..prompts];
        self.baselines.clean.extend(of(0));
        self.baselines.corrupted.extend(of(1));
        self.empty.extend(of(2));
        for circuit in 0..self.values.ncols() {
            of(3 + circuit).iter().enumerate().for_each(|(row, value)| self.values[[from + row, circuit]] = *value);
        }
    }
}

/// The evaluation of circuits on batches of prompts.
struct Evaluation<'a, B: Backend, M> {
    model: &'a Transformer<B>,
    metric: &'a M,
    graph: EdgeGraph,
    outside: &'a Intervention<B>,
    execution: &'a Execution<'a>,
}

/// The runs on a batch that all circuits share.
struct Shared<B: Backend> {
    /// The metrics of the clean, the corrupted and the source run.
    metrics: [Vec<f32>; 3],
    /// The clean run and the source run, at the computed positions.
    clean: ActivationCache<B>,
    source: ActivationCache<B>,
    prefix: Option<Prefix<B>>,
    /// The first computed position.
    first: usize,
}

impl<B: Backend, M: Metric> Evaluation<'_, B, M> {
    /// Returns the edges of each circuit that can change its metric.
    fn needed(&self, circuits: &[EdgeSet]) -> Result<Vec<EdgeSet>, AnalysisError> {
        if let Some(circuit) = circuits.iter().position(|circuit| *circuit.graph() != self.graph) {
            return Err(AnalysisError::OtherGraph { circuit });
        }
        // A node that no path from the input reaches computes what it computes in the source run,
        // if that is a run of the model on other tokens.
        let needed = |circuit: &EdgeSet| match (self.execution.reuse, self.outside) {
            (Reuse::Nothing, _) => circuit.clone(),
            (Reuse::Everything, Intervention::Resample) => circuit.pruned(),
            (Reuse::Everything, _) => circuit.to_the_logits(),
        };
        Ok(circuits.iter().map(needed).collect())
    }

    /// Returns the number of prompts whose activations are held at once.
    fn prompt_batch(&self, pos: usize) -> usize {
        let most = self.capacity(&EdgeSet::all(self.graph)) / pos.max(1);
        self.execution.prompt_batch.min(most).max(1)
    }

    /// Returns the number of tokens of one circuit that a pass may hold.
    fn capacity(&self, circuit: &EdgeSet) -> usize {
        self.execution.token_budget * VECTORS / Needed::of(circuit).vectors(&self.graph)
    }

    /// Returns the metrics of the clean run, the corrupted run, the empty circuit and each circuit,
    /// one after the other: from the checkpoint, or computed and stored. Returns `None` if another
    /// process computes them.
    fn resumed(
        &self,
        batch: &PromptBatch,
        id: WorkId,
        circuits: &[EdgeSet],
    ) -> Result<Option<Vec<f32>>, AnalysisError> {
        let checkpoint = self.execution.checkpoint;
        let expected = (3 + circuits.len()) * batch.prompts.len();
        if let Some(kept) = checkpoint.load(id).filter(|kept| kept.len() == expected) {
            return Ok(Some(kept));
        }
        if !checkpoint.takes(id) {
            return Ok(None);
        }
        let shared = self.shared(batch)?;
        let found = [shared.metrics.concat(), self.metrics(batch, &shared, circuits)?].concat();
        ensure_healthy::<B>(&self.model.device())?;
        checkpoint.store(id, &found).map_err(AnalysisError::Checkpoint)?;
        Ok(Some(found))
    }

    /// Returns the metric of each circuit, circuit by circuit and prompt by prompt.
    fn metrics(
        &self,
        batch: &PromptBatch,
        shared: &Shared<B>,
        circuits: &[EdgeSet],
    ) -> Result<Vec<f32>, AnalysisError> {
        let prompts = batch.prompts.len();
        let passes = self.passes(circuits, prompts * (batch.pairs.width() - shared.first));
        let mut found = vec![0.0; circuits.len() * prompts];
        workers::run(
            passes.len(),
            self.execution.workers::<B>(&self.model.device()),
            |pass| self.pass(batch, shared, circuits, &passes[pass]),
            |pass, metrics| {
                for (&circuit, of_circuit) in passes[pass].iter().zip(metrics.chunks(prompts)) {
                    found[circuit * prompts..][..prompts].copy_from_slice(of_circuit);
                }
                Ok::<_, AnalysisError>(())
            },
        )?;
        for (circuit, of_circuit) in circuits.iter().zip(found.chunks_mut(prompts)) {
            // The run would give these values up to rounding.
            if self.execution.reuse == Reuse::Everything && circuit.len() == self.graph.n_edges() {
                of_circuit.copy_from_slice(&shared.metrics[0]);
            } else if self.execution.reuse == Reuse::Everything && circuit.is_empty() {
                of_circuit.copy_from_slice(&shared.metrics[2]);
            }
        }
        Ok(found)
    }

    /// Plans the circuits that run side by side. Circuits of similar size share a pass. Those whose
    /// metric is known are in no pass.
    fn passes(&self, circuits: &[EdgeSet], tokens: usize) -> Vec<Vec<usize>> {
        let is_run = |circuit: &usize| {
            let set = &circuits[*circuit];
            self.execution.reuse == Reuse::Nothing || !set.is_empty() && set.len() < self.graph.n_edges()
        };
        let mut order: Vec<usize> = (0..circuits.len()).filter(is_run).collect();
        order.sort_by_key(|circuit| circuits[*circuit].len());
        let mut passes: Vec<(Vec<usize>, EdgeSet)> = Vec::new();
        for circuit in order {
            if let Some((members, all)) = passes.last_mut() {
                let together = all.union(&circuits[circuit]);
                let fits = (members.len() + 1) * tokens <= self.capacity(&together);
                if fits && self.execution.reuse == Reuse::Everything {
                    members.push(circuit);
                    *all = together;
                    continue;
                }
            }
            passes.push((vec![circuit], circuits[circuit].clone()));
        }
        passes.into_iter().map(|(members, _)| members).collect()
    }

    /// Makes the runs that all circuits share.
    fn shared(&self, batch: &PromptBatch) -> Result<Shared<B>, AnalysisError> {
        let (model, metric, config) = (self.model, self.metric, self.model.config());
        let first = match self.execution.reuse {
            Reuse::Everything => batch.first_difference,
            Reuse::Nothing => 0,
        };
        let keys = config.key_site();
        let of_clean = move |p: HookPoint| {
            p.site().is_some_and(|s| {
                [Site::ResidPre, Site::Z, Site::MlpOut].contains(&s) || first > 0 && [keys, Site::V].contains(&s)
            })
        };
        let clean = record(model, &batch.pairs.clean(), batch, metric, of_clean)?;
        let prefix = (first > 0).then(|| Prefix::from_cache(&clean.cache, config, first)).transpose()?;
        let pos = batch.pairs.width() - first;
        let is_used = |point: &HookPoint| matches!(point.site(), Some(Site::ResidPre | Site::Z | Site::MlpOut));
        let used: Vec<HookPoint> = clean.cache.points().filter(is_used).collect();
        let mut of_clean = ActivationCache::new();
        for point in used {
            of_clean = of_clean.with(point, clean.cache.any(point)?.narrow(1, first, pos));
        }
        let mut recorder = Recorder::filtered(|p: HookPoint| p.site().is_some_and(recorded));
        let metrics = if matches!(self.outside, Intervention::Resample) {
            let run = self.tokens(&batch.pairs.corrupted(), first)?;
            let corrupted = self.run(batch, run, &prefix, 1, &mut recorder)?;
            check_run(model, &the_metric(metric.name()), batch, &batch.pairs.corrupted(), &corrupted)?;
            [clean.metric, corrupted.clone(), corrupted]
        } else {
            let corrupted = record(model, &batch.pairs.corrupted(), batch, metric, |_| false)?.metric;
            let mut patch = self.replaced(batch)?;
            let run = self.tokens(&batch.pairs.clean(), first)?;
            let source = self.run(batch, run, &prefix, 1, &mut (&mut patch, &mut recorder))?;
            patch.finish()?;
            check_run(model, &the_metric(metric.name()), batch, &batch.pairs.clean(), &source)?;
            [clean.metric, corrupted, source]
        };
        Ok(Shared { metrics, clean: of_clean, source: recorder.into_cache(), prefix, first })
    }

    /// Returns the patch that replaces the output of every writer by zero or by given values.
    fn replaced(&self, batch: &PromptBatch) -> Result<Patch<B>, AnalysisError> {
        let (model, input) = (self.model, HookPoint::block(0, Site::ResidPre));
        let accepts = move |p: HookPoint| p == input || matches!(p.site(), Some(Site::Z | Site::MlpOut));
        let values = self.outside.source(model, self.metric, batch, Direction::Noising, accepts)?.cache;
        let mut patch = Patch::new();
        for point in values.points() {
            let value = values.any(point)?.clone();
            // Position embeddings stay.
            let point = match (point == input, self.outside) {
                (true, Intervention::Zero) => HookPoint::Embed,
                _ => point,
            };
            patch = patch.replace(point, value);
        }
        Ok(patch)
    }

    /// Returns the run of prompts from position `first` on.
    fn tokens(&self, tokens: &[Vec<u32>], first: usize) -> Result<Run<B>, AnalysisError> {
        let later: Vec<Vec<u32>> = tokens.iter().map(|prompt| prompt[first..].to_vec()).collect();
        Ok(Run::tokens(self.model.tokens(&later)?))
    }

    /// Makes a run that holds the prompts `copies` times, and returns the metric of each row.
    fn run<H: Hook<B>>(
        &self,
        batch: &PromptBatch,
        run: Run<B>,
        prefix: &Option<Prefix<B>>,
        copies: usize,
        hook: &mut H,
    ) -> Result<Vec<f32>, AnalysisError> {
        let mut run = run.with_readout(batch.readout.repeated(copies));
        if let Some(prefix) = prefix {
            run = run.with_prefix(prefix.clone());
        }
        let mut watch = Watch::new();
        let logits = self.model.forward(run, (hook, &mut watch))?;
        Ok(to_vec(watch.mark(evaluate(self.metric, logits, &batch.prompts.repeat(copies)))))
    }

    /// Returns the metric of some circuits that run side by side, circuit by circuit and prompt by
    /// prompt.
    fn pass(
        &self,
        batch: &PromptBatch,
        shared: &Shared<B>,
        circuits: &[EdgeSet],
        some: &[usize],
    ) -> Result<Vec<f32>, AnalysisError> {
        let Shared { clean, source, prefix, first, .. } = shared;
        let sets: Vec<&EdgeSet> = some.iter().map(|&circuit| &circuits[circuit]).collect();
        let inside = Inside::new(&self.graph, &sets, &self.model.device());
        let outside = Outside { model: self.model, source, prefix: prefix.as_ref(), first: *first };
        let start = match self.execution.reuse {
            Reuse::Everything => inside.start(),
            Reuse::Nothing => 0,
        };
        let mut carried = Carried::from_layer(outside, &inside, start, clean)?;
        let residual = clean.block::<3>(start, Site::ResidPre)?.repeat_dim(0, some.len());
        let metrics = self.run(batch, Run::from_residual(start, residual), prefix, some.len(), &mut carried)?;
        carried.finish()?;
        check_changed(self.metric.name(), &batch.prompts, &metrics, |copy| format!("circuit {}", some[copy]))?;
        Ok(metrics)
    }
}

/// Returns the members of a set as text, for the identity of its passes.
fn members(set: &EdgeSet) -> String {
    let bits: Vec<bool> = set.graph().places().map(|place| set.contains(place)).collect();
    let digit = |four: &[bool]| four.iter().fold(0, |digit, bit| 2 * digit + u32::from(*bit));
    bits.chunks(4).filter_map(|four| char::from_digit(digit(four), 16)).collect()
}
