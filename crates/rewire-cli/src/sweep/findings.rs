//! The findings of a sweep, before they are written.

use rewire_analysis::attribution::EdgeAttribution;
use rewire_analysis::integrated::Completeness;
use rewire_analysis::patching::Screened;
use rewire_analysis::{Effects, Outcome};
use rewire_report::Certainty;

use super::shortened::Shortened;

/// The findings of a sweep.
pub(super) struct Findings {
    /// The effects of all nodes, and the baselines that they are relative to.
    pub(super) outcome: Outcome,
    /// Names of the tables of effects, in the order of `outcome.effects`.
    pub(super) names: Vec<String>,
    /// Names of the receivers that no path reaches, in path patching.
    pub(super) unreached: Vec<String>,
    /// Head edges, if they were estimated.
    pub(super) paths: Option<EdgeAttribution>,
    /// Nodes that were patched exactly after attribution, if `--verify` was given.
    pub(super) screened: Option<Screened>,
    /// The completeness of the attributions of each kind of node, in integrated gradients.
    pub(super) completeness: Vec<Completeness>,
    /// The errors against float32, if the sweep computed in shorter numbers.
    pub(super) shortened: Option<Shortened>,
    /// The uncertainty of the effects of each kind of node.
    pub(super) certainty: Vec<Certainty>,
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
            screened: None,
            completeness: Vec::new(),
            shortened: None,
            certainty: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// Returns the name of a table of effects: the kind of its nodes, or `nodes` for a list of nodes.
pub(super) fn table_name(effects: &Effects) -> String {
    match effects.nodes.is_empty() {
        true => effects.kind.to_string(),
        false => "nodes".to_owned(),
    }
}
