//! The whole study.

use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::attribution::NormJacobian;
use rewire_model::Transformer;
use rewire_tasks::PromptPairs;

use super::analyze::{self, Demo, Findings};
use super::cached::cached;
use crate::{Setup, StudyError};

/// All that is found.
pub struct Found {
    /// The demo's own analyzes.
    pub demo: Demo,
    /// The heads on the demo's pairs, and on generated ones if there are any.
    pub sets: Vec<Findings>,
    /// How many activations, and how many gradients, a run of the model has.
    pub cached: [usize; 2],
}

/// Runs the demo on its pairs, and patches heads on `generated` pairs too.
///
/// # Errors
/// [`StudyError`], for example if a prompt does not fit the model.
pub fn analyze<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    pairs: PromptPairs,
    generated: Option<PromptPairs>,
    norm: NormJacobian,
) -> Result<Found, StudyError> {
    let demo = analyze::demo(model, setup, &pairs, norm)?;
    let cached = cached(model, &pairs)?;
    let mut sets = vec![analyze::heads(model, setup, "demo", pairs)?];
    if let Some(pairs) = generated {
        sets.push(analyze::heads(model, setup, "generated", pairs)?);
    }
    Ok(Found { demo, sets, cached })
}
