//! Estimates against exact effects: how well one follows the other, and where it does not.

use std::cmp::Reverse;

use ndarray::IxDyn;

use crate::effects::Effects;
use crate::error::AnalysisError;
use crate::node::kind::NodeKind;
use crate::stats::correlation::{pearson, r_squared, slope, spearman};

/// One node's exact effect and its estimate, means over prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeError {
    /// Its index along the axes of its kind, layer first.
    pub place: Vec<usize>,
    /// By activation patching.
    pub exact: f32,
    /// By attribution.
    pub estimate: f32,
}

impl NodeError {
    /// Estimate less exact effect.
    #[must_use]
    pub fn error(&self) -> f32 {
        self.estimate - self.exact
    }
}

/// How well the estimates of one kind of node follow its exact effects.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// The nodes.
    pub kind: NodeKind,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many are compared: those whose effect or estimate is not exactly 0 (where both runs are the same both are 0, which
    /// would flatter every figure), and whose exact effect is known (of [`Screened`](crate::patching::screen::Screened), the verified ones).
    pub compared: usize,
    /// Pearson's correlation.
    pub pearson: Option<f64>,
    /// Spearman's rank correlation.
    pub spearman: Option<f64>,
    /// Slope of the least-squares line of estimates over exact effects.
    pub slope: Option<f64>,
    /// Share of the exact effects' variance that the estimates, taken at their word, account for; see
    /// [`r_squared`](crate::stats::correlation::r_squared).
    pub r_squared: Option<f64>,
    /// How many of the largest exact effects [`top_k_overlap`](Self::top_k_overlap) is about.
    pub top_k: usize,
    /// How many of the `top_k` nodes of largest exact effect are among the `top_k` of largest estimate (both by size).
    pub top_k_overlap: usize,
    /// Every compared node, the largest error first.
    pub errors: Vec<NodeError>,
}

impl Agreement {
    /// Compares the means over prompts of exact effects and estimates of one kind.
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

/// A size as a key to sort by: the bits of numbers from 0 up are in their order.
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
        Effects { kind: NodeKind::all(Component::HeadZ), values, lengths: Vec::new() }
    }

    #[test]
    fn agreement_of_known_numbers() {
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
    fn other_shapes_are_refused() {
        assert!(Agreement::new(&effects(&[1.0]), &effects(&[1.0, 2.0]), 1).is_err());
    }
}
