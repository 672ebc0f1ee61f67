//! The report's sections on the circuit: its heads, its shares, and its paths.

use rewire_circuits::HeadRole;
use rewire_hooks::Head;
use rewire_report::Page;
use rewire_report::charts;

use crate::model::Source;
use crate::reproduce_pythia::rows;
use crate::reproduce_pythia::sentences;
use crate::reproduce_pythia::shown::Found;
use rewire_report::numbers::{number, signed};

/// Largest number of edges in the drawing.
const DRAWN: usize = 60;

pub(super) fn section(page: &mut Page, source: &Source, found: &Found) {
    page.section(
        "The circuit",
        "The heads that the steps found, by class, and how much of the behavior they carry. Shares are of the clean \
         logit difference, on the judging prompts unless they are labeled otherwise, with 95% bootstrap intervals over \
         prompts.",
    );
    page.table(&["class", "in the circuit", "found, not in the circuit"], classes(found));
    page.table(&rows::CARRIED, rows::carried_rows(found));
    page.text(&sentences::verdict(found));
    page.text(
        "\"Kept alone\" is the logit difference with every head outside the circuit mean-ablated. \"Left without\" is \
         the logit difference with the circuit's heads mean-ablated. A mean-ablated head outputs its mean, position by \
         position, over prompts with three different names and the same template and length. MLPs are never ablated. \
         Other kinds of ablation give other shares. The circuit is the smallest number of strongest heads that meets \
         both bars in 99.9% of the resamples of the choosing prompts.",
    );
    page.text(&sentences::reference(found));
    curve(page, found);
    page.text(
        "The circuit's heads, the largest effect in any step first. Effects are shares of the clean-corrupted \
         difference, by step; below 0 serves the behavior. The class \"completing\" means that the head is below the \
         threshold in every step, but the circuit needs it to meet the bars.",
    );
    page.table(&rows::MEMBERS, rows::member_rows(found));
    if source.is_gpt2_small() {
        page.text(
            "The section \"The published circuit\" compares these heads with the published heads of GPT-2 small.",
        );
    }
}

/// Returns one row per class that has heads: those in the circuit, and the others.
fn classes(found: &Found) -> Vec<Vec<String>> {
    let circuit = &found.circuit;
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
    rows
}

/// Adds the shares of the strongest heads, for each number of heads that was tried.
fn curve(page: &mut Page, found: &Found) {
    let curve = &found.circuit.curve;
    let places: Vec<f64> = curve.iter().map(|c| c.heads.len() as f64).collect();
    let kept: Vec<f32> = curve.iter().map(|c| c.shares.kept as f32).collect();
    let removed: Vec<f32> = curve.iter().map(|c| c.shares.left as f32).collect();
    let curves = [("kept alone".to_owned(), kept), ("left without".to_owned(), removed)];
    let axes = ["heads, strongest first", "share of the clean logit difference"];
    page.chart(charts::curves("The strongest heads, on the prompts that chose the circuit", &places, &curves, axes));
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
            "A path goes from the output of one head to the query, key or value of another. Effects are shares of the \
             clean-corrupted difference (noising); below 0 serves the behavior. {how} Each patch is of one path."
        ),
    );
    match found.graph.edges.is_empty() {
        true => page.text("No graph: no path and no direct effect is large enough to be kept."),
        false => {
            page.text(&format!(
                "The graph keeps the {} paths with an absolute effect of at least {}. The drawing shows at most \
                 {DRAWN} paths and direct effects on the logits. Dashed lines work against the behavior. Heads of the \
                 circuit have a heavy border. Point at a line for its effect or at a head for its class. circuit.dot \
                 (Graphviz) and circuit.json have the whole graph.",
                edges.pruned.len(),
                number(edges.threshold)
            ));
            page.graph(found.graph.strongest(DRAWN));
        }
    }
    let row = |(edge, effect): &(rewire_analysis::path::Edge, f32)| {
        vec![format!("{} → {} {}", edge.from, edge.to, edge.input.short_name()), signed(*effect)]
    };
    match edges.pruned.is_empty() {
        true => page.text("No table of paths: every path between heads has an effect of 0."),
        false => page.table(&["path", "effect (share)"], edges.pruned.iter().take(20).map(row).collect()),
    }
}

pub(super) fn published(page: &mut Page, found: &Found) {
    page.section(
        "The published circuit",
        "Do the found heads have the published classes? The 26 heads of Wang et al. 2022, by class. Recall is the \
         share of the published heads of a class that this run finds with that class. Precision is the share of the \
         found heads of a class that are published with that class. The last row compares the circuit's heads of any \
         class.",
    );
    page.table(&rows::PUBLISHED, rows::published_rows(found));
}
