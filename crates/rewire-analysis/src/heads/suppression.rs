//! Copy-suppression-preserving ablation: how much of a head's effect is to lower the tokens that
//! are about to be copied.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use rewire_hooks::{ActivationCache, Head, HookPoint, NormSite, Recorder, Site};
use rewire_model::{Run, Transformer};
use rewire_tasks::PromptPairs;
use rewire_tensor::{matmul, to_f32};

use crate::error::AnalysisError;
use crate::node::kind::Component;
use crate::run::execution::Execution;
use crate::run::finite::{Watch, check_prompts};
use crate::run::fit::catch_device_faults;
use crate::run::post_norm::PostNorm;
use crate::run::record::check_pairs;
use crate::run::transfer::to_vec;
use crate::run::workers;

/// How far one head's copy-suppression-preserving ablation and its mean ablation diverge from the
/// clean run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suppression {
    /// The head.
    pub head: Head,
    /// Mean divergence KL(clean || ablated), in nats, if the head only lowers the kept tokens.
    pub preserved: f64,
    /// Mean divergence KL(clean || ablated), in nats, if the head is mean-ablated.
    pub ablated: f64,
}

impl Suppression {
    /// Returns the share of the head's effect that is copy suppression: 1 - preserved / ablated.
    /// Returns `None` if mean ablation changes nothing, for example with a single prompt, which is
    /// its own mean.
    #[must_use]
    pub fn score(&self) -> Option<f64> {
        // Smaller divergences are rounding.
        (self.ablated > 1e-9).then(|| 1.0 - self.preserved / self.ablated)
    }
}

/// Which tokens copy-suppression-preserving ablation keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptTokens {
    /// Share of a destination's context that is kept, 0 to 1; 0.05 as published.
    pub share: f64,
    /// Tokens that are never kept: function words and the beginning of sequence.
    pub excluded: BTreeSet<u32>,
}

impl Default for KeptTokens {
    fn default() -> Self {
        Self { share: 0.05, excluded: BTreeSet::new() }
    }
}

/// Logits this close to the lowest kept logit are also kept, as in the published code.
const TIE: f32 = 1e-6;
/// Number of prompts whose logits are compared at once.
const AT_ONCE: usize = 8;

/// Measures copy-suppression-preserving ablation (CSPA) of some heads over the clean prompts.
///
/// CSPA asks how much of a head's effect on the next-token distribution is left if the head can
/// only lower tokens that are about to be copied (McDougall et al. 2023, "Copy suppression:
/// comprehensively understanding an attention head", section 3.3; their `get_cspa_results` with the
/// interventions `qk` and `ov`, `K_unembeddings=0.05`, `K_semantic=1` and
/// `only_keep_negative_components`).
///
/// A head moves `moved = pattern[dest, src] * value[src] W_O` from each source to each destination.
/// Its mean is `mean = pattern[dest, src] * m[dest]`; `m` is the head's output at the destination,
/// averaged over the prompts that are long enough.
///
/// At each destination, the `ceil(share * (dest + 1))` tokens of the context that the logit lens
/// before the head ranks highest are kept, without the excluded tokens ([`KeptTokens`]). Every
/// occurrence of a kept token is a kept source. With `u` the unit vector along that token's
/// unembedding, a kept source moves `min(0, (moved - mean) . u) u + mean`, and every other source
/// moves `mean`.
///
/// The change goes to the logits directly, with the final norm's scale frozen. Divergences are
/// means over prompts and their positions.
///
/// In models with a norm after attention, a head moves what it adds to the residual stream, with
/// that norm's scale at the destination frozen at its value on the clean run. A bound on the logits
/// applies to the changed logits too.
///
/// Uses `workers` and `progress` of [`Execution`]. Holds all prompts at once.
///
/// # Errors
/// [`AnalysisError`] if the model cannot run the prompts or has no such head.
pub fn copy_suppression<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    heads: &[Head],
    keep: &KeptTokens,
    execution: &Execution,
) -> Result<Vec<Suppression>, AnalysisError> {
    check_pairs(model, pairs)?;
    let config = model.config();
    for head in heads {
        for (what, found, bound) in [("layer", head.layer, config.n_layers), ("head", head.head, config.n_heads)] {
            if found >= bound {
                let (node, heads) = (head.to_string(), Some([config.n_layers, config.n_heads]));
                return Err(AnalysisError::OutsideModel { node, what, found, bound, heads });
            }
        }
    }
    catch_device_faults::<B, _>(&model.device(), || {
        let sites = [Site::ResidPre, Site::V, Site::Pattern, Site::Z, Site::Ln1PostScale];
        let scale = HookPoint::FinalNorm(NormSite::Scale);
        let mut recorder =
            Recorder::filtered(move |p: HookPoint| p == scale || p.site().is_some_and(|site| sites.contains(&site)));
        let mut watch = Watch::new();
        let run = Run::tokens(model.tokens(&pairs.clean())?);
        let logits = model.without_logit_cap().forward(run, (&mut recorder, &mut watch))?;
        let [n, pos, d_vocab] = logits.dims();
        // 0, or NaN if a logit of the prompt is not finite.
        let zeros = (logits.clone() * 0.0).reshape([n, pos * d_vocab]).sum_dim(1).reshape([n]);
        let numbers: Vec<usize> = (0..n).collect();
        check_prompts(model, "a logit of the clean run", &pairs.clean(), &numbers, &to_vec(watch.mark(zeros)))?;
        let directions = Directions::new(model, &pairs.clean());
        let clean =
            Clean { model, pairs, prompts: pairs.clean(), keep, cache: recorder.into_cache(), logits, directions };
        let mut found = vec![None; heads.len()];
        let mut done = 0;
        (execution.progress)(0, heads.len());
        workers::run(
            heads.len(),
            execution.workers::<B>(&model.device()),
            |i| clean.of(heads[i]),
            |i, suppression| {
                found[i] = Some(suppression);
                done += 1;
                (execution.progress)(done, heads.len());
                Ok::<_, AnalysisError>(())
            },
        )?;
        Ok(found.into_iter().flatten().collect())
    })
}

/// The clean run of all prompts.
struct Clean<'a, B: Backend> {
    model: &'a Transformer<B>,
    pairs: &'a PromptPairs,
    prompts: Vec<Vec<u32>>,
    keep: &'a KeptTokens,
    cache: ActivationCache<B>,
    /// The logits before a bound on them, `[prompts, pos, d_vocab]`.
    logits: Tensor<B, 3>,
    directions: Directions<B>,
}

/// The directions of the residual stream that raise the logits of the prompts' tokens.
struct Directions<B: Backend> {
    /// The prompts' tokens, ascending.
    tokens: Vec<u32>,
    /// Centered columns of the unembedding, with the final norm's gain, `[token, d_model]`.
    columns: Tensor<B, 2>,
    /// Unit vectors along the columns, by token.
    units: BTreeMap<u32, Vec<f32>>,
}

impl<B: Backend> Directions<B> {
    fn new(model: &Transformer<B>, prompts: &[Vec<u32>]) -> Self {
        let tokens: BTreeSet<u32> = prompts.iter().flatten().copied().collect();
        let index: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
        let index = Tensor::<B, 1, Int>::from_data(index.as_slice(), &model.device());
        let columns = to_f32(model.unembedding().select(1, index).transpose());
        let columns = match model.final_norm_gain() {
            Some(gain) => columns * to_f32(gain).unsqueeze_dim(0),
            None => columns,
        };
        // A layer norm centers its input, so only the centered part of a column matters.
        let columns = model.config().norm.centered(columns);
        let d_model = columns.dims()[1];
        let unit = |column: &[f32]| {
            let length = column.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32;
            column.iter().map(|v| v / length).collect()
        };
        let units = tokens.iter().copied().zip(to_vec(columns.clone()).chunks(d_model).map(unit)).collect();
        Self { tokens: tokens.into_iter().collect(), columns, units }
    }
}

/// A kept source of one prompt, for one destination.
struct Kept {
    prompt: usize,
    dest: usize,
    src: usize,
}

impl<B: Backend> Clean<'_, B> {
    fn of(&self, head: Head) -> Result<Suppression, AnalysisError> {
        let [n, pos, _] = self.logits.dims();
        let d_model = self.model.config().d_model;
        let d_head = self.model.config().d_head;
        let w_o = self.model.w_o(head.layer).narrow(0, head.head, 1).reshape([d_head, d_model]);
        let norm = PostNorm::of(Component::HeadResult, head.layer, self.model.config());
        let scales = match norm {
            Some(norm) => self.cache.get::<3>(norm.scale())?.reshape([n * pos, 1]),
            None => Tensor::ones([n * pos, 1], &self.model.device()),
        };
        // Without the division by the norm's scale, [prompt * pos, d_model].
        let written = |site: Site| -> Result<Tensor<B, 2>, AnalysisError> {
            let x = self.cache.block::<4>(head.layer, site)?;
            // Values count key/value heads.
            let sharing = self.model.config().n_heads / x.dims()[2].max(1);
            let x = x.narrow(2, head.head / sharing, 1).reshape([n * pos, d_head]);
            let written = matmul(to_f32(x), w_o.clone());
            Ok(match norm {
                Some(norm) => norm.undivided(self.model, written),
                None => written,
            })
        };
        let (values, outputs) = (to_vec(written(Site::V)?), to_vec(written(Site::Z)? / scales.clone()));
        let scales = to_vec(scales);
        // [prompt, dest, src]
        let pattern = to_vec(self.cache.block::<4>(head.layer, Site::Pattern)?.narrow(1, head.head, 1));
        let means = self.means(&outputs);
        let mean = |dest: usize| &means[dest * d_model..][..d_model];
        let mut ablated = outputs;
        for (row, output) in ablated.chunks_mut(d_model).enumerate() {
            output.iter_mut().zip(mean(row % pos)).for_each(|(output, mean)| *output = mean - *output);
        }
        // A pattern sums to 1, so the means of all sources sum to the mean of the output.
        let mut preserved = ablated.clone();
        for Kept { prompt, dest, src } in self.kept(head.layer)? {
            let unit = &self.directions.units[&self.prompts[prompt][src]];
            let value = &values[(prompt * pos + src) * d_model..][..d_model];
            let scale = scales[prompt * pos + dest];
            let moved = value.iter().map(|value| value / scale);
            let along: f32 = moved.zip(mean(dest)).zip(unit).map(|((moved, mean), u)| (moved - mean) * u).sum();
            let lowered = (pattern[(prompt * pos + dest) * pos + src] * along).min(0.0);
            let change = &mut preserved[(prompt * pos + dest) * d_model..][..d_model];
            change.iter_mut().zip(unit).for_each(|(change, u)| *change += lowered * u);
        }
        let tensor = |change| Tensor::from_data(TensorData::new(change, [n, pos, d_model]), &self.model.device());
        let what = format!("{head} ablated");
        let [preserved, ablated] = [preserved, ablated].map(|change| self.divergence(tensor(change), &what));
        Ok(Suppression { head, preserved: preserved?, ablated: ablated? })
    }

    /// Returns the mean of `outputs` `[prompt, pos, d_model]` over the prompts that have each
    /// position, `[pos, d_model]`.
    fn means(&self, outputs: &[f32]) -> Vec<f32> {
        let [_, pos, _] = self.logits.dims();
        let d_model = self.model.config().d_model;
        let mut means = vec![0.0_f64; pos * d_model];
        for (at, mean) in means.chunks_mut(d_model).enumerate() {
            let long_enough: Vec<usize> = (0..self.prompts.len()).filter(|&p| at <= self.pairs.end(p)).collect();
            for prompt in &long_enough {
                let output = &outputs[(prompt * pos + at) * d_model..][..d_model];
                mean.iter_mut().zip(output).for_each(|(mean, v)| *mean += f64::from(*v) / long_enough.len() as f64);
            }
        }
        means.into_iter().map(|mean| mean as f32).collect()
    }

    /// Returns the kept sources at the input of a layer.
    fn kept(&self, layer: usize) -> Result<Vec<Kept>, AnalysisError> {
        let tokens = &self.directions.tokens;
        let read: Tensor<B, 3> = to_f32(self.cache.block(layer, Site::ResidPre)?);
        let [n, pos, d_model] = read.dims();
        let lens = matmul(read.reshape([n * pos, d_model]), self.directions.columns.clone().transpose());
        let scale: Tensor<B, 3> = self.cache.get(HookPoint::FinalNorm(NormSite::Scale))?;
        let lens = to_vec(lens / to_f32(scale).reshape([n * pos, 1])); // [prompt, dest, token]
        let mut kept = Vec::new();
        for (prompt, of_prompt) in self.prompts.iter().enumerate() {
            for dest in 0..=self.pairs.end(prompt) {
                let logit = |src: usize| {
                    let column = tokens.binary_search(&of_prompt[src]).unwrap_or(0);
                    lens[(prompt * pos + dest) * tokens.len() + column]
                };
                let context: Vec<usize> =
                    (0..=dest).filter(|&src| !self.keep.excluded.contains(&of_prompt[src])).collect();
                let is_first = |src: &&usize| !of_prompt[..**src].contains(&of_prompt[**src]);
                let mut logits: Vec<f32> = context.iter().filter(is_first).map(|&src| logit(src)).collect();
                logits.sort_by(|a, b| b.total_cmp(a));
                let n_kept = (self.keep.share * (dest + 1) as f64).ceil() as usize;
                let Some(&least) = logits.get(n_kept.min(logits.len()).saturating_sub(1)) else { continue };
                let chosen = context.into_iter().filter(|&src| logit(src) + TIE >= least);
                kept.extend(chosen.map(|src| Kept { prompt, dest, src }));
            }
        }
        Ok(kept)
    }

    /// Returns the mean KL(clean || changed) if `change` `[prompts, pos, d_model]` is added to the
    /// last residual stream and the final norm's scale is frozen. Runs few prompts at once, because
    /// each holds its logits over the whole vocabulary.
    fn divergence(&self, change: Tensor<B, 3>, what: &str) -> Result<f64, AnalysisError> {
        let scale: Tensor<B, 3> = self.cache.get(HookPoint::FinalNorm(NormSite::Scale))?;
        let centered = self.model.config().norm.centered(change) / scale;
        let read = match self.model.final_norm_gain() {
            Some(gain) => centered * gain.unsqueeze_dims(&[0, 0]),
            None => centered,
        };
        let [n, pos, d_model] = read.dims();
        let (mut sum, mut count) = (0.0, 0);
        for from in (0..n).step_by(AT_ONCE) {
            let prompts = AT_ONCE.min(n - from);
            let of = |x: &Tensor<B, 3>| x.clone().narrow(0, from, prompts);
            let logits = of(&self.logits);
            let moved = matmul(of(&read).reshape([prompts * pos, d_model]), self.model.unembedding());
            let changed = logits.clone() + moved.reshape(logits.dims());
            let [changed, clean] = [changed, logits].map(|logits| log_softmax(self.model.bounded_logits(logits), 2));
            // [prompt, pos]
            let divergence = to_vec((clean.clone().exp() * (clean - changed)).sum_dim(2));
            for (prompt, all) in divergence.chunks(pos).enumerate() {
                if let Some(value) = all[..=self.pairs.end(from + prompt)].iter().find(|v| !v.is_finite()) {
                    let what = format!("the divergence of the run with {what} from the clean run");
                    return Err(AnalysisError::NotFinite {
                        what,
                        value: *value,
                        prompt: Some(from + prompt),
                        first: None,
                    });
                }
                for v in &all[..=self.pairs.end(from + prompt)] {
                    sum += f64::from(*v);
                    count += 1;
                }
            }
        }
        Ok(sum / count.max(1) as f64)
    }
}
