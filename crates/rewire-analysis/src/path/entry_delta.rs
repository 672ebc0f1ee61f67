//! Computes how receivers change the residual stream at the start of the second run, without
//! running the blocks below it.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::Site;
use rewire_tasks::Metric;
use rewire_tensor::{matmul, zeros_like};

use crate::error::AnalysisError;
use crate::node::kind::Component;
use crate::patching::plan::Entry;
use crate::path::policy::ReceiverUpdate;
use crate::path::propagate::Carrier;
use crate::path::reachability::SecondRun;
use crate::path::receiver::{Input, Receiver};
use crate::path::second_run::{BatchPosition, Receiving};
use crate::run::post_norm::PostNorm;
use crate::run::transfer::{flatten_positions, select_rows};

impl<B: Backend, M: Metric> Receiving<'_, B, M> {
    /// Returns the residual stream at the entry, `[row, d_model]`.
    pub(super) fn entering(&self, second: &SecondRun, rows: &[BatchPosition]) -> Result<Tensor<B, 2>, AnalysisError> {
        let Carrier { model, base, batch, .. } = self.carrier;
        let config = model.config();
        let stream = match second.entry {
            Entry::Mid(layer) => base.block(layer, Site::ResidMid)?,
            Entry::Pre(layer) if layer == config.n_layers => base.block(layer - 1, Site::ResidPost)?,
            Entry::Pre(layer) => base.block(layer, Site::ResidPre)?,
        };
        let width = batch.pairs.width();
        let places: Vec<usize> = rows.iter().map(|at| at.prompt * width + at.position).collect();
        let mut x = select_rows(flatten_positions(stream), &places);
        let here = |at: &BatchPosition| {
            let path = second.paths[at.copy];
            self.reach.receivers(path).iter().filter(|r| r.entry(config) == second.entry).map(move |r| (path, r))
        };
        if second.heads.iter().any(|heads| !heads.is_empty()) {
            x = x + self.attention_changes(second, rows)?;
        }
        let layer = match second.entry {
            Entry::Pre(layer) => layer.checked_sub(1),
            Entry::Mid(_) => None,
        };
        if let Some([_, more]) = layer.and_then(|layer| self.mlps.get(&layer)) {
            let zero = zeros_like([1, config.d_model], &x);
            let row_of = |at: &BatchPosition| {
                let mut mlp = here(at).filter(|(_, r)| r.input == Input::MlpIn);
                mlp.find_map(|(path, r)| self.reach.row(path, r, at.prompt, at.position)).map_or(0, |row| row + 1)
            };
            let index: Vec<usize> = rows.iter().map(row_of).collect();
            x = x + select_rows(Tensor::cat(vec![zero, more.clone()], 0), &index);
        }
        // A stream receiver replaces the stream and discards earlier additions. If a stream is a
        // receiver both after one block and before the next, the later replacement counts.
        for input in [Input::ResidMid, Input::ResidPost, Input::ResidPre] {
            let of = |at: &BatchPosition| {
                let mut receiving = here(at).filter(|(_, r)| r.input == input && r.is_at(at.prompt, at.position));
                receiving.next()
            };
            let Some((_, receiver)) = rows.iter().find_map(of) else { continue };
            if self.carrier.policy.update == ReceiverUpdate::Add {
                x = x + self.stream_change(receiver.layer, input, rows, |at| of(at))?;
                continue;
            }
            let n = rows.len();
            let held = select_rows(flatten_positions(base.block(receiver.layer, input.rotary_site(config))?), &places);
            let index: Vec<usize> = rows
                .iter()
                .enumerate()
                .map(|(i, at)| match of(at) {
                    None => i,
                    Some((path, r)) => self.reach.row(path, r, at.prompt, at.position).map_or(n + i, |row| 2 * n + row),
                })
                .collect();
            // If nothing reaches this input in any path, all receiving rows take the base run's
            // stream.
            let reached = self.carried.get(&receiver.stage(config)).cloned();
            x = select_rows(Tensor::cat([x, held].into_iter().chain(reached).collect(), 0), &index);
        }
        Ok(x)
    }

    /// Returns the change, relative to the base run, of the stream that receivers of one layer and
    /// input read, `[row, d_model]`.
    ///
    /// The change is 0 in rows for which `of` returns no path and receiver.
    pub(super) fn stream_change<'p>(
        &self,
        layer: usize,
        input: Input,
        rows: &[BatchPosition],
        of: impl Fn(&BatchPosition) -> Option<(usize, &'p Receiver)>,
    ) -> Result<Tensor<B, 2>, AnalysisError> {
        let Carrier { model, base, .. } = self.carrier;
        let config = model.config();
        let stage = Receiver::new(layer, input).stage(config);
        let zero = zeros_like([1, config.d_model], &model.w_o(0));
        let table = match self.stage(stage) {
            None => zero,
            Some((x, places)) => {
                let [n, _, d_model] = x.dims();
                let of_base = select_rows(flatten_positions(base.block(layer, stage.site())?), &places);
                Tensor::cat(vec![zero, x.reshape([n, d_model]) - of_base], 0)
            }
        };
        let row_of = |at: &BatchPosition| {
            of(at).and_then(|(path, r)| self.reach.row(path, r, at.prompt, at.position)).map_or(0, |row| row + 1)
        };
        Ok(select_rows(table, &rows.iter().map(row_of).collect::<Vec<_>>()))
    }

    /// Returns the change of attention's output in the layer of the entry, `[row, d_model]`. It is
    /// 0 for paths that do not enter through attention.
    fn attention_changes(&self, second: &SecondRun, rows: &[BatchPosition]) -> Result<Tensor<B, 2>, AnalysisError> {
        let per_path = rows.len() / second.paths.len();
        let (mut parts, mut from) = (Vec::new(), 0);
        for alike in second.heads.chunk_by(|a, b| a == b) {
            let paths = from..from + alike.len();
            let rows = &rows[paths.start * per_path..paths.end * per_path];
            let rows: Vec<_> = rows.iter().map(|at| BatchPosition { copy: at.copy - from, ..*at }).collect();
            let part = SecondRun { paths: second.paths[paths.clone()].to_vec(), heads: alike.to_vec(), ..*second };
            parts.push(match alike[0].as_slice() {
                [] => zeros_like([rows.len(), self.carrier.model.config().d_model], &self.carrier.model.w_o(0)),
                heads => self.attention_change(&part, heads, &rows)?,
            });
            from = paths.end;
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) })
    }

    /// Returns the change of attention's output if these heads receive other queries, keys or
    /// values, `[row, d_model]`. The heads are in the layer of the entry.
    fn attention_change(
        &self,
        second: &SecondRun,
        heads: &[usize],
        rows: &[BatchPosition],
    ) -> Result<Tensor<B, 2>, AnalysisError> {
        let Carrier { model, base, batch, .. } = self.carrier;
        let config = model.config();
        let (Entry::Mid(layer) | Entry::Pre(layer)) = second.entry;
        let layer = if matches!(second.entry, Entry::Pre(_)) { layer - 1 } else { layer };
        let (width, first, n_prompts) = (batch.pairs.width(), second.first, self.base_metric.len());
        let all = self.places(second, |_| (first..width).collect());
        let copies = second.paths.len() * n_prompts;
        let shape = [copies, width - first, heads.len(), config.d_head];
        // Queries count heads; keys and values count key/value heads.
        let own = |input: Input| -> Vec<usize> {
            let sharing = config.n_heads / config.heads_at(input.site()).max(1);
            heads.iter().map(|head| head / sharing).collect()
        };
        let of = |input: Input| -> Result<Tensor<B, 4>, AnalysisError> {
            let (values, _) = self.set_heads(&second.paths, layer, input, &own(input), &all)?;
            Ok(values.reshape(shape))
        };
        let earlier = |input: Input| -> Result<Tensor<B, 4>, AnalysisError> {
            let all = base.block::<4>(layer, input.rotary_site(config))?.narrow(1, 0, first);
            Ok(Tensor::cat(own(input).into_iter().map(|head| all.clone().narrow(2, head, 1)).collect(), 2))
        };
        let before = match first {
            0 => None,
            _ => Some([earlier(Input::K)?, earlier(Input::V)?]),
        };
        // [copy * prompt, pos, head, d_head]
        let z = model.attend(layer, of(Input::Q)?, of(Input::K)?, of(Input::V)?, before);
        let z = z.reshape([all.len(), heads.len() * config.d_head]);
        let index: Vec<usize> =
            rows.iter().map(|at| (at.copy * n_prompts + at.prompt) * (width - first) + at.position - first).collect();
        let places = rows.iter().map(|at| at.prompt * width + at.position);
        let n_heads = config.n_heads;
        let of_heads: Vec<usize> =
            places.flat_map(|place| heads.iter().map(move |head| place * n_heads + head)).collect();
        let [prompts, pos, _, d_head] = base.block::<4>(layer, Site::Z)?.dims();
        let base_z = base.block::<4>(layer, Site::Z)?.reshape([prompts * pos * n_heads, d_head]);
        let base_z = select_rows(base_z, &of_heads).reshape([rows.len(), heads.len() * d_head]);
        let w_o = model.w_o(layer);
        let w_o = Tensor::cat(heads.iter().map(|&head| w_o.clone().narrow(0, head, 1)).collect(), 0);
        let written = matmul(select_rows(z, &index) - base_z, w_o.reshape([heads.len() * d_head, config.d_model]));
        let Some(norm) = PostNorm::of(Component::HeadZ, layer, config) else { return Ok(written) };
        let places: Vec<usize> = rows.iter().map(|at| at.prompt * width + at.position).collect();
        let input = select_rows(flatten_positions(base.get(norm.input())?), &places);
        Ok(norm.change_of_rows(model, input, written))
    }
}
