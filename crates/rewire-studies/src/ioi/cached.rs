//! The number of activations and gradients of one run of the model.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use rewire_hooks::{GradientProbes, Recorder};
use rewire_model::{ReadPositions, Readout, Run, Transformer};
use rewire_tasks::PromptPairs;

use crate::StudyError;

/// Number of activations, and of gradients, that the demo caches from one run.
pub(super) const CACHED: usize = 220;

/// Returns the number of activations and the number of gradients of one run: one per hook point,
/// and one per layer for the head outputs. Head outputs follow from `z` and are not cached.
pub(super) fn cached<B: AutodiffBackend>(
    model: &Transformer<B>,
    pairs: &PromptPairs,
) -> Result<[usize; 2], StudyError> {
    let prompt = vec![pairs.pairs()[0].clean.clone()];
    let derived = model.config().n_layers;
    let inner = model.valid();
    let mut recorder = Recorder::all();
    inner.forward(Run::tokens(inner.tokens(&prompt)?), &mut recorder)?;
    let mut probes = GradientProbes::all();
    let last = Readout { positions: ReadPositions::Each(vec![pairs.end(0)]), columns: None };
    let logits = model.forward(Run::tokens(model.tokens(&prompt)?).with_readout(last), &mut probes)?;
    Ok([recorder.into_cache().len() + derived, probes.gradients(&logits.sum()).len() + derived])
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use rewire_tasks::ioi::demo_pairs;
    use rewire_toy::Toy;

    use super::*;

    #[test]
    fn the_number_of_cached_activations_matches_the_demo() {
        // For twelve layers: four outside the blocks and eighteen in each block.
        assert_eq!(CACHED, 4 + 18 * 12);
        let model = Toy::Gpt2.load::<Autodiff<Flex>>(&Default::default()).unwrap();
        let pairs = demo_pairs(&Toy::Gpt2.tokenizer().unwrap(), model.config().bos_token).unwrap();
        assert_eq!(cached(&model, &pairs).unwrap(), [4 + 18 * 4; 2]);
    }
}
