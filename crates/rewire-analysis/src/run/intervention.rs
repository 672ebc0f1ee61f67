//! Interventions: replacement of activations by those of another run, by zero or by given values.

use crate::run::batch::{PromptBatches, batches};
use burn::tensor::backend::Backend;
use rewire_hooks::{ActivationCache, AnyRank, Axis, HookPoint, Site};
use rewire_model::{Transformer, TransformerConfig};
use rewire_tasks::Metric;
use rewire_tasks::PromptPairs;

use crate::error::AnalysisError;
use crate::node::kind::{Component, NodeKind};
use crate::run::batch::PromptBatch;
use crate::run::question::Direction;
use crate::run::record::{Recorded, record};

/// The value that replaces an activation.
#[derive(Debug, Clone, Default)]
pub enum Intervention<B: Backend> {
    /// The same activation on the other run of the pair.
    #[default]
    Resample,
    /// Zero.
    Zero,
    /// The activation of this cache at the same hook point, such as
    /// [`mean_activations`](crate::run::means::mean_activations). It has the shape of the hook
    /// point, for all prompts and positions. A size of 1 for prompts or positions is broadcast. If
    /// it has more positions than the prompts, the first ones are used.
    Fixed(ActivationCache<B>),
}

impl<B: Backend> Intervention<B> {
    /// Returns the name used in commands and files.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Intervention::Resample => "resample",
            Intervention::Zero => "zero",
            Intervention::Fixed(_) => "fixed",
        }
    }

    /// Returns whether the intervention can change positions at which both runs are equal.
    pub(crate) fn reaches_everywhere(&self) -> bool {
        !matches!(self, Intervention::Resample)
    }

    /// Refuses nodes that the intervention cannot replace. Rotary models use queries and keys after
    /// rotation, and the rotated mean is not the mean of rotated vectors.
    pub(crate) fn check(&self, kinds: &[NodeKind], config: &TransformerConfig) -> Result<(), AnalysisError> {
        let rotated = |kind: &&NodeKind| matches!(kind.component, Component::HeadQ | Component::HeadK);
        match (self, kinds.iter().find(rotated)) {
            (Intervention::Fixed(_), Some(&node)) if config.is_rotary() => {
                let reason = "this model rotates queries and keys by an angle that depends on the position; use \
                    resample or zero";
                Err(AnalysisError::UnsupportedNode { method: "replacement by a given activation", node, reason })
            }
            _ => Ok(()),
        }
    }

    /// Returns the replacement activations for one batch at the hook points that `accepts` selects,
    /// each for all prompts and positions. With [`Intervention::Resample`] the result has the
    /// metric of the other run, and otherwise no metric.
    pub(crate) fn source<M: Metric>(
        &self,
        model: &Transformer<B>,
        metric: &M,
        batch: &PromptBatch,
        direction: Direction,
        accepts: impl Fn(HookPoint) -> bool + Send + Sync + 'static,
    ) -> Result<Recorded<B>, AnalysisError> {
        let cache = match self {
            Intervention::Resample => {
                let [_, source] = batch.base_and_source(direction);
                return record(model, &source, batch, metric, accepts);
            }
            Intervention::Zero => {
                let zeros = |p| AnyRank::zeros(&dims(p, model.config(), batch), &model.device());
                let points = block_points(model.config()).filter(|p| accepts(*p));
                points.fold(ActivationCache::new(), |cache, p| cache.with(p, zeros(p)))
            }
            Intervention::Fixed(given) => {
                block_points(model.config()).filter(|p| accepts(*p)).try_fold(ActivationCache::new(), |cache, p| {
                    Ok::<_, AnalysisError>(cache.with(p, spread(given, p, model.config(), batch)?))
                })?
            }
        };
        Ok(Recorded { cache, metric: Vec::new() })
    }
}

/// Iterates over every hook point inside the blocks.
fn block_points(config: &TransformerConfig) -> impl Iterator<Item = HookPoint> {
    (0..config.n_layers).flat_map(|layer| Site::all().map(move |site| HookPoint::block(layer, site)))
}

/// Returns the shape of the activation at a hook point, for all prompts and positions of a batch.
fn dims(point: HookPoint, config: &TransformerConfig, batch: &PromptBatch) -> Vec<usize> {
    let heads = point.site().map_or(config.n_heads, |site| config.heads_at(site));
    let size = |axis: &Axis| match axis {
        Axis::Batch => batch.prompts.len(),
        Axis::Pos | Axis::Query | Axis::Key => batch.pairs.width(),
        Axis::Head => heads,
        Axis::DHead => config.d_head,
        Axis::DModel => config.d_model,
        Axis::DMlp => config.d_mlp,
        Axis::One => 1,
    };
    point.axes().iter().map(size).collect()
}

/// Returns the given activation at a hook point for the prompts of a batch; sizes of 1 are
/// broadcast along prompts and positions.
fn spread<B: Backend>(
    given: &ActivationCache<B>,
    point: HookPoint,
    config: &TransformerConfig,
    batch: &PromptBatch,
) -> Result<AnyRank<B>, AnalysisError> {
    let value = given.any(point)?.clone();
    let found = value.dims();
    let expected = dims(point, config, batch);
    let mut of_all = expected.clone();
    of_all[0] = batch.all_prompts;
    let fits = point.axes().iter().zip(found.iter().zip(&of_all)).all(|(axis, (found, expected))| match axis {
        Axis::Batch => found == expected || *found == 1,
        Axis::Pos => found >= expected || *found == 1,
        _ => found == expected,
    });
    if found.len() != expected.len() || !fits {
        return Err(AnalysisError::GivenShape { point, expected: of_all, found });
    }
    let value = match found[0] {
        1 => value,
        _ => value.narrow(0, batch.prompts[0], batch.prompts.len()),
    };
    let value = match point.axes()[1] {
        Axis::Pos if found[1] > expected[1] => value.narrow(1, 0, expected[1]),
        _ => value,
    };
    Ok(value.expand(&expected))
}

/// Cuts the pairs into batches for an intervention, which may change positions at which both runs
/// of a pair are equal.
pub(crate) fn batches_for<'a, B: Backend, M: Metric>(
    intervention: &Intervention<B>,
    pairs: &'a PromptPairs,
    metric: &M,
    size: usize,
) -> Result<PromptBatches<'a>, AnalysisError> {
    let batches = batches(pairs, metric, size)?;
    Ok(match intervention.reaches_everywhere() {
        true => batches.changed_everywhere(),
        false => batches,
    })
}
