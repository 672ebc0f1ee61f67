//! The prompts of the study.

use rewire_model::TransformerConfig;
use rewire_tasks::ioi::{Contrast, Corruption, IoiGenerator, Split, comparison_pair, contrastive_pair};
use rewire_tasks::{PromptPairs, Tokenizer};

use super::ablate::NEW_TOKENS;
use super::settings::Settings;
use crate::StudyError;

/// Number of prompts over which mean activations are taken, as in the notebook.
pub const REFERENCE: usize = 100;
/// Default number of generated pairs, for models with up to [`LARGE`] neurons and for larger
/// models.
const GENERATED_PAIRS: [usize; 2] = [100, 5];
/// Number of neurons above which patching every neuron on 100 pairs would take hours on a CPU.
const LARGE: usize = 10_000;

/// The prompts of the study.
#[derive(Debug, Clone)]
pub struct Prompts {
    /// The notebook's pair.
    pub pair: PromptPairs,
    /// The notebook's contrastive pair with its two texts, as printed and aligned.
    pub contrasts: [(PromptPairs, [String; 2]); 2],
    /// Generated pairs with the notebook's corruption, for the mean correlations.
    pub generated: Option<PromptPairs>,
    /// The pairs on which accuracy is measured (corrupted by three other names), and the pairs over
    /// which means are taken.
    pub sets: Option<[PromptPairs; 2]>,
}

impl Prompts {
    /// Makes the prompts, each with `bos` in front, for a model with this configuration.
    ///
    /// # Errors
    /// [`StudyError`], for example if the tokenizer lacks a name or the context is too short.
    pub fn new(
        tokenizer: &Tokenizer,
        bos: Option<u32>,
        config: &TransformerConfig,
        settings: &Settings,
    ) -> Result<Self, StudyError> {
        let pair = comparison_pair(tokenizer, bos)?;
        let contrast = |contrast| -> Result<(PromptPairs, [String; 2]), StudyError> {
            let pairs = contrastive_pair(tokenizer, bos, contrast)?;
            let pair = &pairs.pairs()[0];
            let texts =
                [&pair.clean, &pair.corrupted].map(|tokens| tokenizer.decode(tokens).replace("<|endoftext|>", " BOS "));
            Ok((pairs, texts))
        };
        let contrasts = [contrast(Contrast::AsPrinted)?, contrast(Contrast::Aligned)?];
        let sampled = |n, offset, corruption: Corruption| -> Result<PromptPairs, StudyError> {
            let prompts = IoiGenerator::new(tokenizer)?.sample(n, settings.seed.wrapping_add(offset), Split::All);
            Ok(corruption.pairs(&prompts, tokenizer, bos)?)
        };
        let sets = match settings.prompts {
            0 => None,
            n => Some([sampled(n, 0, Corruption::Abc)?, sampled(REFERENCE, 1, Corruption::Abc)?]),
        };
        let is_large = config.n_layers * config.d_mlp > LARGE;
        let generated = match settings.generated_pairs.unwrap_or(GENERATED_PAIRS[usize::from(is_large)]) {
            0 => None,
            n => Some(sampled(n, 2, Corruption::S2ToIo)?),
        };
        let prompts = Self { pair, contrasts, generated, sets };
        prompts.check(config)?;
        Ok(prompts)
    }

    /// Refuses prompts that the model cannot run.
    fn check(&self, config: &TransformerConfig) -> Result<(), StudyError> {
        let of_contrasts = self.contrasts.iter().map(|(pairs, _)| pairs);
        let all = [&self.pair].into_iter().chain(of_contrasts).chain(&self.generated).chain(self.sets.iter().flatten());
        for pairs in all {
            pairs.check_model(config.d_vocab, config.n_ctx)?;
        }
        match self.sets.iter().flatten().map(PromptPairs::width).max() {
            Some(width) if width + NEW_TOKENS - 1 > config.n_ctx => Err(StudyError::Prompts(format!(
                "prompts of {width} tokens and the tokens generated after them need a context of {} tokens, and the \
                 model's context has {}: use a model with a longer context, or 0 prompts to skip the ablation study",
                width + NEW_TOKENS - 1,
                config.n_ctx
            ))),
            _ => Ok(()),
        }
    }
}
