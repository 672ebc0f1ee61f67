//! The second run: the base run with the receivers set to what reached them.
//!
//! It starts at the lowest receiver: what it changes in the residual stream is known ([`Receiving::entering`]); receivers above it are
//! set by a patch, and held to the base run where nothing reached them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};
use rewire_hooks::{HookPoint, Patch, Site};
use rewire_model::{LastBlock, Prefix, ReadPositions, Readout, Run, TransformerConfig, attend};
use rewire_tasks::Metric;

use super::adding::{Adding, Addition};
use super::carry::{Carried, Carrier, Stage, by_place, gather};
use super::plan::{Job, Unit};
use super::policy::{Frozen, Taking};
use super::receiver::{Input, Receiver};
use crate::AnalysisError;
use crate::plan::{Entry, at_once};
use crate::runs::{evaluate, host};

/// What reached the receivers of one unit of work, and how it is taken up.
pub(super) struct Receiving<'a, B: Backend, M> {
    pub(super) carrier: &'a Carrier<'a, B>,
    pub(super) metric: &'a M,
    /// The metric of the base run, per prompt.
    pub(super) base_metric: &'a [f32],
    job: &'a Job,
    carried: Carried<B>,
    /// The rows' numbers, by senders, prompt and position.
    number: HashMap<(usize, usize, usize), usize>,
    /// Queries, keys (both as they are used) and values that changed: the heads, and `[row * head, d_head]`.
    heads: BTreeMap<(usize, Input), (Vec<usize>, Tensor<B, 2>)>,
    /// Where MLPs receive: what their norm gives, and how much more than in the base run they write, `[row, d_model]` each.
    mlps: BTreeMap<usize, [Tensor<B, 2>; 2]>,
}

/// Paths that enter the second run at one place, side by side.
struct Entering<'a> {
    entry: Entry,
    /// The first computed position.
    first: usize,
    paths: &'a [usize],
}

/// The site at which an input is set, and the width of what is set there for each place (and head).
fn site(input: Input, config: &TransformerConfig) -> Site {
    match input {
        Input::ResidPre => Site::ResidPre,
        Input::Q if config.is_rotary() => Site::RotQ,
        Input::Q => Site::Q,
        Input::K => config.key_site(),
        Input::V => Site::V,
        Input::ResidMid => Site::ResidMid,
        Input::MlpIn => Site::Ln2Normalized,
        Input::ResidPost => Site::ResidPost,
    }
}

/// What the second run needs of the base run.
pub(super) fn reads_of_base(point: HookPoint, receivers: &[Receiver], config: &TransformerConfig) -> bool {
    let HookPoint::Block { layer, site: at } = point else { return false };
    [Site::ResidPre, Site::ResidMid, Site::ResidPost, config.key_site(), Site::V].contains(&at)
        || receivers.iter().any(|r| {
            r.layer == layer && (site(r.input, config) == at || r.input.of_head().is_some() && in_heads(at, config))
        })
}

fn in_heads(at: Site, config: &TransformerConfig) -> bool {
    at == Site::Z || at == site(Input::Q, config)
}

impl<'a, B: Backend, M: Metric> Receiving<'a, B, M> {
    /// Carries the senders of a unit to its receivers.
    pub(super) fn new(
        carrier: &'a Carrier<'a, B>,
        metric: &'a M,
        base_metric: &'a [f32],
        job: &'a Job,
        unit: &Unit,
    ) -> Result<Self, AnalysisError> {
        let config = carrier.model.config();
        let receivers: BTreeSet<usize> = unit.paths.iter().map(|&path| job.paths[path].receivers).collect();
        let receivers: Vec<&Receiver> = receivers.iter().flat_map(|&set| &job.receivers[set]).collect();
        let receives =
            |receiver: &&&Receiver| unit.rows.iter().any(|row| receiver.receives(row, carrier.portion, config));
        let reached: Vec<&Receiver> = receivers.iter().filter(receives).copied().collect();
        let stages: BTreeSet<Stage> = reached.iter().map(|receiver| receiver.stage(config)).collect();
        let carried = carrier.carry(&job.senders, unit.rows.clone(), &stages)?;
        let number = carried.rows.iter().enumerate().map(|(i, r)| ((r.senders, r.prompt, r.position), i)).collect();
        let mut receiving = Self {
            carrier,
            metric,
            base_metric,
            job,
            carried,
            number,
            heads: BTreeMap::new(),
            mlps: BTreeMap::new(),
        };
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

    /// The stream of the rows at a stage, `[row, 1, d_model]`, with their numbers of places in a table of the base run.
    fn stage(&self, stage: Stage) -> Option<(Tensor<B, 3>, Vec<usize>)> {
        let x = self.carried.stages.get(&stage)?.clone();
        let [n, d_model] = x.dims();
        let width = self.carrier.portion.pairs.width();
        let places = self.carried.rows[..n].iter().map(|row| row.prompt * width + row.position).collect();
        Some((x.reshape([n, 1, d_model]), places))
    }

    /// The base run's scale of a norm at these places, if norms are held.
    fn held_scale(&self, layer: usize, site: Site, places: &[usize]) -> Result<Patch<B>, AnalysisError> {
        Ok(match self.carrier.policy.norms {
            Frozen::Free => Patch::new(),
            Frozen::Frozen => {
                let scale = gather(by_place(self.carrier.base.block(layer, site)?), places);
                Patch::new().replace(HookPoint::block(layer, site), scale.reshape([places.len(), 1, 1]))
            }
        })
    }

    fn head_inputs(&self, layer: usize, input: Input, heads: &[usize]) -> Result<Tensor<B, 2>, AnalysisError> {
        let model = self.carrier.model;
        let (Some((x, places)), Some(of)) = (self.stage(Stage::pre(layer)), input.of_head()) else {
            return Ok(Tensor::zeros([0, model.config().d_head], &model.device()));
        };
        let mut scale = self.held_scale(layer, Site::Ln1Scale, &places)?;
        let normalized = model.attention_norm(layer, x, &mut scale);
        scale.finish()?;
        let values = model.head_inputs(layer, of, heads, normalized);
        let values = match input {
            Input::V => values,
            _ => {
                let positions: Vec<usize> = self.carried.rows[..places.len()].iter().map(|row| row.position).collect();
                model.as_used(values, &positions)
            }
        };
        let [n, _, n_heads, d_head] = values.dims();
        Ok(values.reshape([n * n_heads, d_head]))
    }

    fn mlp(&self, layer: usize) -> Result<[Tensor<B, 2>; 2], AnalysisError> {
        let Carrier { model, base, .. } = self.carrier;
        let stage = Receiver::new(layer, Input::MlpIn).stage(model.config());
        let Some((x, places)) = self.stage(stage) else {
            let none = Tensor::zeros([0, model.config().d_model], &model.device());
            return Ok([none.clone(), none]);
        };
        let [n, _, d_model] = x.dims();
        let mut scale = self.held_scale(layer, Site::Ln2Scale, &places)?;
        let normalized = model.mlp_norm(layer, x, &mut scale);
        scale.finish()?;
        let out = model.mlp(layer, normalized.clone(), &mut ()).reshape([n, d_model]);
        let more = out - gather(by_place(base.block(layer, Site::MlpOut)?), &places);
        Ok([normalized.reshape([n, d_model]), more])
    }

    /// The metric of every prompt, path by path in the order of `paths`.
    pub(super) fn metrics(&self, paths: &[usize], token_budget: usize) -> Result<Vec<f32>, AnalysisError> {
        let n_prompts = self.base_metric.len();
        let mut metrics = self.base_metric.repeat(paths.len());
        let mut groups: BTreeMap<(usize, usize, Vec<usize>), (Entry, Vec<usize>)> = BTreeMap::new();
        for (i, &path) in paths.iter().enumerate() {
            if let Some((entry, first, heads)) = self.entry(path) {
                groups.entry((entry.depth(), first, heads)).or_insert((entry, Vec::new())).1.push(i);
            }
        }
        let config = self.carrier.model.config();
        for ((_, first, heads), (entry, group)) in groups {
            let at_once = at_once(config, self.carrier.portion, first, token_budget);
            for chunk in group.chunks(at_once) {
                let numbers: Vec<usize> = chunk.iter().map(|&i| paths[i]).collect();
                let found = self.run(&Entering { entry, first, paths: &numbers }, &heads)?;
                for (&i, found) in chunk.iter().zip(found.chunks(n_prompts)) {
                    for (prompt, &metric) in found.iter().enumerate() {
                        // What nothing reached has exactly no effect, however its run rounds.
                        if self.reaches(paths[i], prompt) {
                            metrics[i * n_prompts + prompt] = metric;
                        }
                    }
                }
            }
        }
        Ok(metrics)
    }

    fn receivers(&self, path: usize) -> &[Receiver] {
        &self.job.receivers[self.job.paths[path].receivers]
    }

    /// The row that changes what `receiver` of `path` reads at a prompt and position, if one does.
    fn row(&self, path: usize, receiver: &Receiver, prompt: usize, position: usize) -> Option<usize> {
        let number = *self.number.get(&(self.job.paths[path].senders, prompt, position))?;
        let Carrier { portion, model, .. } = self.carrier;
        receiver.receives(&self.carried.rows[number], portion, model.config()).then_some(number)
    }

    fn reaches(&self, path: usize, prompt: usize) -> bool {
        let positions = 0..self.carrier.portion.pairs.width();
        let mut all = positions.flat_map(|p| self.receivers(path).iter().map(move |r| (p, r)));
        all.any(|(position, receiver)| self.row(path, receiver, prompt, position).is_some())
    }

    /// Where a path enters, at which position first, and through which heads; nothing if nothing reaches its receivers.
    fn entry(&self, path: usize) -> Option<(Entry, usize, Vec<usize>)> {
        let config = self.carrier.model.config();
        let width = self.carrier.portion.pairs.width();
        let mut reached = Vec::new();
        for receiver in self.receivers(path) {
            for (prompt, position) in (0..self.base_metric.len()).flat_map(|p| (0..width).map(move |at| (p, at))) {
                if self.row(path, receiver, prompt, position).is_some() {
                    reached.push((receiver, position));
                }
            }
        }
        let entry = reached.iter().map(|(r, _)| r.entry(config)).min_by_key(|entry| entry.depth())?;
        let read = self.carrier.portion.readout_positions().iter().copied();
        let first = reached.iter().map(|(_, position)| *position).chain(read).min()?;
        let at_entry = reached.iter().filter(|(r, _)| r.entry(config) == entry);
        let heads: BTreeSet<usize> = at_entry.flat_map(|(r, _)| r.heads(config)).collect();
        Some((entry, first, heads.into_iter().collect()))
    }

    /// The metric of each prompt, path by path.
    fn run(&self, entering: &Entering, heads: &[usize]) -> Result<Vec<f32>, AnalysisError> {
        let Carrier { model, base, portion, policy, .. } = self.carrier;
        let config = model.config();
        let &Entering { entry, first, paths } = entering;
        // Past attention of the last layer only the positions that are read matter.
        let read_alone = entry.depth() >= Entry::Mid(config.n_layers - 1).depth();
        let positions = |prompt: usize| match read_alone {
            true => vec![portion.readout_positions()[prompt]],
            false => (first..portion.pairs.width()).collect(),
        };
        let rows: Vec<Place> = (0..paths.len())
            .flat_map(|copy| (0..self.base_metric.len()).map(move |prompt| (copy, prompt)))
            .flat_map(|(copy, prompt)| positions(prompt).into_iter().map(move |position| Place { copy, prompt, position }))
            .collect();
        let residual = self.entering(entering, heads, &rows)?;
        let copies = paths.len() * self.base_metric.len();
        let residual = residual.reshape([copies, rows.len() / copies, config.d_model]);
        let run = Run::new(entry.start(residual));
        let run = match read_alone {
            true => run.reading(Readout { positions: ReadPositions::All, columns: portion.readout.columns.clone() }),
            false => {
                let last_block = match policy.taking {
                    Taking::Set => LastBlock::Read,
                    // What is added is added to whole streams.
                    Taking::Add => LastBlock::Whole,
                };
                let run = run.reading(portion.readout.repeated(paths.len())).with_last_block(last_block);
                if first > 0 { run.after(Prefix::from_cache(base, config, first)?) } else { run }
            }
        };
        let logits = match policy.taking {
            Taking::Set => {
                let mut patch = self.patch(entering)?;
                let logits = model.forward(run, &mut patch)?;
                patch.finish()?;
                logits
            }
            Taking::Add => {
                model.forward(run, Adding::new(model, self.additions(entering, &rows)?))?
            }
        };
        Ok(host(evaluate(self.metric, logits, &portion.prompts.repeat(paths.len()))))
    }

    /// The residual stream at the entry, row by row, `[row, d_model]`.
    fn entering(&self, entering: &Entering, heads: &[usize], rows: &[Place]) -> Result<Tensor<B, 2>, AnalysisError> {
        let Carrier { model, base, portion, .. } = self.carrier;
        let config = model.config();
        let stream = match entering.entry {
            Entry::Mid(layer) => base.block(layer, Site::ResidMid)?,
            Entry::Pre(layer) if layer == config.n_layers => base.block(layer - 1, Site::ResidPost)?,
            Entry::Pre(layer) => base.block(layer, Site::ResidPre)?,
        };
        let width = portion.pairs.width();
        let places: Vec<usize> = rows.iter().map(|at| at.prompt * width + at.position).collect();
        let mut x = gather(by_place(stream), &places);
        let here = |at: &Place| {
            let path = entering.paths[at.copy];
            self.receivers(path).iter().filter(|r| r.entry(config) == entering.entry).map(move |r| (path, r))
        };
        if !heads.is_empty() {
            x = x + self.attention_change(entering, heads, rows)?;
        }
        let layer = match entering.entry {
            Entry::Pre(layer) => layer.checked_sub(1),
            Entry::Mid(_) => None,
        };
        if let Some([_, more]) = layer.and_then(|layer| self.mlps.get(&layer)) {
            let zero = Tensor::zeros([1, config.d_model], &model.device());
            let row_of = |at: &Place| {
                let mut mlp = here(at).filter(|(_, r)| r.input == Input::MlpIn);
                mlp.find_map(|(path, r)| self.row(path, r, at.prompt, at.position)).map_or(0, |row| row + 1)
            };
            let index: Vec<usize> = rows.iter().map(row_of).collect();
            x = x + gather(Tensor::cat(vec![zero, more.clone()], 0), &index);
        }
        // A stream that receives is set, whatever was added; of one that is both after a block and before the next, the later counts.
        for input in [Input::ResidMid, Input::ResidPost, Input::ResidPre] {
            let of = |at: &Place| {
                let mut receiving = here(at).filter(|(_, r)| r.input == input && r.is_at(at.prompt, at.position));
                receiving.next()
            };
            let Some((_, receiver)) = rows.iter().find_map(of) else { continue };
            let Some(values) = self.carried.stages.get(&receiver.stage(config)) else { continue };
            if self.carrier.policy.taking == Taking::Add {
                x = x + self.stream_change(receiver.layer, input, rows, |at| of(at))?;
                continue;
            }
            let n = rows.len();
            let held = gather(by_place(base.block(receiver.layer, site(input, config))?), &places);
            let index: Vec<usize> = rows
                .iter()
                .enumerate()
                .map(|(i, at)| match of(at) {
                    None => i,
                    Some((path, r)) => self.row(path, r, at.prompt, at.position).map_or(n + i, |row| 2 * n + row),
                })
                .collect();
            x = gather(Tensor::cat(vec![x, held, values.clone()], 0), &index);
        }
        Ok(x)
    }

    /// What reached the stream that receivers of one layer and input read, less the base run's: `[row, d_model]`, 0 where `of` has no
    /// path and receiver.
    fn stream_change<'p>(
        &self,
        layer: usize,
        input: Input,
        rows: &[Place],
        of: impl Fn(&Place) -> Option<(usize, &'p Receiver)>,
    ) -> Result<Tensor<B, 2>, AnalysisError> {
        let Carrier { model, base, .. } = self.carrier;
        let config = model.config();
        let stage = Receiver::new(layer, input).stage(config);
        let zero = Tensor::zeros([1, config.d_model], &model.device());
        let table = match self.stage(stage) {
            None => zero,
            Some((x, places)) => {
                let [n, _, d_model] = x.dims();
                let of_base = gather(by_place(base.block(layer, stage.site())?), &places);
                Tensor::cat(vec![zero, x.reshape([n, d_model]) - of_base], 0)
            }
        };
        let row_of = |at: &Place| {
            of(at).and_then(|(path, r)| self.row(path, r, at.prompt, at.position)).map_or(0, |row| row + 1)
        };
        Ok(gather(table, &rows.iter().map(row_of).collect::<Vec<_>>()))
    }

    /// What attention adds more than in the base run where these heads of the layer that is entered at have other queries, keys or
    /// values, `[row, d_model]`.
    fn attention_change(
        &self,
        entering: &Entering,
        heads: &[usize],
        rows: &[Place],
    ) -> Result<Tensor<B, 2>, AnalysisError> {
        let Carrier { model, base, portion, .. } = self.carrier;
        let config = model.config();
        let (Entry::Mid(layer) | Entry::Pre(layer)) = entering.entry;
        let layer = if matches!(entering.entry, Entry::Pre(_)) { layer - 1 } else { layer };
        let (width, first, n_prompts) = (portion.pairs.width(), entering.first, self.base_metric.len());
        let all: Vec<Place> = (0..entering.paths.len())
            .flat_map(|copy| (0..n_prompts).map(move |prompt| (copy, prompt)))
            .flat_map(|(copy, prompt)| (first..width).map(move |position| Place { copy, prompt, position }))
            .collect();
        let copies = entering.paths.len() * n_prompts;
        let shape = [copies, width - first, heads.len(), config.d_head];
        let of = |input| -> Result<Tensor<B, 4>, AnalysisError> {
            let (values, _) = self.set_heads(entering.paths, layer, input, heads, &all)?;
            Ok(values.reshape(shape))
        };
        let earlier = |input| -> Result<Tensor<B, 4>, AnalysisError> {
            let all = base.block::<4>(layer, site(input, config))?.narrow(1, 0, first);
            Ok(Tensor::cat(heads.iter().map(|&head| all.clone().narrow(2, head, 1)).collect(), 2))
        };
        let before = match first {
            0 => None,
            _ => Some([earlier(Input::K)?, earlier(Input::V)?]),
        };
        let z = attend(of(Input::Q)?, of(Input::K)?, of(Input::V)?, before); // [copy * prompt, pos, head, d_head]
        let z = z.reshape([all.len(), heads.len() * config.d_head]);
        let index: Vec<usize> = rows
            .iter()
            .map(|at| (at.copy * n_prompts + at.prompt) * (width - first) + at.position - first)
            .collect();
        let places = rows.iter().map(|at| at.prompt * width + at.position);
        let n_heads = config.n_heads;
        let of_heads: Vec<usize> =
            places.flat_map(|place| heads.iter().map(move |head| place * n_heads + head)).collect();
        let [prompts, pos, _, d_head] = base.block::<4>(layer, Site::Z)?.dims();
        let base_z = base.block::<4>(layer, Site::Z)?.reshape([prompts * pos * n_heads, d_head]);
        let base_z = gather(base_z, &of_heads).reshape([rows.len(), heads.len() * d_head]);
        let w_o = model.w_o(layer);
        let w_o = Tensor::cat(heads.iter().map(|&head| w_o.clone().narrow(0, head, 1)).collect(), 0);
        Ok((gather(z, &index) - base_z).matmul(w_o.reshape([heads.len() * d_head, config.d_model])))
    }

    /// Queries, keys or values of some heads at these places, place by place and head by head, `[place * head, d_head]`: what reached
    /// them, and elsewhere the base run's; and where they are receivers.
    fn set_heads(
        &self,
        paths: &[usize],
        layer: usize,
        input: Input,
        heads: &[usize],
        places: &[Place],
    ) -> Result<(Tensor<B, 2>, Vec<bool>), AnalysisError> {
        let Carrier { base, portion, model, .. } = self.carrier;
        let config = model.config();
        let of_base = base.block::<4>(layer, site(input, config))?;
        let [prompts, width, n_heads, d_head] = of_base.dims();
        let of_base = of_base.reshape([prompts * width * n_heads, d_head]);
        let n_base = prompts * width * n_heads;
        debug_assert_eq!(width, portion.pairs.width());
        let changed = self.heads.get(&(layer, input));
        let mut index = Vec::with_capacity(places.len() * heads.len());
        let mut receives = Vec::with_capacity(places.len() * heads.len());
        for at in places {
            let path = paths[at.copy];
            let of_layer = self.receivers(path).iter().filter(|r| r.layer == layer && r.input == input);
            let covering: Vec<&Receiver> = of_layer.filter(|r| r.is_at(at.prompt, at.position)).collect();
            let row = covering.first().and_then(|r| self.row(path, r, at.prompt, at.position));
            for &head in heads {
                let covered = covering.iter().any(|r| r.head.is_none_or(|h| h == head));
                let moved = row.filter(|_| covered).zip(changed).and_then(|(row, (of, _))| {
                    of.iter().position(|h| *h == head).map(|at_head| n_base + row * of.len() + at_head)
                });
                index.push(moved.unwrap_or((at.prompt * width + at.position) * n_heads + head));
                receives.push(covered);
            }
        }
        let table = match changed {
            Some((_, changed)) => Tensor::cat(vec![of_base, changed.clone()], 0),
            None => of_base,
        };
        Ok((gather(table, &index), receives))
    }

    /// Layers and inputs of the receivers above the entry.
    fn above(&self, entering: &Entering) -> BTreeSet<(usize, Input)> {
        let config = self.carrier.model.config();
        let above = |r: &&Receiver| r.entry(config).depth() > entering.entry.depth();
        let of_path = |&path: &usize| self.receivers(path).iter().filter(above).map(|r| (r.layer, r.input));
        entering.paths.iter().flat_map(of_path).collect()
    }

    /// What is added to the streams that the receivers above the entry read, at the computed places.
    fn additions(
        &self,
        entering: &Entering,
        places: &[Place],
    ) -> Result<BTreeMap<(usize, Input), Addition<B>>, AnalysisError> {
        let Carrier { model, base, portion, policy, .. } = self.carrier;
        let config = model.config();
        let copies = entering.paths.len() * self.base_metric.len();
        let pos = places.len() / copies;
        let addition = |(layer, input): (usize, Input)| {
            let here = |at: Place| {
                let path = entering.paths[at.copy];
                let of_point = self.receivers(path).iter().filter(move |r| (r.layer, r.input) == (layer, input));
                of_point.filter(move |r| r.is_at(at.prompt, at.position)).map(move |r| (path, r))
            };
            let change = self.stream_change(layer, input, places, |at| here(*at).next())?;
            let heads = input.of_head().map(|_| {
                let receives = |at: &Place| {
                    let received: Vec<Option<usize>> = here(*at).map(|(_, r)| r.head).collect();
                    (0..config.n_heads).map(move |head| received.iter().any(|of| of.is_none_or(|h| h == head)))
                };
                let mask: Vec<bool> = places.iter().flat_map(receives).collect();
                let mask = TensorData::new(mask, [copies, pos, config.n_heads, 1]);
                let all = [copies, pos, config.n_heads, config.d_head];
                Tensor::<B, 4, Bool>::from_data(mask, &model.device()).expand(all)
            });
            let norm = match input {
                Input::MlpIn => Some(Site::Ln2Scale),
                _ => input.of_head().map(|_| Site::Ln1Scale),
            };
            let scale = match (policy.norms, norm) {
                (Frozen::Frozen, Some(norm)) => {
                    let width = portion.pairs.width();
                    let places: Vec<usize> = places.iter().map(|at| at.prompt * width + at.position).collect();
                    Some(gather(by_place(base.block(layer, norm)?), &places).reshape([copies, pos, 1]))
                }
                _ => None,
            };
            Ok(((layer, input), Addition { change: change.reshape([copies, pos, config.d_model]), heads, scale }))
        };
        self.above(entering).into_iter().map(addition).collect()
    }

    /// Sets the receivers above the entry.
    fn patch(&self, entering: &Entering) -> Result<Patch<B>, AnalysisError> {
        let Carrier { model, base, portion, .. } = self.carrier;
        let config = model.config();
        let mut patch = Patch::new();
        let last = config.n_layers - 1;
        let copies = entering.paths.len() * self.base_metric.len();
        for (layer, input) in self.above(entering) {
            let narrow = layer == last && !matches!(input, Input::ResidPre | Input::K | Input::V);
            let positions = |prompt: usize| match narrow {
                true => vec![portion.readout_positions()[prompt]],
                false => (entering.first..portion.pairs.width()).collect(),
            };
            let places: Vec<Place> = (0..entering.paths.len())
                .flat_map(|copy| (0..self.base_metric.len()).map(move |prompt| (copy, prompt)))
                .flat_map(|(copy, prompt)| {
                    positions(prompt).into_iter().map(move |position| Place { copy, prompt, position })
                })
                .collect();
            let pos = places.len() / copies;
            let point = HookPoint::block(layer, site(input, config));
            let device = model.device();
            patch = if input.of_head().is_some() {
                let heads: Vec<usize> = (0..config.n_heads).collect();
                let (values, receives) = self.set_heads(entering.paths, layer, input, &heads, &places)?;
                let shape = [copies, pos, config.n_heads, config.d_head];
                let mask = Tensor::<B, 4, Bool>::from_data(
                    TensorData::new(receives, [copies, pos, config.n_heads, 1]),
                    &device,
                );
                patch.replace_where(point, values.reshape(shape), mask.expand(shape))
            } else {
                let covering = |at: &Place| {
                    let path = entering.paths[at.copy];
                    let mut of_point = self.receivers(path).iter().filter(|r| (r.layer, r.input) == (layer, input));
                    of_point.find(|r| r.is_at(at.prompt, at.position)).map(|r| (path, r))
                };
                let of_base: Tensor<B, 2> = by_place(base.block(layer, site(input, config))?);
                let n_base = of_base.dims()[0];
                let changed = match input {
                    Input::MlpIn => self.mlps.get(&layer).map(|[normalized, _]| normalized.clone()),
                    _ => self.carried.stages.get(&Receiver::new(layer, input).stage(config)).cloned(),
                };
                let table = match changed {
                    Some(changed) => Tensor::cat(vec![of_base, changed], 0),
                    None => of_base,
                };
                let index: Vec<usize> = places
                    .iter()
                    .map(|at| {
                        let row = covering(at).and_then(|(path, r)| self.row(path, r, at.prompt, at.position));
                        row.map_or(at.prompt * portion.pairs.width() + at.position, |row| n_base + row)
                    })
                    .collect();
                let receives: Vec<bool> = places.iter().map(|at| covering(at).is_some()).collect();
                let shape = [copies, pos, config.d_model];
                let mask = Tensor::<B, 3, Bool>::from_data(TensorData::new(receives, [copies, pos, 1]), &device);
                patch.replace_where(point, gather(table, &index).reshape(shape), mask.expand(shape))
            };
        }
        Ok(patch)
    }
}

/// A prompt's position in one copy of the prompts.
#[derive(Clone, Copy)]
struct Place {
    copy: usize,
    prompt: usize,
    position: usize,
}
