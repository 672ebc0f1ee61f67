//! Quadrature rules for an integral along a line.

use std::fmt;
use std::str::FromStr;

use rewire_input::did_you_mean;
use serde::{Deserialize, Serialize};

/// A quadrature rule for an integral from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Exact for polynomials of degree `2 steps - 1`; Captum's default.
    GaussLegendre,
    /// Equal intervals, with a node at the left end of each.
    RiemannLeft,
    /// Equal intervals, with a node at the right end of each.
    RiemannRight,
    /// Equal intervals, with a node in the middle of each.
    RiemannMiddle,
    /// Equal intervals between the nodes, the first at 0 and the last at 1. The weights sum to 1;
    /// Captum's sum to `(n - 1) / n`.
    Trapezoid,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES[*self as usize].1)
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = NAMES.iter().find(|(_, n)| *n == name).map(|(rule, _)| *rule);
        let names = NAMES.map(|(_, name)| name);
        found.ok_or_else(|| {
            format!("unknown quadrature rule `{name}`; use one of {}{}", names.join(", "), did_you_mean(name, names))
        })
    }
}

/// The rules and their names in commands and files.
pub(crate) const NAMES: [(Rule, &str); 5] = [
    (Rule::GaussLegendre, "gauss-legendre"),
    (Rule::RiemannLeft, "riemann-left"),
    (Rule::RiemannRight, "riemann-right"),
    (Rule::RiemannMiddle, "riemann-middle"),
    (Rule::Trapezoid, "trapezoid"),
];
