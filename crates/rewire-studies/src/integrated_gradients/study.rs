//! The whole study, in the notebook's order.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::integrated::IntegratedGradientsOptions;
use rewire_model::Transformer;
use rewire_tasks::Tokenizer;

use super::ablate::{self, Ablations};
use super::analyze::{self, Compared};
use super::averaged::{self, Averaged};
use super::curves::{self, Contrasted, Drawn};
use super::prompts::Prompts;
use super::settings::Settings;
use crate::{KnownModel, Setup, StudyError};

/// All that is found.
pub struct Found {
    /// Both methods on the notebook's pair.
    pub compared: Compared,
    /// Correlations over generated pairs, if there are any.
    pub averaged: Option<Averaged>,
    /// The ablation study, if there are prompts for it.
    pub study: Option<Ablations>,
    /// Interpolation curves of single heads.
    pub curves: Drawn,
    /// The contrastive pair, as printed and aligned.
    pub contrasts: Vec<Contrasted>,
}

/// Runs the whole study.
///
/// # Errors
/// [`StudyError`], for example if attributions stay incomplete.
pub fn analyze<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    tokenizer: &Tokenizer,
    known: KnownModel,
    prompts: &Prompts,
    settings: &Settings,
) -> Result<Found, StudyError> {
    let integral = IntegratedGradientsOptions {
        quadrature: settings.quadrature.into(),
        tolerance: settings.tolerance,
        ..IntegratedGradientsOptions::default()
    };
    let compared = analyze::compare(model, setup, &prompts.pair, &integral)?;
    let averaged = match &prompts.generated {
        Some(pairs) => Some(averaged::averaged(model, setup, pairs, settings.seed, &integral)?),
        None => None,
    };
    let inner = model.valid();
    let study = match &prompts.sets {
        Some(sets) => Some(ablate::study(&inner, setup, tokenizer, sets, &compared, known, &settings.heads)?),
        None => None,
    };
    let curves = curves::draw(&inner, setup, prompts, &compared, settings.range, known)?;
    let contrasts = curves::contrasts(model, setup, prompts, &compared, known, &integral)?;
    Ok(Found { compared, averaged, study, curves, contrasts })
}
