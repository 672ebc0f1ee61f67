//! Rows of the tables that the summary and the report print.

use std::collections::BTreeSet;

use rewire_analysis::heads::Suppression;
use rewire_circuits::{AttentionProbe, Carried, Random};
use rewire_hooks::Head;
use rewire_report::Columns;
use rewire_studies::pythia::{Comparison, Member};

use super::sentences::names;
use super::shown::{Found, Step};
use rewire_report::numbers::{number, signed};

/// Header of [`published_rows`].
pub(super) const PUBLISHED: [&str; 5] = ["class", "published", "found", "recall", "precision"];

/// Returns one row per class: the published heads and the found heads.
pub(super) fn published_rows(found: &Found) -> Vec<Vec<String>> {
    let row = |row: Comparison| {
        let share = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{share:.2}"));
        let [recall, precision] = row.recall_and_precision().map(share);
        let heads = |set: &BTreeSet<Head>| match row.class {
            class if class.starts_with("any") => set.len().to_string(),
            _ => names(set.iter().copied()),
        };
        vec![row.class.to_owned(), heads(&row.published), heads(&row.found), recall, precision]
    };
    found.circuit.against_published().into_iter().map(row).collect()
}

/// Header of [`member_rows`].
pub(super) const MEMBERS: [&str; 6] =
    ["head", "class", "effects (share)", "copy score", "negative copy score", "largest attention (0 to 1)"];

/// Returns one row per head of the circuit.
pub(super) fn member_rows(found: &Found) -> Vec<Vec<String>> {
    let row = |m: &Member| {
        let Head { layer, head } = m.head;
        let roles: Vec<&str> = m.roles.iter().map(|(role, _)| role.name()).collect();
        let evidence: Vec<String> = found
            .steps
            .iter()
            .map(|(name, step)| (name, step.effects()[[layer, head]]))
            .filter(|(_, effect)| effect.abs() >= 0.005)
            .map(|(name, effect)| format!("{name} {effect:+.3}"))
            .collect();
        let look = AttentionProbe::ALL
            .into_iter()
            .max_by(|&a, &b| found.looks.of(a, m.head).total_cmp(&found.looks.of(b, m.head)));
        let look = look.map_or(String::new(), |look| format!("{} {:.2}", look.name(), found.looks.of(look, m.head)));
        let evidence = if evidence.is_empty() { format!("{:.3}", m.strength) } else { evidence.join(", ") };
        vec![
            m.head.to_string(),
            roles.join("; "),
            evidence,
            format!("{:.0}%", found.copying[0].positive[[layer, head]]),
            format!("{:.0}%", found.copying[0].negative[[layer, head]]),
            look,
        ]
    };
    found.circuit.members.iter().map(row).collect()
}

/// Returns the shares kept and left for the circuit and for sets of random heads of the same size.
pub(super) fn carried_rows(found: &Found) -> Vec<Vec<String>> {
    let circuit = &found.circuit;
    let [choosing, judging] = circuit.prompts;
    let with_interval =
        |share: f64, [low, high]: [f64; 2]| format!("{} ({} to {})", percent(share), percent(low), percent(high));
    let row = |name: String, c: &Carried| {
        let [kept, left] = c.intervals;
        let shares = [with_interval(c.shares.kept, kept), with_interval(c.shares.left, left)];
        let [kept, left] = shares;
        vec![name, c.heads.len().to_string(), kept, left, "-".to_owned()]
    };
    let mut rows = vec![
        row(format!("the circuit, judged on {judging} prompts"), &circuit.judged),
        row(format!("the circuit, on the {choosing} prompts that chose it"), &circuit.on_choosing),
    ];
    let Random { from, sets } = &circuit.random;
    let ends = |of: fn(&Carried) -> f64| {
        let all = || sets.iter().map(of);
        let [low, high] = [all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max)];
        with_interval(all().sum::<f64>() / sets.len() as f64, [low, high])
    };
    let [kept, left] = circuit.random.ranks(&circuit.judged).map(|rank| format!("{rank} of {}", sets.len() + 1));
    rows.push(vec![
        format!("random heads, {} sets from {from}, judged: mean (range)", sets.len()),
        circuit.judged.heads.len().to_string(),
        ends(|c| c.shares.kept),
        ends(|c| c.shares.left),
        format!("{kept}, {left}"),
    ]);
    rows
}

/// Header of [`carried_rows`].
pub(super) const CARRIED: [&str; 5] =
    ["heads", "number", "kept alone (share)", "left without (share)", "circuit's rank"];

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

/// Returns header and rows of a table of the `n` heads of largest effect in a step.
pub(super) fn step_table(step: &Step, n: usize) -> (Vec<String>, Vec<Vec<String>>) {
    let mut heads: Vec<(Head, f32)> = step.effects().indexed_iter().map(|(place, v)| (place.into(), *v)).collect();
    heads.retain(|(_, effect)| effect.abs() >= 5e-5);
    heads.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    heads.truncate(n);
    let places: Vec<Vec<usize>> = heads.iter().map(|(head, _)| vec![head.layer, head.head]).collect();
    let Columns { header, rows } = step.certainty.columns(&step.outcome.effects[0], &places);
    let row = |((head, effect), sure): (&(Head, f32), Vec<String>)| {
        let name = step.certainty.marked(head.to_string(), &[head.layer, head.head]);
        [name, signed(*effect)].into_iter().chain(sure).collect()
    };
    let header = ["head", "effect (share)"].map(str::to_owned).into_iter().chain(header).collect();
    (header, heads.iter().zip(rows).map(row).collect())
}

/// Returns the table row for a head's copy suppression.
pub(super) fn suppression_row(s: &Suppression) -> Vec<String> {
    vec![
        s.head.to_string(),
        number(s.ablated as f32),
        number(s.preserved as f32),
        // Adding 0 turns a score that rounds to -0 into 0.
        s.score().map_or("-".to_owned(), |score| format!("{:.1}%", (1000.0 * score).round() / 10.0 + 0.0)),
    ]
}
