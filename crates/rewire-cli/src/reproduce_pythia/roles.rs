//! What each head does, by the step that found it and by where it looks.

use rewire_analysis::heads::{Backup, CopyScores};

use super::analyse::{COPIES, Head, Step};
use super::circuit::Role;
use super::looks::{Look, Looks};

/// Attention from which on a head is said to look somewhere.
const LOOKS: f32 = 0.1;

/// What the steps found.
pub(super) struct Seen<'a> {
    pub(super) direct: &'a Step,
    pub(super) opposing: &'a [Head],
    pub(super) queries: &'a Option<Step>,
    pub(super) values: [&'a Option<Step>; 2],
    pub(super) keys: &'a Option<Step>,
    pub(super) looks: &'a Looks,
    /// Without norms.
    pub(super) copying: &'a CopyScores,
    pub(super) backup: Option<&'a Backup>,
    pub(super) movers: &'a [Head],
    pub(super) threshold: f32,
    /// The clean logit difference as a share of clean less corrupted, which all effects are shares of.
    pub(super) share_of_span: f32,
}

/// Heads with their roles, and the effect that says so.
pub(super) fn evidence(seen: &Seen) -> Vec<(Head, Role, f32)> {
    let looks = seen.looks;
    let mut found = Vec::new();
    for &head in &seen.direct.serving {
        let role = match seen.copying.positive[[head.0, head.1]] > COPIES {
            true => Role::NameMover,
            false if inhibits(looks, head) => Role::DirectInhibition,
            false => Role::DirectEffect,
        };
        found.push(of_step(head, role, seen.direct));
    }
    for &head in seen.opposing {
        let copies = seen.copying.negative[[head.0, head.1]] > COPIES;
        let role = if copies { Role::NegativeMover } else { Role::NegativeEffect };
        found.push(of_step(head, role, seen.direct));
    }
    for (head, queries) in heads_of(seen.queries) {
        let role = if inhibits(looks, head) { Role::SInhibition } else { Role::QueryContributor };
        found.push(of_step(head, role, queries));
    }
    for step in seen.values {
        for (head, step) in heads_of(step) {
            let role = match [Look::S2ToS1, Look::S2ToAfterS1].map(|look| looks.of(look, head)) {
                [same, next] if induces(looks, head) && next > same => Role::Induction,
                [same, _] if same >= LOOKS => Role::DuplicateToken,
                _ => Role::ValueContributor,
            };
            found.push(of_step(head, role, step));
        }
    }
    for (head, keys) in heads_of(seen.keys) {
        let previous = looks.of(Look::AfterS1ToS1, head) >= LOOKS;
        let role = if previous { Role::PreviousToken } else { Role::KeyContributor };
        found.push(of_step(head, role, keys));
    }
    if let Some(backup) = seen.backup {
        for (place, share) in backup.taken_over().indexed_iter() {
            let others = !seen.movers.contains(&place) && !seen.opposing.contains(&place);
            let effect = share * seen.share_of_span;
            if others && effect >= seen.threshold && seen.copying.positive[[place.0, place.1]] > COPIES {
                found.push((place, Role::Backup, -effect));
            }
        }
    }
    found
}

fn of_step(head: Head, role: Role, step: &Step) -> (Head, Role, f32) {
    (head, role, step.effects()[[head.0, head.1]])
}

/// The heads that serve the behaviour in a step, if there was one.
fn heads_of(step: &Option<Step>) -> impl Iterator<Item = (Head, &Step)> {
    step.iter().flat_map(|step| step.serving.iter().map(move |&head| (head, step)))
}

/// Whether a head looks from END at S2, more than at the other names.
pub(super) fn inhibits(looks: &Looks, head: Head) -> bool {
    let [io, s1, s2] = [Look::EndToIo, Look::EndToS1, Look::EndToS2].map(|look| looks.of(look, head));
    s2 >= LOOKS && s2 > io && s2 > s1
}

/// Whether a head looks from S2 at the token behind S1, which in layer 0 no head can know to.
pub(super) fn induces(looks: &Looks, head: Head) -> bool {
    head.0 > 0 && looks.of(Look::S2ToAfterS1, head) >= LOOKS
}
