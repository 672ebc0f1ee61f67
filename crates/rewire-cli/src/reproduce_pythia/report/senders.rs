//! Who tells the movers where to look, and who tells those.

use rewire_report::Page;

use super::maps::{Maps, step};
use crate::reproduce_pythia::arguments::Arguments;
use crate::reproduce_pythia::sentences;
use crate::reproduce_pythia::shown::{Found, Step};

pub(super) fn queries(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    let who = match found.has_movers {
        true => "of the heads that serve the behavior directly and do not look from END at S2",
        false => {
            "of all heads that serve the behavior directly: each of them looks from END at S2, so there is no mover among them"
        }
    };
    let lead = format!("Path patching from each head's output into the queries {who}.");
    section(page, found, maps, arguments, ("Into the movers' queries", &lead), found.step("queries"));
}

pub(super) fn direct_values(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    let lead = "Path patching from each head's output into the values of the heads that look from END at S2 and write to the logits \
                themselves, for or against the behavior: the notebook's contributors to S2 inhibitors.";
    section(
        page,
        found,
        maps,
        arguments,
        ("Into the direct inhibitors' values", lead),
        found.step("direct-inhibitors-values"),
    );
}

pub(super) fn values(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    let lead = "Path patching from each head's output into the values of the S-inhibition heads that reach the movers' queries (of all \
                that reach them, where none looks at S2).";
    section(
        page,
        found,
        maps,
        arguments,
        ("Second level: into the inhibitors' values", lead),
        found.step("inhibitors-values"),
    );
}

pub(super) fn keys(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    let lead = "Path patching from each head's output into the keys of the heads found by their values that look from S2 behind S1 (of \
                all of them, where none does): the way of previous-token heads in the published circuit, which the notebook does not go.";
    section(page, found, maps, arguments, ("Previous-token level: into the keys", lead), found.step("keys"));
}

fn section(
    page: &mut Page,
    found: &Found,
    maps: &Maps,
    arguments: &Arguments,
    (title, lead): (&str, &str),
    of: Option<&Step>,
) {
    page.section(title, lead);
    match of {
        None => page.text(
            "The steps before found no such head behind layer 0 beyond the threshold, so there is nothing to send to.",
        ),
        Some(of) => {
            page.text(&format!("Receivers: {}", sentences::receivers(of)));
            step(page, found, maps, of, "Effect along these paths alone", arguments);
        }
    }
}

pub(super) fn inhibition(page: &mut Page, found: &Found) {
    page.section(
        "S2-inhibition",
        "Of the strongest heads into the movers' queries: how much they look from END at S2; the change of the logit difference when \
         their output, taken from the corrupted prompts, reaches the movers' queries at END; the change of the movers' attention from END \
         to S1 then. An inhibitor looks at S2, and without it the difference falls and the movers look at S1. The class comes from where \
         a head looks alone, not from these figures.",
    );
    let row = |inhibition: &rewire_analysis::heads::Inhibition| {
        let [s2, change, s1] = inhibition.means();
        let roles = found.circuit.with_roles.get(&inhibition.head).into_iter().flatten();
        let roles: Vec<&str> = roles.map(|(role, _)| role.name()).collect();
        vec![
            inhibition.head.to_string(),
            roles.join("; "),
            format!("{s2:.3}"),
            format!("{change:.3}"),
            format!("{s1:+.3}"),
        ]
    };
    let header = ["head", "class", "attention END to S2", "logit difference change", "movers' attention to S1, change"];
    page.table(&header, found.inhibition.iter().map(row).collect());
}
