//! The circuit: which heads, by what evidence, chosen on some prompts and judged on others.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::backend::Backend;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rewire_model::Transformer;
use rewire_tasks::ioi::GPT2_SMALL_CIRCUIT;

use super::Arguments;
use super::analyse::{Head, Step};
use super::carried::{Ablations, Carried};
use super::data::{Kind, Sets};
use super::search::{self, Choice};
use rewire_studies::Setup;

/// What a head does, by the step that found it and by where it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    NameMover,
    /// Serves the behaviour directly by what it moves from S2.
    DirectInhibition,
    DirectEffect,
    Backup,
    NegativeMover,
    NegativeEffect,
    SInhibition,
    QueryContributor,
    Induction,
    DuplicateToken,
    ValueContributor,
    PreviousToken,
    KeyContributor,
    /// Below the threshold in every step, and yet needed for the circuit to carry the behaviour.
    Completing,
}

impl Role {
    pub(super) const ALL: [Self; 14] = [
        Role::NameMover,
        Role::DirectInhibition,
        Role::DirectEffect,
        Role::Backup,
        Role::NegativeMover,
        Role::NegativeEffect,
        Role::SInhibition,
        Role::QueryContributor,
        Role::Induction,
        Role::DuplicateToken,
        Role::ValueContributor,
        Role::PreviousToken,
        Role::KeyContributor,
        Role::Completing,
    ];

    /// As the published circuit calls it, where it has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::NameMover => "name mover",
            Role::DirectInhibition => "S-inhibition, directly",
            Role::DirectEffect => "direct effect, does not copy",
            Role::Backup => "backup name mover",
            Role::NegativeMover => "negative name mover",
            Role::NegativeEffect => "negative direct effect",
            Role::SInhibition => "S-inhibition",
            Role::QueryContributor => "into movers' queries",
            Role::Induction => "induction",
            Role::DuplicateToken => "duplicate token",
            Role::ValueContributor => "into inhibitors' values",
            Role::PreviousToken => "previous token",
            Role::KeyContributor => "into their keys",
            Role::Completing => "completing",
        }
    }
}

/// A head of the circuit.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) head: Head,
    /// What it does, the strongest first.
    pub(super) roles: Vec<(Role, f32)>,
    /// Its largest effect, by size, in any step.
    pub(super) strength: f32,
}

/// Sets of random heads that the circuit is compared with, of each kind.
const RANDOM: usize = 20;

pub(super) struct Circuit {
    /// Its heads, strongest first.
    pub(super) members: Vec<Member>,
    /// What the strongest heads carry on the choosing prompts, for each number of them that was
    /// tried.
    pub(super) curve: Vec<Carried>,
    /// What it carries on the choosing prompts.
    pub(super) on_choosing: Carried,
    /// What it carries on the judging prompts: the figures that count.
    pub(super) judged: Carried,
    /// What random heads carry on the judging prompts.
    pub(super) random: Random,
    /// How many prompts it was chosen and judged on.
    pub(super) prompts: [usize; 2],
    /// How many reference prompts of each template and length the means are over.
    pub(super) reference: BTreeMap<Kind, usize>,
    /// Every head with a role, whether it is a member or not.
    pub(super) with_roles: BTreeMap<Head, Vec<(Role, f32)>>,
}

/// Sets of as many random heads as the circuit has.
pub(super) struct Random {
    /// The heads that they are drawn from.
    pub(super) from: &'static str,
    pub(super) sets: Vec<Carried>,
}

impl Random {
    /// The circuit's place among the sets, 1 for the best: by how near to 1 its share kept is, and
    /// how near to 0 its share left.
    pub(super) fn ranks(&self, circuit: &Carried) -> [usize; 2] {
        let rank = |distance: fn(&Carried) -> f64| {
            1 + self.sets.iter().filter(|set| distance(set) <= distance(circuit)).count()
        };
        [rank(|c| (c.shares.kept - 1.0).abs()), rank(|c| c.shares.left.abs())]
    }
}

/// Ranks heads by their largest effect in any step, chooses the circuit among them on one set of
/// prompts, and judges it on another.
pub(super) fn find<B: Backend>(
    model: &Transformer<B>,
    setup: &Setup,
    sets: &Sets,
    evidence: &[(Head, Role, f32)],
    steps: &[&Step],
    arguments: &Arguments,
) -> anyhow::Result<Circuit> {
    let mut with_roles: BTreeMap<Head, Vec<(Role, f32)>> = BTreeMap::new();
    for &(head, role, effect) in evidence {
        with_roles.entry(head).or_default().push((role, effect));
    }
    for roles in with_roles.values_mut() {
        roles.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    }
    let ranked = ranked(&with_roles, steps);
    let heads: Vec<Head> = ranked.iter().map(|(head, _)| *head).collect();
    let means = sets.reference.means(model, setup.options(model, sets.choosing.pairs.width()).prompt_batch)?;
    let choosing = Ablations::new(model, setup, &sets.choosing, &means, arguments.seed)?;
    let judging = Ablations::new(model, setup, &sets.judging, &means, arguments.seed)?;
    let Choice { chosen, curve } = search::choose(&choosing, &heads)?;
    let judged = judging.carried(std::slice::from_ref(&chosen.heads), "what the circuit carries")?.remove(0);
    let random = random(&judging, &heads, &chosen.heads, arguments.seed)?;
    let of_circuit = ranked.iter().filter(|(head, _)| chosen.heads.contains(head));
    let members = of_circuit.map(|&(head, strength)| Member {
        head,
        strength,
        roles: with_roles.get(&head).cloned().unwrap_or_else(|| vec![(Role::Completing, strength)]),
    });
    Ok(Circuit {
        members: members.collect(),
        curve,
        on_choosing: chosen,
        judged,
        random,
        prompts: [&sets.choosing, &sets.judging].map(|set| set.pairs.len()),
        reference: sets.reference.counts(),
        with_roles,
    })
}

/// All heads with their largest effect, by size, in any step or role, strongest first.
fn ranked(with_roles: &BTreeMap<Head, Vec<(Role, f32)>>, steps: &[&Step]) -> Vec<(Head, f32)> {
    let mut strengths: BTreeMap<Head, f32> = BTreeMap::new();
    let of_steps =
        steps.iter().flat_map(|step| step.effects().indexed_iter().map(|(h, v)| (h, *v)).collect::<Vec<_>>());
    let of_roles = with_roles.iter().flat_map(|(head, roles)| roles.iter().map(|(_, effect)| (*head, *effect)));
    for (head, effect) in of_steps.chain(of_roles) {
        let strength = strengths.entry(head).or_default();
        *strength = strength.max(effect.abs());
    }
    let mut ranked: Vec<(Head, f32)> = strengths.into_iter().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked
}

/// What random heads carry: drawn from those outside the circuit, or, if they are fewer than the
/// circuit's, from all.
fn random<B: Backend>(
    judging: &Ablations<B>,
    all: &[Head],
    circuit: &BTreeSet<Head>,
    seed: u64,
) -> anyhow::Result<Random> {
    let outside: Vec<Head> = all.iter().filter(|head| !circuit.contains(head)).copied().collect();
    let (from, pool) = match outside.len() > circuit.len() {
        true => ("heads outside the circuit", outside.as_slice()),
        false => ("all heads, the circuit's among them", all),
    };
    let sets = random_sets(pool, circuit.len(), seed);
    Ok(Random { from, sets: judging.carried(&sets, "what random heads carry")? })
}

/// Different random heads, drawn from a seed.
fn random_sets(pool: &[Head], n: usize, seed: u64) -> Vec<BTreeSet<Head>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let draw = |_| {
        let mut pool = pool.to_vec();
        let mut set = BTreeSet::new();
        while set.len() < n {
            let i = ((u64::from(rng.next_u32()) * pool.len() as u64) >> 32) as usize;
            set.insert(pool.swap_remove(i));
        }
        set
    };
    (0..RANDOM).map(draw).collect()
}

impl Circuit {
    /// Heads with a role that the published circuit of GPT-2 small has a class for: how many of the class are found, and how many of those
    /// found are of the class.
    pub(super) fn against_published(&self) -> Vec<Comparison> {
        let of = |role: Role| -> BTreeSet<Head> {
            let has = |(_, roles): &(&Head, &Vec<(Role, f32)>)| roles.iter().any(|(r, _)| *r == role);
            self.with_roles.iter().filter(has).map(|(head, _)| *head).collect()
        };
        let class = |class: &rewire_tasks::ioi::HeadClass| {
            let role = Role::ALL.into_iter().find(|role| role.name() == class.name);
            let found = role.map(of).unwrap_or_default();
            Comparison::new(class.name, class.heads.iter().copied().collect(), found)
        };
        let mut rows: Vec<Comparison> = GPT2_SMALL_CIRCUIT.iter().map(class).collect();
        let published: BTreeSet<Head> = GPT2_SMALL_CIRCUIT.iter().flat_map(|class| class.heads).copied().collect();
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
pub(super) struct Comparison {
    pub(super) class: &'static str,
    pub(super) published: BTreeSet<Head>,
    pub(super) found: BTreeSet<Head>,
}

impl Comparison {
    fn new(class: &'static str, published: BTreeSet<Head>, found: BTreeSet<Head>) -> Self {
        Self { class, published, found }
    }

    /// Share of the published heads that are found, and share of those found that are published; `None` of nothing.
    pub(super) fn recall_and_precision(&self) -> [Option<f64>; 2] {
        let both = self.published.intersection(&self.found).count() as f64;
        [&self.published, &self.found].map(|of| (!of.is_empty()).then(|| both / of.len() as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::super::carried::Shares;
    use super::*;

    #[test]
    fn random_sets_are_of_their_size_and_differ() {
        let all: Vec<Head> = (0..32).map(|i| (i / 8, i % 8)).collect();
        let sets = random_sets(&all, 10, 3);
        assert!(sets.iter().all(|set| set.len() == 10));
        assert_ne!(sets[0], sets[1]);
        assert_eq!(sets, random_sets(&all, 10, 3));
    }

    #[test]
    fn a_circuit_that_keeps_too_much_ranks_after_random_heads_that_keep_all() {
        let carried = |kept, left| Carried {
            heads: BTreeSet::new(),
            shares: Shares { kept, left },
            intervals: [[0.0; 2]; 2],
            stability: 0.0,
        };
        let random = Random { from: "", sets: vec![carried(1.0, 0.9), carried(0.1, -0.3)] };
        assert_eq!(random.ranks(&carried(1.27, -0.12)), [2, 1]);
        assert_eq!(random.ranks(&carried(0.95, 0.5)), [2, 2]);
        assert_eq!(random.ranks(&carried(1.0, 0.0)), [2, 1], "a tie counts against the circuit");
    }

    #[test]
    fn recall_and_precision_count_heads() {
        let set = |heads: &[Head]| heads.iter().copied().collect();
        let comparison = Comparison::new("", set(&[(9, 9), (9, 6), (10, 0)]), set(&[(9, 9), (9, 6), (1, 1), (2, 2)]));
        assert_eq!(comparison.recall_and_precision(), [Some(2.0 / 3.0), Some(0.5)]);
        assert_eq!(Comparison::new("", set(&[]), set(&[])).recall_and_precision(), [None, None]);
    }
}
