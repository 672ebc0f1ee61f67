//! The circuit: which heads, by what evidence, and how much of the behaviour they carry alone.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::backend::Backend;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rewire_analysis::{Component, Intervention, Node, Options, Scale, ablate_groups};
use rewire_model::Transformer;
use rewire_tasks::LogitDiff;
use rewire_tasks::ioi::GPT2_SMALL_CIRCUIT;

use super::Arguments;
use super::analyse::{Head, Step};
use super::data::Data;
use crate::compute::options;
use crate::progress::with_bar;

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

/// What is left of the logit difference, as shares of the clean one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Carried {
    /// How many heads.
    pub(super) heads: usize,
    /// With these heads kept and all others mean-ablated.
    pub(super) kept: f64,
    /// With these heads mean-ablated and all others kept.
    pub(super) removed: f64,
}

impl Carried {
    /// Whether it keeps and leaves what a circuit must, and `margin` better than that.
    fn is_enough(&self, margin: f64) -> bool {
        self.kept >= KEPT + margin && self.removed < REMOVED - margin
    }
}

/// What a circuit must recover alone, and what may be left without it.
pub(super) const KEPT: f64 = 0.8;
pub(super) const REMOVED: f64 = 0.2;
/// By how much it must be better on the prompts that it is chosen on, so that it is good enough on others.
pub(super) const MARGIN: f64 = 0.05;

/// Sets of random heads that the circuit is compared with.
const RANDOM: usize = 20;

pub(super) struct Circuit {
    /// Its heads, strongest first.
    pub(super) members: Vec<Member>,
    /// What the strongest heads carry, for each number of them that was tried.
    pub(super) curve: Vec<Carried>,
    pub(super) carried: Carried,
    /// The same on prompts that it was not chosen on.
    pub(super) on_others: Carried,
    /// Whether the bars are met.
    pub(super) is_enough: bool,
    /// As many random heads.
    pub(super) random: Vec<Carried>,
    /// Every head with a role, whether it is a member or not.
    pub(super) with_roles: BTreeMap<Head, Vec<(Role, f32)>>,
}

/// Ranks heads by their largest effect in any step, and takes the fewest of them that keep 80% of the logit difference alone and without
/// which less than 20% is left, if possible by five points better.
pub(super) fn find<B: Backend>(
    model: &Transformer<B>,
    [data, other]: [&Data; 2],
    evidence: &[(Head, Role, f32)],
    steps: &[&Step],
    arguments: &Arguments,
) -> anyhow::Result<Circuit> {
    let (layers, heads) = (model.config().n_layers, model.config().n_heads);
    let all: Vec<Head> = (0..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head))).collect();
    let mut with_roles: BTreeMap<Head, Vec<(Role, f32)>> = BTreeMap::new();
    for &(head, role, effect) in evidence {
        with_roles.entry(head).or_default().push((role, effect));
    }
    for roles in with_roles.values_mut() {
        roles.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    }
    let effects: Vec<_> = steps.iter().map(|step| step.effects()).collect();
    let strength = |(layer, head): Head| {
        let of_steps = effects.iter().map(|effects| effects[[layer, head]].abs());
        let of_roles = with_roles.get(&(layer, head)).into_iter().flatten().map(|(_, effect)| effect.abs());
        of_steps.chain(of_roles).fold(0.0_f32, f32::max)
    };
    let mut ranked: Vec<(Head, f32)> = all.iter().map(|&head| (head, strength(head))).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let sizes = sizes(all.len());
    let first = |n: usize| ranked[..n].iter().map(|(head, _)| *head).collect::<BTreeSet<Head>>();
    let sets: Vec<BTreeSet<Head>> = sizes.iter().map(|&n| first(n)).collect();
    let means = data.means(model, options(model, data.pairs.width()).prompt_batch)?;
    let curve = carried(model, (data, &means), &sets, &all, "what the strongest heads carry")?;
    let best = |a: &&Carried, b: &&Carried| (a.kept - a.removed).total_cmp(&(b.kept - b.removed));
    let enough = |margin: f64| curve.iter().find(|c| c.is_enough(margin));
    let chosen = enough(MARGIN).or_else(|| enough(0.0)).or_else(|| curve.iter().max_by(best)).copied();
    let chosen = chosen.unwrap_or(Carried { heads: 0, kept: 0.0, removed: 1.0 });
    let random: Vec<BTreeSet<Head>> = random_sets(&all, chosen.heads, arguments.seed);
    let random = carried(model, (data, &means), &random, &all, "what random heads carry")?;
    let on_others = carried(
        model,
        (other, &other.means(model, options(model, other.pairs.width()).prompt_batch)?),
        &[first(chosen.heads)],
        &all,
        "what the circuit carries on other prompts",
    )?;
    let members = ranked[..chosen.heads].iter().map(|&(head, strength)| Member {
        head,
        strength,
        roles: with_roles.get(&head).cloned().unwrap_or_else(|| vec![(Role::Completing, strength)]),
    });
    let members = members.collect();
    let is_enough = chosen.is_enough(0.0);
    Ok(Circuit { members, curve, carried: chosen, on_others: on_others[0], is_enough, random, with_roles })
}

/// The numbers of heads that are tried: all up to 40, then farther and farther apart.
fn sizes(heads: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = (1..heads.min(41)).collect();
    while let Some(&last) = sizes.last() {
        let next = last + (last / 8).max(1);
        if next >= heads {
            break;
        }
        sizes.push(next);
    }
    sizes
}

/// Different random heads, drawn from a seed.
fn random_sets(all: &[Head], n: usize, seed: u64) -> Vec<BTreeSet<Head>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let draw = |_| {
        let mut pool = all.to_vec();
        let mut set = BTreeSet::new();
        while set.len() < n.min(all.len()) {
            let i = ((u64::from(rng.next_u32()) * pool.len() as u64) >> 32) as usize;
            set.insert(pool.swap_remove(i));
        }
        set
    };
    (0..RANDOM).map(draw).collect()
}

/// What sets of heads carry, where the others, or they, have these means.
fn carried<B: Backend>(
    model: &Transformer<B>,
    (data, means): (&Data, &Intervention<B>),
    sets: &[BTreeSet<Head>],
    all: &[Head],
    what: &str,
) -> anyhow::Result<Vec<Carried>> {
    let node = |&(layer, head): &Head| Node::new(layer, Component::HeadZ).unit(head);
    let groups: Vec<Vec<Node>> = sets
        .iter()
        .flat_map(|set| {
            let others = all.iter().filter(|head| !set.contains(head)).map(node).collect();
            [others, set.iter().map(node).collect()]
        })
        .collect();
    let metric = LogitDiff::new(&data.pairs);
    let found = with_bar(what, |progress| {
        let options = Options { scale: Scale::Metric, progress, ..options(model, data.pairs.width()) };
        ablate_groups(model, &data.pairs, &metric, &groups, means, &options)
    })?;
    let [clean, _] = found.baselines.means();
    let left: Vec<f64> = found.mean().iter().map(|change| (clean + f64::from(*change)) / clean).collect();
    let of_set = |(set, left): (&BTreeSet<Head>, &[f64])| Carried { heads: set.len(), kept: left[0], removed: left[1] };
    Ok(sets.iter().zip(left.chunks(2)).map(of_set).collect())
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
    use super::*;

    #[test]
    fn sizes_grow_and_stop_before_all() {
        assert_eq!(sizes(5), [1, 2, 3, 4]);
        let of_gpt2 = sizes(144);
        assert!(of_gpt2.windows(2).all(|w| w[0] < w[1]) && of_gpt2.last().is_some_and(|n| *n < 144 && *n > 120));
    }

    #[test]
    fn random_sets_are_of_their_size_and_differ() {
        let all: Vec<Head> = (0..32).map(|i| (i / 8, i % 8)).collect();
        let sets = random_sets(&all, 10, 3);
        assert!(sets.iter().all(|set| set.len() == 10));
        assert_ne!(sets[0], sets[1]);
        assert_eq!(sets, random_sets(&all, 10, 3));
    }

    #[test]
    fn recall_and_precision_count_heads() {
        let set = |heads: &[Head]| heads.iter().copied().collect();
        let comparison = Comparison::new("", set(&[(9, 9), (9, 6), (10, 0)]), set(&[(9, 9), (9, 6), (1, 1), (2, 2)]));
        assert_eq!(comparison.recall_and_precision(), [Some(2.0 / 3.0), Some(0.5)]);
        assert_eq!(Comparison::new("", set(&[]), set(&[])).recall_and_precision(), [None, None]);
    }
}
