//! Propagates the senders' change through the residual stream to the receivers, with attention
//! frozen.
//!
//! With every head's output frozen, no change moves between positions. The stream of each prompt
//! and position passes only through MLPs and norms, and is computed only if a receiver reads it.
//! Rows of all senders, prompts and positions share one matmul per layer. A row starts in the layer
//! of its first sender.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};
use rewire_hooks::{ActivationCache, CacheError, HookPoint, Patch, Site};
use rewire_model::{Transformer, TransformerConfig};
use rewire_tensor::{cast_like, matmul, zeros_like};

use crate::error::AnalysisError;
use crate::node::kind::{Component, Node};
use crate::path::policy::{FreezePolicy, Recompute};
use crate::path::receiver::{layer_ends, mlp_reads, written};
use crate::run::batch::PromptBatch;
use crate::run::post_norm::PostNorm;
use crate::run::transfer::{flatten_positions, select_rows};

/// One prompt's stream at one position, changed by one set of senders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CarriedRow {
    /// Step at which the first sender writes (see [`written`]).
    pub(super) begins: usize,
    /// Index of the set of senders.
    pub(super) senders: usize,
    pub(super) prompt: usize,
    pub(super) position: usize,
}

/// A stage of the residual stream, ordered as in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Stage {
    layer: usize,
    of_layer: OfLayer,
}

/// Stage within a layer: before the block, between attention and MLP, or after the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum OfLayer {
    Pre,
    Mid,
    Post,
}

impl Stage {
    pub(super) fn pre(layer: usize) -> Self {
        Self { layer, of_layer: OfLayer::Pre }
    }

    pub(super) fn mid(layer: usize) -> Self {
        Self { layer, of_layer: OfLayer::Mid }
    }

    pub(super) fn post(layer: usize) -> Self {
        Self { layer, of_layer: OfLayer::Post }
    }

    pub(super) fn site(self) -> Site {
        match self.of_layer {
            OfLayer::Pre => Site::ResidPre,
            OfLayer::Mid => Site::ResidMid,
            OfLayer::Post => Site::ResidPost,
        }
    }
}

/// The stream at the requested stages, `[row, d_model]`. Rows are sorted by their start, and each
/// stage holds only the rows that have started by then.
pub(super) type Carried<B> = BTreeMap<Stage, Tensor<B, 2>>;

/// The base run, the source run and the freeze policy that propagation uses.
pub(super) struct Carrier<'a, B: Backend> {
    pub(super) model: &'a Transformer<B>,
    pub(super) batch: &'a PromptBatch,
    pub(super) base: &'a ActivationCache<B>,
    pub(super) source: &'a ActivationCache<B>,
    pub(super) policy: FreezePolicy,
}

impl<B: Backend> Carrier<'_, B> {
    /// Propagates `rows` of these sets of senders to each of `stages`. `rows` must be sorted by
    /// `begins`.
    pub(super) fn carry(
        &self,
        senders: &[Vec<Node>],
        rows: &[CarriedRow],
        stages: &BTreeSet<Stage>,
    ) -> Result<Carried<B>, AnalysisError> {
        let mut carried = Carried::new();
        let (Some(first), Some(&deepest)) = (rows.first(), stages.last()) else { return Ok(carried) };
        let config = self.model.config();
        let mut x: Option<Tensor<B, 2>> = None;
        for layer in first.begins / layer_ends(0)..=deepest.layer {
            let begun = rows.partition_point(|row| row.begins < layer_ends(layer));
            let before = x.as_ref().map_or(0, |x| x.dims()[0]);
            let here = StridedRows { carrier: self, senders, layer, rows: &rows[..begun] };
            let entering = StridedRows { rows: &rows[before..begun], ..here }.of(self.base, Site::ResidPre)?;
            let mut pre = match x.take() {
                Some(x) => Tensor::cat(vec![x, entering], 0),
                None => entering,
            };
            pre = here.set(pre, Component::ResidPre, Site::ResidPre)?;
            let mut keep = |stage, x: &Tensor<B, 2>| {
                if stages.contains(&stage) {
                    carried.insert(stage, x.clone());
                }
            };
            keep(Stage::pre(layer), &pre);
            if deepest == Stage::pre(layer) {
                break;
            }
            let mid = pre.clone() + here.attended()?;
            let mid = if config.parallel_block { mid } else { here.set(mid, Component::ResidMid, Site::ResidMid)? };
            keep(Stage::mid(layer), &mid);
            if deepest == Stage::mid(layer) {
                break;
            }
            let read = if config.parallel_block { pre } else { mid.clone() };
            let post = here.set(mid + here.mlp_out(read)?, Component::ResidPost, Site::ResidPost)?;
            keep(Stage::post(layer), &post);
            x = Some(post);
        }
        Ok(carried)
    }
}

/// The rows that have started by a layer.
#[derive(Clone, Copy)]
struct StridedRows<'a, B: Backend> {
    carrier: &'a Carrier<'a, B>,
    senders: &'a [Vec<Node>],
    layer: usize,
    rows: &'a [CarriedRow],
}

impl<B: Backend> StridedRows<'_, B> {
    /// Returns an activation of rank 3 at the rows' prompts and positions, `[row, width]`.
    fn of(&self, cache: &ActivationCache<B>, site: Site) -> Result<Tensor<B, 2>, CacheError> {
        self.at(cache, HookPoint::block(self.layer, site))
    }

    /// Returns the activation at a hook point in each row, `[row, width]`.
    fn at(&self, cache: &ActivationCache<B>, point: HookPoint) -> Result<Tensor<B, 2>, CacheError> {
        Ok(select_rows(flatten_positions(cache.get(point)?), &self.places()))
    }

    /// Returns the rows' indices in a table of all prompts and positions,
    /// `prompt * width + position`.
    fn places(&self) -> Vec<usize> {
        let width = self.carrier.batch.pairs.width();
        self.rows.iter().map(|row| row.prompt * width + row.position).collect()
    }

    /// Returns the nodes that send in this layer at a row, if `is` holds for their component.
    fn nodes(&self, row: &CarriedRow, is: impl Fn(Component) -> bool) -> impl Iterator<Item = &Node> {
        let (layer, CarriedRow { prompt, position, .. }) = (self.layer, *row);
        self.senders[row.senders].iter().filter(move |node| {
            node.layer == layer && is(node.component) && node.positions.position(prompt).is_none_or(|p| p == position)
        })
    }

    /// Replaces the rows of `x` at which the whole `component` sends with the source run's rows.
    fn set(&self, x: Tensor<B, 2>, component: Component, site: Site) -> Result<Tensor<B, 2>, CacheError> {
        let sends = |row: &CarriedRow| self.nodes(row, |c| c == component).next().is_some();
        self.replace(x, sends, site)
    }

    fn replace(
        &self,
        x: Tensor<B, 2>,
        sends: impl Fn(&CarriedRow) -> bool,
        site: Site,
    ) -> Result<Tensor<B, 2>, CacheError> {
        let sent: Vec<CarriedRow> = self.rows.iter().copied().filter(|row| sends(row)).collect();
        if sent.is_empty() {
            return Ok(x);
        }
        let values = StridedRows { rows: &sent, ..*self }.of(self.carrier.source, site)?;
        let n = x.dims()[0];
        let mut next = n;
        let index: Vec<usize> = (0..n)
            .map(|i| {
                let from_source = sends(&self.rows[i]);
                next += usize::from(from_source);
                if from_source { next - 1 } else { i }
            })
            .collect();
        Ok(select_rows(Tensor::cat(vec![x, values], 0), &index))
    }

    /// Returns attention's output: the base run's, with the sending heads from the source run.
    fn attended(&self) -> Result<Tensor<B, 2>, CacheError> {
        let Carrier { base, source, model, .. } = self.carrier;
        let is_head = |c| matches!(c, Component::HeadZ | Component::HeadResult);
        let n_heads = model.config().n_heads;
        let (mut sending, mut sends, mut number) = (Vec::new(), Vec::new(), Vec::new());
        for row in self.rows {
            let heads: Vec<Option<usize>> = self.nodes(row, is_head).map(|node| node.unit).collect();
            if !heads.is_empty() {
                sending.push(*row);
                sends.extend((0..n_heads).map(|head| heads.iter().any(|unit| unit.is_none_or(|unit| unit == head))));
            }
            // Index 0 selects a row of zeros.
            number.push(if heads.is_empty() { 0 } else { sending.len() });
        }
        let mut attended = self.of(base, Site::AttnOut)?;
        if !sending.is_empty() {
            let z = source.block::<4>(self.layer, Site::Z)? - base.block(self.layer, Site::Z)?;
            let [prompts, pos, _, d_head] = z.dims();
            let z = z.reshape([prompts * pos, n_heads * d_head]);
            let sent = StridedRows { rows: &sending, ..*self };
            let z = select_rows(z, &sent.places()).reshape([sending.len(), n_heads, d_head]);
            let sends: Vec<f32> = sends.into_iter().map(|sends| f32::from(u8::from(sends))).collect();
            let sends = Tensor::<B, 3>::from_data(TensorData::new(sends, [sending.len(), n_heads, 1]), &model.device());
            let sends = cast_like(sends, &z);
            let w_o = model.w_o(self.layer);
            let d_model = w_o.dims()[2];
            let written = (z * sends).reshape([sending.len(), n_heads * d_head]);
            let written = matmul(written, w_o.reshape([n_heads * d_head, d_model]));
            let written = match PostNorm::of(Component::HeadZ, self.layer, model.config()) {
                Some(norm) => norm.change_of_rows(model, sent.at(base, norm.input())?, written),
                None => written,
            };
            let zeros = zeros_like([1, d_model], &written);
            attended = attended + select_rows(Tensor::cat(vec![zeros, written], 0), &number);
        }
        self.set(attended, Component::AttnOut, Site::AttnOut)
    }

    /// Returns the MLP's output for the stream `read`.
    fn mlp_out(&self, read: Tensor<B, 2>) -> Result<Tensor<B, 2>, AnalysisError> {
        let Carrier { base, model, policy, .. } = self.carrier;
        let read_at = mlp_reads(self.layer, model.config());
        // Later rows start after the MLP reads; their MLP input equals the base run's.
        let changed = match policy.mlps {
            Recompute::Yes => self.rows.partition_point(|row| row.begins < read_at),
            Recompute::Frozen => 0,
        };
        let (moved, still) = self.rows.split_at(changed);
        let mut parts = Vec::new();
        if changed > 0 {
            let moved = StridedRows { rows: moved, ..*self };
            let d_model = read.dims()[1];
            let mut scale = Patch::new();
            if policy.norms == Recompute::Frozen {
                let held = moved.of(base, Site::Ln2Scale)?.reshape([changed, 1, 1]);
                scale = scale.replace(HookPoint::block(self.layer, Site::Ln2Scale), held);
            }
            let read = read.narrow(0, 0, changed).reshape([changed, 1, d_model]);
            let normalized = model.mlp_norm(self.layer, read, &mut scale);
            scale.finish()?;
            parts.push(moved.recomputed_mlp(normalized)?.reshape([changed, d_model]));
        }
        if !still.is_empty() {
            parts.push(StridedRows { rows: still, ..*self }.held_mlp()?);
        }
        let out = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) };
        // A node of all neurons sends the MLP's whole output.
        let whole = |c: &Node| c.component == Component::MlpOut || c.unit.is_none();
        let is_mlp = |c| matches!(c, Component::MlpOut | Component::MlpPost);
        Ok(self.replace(out, |row| self.nodes(row, is_mlp).any(whole), Site::MlpOut)?)
    }

    /// Recomputes the MLP, with the sending neurons from the source run.
    fn recomputed_mlp(&self, normalized: Tensor<B, 3>) -> Result<Tensor<B, 3>, AnalysisError> {
        let Carrier { source, model, .. } = self.carrier;
        let n = self.rows.len();
        let d_mlp = model.config().d_mlp;
        let mut mask = vec![false; n * d_mlp];
        for (i, row) in self.rows.iter().enumerate() {
            for unit in self.nodes(row, |c| c == Component::MlpPost).filter_map(|node| node.unit) {
                mask[i * d_mlp + unit] = true;
            }
        }
        let mut neurons = Patch::new();
        if mask.contains(&true) {
            let values = self.of(source, Site::MlpPost)?.reshape([n, 1, d_mlp]);
            let mask = Tensor::<B, 3, Bool>::from_data(TensorData::new(mask, [n, 1, d_mlp]), &model.device());
            neurons = neurons.replace_where(HookPoint::block(self.layer, Site::MlpPost), values, mask);
        }
        let out = model.mlp(self.layer, normalized, &mut neurons);
        neurons.finish()?;
        Ok(out)
    }

    /// Returns the base run's MLP output plus the change that the sending neurons write.
    fn held_mlp(&self) -> Result<Tensor<B, 2>, CacheError> {
        let Carrier { base, source, model, .. } = self.carrier;
        let units: Vec<Vec<usize>> = self
            .rows
            .iter()
            .map(|row| {
                let units = self.nodes(row, |c| c == Component::MlpPost).filter_map(|node| node.unit);
                // A neuron that is named twice sends once.
                units.collect::<BTreeSet<_>>().into_iter().collect()
            })
            .collect();
        let out = self.of(base, Site::MlpOut)?;
        let most = units.iter().map(Vec::len).max().unwrap_or(0);
        if most == 0 {
            return Ok(out);
        }
        let change =
            flatten_positions(source.block(self.layer, Site::MlpPost)? - base.block(self.layer, Site::MlpPost)?);
        let [n_places, d_mlp] = change.dims();
        // The last entry is 0, for rows with fewer sending neurons than the maximum.
        let zero = zeros_like([1, 1], &change);
        let change = Tensor::cat(vec![change.reshape([n_places * d_mlp, 1]), zero], 0);
        let (w_out, _) = model.mlp_out(self.layer);
        let places = self.places();
        let written = |sum: Option<Tensor<B, 2>>, k: usize| {
            let unit = |i: usize| units[i].get(k).copied();
            let numbers: Vec<usize> =
                (0..units.len()).map(|i| unit(i).map_or(n_places * d_mlp, |unit| places[i] * d_mlp + unit)).collect();
            let directions: Vec<usize> = (0..units.len()).map(|i| unit(i).unwrap_or(0)).collect();
            let one = select_rows(change.clone(), &numbers) * select_rows(w_out.clone(), &directions);
            Some(match sum {
                Some(sum) => sum + one,
                None => one,
            })
        };
        let Some(norm) = PostNorm::of(Component::MlpPost, self.layer, model.config()) else {
            let start = Some(out.clone());
            return Ok((0..most).fold(start, written).unwrap_or(out));
        };
        let Some(written) = (0..most).fold(None, written) else { return Ok(out) };
        Ok(out + norm.change_of_rows(model, self.at(base, norm.input())?, written))
    }
}

/// Returns the step at which the first sender at a prompt and position writes. Only senders whose
/// activations can differ in the source run count.
pub(super) fn begins(
    senders: &[Node],
    batch: &PromptBatch,
    config: &TransformerConfig,
    prompt: usize,
    position: usize,
) -> Option<usize> {
    let sends = |node: &&Node| {
        node.positions.position(prompt).is_none_or(|p| p == position)
            && batch.can_differ(prompt, node.component, node.layer, config, position)
    };
    senders.iter().filter(sends).map(written).min()
}
