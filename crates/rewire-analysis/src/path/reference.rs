//! Path patching as it is defined: two whole forward passes per path.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::backend::Backend;
use rewire_hooks::{ActivationCache, AnyMask, CacheError, Hook, HookPoint, Patch, Recorder, Site};
use rewire_model::{Run, Transformer};
use rewire_tasks::{Metric, PromptPairs};

use crate::error::AnalysisError;
use crate::node::kind::{Node, NodeKind, named};
use crate::patching::reference::{covers, mask, whole_metric};
use crate::path::add_receivers::{Adding, Addition};
use crate::path::ends::{Path, check_ends};
use crate::path::policy::{FreezePolicy, ReceiverUpdate, Recompute};
use crate::path::receiver::{Input, Receiver, named as named_receivers};
use crate::run::batch::{PromptBatch, batches};
use crate::run::finite::{check_changed, check_run, the_metric};
use crate::run::fit::catch_device_faults;
use crate::run::question::Direction;

/// The metric of a run, and its recorded activations.
#[derive(Debug, Clone)]
pub struct PathRun<B: Backend> {
    /// The metric of the second run, per prompt.
    pub metric: Vec<f32>,
    /// The metric of the base run, per prompt.
    pub base_metric: Vec<f32>,
    /// The recorded activations of the second run.
    pub cache: ActivationCache<B>,
}

/// Makes the second run of path patching as the method is defined: a whole base run, with the
/// receivers of `path` updated from its senders.
///
/// Use it to inspect that run, for example its attention patterns. `accepts` selects the
/// activations to record. All activations of both runs on all pairs are in memory at once, so use
/// few pairs.
///
/// # Errors
/// Returns the errors of [`path_patching`](crate::path::paths::path_patching).
pub fn patch_path<B: Backend, M: Metric>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    metric: &M,
    path: &Path,
    policy: FreezePolicy,
    direction: Direction,
    accepts: impl Fn(HookPoint) -> bool + Send + Sync + 'static,
) -> Result<PathRun<B>, AnalysisError> {
    check_ends(model, pairs, std::slice::from_ref(&path.senders), std::slice::from_ref(&path.receivers))?;
    catch_device_faults::<B, _>(&model.device(), || {
        // A single batch, because the cache covers all prompts.
        let batch = batches(pairs, metric, pairs.len())?.get(0);
        let mut recorder = Recorder::filtered(accepts);
        let (base_metric, metric) =
            both_metrics(model, metric, &batch, (&path.senders, &path.receivers), policy, direction, &mut recorder)?;
        Ok(PathRun { metric, base_metric, cache: recorder.into_cache() })
    })
}

/// Returns the change of each prompt's metric along one path.
pub(super) fn changes<B: Backend, M: Metric>(
    model: &Transformer<B>,
    metric: &M,
    batch: &PromptBatch,
    ends: (&[Node], &[Receiver]),
    policy: FreezePolicy,
    direction: Direction,
) -> Result<Vec<f32>, AnalysisError> {
    let (unpatched, patched) = both_metrics(model, metric, batch, ends, policy, direction, &mut ())?;
    Ok(patched.iter().zip(&unpatched).map(|(patched, unpatched)| patched - unpatched).collect())
}

/// Returns the metric of each prompt in the base run, and in the second run. `hook` visits the
/// second run.
fn both_metrics<B: Backend, M: Metric>(
    model: &Transformer<B>,
    metric: &M,
    batch: &PromptBatch,
    (senders, receivers): (&[Node], &[Receiver]),
    policy: FreezePolicy,
    direction: Direction,
    hook: &mut impl Hook<B>,
) -> Result<(Vec<f32>, Vec<f32>), AnalysisError> {
    let [base_prompts, source_prompts] = batch.base_and_source(direction);
    let base_tokens = model.tokens(&base_prompts)?;
    let (mut base, mut source) = (Recorder::all(), Recorder::all());
    let unpatched = whole_metric(model, metric, batch, base_tokens.clone(), &mut base)?;
    check_run(model, &the_metric(metric.name()), batch, &base_prompts, &unpatched)?;
    model.forward(Run::tokens(model.tokens(&source_prompts)?), &mut source)?;
    let (base, source) = (base.into_cache(), source.into_cache());

    let mut sending = sending(model, senders, &base, &source, policy)?;
    let is_head = |p: HookPoint| matches!(p.site(), Some(Site::Q | Site::K | Site::V));
    let is_stream = |p: HookPoint| {
        matches!(p.site(), Some(Site::ResidPre | Site::ResidMid | Site::Ln2Normalized | Site::ResidPost))
    };
    // Heads are recorded before they are frozen, the stream after senders have written to it.
    let (mut heads, mut stream) = (Recorder::filtered(is_head), Recorder::filtered(is_stream));
    model.forward(Run::tokens(base_tokens.clone()), ((&mut heads, &mut sending), &mut stream))?;
    sending.finish()?;
    let mut received = heads.into_cache();
    received.merge(stream.into_cache());

    let patched = match policy.update {
        ReceiverUpdate::Replace => {
            let mut receiving = receiving(receivers, &received)?;
            let patched = whole_metric(model, metric, batch, base_tokens, (&mut receiving, hook))?;
            receiving.finish()?;
            patched
        }
        ReceiverUpdate::Add => {
            let adding = Adding::new(model, additions(model, receivers, &received, &base, policy)?);
            whole_metric(model, metric, batch, base_tokens, (adding, hook))?
        }
    };
    let sent = |_| format!("{} sent to {}", named(senders), named_receivers(receivers));
    check_changed(metric.name(), &batch.prompts, &patched, sent)?;
    Ok((unpatched, patched))
}

/// Builds the hook of the first run. It sets senders from the source run and freezes other
/// activations as `policy` says.
fn sending<B: Backend>(
    model: &Transformer<B>,
    senders: &[Node],
    base: &ActivationCache<B>,
    source: &ActivationCache<B>,
    policy: FreezePolicy,
) -> Result<Patch<B>, CacheError> {
    let mut patch = Patch::new();
    for layer in 0..model.config().n_layers {
        let mut held = vec![Site::Z];
        if policy.mlps == Recompute::Frozen {
            held.push(Site::MlpPost);
        }
        if policy.norms == Recompute::Frozen {
            held.extend([Site::Ln1Scale, Site::Ln2Scale]);
        }
        let mut sites: Vec<Site> =
            senders.iter().filter(|n| n.layer == layer).map(|n| NodeKind::all(n.component).site()).collect();
        sites.extend(&held);
        sites.sort_unstable();
        sites.dedup();
        for site in sites {
            let at = HookPoint::block(layer, site);
            patch = send(patch, at, senders, base, source, held.contains(&site))?;
        }
    }
    Ok(patch)
}

/// Sets the senders at a point from the source run. If `is_held`, sets the rest of the activation
/// from the base run.
fn send<B: Backend>(
    patch: Patch<B>,
    at: HookPoint,
    senders: &[Node],
    base: &ActivationCache<B>,
    source: &ActivationCache<B>,
    is_held: bool,
) -> Result<Patch<B>, CacheError> {
    let source = source.any(at)?.clone();
    let sent = AnyMask::of(&source.dims(), &source.device(), |index| {
        senders.iter().any(|node| node.point() == at && covers(node, index[0], at.axes(), index, 0))
    });
    Ok(match is_held {
        true => patch.replace(at, base.any(at)?.mask_where(&sent, &source)),
        false => patch.replace_where(at, source, sent),
    })
}

/// Builds the hook of the second run. It sets receivers to their recorded activations.
fn receiving<B: Backend>(receivers: &[Receiver], received: &ActivationCache<B>) -> Result<Patch<B>, CacheError> {
    let points: BTreeSet<HookPoint> = receivers.iter().map(|r| HookPoint::block(r.layer, r.input.site())).collect();
    points.into_iter().try_fold(Patch::new(), |patch, at| {
        let covered = |prompt: usize, index: &[usize]| {
            receivers.iter().any(|r| {
                HookPoint::block(r.layer, r.input.site()) == at
                    && r.is_at(prompt, index[1])
                    && r.head.is_none_or(|head| head == index[2])
            })
        };
        let values = received.any(at)?.clone();
        let set = AnyMask::of(&values.dims(), &values.device(), |index| covered(index[0], index));
        Ok(patch.replace_where(at, values, set))
    })
}

/// Returns the additions to the streams that receivers read: the changes of these streams in the
/// first run.
fn additions<B: Backend>(
    model: &Transformer<B>,
    receivers: &[Receiver],
    received: &ActivationCache<B>,
    base: &ActivationCache<B>,
    policy: FreezePolicy,
) -> Result<BTreeMap<(usize, Input), Addition<B>>, CacheError> {
    let config = model.config();
    let inputs: BTreeSet<(usize, Input)> = receivers.iter().map(|r| (r.layer, r.input)).collect();
    let addition = |(layer, input): (usize, Input)| {
        let here = || receivers.iter().filter(move |r| (r.layer, r.input) == (layer, input));
        let stream = input.stream(config);
        let change = received.block::<3>(layer, stream)? - base.block(layer, stream)?;
        let [batch, pos, _] = change.dims();
        let covered =
            mask::<B, 3>(change.dims(), &change.device(), |prompt, index| here().any(|r| r.is_at(prompt, index[1])));
        let change = change.clone().zeros_like().mask_where(covered.clone(), change);
        let mlp = (input == Input::MlpIn).then_some(covered);
        let heads = input.of_head().map(|_| {
            mask([batch, pos, config.heads_at(input.site()), config.d_head], &change.device(), |prompt, index| {
                here().any(|r| r.is_at(prompt, index[1]) && r.head.is_none_or(|head| head == index[2]))
            })
        });
        let scale = match (policy.norms, input.scale()) {
            (Recompute::Frozen, Some(norm)) => Some(base.block(layer, norm)?),
            _ => None,
        };
        Ok(((layer, input), Addition { change, heads, mlp, scale }))
    };
    inputs.into_iter().map(addition).collect()
}
