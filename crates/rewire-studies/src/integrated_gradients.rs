//! The comparison of integrated gradients with activation patching, and what ablation says of both.
//!
//! [`Prompts::new`] makes the prompts, [`analyse`] compares the methods on them, and [`checks`] sets
//! the figures that the notebook prints for GPT-2 small beside ours.

mod ablate;
mod analyse;
mod averaged;
mod checks;
mod curves;
mod printed;
mod printed_curves;
mod prompts;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::integrated::{DEFAULT_TOLERANCE, PathIntegral, Quadrature};
use rewire_analysis::node::{Component, Node};
use rewire_circuits::Head;
use rewire_model::Transformer;
use rewire_tasks::Tokenizer;

use crate::{KnownModel, Setup, StudyError};

pub use ablate::{Ablations, Correlations, INTERVENTIONS, NEW_TOKENS};
pub use analyse::{BASELINES, Compared, HEADS, KINDS, Lines, NEURONS, TOP, flat, shares};
pub use averaged::{Averaged, FIGURES, Mean, PairCorrelations};
pub use checks::{Aside, asides, checks};
pub use curves::{Contrasted, Drawn};
pub use printed::{ACCURACY, ACCURACY_WITHOUT, MEAN_ABLATION, OUTLIERS, ZERO_ABLATION};
pub use prompts::{Prompts, REFERENCE};

/// What the study is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Generated prompts on which accuracy is measured; 0 leaves the ablation study out.
    pub prompts: usize,
    /// Generated pairs over which correlations are averaged; `None` for 100, or 5 if the model is
    /// large.
    pub generated_pairs: Option<usize>,
    /// Seed of the generated prompts and pairs.
    pub seed: u64,
    /// Heads to ablate besides the outliers.
    pub heads: Vec<Head>,
    /// Where gradients are taken.
    pub quadrature: Quadrature,
    /// How far attributions may be from summing to the metric's change.
    pub tolerance: f64,
    /// How far the interpolation curves go; 0 is the clean activation and 1 the corrupted one.
    pub range: [f64; 2],
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prompts: 1000,
            generated_pairs: None,
            seed: 0,
            heads: Vec::new(),
            quadrature: Quadrature::default(),
            tolerance: DEFAULT_TOLERANCE / 10.0,
            range: [-2.0, 3.0],
        }
    }
}

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
pub fn analyse<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    tokenizer: &Tokenizer,
    known: KnownModel,
    prompts: &Prompts,
    settings: &Settings,
) -> Result<Found, StudyError> {
    let integral =
        PathIntegral { quadrature: settings.quadrature, tolerance: settings.tolerance, ..PathIntegral::default() };
    let compared = analyse::compare(model, setup, &prompts.pair, &integral)?;
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

/// A head's output at all positions.
fn head_node((layer, head): Head) -> Node {
    Node::new(layer, Component::HeadResult).unit(head)
}
