//! The complete study, in the notebook's order.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::integrated::{GapPolicy, IntegratedGradientsOptions};
use rewire_model::Transformer;
use rewire_tasks::Tokenizer;

use super::ablate::{self, Ablations};
use super::analyze::{self, Compared};
use super::averaged::{self, Averaged};
use super::curves::{self, Contrasted, Drawn};
use super::prompts::Prompts;
use super::settings::Settings;
use crate::setup::{attempt, complete};
use crate::{KnownModel, Setup, StudyError};

/// The results of the study.
pub struct Found {
    /// Both methods' scores on the notebook's pair.
    pub compared: Compared,
    /// Mean correlations over the generated pairs; `None` if there are no such pairs.
    pub averaged: Option<Averaged>,
    /// The ablation study; `None` if there are no prompts for it.
    pub study: Option<Ablations>,
    /// Interpolation curves of single heads.
    pub curves: Drawn,
    /// Scores on the contrastive pair, as printed and aligned.
    pub contrasts: Vec<Contrasted>,
}

/// Runs the complete study.
///
/// Integrated gradients come before activation patching of the same prompts, which takes longer.
/// Gaps that stay above the tolerance are in [`Compared::incomplete`] and [`Averaged::incomplete`].
///
/// # Errors
/// [`StudyError`].
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
        panels: settings.panels,
        // A gap that stays is reported with the attributions ([`Compared::incomplete`]).
        gaps: GapPolicy::Report,
        ..IntegratedGradientsOptions::default()
    };
    let compared = attempt(analyze::compare(model, setup, &prompts.pair, &integral))?;
    let averaged = match &prompts.generated {
        Some(pairs) => Some(attempt(averaged::averaged(model, setup, pairs, settings.seed, &integral))?),
        None => None,
    };
    let (compared, averaged) = (complete(compared)?, averaged.map(complete).transpose()?);
    let inner = model.valid();
    let study = match &prompts.sets {
        Some(sets) => Some(ablate::study(&inner, setup, tokenizer, sets, &compared, known, &settings.heads)?),
        None => None,
    };
    let curves = curves::draw(&inner, setup, prompts, &compared, settings.range, known)?;
    let contrasts = curves::contrasts(model, setup, prompts, &compared, known, &integral)?;
    Ok(Found { compared, averaged, study, curves, contrasts })
}
