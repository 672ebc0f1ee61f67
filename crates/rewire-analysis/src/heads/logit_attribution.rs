//! Direct logit attribution: each node's own contribution to the logit difference, without its
//! effect through later layers.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{Array2, Array3, ArrayD, Axis};
use rewire_hooks::{ActivationCache, Hook, HookPoint, NormSite, Recorder, Site};
use rewire_model::{FinalNormGain, Run, Transformer, TransformerConfig};
use rewire_tasks::{LogitDiff, Metric, PromptPair, PromptPairs};
use rewire_tensor::{matmul, to_f32};

use crate::effects::{Baselines, Method, Outcome, join};
use crate::error::AnalysisError;
use crate::node::index::no_effects;
use crate::node::kind::{By, Component, NodeKind};
use crate::patching::pass_cost::Costs;
use crate::run::batch::{PromptBatch, batches};
use crate::run::checkpoint::{PlannedWork, WorkId};
use crate::run::cost::Cost;
use crate::run::execution::Execution;
use crate::run::finite::{Watch, check_effects, check_run, the_metric};
use crate::run::fit::{catch_device_faults, ensure_healthy};
use crate::run::post_norm::PostNorm;
use crate::run::question::{Direction, Scale};
use crate::run::record::{check, evaluate, record};
use crate::run::transfer::{flatten_positions, select_rows, to_vec, to_vecs};

/// The method's name in errors.
const METHOD: &str = "logit attribution";

/// The name of the metric of direct logit attribution in models that bound their logits: the logit
/// difference before that bound, which is what contributions sum to.
pub const LOGIT_DIFF_BEFORE_CAP: &str = "logit-diff-before-cap";

/// Returns the contribution of every node of the given kinds to the logit difference of the clean
/// prompts at END, in logits.
///
/// Nodes may be heads, attention and MLP outputs, and neurons. For the residual stream, the result
/// is the logit difference read from the stream at that layer (the logit lens). The final norm's
/// scale is frozen at each prompt's own.
///
/// In models with norms after attention and MLP, a head or neuron contributes what it adds to the
/// residual stream, with the scale of that norm frozen too: the contributions of all heads and of
/// the output bias sum to that of `attn_out`. In models that bound their logits, contributions and
/// baselines are logits before that bound ([`LOGIT_DIFF_BEFORE_CAP`]).
///
/// `gain` matters only for unprocessed weights: [`FinalNormGain::Applied`] multiplies by the final
/// norm's gain, so that contributions sum to the logit difference (without the biases' part).
///
/// Effects are per prompt, `[prompt, layer, ..]`. Uses `prompt_batch`, `checkpoint` and `progress`
/// of [`Execution`]. Each batch of prompts is one pass of the checkpoint.
///
/// # Errors
/// [`AnalysisError::UnsupportedNode`] for nodes that write nothing to the residual stream, and for
/// nodes by position, because the logits are read at one position.
pub fn logit_attribution<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    nodes: &[NodeKind],
    gain: FinalNormGain,
    execution: &Execution,
) -> Result<Outcome, AnalysisError> {
    check(model, pairs, nodes)?;
    for &node in nodes {
        if node.by != By::All {
            let reason = "the logits are read at one position of each prompt; divide by all";
            return Err(AnalysisError::UnsupportedNode { method: METHOD, node, reason });
        }
        let parts = [Component::HeadQ, Component::HeadK, Component::HeadV, Component::HeadPattern];
        if parts.contains(&node.component) {
            let reason = "it writes nothing to the residual stream itself; use head_z";
            return Err(AnalysisError::UnsupportedNode { method: METHOD, node, reason });
        }
    }
    let name = match model.config().logit_cap {
        Some(_) => LOGIT_DIFF_BEFORE_CAP,
        None => "logit-diff",
    };
    let model = &model.without_logit_cap();
    catch_device_faults::<B, _>(&model.device(), || {
        let metric = LogitDiff::new(pairs);
        let batches = batches(pairs, &metric, execution.prompt_batch)?;
        let of_batch = |batch: &PromptBatch| id(nodes, gain, batch);
        let cost = |batch: &PromptBatch| Costs::of(model).whole_run(batch, 0) * 2.0;
        let planned =
            |batch: PromptBatch| PlannedWork { id: of_batch(&batch), cost: cost(&batch), setup: Cost::default() };
        execution.checkpoint.begin(&|| batches.iter().map(planned).collect());
        let mut baselines = Baselines { clean: Vec::new(), corrupted: Vec::new() };
        let mut changes = Vec::new();
        for batch in batches.iter() {
            (execution.progress)(batch.prompts[0], pairs.len());
            let id = of_batch(&batch);
            let shapes: Vec<Vec<usize>> = nodes.iter().map(|kind| shape(*kind, model.config(), &batch)).collect();
            let expected = shapes.iter().map(|shape| shape.iter().product::<usize>()).sum::<usize>();
            let kept = execution.checkpoint.load(id);
            let numbers = match kept.filter(|kept| kept.len() == expected + 2 * batch.prompts.len()) {
                Some(kept) => kept,
                None if !execution.checkpoint.takes(id) => continue,
                None => {
                    let numbers = of_prompts(model, &batch, &metric, nodes, gain)?;
                    ensure_healthy::<B>(&model.device())?;
                    execution.checkpoint.store(id, &numbers).map_err(AnalysisError::Checkpoint)?;
                    numbers
                }
            };
            let mut numbers = numbers.into_iter();
            baselines.clean.extend(numbers.by_ref().take(batch.prompts.len()));
            baselines.corrupted.extend(numbers.by_ref().take(batch.prompts.len()));
            let array = |shape: Vec<usize>| {
                let values = numbers.by_ref().take(shape.iter().product()).collect();
                ArrayD::from_shape_vec(shape, values).expect("one number per node")
            };
            changes.push(shapes.into_iter().map(array).collect());
        }
        (execution.progress)(pairs.len(), pairs.len());
        if changes.len() < batches.len() {
            return Err(AnalysisError::PassesLeft);
        }
        Ok(Outcome {
            method: Method::LogitAttribution,
            direction: Direction::Noising,
            scale: Scale::Metric,
            metric: name,
            baselines,
            vanished: Vec::new(),
            effects: join(Method::LogitAttribution, nodes, changes, 1.0, pairs)?,
        })
    })
}

/// Returns the id in the checkpoint of a batch.
fn id(nodes: &[NodeKind], gain: FinalNormGain, batch: &PromptBatch) -> WorkId {
    let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
    let plan = format!("logit attribution of {}, gain {gain:?}, {} prompts", nodes.join(" "), batch.prompts.len());
    WorkId::new(batch.prompts[0], 0, &plan)
}

/// Returns the shape of the contributions of a kind of node on a batch, `[prompt, layer, ..]`.
fn shape(kind: NodeKind, config: &TransformerConfig, batch: &PromptBatch) -> Vec<usize> {
    no_effects(kind, config, batch.prompts.len(), batch.pairs.width()).shape().to_vec()
}

/// Returns the logit differences of the clean and of the corrupted prompts of a batch, and the
/// contributions of each kind of node.
fn of_prompts<B: Backend>(
    model: &Transformer<B>,
    batch: &PromptBatch,
    metric: &LogitDiff,
    nodes: &[NodeKind],
    gain: FinalNormGain,
) -> Result<Vec<f32>, AnalysisError> {
    let sites: Vec<Site> = nodes.iter().map(|node| node.site()).collect();
    let direct = Direct::new(model, batch, metric, gain, sites, ())?;
    let corrupted = record(model, &batch.pairs.corrupted(), batch, metric, |_| false)?.metric;
    let added = nodes.iter().map(|node| direct.of(node.component)).collect::<Result<Vec<_>, _>>()?;
    for (kind, values) in nodes.iter().zip(&added) {
        check_effects(METHOD, *kind, batch.prompts[0], values)?;
    }
    let added = added.iter().flat_map(|values| values.iter().copied());
    Ok(direct.logit_difference.iter().copied().chain(corrupted).chain(added).collect())
}

/// A run of the clean prompts of a batch, and the direction of the residual stream that raises the
/// logit difference.
pub(super) struct Direct<'a, B: Backend> {
    model: &'a Transformer<B>,
    cache: ActivationCache<B>,
    /// `[prompts, d_model]`.
    direction: Tensor<B, 2>,
    ends: Vec<usize>,
    /// The logit difference of the run, per prompt.
    pub(super) logit_difference: Vec<f32>,
}

impl<'a, B: Backend> Direct<'a, B> {
    /// Runs the clean prompts and records these sites; `hook` may change the run. The model does
    /// not bound its logits ([`Transformer::without_logit_cap`]).
    pub(super) fn new(
        model: &'a Transformer<B>,
        batch: &PromptBatch,
        metric: &LogitDiff,
        gain: FinalNormGain,
        sites: Vec<Site>,
        hook: impl Hook<B>,
    ) -> Result<Self, AnalysisError> {
        let scale = HookPoint::FinalNorm(NormSite::Scale);
        let sites = [sites, vec![Site::Ln1PostScale, Site::Ln2PostScale]].concat();
        let accepts = move |p: HookPoint| p == scale || p.site().is_some_and(|site| sites.contains(&site));
        let mut recorder = Recorder::filtered(accepts);
        let run = Run::tokens(model.tokens(&batch.pairs.clean())?).with_readout(batch.readout.clone());
        let mut watch = Watch::new();
        let logits = model.forward(run, (hook, (&mut recorder, &mut watch)))?;
        let logit_difference = to_vec(watch.mark(evaluate(metric, logits, &batch.prompts)));
        check_run(model, &the_metric(metric.name()), batch, &batch.pairs.clean(), &logit_difference)?;
        let side = |of: fn(&PromptPair) -> &Vec<u32>| batch.pairs.pairs().iter().map(|p| of(p).clone()).collect();
        let [answers, wrong]: [Vec<Vec<u32>>; 2] = [side(|p| &p.answers), side(|p| &p.wrong_answers)];
        Ok(Self {
            model,
            cache: recorder.into_cache(),
            direction: model.logit_direction(&answers, &wrong, gain),
            ends: batch.pairs.ends(),
            logit_difference,
        })
    }

    /// Returns the contributions of a component's nodes, `[prompt, layer, ..]`.
    pub(super) fn of(&self, component: Component) -> Result<ArrayD<f32>, AnalysisError> {
        let layers = 0..self.model.config().n_layers;
        let of_layer = |layer| match component {
            Component::HeadZ | Component::HeadResult => self.heads(layer),
            Component::MlpPost => self.neurons(layer),
            other => self.whole(layer, NodeKind::all(other).site()),
        };
        // Each is [unit, prompt].
        let layers = layers.map(of_layer).collect::<Result<Vec<Tensor<B, 2>>, AnalysisError>>()?;
        let [units, prompts] = layers.first().map_or([0; 2], Tensor::dims);
        let array = |values| Array2::from_shape_vec((units, prompts), values).expect("one number per unit and prompt");
        let layers = to_vecs(layers.into_iter().map(|layer| layer.reshape([units * prompts])).collect());
        let layers: Vec<Array2<f32>> = layers.into_iter().map(array).collect();
        let views: Vec<_> = layers.iter().map(|layer| layer.view()).collect();
        // [layer, unit, prompt]
        let all = ndarray::stack(Axis(0), &views).expect("layers of one shape");
        let all = all.permuted_axes([2, 0, 1]).as_standard_layout().into_owned().into_dyn();
        let divided = NodeKind::all(component).unit_axis().is_some();
        Ok(if divided { all } else { all.index_axis_move(Axis(2), 0) })
    }

    /// Returns the contributions of all heads, `[prompt, layer, head]`.
    pub(super) fn all_heads(&self) -> Result<Array3<f32>, AnalysisError> {
        let heads = self.of(Component::HeadZ)?;
        Ok(heads.into_dimensionality().expect("prompts, layers and heads"))
    }

    /// Returns an activation at END, `[prompts, width]`.
    fn at_end(&self, x: Tensor<B, 3>) -> Tensor<B, 2> {
        let pos = x.dims()[1];
        let rows: Vec<usize> = self.ends.iter().enumerate().map(|(prompt, end)| prompt * pos + end).collect();
        select_rows(flatten_positions(x), &rows)
    }

    /// Returns the contributions of vectors at END `[unit, prompts, d_model]`, as `[unit, prompt]`.
    fn along(&self, vectors: Tensor<B, 3>) -> Result<Tensor<B, 2>, AnalysisError> {
        let prompts = vectors.dims()[1];
        let vectors = vectors.unsqueeze_dim::<4>(2);
        // The final norm ran at END only, so END is position 0 of its scale.
        Ok(self.cache.logit_attribution(
            vectors,
            self.direction.clone(),
            &vec![0; prompts],
            self.model.config().norm,
        )?)
    }

    fn heads(&self, layer: usize) -> Result<Tensor<B, 2>, AnalysisError> {
        let z: Tensor<B, 4> = self.cache.block(layer, Site::Z)?;
        let [prompts, pos, n_heads, d_head] = z.dims();
        let z = self.at_end(z.reshape([prompts, pos, n_heads * d_head])).reshape([prompts, n_heads, d_head]);
        let written = matmul(to_f32(z).permute([1, 0, 2]), self.model.w_o(layer)); // [head, prompts, d_model]
        self.along(match PostNorm::of(Component::HeadZ, layer, self.model.config()) {
            Some(norm) => norm.undivided(self.model, written) / self.scale_of(norm)?.unsqueeze_dim(0),
            None => written,
        })
    }

    /// Returns the scale of a norm after attention or MLP at END, `[prompts, 1]`.
    fn scale_of(&self, norm: PostNorm) -> Result<Tensor<B, 2>, AnalysisError> {
        Ok(self.at_end(self.cache.get(norm.scale())?))
    }

    fn whole(&self, layer: usize, site: Site) -> Result<Tensor<B, 2>, AnalysisError> {
        let x = self.at_end(self.cache.block(layer, site)?);
        self.along(x.unsqueeze_dim(0))
    }

    /// Returns the contributions of a layer's neurons. All prompts share the neurons' output
    /// vectors, so each vector is first projected on the prompts' logit directions.
    fn neurons(&self, layer: usize) -> Result<Tensor<B, 2>, AnalysisError> {
        let post = to_f32(self.at_end(self.cache.block(layer, Site::MlpPost)?)); // [prompts, d_mlp]
        let prompts = post.dims()[0];
        let (w_out, _) = self.model.mlp_out(layer);
        let scale: Tensor<B, 3> = self.cache.get(HookPoint::FinalNorm(NormSite::Scale))?;
        let scale = scale.reshape([prompts, 1]);
        let (w_out, scale) = match PostNorm::of(Component::MlpPost, layer, self.model.config()) {
            Some(norm) => (norm.undivided(self.model, w_out), scale * self.scale_of(norm)?),
            None => (to_f32(w_out), scale),
        };
        let centered = self.model.config().norm.centered(w_out);
        let along = matmul(self.direction.clone(), centered.transpose()); // [prompts, d_mlp]
        Ok((post * along / scale).transpose())
    }
}
