//! GradDrop of AtP* (Kramár et al. 2024): gradients that do not pass through one layer.
//!
//! A node's direct effect and its effect through later layers can cancel in the gradient, although
//! they do not cancel in a patch. Without the gradient through one of these layers, they no longer
//! cancel.

use burn::tensor::Tensor;
use rewire_hooks::{ActivationCache, GradientProbes, HookPoint, Site};
use rewire_model::{Differentiable, Run, Transformer};
use rewire_tensor::to_f32;

use crate::attribution::linearize::Linearized;
use crate::error::AnalysisError;
use crate::run::batch::PromptBatch;
use crate::run::question::Direction;

/// The site whose gradient the other gradients start from.
pub(super) const PROBED: Site = Site::ResidPost;

/// Returns the gradients at `sites` in the layers before layer `dropped` that do not pass through
/// the attention and the MLP of that layer. They pass through the residual stream.
///
/// Nothing but the residual stream passes the layer: the gradient before it is the gradient after
/// it. The run therefore ends before the layer, and the gradient at its end is the one that the
/// backward pass of `linear` found after the layer.
pub(super) fn gradients<B: Differentiable>(
    model: &Transformer<B>,
    linear: &Linearized<B>,
    batch: &PromptBatch,
    direction: Direction,
    dropped: usize,
    sites: &[Site],
) -> Result<ActivationCache<B::InnerBackend>, AnalysisError> {
    let sites = sites.to_vec();
    let mut probes = GradientProbes::filtered(move |point| match point {
        HookPoint::Block { layer, site } => layer < dropped && sites.contains(&site),
        _ => false,
    });
    let [base, _] = batch.base_and_source(direction);
    let rest: Vec<Vec<u32>> = base.iter().map(|tokens| tokens[linear.first..].to_vec()).collect();
    let run = Run::tokens(model.tokens(&rest)?).stop_at(dropped);
    let run = match &linear.prefix {
        Some(prefix) => run.with_prefix(prefix.clone()),
        None => run,
    };
    let stream = to_f32(model.forward(run, &mut probes)?);
    let after = to_f32(linear.gradients.get::<3>(HookPoint::block(dropped, PROBED))?);
    Ok(probes.gradients(&(stream * Tensor::from_inner(after)).sum()))
}
