//! Several estimates of all edges, and the exact effects that they are compared with.

use std::collections::BTreeSet;

use burn::module::AutodiffModule;
use rewire_model::{BackwardRule, Differentiable, Transformer};
use rewire_tasks::Metric;

use crate::edges::agreement::EdgeAgreement;
use crate::edges::attribution::{GradientsAt, attribute_all_edges};
use crate::edges::effects::{EdgeEffects, largest};
use crate::edges::graph::EdgeGraph;
use crate::edges::patching::patch_places;
use crate::effects::Reduce;
use crate::error::AnalysisError;
use crate::integrated::quadrature::Quadrature;
use crate::integrated::rule::Rule;
use crate::patching::screen::Verify;
use crate::run::execution::Execution;
use crate::run::question::{Direction, Question};

/// The line of `clean-corrupted`: its two ends, with equal weights.
const ENDS: Quadrature = Quadrature { rule: Rule::Trapezoid, steps: 2 };

/// An estimate of all edges, with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeEstimate {
    /// The name in tables and figures: `eap`, `eap-ig-inputs`.
    pub name: String,
    /// The runs at which gradients are taken.
    pub at: GradientsAt,
    /// The numbers that the backward pass passes back. This rule stands in the place of the
    /// question's.
    pub backward: BackwardRule,
}

impl EdgeEstimate {
    /// Returns the estimate from these runs by this rule, with the name that it has in tables.
    #[must_use]
    pub fn new(at: GradientsAt, backward: BackwardRule) -> Self {
        let name = match at {
            GradientsAt::Base => "eap",
            GradientsAt::Inputs(ENDS) => "clean-corrupted",
            GradientsAt::Inputs(_) => "eap-ig-inputs",
            GradientsAt::Activations(_) => "eap-ig-activations",
        };
        let name = match backward {
            BackwardRule::Gradient => name.to_owned(),
            rule => format!("{name} {rule}"),
        };
        Self { name, at, backward }
    }

    /// Returns the estimates of the literature, the cheapest first: EAP (Syed et al. 2023) by each
    /// backward rule, the mean of the gradients of both runs, and EAP-IG (Hanna et al. 2024) over
    /// inputs and over activations, along this line.
    #[must_use]
    pub fn of_literature(line: Quadrature) -> Vec<Self> {
        let gradient = |at| Self::new(at, BackwardRule::Gradient);
        vec![
            gradient(GradientsAt::Base),
            Self::new(GradientsAt::Base, BackwardRule::Relp),
            Self::new(GradientsAt::Base, BackwardRule::Gim),
            gradient(GradientsAt::Inputs(ENDS)),
            gradient(GradientsAt::Inputs(line)),
            gradient(GradientsAt::Activations(line)),
        ]
    }

    /// Returns the cost of the estimate for one prompt pair, in forward passes. A backward pass
    /// counts as two. Each estimate takes the two unpatched runs, and a backward pass: EAP through
    /// one of them, and a line through a further run at each of its points.
    #[must_use]
    pub fn forward_passes(&self, n_layers: usize) -> usize {
        match self.at {
            GradientsAt::Base => 4,
            at => 2 + 3 * at.n_gradients(n_layers),
        }
    }
}

/// Estimates of all edges, and exact effects of some or all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedEdges {
    /// Each estimate with its effects.
    pub estimates: Vec<(EdgeEstimate, EdgeEffects)>,
    /// The exact effects. NaN for edges that were not verified.
    pub exact: EdgeEffects,
    /// Number of edges that were patched exactly.
    pub verified: usize,
}

impl VerifiedEdges {
    /// Compares each estimate with the exact effects of the verified edges, in the order of the
    /// estimates.
    #[must_use]
    pub fn agreements(&self) -> Vec<EdgeAgreement> {
        let exact = self.exact.mean();
        let of_estimate = |(_, effects): &(EdgeEstimate, EdgeEffects)| {
            EdgeAgreement::new(&self.exact.graph, &exact.view(), &effects.mean().view())
        };
        self.estimates.iter().map(of_estimate).collect()
    }
}

/// Estimates all edges in several ways, each by its own backward rule. Then patches edges exactly:
/// all edges, or the `k` edges of largest absolute mean estimate by each of the estimates.
///
/// An agreement on the edges of largest estimate says nothing about the others: an edge whose
/// estimate is wrongly small is not among them.
///
/// # Errors
/// As [`attribute_all_edges`] and [`patch_all_edges`](crate::edges::patch_all_edges),
/// [`AnalysisError::NoNodes`] without an estimate, and [`AnalysisError::TooManyNodes`] if there are
/// fewer than `k` edges.
pub fn verify_edges<B: Differentiable, M: Metric>(
    model: &Transformer<B>,
    question: Question<M>,
    estimates: &[EdgeEstimate],
    verify: Verify,
    reduce: Reduce,
    direction: Direction,
    execution: &Execution,
) -> Result<VerifiedEdges, AnalysisError> {
    let graph = EdgeGraph::new(model.config());
    if estimates.is_empty() {
        return Err(AnalysisError::NoNodes);
    }
    let k = verify.among(graph.n_edges())?;
    let found = |estimate: &EdgeEstimate| {
        let effects =
            attribute_all_edges(model, question.by_rule(estimate.backward), estimate.at, reduce, direction, execution)?;
        Ok((estimate.clone(), effects))
    };
    let estimates = estimates.iter().map(found).collect::<Result<Vec<_>, AnalysisError>>()?;
    let mut places = BTreeSet::new();
    for (_, effects) in &estimates {
        for (edge, _) in largest(&graph, &effects.mean().view(), k) {
            places.insert(graph.place(&edge)?);
        }
    }
    // In the order of the graph, reader by reader.
    let places: Vec<[usize; 2]> = graph.places().filter(|place| places.contains(place)).collect();
    let exact = patch_places(&model.valid(), question, &places, f32::NAN, reduce, direction, execution)?;
    Ok(VerifiedEdges { estimates, exact, verified: places.len() })
}
