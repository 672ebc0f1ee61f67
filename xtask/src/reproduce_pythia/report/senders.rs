//! Who tells the movers where to look, and who tells those.

use rewire_report::Page;

use super::super::analyse::{Found, Step};
use super::super::{Arguments, results};
use super::{Maps, step};
use crate::output::head_name;

pub(super) fn queries(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    let lead = "Path patching from each head's output into the queries of the heads that serve the behaviour directly.";
    section(page, found, maps, arguments, ("Into the movers' queries", lead), &found.queries);
}

pub(super) fn values(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    let lead = "Path patching from each head's output into the values of the heads that look from END at S2: those that reach the \
                movers' queries, and those that write to the logits themselves (where none looks at S2, of all that reach the queries).";
    section(page, found, maps, arguments, ("Into the inhibitors' values", lead), &found.values);
}

pub(super) fn second_level(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    let lead = "Path patching from each head's output into the keys of the heads found last that look from S2 behind S1 (of all found \
                last, where none does): the way of previous-token heads in the published circuit.";
    section(page, found, maps, arguments, ("Second level", lead), &found.second);
}

fn section(
    page: &mut Page,
    found: &Found,
    maps: &Maps,
    arguments: &Arguments,
    (title, lead): (&str, &str),
    of: &Option<Step>,
) {
    page.section(title, lead);
    match of {
        None => page.text("The step before found no head beyond the threshold, so there is nothing to send to."),
        Some(of) => {
            page.text(&format!("Receivers: {}", results::receivers(of)));
            step(page, found, maps, of, "Effect along these paths alone", arguments);
        }
    }
}

pub(super) fn inhibition(page: &mut Page, found: &Found) {
    page.section(
        "S2-inhibition",
        "Of the strongest heads into the movers' queries: how much they look from END at S2; the change of the logit difference when \
         their output, taken from the corrupted prompts, reaches the movers' queries at END; the change of the movers' attention from END \
         to S1 then. An inhibitor looks at S2, and without it the difference falls and the movers look at S1.",
    );
    let row = |inhibition: &rewire_analysis::Inhibition| {
        let [s2, change, s1] = inhibition.means();
        let (layer, head) = inhibition.head;
        let roles = found.circuit.with_roles.get(&(layer, head)).into_iter().flatten();
        let roles: Vec<&str> = roles.map(|(role, _)| role.name()).collect();
        vec![head_name(layer, head), roles.join("; "), format!("{s2:.3}"), format!("{change:.3}"), format!("{s1:+.3}")]
    };
    let header = ["head", "class", "attention END to S2", "logit difference change", "movers' attention to S1, change"];
    page.table(&header, found.inhibition.iter().map(row).collect());
}
