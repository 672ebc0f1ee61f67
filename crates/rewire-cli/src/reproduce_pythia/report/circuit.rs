//! The circuit: its heads, its paths, and how much of the behavior it carries.

use rewire_circuits::HeadRole;
use rewire_hooks::Head;
use rewire_report::Page;
use rewire_report::charts;

use crate::model::Source;
use crate::reproduce_pythia::rows;
use crate::reproduce_pythia::sentences;
use crate::reproduce_pythia::shown::Found;

/// Edges that a drawing still shows apart.
const DRAWN: usize = 60;

pub(super) fn summary(page: &mut Page, source: &Source, found: &Found) {
    let circuit = &found.circuit;
    page.section(
        "The circuit in short",
        "Heads found step by step, by what they do. The circuit is the fewest, strongest first, that carry the behavior alone on the prompts \
         that chose it; its figures are of the judging prompts, unless they say otherwise.",
    );
    if let Some(told) = sentences::not_the_task(found) {
        page.text(&told);
    }
    let is_member = |head: &Head| circuit.members.iter().any(|member| member.head == *head);
    let of = |role: HeadRole| {
        let has = circuit.with_roles.iter().filter(move |(_, roles)| roles.iter().any(|(r, _)| *r == role));
        let (inside, outside): (Vec<Head>, Vec<Head>) = has.map(|(head, _)| *head).partition(is_member);
        vec![role.name().to_owned(), sentences::names(inside), sentences::names(outside)]
    };
    let mut rows: Vec<_> = HeadRole::ALL.map(of).into_iter().filter(|row| row[1] != "-" || row[2] != "-").collect();
    let completing: Vec<Head> =
        circuit.members.iter().map(|m| m.head).filter(|head| !circuit.with_roles.contains_key(head)).collect();
    if !completing.is_empty() {
        rows.push(vec![HeadRole::Completing.name().to_owned(), sentences::names(completing), "-".to_owned()]);
    }
    page.table(&["class", "in the circuit", "found, and not needed"], rows);
    page.table(&rows::CARRIED, rows::carried_rows(found));
    page.text(&sentences::verdict(found));
    if source.is_gpt2_small() {
        page.text("The published heads of GPT-2 small stand beside these under \"The published circuit\".");
    }
}

pub(super) fn paths(page: &mut Page, found: &Found) {
    let edges = &found.edges;
    let how = match edges.exact.edges.len() == edges.all {
        true => format!("All {} paths", edges.all),
        false => format!(
            "The {} paths of largest attribution, of {} (the effects of the others are not known)",
            edges.exact.edges.len(),
            edges.all
        ),
    };
    page.section(
        "Paths between heads",
        &format!(
            "{how} from one head's output to another's query, key or value were patched exactly, each alone, noising. Kept are those of \
             {:.4} and more, {} of them; drawn, with the direct effects on the logits, are at most {DRAWN}; dashed ones work against the \
             behavior; heads of the circuit have a heavy border. Point at a line or a head for its effect or class. circuit.dot \
             (Graphviz) and circuit.json hold the whole graph. The largest 20:",
            edges.threshold,
            edges.pruned.len()
        ),
    );
    page.graph(found.graph.strongest(DRAWN));
    let row = |(edge, effect): &(rewire_analysis::path::Edge, f32)| {
        vec![format!("{} → {} {}", edge.from, edge.to, edge.input), format!("{effect:+.4}")]
    };
    page.table(&["path", "effect"], edges.pruned.iter().take(20).map(row).collect());
}

pub(super) fn members(page: &mut Page, found: &Found) {
    page.section(
        "The circuit's heads",
        "Strongest first, by the largest effect in any step. \"completing\": below the threshold in every step, and still among the \
         fewest that carry the behavior.",
    );
    page.table(&rows::MEMBERS, rows::member_rows(found));
}

pub(super) fn faithfulness(page: &mut Page, found: &Found) {
    page.section(
        "What the circuit carries",
        "Kept alone: every other head's output is replaced by its mean over prompts of three different names, of the same template and \
         length, position by position. Left without: these heads are replaced, and all others kept. Both are shares of the clean logit \
         difference, with 95% bootstrap intervals over prompts. MLPs are kept in both. The heads are chosen on one set of prompts and judged \
         on another: the first row is the one that counts. The circuit is the fewest heads, strongest first, that meet both bars in 99.9% of \
         the resamples of the choosing prompts. Such figures move with the kind of ablation; they are of this one.",
    );
    page.table(&rows::CARRIED, rows::carried_rows(found));
    page.text(&sentences::verdict(found));
    page.text(&sentences::reference(found));
    let curve = &found.circuit.curve;
    let places: Vec<f64> = curve.iter().map(|c| c.heads.len() as f64).collect();
    let kept: Vec<f32> = curve.iter().map(|c| c.shares.kept as f32).collect();
    let removed: Vec<f32> = curve.iter().map(|c| c.shares.left as f32).collect();
    let curves = [("kept alone".to_owned(), kept), ("left without".to_owned(), removed)];
    let axes = ["heads, strongest first", "share of the logit difference"];
    page.chart(charts::curves("The strongest heads, on the prompts that chose the circuit", &places, &curves, axes));
}

pub(super) fn published(page: &mut Page, found: &Found) {
    page.section(
        "The published circuit",
        "The 26 heads of Wang et al. 2022, by class. Recall: the share of a class that is found with that class here; precision: the \
         share of those found that are of it. The last row is of the circuit's heads, whatever their class.",
    );
    page.table(&rows::PUBLISHED, rows::published_rows(found));
}

pub(super) fn reading(page: &mut Page, source: &Source) {
    page.section("How to read this", "");
    page.text(
        "Effects of path patching are changes of the clean run's logit difference, as a share of clean less corrupted: -1 is all of it \
         gone and turned round. A class is given by the step that finds a head and by where it looks (more than a tenth of its attention, \
         mean over prompts): END to S2, and more there than at IO and at S1, for S-inhibition; S2 to S1 for duplicate token; S2 to the token behind S1 for induction; that \
         token to S1 for previous token. A backup adds more to the logits once the movers are set to zero. A head may have several.",
    );
    if !source.is_processed() {
        page.text(
            "Weights are as the files have them: copy scores without norms leave the gains of the head's norm and of the final norm out.",
        );
    }
}
