//! Edge attribution: effects of the edges from every head's output to every later head's queries,
//! keys and values.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{Array6, ArrayD, Axis as Dimension, Ix6, IxDyn, Slice, concatenate};
use rewire_hooks::{HookPoint, Site};
use rewire_model::{Differentiable, HeadInput, HeadNorm, QueryKeyNorms, Transformer, TransformerConfig};
use rewire_tensor::{matmul, to_f32};

use crate::attribution::linearize::Linearized;
use crate::attribution::norm_jacobian::{LinearNorm, NormJacobian};
use crate::attribution::shared_keys;
use crate::effects::{Baselines, Reduce, mean_over_prompts, prompts_by_position};
use crate::error::AnalysisError;
use crate::run::batch::PromptBatch;
use crate::run::question::Scale;
use crate::run::record::effect_scale;

/// Which edge attributions are estimated and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeAttributionOptions {
    /// How norms are differentiated.
    pub norm: NormJacobian,
    /// Whether effects are kept per prompt or averaged over prompts.
    pub reduce: Reduce,
}

/// Returns the sites whose activations edge attribution needs.
pub(crate) fn recorded(config: &TransformerConfig) -> Vec<Site> {
    let mut sites = vec![Site::Z, Site::ResidPre, Site::Ln1Scale];
    if config.heads_per_key_value_head() > 1 {
        sites.extend(shared_keys::RECORDED);
    }
    if config.query_key_norms != QueryKeyNorms::None {
        sites.push(Site::Ln1Normalized);
    }
    if config.post_norms {
        sites.extend([Site::AttnBeforeNorm, Site::Ln1PostScale]);
    }
    sites
}

/// Returns the sites whose gradients edge attribution needs.
pub(crate) fn probed(config: &TransformerConfig) -> Vec<Site> {
    match config.heads_per_key_value_head() {
        1 => vec![Site::Q, Site::K, Site::V],
        _ => vec![Site::Q, Site::Z],
    }
}

/// Estimated effects of the edges between heads. An edge runs from the output of its start head to
/// an input of its end head.
///
/// Where heads share keys and values (grouped-query attention), an edge still ends at one attention
/// head: it changes the keys or values of the group as this head alone reads them. The edges into
/// the keys of a group's heads sum to the effect of the same change of the keys that they share.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeAttribution {
    /// How norms were differentiated.
    pub norm: NormJacobian,
    /// The metric on the unpatched runs.
    pub baselines: Baselines,
    /// As [`Outcome::vanished`](crate::effects::Outcome::vanished).
    pub vanished: Vec<usize>,
    /// The effects, `[prompt, layer_end, head_end, input (q, k, v), layer_start, head_start, pos]`.
    /// A mean over prompts has a prompt axis of size 1. The value is 0 if the end head's layer is
    /// not after the start head's layer.
    pub values: ArrayD<f32>,
    /// Number of tokens of each prompt in [`values`](Self::values); for a mean, of the longest
    /// prompt. A shorter prompt has no edge at the positions after its end.
    pub lengths: Vec<usize>,
    /// Number of prompts that have each position, `[pos]`.
    pub prompts_by_position: Vec<usize>,
}

impl EdgeAttribution {
    /// Returns the mean over the prompts that have each position,
    /// `[layer_end, head_end, input, layer_start, head_start, pos]`.
    #[must_use]
    pub fn mean(&self) -> Array6<f32> {
        let mean = mean_over_prompts(&self.values, &self.lengths, Some(self.values.ndim() - 1));
        mean.into_dimensionality::<Ix6>().expect("six axes after the prompts")
    }
}

const INPUTS: [HeadInput; 3] = [HeadInput::Q, HeadInput::K, HeadInput::V];

/// Joins the results of all batches of prompts, whose `lengths` are in tokens: concatenates them,
/// or adds the sums into the mean.
pub(crate) fn join(
    parts: Vec<ArrayD<f32>>,
    paths: EdgeAttributionOptions,
    (baselines, vanished): (Baselines, Vec<usize>),
    scale: Scale,
    lengths: &[usize],
) -> Result<EdgeAttribution, AnalysisError> {
    let factor = effect_scale(&baselines, scale)?;
    let width = lengths.iter().copied().max().unwrap_or(0);
    let prompts_by_position = prompts_by_position(lengths, width);
    let (values, lengths) = match paths.reduce {
        Reduce::Mean => {
            let sum = parts.into_iter().reduce(|sum, part| sum + part);
            let mut mean = sum.unwrap_or_else(|| ArrayD::zeros(IxDyn(&[0; 7])));
            let last = Dimension(mean.ndim() - 1);
            for (mut sum, &prompts) in mean.axis_iter_mut(last).zip(&prompts_by_position) {
                sum *= (factor / prompts.max(1) as f64) as f32;
            }
            (mean, vec![width])
        }
        Reduce::PerPrompt => {
            let views: Vec<_> = parts.iter().map(|p| p.view()).collect();
            let joined = concatenate(Dimension(0), &views).expect("batches that differ in their prompts alone");
            (joined * factor as f32, lengths.to_vec())
        }
    };
    // Turns -0 into 0.
    let values = values + 0.0;
    if let Some((index, &value)) = values.indexed_iter().find(|(_, value)| !value.is_finite()) {
        let what = format!(
            "the estimated effect of the edge from L{}H{} to L{}H{} at position {}",
            index[4], index[5], index[1], index[2], index[6]
        );
        let prompt = (paths.reduce == Reduce::PerPrompt).then_some(index[0]);
        return Err(AnalysisError::NotFinite { what, value, prompt, first: None });
    }
    Ok(EdgeAttribution { norm: paths.norm, baselines, vanished, values, lengths, prompts_by_position })
}

/// Returns the shape of the edge effects of a batch of `n_prompts` prompts.
pub(crate) fn shape(reduce: Reduce, config: &TransformerConfig, n_prompts: usize, width: usize) -> Vec<usize> {
    let kept = match reduce {
        Reduce::PerPrompt => n_prompts,
        Reduce::Mean => 1,
    };
    let (layers, heads) = (config.n_layers, config.n_heads);
    vec![kept, layers, heads, 3, layers, heads, width]
}

/// Returns the edge effects of one batch: one flat tensor for each end layer from the second one
/// on, `[prompt, pos, input, end, layer, start]`. With [`Reduce::Mean`], the values are sums over
/// prompts.
pub(crate) fn paths<B: Differentiable>(
    model: &Transformer<B>,
    linear: &Linearized<B>,
    kept: EdgeAttributionOptions,
) -> Result<Vec<Tensor<B::InnerBackend, 1>>, AnalysisError> {
    let (layers, heads, d_head) = (model.config().n_layers, model.config().n_heads, model.config().d_head);
    let point = HookPoint::block;
    let [prompts, pos, ..] = linear.difference::<4>(point(0, Site::Z))?.dims();
    let rows = prompts * pos;
    let mut of_ends = Vec::new();
    // The source run minus the base run in each head's output to the residual stream,
    // `[head, row, d_model]` for each layer so far.
    let mut written: Vec<Tensor<B::InnerBackend, 3>> = Vec::new();
    for end in 0..layers {
        if end > 0 {
            let arriving = arriving(model, linear, kept.norm, end)?;
            let starts = Tensor::cat(written.clone(), 0); // [layer_start * head_start, row, d_model]
            let paths = matmul(arriving.swap_dims(0, 1), starts.permute([1, 2, 0]));
            let of_prompt = pos * 3 * heads * end * heads;
            of_ends.push(match kept.reduce {
                Reduce::PerPrompt => paths.reshape([prompts * of_prompt]),
                Reduce::Mean => paths.reshape([prompts, of_prompt]).sum_dim(0).reshape([of_prompt]),
            });
        }
        let z = linear.difference::<4>(point(end, Site::Z))?.reshape([rows, heads, d_head]);
        let w_o = model.w_o(end).inner(); // [head, d_head, d_model]
        let change = matmul(z.swap_dims(0, 1), w_o);
        written.push(match after_attention(model, linear, kept.norm, end)? {
            Some(norm) => norm.forward(change),
            None => change,
        });
    }
    Ok(of_ends)
}

/// Shapes the numbers of [`paths`] as [`EdgeAttribution::values`]. The numbers start at position
/// `first`.
pub(crate) fn array(
    of_ends: Vec<Vec<f32>>,
    kept: EdgeAttributionOptions,
    config: &TransformerConfig,
    batch: &PromptBatch,
    first: usize,
) -> ArrayD<f32> {
    let (prompts, width, heads) = (batch.prompts.len(), batch.pairs.width(), config.n_heads);
    let shape = shape(kept.reduce, config, prompts, width);
    let kept = shape[0];
    let mut values = ArrayD::zeros(IxDyn(&shape));
    for (end, paths) in (1..).zip(of_ends) {
        let paths = Array6::from_shape_vec([kept, width - first, 3, heads, end, heads], paths);
        // [prompt, pos, input, end, layer, start] -> [prompt, end, input, layer, start, pos]
        let paths = paths.expect("one number per edge").permuted_axes([0, 3, 2, 4, 5, 1]);
        let mut of_end = values.index_axis_mut(Dimension(1), end);
        of_end.slice_axis_inplace(Dimension(3), Slice::from(..end));
        of_end.slice_axis_inplace(Dimension(5), Slice::from(first..));
        of_end.assign(&paths.into_dyn());
    }
    values
}

/// Returns the gradient that reaches the residual stream before block `layer` through only the
/// queries, keys or values of each head, `[input * head, row, d_model]`.
pub(crate) fn arriving<B: Differentiable>(
    model: &Transformer<B>,
    linear: &Linearized<B>,
    norm: NormJacobian,
    layer: usize,
) -> Result<Tensor<B::InnerBackend, 3>, AnalysisError> {
    let (sharing, norms) = (model.config().heads_per_key_value_head(), model.config().query_key_norms);
    let [gradient_q, gradient_k, gradient_v] = at_inputs(model, linear, layer)?;
    let through_weights = INPUTS.into_iter().zip([gradient_q, gradient_k, gradient_v]).map(|(input, gradient)| {
        let [prompts, pos, heads, d_head] = gradient.dims();
        let is_joint = norms == QueryKeyNorms::AllHeads && input != HeadInput::V;
        let w = model.w_head_input(layer, input).inner(); // [head or key/value head, d_model, d_head]
        let gradient = gradient.reshape([prompts * pos, heads, d_head]);
        let gradient = if is_joint { at_all_heads(gradient, w.dims()[0]) } else { gradient };
        let gradient = match of_heads(model, linear, norm, layer, input)? {
            Some(norm) => norm.backward(gradient),
            None => gradient,
        };
        if is_joint {
            return Ok(through_all_heads(gradient, w).swap_dims(0, 1));
        }
        let copies = if input == HeadInput::Q { 1 } else { sharing };
        let w = shared_keys::for_each_head(w, 0, copies);
        Ok(matmul(gradient.swap_dims(0, 1), w.swap_dims(1, 2))) // [head, row, d_model]
    });
    let gradient = Tensor::cat(through_weights.collect::<Result<Vec<_>, AnalysisError>>()?, 0);
    if !model.config().pre_norms {
        return Ok(gradient);
    }
    let gain = model.attention_norm_gain(layer);
    Ok(of_stream(model, linear, norm, layer, [Site::ResidPre, Site::Ln1Scale], gain)?.backward(gradient))
}

/// Returns gradients at the queries or keys of single heads, `[row, head, d_head]`, as gradients at
/// those of all heads, `[row, head, key/value head * d_head]`. They are 0 for other heads.
fn at_all_heads<B: Backend>(gradient: Tensor<B, 3>, groups: usize) -> Tensor<B, 3> {
    let [rows, heads, d_head] = gradient.dims();
    let own = shared_keys::for_each_head(Tensor::<B, 2>::eye(groups, &gradient.device()), 0, heads / groups);
    let placed = gradient.reshape([rows, heads, 1, d_head]) * own.reshape([1, heads, groups, 1]);
    placed.reshape([rows, heads, groups * d_head])
}

/// Returns the gradients at the normalized stream, `[row, head, d_model]`, for gradients at the
/// queries or keys of all heads, `[row, head, key/value head * d_head]`.
fn through_all_heads<B: Backend>(gradient: Tensor<B, 3>, w: Tensor<B, 3>) -> Tensor<B, 3> {
    let ([rows, heads, width], d_model) = (gradient.dims(), w.dims()[1]);
    let w = w.swap_dims(1, 2).reshape([1, width, d_model]);
    matmul(gradient.reshape([1, rows * heads, width]), w).reshape([rows, heads, d_model])
}

/// Returns the gradients at each head's queries, keys and values, `[prompts, pos, head, d_head]`.
fn at_inputs<B: Differentiable>(
    model: &Transformer<B>,
    linear: &Linearized<B>,
    layer: usize,
) -> Result<[Tensor<B::InnerBackend, 4>; 3], AnalysisError> {
    let probe = |site| linear.gradients.get::<4>(HookPoint::block(layer, site)).map(to_f32);
    let queries = probe(Site::Q)?;
    Ok(match model.config().heads_per_key_value_head() {
        1 => [queries, probe(Site::K)?, probe(Site::V)?],
        _ => {
            let [keys, values] = shared_keys::gradients(model, linear, layer)?;
            [queries, keys, values]
        }
    })
}

/// Returns the linearized norm of each head's queries or keys in block `layer`, if there is one.
fn of_heads<B: Differentiable>(
    model: &Transformer<B>,
    linear: &Linearized<B>,
    jacobian: NormJacobian,
    layer: usize,
    input: HeadInput,
) -> Result<Option<LinearNorm<B::InnerBackend>>, AnalysisError> {
    let config = model.config();
    if config.query_key_norms == QueryKeyNorms::None || input == HeadInput::V {
        return Ok(None);
    }
    let normalized = linear.base.get::<3>(HookPoint::block(layer, Site::Ln1Normalized))?;
    let Some(HeadNorm { input: x, scale, gain }) = model.head_norm(layer, input, normalized) else { return Ok(None) };
    let copies = match (input, config.query_key_norms) {
        (HeadInput::Q, _) | (_, QueryKeyNorms::AllHeads) => 1,
        _ => config.heads_per_key_value_head(),
    };
    let [x, scale] = [x, scale].map(|x| {
        let [prompts, pos, heads, width] = x.dims();
        shared_keys::for_each_head(to_f32(x.inner()).reshape([prompts * pos, heads, width]), 1, copies)
    });
    let gain = gain.map(|gain| to_f32(gain.inner()));
    Ok(Some(LinearNorm::at(x, scale, gain, config.norm, jacobian)))
}

/// Returns the linearized norm after attention of block `layer`, if there is one, for changes
/// `[vector, row, d_model]`.
pub(crate) fn after_attention<B: Differentiable>(
    model: &Transformer<B>,
    linear: &Linearized<B>,
    jacobian: NormJacobian,
    layer: usize,
) -> Result<Option<LinearNorm<B::InnerBackend>>, AnalysisError> {
    if !model.config().post_norms {
        return Ok(None);
    }
    let gain = model.after_attention_norm_gain(layer);
    of_stream(model, linear, jacobian, layer, [Site::AttnBeforeNorm, Site::Ln1PostScale], gain).map(Some)
}

/// Returns the linearized norm of vectors of the residual stream's width, `[vector, row, d_model]`,
/// whose input and scale in the base run are at these sites.
fn of_stream<B: Differentiable>(
    model: &Transformer<B>,
    linear: &Linearized<B>,
    jacobian: NormJacobian,
    layer: usize,
    [input, scale]: [Site; 2],
    gain: Option<Tensor<B, 1>>,
) -> Result<LinearNorm<B::InnerBackend>, AnalysisError> {
    let [x, scale] = [input, scale].map(|site| linear.base.get::<3>(HookPoint::block(layer, site)));
    let [x, scale] = [x?, scale?].map(|x| {
        let [prompts, pos, width] = x.dims();
        to_f32(x.inner()).reshape([1, prompts * pos, width])
    });
    let gain = gain.map(|gain| to_f32(gain.inner()));
    Ok(LinearNorm::at(x, scale, gain, model.config().norm, jacobian))
}
