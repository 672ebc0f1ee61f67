//! Values and parsers for arguments that several commands share.

/// The choice of whether prompts given as text begin with the model's BOS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BosChoice {
    /// With the BOS if the model has one, as TransformerLens does for GPT-2 and GPT-NeoX.
    Default,
    /// With the BOS; an error if the model has none.
    Prepend,
    /// Without the BOS.
    None,
}

/// Parses a number that is at least 1.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(e) => Err(format!("{e}")),
    }
}

/// Parses a number of prompts, at most a million. A larger number is probably a typo, and would
/// take days.
pub(crate) fn at_most_a_million(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 0..=1_000_000) => Ok(number),
        Ok(_) => Err("must be at most 1000000".to_owned()),
        Err(e) => Err(format!("{e}")),
    }
}

/// Parses a tolerance: the largest relative gap between the sum of attributions and the change of
/// the metric.
pub(crate) fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(tolerance) if tolerance > 0.0 && tolerance.is_finite() => Ok(tolerance),
        Ok(_) => Err("must be above 0 and finite".to_owned()),
        Err(e) => Err(format!("{e}")),
    }
}

/// Parses an even number of pairs. It is even because each pair occurs in both directions.
pub(crate) fn an_even_number(text: &str) -> Result<usize, String> {
    match at_least_one(text)? {
        number if number % 2 == 0 => Ok(number),
        _ => Err("must be even".to_owned()),
    }
}
