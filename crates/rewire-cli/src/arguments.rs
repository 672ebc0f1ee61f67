//! What arguments of several commands have in common.

/// Whether prompts that are given as text begin with the model's BOS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BosChoice {
    /// As TransformerLens has it for GPT-2 and GPT-NeoX: with the BOS, if the model has one.
    Default,
    /// With the BOS; an error if the model has none.
    Prepend,
    /// Without it.
    None,
}

/// A number from 1 up.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(e) => Err(format!("{e}")),
    }
}

/// A number of prompts: more than a million was mistyped, or would take days.
pub(crate) fn at_most_a_million(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 0..=1_000_000) => Ok(number),
        Ok(_) => Err("must be at most 1000000".to_owned()),
        Err(e) => Err(format!("{e}")),
    }
}

/// How far attributions may be from summing to the change of the metric.
pub(crate) fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(tolerance) if tolerance > 0.0 && tolerance.is_finite() => Ok(tolerance),
        Ok(_) => Err("must be above 0 and finite".to_owned()),
        Err(e) => Err(format!("{e}")),
    }
}

/// A number of pairs of which each is there both ways round.
pub(crate) fn an_even_number(text: &str) -> Result<usize, String> {
    match at_least_one(text)? {
        number if number % 2 == 0 => Ok(number),
        _ => Err("must be even".to_owned()),
    }
}
