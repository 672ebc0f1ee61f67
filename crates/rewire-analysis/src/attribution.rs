//! Attribution patching: every node at once, to first order, from two forwards and one backward.

use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use ndarray::{ArrayD, IxDyn};
use rewire_hooks::{ActivationCache, Axis, GradientProbes, HookPoint, Recorder, Site};
use rewire_model::{Run, Transformer};
use rewire_tasks::{Metric, PromptPairs};

use crate::effects::join;
use crate::runs::{self, check, evaluate, factor, host, no_effects, portions, record};
use crate::{AnalysisError, Method, NodeKind, Options, Outcome};

/// The estimated effect of every node of the given kinds: `(source - base) . gradient of the metric at base`, summed over
/// the node's dimensions (Nanda 2022). Linear: effects of parts sum to the effect of the whole.
///
/// Effects are per prompt, `[prompt, layer, ..]`, with the signs and units of [`activation_patching`]; what they leave out
/// is the network's curvature between base and source.
///
/// [`activation_patching`]: crate::activation_patching
///
/// # Errors
/// As [`activation_patching`], and [`AnalysisError::NotDifferentiable`].
pub fn attribution_patching<B: AutodiffBackend, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
    nodes: &[NodeKind],
    options: &Options,
) -> Result<Outcome, AnalysisError> {
    check(model, pairs, nodes)?;
    if !metric.is_differentiable() {
        return Err(AnalysisError::NotDifferentiable { metric: metric.name() });
    }
    let sites: Vec<Site> = nodes.iter().map(|n| n.site()).collect();
    let accepts = move |p: HookPoint| p.site().is_some_and(|s| sites.contains(&s));
    let mut done = 0;
    (options.progress)(done, pairs.len());

    let [mut base_metric, mut source_metric] = [Vec::new(), Vec::new()];
    let mut changes = Vec::new();
    for portion in portions(pairs, metric, options.prompt_batch)? {
        let [base, source] = portion.base_and_source(options.direction);
        // On the same backend as the base run, whose operations may round otherwise than the inner one's: where the runs
        // agree, the difference is 0 and not noise.
        let source = record(model, &source, &portion, metric, accepts.clone())?;

        let mut hooks = (GradientProbes::filtered(accepts.clone()), Recorder::filtered(accepts.clone()));
        let run = Run::tokens(model.tokens(&base)?).reading(portion.readout.clone());
        let values = evaluate(metric, model.forward(run, &mut hooks)?, &portion.prompts);
        let (probes, recorder) = hooks;
        // Prompts do not touch each other, so the gradient of the sum is each prompt's own.
        let gradients = probes.gradients(&values.clone().sum());
        let base = recorder.into_cache();

        let mut of_portion = Vec::with_capacity(nodes.len());
        for &kind in nodes {
            let mut estimates = no_effects(kind, model.config(), portion.pairs.len(), pairs.width());
            for layer in 0..model.config().n_layers {
                let point = HookPoint::block(layer, kind.site());
                let estimate = match kind.site().axes().len() {
                    4 => estimate::<B, 4>(kind, point, &base, &source.cache, &gradients)?,
                    _ => estimate::<B, 3>(kind, point, &base, &source.cache, &gradients)?,
                };
                estimates.index_axis_mut(ndarray::Axis(1), layer).assign(&estimate);
            }
            of_portion.push(estimates);
        }
        changes.push(of_portion);
        base_metric.extend(host(values.inner()));
        source_metric.extend(source.metric);
        done += portion.pairs.len();
        (options.progress)(done, pairs.len());
    }
    let baselines = runs::baselines(options.direction, base_metric, source_metric);
    let factor = factor(&baselines, options)?;
    Ok(Outcome {
        method: Method::AttributionPatching,
        direction: options.direction,
        scale: options.scale,
        metric: metric.name(),
        baselines,
        effects: join(nodes, changes, factor),
    })
}

/// The estimates at one point, `[prompt, ..]` with the axes of the kind.
fn estimate<B: AutodiffBackend, const D: usize>(
    kind: NodeKind,
    point: HookPoint,
    base: &ActivationCache<B>,
    source: &ActivationCache<B>,
    gradients: &ActivationCache<B::InnerBackend>,
) -> Result<ArrayD<f32>, AnalysisError> {
    let [base, source]: [Tensor<B::InnerBackend, D>; 2] =
        [base.get::<D>(point)?.inner(), source.get::<D>(point)?.inner()];
    let product = (source - base) * gradients.get::<D>(point)?;
    Ok(sum_to(product, point.axes(), &kind.axes()))
}

/// `tensor` summed over all axes but the batch and those kept, which come out in the order of `kept`: `[batch, kept..]`.
pub(crate) fn sum_to<B: Backend, const D: usize>(tensor: Tensor<B, D>, axes: &[Axis], kept: &[Axis]) -> ArrayD<f32> {
    let summed = (1..D).filter(|&dim| !kept.contains(&axes[dim])).fold(tensor, |t, dim| t.sum_dim(dim));
    let dims = summed.dims();
    let left: Vec<usize> = (1..D).filter(|&dim| kept.contains(&axes[dim])).collect();
    let shape: Vec<usize> = [dims[0]].into_iter().chain(left.iter().map(|&dim| dims[dim])).collect();
    let values = ArrayD::from_shape_vec(IxDyn(&shape), host(summed)).expect("summed axes are of size 1");
    let place = |axis: &Axis| 1 + left.iter().position(|&dim| axes[dim] == *axis).expect("an axis of the site");
    let order: Vec<usize> = [0].into_iter().chain(kept.iter().map(place)).collect();
    values.permuted_axes(IxDyn(&order))
}
