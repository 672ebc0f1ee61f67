//! How spread out attention is: where it sits on one token, its linear approximation misleads.

use burn::tensor::backend::Backend;
use ndarray::Array4;
use rewire_hooks::{HookPoint, Recorder, Site};
use rewire_model::{Run, Transformer};

use crate::AnalysisError;
use crate::runs::host;

/// Entropy of every head's attention from every position, `[prompt, layer, head, dest]`, as a share of the largest that many
/// keys allow: 1 is attention spread evenly, 0 all of it on one token (saturated). The first position, which has one key,
/// has 0. Runs `prompt_batch` prompts at once.
///
/// # Errors
/// [`AnalysisError`] where the model cannot run the prompts.
pub fn attention_entropy<B: Backend>(
    model: &Transformer<B>,
    prompts: &[Vec<u32>],
    prompt_batch: usize,
) -> Result<Array4<f32>, AnalysisError> {
    let config = model.config();
    let (heads, width) = (config.n_heads, prompts.first().map_or(0, Vec::len));
    let mut entropies = Array4::zeros((prompts.len(), config.n_layers, heads, width));
    for (number, batch) in prompts.chunks(prompt_batch.max(1)).enumerate() {
        let mut recorder = Recorder::filtered(|p: HookPoint| p.site() == Some(Site::Pattern));
        let columns = rewire_model::Readout { columns: Some(vec![0]), ..Default::default() };
        model.forward(Run::tokens(model.tokens(batch)?).reading(columns), &mut recorder)?;
        let cache = recorder.into_cache();
        for layer in 0..config.n_layers {
            let rows = host(cache.block::<4>(layer, Site::Pattern)?); // [prompt, head, dest, src]
            for (i, row) in rows.chunks(width).enumerate() {
                let (prompt, head, dest) = (i / (heads * width), i / width % heads, i % width);
                entropies[[number * prompt_batch.max(1) + prompt, layer, head, dest]] = relative_entropy(&row[..=dest]);
            }
        }
    }
    Ok(entropies)
}

/// Entropy of probabilities over the logarithm of their number.
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
    fn entropy_of_known_patterns() {
        assert_eq!(relative_entropy(&[1.0]), 0.0);
        assert_eq!(relative_entropy(&[0.0, 1.0, 0.0]), 0.0);
        assert!((relative_entropy(&[0.25; 4]) - 1.0).abs() < 1e-6);
        assert!((relative_entropy(&[0.5, 0.5, 0.0, 0.0]) - 0.5).abs() < 1e-6);
    }
}
