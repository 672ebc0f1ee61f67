//! Agreement of estimates with exact effects, and the nodes with the largest errors.

use std::cmp::Reverse;

use ndarray::IxDyn;

use crate::effects::Effects;
use crate::error::AnalysisError;
use crate::node::kind::NodeKind;
use crate::stats::correlation::{pearson, r_squared, slope, spearman};

/// One node's exact effect and its estimate, each a mean over prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeError {
    /// Index along the axes of the kind, layer first.
    pub place: Vec<usize>,
    /// The exact effect, by activation patching.
    pub exact: f32,
    /// The estimate, by attribution.
    pub estimate: f32,
}

impl NodeError {
    /// Returns the estimate less the exact effect.
    #[must_use]
    pub fn error(&self) -> f32 {
        self.estimate - self.exact
    }
}

/// The agreement of estimates with exact effects, for one kind of node.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// The node kind.
    pub kind: NodeKind,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of compared nodes. A node is compared if its exact effect is known and the effect or
    /// the estimate is not exactly 0. Both are 0 if both runs are equal at the node, and including
    /// such nodes would make the agreement look better. For
    /// [`Screened`](crate::patching::screen::Screened), the exact effects of the verified nodes are
    /// known.
    pub compared: usize,
    /// Pearson's correlation of estimates and exact effects.
    pub pearson: Option<f64>,
    /// Spearman's rank correlation of estimates and exact effects.
    pub spearman: Option<f64>,
    /// Slope of the least-squares line of estimates over exact effects.
    pub slope: Option<f64>,
    /// Share of the variance of the exact effects that the estimates explain without rescaling; see
    /// [`r_squared`](crate::stats::correlation::r_squared).
    pub r_squared: Option<f64>,
    /// Number of largest exact effects and of largest estimates that
    /// [`top_k_overlap`](Self::top_k_overlap) compares.
    pub top_k: usize,
    /// Number of nodes that are among the `top_k` of largest exact effect and among the `top_k` of
    /// largest estimate, both by absolute value.
    pub top_k_overlap: usize,
    /// Every compared node, the largest error first.
    pub errors: Vec<NodeError>,
}

impl Agreement {
    /// Compares exact effects and estimates of one kind, as means over prompts.
    ///
    /// # Errors
    /// [`AnalysisError::NotComparable`] for effects of different kinds or shapes.
    pub fn new(exact: &Effects, estimate: &Effects, top_k: usize) -> Result<Self, AnalysisError> {
        if exact.kind != estimate.kind || exact.values.shape()[1..] != estimate.values.shape()[1..] {
            return Err(AnalysisError::NotComparable { exact: exact.kind, estimate: estimate.kind });
        }
        let estimates = estimate.mean();
        let node = |(place, &exact): (IxDyn, &f32)| {
            let estimate = estimates[&place];
            NodeError { place: ndarray::Dimension::slice(&place).to_vec(), exact, estimate }
        };
        let exact_means = exact.mean();
        let mut errors: Vec<NodeError> = exact_means.indexed_iter().map(node).collect();
        errors.retain(|n| exact.kind.has(&n.place));
        let nodes = errors.len();
        errors.retain(|n| !n.exact.is_nan() && (n.exact != 0.0 || n.estimate != 0.0));
        let top_k = top_k.min(errors.len());
        let largest = |size: &dyn Fn(&NodeError) -> f32| {
            let mut order: Vec<usize> = (0..errors.len()).collect();
            order.sort_by(|&a, &b| size(&errors[b]).total_cmp(&size(&errors[a])));
            order.truncate(top_k);
            order
        };
        let by_estimate = largest(&|n| n.estimate.abs());
        let overlap = largest(&|n| n.exact.abs()).iter().filter(|i| by_estimate.contains(i)).count();
        let pairs = || errors.iter().map(|n| (n.exact, n.estimate));
        let (pearson, spearman, slope, r_squared) =
            (pearson(pairs()), spearman(pairs()), slope(pairs()), r_squared(pairs()));
        errors.sort_by_key(|n| Reverse(ordered(n.error().abs())));
        Ok(Self {
            kind: exact.kind,
            nodes,
            compared: errors.len(),
            pearson,
            spearman,
            slope,
            r_squared,
            top_k,
            top_k_overlap: overlap,
            errors,
        })
    }
}

/// Returns an absolute value as a sort key: the bits of non-negative numbers are in the order of
/// the numbers.
fn ordered(size: f32) -> u32 {
    size.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::kind::Component;
    use ndarray::ArrayD;

    fn effects(values: &[f32]) -> Effects {
        let values = ArrayD::from_shape_vec(vec![1, values.len(), 1], values.to_vec()).unwrap();
        Effects::new(NodeKind::all(Component::HeadZ), values, Vec::new())
    }

    #[test]
    fn agreement_matches_known_numbers() {
        let exact = effects(&[0.0, 1.0, 2.0, -3.0, 0.0]);
        let estimate = effects(&[0.0, 1.5, 2.0, -1.0, 0.5]);
        let found = Agreement::new(&exact, &estimate, 2).unwrap();
        assert_eq!((found.nodes, found.compared, found.top_k, found.top_k_overlap), (5, 4, 2, 1));
        let worst: Vec<_> = found.errors.iter().map(|n| n.place[0]).collect();
        assert_eq!((worst[0], worst[3]), (3, 2));
        assert_eq!(found.errors[0].error(), 2.0);
        assert_eq!(Agreement::new(&exact, &exact, 3).unwrap().r_squared, Some(1.0));
        let partly = effects(&[f32::NAN, 1.0, f32::NAN, -3.0, 0.0]);
        assert_eq!(Agreement::new(&partly, &estimate, 2).unwrap().compared, 3);
    }

    #[test]
    fn agreement_of_unequal_shapes_is_refused() {
        assert!(Agreement::new(&effects(&[1.0]), &effects(&[1.0, 2.0]), 1).is_err());
    }
}
