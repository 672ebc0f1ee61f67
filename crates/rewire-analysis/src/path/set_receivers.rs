//! Updates the receivers above the start of the second run: sets them, or adds to the streams that
//! they read. Receivers that no sender reached keep the base run's activations.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};
use rewire_hooks::{HookPoint, Patch};
use rewire_tasks::Metric;

use crate::error::AnalysisError;
use crate::path::add_receivers::Addition;
use crate::path::policy::Recompute;
use crate::path::propagate::Carrier;
use crate::path::reachability::SecondRun;
use crate::path::receiver::{Input, Receiver};
use crate::path::second_run::{BatchPosition, Receiving};
use crate::run::transfer::{flatten_positions, select_rows};

impl<B: Backend, M: Metric> Receiving<'_, B, M> {
    /// Returns queries, keys or values of some heads at these places, `[place * head, d_head]`, and
    /// whether each head is a receiver there.
    ///
    /// Rows are ordered place by place, then head by head. A head that a sender reached has its
    /// changed activation; all others have the base run's.
    pub(super) fn set_heads(
        &self,
        paths: &[usize],
        layer: usize,
        input: Input,
        heads: &[usize],
        places: &[BatchPosition],
    ) -> Result<(Tensor<B, 2>, Vec<bool>), AnalysisError> {
        let Carrier { base, model, .. } = self.carrier;
        let config = model.config();
        let of_base = base.block::<4>(layer, input.rotary_site(config))?;
        let [prompts, width, n_heads, d_head] = of_base.dims();
        let of_base = of_base.reshape([prompts * width * n_heads, d_head]);
        let n_base = prompts * width * n_heads;
        let changed = self.heads.get(&(layer, input));
        let mut index = Vec::with_capacity(places.len() * heads.len());
        let mut receives = Vec::with_capacity(places.len() * heads.len());
        for at in places {
            let path = paths[at.copy];
            let covering: Vec<&Receiver> = self.covering(paths, (layer, input), *at).collect();
            let row = covering.first().and_then(|r| self.reach.row(path, r, at.prompt, at.position));
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
        Ok((select_rows(table, &index), receives))
    }

    /// Returns the receivers of one layer and input at a place.
    fn covering(
        &self,
        paths: &[usize],
        point: (usize, Input),
        at: BatchPosition,
    ) -> impl Iterator<Item = &Receiver> + use<'_, B, M> {
        let all = self.reach.receivers(paths[at.copy]).iter();
        all.filter(move |r| (r.layer, r.input) == point && r.is_at(at.prompt, at.position))
    }

    /// Returns the layers and inputs of the receivers above the entry.
    fn above(&self, second: &SecondRun) -> BTreeSet<(usize, Input)> {
        let config = self.carrier.model.config();
        let above = |r: &&Receiver| r.entry(config).depth() > second.entry.depth();
        let of_path = |&path: &usize| self.reach.receivers(path).iter().filter(above).map(|r| (r.layer, r.input));
        second.paths.iter().flat_map(of_path).collect()
    }

    /// Returns the additions to the streams that the receivers above the entry read, at the
    /// computed places.
    pub(super) fn additions(
        &self,
        second: &SecondRun,
        places: &[BatchPosition],
    ) -> Result<BTreeMap<(usize, Input), Addition<B>>, AnalysisError> {
        let Carrier { model, base, batch, policy, .. } = self.carrier;
        let config = model.config();
        let copies = second.paths.len() * self.base_metric.len();
        let pos = places.len() / copies;
        let addition = |(layer, input): (usize, Input)| {
            let here = |at: &BatchPosition| self.covering(&second.paths, (layer, input), *at);
            let path = |at: &BatchPosition| second.paths[at.copy];
            let change = self.stream_change(layer, input, places, |at| here(at).next().map(|r| (path(at), r)))?;
            let heads = input.of_head().map(|_| {
                let n_heads = config.heads_at(input.site());
                let receives = |at: &BatchPosition| {
                    let received: Vec<Option<usize>> = here(at).map(|r| r.head).collect();
                    (0..n_heads).map(move |head| received.iter().any(|of| of.is_none_or(|h| h == head)))
                };
                let mask: Vec<bool> = places.iter().flat_map(receives).collect();
                let mask = TensorData::new(mask, [copies, pos, n_heads, 1]);
                let all = [copies, pos, n_heads, config.d_head];
                Tensor::<B, 4, Bool>::from_data(mask, &model.device()).expand(all)
            });
            let mlp = (input == Input::MlpIn).then(|| {
                let mask: Vec<bool> = places.iter().map(|at| here(at).next().is_some()).collect();
                let mask = Tensor::<B, 3, Bool>::from_data(TensorData::new(mask, [copies, pos, 1]), &model.device());
                mask.expand([copies, pos, config.d_model])
            });
            let scale = match (policy.norms, input.scale()) {
                (Recompute::Frozen, Some(norm)) => {
                    let width = batch.pairs.width();
                    let places: Vec<usize> = places.iter().map(|at| at.prompt * width + at.position).collect();
                    Some(select_rows(flatten_positions(base.block(layer, norm)?), &places).reshape([copies, pos, 1]))
                }
                _ => None,
            };
            Ok(((layer, input), Addition { change: change.reshape([copies, pos, config.d_model]), heads, mlp, scale }))
        };
        self.above(second).into_iter().map(addition).collect()
    }

    /// Builds the patch that sets the receivers above the entry.
    pub(super) fn patch(&self, second: &SecondRun) -> Result<Patch<B>, AnalysisError> {
        let Carrier { model, base, batch, .. } = self.carrier;
        let config = model.config();
        let mut patch = Patch::new();
        let last = config.n_layers - 1;
        let copies = second.paths.len() * self.base_metric.len();
        for (layer, input) in self.above(second) {
            let narrow = layer == last && !matches!(input, Input::ResidPre | Input::K | Input::V);
            let positions = |prompt: usize| match narrow {
                true => batch.reads(prompt).to_vec(),
                false => (second.first..batch.pairs.width()).collect(),
            };
            let places = self.places(second, positions);
            let pos = places.len() / copies;
            let point = HookPoint::block(layer, input.rotary_site(config));
            let device = model.device();
            patch = if input.of_head().is_some() {
                let n_heads = config.heads_at(input.site());
                let heads: Vec<usize> = (0..n_heads).collect();
                let (values, receives) = self.set_heads(&second.paths, layer, input, &heads, &places)?;
                let shape = [copies, pos, n_heads, config.d_head];
                let mask =
                    Tensor::<B, 4, Bool>::from_data(TensorData::new(receives, [copies, pos, n_heads, 1]), &device);
                patch.replace_where(point, values.reshape(shape), mask.expand(shape))
            } else {
                let covering = |at: &BatchPosition| self.covering(&second.paths, (layer, input), *at).next();
                let of_base: Tensor<B, 2> = flatten_positions(base.block(layer, input.rotary_site(config))?);
                let n_base = of_base.dims()[0];
                let changed = match input {
                    Input::MlpIn => self.mlps.get(&layer).map(|[normalized, _]| normalized.clone()),
                    _ => self.carried.get(&Receiver::new(layer, input).stage(config)).cloned(),
                };
                let table = match changed {
                    Some(changed) => Tensor::cat(vec![of_base, changed], 0),
                    None => of_base,
                };
                let index: Vec<usize> = places
                    .iter()
                    .map(|at| {
                        let row =
                            covering(at).and_then(|r| self.reach.row(second.paths[at.copy], r, at.prompt, at.position));
                        row.map_or(at.prompt * batch.pairs.width() + at.position, |row| n_base + row)
                    })
                    .collect();
                let receives: Vec<bool> = places.iter().map(|at| covering(at).is_some()).collect();
                let shape = [copies, pos, config.d_model];
                let mask = Tensor::<B, 3, Bool>::from_data(TensorData::new(receives, [copies, pos, 1]), &device);
                patch.replace_where(point, select_rows(table, &index).reshape(shape), mask.expand(shape))
            };
        }
        Ok(patch)
    }
}
