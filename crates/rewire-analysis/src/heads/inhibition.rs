//! S2-inhibition: heads that attend to the repeated name and keep the name movers from attending to
//! it.

use burn::tensor::backend::Backend;
use ndarray::Array2;
use rewire_hooks::{ActivationCache, CacheError, Head, HookPoint, Recorder, Site};
use rewire_model::{Readout, Run, Transformer};
use rewire_tasks::{LogitDiff, PromptPairs, ioi::Roles};

use crate::error::AnalysisError;
use crate::node::kind::{Component, Node, Positions};
use crate::path::ends::Path;
use crate::path::policy::FreezePolicy;
use crate::path::receiver::{Input, Receiver};
use crate::path::reference::patch_path;
use crate::run::execution::Execution;
use crate::run::fit::catch_device_faults;
use crate::run::question::Direction;
use crate::run::transfer::to_vec;

/// The measurements of one head that may be an S2-inhibition head.
#[derive(Debug, Clone, PartialEq)]
pub struct Inhibition {
    /// The head.
    pub head: Head,
    /// The head's attention from END to S2 in the clean run, per prompt.
    pub s2_attention: Vec<f32>,
    /// Change of the logit difference when the head's output is patched from the corrupted run into
    /// the movers' queries at END, per prompt, in logits. Below 0 if the head serves the behavior.
    pub logit_difference_change: Vec<f32>,
    /// Change of each mover's attention from END to S1 under that patch, `[prompt, mover]`. Above 0
    /// if the head keeps the mover from attending to S1.
    pub s1_attention_change: Array2<f32>,
}

impl Inhibition {
    /// Returns three means over prompts (and movers): attention to S2, change of the logit
    /// difference, and change of the movers' attention to S1.
    #[must_use]
    pub fn means(&self) -> [f64; 3] {
        let mean = |v: &mut dyn Iterator<Item = f32>| {
            let (sum, n) = v.fold((0.0, 0), |(sum, n), x| (sum + f64::from(x), n + 1));
            sum / n.max(1) as f64
        };
        [
            mean(&mut self.s2_attention.iter().copied()),
            mean(&mut self.logit_difference_change.iter().copied()),
            mean(&mut self.s1_attention_change.iter().copied()),
        ]
    }
}

/// Measures each candidate's attention from END to S2, and the effect of its path to the queries of
/// `movers` at END.
///
/// The candidate's output is path-patched from the corrupted prompts into those queries. The result
/// has the changes of the logit difference and of the movers' attention to S1. `roles` has the name
/// positions of the clean prompts, in the order of the pairs.
///
/// Uses `prompt_batch` and `progress` of [`Execution`]. Runs whole forward passes.
///
/// # Errors
/// [`AnalysisError::NoNames`] if a prompt has no roles; [`AnalysisError::NameOutside`] if a name
/// lies outside its prompt; otherwise as [`path_patching`](crate::path::paths::path_patching).
pub fn s2_inhibition<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    roles: &[Roles],
    candidates: &[Head],
    movers: &[Head],
    execution: &Execution,
) -> Result<Vec<Inhibition>, AnalysisError> {
    check_roles(pairs, roles)?;
    catch_device_faults::<B, _>(&model.device(), || {
        let mut found: Vec<Inhibition> = candidates
            .iter()
            .map(|&head| Inhibition {
                head,
                s2_attention: Vec::new(),
                logit_difference_change: Vec::new(),
                s1_attention_change: Array2::zeros((pairs.len(), movers.len())),
            })
            .collect();
        let mut from = 0;
        for batch in pairs.batches(execution.prompt_batch) {
            let roles = &roles[from..from + batch.len()];
            let ends = batch.ends();
            let metric = LogitDiff::new(&batch);
            let is_pattern = |p: HookPoint| p.site() == Some(Site::Pattern);
            let mut recorder = Recorder::filtered(is_pattern);
            model
                .forward(Run::tokens(model.tokens(&batch.clean())?).with_readout(Readout::nothing()), &mut recorder)?;
            let clean = recorder.into_cache();
            let to_s1 = |cache: &ActivationCache<B>, mover: Head| {
                attention(cache, mover, &ends, &roles.iter().map(|r| r.s1).collect::<Vec<_>>())
            };
            for (done, inhibition) in found.iter_mut().enumerate() {
                (execution.progress)(from * candidates.len() + done * batch.len(), pairs.len() * candidates.len());
                let s2: Vec<usize> = roles.iter().map(|r| r.s2).collect();
                let sender = Node::new(inhibition.head.layer, Component::HeadZ).unit(inhibition.head.head);
                sender.check(model.config(), &batch)?;
                inhibition.s2_attention.extend(attention(&clean, inhibition.head, &ends, &s2)?);
                let queries = movers.iter().map(|mover| {
                    Receiver::new(mover.layer, Input::Q).head(mover.head).at(Positions::Each(ends.clone()))
                });
                let path = Path { senders: vec![sender], receivers: queries.collect() };
                let policy = FreezePolicy::path_patching();
                let run = patch_path(model, &batch, &metric, &path, policy, Direction::Noising, is_pattern)?;
                let change = run.metric.iter().zip(&run.base_metric).map(|(after, before)| after - before);
                inhibition.logit_difference_change.extend(change);
                for (i, &mover) in movers.iter().enumerate() {
                    let [before, after] = [to_s1(&clean, mover)?, to_s1(&run.cache, mover)?];
                    for (prompt, (after, before)) in after.iter().zip(&before).enumerate() {
                        inhibition.s1_attention_change[[from + prompt, i]] = after - before;
                    }
                }
            }
            from += batch.len();
        }
        (execution.progress)(pairs.len() * candidates.len(), pairs.len() * candidates.len());
        Ok(found)
    })
}

/// Refuses prompts without roles, and names that lie outside their prompts.
fn check_roles(pairs: &PromptPairs, roles: &[Roles]) -> Result<(), AnalysisError> {
    if roles.len() < pairs.len() {
        return Err(AnalysisError::NoNames { prompt: roles.len() });
    }
    if let Some(prompt) = (0..pairs.len()).find(|&p| [roles[p].s1, roles[p].s2].iter().any(|r| *r > pairs.end(p))) {
        let position = roles[prompt].s1.max(roles[prompt].s2);
        return Err(AnalysisError::NameOutside { prompt, position, len: pairs.end(prompt) + 1 });
    }
    Ok(())
}

/// Returns a head's attention from `dest` to `src`, which have one position per prompt.
fn attention<B: Backend>(
    cache: &ActivationCache<B>,
    head: Head,
    dest: &[usize],
    src: &[usize],
) -> Result<Vec<f32>, CacheError> {
    let pattern = cache.block::<4>(head.layer, Site::Pattern)?.narrow(1, head.head, 1);
    let [_, _, queries, keys] = pattern.dims();
    let numbers = to_vec(pattern);
    Ok(dest.iter().zip(src).enumerate().map(|(prompt, (d, s))| numbers[(prompt * queries + d) * keys + s]).collect())
}
