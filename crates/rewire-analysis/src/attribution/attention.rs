//! Attention attribution: which cells of which attention patterns matter on the clean run.

use crate::run::record::baselines;
use burn::module::AutodiffModule;
use ndarray::{Array5, ArrayD, Axis as Dimension, Ix5, concatenate, stack};
use rewire_hooks::{GradientProbes, HookPoint, Recorder, Site};
use rewire_model::{Differentiable, Run, Transformer};
use rewire_tasks::Metric;

use crate::attribution::linearize::slope;
use crate::attribution::nodes::by_batch;
use crate::attribution::pending_sum::PendingSum;
use crate::attribution::slope::{Linearity, Metrics};
use crate::error::AnalysisError;
use crate::node::kind::{By, Component, NodeKind};
use crate::run::execution::Execution;
use crate::run::finite::{Watch, check_effects};
use crate::run::fit::catch_device_faults;
use crate::run::question::{Direction, Question, Scale};
use crate::run::record::{check, effect_scale, evaluate, record};

/// Returns `pattern * gradient of the metric at the pattern` on the clean run,
/// `[prompt, layer, head, dest, src]`.
///
/// A value is, to first order, the drop of the metric if that cell of the pattern were 0. The
/// corrupted prompts only set the effect scale: with
/// [`Scale::Normalized`](crate::run::question::Scale::Normalized), a value is a share of the clean
/// mean minus the corrupted mean.
///
/// # Errors
/// As [`attribution_patching`](crate::attribution::nodes::attribution_patching).
pub fn attention_attribution<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    execution: &Execution,
) -> Result<Array5<f32>, AnalysisError> {
    let kind = NodeKind { component: Component::HeadPattern, by: By::Cell };
    let Question { pairs, metric, scale, backward } = question;
    check(model, pairs, &[kind])?;
    catch_device_faults::<B, _>(&model.device(), || {
        let inner = model.valid();
        let is_pattern = |p: HookPoint| p.site() == Some(Site::Pattern);
        let at = Linearity { method: "attention attribution", at: Direction::Noising, has_other_direction: false };
        let found = by_batch(model, question, Some(at), execution, |batch| {
            // The corrupted run only sets the effect scale.
            let corrupted = match scale {
                Scale::Normalized => record(&inner, &batch.pairs.corrupted(), batch, metric, |_| false)?.metric,
                Scale::Metric => Vec::new(),
            };
            let mut hooks = (GradientProbes::filtered(is_pattern), Recorder::filtered(is_pattern));
            let run = Run::tokens(model.tokens(&batch.pairs.clean())?).with_readout(batch.readout.clone());
            let run = run.with_backward(backward);
            let mut watch = Watch::new();
            let logits = model.forward(run, (&mut hooks, &mut watch))?;
            let slope = slope::<B, M>(metric, logits.clone().inner(), batch);
            let values = evaluate(metric, logits, &batch.prompts);
            let (probes, recorder) = hooks;
            let gradients = probes.gradients(&values.clone().sum());
            let patterns = recorder.into_cache();
            let of_layer = |layer: usize| -> Result<PendingSum<B::InnerBackend>, AnalysisError> {
                let point = HookPoint::block(layer, Site::Pattern);
                let product = patterns.get::<4>(point)?.inner() * gradients.get::<4>(point)?;
                Ok(PendingSum::new(product, point.axes(), &kind.axes()))
            };
            let layers = (0..model.config().n_layers).map(of_layer).collect::<Result<Vec<_>, _>>()?;
            let (layers, mut read) = PendingSum::read(layers, [watch.mark(values).inner(), slope]);
            let [slope, base] = [(); 2].map(|()| read.pop().unwrap_or_default());
            let metrics = Metrics { base, source: corrupted, slope };
            metrics.check(&inner, metric.name(), batch, Direction::Noising)?;
            Ok(Some((layers, metrics)))
        })?;
        found.metrics.vanished(pairs, metric)?;
        let Metrics { base, source, .. } = found.metrics;
        let baselines = baselines(Direction::Noising, base, source);
        let factor = effect_scale(&baselines, scale)? as f32;
        let batch = |layers: &Vec<ArrayD<f32>>| {
            let views: Vec<_> = layers.iter().map(|l| l.view()).collect();
            stack(Dimension(1), &views).expect("layers of one shape")
        };
        let batches: Vec<ArrayD<f32>> = found.parts.iter().map(batch).collect();
        let views: Vec<_> = batches.iter().map(|p| p.view()).collect();
        let all = concatenate(Dimension(0), &views).expect("batches that differ in their prompts alone");
        let all = all * factor;
        check_effects("attention attribution", kind, 0, &all)?;
        Ok(all.into_dimensionality::<Ix5>().expect("prompt, layer, head, dest, src"))
    })
}
