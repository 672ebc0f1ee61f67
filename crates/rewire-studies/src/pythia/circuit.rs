//! The circuit: its heads with their roles, chosen on one set of prompts and evaluated on another.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::backend::Backend;
use rewire_analysis::run::Execution;
use rewire_circuits::{
    Ablations, Carried, Evidence, FoundCircuit, HeadRole, PathStep, Random, find_circuit, means_by, rank_heads,
};
use rewire_hooks::Head;
use rewire_model::Transformer;
use rewire_tasks::ioi::GPT2_SMALL_CIRCUIT;

use super::data::{Data, Sets};
use super::reference::Kind;
use super::settings::Settings;
use crate::{Setup, StudyError};

/// A head of the circuit.
#[derive(Debug, Clone)]
pub struct Member {
    /// The head.
    pub head: Head,
    /// Its roles with the effects that give them, strongest first.
    pub roles: Vec<(HeadRole, f32)>,
    /// Its largest absolute effect in any step.
    pub strength: f32,
}

/// The circuit, with the roles of its heads and its faithfulness.
#[derive(Debug, Clone)]
pub struct Circuit {
    /// Its heads, strongest first.
    pub members: Vec<Member>,
    /// Shares kept and left by the strongest heads on the choosing prompts, one per number of heads
    /// that was tried.
    pub curve: Vec<Carried>,
    /// Shares kept and left by the circuit on the choosing prompts.
    pub on_choosing: Carried,
    /// Shares kept and left by the circuit on the judging prompts: the main result.
    pub judged: Carried,
    /// Shares kept and left by sets of random heads on the judging prompts.
    pub random: Random,
    /// Number of choosing and of judging prompts.
    pub prompts: [usize; 2],
    /// Number of reference prompts per mean, by template and length.
    pub reference: BTreeMap<Kind, usize>,
    /// All heads with a role, members and others.
    pub with_roles: BTreeMap<Head, Vec<(HeadRole, f32)>>,
}

/// Ranks heads by their largest effect in any step, chooses the circuit among them on the choosing
/// prompts, and evaluates it on the judging prompts.
pub(super) fn find<B: Backend>(
    model: &Transformer<B>,
    setup: &Setup,
    sets: &Sets,
    evidence: &[Evidence],
    steps: &[&PathStep],
    settings: &Settings,
) -> Result<Circuit, StudyError> {
    let mut with_roles: BTreeMap<Head, Vec<(HeadRole, f32)>> = BTreeMap::new();
    for &(head, role, effect) in evidence {
        with_roles.entry(head).or_default().push((role, effect));
    }
    for roles in with_roles.values_mut() {
        roles.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    }
    let of_roles = with_roles.iter().flat_map(|(head, roles)| roles.iter().map(|(_, effect)| (*head, *effect)));
    let maps: Vec<_> = steps.iter().map(|step| step.effects()).collect();
    let ranked = rank_heads(&maps, of_roles);
    let batch = setup.execution(model, sets.choosing.pairs.width()).prompt_batch;
    let means = means_by(model, sets.reference.prompts(), batch)?;
    let ablations = |data: &Data| -> Result<Ablations<B>, StudyError> {
        let groups = data.by_kind()?.into_iter().map(|(kind, pairs)| match means.get(&kind) {
            Some(mean) => Ok((pairs, mean)),
            None => Err(StudyError::Prompts(
                "the reference prompts have no mean for the template and length of one of the prompts".to_owned(),
            )),
        });
        Ok(Ablations::new(model, groups.collect::<Result<_, _>>()?, settings.seed)?)
    };
    let (choosing, judging) = (ablations(&sets.choosing)?, ablations(&sets.judging)?);
    let width = choosing.width().max(judging.width());
    let FoundCircuit { members, curve, on_choosing, judged, random } =
        setup.step("faithfulness of sets of heads", |progress| {
            let execution = Execution { progress, ..setup.execution(model, width) };
            find_circuit(&choosing, &judging, &ranked, settings.seed, &execution)
        })?;
    let member = |(head, strength): (Head, f32)| Member {
        head,
        strength,
        roles: with_roles.get(&head).cloned().unwrap_or_else(|| vec![(HeadRole::Completing, strength)]),
    };
    Ok(Circuit {
        members: members.into_iter().map(member).collect(),
        curve,
        on_choosing,
        judged,
        random,
        prompts: [&sets.choosing, &sets.judging].map(|set| set.pairs.len()),
        reference: sets.reference.counts(),
        with_roles,
    })
}

impl Circuit {
    /// Compares the found heads with the published circuit of GPT-2 small: one row per published
    /// class, then one row for all found heads and one for the circuit's heads.
    #[must_use]
    pub fn against_published(&self) -> Vec<Comparison> {
        let of = |role: HeadRole| -> BTreeSet<Head> {
            let has = |(_, roles): &(&Head, &Vec<(HeadRole, f32)>)| roles.iter().any(|(r, _)| *r == role);
            self.with_roles.iter().filter(has).map(|(head, _)| *head).collect()
        };
        let class = |class: &rewire_tasks::ioi::HeadClass| {
            let role = HeadRole::ALL.into_iter().find(|role| role.name() == class.name);
            let found = role.map(of).unwrap_or_default();
            Comparison::new(class.name, class.heads.iter().copied().map(Head::from).collect(), found)
        };
        let mut rows: Vec<Comparison> = GPT2_SMALL_CIRCUIT.iter().map(class).collect();
        let published: BTreeSet<Head> =
            GPT2_SMALL_CIRCUIT.iter().flat_map(|class| class.heads).copied().map(Head::from).collect();
        rows.push(Comparison::new(
            "any class, all found",
            BTreeSet::clone(&published),
            self.with_roles.keys().copied().collect(),
        ));
        rows.push(Comparison::new("any class, the circuit", published, self.members.iter().map(|m| m.head).collect()));
        rows
    }
}

/// A comparison of found heads with published heads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Name of the class.
    pub class: &'static str,
    /// The heads of the class in the published circuit.
    pub published: BTreeSet<Head>,
    /// The heads found in this run.
    pub found: BTreeSet<Head>,
}

impl Comparison {
    fn new(class: &'static str, published: BTreeSet<Head>, found: BTreeSet<Head>) -> Self {
        Self { class, published, found }
    }

    /// Returns recall (the share of the published heads that are found) and precision (the share of
    /// the found heads that are published). A share is `None` if there are no such heads.
    #[must_use]
    pub fn recall_and_precision(&self) -> [Option<f64>; 2] {
        let both = self.published.intersection(&self.found).count() as f64;
        [&self.published, &self.found].map(|of| (!of.is_empty()).then(|| both / of.len() as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_and_precision_are_counted_over_heads() {
        let set = |heads: &[(usize, usize)]| heads.iter().copied().map(Head::from).collect();
        let comparison = Comparison::new("", set(&[(9, 9), (9, 6), (10, 0)]), set(&[(9, 9), (9, 6), (1, 1), (2, 2)]));
        assert_eq!(comparison.recall_and_precision(), [Some(2.0 / 3.0), Some(0.5)]);
        assert_eq!(Comparison::new("", set(&[]), set(&[])).recall_and_precision(), [None, None]);
    }
}
