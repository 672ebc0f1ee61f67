//! How far estimates of edges are from exact effects, as tables and as a figure of error against
//! cost.

use rewire_analysis::edges::{EdgeAgreement, EdgeError, EdgeEstimate, TopEdges, VerifiedEdges};
use serde_json::{Value, json};

use crate::charts::{self, Chart, Named};
use crate::names::counted;
use crate::numbers::number;

/// The header of [`EdgeAgreements::rows`].
pub const HEADER: [&str; 8] =
    ["estimate", "passes a pair", "error", "Pearson", "Spearman", "wrong signs", "top 10 found", "top 100 found"];

/// The header of [`worst`].
pub const WORST_HEADER: [&str; 4] = ["edge", "exact", "estimate", "error"];

/// The header of [`shares`].
pub const SHARES_HEADER: [&str; 4] = ["edges", "number", "share of squared error", "share of squared effect"];

/// Each estimate with its agreement, in the order of the estimates.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeAgreements {
    /// The estimates and their agreements.
    pub all: Vec<(EdgeEstimate, EdgeAgreement)>,
    /// Number of layers of the model.
    n_layers: usize,
    /// Number of edges that were patched exactly.
    verified: usize,
    /// Number of edges of the model.
    n_edges: usize,
}

impl EdgeAgreements {
    /// Compares each estimate with the exact effects.
    #[must_use]
    pub fn new(verified: &VerifiedEdges) -> Self {
        let estimates = verified.estimates.iter().map(|(estimate, _)| estimate.clone());
        Self {
            all: estimates.zip(verified.agreements()).collect(),
            n_layers: verified.exact.graph.n_layers(),
            verified: verified.verified,
            n_edges: verified.exact.graph.n_edges(),
        }
    }

    /// Returns table rows, one for each estimate. `error` is the root mean square of the errors
    /// over that of the exact effects.
    #[must_use]
    pub fn rows(&self) -> Vec<Vec<String>> {
        let row = |(estimate, found): &(EdgeEstimate, EdgeAgreement)| {
            let top = |k: usize| {
                let top = found.tops.iter().find(|top| top.k == k);
                top.map_or("-".to_owned(), |top| format!("{} of {k}", top.shared))
            };
            vec![
                estimate.name.clone(),
                estimate.forward_passes(self.n_layers).to_string(),
                three(found.relative_error),
                three(found.pearson),
                three(found.spearman),
                format!("{} of {}", found.sign_errors, found.compared),
                top(10),
                top(100),
            ]
        };
        self.all.iter().map(row).collect()
    }

    /// Returns one sentence: how many edges were patched exactly, and which estimate is nearest to
    /// them.
    #[must_use]
    pub fn in_words(&self) -> String {
        let skipped = match self.n_edges - self.verified {
            0 => "no edge was skipped".to_owned(),
            skipped => format!(
                "{} not patched, among which an estimate may be wrong without a trace here",
                counted_were(skipped)
            ),
        };
        let patched = format!("{} patched exactly; {skipped}", counted(self.verified, "edge"));
        match self.nearest() {
            Some((estimate, error)) => format!(
                "{patched}. The smallest error has {}: {} of the size of the exact effects, for {} forward passes a \
                 prompt pair",
                estimate.name,
                three(Some(error)),
                estimate.forward_passes(self.n_layers),
            ),
            None => patched,
        }
    }

    /// Returns the estimate of smallest error.
    fn nearest(&self) -> Option<(&EdgeEstimate, f64)> {
        let errors = self.all.iter().filter_map(|(estimate, found)| Some((estimate, found.relative_error?)));
        errors.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Returns the figure of error against cost. `None` if all exact effects are 0.
    #[must_use]
    pub fn chart(&self) -> Option<Chart> {
        let point = |(estimate, found): &(EdgeEstimate, EdgeAgreement)| {
            Some(Named {
                name: estimate.name.clone(),
                x: estimate.forward_passes(self.n_layers) as f64,
                y: found.relative_error?,
            })
        };
        let points: Vec<Named> = self.all.iter().filter_map(point).collect();
        let axes = ["forward passes a prompt pair (log scale)", "error / size of exact effects"];
        (!points.is_empty()).then(|| charts::costs("Error against cost", &points, axes))
    }

    /// Returns the agreements for `effects.json`.
    #[must_use]
    pub fn describe(&self) -> Value {
        let describe = |(estimate, found): &(EdgeEstimate, EdgeAgreement)| {
            let top = |top: &TopEdges| json!({ "k": top.k, "shared": top.shared, "sign_errors": top.sign_errors });
            json!({
                "estimate": estimate.name, "forward_passes": estimate.forward_passes(self.n_layers),
                "compared": found.compared, "relative_error": found.relative_error, "pearson": found.pearson,
                "spearman": found.spearman, "slope": found.slope, "r_squared": found.r_squared,
                "sign_errors": found.sign_errors, "tops": found.tops.iter().map(top).collect::<Vec<_>>(),
            })
        };
        json!({
            "edges": self.n_edges, "verified": self.verified,
            "estimates": self.all.iter().map(describe).collect::<Vec<_>>(),
        })
    }
}

/// Returns table rows of the `n` edges of largest error.
#[must_use]
pub fn worst(found: &EdgeAgreement, n: usize) -> Vec<Vec<String>> {
    let row =
        |edge: &EdgeError| vec![edge.edge.to_string(), number(edge.exact), number(edge.estimate), number(edge.error())];
    found.errors.iter().take(n).map(row).collect()
}

/// Returns table rows of the groups of edges: their shares in the squared errors and in the squared
/// exact effects. Groups with less than a hundredth of both are left out.
#[must_use]
pub fn shares(found: &EdgeAgreement) -> Vec<Vec<String>> {
    let percent = |share: f64| format!("{:.0}%", 100.0 * share);
    let shares = found.error_shares().into_iter().filter(|share| share.of_error.max(share.of_effect) >= 0.01);
    shares
        .map(|share| {
            vec![share.group.clone(), share.edges.to_string(), percent(share.of_error), percent(share.of_effect)]
        })
        .collect()
}

/// Returns a number of edges with its verb.
fn counted_were(n: usize) -> String {
    format!("{} {}", counted(n, "edge"), if n == 1 { "was" } else { "were" })
}

fn three(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;
    use rewire_analysis::edges::{EdgeEffects, EdgeGraph, GradientsAt};
    use rewire_analysis::run::{Direction, Scale};
    use rewire_analysis::{Baselines, Method};
    use rewire_model::{BackwardRule, TransformerConfig};

    use super::*;

    fn effects(of: impl Fn(usize) -> f32) -> EdgeEffects {
        let graph = EdgeGraph::new(&TransformerConfig::gpt2(2, 2, 8, 11, 6));
        let mut values = Array3::zeros((1, graph.n_writers(), graph.n_readers()));
        for (number, [writer, reader]) in graph.places().enumerate() {
            values[[0, writer, reader]] = of(number);
        }
        let baselines = Baselines { clean: vec![1.0], corrupted: vec![0.0] };
        EdgeEffects {
            graph,
            method: Method::AttributionPatching,
            direction: Direction::Noising,
            scale: Scale::Metric,
            metric: "logit-diff",
            baselines,
            vanished: Vec::new(),
            values,
        }
    }

    #[test]
    fn the_estimate_of_smallest_error_is_named_with_its_cost() {
        let exact = effects(|number| if number < 20 { number as f32 } else { f32::NAN });
        let of = |rule, factor: f32| {
            (EdgeEstimate::new(GradientsAt::Base, rule), effects(move |number| factor * number as f32))
        };
        let estimates = vec![of(BackwardRule::Gradient, 0.5), of(BackwardRule::Relp, 0.9)];
        let found = EdgeAgreements::new(&VerifiedEdges { estimates, exact, verified: 20 });
        let words = found.in_words();
        assert!(words.starts_with("20 edges patched exactly; "), "{words}");
        assert!(words.contains("eap relp: 0.100 of the size") && words.ends_with("4 forward passes a prompt pair"));
        let rows = found.rows();
        assert_eq!(rows[0][..4], ["eap", "4", "0.500", "1.000"].map(str::to_owned));
        // The first edge has the effect 0 and the estimate 0.
        assert_eq!(rows[1][5..], ["0 of 19", "10 of 10", "-"].map(str::to_owned));
        assert_eq!(found.describe()["estimates"][1]["compared"], 19);
        assert_eq!(worst(&found.all[0].1, 1)[0][1..], ["19.0000", "9.5000", "-9.5000"].map(str::to_owned));
    }
}
