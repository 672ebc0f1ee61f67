//! Positions after `@`, as `--nodes` and `--receivers` name them.

use std::fmt;

use anyhow::{Context, bail};
use rewire_analysis::node::Positions;
use rewire_input::{cut, did_you_mean};
use rewire_tasks::PromptPairs;

/// Positions in the prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum At {
    Everywhere,
    One(usize),
    /// One cell of an attention pattern.
    Cell {
        dest: usize,
        src: usize,
    },
    /// The last position of each prompt.
    End,
    /// The position that each pair marks.
    Marked,
}

impl At {
    /// Splits text into the part before `@` and the positions after it.
    pub(super) fn split(text: &str) -> Result<(&str, Self), String> {
        let Some((name, at)) = text.split_once('@') else { return Ok((text.trim(), At::Everywhere)) };
        let at = at.trim();
        let number = |digits: &str| {
            let digits = digits.trim();
            let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| digits.parse().ok()).flatten()
        };
        let found = match (at.to_ascii_lowercase().as_str(), at.split_once("<-")) {
            ("end", _) => Some(At::End),
            ("marked", _) => Some(At::Marked),
            (_, Some((dest, src))) => number(dest).zip(number(src)).map(|(dest, src)| At::Cell { dest, src }),
            (digits, None) => number(digits).map(At::One),
        };
        let suggested = did_you_mean(at, ["end", "marked"]);
        let found =
            found.ok_or_else(|| format!("no position `{}`; give a number, end or marked{suggested}", cut(at)))?;
        Ok((name.trim(), found))
    }

    /// Returns the positions in these prompts. `what` is at them, and named in errors.
    pub(super) fn positions(self, pairs: &PromptPairs, what: &dyn fmt::Display) -> anyhow::Result<Positions> {
        Ok(match self {
            At::Everywhere => Positions::All,
            At::One(position) => Positions::One(position),
            At::Cell { dest, src } => Positions::Cell { dest, src },
            At::End if (0..pairs.len()).any(|pair| pairs.begun(pair) > 0) => bail!(
                "{what}: answers of several tokens are read at several positions; leave out @end or give a number"
            ),
            At::End => Positions::Each(pairs.ends()),
            At::Marked => {
                let marks = pairs.marked_positions().with_context(|| {
                    format!("{what}: the pairs mark no position; add the field `position` to each line of --pairs")
                })?;
                Positions::Each(marks.to_vec())
            }
        })
    }
}

/// Writes the suffix of a name; nothing for all positions.
impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Everywhere => Ok(()),
            At::One(position) => write!(f, "@{position}"),
            At::Cell { dest, src } => write!(f, "@{dest}<-{src}"),
            At::End => f.write_str("@end"),
            At::Marked => f.write_str("@marked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_round_trip_through_text() {
        for text in ["L9H6", "L9H6@4", "L9H6@12<-4", "L9H6@end", "L9H6@marked"] {
            let (name, at) = At::split(text).unwrap();
            assert_eq!(format!("{name}{at}"), text);
        }
        assert_eq!(At::split("q:9.6 @ END"), Ok(("q:9.6", At::End)));
    }

    #[test]
    fn unknown_positions_are_refused_with_a_suggestion() {
        assert_eq!(At::split("q@last").unwrap_err(), "no position `last`; give a number, end or marked");
        assert!(At::split("q@mark").unwrap_err().ends_with("did you mean `marked`?"));
        for text in ["q@", "q@-1", "q@+1", "q@1<-"] {
            assert!(At::split(text).is_err(), "{text}");
        }
    }
}
