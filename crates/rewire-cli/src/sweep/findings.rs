//! The findings of a sweep, before they are written.

use rewire_analysis::Outcome;
use rewire_analysis::attribution::EdgeAttribution;
use rewire_analysis::integrated::Completeness;
use rewire_analysis::patching::Screened;
use rewire_report::Certainty;

use super::shortened::Shortened;

/// The findings of a sweep.
pub(super) struct Findings {
    /// The effects of all nodes, and the runs that they are relative to.
    pub(super) outcome: Outcome,
    /// Names of the tables of effects, in their order.
    pub(super) names: Vec<String>,
    /// In path patching, names of the receivers that no path reaches.
    pub(super) unreached: Vec<String>,
    /// Paths between heads, if they were estimated.
    pub(super) paths: Option<EdgeAttribution>,
    /// Nodes that were patched exactly after attribution, if `--verify` was given.
    pub(super) screened: Option<Screened>,
    /// In integrated gradients, how complete the attributions of each kind of node are.
    pub(super) completeness: Vec<Completeness>,
    /// The errors of shorter numbers, if any were used.
    pub(super) shortened: Option<Shortened>,
    /// How sure the effects of each kind of node are.
    pub(super) certainty: Vec<Certainty>,
    /// Warnings, one line each.
    pub(super) warnings: Vec<String>,
}

impl Findings {
    /// Findings that hold an outcome alone.
    pub(super) fn of(outcome: Outcome) -> Self {
        let names = outcome.effects.iter().map(|effects| effects.kind.to_string()).collect();
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
