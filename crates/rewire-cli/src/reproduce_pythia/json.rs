//! The notes in effects.json, and circuit.json.

use std::collections::BTreeSet;

use rewire_analysis::heads::{Backup, Inhibition, Suppression};
use rewire_circuits::{AttentionProbe, Carried, HeadRole, KEPT, LEFT, Random};
use rewire_hooks::Head;
use rewire_report::describe_clusters;
use rewire_report::names::head_name;
use rewire_studies::pythia::{Circuit, Comparison, Member};
use serde_json::{Value, json};

use super::arguments::Arguments;
use super::sentences::{names, not_the_task};
use super::shown::{Found, Step};
use crate::model::Source;
use crate::provenance::provenance;
use crate::session::Session;

/// Returns the notes on the tables, for effects.json.
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
        "corrupted": "S2 replaced by IO (the notebook calls it ABC)",
        "threshold": as_typed(arguments.threshold),
        "bos_in_front": found.data.has_bos,
        "movers": names(found.movers.iter().copied()),
        "freeze": "path-patching",
        "receivers": receivers,
        "edges": {
            "all": found.edges.all, "patched_exactly": found.edges.exact.edges.len(), "threshold": found.edges.threshold,
            "meaning_of_nan": "the path does not exist or was not patched",
        },
        "attention_is": "share of the destination's attention, mean over the clean prompts",
        "copy_scores_are": "percentage of names (IO, S1, S2) among the five tokens of largest logit",
    })
}

/// Returns a number with the digits that the user typed.
fn as_typed(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}

/// Returns circuit.json: the circuit, its shares, and all heads with a class. It has the command
/// and the provenance of effects.json.
pub(super) fn circuit(
    session: &Session,
    source: &Source,
    found: &Found,
    arguments: &Arguments,
) -> anyhow::Result<Value> {
    let circuit = &found.circuit;
    Ok(json!({
        "model": source.name,
        "command": session.command(),
        "provenance": provenance(session, source)?,
        "seed": arguments.seed,
        "prompts": found.data.pairs.len(),
        "choose_prompts": circuit.prompts[0],
        "judge_prompts": circuit.prompts[1],
        "reference_prompts": reference_prompts(circuit),
        "threshold": as_typed(arguments.threshold),
        "members": circuit.members.iter().map(|of| member(found, of)).collect::<Vec<_>>(),
        "carried": carried(&circuit.judged),
        "carried_on_choosing_prompts": carried(&circuit.on_choosing),
        "bars": { "kept": KEPT, "removed": LEFT },
        "meets_the_bars": circuit.judged.shares.meet_the_bars() && not_the_task(found).is_none(),
        "does_the_task": not_the_task(found).is_none(),
        "meaning": "shares of the clean logit difference on the judging prompts. kept: with all heads outside the \
                    circuit mean-ablated. removed: with the circuit's heads mean-ablated. Intervals are 95% bootstrap \
                    intervals over prompts.",
        "random": random_sets(circuit),
        "curve_on_choosing_prompts": circuit.curve.iter().map(carried).collect::<Vec<_>>(),
        "found": with_classes(circuit),
        "s2_inhibition": found.inhibition.iter().map(inhibition).collect::<Vec<_>>(),
        "copy_suppression": found.suppression.iter().map(suppression).collect::<Vec<_>>(),
        "backups": found.backup.as_ref().map(backups),
        "graph": found.graph.to_json(),
        "published": published(source, circuit),
    }))
}

/// Describes a head of the circuit: its classes, its effects in each step, and its attention.
fn member(found: &Found, of: &Member) -> Value {
    let Head { layer, head } = of.head;
    let looks: Value = AttentionProbe::ALL
        .iter()
        .map(|&look| (look.name().to_owned(), json!(found.looks.of(look, of.head))))
        .collect();
    let effects: Value =
        found.steps.iter().map(|(name, step)| ((*name).to_owned(), json!(step.effects()[[layer, head]]))).collect();
    let [plain, normed] = &found.copying;
    json!({
        "name": of.head.to_string(), "layer": layer, "head": head, "strength": of.strength,
        "classes": classes(&of.roles), "effects": effects, "attention": looks,
        "copy_score": { "without_norms": plain.positive[[layer, head]], "with_norms": normed.positive[[layer, head]] },
        "negative_copy_score":
            { "without_norms": plain.negative[[layer, head]], "with_norms": normed.negative[[layer, head]] },
    })
}

/// Describes the classes of a head, each with the effect that gives it.
fn classes(roles: &[(HeadRole, f32)]) -> Vec<Value> {
    roles.iter().map(|(role, effect)| json!({ "class": role.name(), "effect": effect })).collect()
}

/// Describes all heads that have a class, inside and outside the circuit.
fn with_classes(circuit: &Circuit) -> Vec<Value> {
    let head = |(head, roles): (&Head, &Vec<(HeadRole, f32)>)| {
        let is_member = circuit.members.iter().any(|member| member.head == *head);
        json!({ "name": head.to_string(), "classes": classes(roles), "member": is_member })
    };
    circuit.with_roles.iter().map(head).collect()
}

/// Describes a head's S2-inhibition.
fn inhibition(of: &Inhibition) -> Value {
    let [s2, change, s1] = of.means();
    json!({
        "name": of.head.to_string(), "end_to_s2_attention": s2,
        "logit_difference_change": change, "movers_s1_attention_change": s1,
    })
}

/// Describes a head's copy suppression.
fn suppression(of: &Suppression) -> Value {
    json!({
        "name": of.head.to_string(), "kl_mean_ablated": of.ablated,
        "kl_suppression_preserved": of.preserved, "score": of.score(),
    })
}

/// Describes how other heads add to the logit difference after the movers are set to zero.
fn backups(backup: &Backup) -> Value {
    let taken = backup.taken_over();
    let shares: Value =
        taken.indexed_iter().map(|((layer, head), share)| (head_name(layer, head), json!(share))).collect();
    let [before, after] = backup.logit_differences();
    json!({
        "ablated": names(backup.ablated.iter().copied()), "logit_difference_before": before,
        "logit_difference_after": after, "taken_over": shares,
    })
}

/// Describes the shares of the sets of random heads, and the circuit's rank among them.
fn random_sets(circuit: &Circuit) -> Value {
    let Random { from, sets } = &circuit.random;
    let [kept, removed] = circuit.random.ranks(&circuit.judged);
    json!({
        "from": from, "sets": sets.iter().map(carried).collect::<Vec<_>>(),
        "rank_of_circuit": { "kept": kept, "removed": removed, "of": sets.len() + 1 },
    })
}

/// Lists the number of prompts per mean for ablated heads, by template and length.
fn reference_prompts(circuit: &Circuit) -> Vec<Value> {
    let prompts = |(&(template, tokens), n)| json!({ "template": template, "tokens": tokens, "prompts": n });
    circuit.reference.iter().map(prompts).collect()
}

/// Compares the published circuit with ours; null if the model is not GPT-2 small.
fn published(source: &Source, circuit: &Circuit) -> Value {
    match source.is_gpt2_small() {
        false => Value::Null,
        true => circuit.against_published().iter().map(compared).collect(),
    }
}

/// Describes the shares that a set of heads keeps and leaves.
fn carried(c: &Carried) -> Value {
    json!({
        "heads": c.heads.len(), "kept": c.shares.kept, "removed": c.shares.left, "kept_interval": c.intervals[0],
        "removed_interval": c.intervals[1], "share_of_resamples_that_meet_the_bars": c.stability,
    })
}

/// Compares a class of the published circuit with the heads found for it.
fn compared(row: &Comparison) -> Value {
    let [recall, precision] = row.recall_and_precision();
    let heads = |set: &BTreeSet<Head>| names(set.iter().copied());
    json!({
        "class": row.class, "recall": recall, "precision": precision, "published": heads(&row.published),
        "found": heads(&row.found),
    })
}
