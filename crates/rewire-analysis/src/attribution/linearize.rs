//! Two forward passes and one backward pass, from which every first-order estimate is computed.

use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use rewire_hooks::{ActivationCache, CacheError, GradientProbes, Hook, HookPoint, Recorder, Site};
use rewire_model::{
    BackwardRule, Differentiable, LastBlock, ModelError, Prefix, ReadPositions, Readout, Run, Transformer,
};
use rewire_tasks::Metric;
use rewire_tensor::to_f32;

use crate::attribution::norm_jacobian::NormJacobian;
use crate::error::AnalysisError;
use crate::run::batch::PromptBatch;
use crate::run::finite::Watch;
use crate::run::question::Direction;
use crate::run::record::evaluate;

/// The activations of the base and source runs, and the metric's gradient on the base run, from
/// position `first` on. Before `first` the two runs are identical.
pub(crate) struct Linearized<B: Differentiable> {
    pub(crate) first: usize,
    /// Keys and values before `first`; `None` if `first` is 0.
    pub(crate) prefix: Option<Prefix<B>>,
    pub(crate) base: ActivationCache<B>,
    pub(crate) source: ActivationCache<B>,
    pub(crate) gradients: ActivationCache<B::InnerBackend>,
    /// The metric per prompt, still on the device.
    pub(crate) base_metric: Tensor<B::InnerBackend, 1>,
    pub(crate) source_metric: Tensor<B::InnerBackend, 1>,
    /// The largest absolute gradient of the metric with respect to a logit of the base run, per
    /// prompt, still on the device.
    pub(crate) slope: Tensor<B::InnerBackend, 1>,
    /// The rule by which the gradients were computed.
    pub(crate) backward: BackwardRule,
}

/// The hook points to record and to differentiate.
pub(crate) struct Points<R, P> {
    /// Accepts the points whose activations are recorded.
    pub(crate) recorded: R,
    /// Accepts the points whose gradients are computed.
    pub(crate) probed: P,
}

/// Runs the base and source prompts of one batch, and differentiates each prompt's metric on the
/// base run.
///
/// Positions before the first difference run once, for their keys and values. They need no
/// gradient, because their activations do not differ.
pub(crate) fn linearize<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    metric: &M,
    backward: BackwardRule,
    batch: &PromptBatch,
    direction: Direction,
    points: Points<
        impl Fn(HookPoint) -> bool + Clone + Send + Sync + 'static,
        impl Fn(HookPoint) -> bool + Send + Sync + 'static,
    >,
) -> Result<Linearized<B>, AnalysisError> {
    let first = batch.first_difference;
    let [base, source] = batch.base_and_source(direction);
    let prefix = if first > 0 { Some(shared_prefix(model, &base, first)?) } else { None };
    let run = |tokens: &[Vec<u32>]| -> Result<Run<B>, ModelError> {
        let rest: Vec<Vec<u32>> = tokens.iter().map(|t| t[first..].to_vec()).collect();
        let run = Run::tokens(model.tokens(&rest)?).with_readout(batch.readout.clone());
        Ok(match &prefix {
            Some(prefix) => run.with_prefix(prefix.clone()),
            None => run,
        })
    };
    // The source run uses the same backend as the base run, because the autodiff backend may round
    // differently from the inner one. The difference is then exactly 0 if the runs agree.
    let mut recorder = Recorder::filtered(points.recorded.clone());
    let mut watch = Watch::new();
    let logits = model.forward(run(&source)?, (&mut recorder, &mut watch))?;
    let source_metric = watch.mark(evaluate(metric, logits, &batch.prompts)).inner();
    let source = recorder.into_cache();

    let Differentiated { cache: base, gradients, metric: base_metric, slope } =
        differentiate(model, metric, batch, run(&base)?.with_backward(backward), (), points)?;
    Ok(Linearized { first, prefix, base, source, gradients, base_metric, source_metric, slope, backward })
}

/// The activations, the gradients and the metric of one run.
pub(crate) struct Differentiated<B: Differentiable> {
    pub(crate) cache: ActivationCache<B>,
    pub(crate) gradients: ActivationCache<B::InnerBackend>,
    /// The metric per prompt, still on the device.
    pub(crate) metric: Tensor<B::InnerBackend, 1>,
    /// As [`Linearized::slope`].
    pub(crate) slope: Tensor<B::InnerBackend, 1>,
}

/// Makes a run of the prompts of one batch, and differentiates each prompt's metric. `patch`
/// changes activations before they are recorded.
pub(crate) fn differentiate<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    metric: &M,
    batch: &PromptBatch,
    run: Run<B>,
    patch: impl Hook<B>,
    points: Points<
        impl Fn(HookPoint) -> bool + Send + Sync + 'static,
        impl Fn(HookPoint) -> bool + Send + Sync + 'static,
    >,
) -> Result<Differentiated<B>, AnalysisError> {
    let mut hooks = (GradientProbes::filtered(points.probed), Recorder::filtered(points.recorded));
    let mut watch = Watch::new();
    let logits = model.forward(run, (patch, (&mut hooks, &mut watch)))?;
    let slope = slope::<B, M>(metric, logits.clone().inner(), batch);
    let values = evaluate(metric, logits, &batch.prompts);
    let (probes, recorder) = hooks;
    // Prompts are independent, so the gradient of the sum is each prompt's own gradient.
    let gradients = probes.gradients(&values.clone().sum());
    let metric = watch.mark(values).inner();
    Ok(Differentiated { cache: recorder.into_cache(), gradients, metric, slope })
}

/// Returns the largest absolute gradient of the metric with respect to a logit, per prompt, from
/// logits `[prompt, positions read, column]`. All other gradients pass through this one.
pub(crate) fn slope<B: Differentiable, M: Metric>(
    metric: &M,
    logits: Tensor<B::InnerBackend, 3>,
    batch: &PromptBatch,
) -> Tensor<B::InnerBackend, 1> {
    let [rows, reads, columns] = logits.dims();
    let logits = Tensor::<B, 3>::from_inner(logits).require_grad();
    let mut gradients = evaluate(metric, logits.clone(), &batch.prompts).sum().backward();
    match logits.grad_remove(&mut gradients) {
        Some(gradient) => to_f32(gradient).reshape([rows, reads * columns]).abs().max_dim(1).reshape([rows]),
        None => Tensor::zeros([rows], &logits.device()),
    }
}

/// Returns the keys and values of the first `len` positions.
fn shared_prefix<B: Differentiable>(
    model: &Transformer<B>,
    tokens: &[Vec<u32>],
    len: usize,
) -> Result<Prefix<B>, AnalysisError> {
    let inner = model.valid();
    let config = inner.config();
    let keys = config.key_site();
    let mut recorder = Recorder::filtered(move |p| p.site().is_some_and(|s| s == keys || s == Site::V));
    let tokens: Vec<Vec<u32>> = tokens.iter().map(|t| t[..len].to_vec()).collect();
    let nothing = Readout { positions: ReadPositions::Each(vec![len - 1; tokens.len()]), columns: Some(Vec::new()) };
    inner.forward(
        Run::tokens(inner.tokens(&tokens)?).with_readout(nothing).with_last_block(LastBlock::ReadPositions),
        &mut recorder,
    )?;
    Ok(Prefix::from_inner(Prefix::from_cache(&recorder.into_cache(), config, len)?))
}

impl<B: Differentiable> Linearized<B> {
    /// Returns how the norms of edges are differentiated, unless a caller chooses it.
    pub(crate) fn norm(&self) -> NormJacobian {
        NormJacobian::of_rule(self.backward)
    }

    /// Returns the source run's activation minus the base run's activation at a point.
    pub(crate) fn difference<const D: usize>(
        &self,
        point: HookPoint,
    ) -> Result<Tensor<B::InnerBackend, D>, CacheError> {
        let of = |cache: &ActivationCache<B>| cache.get::<D>(point).map(|x| to_f32(x.inner()));
        Ok(of(&self.source)? - of(&self.base)?)
    }
}
