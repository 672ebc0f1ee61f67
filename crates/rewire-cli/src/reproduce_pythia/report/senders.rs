//! The report's sections on the senders: heads that reach the movers, and heads that reach those
//! heads.

use rewire_report::Page;

use super::maps::{Maps, step};
use crate::reproduce_pythia::arguments::Arguments;
use crate::reproduce_pythia::sentences;
use crate::reproduce_pythia::shown::{Found, Step};

pub(super) fn queries(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    let who = match found.has_movers {
        true => "the movers: the heads that serve the behavior directly and do not attend from END to S2",
        false => {
            "all heads that serve the behavior directly. Each of these heads attends from END to S2, so none is a mover"
        }
    };
    let lead = format!("Path patching from each head's output into the queries of {who}.");
    section(page, found, maps, arguments, ("Into the movers' queries", &lead), found.step("queries"));
}

pub(super) fn direct_values(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    let lead = "Path patching from each head's output into the values of the direct inhibitors. Direct inhibitors \
                attend from END to S2 and have a direct effect on the logits, for or against the behavior. The \
                notebook calls the senders of this step contributors to S2 inhibitors.";
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
    let lead = "Path patching from each head's output into the values of the S-inhibition heads that reach the movers' \
                queries. If none of the heads that reach the queries attends to S2, the receivers are the values of \
                all of these heads.";
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
    let lead = "Path patching from each head's output into the keys of the induction heads: heads found in a value \
                step that attend from S2 to the token after S1. If there are none, the receivers are the keys of all \
                heads found in a value step. Previous-token heads of the published circuit act this way. The notebook \
                does not have this step.";
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
            "This step did not run, because it has no receivers: the earlier steps found no such head after layer 0 \
             beyond the threshold.",
        ),
        Some(of) => {
            page.text(&format!("Receivers: {}", sentences::receivers(of)));
            step(page, found, maps, of, "Effect along these paths", arguments);
        }
    }
}

pub(super) fn inhibition(page: &mut Page, found: &Found) {
    page.section(
        "S2-inhibition",
        "Three measurements of the strongest heads that reach the movers' queries. The first is the head's attention \
         from END to S2. The second is the change of the logit difference when the head's output on the corrupted \
         prompt reaches the movers' queries at END. The third is the change of the movers' attention from END to S1 in \
         that run. Without an inhibitor, the logit difference falls and the movers attend more to S1. The class of a \
         head depends on its attention only, not on the second and third measurements.",
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
    let header = [
        "head",
        "class",
        "attention from END to S2",
        "change of logit difference",
        "change of movers' attention to S1",
    ];
    page.table(&header, found.inhibition.iter().map(row).collect());
}
