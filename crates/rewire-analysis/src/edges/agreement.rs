//! How far the estimates of edges are from exact effects, and at which edges.

use ndarray::ArrayView2;
use rewire_model::HeadInput;

use crate::edges::graph::{Edge, EdgeGraph, Reader, Writer};
use crate::stats::comparison::top_by_size;
use crate::stats::correlation::{pearson, r_squared, slope, spearman};

/// The numbers of largest edges that are compared, as far as there are more edges.
const TOPS: [usize; 5] = [10, 30, 100, 300, 1000];

/// One edge's exact effect and its estimate, each a mean over prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EdgeError {
    /// The edge.
    pub edge: Edge,
    /// The exact effect.
    pub exact: f32,
    /// The estimate.
    pub estimate: f32,
}

impl EdgeError {
    /// Returns the estimate less the exact effect.
    #[must_use]
    pub fn error(&self) -> f32 {
        self.estimate - self.exact
    }
}

/// The `k` edges of largest exact effect, and the `k` of largest estimate, by absolute value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopEdges {
    /// Number of edges.
    pub k: usize,
    /// Number of edges that are among both.
    pub shared: usize,
    /// Number of the edges of largest exact effect whose estimate has the other sign.
    pub sign_errors: usize,
}

/// The share of a group of edges in the squared errors of all edges.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorShare {
    /// The group: `into queries`, `into MLPs`, `out of heads of layer 0`.
    pub group: String,
    /// Number of edges.
    pub edges: usize,
    /// Share of the sum of squared errors, 0 to 1.
    pub of_error: f64,
    /// Share of the sum of squared exact effects, 0 to 1.
    pub of_effect: f64,
}

/// The agreement of an estimate of edges with exact effects.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeAgreement {
    /// Number of compared edges. An edge is compared if its exact effect is known, and the effect
    /// or the estimate is not exactly 0.
    pub compared: usize,
    /// Pearson's correlation of estimates and exact effects.
    pub pearson: Option<f64>,
    /// Spearman's rank correlation of estimates and exact effects.
    pub spearman: Option<f64>,
    /// Slope of the least-squares line of estimates over exact effects.
    pub slope: Option<f64>,
    /// As [`Agreement::r_squared`](crate::stats::Agreement::r_squared).
    pub r_squared: Option<f64>,
    /// Root mean square of the errors, over that of the exact effects: 0 if all estimates are
    /// exact, 1 for estimates of 0. `None` if all exact effects are 0.
    pub relative_error: Option<f64>,
    /// Number of compared edges whose estimate and exact effect have different signs.
    pub sign_errors: usize,
    /// The largest edges, for several numbers of them.
    pub tops: Vec<TopEdges>,
    /// Every compared edge, the largest error first.
    pub errors: Vec<EdgeError>,
}

impl EdgeAgreement {
    /// Compares mean estimates with mean exact effects, both `[writer, reader]`. The exact effect
    /// of an edge is NaN if it is not known.
    #[must_use]
    pub fn new(graph: &EdgeGraph, exact: &ArrayView2<'_, f32>, estimates: &ArrayView2<'_, f32>) -> Self {
        let error = |place| EdgeError { edge: graph.edge(place), exact: exact[place], estimate: estimates[place] };
        let mut errors: Vec<EdgeError> = graph.places().map(error).collect();
        errors.retain(|edge| !edge.exact.is_nan() && (edge.exact != 0.0 || edge.estimate != 0.0));
        let pairs = || errors.iter().map(|edge| (edge.exact, edge.estimate));
        let (pearson, spearman, slope, r_squared) =
            (pearson(pairs()), spearman(pairs()), slope(pairs()), r_squared(pairs()));
        let [of_error, of_effect] = [EdgeError::error, |edge: &EdgeError| edge.exact].map(|of| squares(&errors, of));
        let tops = TOPS.into_iter().filter(|k| *k < errors.len()).map(|k| top(&errors, k)).collect();
        let sign_errors = errors.iter().filter(|edge| has_other_sign(edge)).count();
        errors.sort_by(|a, b| b.error().abs().total_cmp(&a.error().abs()));
        Self {
            compared: errors.len(),
            pearson,
            spearman,
            slope,
            r_squared,
            relative_error: (of_effect > 0.0).then(|| (of_error / of_effect).sqrt()),
            sign_errors,
            tops,
            errors,
        }
    }

    /// Returns the shares of groups of edges in the squared errors: edges into each kind of reader,
    /// then edges out of each kind of writer, with the heads of each layer as a kind of their own.
    #[must_use]
    pub fn error_shares(&self) -> Vec<ErrorShare> {
        let groups = [into, out_of];
        groups.into_iter().flat_map(|group| self.shares_by(group)).collect()
    }

    /// Returns the shares of groups, in the order in which their rank puts them.
    fn shares_by(&self, group: fn(&Edge) -> (usize, String)) -> Vec<ErrorShare> {
        let mut groups: Vec<((usize, String), Vec<EdgeError>)> = Vec::new();
        for edge in &self.errors {
            let name = group(&edge.edge);
            match groups.iter_mut().find(|(known, _)| *known == name) {
                Some((_, edges)) => edges.push(*edge),
                None => groups.push((name, vec![*edge])),
            }
        }
        groups.sort_by_key(|((rank, _), _)| *rank);
        let [of_error, of_effect] = [EdgeError::error, |edge: &EdgeError| edge.exact]
            .map(|of| squares(&self.errors, of).max(f64::MIN_POSITIVE));
        let share = |((_, group), edges): ((usize, String), Vec<EdgeError>)| ErrorShare {
            group,
            edges: edges.len(),
            of_error: squares(&edges, EdgeError::error) / of_error,
            of_effect: squares(&edges, |edge| edge.exact) / of_effect,
        };
        groups.into_iter().map(share).collect()
    }
}

/// Returns the sum of squares of a number of each edge.
fn squares(edges: &[EdgeError], of: fn(&EdgeError) -> f32) -> f64 {
    edges.iter().map(|edge| f64::from(of(edge)).powi(2)).sum()
}

fn has_other_sign(edge: &EdgeError) -> bool {
    edge.exact * edge.estimate < 0.0
}

fn top(errors: &[EdgeError], k: usize) -> TopEdges {
    let largest = |of: fn(&EdgeError) -> f32| top_by_size(&errors.iter().map(of).collect::<Vec<f32>>(), k);
    let (exact, mut estimated) = (largest(|edge| edge.exact), largest(|edge| edge.estimate));
    estimated.sort_unstable();
    TopEdges {
        k,
        shared: exact.iter().filter(|place| estimated.binary_search(place).is_ok()).count(),
        sign_errors: exact.iter().filter(|&&place| has_other_sign(&errors[place])).count(),
    }
}

/// Returns the kind of reader that an edge ends at, and its rank.
fn into(edge: &Edge) -> (usize, String) {
    let (rank, kind) = match edge.reader {
        Reader::Head(_, HeadInput::Q) => (0, "queries"),
        Reader::Head(_, HeadInput::K) => (1, "keys"),
        Reader::Head(_, HeadInput::V) => (2, "values"),
        Reader::Mlp(_) => (3, "MLPs"),
        Reader::Logits => (4, "the logits"),
    };
    (rank, format!("into {kind}"))
}

/// Returns the kind of writer that an edge begins at, and its rank.
fn out_of(edge: &Edge) -> (usize, String) {
    match edge.writer {
        Writer::Input => (0, "out of the input".to_owned()),
        Writer::Head(head) => (1 + 2 * head.layer, format!("out of heads of layer {}", head.layer)),
        Writer::Mlp(layer) => (2 + 2 * layer, format!("out of the MLP of layer {layer}")),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use rewire_model::TransformerConfig;

    use super::*;

    fn of(edges: &[(&str, f32, f32)]) -> EdgeAgreement {
        let graph = EdgeGraph::new(&TransformerConfig::gpt2(2, 2, 8, 11, 6));
        let mut exact = Array2::from_elem((graph.n_writers(), graph.n_readers()), f32::NAN);
        let mut estimates = Array2::zeros((graph.n_writers(), graph.n_readers()));
        for (name, effect, estimate) in edges {
            let place = graph.place(&name.parse().unwrap()).unwrap();
            (exact[place], estimates[place]) = (*effect, *estimate);
        }
        EdgeAgreement::new(&graph, &exact.view(), &estimates.view())
    }

    #[test]
    fn agreement_matches_known_numbers() {
        let found = of(&[
            ("input->a0.h0<q>", 3.0, -1.0),
            ("a0.h1->m0", 4.0, 4.0),
            ("m1->logits", 0.0, 0.0),
            ("m0->logits", 0.0, 2.0),
        ]);
        assert_eq!((found.compared, found.sign_errors), (3, 1));
        assert!((found.relative_error.unwrap() - (20.0_f64 / 25.0).sqrt()).abs() < 1e-12);
        let worst: Vec<String> = found.errors.iter().map(|error| error.edge.to_string()).collect();
        assert_eq!(worst, ["input->a0.h0<q>", "m0->logits", "a0.h1->m0"]);
        let shares: Vec<(String, f64, f64)> =
            found.error_shares().into_iter().map(|s| (s.group, s.of_error, s.of_effect)).collect();
        assert_eq!(shares[0], ("into queries".to_owned(), 16.0 / 20.0, 9.0 / 25.0));
        assert_eq!(shares[1], ("into MLPs".to_owned(), 0.0, 16.0 / 25.0));
        assert_eq!(shares[3], ("out of the input".to_owned(), 16.0 / 20.0, 9.0 / 25.0));
        assert_eq!(shares.len(), 6);
    }

    #[test]
    fn tops_count_shared_edges_and_signs() {
        let graph = EdgeGraph::new(&TransformerConfig::gpt2(2, 2, 8, 11, 6));
        let names: Vec<String> = graph.edges().take(12).map(|edge| edge.to_string()).collect();
        let edges: Vec<(&str, f32, f32)> = names
            .iter()
            .enumerate()
            .map(|(place, name)| {
                // The largest exact effect has the smallest estimate, of the other sign.
                let exact = 12.0 - place as f32;
                (name.as_str(), exact, if place == 0 { -0.5 } else { exact })
            })
            .collect();
        assert_eq!(of(&edges).tops, [TopEdges { k: 10, shared: 9, sign_errors: 1 }]);
    }
}
