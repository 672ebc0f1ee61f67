//! The number of threads that a command may use.

use anyhow::{Context, anyhow};

/// Upper bound on threads. rayon starts as many threads as the variable gives, and a command with
/// tens of thousands of threads spends its time starting them.
const MOST: usize = 1024;

/// The environment variables that rayon reads. The second is the old name of the first.
const VARIABLES: [&str; 2] = ["RAYON_NUM_THREADS", "RAYON_RS_NUM_CPUS"];

/// Refuses a number of threads in the environment that would make rayon hang or that rayon would
/// ignore.
pub(crate) fn check() -> anyhow::Result<()> {
    for variable in VARIABLES {
        // rayon treats an empty value as unset.
        let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) else { continue };
        let context = || format!("the environment variable {variable} (unset it to use every processor)");
        let value = value.to_str().ok_or_else(|| anyhow!("it is not UTF-8")).with_context(context)?;
        number(value).map_err(anyhow::Error::msg).with_context(context)?;
    }
    Ok(())
}

/// Returns the number of threads that the environment sets, if [`check`] accepts it. The passes of
/// a sweep run on as many threads; by default, on one per core.
pub(crate) fn limit() -> Option<usize> {
    let set = VARIABLES.iter().filter_map(|variable| std::env::var(variable).ok());
    set.filter(|value| !value.is_empty()).find_map(|value| number(&value).ok())
}

/// Parses a number of threads.
pub(crate) fn number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=MOST) => Ok(number),
        _ => Err(format!("{} is not a whole number from 1 to {MOST}", rewire_input::quoted(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn impossible_thread_counts_are_refused() {
        assert_eq!([number("1"), number("1024")], [Ok(1), Ok(1024)]);
        for text in ["0", "-1", "1025", "100000", "18446744073709551616", "abc", "", "2.5", " 2"] {
            let refused = number(text).unwrap_err();
            assert_eq!(refused, format!("{text:?} is not a whole number from 1 to 1024"));
        }
    }
}
