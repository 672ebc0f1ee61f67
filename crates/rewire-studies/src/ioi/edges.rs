//! Estimates of all edges, compared with exact effects.

use burn::tensor::backend::AutodiffBackend;
use rewire_analysis::Reduce;
use rewire_analysis::edges::{EdgeEstimate, EdgeGraph, VerifiedEdges, verify_edges};
use rewire_analysis::integrated::{Quadrature, Rule};
use rewire_analysis::patching::Verify;
use rewire_analysis::run::{Direction, Execution, Question};
use rewire_model::Transformer;
use rewire_tasks::{LogitDiff, PromptPairs};

use crate::{Setup, StudyError};

/// Most edges that are all patched exactly. Of more edges, the [`LARGEST`] are.
const MOST_EDGES: usize = 5000;
/// Number of edges of largest estimate that are patched exactly, for each estimate.
const LARGEST: usize = 500;
/// The line of EAP-IG (Hanna et al. 2024).
const LINE: Quadrature = Quadrature { rule: Rule::RiemannRight, steps: 5 };

/// Estimates all edges in every way that the literature has, denoising, and patches edges exactly.
pub(super) fn against_exact<B: AutodiffBackend>(
    model: &Transformer<B>,
    setup: &Setup,
    pairs: &PromptPairs,
) -> Result<VerifiedEdges, StudyError> {
    let metric = LogitDiff::new(pairs);
    let execution = setup.execution(model, pairs.width());
    let verify = match EdgeGraph::new(model.config()).n_edges() <= MOST_EDGES {
        true => Verify::All,
        false => Verify::Largest(LARGEST),
    };
    let found = setup.step("demo prompts: edges, estimated and exactly", |progress| {
        let execution = Execution { progress, ..execution };
        let (question, estimates) = (Question::new(pairs, &metric), EdgeEstimate::of_literature(LINE));
        verify_edges(model, question, &estimates, verify, Reduce::Mean, Direction::Denoising, &execution)
    })?;
    Ok(found)
}
