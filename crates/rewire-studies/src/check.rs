//! Comparisons of figures that a source document prints with ours.

/// A comparison of a figure that a source document prints with ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Name of the figure.
    pub what: String,
    /// The figure as the document prints it.
    pub expected: String,
    /// The figure as this run measures it.
    pub got: String,
    /// Whether both agree.
    pub verdict: Verdict,
}

impl Check {
    /// The header of [`row`](Self::row).
    pub const HEADER: [&str; 4] = ["figure", "expected", "got", "verdict"];

    /// Compares a number with the one that a document prints with `digits` decimals. They agree if
    /// they differ by at most half of the last printed digit plus `noise`. `noise` is the largest
    /// difference that float32 rounding makes on another machine.
    #[must_use]
    pub fn figure(what: impl Into<String>, expected: f64, got: f64, digits: usize, noise: f64) -> Self {
        let agrees = (expected - got).abs() <= 0.5 * 10_f64.powi(-(digits as i32)) + noise;
        Self {
            what: what.into(),
            expected: format!("{expected:.digits$}"),
            got: format!("{got:.digits$}"),
            verdict: Verdict::of(agrees),
        }
    }

    /// Compares a text with the one that a document prints. They agree if they are equal.
    #[must_use]
    pub fn same(what: impl Into<String>, expected: &str, got: &str) -> Self {
        let verdict = Verdict::of(got == expected);
        Self { what: what.into(), expected: expected.to_owned(), got: got.to_owned(), verdict }
    }

    /// Returns the row of a table with the header [`HEADER`](Self::HEADER).
    #[must_use]
    pub fn row(&self) -> Vec<String> {
        vec![self.what.clone(), self.expected.clone(), self.got.clone(), self.verdict.text().to_owned()]
    }
}

/// Whether a figure agrees with the one that a source document prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The figures agree within the tolerance.
    Agrees,
    /// The figures differ.
    Differs,
}

impl Verdict {
    /// Returns [`Agrees`](Self::Agrees) if `agrees` is true, else [`Differs`](Self::Differs).
    #[must_use]
    pub fn of(agrees: bool) -> Self {
        if agrees { Verdict::Agrees } else { Verdict::Differs }
    }

    /// Returns `agrees` or `DIFFERS`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Verdict::Agrees => "agrees",
            Verdict::Differs => "DIFFERS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_follow_the_numbers() {
        let verdict = |got| Check::figure("", 3.5519, got, 4, 1e-4).verdict;
        assert_eq!(verdict(3.55194), Verdict::Agrees);
        assert_eq!(verdict(3.55201), Verdict::Agrees, "half of the last digit, and float32 noise");
        assert_eq!(verdict(3.5521), Verdict::Differs, "another number to four decimals");
        assert_eq!(verdict(3.5528), Verdict::Differs, "within the thousandth that was once allowed");
        assert_eq!(verdict(-3.5519), Verdict::Differs);
        assert_eq!(verdict(f64::NAN), Verdict::Differs);
        assert_eq!(Check::same("", "L0H0", "L0H0").verdict, Verdict::Agrees);
        assert_eq!(Check::same("", "L0H0", "L0H1").verdict, Verdict::Differs);
    }
}
