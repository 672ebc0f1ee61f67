//! What fills the edges outside a circuit, as `--outside` names it.

use burn::tensor::backend::Backend;
use clap::ValueEnum;
use rewire_analysis::run::{Intervention, MeanOver, mean_activations};
use rewire_hooks::Site;
use rewire_model::Transformer;
use rewire_tasks::PromptPairs;

/// The value of `--outside`.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(super) enum OutsideName {
    Resample,
    Zero,
    Mean,
}

impl OutsideName {
    /// Returns the name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            OutsideName::Resample => "resample",
            OutsideName::Zero => "zero",
            OutsideName::Mean => "mean",
        }
    }

    /// Returns the intervention. A mean is over the clean prompts of the pairs, at each position.
    pub(super) fn intervention<B: Backend>(
        self,
        model: &Transformer<B>,
        pairs: &PromptPairs,
        prompt_batch: usize,
    ) -> anyhow::Result<Intervention<B>> {
        Ok(match self {
            OutsideName::Resample => Intervention::Resample,
            OutsideName::Zero => Intervention::Zero,
            OutsideName::Mean => {
                let prompts: Vec<Vec<u32>> = pairs.pairs().iter().map(|pair| pair.clean.clone()).collect();
                let sites = [Site::ResidPre, Site::Z, Site::MlpOut];
                Intervention::Fixed(mean_activations(model, &prompts, &sites, MeanOver::Prompts, prompt_batch)?)
            }
        })
    }
}
