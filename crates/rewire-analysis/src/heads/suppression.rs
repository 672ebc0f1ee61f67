//! Copy-suppression-preserving ablation: how much of what a head does is to lower the tokens that are about to be copied.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use rewire_device::{float32, product};
use rewire_hooks::{ActivationCache, HookPoint, NormSite, Recorder, Site};
use rewire_model::{Run, Transformer};
use rewire_tasks::PromptPairs;

use crate::room::watched;
use crate::runs::{check_pairs, host};
use crate::{AnalysisError, Options, workers};

/// What copy-suppression-preserving ablation leaves of one head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suppression {
    /// The head, by layer and number.
    pub head: (usize, usize),
    /// Mean divergence KL(clean || ablated), in nats, where the head does nothing but suppress.
    pub preserved: f64,
    /// The same where it is mean-ablated.
    pub ablated: f64,
}

impl Suppression {
    /// The share of the head's effect that is copy suppression: 1 - preserved / ablated; `None` where mean-ablation changes nothing, as over
    /// one prompt, which is its own mean.
    #[must_use]
    pub fn score(&self) -> Option<f64> {
        // Divergences under this are rounding.
        (self.ablated > 1e-9).then(|| 1.0 - self.preserved / self.ablated)
    }
}

/// Of a destination's context, the share of tokens that are kept.
const KEPT: f64 = 0.05;
/// Prompts whose logits are compared at once.
const AT_ONCE: usize = 8;

/// Copy-suppression-preserving ablation (CSPA; McDougall et al. 2023) of some heads over the clean prompts.
///
/// At each destination `d` a source is kept only if its token is among the `ceil(0.05 (d + 1))` of the context (each by its first
/// occurrence, `excluded` ones such as function words left out) that the logit lens finds likeliest in front of the head. Of what the
/// head moves from it, the part along that token's unembedding is kept if it lowers it; everything else is replaced by its mean over
/// the prompts that are long enough, for each destination and source. The change goes to the logits directly, with the final norm's scale held; the divergence
/// from the clean run is a mean over prompts and their positions but the first.
///
/// Of [`Options`], `workers` and `progress` are looked at. All prompts are held at once.
///
/// # Errors
/// [`AnalysisError`] where the model cannot run the prompts or has no such head.
pub fn copy_suppression<B: Backend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
    heads: &[(usize, usize)],
    excluded: &BTreeSet<u32>,
    options: &Options,
) -> Result<Vec<Suppression>, AnalysisError> {
    check_pairs(model, pairs)?;
    let config = model.config();
    for &(layer, head) in heads {
        for (what, found, bound) in [("layer", layer, config.n_layers), ("head", head, config.n_heads)] {
            if found >= bound {
                let node = format!("L{layer}H{head}");
                return Err(AnalysisError::OutsideModel { node, what, found, bound });
            }
        }
    }
    watched::<B, _>(&model.device(), || {
        let sites = [Site::ResidPre, Site::V, Site::Pattern];
        let scale = HookPoint::FinalNorm(NormSite::Scale);
        let mut recorder =
            Recorder::filtered(move |p: HookPoint| p == scale || p.site().is_some_and(|site| sites.contains(&site)));
        let logits = model.forward(Run::tokens(model.tokens(&pairs.clean())?), &mut recorder)?;
        let directions = directions(model, &pairs.clean());
        let clean =
            Clean { model, pairs, prompts: pairs.clean(), excluded, cache: recorder.into_cache(), logits, directions };
        let mut found = vec![None; heads.len()];
        let mut done = 0;
        (options.progress)(0, heads.len());
        workers::run(
            heads.len(),
            options.workers::<B>(&model.device()),
            |i| clean.of(heads[i]),
            |i, suppression| {
                found[i] = Some(suppression);
                done += 1;
                (options.progress)(done, heads.len());
                Ok::<_, AnalysisError>(())
            },
        )?;
        Ok(found.into_iter().flatten().collect())
    })
}

/// The clean run.
struct Clean<'a, B: Backend> {
    model: &'a Transformer<B>,
    pairs: &'a PromptPairs,
    prompts: Vec<Vec<u32>>,
    excluded: &'a BTreeSet<u32>,
    cache: ActivationCache<B>,
    /// `[prompts, pos, d_vocab]`.
    logits: Tensor<B, 3>,
    /// Of each token of the prompts.
    directions: BTreeMap<u32, Vec<f32>>,
}

/// The direction of the residual stream, of length 1, along which the logit of each token of the prompts rises.
fn directions<B: Backend>(model: &Transformer<B>, prompts: &[Vec<u32>]) -> BTreeMap<u32, Vec<f32>> {
    let tokens: BTreeSet<u32> = prompts.iter().flatten().copied().collect();
    let index: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    let index = Tensor::<B, 1, Int>::from_data(index.as_slice(), &model.device());
    let columns = float32(model.unembedding().select(1, index).transpose()); // [token, d_model]
    let columns = match model.final_norm_gain() {
        Some(gain) => columns * gain.unsqueeze_dim(0),
        None => columns,
    };
    let d_model = columns.dims()[1];
    let unit = |column: &[f32]| {
        let length = column.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32;
        column.iter().map(|v| v / length).collect()
    };
    tokens.into_iter().zip(host(columns).chunks(d_model).map(unit)).collect()
}

/// A source whose token is kept, of one prompt and destination.
struct Kept {
    prompt: usize,
    dest: usize,
    src: usize,
}

impl<B: Backend> Clean<'_, B> {
    fn of(&self, (layer, head): (usize, usize)) -> Result<Suppression, AnalysisError> {
        let [n, pos, _] = self.logits.dims();
        let d_model = self.model.config().d_model;
        let d_head = self.model.config().d_head;
        let values = self.cache.block::<4>(layer, Site::V)?.narrow(2, head, 1).reshape([n * pos, d_head]);
        let w_o = self.model.w_o(layer).narrow(0, head, 1).reshape([d_head, d_model]);
        let values = host(product(float32(values), w_o)); // [prompt, src, d_model]
        let pattern = host(self.cache.block::<4>(layer, Site::Pattern)?.narrow(1, head, 1)); // [prompt, dest, src]
        let moved = |prompt: usize, dest: usize, src: usize| {
            let weight = pattern[(prompt * pos + dest) * pos + src];
            values[(prompt * pos + src) * d_model..][..d_model].iter().map(move |v| weight * v)
        };
        // What is moved from each source, mean over prompts; and what the head's output is then, source by source summed.
        let mut means = vec![0.0_f32; pos * pos * d_model];
        for dest in 0..pos {
            let long_enough: Vec<usize> = (0..n).filter(|&prompt| dest <= self.pairs.end(prompt)).collect();
            for src in 0..=dest {
                let mean = &mut means[(dest * pos + src) * d_model..][..d_model];
                for &prompt in &long_enough {
                    let of_prompt = moved(prompt, dest, src).map(|v| v / long_enough.len() as f32);
                    mean.iter_mut().zip(of_prompt).for_each(|(sum, v)| *sum += v);
                }
            }
        }
        let mean = |dest: usize, src: usize| &means[(dest * pos + src) * d_model..][..d_model];
        let mut ablated = vec![0.0_f32; n * pos * d_model];
        for (row, change) in ablated.chunks_mut(d_model).enumerate() {
            let (prompt, dest) = (row / pos, row % pos);
            for src in 0..=dest {
                let pairs = mean(dest, src).iter().zip(moved(prompt, dest, src));
                change.iter_mut().zip(pairs).for_each(|(change, (mean, moved))| *change += mean - moved);
            }
        }
        let mut preserved = ablated.clone();
        for Kept { prompt, dest, src } in self.kept(layer)? {
            let direction = &self.directions[&self.prompts[prompt][src]];
            let along = |v: &mut dyn Iterator<Item = f32>| v.zip(direction).map(|(a, b)| a * b).sum::<f32>();
            let of_mean = along(&mut mean(dest, src).iter().copied());
            let lowers = along(&mut moved(prompt, dest, src)).min(0.0);
            let change = &mut preserved[(prompt * pos + dest) * d_model..][..d_model];
            change.iter_mut().zip(direction).for_each(|(change, u)| *change += (lowers - of_mean) * u);
        }
        let tensor = |change| Tensor::from_data(TensorData::new(change, [n, pos, d_model]), &self.model.device());
        let [preserved, ablated] = [preserved, ablated].map(|change| self.divergence(tensor(change)));
        Ok(Suppression { head: (layer, head), preserved: preserved?, ablated: ablated? })
    }

    /// The sources that are kept in front of a layer.
    fn kept(&self, layer: usize) -> Result<Vec<Kept>, AnalysisError> {
        let tokens: Vec<u32> = self.directions.keys().copied().collect();
        let read = self.model.unembedding_norm(self.cache.block(layer, Site::ResidPre)?);
        let [n, pos, d_model] = read.dims();
        // The logit lens, of the tokens that are in the prompts alone.
        let index: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
        let index = Tensor::<B, 1, Int>::from_data(index.as_slice(), &self.model.device());
        let mut lens = product(read.reshape([n * pos, d_model]), self.model.unembedding().select(1, index.clone()));
        if let Some(b_u) = self.model.b_u() {
            lens = lens + b_u.select(0, index).unsqueeze_dim(0);
        }
        let lens = host(lens);
        let mut kept = Vec::new();
        for (prompt, of_prompt) in self.prompts.iter().enumerate() {
            for dest in 0..=self.pairs.end(prompt) {
                let logit = |src: usize| {
                    let column = tokens.binary_search(&of_prompt[src]).unwrap_or(0);
                    lens[(prompt * pos + dest) * tokens.len() + column]
                };
                let is_first = |src: &usize| !of_prompt[..*src].contains(&of_prompt[*src]);
                let mut context: Vec<usize> =
                    (0..=dest).filter(is_first).filter(|&src| !self.excluded.contains(&of_prompt[src])).collect();
                context.sort_by(|&a, &b| logit(b).total_cmp(&logit(a)));
                context.truncate((KEPT * (dest + 1) as f64).ceil() as usize);
                kept.extend(context.into_iter().map(|src| Kept { prompt, dest, src }));
            }
        }
        Ok(kept)
    }

    /// Mean KL(clean || changed) where `change` `[prompts, pos, d_model]` is added to the last residual stream and the final norm's scale
    /// is held. A few prompts at once, for each holds its logits over the whole vocabulary.
    fn divergence(&self, change: Tensor<B, 3>) -> Result<f64, AnalysisError> {
        let scale: Tensor<B, 3> = self.cache.get(HookPoint::FinalNorm(NormSite::Scale))?;
        let centred = (change.clone() - change.mean_dim(2)) / scale;
        let read = match self.model.final_norm_gain() {
            Some(gain) => centred * gain.unsqueeze_dims(&[0, 0]),
            None => centred,
        };
        let [n, pos, d_model] = read.dims();
        let (mut sum, mut count) = (0.0, 0);
        for from in (0..n).step_by(AT_ONCE) {
            let prompts = AT_ONCE.min(n - from);
            let of = |x: &Tensor<B, 3>| x.clone().narrow(0, from, prompts);
            let logits = of(&self.logits);
            let moved = product(of(&read).reshape([prompts * pos, d_model]), self.model.unembedding());
            let changed = log_softmax(logits.clone() + moved.reshape(logits.dims()), 2);
            let clean = log_softmax(logits, 2);
            let divergence = host((clean.clone().exp() * (clean - changed)).sum_dim(2)); // [prompt, pos]
            for (prompt, all) in divergence.chunks(pos).enumerate() {
                for v in all[..=self.pairs.end(from + prompt)].iter().skip(1) {
                    sum += f64::from(*v);
                    count += 1;
                }
            }
        }
        Ok(sum / count.max(1) as f64)
    }
}
