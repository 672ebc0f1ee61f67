//! Attention patterns, and their entropy. If attention is concentrated on one token, its linear
//! approximation misleads.

use burn::tensor::backend::Backend;
use ndarray::{Array4, Array5, Axis as Dimension};
use rewire_hooks::{CacheError, HookPoint, Recorder, Site};
use rewire_model::{ModelError, Readout, Run, Transformer};

use crate::error::AnalysisError;
use crate::run::finite::{Watch, check_prompts, nan_or_zero};
use crate::run::fit::catch_device_faults;
use crate::run::transfer::{to_vec, to_vecs};

/// Returns the attention patterns of all heads, `[prompt, layer, head, dest, src]`:
/// `4 * n_layers * n_heads * pos^2` bytes per prompt. Runs `prompt_batch` prompts at once.
///
/// # Errors
/// [`AnalysisError`] if prompts differ in length, or if the model cannot run them.
pub fn attention_patterns<B: Backend>(
    model: &Transformer<B>,
    prompts: &[Vec<u32>],
    prompt_batch: usize,
) -> Result<Array5<f32>, AnalysisError> {
    let config = model.config();
    let (heads, width) = (config.n_heads, prompts.first().map_or(0, Vec::len));
    let mut patterns = Array5::zeros((prompts.len(), config.n_layers, heads, width, width));
    let prompt_batch = prompt_batch.max(1);
    if let Some(prompt) = prompts.iter().position(|p| p.len() != width) {
        return Err(ModelError::UnequalPrompts { prompt, expected: width, found: prompts[prompt].len() }.into());
    }
    catch_device_faults::<B, _>(&model.device(), || {
        for (number, batch) in prompts.chunks(prompt_batch).enumerate() {
            let from = number * prompt_batch;
            let numbers: Vec<usize> = (from..from + batch.len()).collect();
            let mut recorder = Recorder::filtered(|p: HookPoint| p.site() == Some(Site::Pattern));
            let mut watch = Watch::new();
            let run = Run::tokens(model.tokens(batch)?).with_readout(Readout::nothing());
            let last = model.forward(run, (&mut recorder, &mut watch))?;
            check_prompts(model, "an activation", batch, &numbers, &to_vec(watch.mark(nan_or_zero(&last))))?;
            let cache = recorder.into_cache();
            let n = batch.len() * heads * width * width;
            let layers = (0..config.n_layers).map(|layer| Ok(cache.block::<4>(layer, Site::Pattern)?.reshape([n])));
            for (layer, of_layer) in to_vecs(layers.collect::<Result<_, CacheError>>()?).into_iter().enumerate() {
                let of_layer = Array4::from_shape_vec((batch.len(), heads, width, width), of_layer);
                let mut into = patterns.slice_axis_mut(Dimension(0), ndarray::Slice::from(from..from + batch.len()));
                into.index_axis_mut(Dimension(1), layer).assign(&of_layer.expect("one pattern per prompt and head"));
            }
        }
        Ok(patterns)
    })
}

/// Returns the entropy of patterns `[prompt, layer, head, dest, src]` at every destination,
/// `[prompt, layer, head, dest]`, as a share of the maximum for that number of keys. 1 means evenly
/// spread attention; 0 means that all attention is on one token (saturated). The first position,
/// which has one key, gets 0.
#[must_use]
pub fn attention_entropy(patterns: &Array5<f32>) -> Array4<f32> {
    let (prompts, layers, heads, width, _) = patterns.dim();
    Array4::from_shape_fn((prompts, layers, heads, width), |(prompt, layer, head, dest)| {
        let seen: Vec<f32> = (0..=dest).map(|src| patterns[[prompt, layer, head, dest, src]]).collect();
        relative_entropy(&seen)
    })
}

/// Returns the entropy of probabilities divided by the logarithm of their number.
fn relative_entropy(probabilities: &[f32]) -> f32 {
    if probabilities.len() < 2 {
        return 0.0;
    }
    let term = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
    let entropy: f64 = probabilities.iter().map(|&p| term(f64::from(p))).sum();
    (entropy / (probabilities.len() as f64).ln()) as f32
}

#[cfg(test)]
mod tests {
    use super::relative_entropy;

    #[test]
    fn entropy_matches_known_patterns() {
        assert_eq!(relative_entropy(&[1.0]), 0.0);
        assert_eq!(relative_entropy(&[0.0, 1.0, 0.0]), 0.0);
        assert!((relative_entropy(&[0.25; 4]) - 1.0).abs() < 1e-6);
        assert!((relative_entropy(&[0.5, 0.5, 0.0, 0.0]) - 0.5).abs() < 1e-6);
    }
}
