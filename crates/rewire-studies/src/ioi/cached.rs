//! How many activations and gradients a run of the model has.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use rewire_hooks::{GradientProbes, Recorder};
use rewire_model::{ReadPositions, Readout, Run, Transformer};
use rewire_tasks::PromptPairs;

use crate::StudyError;

/// How many activations and gradients the demo has of one run.
pub(super) const CACHED: usize = 220;

/// How many activations, and how many gradients, there are of one run: those at hook points, and
/// each layer's head outputs, which follow from them and are not kept.
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
    fn a_run_has_as_many_activations_as_the_demo_counts() {
        // 220 for twelve layers: four outside of the blocks, and eighteen in each.
        assert_eq!(CACHED, 4 + 18 * 12);
        let model = Toy::Gpt2.load::<Autodiff<Flex>>(&Default::default()).unwrap();
        let pairs = demo_pairs(&Toy::Gpt2.tokenizer().unwrap(), model.config().bos_token).unwrap();
        assert_eq!(cached(&model, &pairs).unwrap(), [4 + 18 * 4; 2]);
    }
}
