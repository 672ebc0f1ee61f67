//! The example's report: the finding, how to read it, exact effects, direct logit attribution, and
//! what the model knows.

use rewire_analysis::stats::Proportion;
use rewire_report::Page;
use rewire_report::charts::{self, HeatMapLabels, Meaning};
use rewire_studies::facts::{Fact, Next, Patched};

use super::shown::{Found, NEXT, by_position, next_rows};
use crate::finding::{Finding, reading};
use crate::in_words::right_on;
use crate::model::Source;
use crate::session::Session;
use rewire_report::names::numbered;
use rewire_report::numbers::number;

pub(super) fn page(session: &Session, source: &Source, found: &Found, finding: &Finding) -> Page {
    let mut page = finding.page("Factual recall", &source.subtitle(session.device()), &found.warnings);
    let lead = "Where does the model read out that the Eiffel Tower is in Paris? Each cell of a map is one patch: the \
                corrupted run takes one activation at one position from the clean run. Every effect is exact, and a \
                share of the clean-corrupted difference: 0 leaves the corrupted run's logit difference, 1 restores the \
                clean run's. Above 0 (blue) supports the fact.";
    reading(&mut page, session, source, lead);
    page.text(
        "The model reads the fact out at the layers in which the effect moves from the landmark's tokens to the last \
         position. Random words have no city, so no other city competes with the answer.",
    );
    for warning in &found.left_out {
        page.text(warning);
    }
    for (set, labels) in found.patched.iter().zip(&found.labels) {
        patched(&mut page, source, set, labels);
    }
    direct(&mut page, source, found);
    facts(&mut page, found);
    page
}

/// Adds the landmarks with the probabilities of their cities.
fn facts(page: &mut Page, found: &Found) {
    let known = Proportion::of(found.facts.iter().map(|fact| fact.rank == 1));
    page.section(
        "What the model knows",
        &format!(
            "The probability (0 to 1) of each landmark's city as the next token, and the city's rank among all tokens; \
             rank 1 is right. The model is {}.",
            right_on(known, "landmark")
        ),
    );
    let row = |fact: &Fact| {
        vec![fact.landmark.to_owned(), fact.city.to_owned(), number(fact.probability), fact.rank.to_string()]
    };
    page.table(&["landmark", "city", "probability", "rank"], found.facts.iter().map(row).collect());
}

fn patched(page: &mut Page, source: &Source, set: &Patched, tokens: &[String]) {
    let [clean, corrupted] = set.outcome.baselines.means();
    let [of_clean, of_corrupted] = &set.prompts;
    page.section(
        &format!("Patching against {}", set.name),
        &format!(
            "Exact effects by layer and position, as shares of the clean-corrupted difference. Clean prompt: \
             {of_clean:?}. Corrupted prompt: {of_corrupted:?}. The logit difference is the logit of Paris minus the \
             logit of Rome."
        ),
    );
    let row = |run: &str, difference: f64, next: &Next| {
        let [right, wrong] = next.answers.map(|(p, rank)| format!("{} (rank {rank})", number(p)));
        vec![run.to_owned(), format!("{difference:.4}"), right, wrong]
    };
    let maps: Vec<_> = set.outcome.effects.iter().map(by_position).collect();
    let titles = ["Residual stream before each block", "Attention output", "MLP output"];
    for (title, map) in titles.iter().zip(&maps) {
        let labels = HeatMapLabels {
            rows: ("layer", &numbered("L", source.config.n_layers)),
            columns: ("position", tokens),
            reach: charts::color_limit([map.view()]),
        };
        match map.iter().any(|v| *v != 0.0) {
            true => page.chart(charts::effect_map(title, &map.view(), labels, Meaning::of(&set.outcome), None)),
            false => page.text(&format!("Without a map, because every effect is 0: {title}.")),
        }
    }
    page.table(
        &["prompt", "logit difference (logits)", "probability of Paris", "probability of Rome"],
        vec![row("clean", clean, &set.next[0]), row("corrupted", corrupted, &set.next[1])],
    );
    page.text("The likeliest next tokens after both prompts, as many as the demo prints:");
    page.table(&NEXT, next_rows(set));
}

fn direct(page: &mut Page, source: &Source, found: &Found) {
    page.section(
        "Where the answer is written",
        "An estimate beside the exact effects: direct logit attribution on the clean prompt at its last position, with \
         the scale of the final norm held. The columns are logit differences, in logits; above 0 is for Paris: of the \
         residual stream after each layer, of the layer's attention output, and of its MLP output.",
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
        &["layer", "stream after it (logits)", "attention adds (logits)", "MLP adds (logits)"],
        layers.iter().enumerate().map(row).collect(),
    );
    page.text(&format!(
        "The biases of the final norm and of the unembedding add {:.3} to the logit difference. They belong to no \
         layer.",
        found.bias
    ));
}
