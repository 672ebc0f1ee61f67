//! Quadrature nodes: the places along a line at which gradients are taken, and their weights.

use std::fmt;
use std::num::NonZeroUsize;

use gauss_quad::GaussLegendre;
use serde::{Deserialize, Serialize};

use crate::error::AnalysisError;
use crate::integrated::rule::Rule;

/// A quadrature rule and its number of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quadrature {
    /// The rule.
    pub rule: Rule,
    /// Number of quadrature nodes.
    pub steps: usize,
}

/// Captum's default: Gauss-Legendre with 50 nodes.
impl Default for Quadrature {
    fn default() -> Self {
        Self { rule: Rule::GaussLegendre, steps: 50 }
    }
}

/// One quadrature node: its place on the line, from 0 to 1, and its weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuadratureNode {
    /// Place on the line: 0 at its start, 1 at its end.
    pub at: f64,
    /// Weight of the gradient; the weights of a rule sum to 1.
    pub weight: f64,
}

/// The nodes at which gradients are taken along a line.
///
/// ```
/// use rewire_analysis::integrated::{Quadrature, QuadratureNode, QuadratureNodes};
///
/// let captum = QuadratureNodes::from(Quadrature::default());
/// assert_eq!(captum.nodes().unwrap().len(), 50);
/// // The gradient halfway along the line, alone.
/// let halfway = QuadratureNodes::List(vec![QuadratureNode { at: 0.5, weight: 1.0 }]);
/// assert_eq!(halfway.nodes().unwrap().len(), 1);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum QuadratureNodes {
    /// The nodes of a rule. If they are too few for the tolerance, the line is divided into panels
    /// with these nodes each.
    Rule(Quadrature),
    /// These nodes and no others. The weights of an integral over the whole line sum to 1.
    List(Vec<QuadratureNode>),
}

impl From<Quadrature> for QuadratureNodes {
    fn from(quadrature: Quadrature) -> Self {
        Self::Rule(quadrature)
    }
}

impl QuadratureNodes {
    /// Returns the nodes in the order in which their gradients are summed.
    ///
    /// # Errors
    /// As [`Quadrature::nodes`] for a rule; [`AnalysisError::NoQuadratureNodes`] for an empty list.
    pub fn nodes(&self) -> Result<Vec<QuadratureNode>, AnalysisError> {
        match self {
            Self::Rule(quadrature) => quadrature.nodes(),
            Self::List(nodes) if nodes.is_empty() => Err(AnalysisError::NoQuadratureNodes),
            Self::List(nodes) => Ok(nodes.clone()),
        }
    }
}

/// Writes a rule as `gauss-legendre 50`, and a list with the place and weight of each node.
/// Checkpoint names contain this text: changing it discards users' stored results.
impl fmt::Display for QuadratureNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(Quadrature { rule, steps }) => write!(f, "{rule} {steps}"),
            Self::List(nodes) => {
                write!(f, "{} nodes", nodes.len())?;
                nodes.iter().try_for_each(|QuadratureNode { at, weight }| write!(f, " {at}*{weight}"))
            }
        }
    }
}

/// Upper bound on quadrature steps; a larger value is almost certainly a typo.
const MOST_STEPS: usize = 1_000_000;

impl Quadrature {
    /// Returns the nodes, from 0 to 1.
    ///
    /// # Errors
    /// [`AnalysisError::TooFewSteps`] for 0 steps, or for 1 step of the trapezoid rule;
    /// [`AnalysisError::TooManySteps`] for more than a million steps.
    pub fn nodes(self) -> Result<Vec<QuadratureNode>, AnalysisError> {
        let Quadrature { rule, steps } = self;
        let least = if rule == Rule::Trapezoid { 2 } else { 1 };
        if steps > MOST_STEPS {
            return Err(AnalysisError::TooManySteps { steps, most: MOST_STEPS });
        }
        let degree = NonZeroUsize::new(steps).filter(|_| steps >= least);
        let degree = degree.ok_or(AnalysisError::TooFewSteps { rule, steps, least })?;
        let n = steps as f64;
        let even = |shift: f64| (0..steps).map(|i| node((i as f64 + shift) / n, 1.0 / n)).collect();
        Ok(match rule {
            // The crate's rule is on [-1, 1].
            Rule::GaussLegendre => {
                GaussLegendre::new(degree).iter().map(|(x, w)| node(0.5 * (1.0 + x), 0.5 * w)).collect()
            }
            Rule::RiemannLeft => even(0.0),
            Rule::RiemannMiddle => even(0.5),
            Rule::RiemannRight => even(1.0),
            Rule::Trapezoid => {
                let intervals = n - 1.0;
                let weight = |i| if i == 0 || i + 1 == steps { 0.5 } else { 1.0 } / intervals;
                (0..steps).map(|i| node(i as f64 / intervals, weight(i))).collect()
            }
        })
    }
}

fn node(at: f64, weight: f64) -> QuadratureNode {
    QuadratureNode { at, weight }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integrated::rule::NAMES;

    fn integral(rule: Rule, steps: usize, f: impl Fn(f64) -> f64) -> f64 {
        Quadrature { rule, steps }.nodes().unwrap().iter().map(|n| n.weight * f(n.at)).sum()
    }

    #[test]
    fn quadrature_rules_integrate_known_functions() {
        for (rule, name) in NAMES {
            assert_eq!(name.parse(), Ok(rule));
            assert!((integral(rule, 7, |_| 1.0) - 1.0).abs() < 1e-14, "{rule}");
            assert!((integral(rule, 2000, f64::exp) - (1.0_f64.exp() - 1.0)).abs() < 1e-3, "{rule}");
        }
        assert!((integral(Rule::GaussLegendre, 3, |x| x.powi(5)) - 1.0 / 6.0).abs() < 1e-14);
        assert!((integral(Rule::RiemannMiddle, 2, |x| x) - 0.5).abs() < 1e-14);
        assert!((integral(Rule::Trapezoid, 2, |x| x) - 0.5).abs() < 1e-14);
        assert_eq!(integral(Rule::RiemannLeft, 2, |x| x), 0.25);
        assert_eq!(integral(Rule::RiemannRight, 2, |x| x), 0.75);
    }

    #[test]
    fn quadrature_nodes_ascend_from_0_to_1() {
        let nodes = Quadrature::default().nodes().unwrap();
        assert!(nodes.windows(2).all(|w| w[0].at < w[1].at));
        // Captum's first node and weight.
        assert!((nodes[0].at - 0.000_566_797).abs() < 1e-8 && (nodes[0].weight - 0.001_454_311).abs() < 1e-8);
    }

    #[test]
    fn a_given_list_of_quadrature_nodes_is_not_changed() {
        let rule = QuadratureNodes::from(Quadrature { rule: Rule::RiemannMiddle, steps: 2 });
        let list = QuadratureNodes::List(rule.nodes().unwrap());
        assert_eq!(list.nodes().unwrap(), [node(0.25, 0.5), node(0.75, 0.5)]);
        assert_eq!([rule.to_string(), list.to_string()], ["riemann-middle 2", "2 nodes 0.25*0.5 0.75*0.5"]);
        let refused = QuadratureNodes::List(Vec::new()).nodes().unwrap_err().to_string();
        assert_eq!(refused, "the list of quadrature nodes is empty; give at least one");
    }

    #[test]
    fn too_few_quadrature_nodes_are_refused() {
        let refused = |rule, steps| Quadrature { rule, steps }.nodes().unwrap_err().to_string();
        assert_eq!(
            refused(Rule::GaussLegendre, 0),
            "the rule gauss-legendre needs at least 1 step, and 0 were asked for"
        );
        assert_eq!(
            refused(Rule::RiemannLeft, usize::MAX),
            format!("{} steps were asked for, and at most 1000000 are allowed", usize::MAX)
        );
        assert_eq!(refused(Rule::Trapezoid, 1), "the rule trapezoid needs at least 2 steps, and 1 was asked for");
    }
}
