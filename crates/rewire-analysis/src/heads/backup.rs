//! Backup heads: heads that add more to the logits once other heads are ablated.

use std::collections::BTreeSet;

use burn::tensor::backend::Backend;
use ndarray::{Array2, Array3, Axis, concatenate};
use rewire_hooks::{Head, HookPoint, Patch, Site};
use rewire_model::{FinalNormGain, Transformer};
use rewire_tasks::{LogitDiff, PromptPairs};
use rewire_tensor::zeros_like;

use crate::error::AnalysisError;
use crate::heads::logit_attribution::Direct;
use crate::node::kind::{Component, Node, NodeKind};
use crate::patching::reference::mask;
use crate::run::batch::{PromptBatch, batches};
use crate::run::execution::Execution;
use crate::run::finite::check_effects;
use crate::run::fit::catch_device_faults;
use crate::run::record::check_pairs;

/// Direct logit attribution of all heads before and after some heads are ablated, in logits. In
/// models that bound their logits, all numbers are logits before that bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    /// The heads that were zero-ablated.
    pub ablated: Vec<Head>,
    /// Contribution of each head to the logit difference at END in the clean run, with the final
    /// norm's scale of that run: `[prompt, layer, head]`.
    pub before: Array3<f32>,
    /// Contribution of each head to the logit difference at END in the ablated run, with the final
    /// norm's scale of that run: `[prompt, layer, head]`.
    pub after: Array3<f32>,
    /// The logit difference in the clean run, per prompt.
    pub logit_difference_before: Vec<f32>,
    /// The logit difference in the ablated run, per prompt.
    pub logit_difference_after: Vec<f32>,
}

/// Zero-ablates the mixed values (z) of `heads` together, and returns every head's contribution to
/// the logit difference of the clean prompts before and after, in logits.
///
/// Each run uses its own final norm's scale at END. Contributions and `gain` are those of
/// [`logit_attribution`](crate::heads::logit_attribution::logit_attribution).
///
/// Uses only [`Execution::prompt_batch`].
///
/// # Errors
/// [`AnalysisError`] if `heads` is empty, if the model lacks a head, or if the model cannot run the
/// pairs.
pub fn backup_heads<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    heads: &[Head],
    gain: FinalNormGain,
    execution: &Execution,
) -> Result<Backup, AnalysisError> {
    check_pairs(model, pairs)?;
    if heads.is_empty() {
        return Err(AnalysisError::NoNodes);
    }
    for head in heads {
        Node::new(head.layer, Component::HeadZ).unit(head.head).check(model.config(), pairs)?;
    }
    let model = &model.without_logit_cap();
    catch_device_faults::<B, _>(&model.device(), || {
        let metric = LogitDiff::new(pairs);
        let (mut attributions, mut differences) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for batch in batches(pairs, &metric, execution.prompt_batch)?.iter() {
            for (i, gone) in [&[][..], heads].into_iter().enumerate() {
                let mut patch = zero(model, &batch, gone);
                let direct = Direct::new(model, &batch, &metric, gain, vec![Site::Z], &mut patch)?;
                patch.finish()?;
                attributions[i].push(direct.all_heads()?);
                differences[i].extend(direct.logit_difference);
            }
        }
        let [before, after] = attributions.map(|parts| {
            let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
            concatenate(Axis(0), &views).expect("batches that differ in their prompts alone")
        });
        for added in [&before, &after] {
            check_effects("direct logit attribution", NodeKind::all(Component::HeadZ), 0, &added.clone().into_dyn())?;
        }
        let [logit_difference_before, logit_difference_after] = differences;
        Ok(Backup { ablated: heads.to_vec(), before, after, logit_difference_before, logit_difference_after })
    })
}

impl Backup {
    /// Returns the mean logit difference before and after the ablation.
    #[must_use]
    pub fn logit_differences(&self) -> [f64; 2] {
        let mean = |v: &[f32]| v.iter().map(|&x| f64::from(x)).sum::<f64>() / v.len().max(1) as f64;
        [mean(&self.logit_difference_before), mean(&self.logit_difference_after)]
    }

    /// Returns how much more each head adds after the ablation, as a share of the mean logit
    /// difference before: `[layer, head]`, mean over prompts.
    #[must_use]
    pub fn taken_over(&self) -> Array2<f32> {
        let [before, _] = self.logit_differences();
        let change = (&self.after - &self.before).mean_axis(Axis(0)).unwrap_or_default();
        change.mapv(|v| (f64::from(v) / before) as f32)
    }
}

/// Builds a patch that sets the mixed values of some heads to zero.
fn zero<B: Backend>(model: &Transformer<B>, batch: &PromptBatch, heads: &[Head]) -> Patch<B> {
    let config = model.config();
    let dims = [batch.prompts.len(), batch.pairs.width(), config.n_heads, config.d_head];
    let layers: BTreeSet<usize> = heads.iter().map(|head| head.layer).collect();
    layers.into_iter().fold(Patch::new(), |patch, layer| {
        let gone = mask::<B, 4>(dims, &model.device(), |_, index| heads.contains(&Head::new(layer, index[2])));
        patch.replace_where(HookPoint::block(layer, Site::Z), zeros_like(dims, &model.w_o(layer)), gone)
    })
}
