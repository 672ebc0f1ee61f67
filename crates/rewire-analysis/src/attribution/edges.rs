//! Edge attribution: effects of the edges from every head's output to every later head's queries,
//! keys and values.

use burn::tensor::Tensor;
use ndarray::{Array6, ArrayD, Axis as Dimension, Ix6, IxDyn, Slice, concatenate};
use rewire_hooks::{HookPoint, Site};
use rewire_input::did_you_mean;
use rewire_model::{Differentiable, HeadInput, Transformer, TransformerConfig};
use rewire_tensor::{matmul, to_f32};
use serde::{Deserialize, Serialize};

use crate::attribution::linearize::Linearized;
use crate::effects::{Baselines, Reduce, mean_over_prompts, prompts_by_position};
use crate::error::AnalysisError;
use crate::run::batch::PromptBatch;
use crate::run::features::{Feature, refuse};
use crate::run::question::Scale;
use crate::run::record::effect_scale;

/// How the norm before a head's inputs passes a gradient back to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "kebab-case")]
pub enum NormJacobian {
    /// The norm's scale is frozen at its value in the base run: the norm divides by a constant, and
    /// a layer norm also centers.
    Frozen,
    /// The norm is differentiated in full: moving the residual stream also moves the scale.
    Exact,
}

impl std::str::FromStr for NormJacobian {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "frozen" => Ok(NormJacobian::Frozen),
            "exact" => Ok(NormJacobian::Exact),
            other => {
                let suggested = did_you_mean(other, ["exact", "frozen"]);
                Err(format!("unknown norm Jacobian `{other}`; use exact or frozen{suggested}"))
            }
        }
    }
}

/// Which edge attributions are estimated and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeAttributionOptions {
    /// How the norm is differentiated.
    pub norm: NormJacobian,
    /// Whether effects are kept per prompt or averaged over prompts.
    pub reduce: Reduce,
}

/// The sites whose activations edge attribution needs.
pub(crate) const RECORDED: [Site; 3] = [Site::Z, Site::ResidPre, Site::Ln1Scale];
/// The sites whose gradients edge attribution needs.
pub(crate) const PROBED: [Site; 3] = [Site::Q, Site::K, Site::V];

/// Estimated effects of the edges between heads. An edge runs from the output of its start head to
/// an input of its end head.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeAttribution {
    /// How the norm was differentiated.
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

const INPUTS: [(HeadInput, Site); 3] = [(HeadInput::Q, Site::Q), (HeadInput::K, Site::K), (HeadInput::V, Site::V)];

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

/// Refuses a model whose edges cannot be estimated.
pub(crate) fn check_edges(config: &TransformerConfig) -> Result<(), AnalysisError> {
    refuse("head-path attribution", &[Feature::SharedKeys, Feature::QueryKeyNorms, Feature::PostNorms], config)
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
    let d_model = model.config().d_model;
    let point = HookPoint::block;
    let [prompts, pos, ..] = linear.difference::<4>(point(0, Site::Z))?.dims();
    let rows = prompts * pos;
    let mut of_ends = Vec::new();
    // The source run minus the base run in each head's output to the residual stream,
    // `[row, head, d_model]` for each layer so far.
    let mut written: Vec<Tensor<B::InnerBackend, 3>> = Vec::new();
    for end in 0..layers {
        if end > 0 {
            let arriving = arriving(model, linear, kept.norm, end)?; // [row, input * head, d_model]
            // [row, layer_start * head_start, d_model]
            let starts = Tensor::cat(written.clone(), 1);
            let paths = matmul(arriving, starts.swap_dims(1, 2));
            let of_prompt = pos * 3 * heads * end * heads;
            of_ends.push(match kept.reduce {
                Reduce::PerPrompt => paths.reshape([prompts * of_prompt]),
                Reduce::Mean => paths.reshape([prompts, of_prompt]).sum_dim(0).reshape([of_prompt]),
            });
        }
        let z = linear.difference::<4>(point(end, Site::Z))?.reshape([rows, heads, d_head]);
        let w_o = model.w_o(end).inner(); // [head, d_head, d_model]
        written.push(matmul(z.swap_dims(0, 1), w_o).swap_dims(0, 1).reshape([rows, heads, d_model]));
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
/// queries, keys or values of each head, `[row, input * head, d_model]`.
fn arriving<B: Differentiable>(
    model: &Transformer<B>,
    linear: &Linearized<B>,
    norm: NormJacobian,
    layer: usize,
) -> Result<Tensor<B::InnerBackend, 3>, AnalysisError> {
    let through_weights = INPUTS.into_iter().map(|(input, site)| {
        let gradient = to_f32(linear.gradients.get::<4>(HookPoint::block(layer, site))?);
        let [prompts, pos, heads, d_head] = gradient.dims();
        // [head, row, d_head]
        let gradient = gradient.reshape([prompts * pos, heads, d_head]).swap_dims(0, 1);
        let w = model.w_head_input(layer, input).inner(); // [head, d_model, d_head]
        Ok(matmul(gradient, w.swap_dims(1, 2)).swap_dims(0, 1)) // [row, head, d_model]
    });
    let mut gradient = Tensor::cat(through_weights.collect::<Result<Vec<_>, AnalysisError>>()?, 1);
    if let Some(gain) = model.attention_norm_gain(layer) {
        let d_model = gain.dims()[0];
        gradient = gradient * gain.inner().reshape([1, 1, d_model]);
    }
    let x = to_f32(linear.base.get::<3>(HookPoint::block(layer, Site::ResidPre))?.inner());
    let scale = linear.base.get::<3>(HookPoint::block(layer, Site::Ln1Scale))?.inner();
    let [prompts, pos, d_model] = x.dims();
    let scale = scale.reshape([prompts * pos, 1, 1]);
    let kind = model.config().norm;
    let centered = kind.centered(gradient.clone());
    Ok(match norm {
        NormJacobian::Frozen => centered / scale,
        NormJacobian::Exact => {
            let x = x.reshape([prompts * pos, 1, d_model]);
            let normalized = kind.centered(x) / scale.clone();
            let along = (gradient * normalized.clone()).mean_dim(2);
            (centered - along * normalized) / scale
        }
    })
}
