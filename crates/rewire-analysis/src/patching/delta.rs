//! Computes how patching a node changes the residual stream at the point that the patch reaches
//! first, without running the block below it.
//!
//! Blocks add the outputs of heads, MLPs and neurons to the residual stream. The change by such a
//! node is the source activation minus the base activation, multiplied by the weights that write to
//! the stream. Queries, keys, values and patterns change the mixed values of the heads that use
//! them. These are recomputed from the cached queries, keys, values and patterns, or, in long
//! prompts, from queries, keys and values alone. If a norm stands between the heads or neurons and
//! the stream, it is computed anew on the cached output plus the change.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rewire_hooks::{ActivationCache, CacheError, HookPoint, Site};
use rewire_model::{QUERY_BLOCK, Transformer, TransformerConfig, mix_values};
use rewire_tensor::{cast_like, matmul, to_f32};

use crate::node::kind::{Component, NodeKind, Positions};
use crate::patching::plan::{Entry, UnitSlice};
use crate::run::batch::PromptBatch;
use crate::run::post_norm::PostNorm;

/// The base run, which is patched, and the source run, which provides the activations.
pub(crate) struct Deltas<'a, B: Backend> {
    pub(crate) model: &'a Transformer<B>,
    pub(crate) batch: &'a PromptBatch,
    pub(crate) base: &'a ActivationCache<B>,
    pub(crate) source: &'a ActivationCache<B>,
}

/// Returns the site of a head's queries or keys as attention uses them: after rotation, in rotary
/// models.
fn used(site: Site, config: &TransformerConfig) -> Site {
    match site {
        Site::Q if config.is_rotary() => Site::RotQ,
        Site::K => config.key_site(),
        other => other,
    }
}

/// Returns whether patches of values mix them by recorded patterns. Patterns of longer prompts
/// would take too much memory, and are computed again.
fn keeps_patterns(width: usize) -> bool {
    width <= QUERY_BLOCK
}

/// Returns whether the base run must record `point` to patch nodes of these kinds. Prompts have
/// `width` positions.
pub(crate) fn reads_of_base(kinds: &[NodeKind], config: &TransformerConfig, width: usize, point: HookPoint) -> bool {
    let HookPoint::Block { layer, site } = point else { return false };
    let last = layer + 1 == config.n_layers;
    let resumed = [Site::ResidPre, used(Site::K, config), Site::V].contains(&site) || last && site == Site::ResidPost;
    // The output of attention or MLP as the norm after it reads it.
    let is_input = |norm: PostNorm| norm.input() == point;
    let normed = kinds.iter().any(|k| PostNorm::of(k.component, layer, config).is_some_and(is_input));
    let enters_mid = |k: &NodeKind| matches!(Entry::of(k.component, layer, config), Entry::Mid(_));
    let attention = |k: &NodeKind| match k.component {
        Component::HeadV if keeps_patterns(width) => site == Site::Pattern,
        Component::HeadQ | Component::HeadK | Component::HeadV => site == used(Site::Q, config),
        _ => k.site() == site,
    };
    resumed || normed || kinds.iter().any(|k| attention(k) || site == Site::ResidMid && enters_mid(k))
}

/// Returns whether the source run must record `point` to patch nodes of these kinds.
pub(crate) fn reads_of_source(kinds: &[NodeKind], config: &TransformerConfig, point: HookPoint) -> bool {
    let HookPoint::Block { site, .. } = point else { return false };
    kinds.iter().any(|k| used(k.site(), config) == site)
}

impl<B: Backend> Deltas<'_, B> {
    /// Returns the residual stream that enters the model when each unit of `slice` is patched, and
    /// the size of its change.
    ///
    /// The stream starts at position `first` and has shape
    /// `[unit * prompts + prompt, pos, d_model]`. The size is the absolute difference from the base
    /// run's stream, summed over `d_model`, `[unit * prompts * pos]`. It is exactly 0 at positions
    /// at which nothing changes.
    pub(crate) fn entering(
        &self,
        slice: &UnitSlice,
        component: Component,
        entry: Entry,
        first: usize,
    ) -> Result<(Tensor<B, 3>, Tensor<B, 1>), CacheError> {
        let change = self.change(slice, component, first)?;
        let [units, prompts, pos, d_model] = change.dims();
        let size = to_f32(change.clone()).abs().sum_dim(3).reshape([units * prompts * pos]);
        let change = match PostNorm::of(component, slice.layer, self.model.config()) {
            Some(norm) => {
                let input = computed(self.base.get(norm.input())?, first);
                let moved = norm.change(self.model, input, change.reshape([units * prompts, pos, d_model]));
                moved.reshape([units, prompts, pos, d_model])
            }
            None => change,
        };
        let unchanged = self.unchanged(entry, first)?;
        // Changes are computed in float32; the stream enters the model in the model's dtype.
        let changed = cast_like(change + to_f32(unchanged.clone()).unsqueeze_dim(0), &unchanged);
        Ok((changed.reshape([units * prompts, pos, d_model]), size))
    }

    /// Returns the base run's residual stream at an entry, `[prompts, pos, d_model]`.
    pub(crate) fn unchanged(&self, entry: Entry, first: usize) -> Result<Tensor<B, 3>, CacheError> {
        let n_layers = self.model.config().n_layers;
        let residual: Tensor<B, 3> = match entry {
            Entry::Mid(layer) => self.base.block(layer, Site::ResidMid)?,
            Entry::Pre(layer) if layer == n_layers => self.base.block(layer - 1, Site::ResidPost)?,
            Entry::Pre(layer) => self.base.block(layer, Site::ResidPre)?,
        };
        Ok(computed(residual, first))
    }

    /// Returns the change of the residual stream for each unit of `slice`, `[unit, prompts, pos,
    /// d_model]`. In models with post-norms, the change by heads and neurons is that of the output
    /// of attention or MLP, before the norm after it.
    pub(crate) fn change(
        &self,
        slice: &UnitSlice,
        component: Component,
        first: usize,
    ) -> Result<Tensor<B, 4>, CacheError> {
        Ok(match component {
            Component::MlpPost => self.neurons(slice, first)?,
            Component::HeadQ
            | Component::HeadK
            | Component::HeadV
            | Component::HeadZ
            | Component::HeadResult
            | Component::HeadPattern => self.heads(slice, component, first)?,
            whole => computed(self.masked(slice, NodeKind::all(whole).site())?, first).unsqueeze_dim(0),
        })
    }

    /// Returns source minus base at a site of rank 3, `[prompts, pos, ..]`; 0 away from the slice's
    /// positions.
    fn masked(&self, slice: &UnitSlice, site: Site) -> Result<Tensor<B, 3>, CacheError> {
        let difference =
            to_f32(self.source.block::<3>(slice.layer, site)?) - to_f32(self.base.block(slice.layer, site)?);
        Ok(match self.mask(&slice.positions) {
            Some(mask) => difference * mask.unsqueeze_dim(2),
            None => difference,
        })
    }

    /// Returns the change that each patched head or key/value head makes in the output of
    /// attention, `[head, prompts, pos, d_model]`.
    fn heads(&self, slice: &UnitSlice, component: Component, first: usize) -> Result<Tensor<B, 4>, CacheError> {
        let z = computed(self.mixed_values(slice, component)?, first);
        let [prompts, pos, n_heads, d_head] = z.dims();
        let units = slice.units.len();
        // A key/value head writes through all heads of its group.
        let n_units = self.model.config().heads_at(NodeKind::all(component).site());
        let width = n_heads / n_units.max(1) * d_head;
        let z = z.reshape([prompts, pos, n_units, width]);
        let z = z.narrow(2, slice.units.start, units).permute([2, 0, 1, 3]).reshape([units, prompts * pos, width]);
        let w_o = self.model.w_o(slice.layer);
        let d_model = w_o.dims()[2];
        // [unit, width, d_model]
        let w_o = w_o.reshape([n_units, width, d_model]).narrow(0, slice.units.start, units);
        Ok(matmul(z, w_o).reshape([units, prompts, pos, d_model]))
    }

    /// Returns the change of every head's mixed values when its own part alone is patched,
    /// `[prompts, pos, head, d_head]`.
    fn mixed_values(&self, slice: &UnitSlice, component: Component) -> Result<Tensor<B, 4>, CacheError> {
        let config = self.model.config();
        let at = |cache: &ActivationCache<B>, site| cache.block::<4>(slice.layer, used(site, config)).map(to_f32);
        let mask = self.mask(&slice.positions).map(|mask| mask.unsqueeze_dims::<4>(&[2, 3]));
        let only = |difference: Tensor<B, 4>| match &mask {
            Some(mask) => difference * mask.clone(),
            None => difference,
        };
        let moved = |site| difference(at(self.source, site), at(self.base, site));
        let attend = |q, k, v| self.model.attend(slice.layer, q, k, v, None);
        let [queries, keys, values] = [Site::Q, Site::K, Site::V].map(|site| at(self.base, site));
        Ok(match component {
            Component::HeadZ | Component::HeadResult => only(moved(Site::Z)?),
            Component::HeadV if keeps_patterns(self.batch.pairs.width()) => {
                mix_values(at(self.base, Site::Pattern)?, only(moved(Site::V)?))
            }
            Component::HeadV => attend(queries?, keys?, only(moved(Site::V)?)),
            Component::HeadPattern => {
                let pattern = self.cell(moved(Site::Pattern)?, &slice.positions);
                only(mix_values(pattern, values?))
            }
            Component::HeadQ => {
                let (queries, keys, values) = (queries?, keys?, values?);
                let base = attend(queries, keys.clone(), values.clone());
                only(attend(at(self.source, Site::Q)?, keys, values) - base)
            }
            _ => {
                let (queries, keys, values) = (queries?, keys?, values?);
                let base = attend(queries.clone(), keys.clone(), values.clone());
                attend(queries, keys + only(moved(Site::K)?), values) - base
            }
        })
    }

    /// Sets a change of patterns `[prompts, head, query, key]` to 0 at all keys except the cell's,
    /// if `positions` is a cell.
    fn cell(&self, change: Tensor<B, 4>, positions: &Positions) -> Tensor<B, 4> {
        let Positions::Cell { src, .. } = *positions else { return change };
        let n = change.dims()[3];
        let row: Vec<f32> = (0..n).map(|key| f32::from(u8::from(key == src))).collect();
        change * Tensor::<B, 4>::from_data(TensorData::new(row, [1, 1, 1, n]), &self.model.device())
    }

    /// Returns the change that each patched neuron makes in the residual stream,
    /// `[neuron, prompts, pos, d_model]`.
    fn neurons(&self, slice: &UnitSlice, first: usize) -> Result<Tensor<B, 4>, CacheError> {
        let units = slice.units.len();
        let post = computed(self.masked(slice, Site::MlpPost)?, first).narrow(2, slice.units.start, units);
        let [prompts, pos, _] = post.dims();
        let (w_out, _) = self.model.mlp_out(slice.layer);
        let w_out = w_out.narrow(0, slice.units.start, units); // [neuron, d_model]
        let d_model = w_out.dims()[1];
        let post = post.reshape([prompts * pos, units]).transpose().reshape([units, prompts * pos, 1]);
        Ok(matmul(post, w_out.reshape([units, 1, d_model])).reshape([units, prompts, pos, d_model]))
    }

    /// Returns a mask `[prompts, pos]`: 1 at the position of each prompt, 0 elsewhere; `None` if
    /// `positions` covers all positions.
    pub(crate) fn mask(&self, positions: &Positions) -> Option<Tensor<B, 2>> {
        let (prompts, width) = (self.batch.prompts.len(), self.batch.pairs.width());
        positions.position(0)?;
        let cell = |prompt, pos| f32::from(u8::from(positions.position(prompt) == Some(pos)));
        let cells: Vec<f32> = (0..prompts).flat_map(|prompt| (0..width).map(move |pos| cell(prompt, pos))).collect();
        Some(Tensor::from_data(TensorData::new(cells, [prompts, width]), &self.model.device()))
    }
}

/// Returns source minus base.
fn difference<B: Backend>(
    source: Result<Tensor<B, 4>, CacheError>,
    base: Result<Tensor<B, 4>, CacheError>,
) -> Result<Tensor<B, 4>, CacheError> {
    Ok(source? - base?)
}

/// Returns the positions from `first` on.
pub(crate) fn computed<B: Backend, const D: usize>(tensor: Tensor<B, D>, first: usize) -> Tensor<B, D> {
    let len = tensor.dims()[1];
    tensor.narrow(1, first, len - first)
}
