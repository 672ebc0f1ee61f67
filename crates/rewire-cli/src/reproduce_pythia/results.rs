//! What was found, as tables, JSON and words.

use ndarray::{Array1, ArrayD, IxDyn};
use rewire_analysis::Method;
use rewire_analysis::heads::Suppression;
use rewire_analysis::path::{Input, Receiver};
use rewire_analysis::run::{Direction, Scale};
use rewire_circuits::{Carried, KEPT, LEFT, Look, Random, STABLE};
use rewire_hooks::Head;
use rewire_report::{Prompts, Table};
use rewire_studies::Check;
use rewire_studies::pythia::{Circuit, Comparison, Member};
use serde_json::{Value, json};

use super::Arguments;
use super::shown::{Found, Step};
use crate::model::Source;
use crate::output::text_table;
use crate::session::Session;
use rewire_report::names::head_name;
use rewire_report::{Columns, describe_clusters};

/// Names of heads, or a dash.
pub(super) fn names(heads: impl IntoIterator<Item = Head>) -> String {
    let names: Vec<String> = heads.into_iter().map(|head| head.to_string()).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(" ") }
}

pub(super) fn tables(found: &Found) -> Vec<Table> {
    let mut tables = Vec::new();
    for effects in &found.parts.effects {
        tables.push(Table::new(format!("parts/{}", effects.kind), effects, Prompts::Each, &found.parts));
    }
    for (name, step) in &found.steps {
        for effects in &step.outcome.effects {
            tables.push(Table::new(format!("path/{name}/{}", effects.kind), effects, Prompts::Each, &step.outcome));
        }
    }
    for effects in &found.attribution.effects {
        let name = format!("logit-attribution/{}", effects.kind);
        tables.push(Table::new(name, effects, Prompts::Each, &found.attribution));
    }
    let plain = |name: String, axes: &[&str], values: ArrayD<f32>| Table {
        name,
        axes: axes.iter().map(|axis| (*axis).to_owned()).collect(),
        values,
        method: None,
        direction: None,
        scale: Some(Scale::Metric),
        prompts_by_position: None,
    };
    for (scores, norms) in found.copying.iter().zip(["without-norms", "with-norms"]) {
        for (sign, values) in [("positive", &scores.positive), ("negative", &scores.negative)] {
            let values = values.clone().into_dyn();
            tables.push(plain(format!("copy-scores/{norms}/{sign}"), &["layer", "head"], values));
        }
    }
    for look in Look::ALL {
        let name = format!("attention/{}", look.name().replace(' ', "-"));
        tables.push(plain(name, &["layer", "head"], found.looks.map(look).clone().into_dyn()));
    }
    if let Some(backup) = &found.backup {
        for (when, values) in [("before", &backup.before), ("after", &backup.after)] {
            let values = values.clone().into_dyn();
            tables.push(plain(format!("backup/{when}"), &["prompt", "layer", "head"], values));
        }
    }
    let (layers, heads) = (found.direct.effects().nrows(), found.direct.effects().ncols());
    let mut edges = ArrayD::from_elem(IxDyn(&[layers, heads, 3, layers, heads]), f32::NAN);
    let means: Array1<f32> = found.edges.exact.outcome.mean();
    for (edge, effect) in found.edges.exact.edges.iter().zip(means) {
        let input = [Input::Q, Input::K, Input::V].iter().position(|input| *input == edge.input).unwrap_or(0);
        let index = [edge.to.layer, edge.to.head, input, edge.from.layer, edge.from.head];
        edges[IxDyn(&index)] = effect;
    }
    tables.push(Table {
        method: Some(Method::PathPatching),
        direction: Some(Direction::Noising),
        scale: Some(Scale::Normalised),
        ..plain("edges".to_owned(), &["layer_end", "head_end", "input", "layer_start", "head_start"], edges)
    });
    tables
}

pub(super) fn notes(found: &Found, arguments: &Arguments) -> Value {
    let receivers = |step: &Step| step.receivers.iter().map(ToString::to_string).collect::<Vec<_>>();
    let receivers: Value =
        found.steps.iter().map(|(name, step)| ((*name).to_owned(), json!(receivers(step)))).collect();
    let name = |place: &[usize]| head_name(place[0], place[1]);
    let sure = found
        .steps
        .iter()
        .map(|(table, step)| ((*table).to_owned(), step.certainty.describe(&step.outcome.effects[0], name)));
    let mut uncertainty = describe_clusters(&found.data.pairs.clusters(), arguments.seed);
    uncertainty["steps"] = sure.collect();
    json!({
        "uncertainty": uncertainty,
        "corrupted": "S2 turned to IO (the notebook calls it ABC)",
        "threshold": shown(arguments.threshold),
        "bos_in_front": found.data.has_bos,
        "movers": names(found.movers.iter().copied()),
        "freeze": "path-patching",
        "receivers": receivers,
        "edges": {
            "all": found.edges.all, "patched_exactly": found.edges.exact.edges.len(), "threshold": found.edges.threshold,
            "meaning_of_nan": "no such path, or one that was not patched",
        },
        "attention_is": "share of a position's attention, mean over the clean prompts",
        "copy_scores_are": "per cent of IO, S1 and S2 among the five tokens of largest logit",
    })
}

/// A number as it was typed.
fn shown(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}

/// The circuit, as JSON.
pub(super) fn circuit(source: &Source, found: &Found, arguments: &Arguments) -> Value {
    let circuit = &found.circuit;
    let member = |m: &Member| {
        let Head { layer, head } = m.head;
        let roles: Vec<Value> =
            m.roles.iter().map(|(role, effect)| json!({ "class": role.name(), "effect": effect })).collect();
        let looks: Value =
            Look::ALL.iter().map(|&look| (look.name().to_owned(), json!(found.looks.of(look, m.head)))).collect();
        let effects: Value =
            found.steps.iter().map(|(name, step)| ((*name).to_owned(), json!(step.effects()[[layer, head]]))).collect();
        let [plain, normed] = &found.copying;
        json!({
            "name": head_name(layer, head), "layer": layer, "head": head, "strength": m.strength, "classes": roles,
            "effects": effects, "attention": looks,
            "copy_score": { "without_norms": plain.positive[[layer, head]], "with_norms": normed.positive[[layer, head]] },
            "negative_copy_score":
                { "without_norms": plain.negative[[layer, head]], "with_norms": normed.negative[[layer, head]] },
        })
    };
    let all = circuit.with_roles.iter().map(|(head, roles)| {
        let is_member = circuit.members.iter().any(|member| member.head == *head);
        let classes: Vec<Value> =
            roles.iter().map(|(role, effect)| json!({ "class": role.name(), "effect": effect })).collect();
        json!({ "name": head.to_string(), "classes": classes, "member": is_member })
    });
    let inhibition = found.inhibition.iter().map(|inhibition| {
        let [s2, change, s1] = inhibition.means();
        json!({
            "name": inhibition.head.to_string(), "end_to_s2_attention": s2,
            "logit_difference_change": change, "movers_s1_attention_change": s1,
        })
    });
    let suppression = found.suppression.iter().map(|s| {
        json!({
            "name": s.head.to_string(), "kl_mean_ablated": s.ablated, "kl_suppression_preserved": s.preserved,
            "score": s.score(),
        })
    });
    let backup = found.backup.as_ref().map(|backup| {
        let taken = backup.taken_over();
        let shares: Value =
            taken.indexed_iter().map(|((layer, head), share)| (head_name(layer, head), json!(share))).collect();
        let [before, after] = backup.logit_differences();
        json!({
            "ablated": names(backup.ablated.iter().copied()), "logit_difference_before": before,
            "logit_difference_after": after, "taken_over": shares,
        })
    });
    let [kept, removed] = circuit.random.ranks(&circuit.judged);
    let random = json!({
        "from": circuit.random.from, "sets": circuit.random.sets.iter().map(carried).collect::<Vec<_>>(),
        "rank_of_circuit": { "kept": kept, "removed": removed, "of": circuit.random.sets.len() + 1 },
    });
    let reference = circuit
        .reference
        .iter()
        .map(|(&(template, tokens), n)| json!({ "template": template, "tokens": tokens, "prompts": n }));
    let published: Value = match source.is_gpt2_small() {
        false => Value::Null,
        true => circuit.against_published().iter().map(compared).collect(),
    };
    json!({
        "model": source.name,
        "seed": arguments.seed,
        "prompts": found.data.pairs.len(),
        "choose_prompts": circuit.prompts[0],
        "judge_prompts": circuit.prompts[1],
        "reference_prompts": reference.collect::<Vec<_>>(),
        "threshold": shown(arguments.threshold),
        "members": circuit.members.iter().map(member).collect::<Vec<_>>(),
        "carried": carried(&circuit.judged),
        "carried_on_choosing_prompts": carried(&circuit.on_choosing),
        "bars": { "kept": KEPT, "removed": LEFT },
        "meets_the_bars": circuit.judged.shares.meet_the_bars() && not_the_task(found).is_none(),
        "does_the_task": not_the_task(found).is_none(),
        "meaning": "shares of the clean logit difference on the judging prompts: kept, with all other heads mean-ablated; removed, with \
                    these mean-ablated; intervals are 95% bootstrap intervals over prompts",
        "random": random,
        "curve_on_choosing_prompts": circuit.curve.iter().map(carried).collect::<Vec<_>>(),
        "found": all.collect::<Vec<_>>(),
        "s2_inhibition": inhibition.collect::<Vec<_>>(),
        "copy_suppression": suppression.collect::<Vec<_>>(),
        "backups": backup,
        "graph": found.graph.to_json(),
        "published": published,
    })
}

fn carried(c: &Carried) -> Value {
    json!({
        "heads": c.heads.len(), "kept": c.shares.kept, "removed": c.shares.left, "kept_interval": c.intervals[0],
        "removed_interval": c.intervals[1], "share_of_resamples_that_meet_the_bars": c.stability,
    })
}

fn compared(row: &Comparison) -> Value {
    let [recall, precision] = row.recall_and_precision();
    let heads = |set: &std::collections::BTreeSet<Head>| names(set.iter().copied());
    json!({
        "class": row.class, "recall": recall, "precision": precision, "published": heads(&row.published),
        "found": heads(&row.found),
    })
}

pub(super) const PUBLISHED: [&str; 5] = ["class", "published", "found", "recall", "precision"];

/// The published circuit beside ours.
pub(super) fn published_rows(found: &Found) -> Vec<Vec<String>> {
    let row = |row: Comparison| {
        let share = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{share:.2}"));
        let [recall, precision] = row.recall_and_precision().map(share);
        let heads = |set: &std::collections::BTreeSet<Head>| match row.class {
            class if class.starts_with("any") => set.len().to_string(),
            _ => names(set.iter().copied()),
        };
        vec![row.class.to_owned(), heads(&row.published), heads(&row.found), recall, precision]
    };
    found.circuit.against_published().into_iter().map(row).collect()
}

pub(super) const MEMBERS: [&str; 6] = ["head", "class", "evidence", "copy score", "negative", "looks most"];

/// A row a head of the circuit.
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
        let look =
            Look::ALL.into_iter().max_by(|&a, &b| found.looks.of(a, m.head).total_cmp(&found.looks.of(b, m.head)));
        let look = look.map_or(String::new(), |look| format!("{} {:.2}", look.name(), found.looks.of(look, m.head)));
        let evidence = if evidence.is_empty() { format!("{:.3}", m.strength) } else { evidence.join(", ") };
        vec![
            head_name(layer, head),
            roles.join("; "),
            evidence,
            format!("{:.0}%", found.copying[0].positive[[layer, head]]),
            format!("{:.0}%", found.copying[0].negative[[layer, head]]),
            look,
        ]
    };
    found.circuit.members.iter().map(row).collect()
}

/// What the circuit and as many random heads carry.
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

pub(super) const CARRIED: [&str; 5] = ["heads", "number", "kept alone", "left without", "circuit's rank"];

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

/// Whether the circuit meets the bars on the judging prompts, and whether the search found one that
/// met them reliably.
pub(super) fn verdict(found: &Found) -> String {
    let Circuit { judged, on_choosing, prompts: [choosing, judging], .. } = &found.circuit;
    let verb = if judged.shares.meet_the_bars() { "meets" } else { "does not meet" };
    let mut text = format!(
        "The circuit {verb} the bars on the {judging} judging prompts; {:.1}% of their resamples do. The bars: {:.0}% to {:.0}% of the \
         logit difference is kept alone, and {:.0}% to {:.0}% is left without the circuit.",
        100.0 * judged.stability,
        100.0 * KEPT[0],
        100.0 * KEPT[1],
        100.0 * LEFT[0],
        100.0 * LEFT[1],
    );
    if on_choosing.stability < STABLE {
        text += &format!(
            " No set of heads that was tried meets them in {:.1}% of the resamples of the {choosing} choosing prompts: this one comes \
             nearest, with {:.1}%.",
            100.0 * STABLE,
            100.0 * on_choosing.stability
        );
    }
    text
}

/// How many reference prompts the means of ablated heads are over.
pub(super) fn reference(found: &Found) -> String {
    let counts = &found.circuit.reference;
    let [fewest, most] = [counts.values().min(), counts.values().max()].map(|n| n.copied().unwrap_or_default());
    let n = if fewest == most { fewest.to_string() } else { format!("{fewest} to {most}") };
    format!("Means are over {n} prompts of three different names for each of {} templates and lengths.", counts.len())
}

/// The heads of largest effect in a step: header and rows.
pub(super) fn step_table(step: &Step, n: usize) -> (Vec<String>, Vec<Vec<String>>) {
    let mut heads: Vec<(Head, f32)> = step.effects().indexed_iter().map(|(place, v)| (place.into(), *v)).collect();
    heads.retain(|(_, effect)| effect.abs() >= 5e-5);
    heads.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    heads.truncate(n);
    let places: Vec<Vec<usize>> = heads.iter().map(|(head, _)| vec![head.layer, head.head]).collect();
    let Columns { header, rows } = step.certainty.columns(&step.outcome.effects[0], &places);
    let row = |((head, effect), sure): (&(Head, f32), Vec<String>)| {
        let name = step.certainty.marked(head.to_string(), &[head.layer, head.head]);
        [name, format!("{effect:+.4}")].into_iter().chain(sure).collect()
    };
    let header = ["head", "effect"].map(str::to_owned).into_iter().chain(header).collect();
    (header, heads.iter().zip(rows).map(row).collect())
}

pub(super) fn summary(session: &Session, source: &Source, found: &Found, checks: &[Check]) -> String {
    let [clean, corrupted] = found.parts.baselines.means();
    let mut text = format!(
        "{} on {}: {} prompts, logit difference {clean:.4}, corrupted {corrupted:.4}; right on {:.1}%\n",
        source.name,
        session.device(),
        found.data.pairs.len(),
        100.0 * found.right
    );
    text += &not_the_task(found).map_or_else(String::new, |told| format!("{told}\n"));
    for (name, step) in &found.steps {
        text += &format!("\npath patching, {name}: into {}\n", receivers(step));
        let (header, rows) = step_table(step, 6);
        text += &text_table(&header.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
        text += &format!("  {}\n", step.certainty.in_words());
    }
    text += "\nthe circuit\n";
    text += &text_table(&MEMBERS, &member_rows(found));
    text += "\nshares of the logit difference (95% bootstrap interval over prompts)\n";
    text += &text_table(&CARRIED, &carried_rows(found));
    text += &format!("{}\n{}\n", verdict(found), reference(found));
    if source.is_gpt2_small() {
        text += "\nbeside the published circuit\n";
        text += &text_table(&PUBLISHED, &published_rows(found));
    }
    if !checks.is_empty() {
        text += "\nagainst the figures that the notebook prints, on its own prompts\n";
        text += &text_table(&Check::HEADER, &checks.iter().map(Check::row).collect::<Vec<_>>());
    }
    text
}

/// Share of right answers under which a model does not do the task.
const DOES_IT: f64 = 0.75;

/// What is said where the model does not do the task, or the corruption does not undo it.
pub(super) fn not_the_task(found: &Found) -> Option<String> {
    let [clean, corrupted] = found.parts.baselines.means();
    let does_it = found.right >= DOES_IT && clean > 0.0 && clean > corrupted;
    (!does_it).then(|| {
        format!(
            "The model does not do this task: it has IO above S on {:.0}% of the prompts, and its mean logit difference is \
             {clean:.4}, corrupted {corrupted:.4}. What follows is no circuit for it, and its signs and shares mean nothing.",
            100.0 * found.right
        )
    })
}

/// What a step goes into, and which of it no head reaches.
pub(super) fn receivers(step: &Step) -> String {
    let list = |all: &[Receiver]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match step.unreached.as_slice() {
        [] => list(&step.receivers),
        unreached => {
            format!("{} (nothing reaches {})", list(&step.receivers), list(unreached))
        }
    }
}

/// A head's copy suppression, as a row of a table.
pub(super) fn suppression_row(s: &Suppression) -> Vec<String> {
    vec![
        s.head.to_string(),
        format!("{:.5}", s.ablated),
        format!("{:.5}", s.preserved),
        // Adding 0 turns a score that rounds to -0 into 0.
        s.score().map_or("-".to_owned(), |score| format!("{:.1}%", (1000.0 * score).round() / 10.0 + 0.0)),
    ]
}
