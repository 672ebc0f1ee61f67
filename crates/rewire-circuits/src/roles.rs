//! Roles of heads in the IOI circuit, from the search step that found a head and from its
//! attention.

use rewire_analysis::heads::{Backup, CopyScores};
use rewire_hooks::Head;

use crate::names::{AttentionProbe, AttentionProfile};
use crate::step::PathStep;

/// Copy score above which a head counts as a name mover, in percent (the notebook means 75%).
pub const COPIES: f32 = 75.0;

/// Attention from which on a head counts as attending to a position.
const LOOKS: f32 = 0.1;

/// A head's role, from the search step that found it and from its attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeadRole {
    /// Serves the behavior directly, and copies names.
    NameMover,
    /// Serves the behavior directly, and attends from END to S2.
    DirectInhibition,
    /// Serves the behavior directly, and neither copies names nor attends to S2.
    DirectEffect,
    /// Adds to the logit difference once the movers are ablated.
    Backup,
    /// Works against the behavior directly, and copies names negatively.
    NegativeMover,
    /// Works against the behavior directly, and does not copy names negatively.
    NegativeEffect,
    /// Reaches the movers' queries, and attends from END to S2.
    SInhibition,
    /// Reaches the movers' queries, and does not attend to S2.
    QueryContributor,
    /// Reaches the inhibition heads' values, and attends from S2 to the token after S1.
    Induction,
    /// Reaches the inhibition heads' values, and attends from S2 to S1.
    DuplicateToken,
    /// Reaches the inhibition heads' values, and attends to neither S1 nor the token after S1.
    ValueContributor,
    /// Reaches the keys of the heads that reach the inhibition heads' values, and attends from the
    /// token after S1 to S1.
    PreviousToken,
    /// Reaches the keys of the heads that reach the inhibition heads' values, and does not attend
    /// from the token after S1 to S1.
    KeyContributor,
    /// Is below the threshold in every step, and is still needed for the circuit to carry the
    /// behavior.
    Completing,
}

impl HeadRole {
    /// All roles.
    pub const ALL: [Self; 14] = [
        HeadRole::NameMover,
        HeadRole::DirectInhibition,
        HeadRole::DirectEffect,
        HeadRole::Backup,
        HeadRole::NegativeMover,
        HeadRole::NegativeEffect,
        HeadRole::SInhibition,
        HeadRole::QueryContributor,
        HeadRole::Induction,
        HeadRole::DuplicateToken,
        HeadRole::ValueContributor,
        HeadRole::PreviousToken,
        HeadRole::KeyContributor,
        HeadRole::Completing,
    ];

    /// Returns the role's name: the name in the published circuit, if that has the role.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HeadRole::NameMover => "name mover",
            HeadRole::DirectInhibition => "S-inhibition, directly",
            HeadRole::DirectEffect => "direct effect, does not copy",
            HeadRole::Backup => "backup name mover",
            HeadRole::NegativeMover => "negative name mover",
            HeadRole::NegativeEffect => "negative direct effect",
            HeadRole::SInhibition => "S-inhibition",
            HeadRole::QueryContributor => "into movers' queries",
            HeadRole::Induction => "induction",
            HeadRole::DuplicateToken => "duplicate token",
            HeadRole::ValueContributor => "into inhibitors' values",
            HeadRole::PreviousToken => "previous token",
            HeadRole::KeyContributor => "into their keys",
            HeadRole::Completing => "completing",
        }
    }
}

/// A head, its role, and the effect that is the evidence for the role.
pub type Evidence = (Head, HeadRole, f32);

/// The results of all search steps.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// Path patching into the last residual stream.
    pub direct: &'a PathStep,
    /// Heads that work against the behavior in the direct step.
    pub opposing: &'a [Head],
    /// Path patching into the movers' queries.
    pub queries: &'a Option<PathStep>,
    /// Path patching into the values of the direct inhibition heads, and into the values of the
    /// heads that reach the queries.
    pub values: [&'a Option<PathStep>; 2],
    /// Path patching into the keys of the heads that the two value steps found.
    pub keys: &'a Option<PathStep>,
    /// Attention of all heads between the names.
    pub looks: &'a AttentionProfile,
    /// Copy scores without norms.
    pub copying: &'a CopyScores,
    /// Contributions of all heads to the logit difference before and after the movers are ablated.
    pub backup: Option<&'a Backup>,
    /// The name movers.
    pub movers: &'a [Head],
    /// Effect from which on a head counts, as a share of the clean minus the corrupted logit
    /// difference.
    pub threshold: f32,
    /// The clean logit difference as a share of clean minus corrupted, the scale of all effects.
    pub share_of_span: f32,
}

/// Returns the heads that have a role, with their roles and the effects that are the evidence for
/// them.
#[must_use]
pub fn evidence(seen: &Seen) -> Vec<Evidence> {
    let looks = seen.looks;
    let mut found = Vec::new();
    for &head in &seen.direct.serving {
        let role = match seen.copying.positive[[head.layer, head.head]] > COPIES {
            true => HeadRole::NameMover,
            false if inhibits(looks, head) => HeadRole::DirectInhibition,
            false => HeadRole::DirectEffect,
        };
        found.push(of_step(head, role, seen.direct));
    }
    for &head in seen.opposing {
        let copies = seen.copying.negative[[head.layer, head.head]] > COPIES;
        let role = if copies { HeadRole::NegativeMover } else { HeadRole::NegativeEffect };
        found.push(of_step(head, role, seen.direct));
    }
    for (head, queries) in heads_of(seen.queries) {
        let role = if inhibits(looks, head) { HeadRole::SInhibition } else { HeadRole::QueryContributor };
        found.push(of_step(head, role, queries));
    }
    for step in seen.values {
        for (head, step) in heads_of(step) {
            let role = match [AttentionProbe::S2ToS1, AttentionProbe::S2ToAfterS1].map(|look| looks.of(look, head)) {
                [same, next] if induces(looks, head) && next > same => HeadRole::Induction,
                [same, _] if same >= LOOKS => HeadRole::DuplicateToken,
                _ => HeadRole::ValueContributor,
            };
            found.push(of_step(head, role, step));
        }
    }
    for (head, keys) in heads_of(seen.keys) {
        let previous = looks.of(AttentionProbe::AfterS1ToS1, head) >= LOOKS;
        let role = if previous { HeadRole::PreviousToken } else { HeadRole::KeyContributor };
        found.push(of_step(head, role, keys));
    }
    if let Some(backup) = seen.backup {
        for (place, share) in backup.taken_over().indexed_iter() {
            let head = Head::from(place);
            let others = !seen.movers.contains(&head) && !seen.opposing.contains(&head);
            let effect = share * seen.share_of_span;
            if others && effect >= seen.threshold && seen.copying.positive[place] > COPIES {
                found.push((head, HeadRole::Backup, -effect));
            }
        }
    }
    found
}

fn of_step(head: Head, role: HeadRole, step: &PathStep) -> Evidence {
    (head, role, step.effects()[[head.layer, head.head]])
}

/// Returns the heads that serve the behavior in a step; none if there was no step.
fn heads_of(step: &Option<PathStep>) -> impl Iterator<Item = (Head, &PathStep)> {
    step.iter().flat_map(|step| step.serving.iter().map(move |&head| (head, step)))
}

/// Returns whether a head attends from END to S2, and more so than to IO and to S1.
#[must_use]
pub fn inhibits(looks: &AttentionProfile, head: Head) -> bool {
    let [io, s1, s2] =
        [AttentionProbe::EndToIo, AttentionProbe::EndToS1, AttentionProbe::EndToS2].map(|look| looks.of(look, head));
    s2 >= LOOKS && s2 > io && s2 > s1
}

/// Returns whether a head attends from S2 to the token after S1. In layer 0 no head can know that
/// position, so the answer is no.
#[must_use]
pub fn induces(looks: &AttentionProfile, head: Head) -> bool {
    head.layer > 0 && looks.of(AttentionProbe::S2ToAfterS1, head) >= LOOKS
}
