//! The findings of a sweep, before they are written.

use rewire_analysis::attribution::{EdgeAttribution, Estimator};
use rewire_analysis::edges::{Edge, EdgeEffects, VerifiedEdges};
use rewire_analysis::integrated::Completeness;
use rewire_analysis::patching::{GroupOutcome, Screened, SkippedBound};
use rewire_analysis::{Effects, Method, Outcome};
use rewire_circuits::JudgedCurve;
use rewire_report::Certainty;
use rewire_report::charts::{Meaning, Support};
use rewire_report::numbers::number;

use crate::correct::Correct;

use super::shortened::Shortened;

/// Edges by name, and their effects.
pub(super) struct ChosenEdges {
    pub(super) edges: Vec<Edge>,
    pub(super) found: GroupOutcome,
}

impl ChosenEdges {
    /// Returns each edge with its mean effect, the largest first.
    pub(super) fn largest(&self) -> Vec<(Edge, f32)> {
        let mut all: Vec<(Edge, f32)> = self.edges.iter().copied().zip(self.found.mean()).collect();
        all.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        all
    }

    /// Returns the rows of a table of [`largest`](Self::largest).
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        self.largest().into_iter().map(|(edge, effect)| vec![edge.to_string(), number(effect)]).collect()
    }
}

/// The findings of a sweep.
pub(crate) struct Findings {
    /// The effects of all nodes, and the baselines that they are relative to.
    pub(super) outcome: Outcome,
    /// Names of the tables of effects, in the order of `outcome.effects`.
    pub(super) names: Vec<String>,
    /// Names of the receivers that no path reaches, in path patching.
    pub(super) unreached: Vec<String>,
    /// Head edges, if they were estimated.
    pub(super) paths: Option<EdgeAttribution>,
    /// The effects of all edges, if they were patched or estimated.
    pub(super) edges: Option<EdgeEffects>,
    /// Several estimates of all edges, and exact effects, if `--verify` was given for edges.
    pub(super) verified_edges: Option<VerifiedEdges>,
    /// The effects of the edges that `--nodes` names, if it names edges.
    pub(super) chosen: Option<ChosenEdges>,
    /// Circuits of the best edges, if `--circuits` was given.
    pub(super) circuits: Option<JudgedCurve>,
    /// Nodes that were patched exactly after attribution, if `--verify` was given.
    pub(super) screened: Option<Screened>,
    /// The bound on the effects of skipped nodes, if `--bound-skipped` was given.
    pub(super) bound: Option<SkippedBound>,
    /// The estimate that attribution patching made of nodes.
    pub(super) estimator: Estimator,
    /// The completeness of the attributions of each kind of node, in integrated gradients.
    pub(super) completeness: Vec<Completeness>,
    /// The errors against float32, if the sweep computed in shorter numbers.
    pub(super) shortened: Option<Shortened>,
    /// The uncertainty of the effects of each kind of node.
    pub(super) certainty: Vec<Certainty>,
    /// The number of prompts on which the model is right, if it was counted.
    pub(super) correct: Option<Correct>,
    /// Warnings, one line each.
    pub(super) warnings: Vec<String>,
}

impl Findings {
    /// Returns findings that hold only an outcome.
    pub(super) fn of(outcome: Outcome) -> Self {
        let names = outcome.effects.iter().map(table_name).collect();
        Self {
            outcome,
            names,
            unreached: Vec::new(),
            paths: None,
            edges: None,
            verified_edges: None,
            chosen: None,
            circuits: None,
            screened: None,
            bound: None,
            estimator: Estimator::default(),
            completeness: Vec::new(),
            shortened: None,
            certainty: Vec::new(),
            correct: None,
            warnings: Vec::new(),
        }
    }
}

impl Findings {
    /// Returns the verified nodes as the estimates are compared with them: beside estimates without
    /// a sign, the exact effect of each prompt is a size too.
    pub(super) fn compared(&self) -> Option<Screened> {
        let mut screened = self.screened.clone()?;
        if self.estimator.is_unsigned() {
            screened.exact.effects.iter_mut().for_each(|effects| effects.values.mapv_inplace(f32::abs));
        }
        Some(screened)
    }

    /// Returns findings that hold the effects of edges by name, and an outcome without nodes.
    pub(super) fn of_chosen(edges: Vec<Edge>, method: Method, found: GroupOutcome) -> Self {
        let outcome = Outcome {
            method,
            direction: found.direction,
            scale: found.scale,
            metric: found.metric,
            baselines: found.baselines.clone(),
            vanished: found.vanished.clone(),
            effects: Vec::new(),
        };
        Self { chosen: Some(ChosenEdges { edges, found }), ..Self::of(outcome) }
    }

    /// Returns the meaning of the effects, for charts and sentences. Estimates without a sign
    /// neither support nor oppose.
    pub(super) fn meaning(&self) -> Meaning<'static> {
        let meaning = Meaning::of(&self.outcome);
        match self.estimator.is_unsigned() {
            true => Meaning { support: Support::Unknown, ..meaning },
            false => meaning,
        }
    }
}

impl From<EdgeEffects> for Findings {
    /// Returns findings that hold the effects of edges, and an outcome without nodes.
    fn from(edges: EdgeEffects) -> Self {
        let outcome = Outcome {
            method: edges.method,
            direction: edges.direction,
            scale: edges.scale,
            metric: edges.metric,
            baselines: edges.baselines.clone(),
            vanished: edges.vanished.clone(),
            effects: Vec::new(),
        };
        Self { edges: Some(edges), ..Self::of(outcome) }
    }
}

/// Name of the table of a list of nodes.
pub(super) const LISTED: &str = "nodes";

/// Returns the name of a table of effects: the kind of its nodes, or `nodes` for a list of nodes.
pub(super) fn table_name(effects: &Effects) -> String {
    match effects.nodes.is_empty() {
        true => effects.kind.to_string(),
        false => LISTED.to_owned(),
    }
}
