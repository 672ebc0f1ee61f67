//! The report's sections on the circuit: its heads, its paths, and its faithfulness.

use rewire_circuits::HeadRole;
use rewire_hooks::Head;
use rewire_report::Page;
use rewire_report::charts;

use crate::model::Source;
use crate::reproduce_pythia::rows;
use crate::reproduce_pythia::sentences;
use crate::reproduce_pythia::shown::Found;

/// Largest number of edges in the drawing.
const DRAWN: usize = 60;

pub(super) fn summary(page: &mut Page, source: &Source, found: &Found) {
    let circuit = &found.circuit;
    page.section(
        "The circuit in short",
        "The heads that the steps found, by class. The circuit is the smallest number of strongest heads that \
         meets the bars on the choosing prompts. Its shares are on the judging prompts unless they are \
         labeled otherwise.",
    );
    if let Some(warning) = sentences::not_the_task(found) {
        page.text(&warning);
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
    page.table(&["class", "in the circuit", "found, not in the circuit"], rows);
    page.table(&rows::CARRIED, rows::carried_rows(found));
    page.text(&sentences::verdict(found));
    if source.is_gpt2_small() {
        page.text(
            "The section \"The published circuit\" compares these heads with the published heads of GPT-2 small.",
        );
    }
}

pub(super) fn paths(page: &mut Page, found: &Found) {
    let edges = &found.edges;
    let how = match edges.exact.edges.len() == edges.all {
        true => format!("All {} paths were patched exactly.", edges.all),
        false => format!(
            "The {} paths of largest attribution (of {}) were patched exactly; the effects of the others are unknown.",
            edges.exact.edges.len(),
            edges.all
        ),
    };
    page.section(
        "Paths between heads",
        &format!(
            "A path goes from the output of one head to the query, key or value of another. {how} Each patch is of one \
             path, noising. The graph keeps the {} paths with an absolute effect of at least {:.4}. The drawing shows \
             at most {DRAWN} paths and direct effects on the logits. Dashed lines work against the behavior. Heads of \
             the circuit have a heavy border. Point at a line for its effect or at a head for its class. circuit.dot \
             (Graphviz) and circuit.json have the whole graph. The table lists the largest 20 paths:",
            edges.pruned.len(),
            edges.threshold
        ),
    );
    page.graph(found.graph.strongest(DRAWN));
    let row = |(edge, effect): &(rewire_analysis::path::Edge, f32)| {
        vec![format!("{} → {} {}", edge.from, edge.to, edge.input.short_name()), format!("{effect:+.4}")]
    };
    page.table(&["path", "effect"], edges.pruned.iter().take(20).map(row).collect());
}

pub(super) fn members(page: &mut Page, found: &Found) {
    page.section(
        "The circuit's heads",
        "The heads are sorted by their largest effect in any step, strongest first. The class \"completing\" means \
         that the head is below the threshold in every step, but the circuit needs it to meet the bars.",
    );
    page.table(&rows::MEMBERS, rows::member_rows(found));
}

pub(super) fn faithfulness(page: &mut Page, found: &Found) {
    page.section(
        "Faithfulness of the circuit",
        "\"Kept alone\" is the logit difference with every head outside the circuit mean-ablated. \"Left without\" is \
         the logit difference with the circuit's heads mean-ablated. Both are shares of the clean logit difference, \
         with 95% bootstrap intervals over prompts. A mean-ablated head outputs its mean, position by position, over \
         prompts with three different names and the same template and length. MLPs are never ablated. The heads are \
         chosen on the choosing prompts and evaluated on the judging prompts. The first row has the result on the \
         judging prompts. The circuit is the smallest number of strongest heads that meets both bars in 99.9% of \
         the resamples of the choosing prompts. Other kinds of ablation give other shares.",
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
        "The 26 heads of Wang et al. 2022, by class. Recall is the share of the published heads of a class that this \
         run finds with that class. Precision is the share of the found heads of a class that are published with that \
         class. The last row compares the circuit's heads of any class.",
    );
    page.table(&rows::PUBLISHED, rows::published_rows(found));
}

pub(super) fn reading(page: &mut Page, source: &Source) {
    page.section("How to read this", "");
    page.text(
        "Effects of path patching are changes of the logit difference on the clean run, as a share of the clean minus \
         corrupted logit difference. An effect of -1 gives the corrupted logit difference. The class of a head depends \
         on the step that finds it and on its attention (more than a tenth of the destination's attention, mean over \
         prompts). S-inhibition: from END to S2, and less to IO and to S1. Duplicate token: from S2 to S1. Induction: \
         from S2 to the token after S1. Previous token: from the token after S1 to S1. A backup adds more to the \
         logits after the movers are set to zero. A head may have several classes.",
    );
    if !source.is_processed() {
        page.text(
            "Weights are not processed. Copy scores without norms therefore leave out the gains of the head's norm and \
             of the final norm.",
        );
    }
}
