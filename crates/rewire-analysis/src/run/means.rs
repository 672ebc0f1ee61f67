//! Mean activations over a reference set.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rewire_hooks::{ActivationCache, AnyRank, HookPoint, Recorder, Site};
use rewire_model::{ModelError, Readout, Run, Transformer};
use rewire_tensor::to_f32;

use crate::error::AnalysisError;
use crate::run::finite::first_point;
use crate::run::fit::catch_device_faults;
use crate::run::transfer::to_vecs;

/// The axes that a mean is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeanOver {
    /// Prompts and positions: one mean for all positions.
    PromptsAndPositions,
    /// Prompts: one mean per position, over the prompts that are long enough to have it.
    Prompts,
}

/// Returns the mean activations at some sites of every layer over a reference set of prompts, which
/// may have any length. The shape is `[1, 1, ..]`, or `[1, pos, ..]` with one mean for each
/// position of the longest prompt. Runs `prompt_batch` prompts at once.
///
/// # Errors
/// [`AnalysisError::EmptyReference`] without prompts; [`AnalysisError::NoMean`] for attention
/// scores and patterns; other errors if the model cannot run the prompts.
pub fn mean_activations<B: Backend>(
    model: &Transformer<B>,
    prompts: &[Vec<u32>],
    sites: &[Site],
    over: MeanOver,
    prompt_batch: usize,
) -> Result<ActivationCache<B>, AnalysisError> {
    let width = prompts.iter().map(Vec::len).max().ok_or(AnalysisError::EmptyReference)?;
    if prompts.iter().any(Vec::is_empty) {
        return Err(ModelError::NoTokens.into());
    }
    if let Some(&site) = sites.iter().find(|s| matches!(s, Site::AttnScores | Site::Pattern)) {
        return Err(AnalysisError::NoMean { site });
    }
    catch_device_faults::<B, _>(&model.device(), || {
        let mut sums: BTreeMap<HookPoint, Vec<f64>> = BTreeMap::new();
        for (number, batch) in prompts.chunks(prompt_batch.max(1)).enumerate() {
            // Any token can pad a prompt: no position of the prompt attends to a later one.
            let padded: Vec<Vec<u32>> =
                batch.iter().map(|p| (0..width).map(|i| *p.get(i).unwrap_or(&p[0])).collect()).collect();
            let wanted = sites.to_vec();
            let mut recorder = Recorder::filtered(move |p: HookPoint| p.site().is_some_and(|s| wanted.contains(&s)));
            model.forward(Run::tokens(model.tokens(&padded)?).with_readout(Readout::nothing()), &mut recorder)?;
            let cache = recorder.into_cache();
            let real: Vec<f32> =
                batch.iter().flat_map(|p| (0..width).map(|i| f32::from(u8::from(i < p.len())))).collect();
            let real = Tensor::<B, 2>::from_data(TensorData::new(real, [batch.len(), width]), &model.device());
            let points: Vec<HookPoint> = cache.points().collect();
            let sum = |&point: &HookPoint| -> Result<Tensor<B, 1>, AnalysisError> {
                let recorded = cache.any(point)?;
                let a_position = recorded.dims()[2..].iter().product();
                let recorded: Tensor<B, 3> = recorded.reshape([batch.len(), width, a_position]);
                Ok((to_f32(recorded) * real.clone().unsqueeze_dim::<3>(2)).sum_dim(0).reshape([-1]))
            };
            let of_batch = to_vecs(points.iter().map(sum).collect::<Result<_, _>>()?);
            if of_batch.iter().flatten().any(|sum| !sum.is_finite()) {
                return Err(of_prompts(model, batch, number * prompt_batch.max(1)));
            }
            for (point, sum) in points.into_iter().zip(of_batch) {
                let sums = sums.entry(point).or_insert_with(|| vec![0.0; sum.len()]);
                sums.iter_mut().zip(sum).for_each(|(total, sum)| *total += f64::from(sum));
            }
        }
        let reach = |position: usize| prompts.iter().filter(|p| p.len() > position).count() as f64;
        let counts: Vec<f64> = (0..width).map(reach).collect();
        let config = model.config();
        Ok(sums.into_iter().fold(ActivationCache::new(), |cache, (point, sums)| {
            let a_position = sums.len() / width;
            let means: Vec<f32> = match over {
                MeanOver::Prompts => {
                    sums.iter().enumerate().map(|(i, sum)| (sum / counts[i / a_position]) as f32).collect()
                }
                MeanOver::PromptsAndPositions => {
                    let all: f64 = counts.iter().sum();
                    (0..a_position)
                        .map(|i| (sums.iter().skip(i).step_by(a_position).sum::<f64>() / all) as f32)
                        .collect()
                }
            };
            let pos = means.len() / a_position;
            let device = model.device();
            let shape = match point.rank() {
                4 => vec![1, pos, a_position / config.d_head, config.d_head],
                _ => vec![1, pos, a_position],
            };
            cache.with(point, AnyRank::from_data(TensorData::new(means, shape), &device))
        }))
    })
}

/// Returns the error for a batch of prompts whose activations have a sum that is not finite. The
/// first prompt of the batch has index `first` among all.
fn of_prompts<B: Backend>(model: &Transformer<B>, batch: &[Vec<u32>], first: usize) -> AnalysisError {
    let not_finite = |prompt, point| {
        let what = "a sum of activations over the reference set".to_owned();
        AnalysisError::NotFinite { what, value: f32::NAN, prompt, first: point }
    };
    for (i, prompt) in batch.iter().enumerate() {
        match first_point(model, prompt, None) {
            Ok(None) => {}
            Ok(point) => return not_finite(Some(first + i), point),
            Err(error) => return error,
        }
    }
    not_finite(None, None)
}
