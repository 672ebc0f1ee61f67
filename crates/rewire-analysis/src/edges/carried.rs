//! The hook that makes a run one of circuits: the inputs of readers carry the writers inside a
//! circuit from this run, and everything else from the source run.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rewire_hooks::{ActivationCache, AnyRank, CacheError, Hook, HookPoint, Site};
use rewire_model::{HeadInput, Prefix, Transformer};
use rewire_tensor::{cast_like, matmul, to_f32};

use crate::edges::graph::Writer;
use crate::edges::inside::{Inside, Readers, Stage};

/// The source run, which fills everything outside a circuit. Its activations are those of the
/// computed positions.
#[derive(Clone, Copy)]
pub(super) struct Outside<'a, B: Backend> {
    pub(super) model: &'a Transformer<B>,
    pub(super) source: &'a ActivationCache<B>,
    /// Keys and values of the positions before the computed ones. They are equal in both runs.
    pub(super) prefix: Option<&'a Prefix<B>>,
    /// The first computed position.
    pub(super) first: usize,
}

/// Returns the sites that the source run records.
pub(super) fn recorded(site: Site) -> bool {
    let streams = [Site::ResidPre, Site::ResidMid, Site::ResidPost];
    streams.contains(&site) || [Site::Z, Site::MlpOut, Site::AttnOut, Site::AttnBeforeNorm].contains(&site)
}

/// Hook of a run of circuits. The batch holds its prompts once for each circuit, one copy after the
/// other.
///
/// The input of a reader is the stream of the source run plus, for each edge inside the circuit,
/// the change of the writer's output from the source run to this run.
pub(super) struct Carried<'a, B: Backend> {
    outside: Outside<'a, B>,
    inside: &'a Inside<B>,
    /// Change of each writer so far, `[circuit, writer, prompt * pos * d_model]`. If a norm follows
    /// attention, the change of a head is that before the norm.
    changes: Option<Tensor<B, 3>>,
    /// Queries, keys and values with a head for each query head, if keys or values of heads that
    /// share them differ: `[row, pos, head, d_head]`.
    own: BTreeMap<Site, Tensor<B, 4>>,
    /// The first error inside the hook.
    error: Option<CacheError>,
}

impl<'a, B: Backend> Carried<'a, B> {
    /// Returns the hook of a run that starts before block `start`. Before it, the nodes inside
    /// compute what they compute in the clean run, `clean`.
    pub(super) fn from_layer(
        outside: Outside<'a, B>,
        inside: &'a Inside<B>,
        start: usize,
        clean: &ActivationCache<B>,
    ) -> Result<Self, CacheError> {
        let mut hook = Self { outside, inside, changes: None, own: BTreeMap::new(), error: None };
        let copies = inside.circuits;
        let repeated = |layer, site| Ok::<_, CacheError>(clean.block::<3>(layer, site)?.repeat_dim(0, copies));
        if start > 0 && inside.writers.contains(&Writer::Input) {
            hook.append_whole(repeated(0, Site::ResidPre)?, Site::ResidPre, 0)?;
        }
        for layer in 0..start {
            hook.append_heads(clean.block::<4>(layer, Site::Z)?.repeat_dim(0, copies), layer)?;
            if inside.writers.contains(&Writer::Mlp(layer)) {
                hook.append_whole(repeated(layer, Site::MlpOut)?, Site::MlpOut, layer)?;
            }
        }
        Ok(hook)
    }

    /// Checks that the hook had all activations of the source run.
    ///
    /// # Errors
    /// [`CacheError`] if one was missing.
    pub(super) fn finish(self) -> Result<(), CacheError> {
        self.error.map_or(Ok(()), Err)
    }

    /// Returns the activation that `work` makes of `x`, or `x` if there is none.
    fn changed<const D: usize, const E: usize>(
        &mut self,
        x: Tensor<B, D>,
        work: impl FnOnce(&mut Self, Tensor<B, E>) -> Result<Option<Tensor<B, E>>, CacheError>,
    ) -> Tensor<B, D> {
        let Some(found) = AnyRank::from(x.clone()).get::<E>() else { return x };
        match work(self, found) {
            Ok(Some(changed)) => AnyRank::from(changed).get::<D>().unwrap_or(x),
            Ok(None) => x,
            Err(error) => {
                self.error.get_or_insert(error);
                x
            }
        }
    }

    /// Appends the changes of writers, `[circuit, writer, prompt * pos * d_model]`.
    fn append(&mut self, changes: Tensor<B, 3>) {
        self.changes = Some(match self.changes.take() {
            Some(before) => Tensor::cat(vec![before, changes], 1),
            None => changes,
        });
    }

    /// Appends the change of a writer whose output, in all copies of the prompts, is `own`
    /// `[row, pos, d_model]`.
    fn append_whole(&mut self, own: Tensor<B, 3>, site: Site, layer: usize) -> Result<(), CacheError> {
        let source = to_f32(self.outside.source.block::<3>(layer, site)?);
        let [prompts, pos, d_model] = source.dims();
        let width = prompts * pos * d_model;
        let own = to_f32(own).reshape([self.inside.circuits, 1, width]);
        self.append(own - source.reshape([1, 1, width]));
        Ok(())
    }

    /// Appends the changes of heads of a layer, whose `z` is `[row, pos, head, d_head]`.
    fn append_heads(&mut self, z: Tensor<B, 4>, layer: usize) -> Result<(), CacheError> {
        let heads = self.inside.heads(layer);
        if heads.is_empty() {
            return Ok(());
        }
        let circuits = self.inside.circuits;
        let source = to_f32(self.outside.source.block::<4>(layer, Site::Z)?);
        let [prompts, pos, n_heads, d_head] = source.dims();
        let width = prompts * pos * n_heads * d_head;
        let change = to_f32(z).reshape([circuits, width]) - source.reshape([1, width]);
        let change = AnyRank::from(change.reshape([circuits * prompts * pos, n_heads, d_head]));
        let change = change.select(1, &heads).reshape::<3>([circuits * prompts * pos, heads.len(), d_head]);
        let w_o = to_f32(self.outside.model.w_o(layer)); // [head, d_head, d_model]
        let d_model = w_o.dims()[2];
        let w_o = AnyRank::from(w_o).select(0, &heads).reshape::<3>([heads.len(), d_head, d_model]);
        let change = matmul(change.swap_dims(0, 1), w_o); // [head, circuit * prompt * pos, d_model]
        let change = change.reshape([heads.len(), circuits, prompts * pos * d_model]).swap_dims(0, 1);
        self.append(change);
        Ok(())
    }

    /// Returns the streams that the readers of a stage read, `[reader, circuit * prompt, pos,
    /// d_model]`. Returns `None` if no reader of the stage is computed.
    fn streams(&self, stage: Stage, layer: usize, site: Site) -> Result<Option<Tensor<B, 4>>, CacheError> {
        let Some(readers) = self.inside.stages.get(&stage) else { return Ok(None) };
        let source = to_f32(self.outside.source.block::<3>(layer, site)?);
        let [prompts, pos, d_model] = source.dims();
        let width = prompts * pos * d_model;
        let [circuits, n_readers, writers] = readers.inside.dims();
        let source = source.reshape([1, 1, width]);
        let streams = match &self.changes {
            Some(changes) if writers > 0 => source + self.carried(readers, changes)?,
            _ => source.expand([circuits, n_readers, width]),
        };
        let streams = if circuits > 1 { streams.swap_dims(0, 1) } else { streams };
        Ok(Some(streams.reshape([n_readers, circuits * prompts, pos, d_model])))
    }

    /// Returns the change of the stream of each reader from the source run, `[circuit, reader,
    /// prompt * pos * d_model]`.
    fn carried(&self, readers: &Readers<B>, changes: &Tensor<B, 3>) -> Result<Tensor<B, 3>, CacheError> {
        let writers = readers.inside.dims()[2];
        if !self.outside.model.config().post_norms {
            return Ok(matmul(readers.inside.clone(), changes.clone().narrow(1, 0, writers)));
        }
        // Heads of one layer reach the stream through one norm, together.
        let mut sum: Option<Tensor<B, 3>> = None;
        let mut from = 0;
        while from < writers {
            let layer = layer_of_heads(&self.inside.writers[from]);
            let is_same = |writer: &&Writer| layer.is_some() && layer_of_heads(writer) == layer;
            let n = self.inside.writers[from..writers].iter().take_while(is_same).count().max(1);
            let part = matmul(readers.inside.clone().narrow(2, from, n), changes.clone().narrow(1, from, n));
            let part = match layer {
                Some(layer) => self.after_norm(part, layer)?,
                None => part,
            };
            sum = Some(sum.map_or(part.clone(), |sum| sum + part));
            from += n;
        }
        Ok(sum.unwrap_or_else(|| changes.zeros_like()))
    }

    /// Returns the change of the stream from a change of the heads' sum before the norm after
    /// attention, both `[circuit, reader, prompt * pos * d_model]`.
    fn after_norm(&self, change: Tensor<B, 3>, layer: usize) -> Result<Tensor<B, 3>, CacheError> {
        let [circuits, readers, width] = change.dims();
        let before = to_f32(self.outside.source.block::<3>(layer, Site::AttnBeforeNorm)?);
        let after = to_f32(self.outside.source.block::<3>(layer, Site::AttnOut)?);
        let [prompts, pos, d_model] = before.dims();
        let sum = change + before.reshape([1, 1, width]);
        let normed =
            self.outside.model.after_attention_norm(layer, sum.reshape([circuits * readers * prompts, pos, d_model]));
        Ok(to_f32(normed).reshape([circuits, readers, width]) - after.reshape([1, 1, width]))
    }

    /// Returns the queries, keys or values `x` of a layer, with those of computed readers replaced.
    fn visit_heads(
        &mut self,
        layer: usize,
        input: HeadInput,
        x: Tensor<B, 4>,
    ) -> Result<Option<Tensor<B, 4>>, CacheError> {
        let model = self.outside.model;
        let stage = Stage::of_heads(layer, input);
        let Some(streams) = self.streams(stage, layer, Site::ResidPre)? else { return Ok(None) };
        let heads = &self.inside.stages[&stage].heads;
        let group = if input == HeadInput::Q { 1 } else { model.config().heads_per_key_value_head() };
        let [n, rows, pos, d_model] = streams.dims();
        let streams = cast_like(streams, &x).reshape([n * rows, pos, d_model]);
        let normalized = model.attention_norm(layer, streams, &mut ()).reshape([n, rows * pos, d_model]);
        let weights: Vec<usize> = heads.iter().map(|head| head / group).collect();
        let values = model.each_head_input(layer, input, &weights, normalized); // [row * pos, head, d_head]
        let d_head = values.dims()[2];
        let values = values.reshape([rows, pos, n, d_head]);
        if group == 1 {
            return Ok(Some(with_heads(x, heads, values)));
        }
        let site = if input == HeadInput::K { Site::K } else { Site::V };
        self.own.insert(site, with_heads(for_each_query_head(x, group), heads, values));
        Ok(None)
    }

    /// Returns `z` of a layer in which heads that share keys and values attend to their own.
    fn visit_z(&mut self, layer: usize, z: Tensor<B, 4>) -> Result<Option<Tensor<B, 4>>, CacheError> {
        let Outside { model, prefix, first, .. } = self.outside;
        let own = std::mem::take(&mut self.own);
        let group = model.config().heads_per_key_value_head();
        let queries = if model.config().is_rotary() { Site::RotQ } else { Site::Q };
        let replaced = match (own.get(&queries), own.get(&Site::K), own.get(&Site::V)) {
            (Some(q), Some(k), Some(v)) => {
                let [rows, pos, n_heads, d_head] = k.dims();
                let positions: Vec<usize> = (0..rows).flat_map(|_| first..first + pos).collect();
                let k = model.after_rotary(layer, k.clone().reshape([rows * pos, 1, n_heads, d_head]), &positions);
                let k = k.reshape([rows, pos, n_heads, d_head]);
                let earlier = prefix.map(|prefix| prefix.keys_values(layer).map(|of| for_each_query_head(of, group)));
                Some(model.attend(layer, q.clone(), k, v.clone(), earlier))
            }
            _ => None,
        };
        self.append_heads(replaced.clone().unwrap_or(z), layer)?;
        Ok(replaced)
    }

    /// Keeps queries, or keys or values that no reader of this layer replaces, for heads that share
    /// keys and values.
    fn keep(&mut self, layer: usize, site: Site, x: Tensor<B, 4>) {
        let group = self.outside.model.config().heads_per_key_value_head();
        let inputs = [HeadInput::K, HeadInput::V].map(|input| Stage::of_heads(layer, input));
        if group > 1 && inputs.iter().any(|stage| self.inside.stages.contains_key(stage)) {
            let of_queries = matches!(site, Site::Q | Site::RotQ);
            self.own.entry(site).or_insert_with(|| if of_queries { x } else { for_each_query_head(x, group) });
        }
    }

    /// Returns the output of the norm before the MLP of a layer.
    fn visit_mlp(&mut self, layer: usize, x: Tensor<B, 3>) -> Result<Option<Tensor<B, 3>>, CacheError> {
        let model = self.outside.model;
        let site = if model.config().parallel_block { Site::ResidPre } else { Site::ResidMid };
        let Some(streams) = self.streams(Stage::Mlp(layer), layer, site)? else { return Ok(None) };
        let streams = cast_like(streams.reshape(x.dims()), &x);
        Ok(Some(model.mlp_norm(layer, streams, &mut ())))
    }

    fn visit_in_block<const D: usize>(&mut self, layer: usize, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        match site {
            Site::ResidPre if layer == 0 && self.inside.writers.contains(&Writer::Input) => {
                self.changed(x, |this, x| this.append_whole(x, site, layer).map(|()| None))
            }
            Site::Q | Site::K | Site::V => {
                let input = match site {
                    Site::Q => HeadInput::Q,
                    Site::K => HeadInput::K,
                    _ => HeadInput::V,
                };
                self.changed(x, |this, x| {
                    let found = this.visit_heads(layer, input, x.clone())?;
                    this.keep(layer, site, found.clone().unwrap_or(x));
                    Ok(found)
                })
            }
            Site::RotQ => self.changed(x, |this, x| {
                this.keep(layer, site, x);
                Ok(None)
            }),
            Site::Z => self.changed(x, |this, z| this.visit_z(layer, z)),
            Site::Ln2Normalized => self.changed(x, |this, x| this.visit_mlp(layer, x)),
            Site::MlpOut if self.inside.writers.contains(&Writer::Mlp(layer)) => {
                self.changed(x, |this, x| this.append_whole(x, site, layer).map(|()| None))
            }
            Site::ResidPost if layer + 1 == self.outside.model.config().n_layers => {
                self.changed(x, |this, x: Tensor<B, 3>| {
                    let streams = this.streams(Stage::Logits, layer, site)?;
                    Ok(streams.map(|streams| cast_like(streams.reshape(x.dims()), &x)))
                })
            }
            _ => x,
        }
    }
}

impl<B: Backend> Hook<B> for Carried<'_, B> {
    fn visit<const D: usize>(&mut self, point: HookPoint, activation: Tensor<B, D>) -> Tensor<B, D> {
        match point {
            HookPoint::Block { layer, site } => self.visit_in_block(layer, site, activation),
            _ => activation,
        }
    }

    fn sees(&self, point: HookPoint) -> bool {
        !matches!(point.site(), Some(Site::AttnScores | Site::Pattern))
    }
}

/// Returns the layer of a head.
fn layer_of_heads(writer: &Writer) -> Option<usize> {
    match writer {
        Writer::Head(head) => Some(head.layer),
        _ => None,
    }
}

/// Returns `x` `[row, pos, head, d_head]` with these heads taken from `values`, in their order.
fn with_heads<B: Backend>(x: Tensor<B, 4>, heads: &[usize], values: Tensor<B, 4>) -> Tensor<B, 4> {
    let [rows, pos, n_heads, d_head] = x.dims();
    if heads.len() == n_heads {
        return values;
    }
    let from = |head: usize| heads.iter().position(|of| *of == head).map_or(head, |place| n_heads + place);
    let places: Vec<usize> = (0..n_heads).map(from).collect();
    AnyRank::from(Tensor::cat(vec![x, values], 2)).select(2, &places).reshape([rows, pos, n_heads, d_head])
}

/// Repeats keys or values `[row, pos, key/value head, d_head]` for each of the `group` heads that
/// share them.
fn for_each_query_head<B: Backend>(x: Tensor<B, 4>, group: usize) -> Tensor<B, 4> {
    let [rows, pos, shared, d_head] = x.dims();
    let places: Vec<usize> = (0..shared * group).map(|head| head / group).collect();
    AnyRank::from(x).select(2, &places).reshape([rows, pos, shared * group, d_head])
}
