//! Attention attribution: which cells of which patterns matter, on the clean run alone.

use burn::tensor::backend::AutodiffBackend;
use ndarray::{Array5, ArrayD};
use rewire_hooks::{GradientProbes, HookPoint, Recorder, Site};
use rewire_model::{Run, Transformer};
use rewire_tasks::{Metric, PromptPairs};

use crate::attribution::sum_to;
use crate::runs::{check, evaluate, factor, host, portions, record};
use crate::{AnalysisError, Baselines, By, Component, NodeKind, Options};

/// `pattern * gradient of the metric at pattern` on the clean run, `[prompt, layer, head, dest, src]`: to first order, what
/// the metric would lose if that cell of the pattern were 0. No counterfactual prompt enters but for the unit: with
/// [`Scale::Normalised`](crate::Scale::Normalised) it is a share of clean mean less corrupted mean.
///
/// # Errors
/// As [`attribution_patching`](crate::attribution_patching).
pub fn attention_attribution<B: AutodiffBackend, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
    options: &Options,
) -> Result<Array5<f32>, AnalysisError> {
    let kind = NodeKind { component: Component::HeadPattern, by: By::Cell };
    check(model, pairs, &[kind])?;
    if !metric.is_differentiable() {
        return Err(AnalysisError::NotDifferentiable { metric: metric.name() });
    }
    let config = model.config();
    let is_pattern = |p: HookPoint| p.site() == Some(Site::Pattern);
    let mut all = Array5::zeros((pairs.len(), config.n_layers, config.n_heads, pairs.width(), pairs.width()));
    let mut baselines = Baselines { clean: Vec::new(), corrupted: Vec::new() };
    for portion in portions(pairs, metric, options.prompt_batch)? {
        baselines.corrupted.extend(record(model, &portion.pairs.corrupted(), &portion, metric, |_| false)?.metric);

        let mut hooks = (GradientProbes::filtered(is_pattern), Recorder::filtered(is_pattern));
        let run = Run::tokens(model.tokens(&portion.pairs.clean())?).reading(portion.readout.clone());
        let values = evaluate(metric, model.forward(run, &mut hooks)?, &portion.prompts);
        let (probes, recorder) = hooks;
        let gradients = probes.gradients(&values.clone().sum());
        let patterns = recorder.into_cache();
        for layer in 0..config.n_layers {
            let point = HookPoint::block(layer, Site::Pattern);
            let product = patterns.get::<4>(point)?.inner() * gradients.get::<4>(point)?;
            let cells: ArrayD<f32> = sum_to(product, point.axes(), &kind.axes());
            for (row, &prompt) in portion.prompts.iter().enumerate() {
                let mut of_prompt = all.index_axis_mut(ndarray::Axis(0), prompt);
                of_prompt.index_axis_mut(ndarray::Axis(0), layer).assign(&cells.index_axis(ndarray::Axis(0), row));
            }
        }
        baselines.clean.extend(host(values.inner()));
    }
    let factor = factor(&baselines, options)? as f32;
    Ok(all.mapv_into(|v| v * factor))
}
