//! Suggests the known name that an unknown name was probably meant to be.

use crate::quote::MOST_QUOTED;

/// A suggestion is more similar than this, on a scale from 0 (nothing in common) to 1 (equal). clap
/// has the same measure and limit for its own suggestions.
const LEAST: f64 = 0.7;

/// Returns the known name that is most similar to `typed`, if any is similar enough. Upper and
/// lower case count as the same letter, and so do hyphen and underscore.
#[must_use]
pub fn most_similar<'n>(typed: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    // The measure takes time that grows with the square of the length.
    let typed: String = plain(typed).chars().take(MOST_QUOTED).collect();
    let mut best: Option<(f64, &str)> = None;
    for name in known {
        let similarity = strsim::jaro(&typed, &plain(name));
        if similarity > best.map_or(LEAST, |(most, _)| most) {
            best = Some((similarity, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Returns the part of an error that suggests a known name: ``; did you mean `head_z`?``. Empty if
/// no known name is similar to `typed`.
#[must_use]
pub fn did_you_mean<'n>(typed: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    most_similar(typed, known).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_suggested_and_others_are_not() {
        let known = ["head_z", "head_pattern", "mlp_out", "resid_post"];
        for (typed, suggested) in [
            ("head-z", Some("head_z")),
            ("HEAD_PATERN", Some("head_pattern")),
            ("mlp_uot", Some("mlp_out")),
            ("residpost", Some("resid_post")),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(most_similar(typed, known), suggested, "{typed}");
        }
        assert_eq!(did_you_mean("mlp_ou", known), "; did you mean `mlp_out`?");
        assert_eq!(did_you_mean("42", known), "");
    }

    #[test]
    fn the_first_of_equally_similar_names_is_suggested() {
        assert_eq!(most_similar("head_x", ["head_y", "head_z"]), Some("head_y"));
    }

    #[test]
    fn long_input_is_compared_up_to_a_limit() {
        assert_eq!(most_similar(&"q".repeat(1_000_000), ["head_q"]), None);
    }
}
