//! What each head does, by the step that found it and by where it looks.

use rewire_analysis::heads::{Backup, CopyScores};
use rewire_hooks::Head;

use crate::names::{AttentionProbe, AttentionProfile};
use crate::step::PathStep;

/// Per cent above which a copy score tells a mover (the notebook means 75%).
pub const COPIES: f32 = 75.0;

/// Attention from which on a head is said to look somewhere.
const LOOKS: f32 = 0.1;

/// What a head does, by the step that found it and by where it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeadRole {
    /// Serves the behavior directly, and copies names.
    NameMover,
    /// Serves the behavior directly by what it moves from S2.
    DirectInhibition,
    /// Serves the behavior directly, and neither copies names nor looks at S2.
    DirectEffect,
    /// Takes over when the movers are removed.
    Backup,
    /// Works against the behavior directly, and copies names negatively.
    NegativeMover,
    /// Works against the behavior directly, and does not copy negatively.
    NegativeEffect,
    /// Reaches the movers' queries, and looks from END at S2.
    SInhibition,
    /// Reaches the movers' queries, and does not look at S2.
    QueryContributor,
    /// Reaches the inhibitors' values, and looks from S2 at the token after S1.
    Induction,
    /// Reaches the inhibitors' values, and looks from S2 at S1.
    DuplicateToken,
    /// Reaches the inhibitors' values, and looks at neither.
    ValueContributor,
    /// Reaches their keys, and looks from the token after S1 at S1.
    PreviousToken,
    /// Reaches their keys, and does not look there.
    KeyContributor,
    /// Below the threshold in every step, and yet needed for the circuit to carry the behavior.
    Completing,
}

impl HeadRole {
    /// All of them.
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

    /// Its name: the published circuit's, if it has the class.
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

/// A head with a role, and the effect that says so.
pub type Evidence = (Head, HeadRole, f32);

/// What the steps found.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// Path patching into the last residual stream.
    pub direct: &'a PathStep,
    /// Heads that work against the behavior there.
    pub opposing: &'a [Head],
    /// Into the movers' queries.
    pub queries: &'a Option<PathStep>,
    /// Into the values of direct inhibitors, and of those that reach the queries.
    pub values: [&'a Option<PathStep>; 2],
    /// Into the keys of the heads that both found.
    pub keys: &'a Option<PathStep>,
    /// Where heads look.
    pub looks: &'a AttentionProfile,
    /// Copy scores without norms.
    pub copying: &'a CopyScores,
    /// What the others add when the movers are removed.
    pub backup: Option<&'a Backup>,
    /// The movers.
    pub movers: &'a [Head],
    /// Share of clean less corrupted from which on a head counts.
    pub threshold: f32,
    /// The clean logit difference as a share of clean less corrupted, which all effects are shares of.
    pub share_of_span: f32,
}

/// Heads with their roles, and the effect that says so.
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

/// The heads that serve the behavior in a step, if there was one.
fn heads_of(step: &Option<PathStep>) -> impl Iterator<Item = (Head, &PathStep)> {
    step.iter().flat_map(|step| step.serving.iter().map(move |&head| (head, step)))
}

/// Whether a head looks from END at S2, more than at the other names.
#[must_use]
pub fn inhibits(looks: &AttentionProfile, head: Head) -> bool {
    let [io, s1, s2] =
        [AttentionProbe::EndToIo, AttentionProbe::EndToS1, AttentionProbe::EndToS2].map(|look| looks.of(look, head));
    s2 >= LOOKS && s2 > io && s2 > s1
}

/// Whether a head looks from S2 at the token behind S1, which in layer 0 no head can know to.
#[must_use]
pub fn induces(looks: &AttentionProfile, head: Head) -> bool {
    head.layer > 0 && looks.of(AttentionProbe::S2ToAfterS1, head) >= LOOKS
}
