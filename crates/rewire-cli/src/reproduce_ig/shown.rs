//! The results that the summary and the report show.

use rewire_studies::Check;
use rewire_studies::integrated_gradients::{Found, Prompts};

use crate::finding::Finding;

/// The results of the study, with its prompts and the finding.
pub(super) struct Shown<'a> {
    pub(super) prompts: &'a Prompts,
    pub(super) found: &'a Found,
    pub(super) finding: &'a Finding,
    /// The comparisons with the notebook's figures; none for other models than its own.
    pub(super) checks: &'a [Check],
    /// Warnings, one line each.
    pub(super) warnings: &'a [String],
}
