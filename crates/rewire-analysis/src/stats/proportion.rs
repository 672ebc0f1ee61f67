//! Proportions and their confidence intervals.

use serde::{Deserialize, Serialize};

/// A number of successes among a number of trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proportion {
    /// Number of successes.
    pub successes: usize,
    /// Number of trials.
    pub n: usize,
}

impl Proportion {
    /// Counts the outcomes that are true.
    #[must_use]
    pub fn of(outcomes: impl IntoIterator<Item = bool>) -> Self {
        outcomes.into_iter().fold(Self { successes: 0, n: 0 }, |p, true_| Self {
            successes: p.successes + usize::from(true_),
            n: p.n + 1,
        })
    }

    /// Returns the share of successes, 0 to 1; 0 for no trials.
    #[must_use]
    pub fn share(self) -> f64 {
        self.successes as f64 / self.n.max(1) as f64
    }

    /// Returns the 95% Wilson score interval of the share; 0 to 1 for no trials.
    #[must_use]
    pub fn wilson(self) -> [f64; 2] {
        if self.n == 0 {
            return [0.0, 1.0];
        }
        let (n, p, z) = (self.n as f64, self.share(), 1.959_963_984_540_054);
        let center = p + z * z / (2.0 * n);
        let reach = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        [center - reach, center + reach].map(|end| (end / (1.0 + z * z / n)).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::Proportion;

    #[test]
    fn wilson_intervals_match_known_counts() {
        // Computed separately with the formula of Wilson (1927).
        let close = |p: Proportion, [low, high]: [f64; 2]| {
            let found = p.wilson();
            assert!((found[0] - low).abs() < 1e-6 && (found[1] - high).abs() < 1e-6, "{found:?}");
        };
        close(Proportion { successes: 7, n: 10 }, [0.396_778_147, 0.892_208_732]);
        close(Proportion { successes: 0, n: 20 }, [0.0, 0.161_125_158]);
        close(Proportion { successes: 50, n: 50 }, [0.928_652_399, 1.0]);
        assert_eq!(Proportion::of([true, false, true]), Proportion { successes: 2, n: 3 });
        assert_eq!(Proportion::of([]).wilson(), [0.0, 1.0]);
    }
}
