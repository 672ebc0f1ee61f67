//! The circuit: which heads, by what evidence, chosen on some prompts and judged on others.

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
    /// Which.
    pub head: Head,
    /// What it does, the strongest first.
    pub roles: Vec<(HeadRole, f32)>,
    /// Its largest effect, by size, in any step.
    pub strength: f32,
}

/// The circuit, with what each head does.
#[derive(Debug, Clone)]
pub struct Circuit {
    /// Its heads, strongest first.
    pub members: Vec<Member>,
    /// What the strongest heads carry on the choosing prompts, for each number of them that was
    /// tried.
    pub curve: Vec<Carried>,
    /// What it carries on the choosing prompts.
    pub on_choosing: Carried,
    /// What it carries on the judging prompts: the figures that count.
    pub judged: Carried,
    /// What random heads carry on the judging prompts.
    pub random: Random,
    /// How many prompts it was chosen and judged on.
    pub prompts: [usize; 2],
    /// How many reference prompts of each template and length the means are over.
    pub reference: BTreeMap<Kind, usize>,
    /// Every head with a role, whether it is a member or not.
    pub with_roles: BTreeMap<Head, Vec<(HeadRole, f32)>>,
}

/// Ranks heads by their largest effect in any step, chooses the circuit among them on one set of
/// prompts, and judges it on another.
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
            None => Err(StudyError::Prompts("the prompts were drawn with no mean for one of their lengths".to_owned())),
        });
        Ok(Ablations::new(model, groups.collect::<Result<_, _>>()?, settings.seed)?)
    };
    let (choosing, judging) = (ablations(&sets.choosing)?, ablations(&sets.judging)?);
    let width = choosing.width().max(judging.width());
    let FoundCircuit { members, curve, on_choosing, judged, random } =
        setup.step("what sets of heads carry", |progress| {
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
    /// Heads with a role that the published circuit of GPT-2 small has a class for: how many of the class are found, and how many of those
    /// found are of the class.
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

/// Heads found beside heads published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The class's name.
    pub class: &'static str,
    /// Its heads in the published circuit.
    pub published: BTreeSet<Head>,
    /// Those found here.
    pub found: BTreeSet<Head>,
}

impl Comparison {
    fn new(class: &'static str, published: BTreeSet<Head>, found: BTreeSet<Head>) -> Self {
        Self { class, published, found }
    }

    /// Share of the published heads that are found, and share of those found that are published; `None` of nothing.
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
    fn recall_and_precision_count_heads() {
        let set = |heads: &[(usize, usize)]| heads.iter().copied().map(Head::from).collect();
        let comparison = Comparison::new("", set(&[(9, 9), (9, 6), (10, 0)]), set(&[(9, 9), (9, 6), (1, 1), (2, 2)]));
        assert_eq!(comparison.recall_and_precision(), [Some(2.0 / 3.0), Some(0.5)]);
        assert_eq!(Comparison::new("", set(&[]), set(&[])).recall_and_precision(), [None, None]);
    }
}
