//! The example's report, in the demo's order.

use rewire_report::Page;
use rewire_report::charts::{self, HeatMapLabels};
use rewire_studies::facts::{Fact, Next, Patched};

use super::shown::{Found, NEXT, by_position, next_rows};
use crate::model::Source;
use crate::notices::new_page;
use crate::session::Session;
use rewire_report::names::numbered;

pub(super) fn page(session: &Session, source: &Source, found: &Found) -> Page {
    let mut page = new_page("Factual recall", &source.subtitle(session.device()), session, source, &found.warnings);
    page.section(
        "What the model knows",
        "The probability of each landmark's city as the next token, and the city's rank among all tokens.",
    );
    let row = |fact: &Fact| {
        vec![fact.landmark.to_owned(), fact.city.to_owned(), format!("{:.4}", fact.probability), fact.rank.to_string()]
    };
    page.table(&["landmark", "city", "probability", "rank"], found.facts.iter().map(row).collect());
    for warning in &found.left_out {
        page.text(warning);
    }
    for (set, labels) in found.patched.iter().zip(&found.labels) {
        patched(&mut page, source, set, labels);
    }
    direct(&mut page, source, found);
    page.section("How to read this", "");
    page.text(
        "Each cell is one patch: the corrupted run takes one activation at one position from the clean run. Every \
         effect is exact. An effect of 0 leaves the corrupted run's logit difference; 1 restores the clean run's logit \
         difference. The model reads the fact out at the layers in which the effect moves from the landmark's tokens \
         to the last position. Random words have no city, so no other city competes with the answer.",
    );
    page
}

fn patched(page: &mut Page, source: &Source, set: &Patched, tokens: &[String]) {
    let [clean, corrupted] = set.outcome.baselines.means();
    let [of_clean, of_corrupted] = &set.prompts;
    page.section(
        &format!("Patching against {}", set.name),
        &format!(
            "Clean prompt: {of_clean:?}. Corrupted prompt: {of_corrupted:?}. The logit difference is the logit of \
             Paris minus the logit of Rome."
        ),
    );
    let row = |run: &str, difference: f64, next: &Next| {
        let [right, wrong] = next.answers.map(|(p, rank)| format!("{p:.4} (rank {rank})"));
        vec![run.to_owned(), format!("{difference:.4}"), right, wrong]
    };
    page.table(
        &["prompt", "logit difference", "Paris", "Rome"],
        vec![row("clean", clean, &set.next[0]), row("corrupted", corrupted, &set.next[1])],
    );
    page.text("The likeliest next tokens after both prompts, as many as the demo prints:");
    page.table(&NEXT, next_rows(set));
    let maps: Vec<_> = set.outcome.effects.iter().map(by_position).collect();
    let titles = ["Residual stream before each block", "Attention output", "MLP output"];
    for (title, map) in titles.iter().zip(&maps) {
        let labels = HeatMapLabels {
            rows: ("layer", &numbered("L", source.config.n_layers)),
            columns: ("position", tokens),
            reach: charts::color_limit([map.view()]),
        };
        page.chart(charts::heat_map(title, &map.view(), labels));
    }
}

fn direct(page: &mut Page, source: &Source, found: &Found) {
    page.section(
        "Where the answer is written",
        "Direct logit attribution on the clean prompt at its last position, with the scale of the final norm held. The \
         columns are logit differences, in logits: of the residual stream after each layer, of the layer's attention \
         output, and of its MLP output.",
    );
    let layers = numbered("L", source.config.n_layers);
    let of = |i: usize| found.direct.effects[i].mean();
    let [stream, attention, mlp] = [0, 1, 2].map(of);
    let row = |(layer, name): (usize, &String)| {
        let mut row = vec![name.clone()];
        row.extend([&stream, &attention, &mlp].map(|values| format!("{:.3}", values[[layer]])));
        row
    };
    page.table(
        &["layer", "stream after it", "attention adds", "MLP adds"],
        layers.iter().enumerate().map(row).collect(),
    );
    page.text(&format!(
        "The biases of the final norm and of the unembedding add {:.3} to the logit difference. They belong to no \
         layer.",
        found.bias
    ));
}
