//! The report's sections on the senders: heads that reach the movers, and heads that reach those
//! heads.

use rewire_analysis::heads::Inhibition;
use rewire_report::Page;

use super::maps::{Maps, step};
use crate::reproduce_pythia::arguments::Arguments;
use crate::reproduce_pythia::sentences;
use crate::reproduce_pythia::shown::Found;

/// The title of the maps.
const TITLE: &str = "Effect along these paths (blue: serves the behavior)";

pub(super) fn queries(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    let who = match found.has_movers {
        true => "the movers: the heads that serve the behavior directly and do not attend from END to S2",
        false => {
            "all heads that serve the behavior directly. Each of these heads attends from END to S2, so none is a mover"
        }
    };
    page.section(
        "Into the movers' queries",
        &format!(
            "Exact effects of path patching from each head's output into the queries of {who}. Shares of the \
             clean-corrupted difference; below 0 serves the behavior."
        ),
    );
    of_step(page, found, maps, arguments, "queries");
    inhibition(page, found);
}

pub(super) fn values(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    page.section(
        "Into the inhibitors' values",
        "Exact effects of path patching from each head's output into the values of heads that attend from END to S2. \
         Shares of the clean-corrupted difference; below 0 serves the behavior.",
    );
    page.text(
        "First, into the direct inhibitors: these attend from END to S2 and have a direct effect on the logits, for or \
         against the behavior. The notebook calls the senders of this step contributors to S2 inhibitors.",
    );
    of_step(page, found, maps, arguments, "direct-inhibitors-values");
    page.text(
        "Second, into the S-inhibition heads that reach the movers' queries. If none of the heads that reach the \
         queries attends to S2, the receivers are the values of all of these heads.",
    );
    of_step(page, found, maps, arguments, "inhibitors-values");
}

pub(super) fn keys(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments) {
    page.section(
        "Into the keys of the induction heads",
        "Exact effects of path patching from each head's output into the keys of the induction heads: heads found in a \
         value step that attend from S2 to the token after S1. If there are none, the receivers are the keys of all \
         heads found in a value step. Shares of the clean-corrupted difference; below 0 serves the behavior. \
         Previous-token heads of the published circuit act this way. The notebook does not have this step.",
    );
    of_step(page, found, maps, arguments, "keys");
}

/// Adds the results of the step whose tables have this name, or why it did not run.
fn of_step(page: &mut Page, found: &Found, maps: &Maps, arguments: &Arguments, name: &str) {
    match found.step(name) {
        None => page.text(
            "This step did not run, because it has no receivers: the earlier steps found no such head after layer 0 \
             beyond the threshold.",
        ),
        Some(of) => {
            page.text(&format!("Receivers: {}", sentences::receivers(of)));
            step(page, found, maps, of, TITLE, arguments);
        }
    }
}

/// Adds the S2-inhibition of the strongest heads that reach the movers' queries.
fn inhibition(page: &mut Page, found: &Found) {
    if found.inhibition.is_empty() {
        page.text(
            "S2-inhibition was not measured: no head reaches the movers' queries with an effect beyond the threshold.",
        );
        return;
    }
    page.text(
        "S2-inhibition of the strongest of these heads. The first number is the head's attention from END to S2. The \
         second is the change of the logit difference when the head's output on the corrupted prompt reaches the \
         movers' queries at END. The third is the change of the movers' attention from END to S1 in that run. Without \
         an inhibitor, the logit difference falls and the movers attend more to S1. The class of a head depends on its \
         attention only, not on the second and third numbers.",
    );
    let row = |inhibition: &Inhibition| {
        let [s2, change, s1] = inhibition.means();
        let roles = found.circuit.with_roles.get(&inhibition.head).into_iter().flatten();
        let roles: Vec<&str> = roles.map(|(role, _)| role.name()).collect();
        vec![
            inhibition.head.to_string(),
            roles.join("; "),
            format!("{s2:.3}"),
            format!("{change:+.3}"),
            format!("{s1:+.3}"),
        ]
    };
    let header = [
        "head",
        "class",
        "attention from END to S2 (0 to 1)",
        "change of logit difference (logits)",
        "change of movers' attention to S1",
    ];
    page.table(&header, found.inhibition.iter().map(row).collect());
}
