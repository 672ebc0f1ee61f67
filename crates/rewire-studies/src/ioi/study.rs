//! The complete study.

use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::attribution::NormJacobian;
use rewire_analysis::edges::VerifiedEdges;
use rewire_model::Transformer;
use rewire_tasks::PromptPairs;

use super::analyze::{self, Demo, Findings};
use super::cached::cached;
use super::edges;
use crate::setup::{attempt, complete};
use crate::{Setup, StudyError};

/// The results of the study.
pub struct Found {
    /// The demo's own analyses.
    pub demo: Demo,
    /// The heads on the demo's pairs and, if there are any, on generated pairs.
    pub sets: Vec<Findings>,
    /// Estimates of all edges and exact effects, on the demo's pairs.
    pub edges: VerifiedEdges,
    /// Number of activations and number of gradients of one run of the model.
    pub cached: [usize; 2],
}

/// Runs the demo on its pairs, and patches heads on these pairs and on the `generated` pairs.
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
    let demo = attempt(analyze::demo(model, setup, &pairs, norm))?;
    let mut sets = vec![attempt(analyze::heads(model, setup, "demo", pairs))?];
    if let Some(pairs) = generated {
        sets.push(attempt(analyze::heads(model, setup, "generated", pairs))?);
    }
    let (demo, sets) = (complete(demo)?, sets.into_iter().map(complete).collect::<Result<Vec<_>, _>>()?);
    let cached = cached(model, &sets[0].pairs)?;
    let edges = edges::against_exact(model, setup, &sets[0].pairs)?;
    Ok(Found { demo, sets, edges, cached })
}
