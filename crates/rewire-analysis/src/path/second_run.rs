//! The second run of path patching: the base run with the receivers updated.
//!
//! The run starts at the lowest receiver. The change of the residual stream at that entry is known
//! ([`entry_delta`](super::entry_delta)). A hook sets the receivers above the entry, or adds to
//! them ([`set_receivers`](super::set_receivers)).

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::{HookPoint, Patch, Site};
use rewire_model::{LastBlock, Prefix, ReadPositions, Readout, Run, TransformerConfig};
use rewire_tasks::Metric;
use rewire_tensor::zeros_like;

use crate::error::AnalysisError;
use crate::patching::plan::Entry;
use crate::path::add_receivers::Adding;
use crate::path::policy::{ReceiverUpdate, Recompute};
use crate::path::propagate::{Carried, Carrier, Stage};
use crate::path::reachability::{Reach, SecondRun};
use crate::path::receiver::{Input, Receiver};
use crate::path::schedule::{Job, WorkChunk};
use crate::run::record::evaluate;
use crate::run::transfer::{flatten_positions, select_rows, to_vec};

/// The changes that reached the receivers of one work chunk, and how the second run applies them.
pub(super) struct Receiving<'a, B: Backend, M> {
    pub(super) carrier: &'a Carrier<'a, B>,
    pub(super) metric: &'a M,
    /// The metric of the base run, per prompt.
    pub(super) base_metric: &'a [f32],
    pub(super) reach: Reach<'a>,
    pub(super) carried: Carried<B>,
    /// Changed queries and keys (both after any rotation) and values, by layer and input: the
    /// heads, and `[row * head, d_head]`.
    pub(super) heads: BTreeMap<(usize, Input), (Vec<usize>, Tensor<B, 2>)>,
    /// Receiving MLPs, by layer: the output of their norm, and the change of their output relative
    /// to the base run, `[row, d_model]` each.
    pub(super) mlps: BTreeMap<usize, [Tensor<B, 2>; 2]>,
}

/// A position of a prompt in one copy of the prompts.
#[derive(Clone, Copy)]
pub(super) struct BatchPosition {
    pub(super) copy: usize,
    pub(super) prompt: usize,
    pub(super) position: usize,
}

/// Returns whether the second run needs `point` from the base run.
pub(super) fn reads_of_base(point: HookPoint, receivers: &[Receiver], config: &TransformerConfig) -> bool {
    let HookPoint::Block { layer, site: at } = point else { return false };
    [Site::ResidPre, Site::ResidMid, Site::ResidPost, config.key_site(), Site::V].contains(&at)
        || receivers.iter().any(|r| {
            r.layer == layer
                && (r.input.rotary_site(config) == at || r.input.of_head().is_some() && in_heads(at, config))
        })
}

fn in_heads(at: Site, config: &TransformerConfig) -> bool {
    at == Site::Z || at == Input::Q.rotary_site(config)
}

impl<'a, B: Backend, M: Metric> Receiving<'a, B, M> {
    /// Propagates the senders of a work chunk to its receivers.
    pub(super) fn new(
        carrier: &'a Carrier<'a, B>,
        metric: &'a M,
        base_metric: &'a [f32],
        job: &'a Job,
        unit: &'a WorkChunk,
    ) -> Result<Self, AnalysisError> {
        let config = carrier.model.config();
        let receivers: BTreeSet<usize> = unit.paths.iter().map(|&path| job.paths[path].receivers).collect();
        let receivers: Vec<&Receiver> = receivers.iter().flat_map(|&set| &job.receivers[set]).collect();
        let receives =
            |receiver: &&&Receiver| unit.rows.iter().any(|row| receiver.receives(row, carrier.batch, config));
        let reached: Vec<&Receiver> = receivers.iter().filter(receives).copied().collect();
        let stages: BTreeSet<Stage> = reached.iter().map(|receiver| receiver.stage(config)).collect();
        let carried = carrier.carry(&job.senders, &unit.rows, &stages)?;
        let reach = Reach::new(job, unit, carrier.batch, config);
        let (heads, mlps) = (BTreeMap::new(), BTreeMap::new());
        let mut receiving = Self { carrier, metric, base_metric, reach, carried, heads, mlps };
        let mut heads: BTreeMap<(usize, Input), BTreeSet<usize>> = BTreeMap::new();
        for receiver in &reached {
            heads.entry((receiver.layer, receiver.input)).or_default().extend(receiver.heads(config));
        }
        for ((layer, input), heads) in heads {
            if input == Input::MlpIn {
                receiving.mlps.insert(layer, receiving.mlp(layer)?);
            } else if input.of_head().is_some() {
                let heads: Vec<usize> = heads.into_iter().collect();
                let values = receiving.head_inputs(layer, input, &heads)?;
                receiving.heads.insert((layer, input), (heads, values));
            }
        }
        Ok(receiving)
    }

    /// Returns the rows' stream at a stage, `[row, 1, d_model]`, and the rows' indices in a table
    /// of the base run.
    pub(super) fn stage(&self, stage: Stage) -> Option<(Tensor<B, 3>, Vec<usize>)> {
        let x = self.carried.get(&stage)?.clone();
        let [n, d_model] = x.dims();
        let width = self.carrier.batch.pairs.width();
        let places = self.reach.rows()[..n].iter().map(|row| row.prompt * width + row.position).collect();
        Some((x.reshape([n, 1, d_model]), places))
    }

    /// Returns a patch that freezes a norm's scale at these places; empty if norms are recomputed.
    fn held_scale(&self, layer: usize, site: Site, places: &[usize]) -> Result<Patch<B>, AnalysisError> {
        Ok(match self.carrier.policy.norms {
            Recompute::Yes => Patch::new(),
            Recompute::Frozen => {
                let scale = select_rows(flatten_positions(self.carrier.base.block(layer, site)?), places);
                Patch::new().replace(HookPoint::block(layer, site), scale.reshape([places.len(), 1, 1]))
            }
        })
    }

    fn head_inputs(&self, layer: usize, input: Input, heads: &[usize]) -> Result<Tensor<B, 2>, AnalysisError> {
        let model = self.carrier.model;
        let (Some((x, places)), Some(of)) = (self.stage(Stage::pre(layer)), input.of_head()) else {
            return Ok(zeros_like([0, model.config().d_head], &model.w_o(0)));
        };
        let mut scale = self.held_scale(layer, Site::Ln1Scale, &places)?;
        let normalized = model.attention_norm(layer, x, &mut scale);
        scale.finish()?;
        let values = model.head_inputs(layer, of, heads, normalized);
        let values = match input {
            Input::V => values,
            _ => {
                let positions: Vec<usize> = self.reach.rows()[..places.len()].iter().map(|row| row.position).collect();
                model.after_rotary(layer, values, &positions)
            }
        };
        let [n, _, n_heads, d_head] = values.dims();
        Ok(values.reshape([n * n_heads, d_head]))
    }

    fn mlp(&self, layer: usize) -> Result<[Tensor<B, 2>; 2], AnalysisError> {
        let Carrier { model, base, .. } = self.carrier;
        let stage = Receiver::new(layer, Input::MlpIn).stage(model.config());
        let Some((x, places)) = self.stage(stage) else {
            let none = zeros_like([0, model.config().d_model], &model.w_o(0));
            return Ok([none.clone(), none]);
        };
        let [n, _, d_model] = x.dims();
        let mut scale = self.held_scale(layer, Site::Ln2Scale, &places)?;
        let normalized = model.mlp_norm(layer, x, &mut scale);
        scale.finish()?;
        let out = model.mlp(layer, normalized.clone(), &mut ()).reshape([n, d_model]);
        let more = out - select_rows(flatten_positions(base.block(layer, Site::MlpOut)?), &places);
        Ok([normalized.reshape([n, d_model]), more])
    }

    /// Returns the metric of every prompt, path by path in the order of `paths`.
    pub(super) fn metrics(&self, paths: &[usize], token_budget: usize) -> Result<Vec<f32>, AnalysisError> {
        let n_prompts = self.base_metric.len();
        let mut metrics: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        for second in self.reach.second_runs(paths, token_budget) {
            let found = self.run(&second)?;
            for (&path, found) in second.paths.iter().zip(found.chunks(n_prompts)) {
                // An unreached prompt has exactly no effect, however its run rounds.
                let metric = |(prompt, &metric): (usize, &f32)| match self.reach.reaches(path, prompt) {
                    true => metric,
                    false => self.base_metric[prompt],
                };
                metrics.insert(path, found.iter().enumerate().map(metric).collect());
            }
        }
        let of_path = |path: &usize| metrics.remove(path).unwrap_or_else(|| self.base_metric.to_vec());
        Ok(paths.iter().flat_map(of_path).collect())
    }

    /// Returns these positions of every prompt, in every copy of the prompts that a second run
    /// makes.
    pub(super) fn places(&self, second: &SecondRun, positions: impl Fn(usize) -> Vec<usize>) -> Vec<BatchPosition> {
        let prompts =
            (0..second.paths.len()).flat_map(|copy| (0..self.base_metric.len()).map(move |prompt| (copy, prompt)));
        let place = |(copy, prompt)| {
            positions(prompt).into_iter().map(move |position| BatchPosition { copy, prompt, position })
        };
        prompts.flat_map(place).collect()
    }

    /// Returns the metric of each prompt, path by path.
    fn run(&self, second: &SecondRun) -> Result<Vec<f32>, AnalysisError> {
        let Carrier { model, base, batch, policy, .. } = self.carrier;
        let config = model.config();
        let SecondRun { entry, first, ref paths, .. } = *second;
        // After attention of the last layer, only the read positions matter.
        let read_alone = entry.depth() >= Entry::Mid(config.n_layers - 1).depth();
        let positions = |prompt: usize| match read_alone {
            true => batch.reads(prompt).to_vec(),
            false => (first..batch.pairs.width()).collect(),
        };
        let rows = self.places(second, positions);
        let residual = self.entering(second, &rows)?;
        let additions = match policy.update {
            ReceiverUpdate::Replace => BTreeMap::new(),
            ReceiverUpdate::Add => self.additions(second, &rows)?,
        };
        let copies = paths.len() * self.base_metric.len();
        let residual = residual.reshape([copies, rows.len() / copies, config.d_model]);
        let run = Run::new(entry.start(residual));
        let run = match read_alone {
            true => run.with_readout(Readout { positions: ReadPositions::All, columns: batch.readout.columns.clone() }),
            false => {
                // Additions apply to whole streams: the last block computes all positions.
                let last_block = if additions.is_empty() { LastBlock::ReadPositions } else { LastBlock::AllPositions };
                let run = run.with_readout(batch.readout.repeated(paths.len())).with_last_block(last_block);
                if first > 0 { run.with_prefix(Prefix::from_cache(base, config, first)?) } else { run }
            }
        };
        let logits = match policy.update {
            ReceiverUpdate::Replace => {
                let mut patch = self.patch(second)?;
                let logits = model.forward(run, &mut patch)?;
                patch.finish()?;
                logits
            }
            ReceiverUpdate::Add if additions.is_empty() => model.forward(run, ())?,
            ReceiverUpdate::Add => model.forward(run, Adding::new(model, additions))?,
        };
        Ok(to_vec(evaluate(self.metric, logits, &batch.prompts.repeat(paths.len()))))
    }
}
