//! The shard that `--shard` chooses.

use crate::headings::SHARDS;
use clap::Args;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail};
use rewire_input::quoted;

/// The choice of a shard.
#[derive(Args)]
pub(crate) struct ShardArguments {
    /// Compute one of N shards: 1/N to N/N, or auto.
    ///
    /// Each shard computes its part of the passes and writes DIR/shards in --out, on any machine
    /// that shares the directory. `rewire merge DIR` makes the results of all shards. auto takes
    /// the shard from the Slurm job array (SLURM_ARRAY_TASK_ID, _COUNT and _MIN).
    #[arg(long, value_name = "K/N", help_heading = SHARDS)]
    pub(crate) shard: Option<ShardChoice>,
}

/// Most shards. More would spend their time starting.
const MOST: usize = 100_000;

/// The value of `--shard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShardChoice {
    /// The task of a Slurm job array.
    Auto,
    /// One of some shards.
    Part(Part),
}

/// One of some shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// The shard, counted from 1.
    pub(crate) number: usize,
    /// The number of shards.
    pub(crate) of: usize,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for ShardChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(ShardChoice::Auto);
        }
        let parts = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((0, _)) => Err("shards count from 1: give 1/N to N/N".to_owned()),
            Some((_, of)) if of > MOST => Err(format!("there can be at most {MOST} shards")),
            Some((number, of)) if number <= of => Ok(ShardChoice::Part(Part { number, of })),
            Some((_, of)) => Err(format!("there are only {of} shards: give 1/{of} to {of}/{of}")),
            None => Err("give K/N, such as 3/16 for the third of 16 shards, or auto".to_owned()),
        }
    }
}

impl ShardChoice {
    /// Returns the shard. For `auto`, `variable` gives the environment variables of Slurm.
    ///
    /// # Errors
    /// If `auto` is given outside a job array, or in an array that lacks tasks.
    pub(crate) fn part(self, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Part> {
        let ShardChoice::Part(part) = self else {
            let number = |name: &str| -> anyhow::Result<usize> {
                let name = format!("SLURM_ARRAY_TASK_{name}");
                let value = variable(&name).with_context(|| {
                    format!(
                        "--shard auto: {name} is not set; run the command in a Slurm job array, or give --shard K/N"
                    )
                })?;
                value.parse().with_context(|| format!("--shard auto: {name} is {}, not a number", quoted(&value)))
            };
            let (id, of, first) = (number("ID")?, number("COUNT")?, number("MIN")?);
            // Slurm does not say which tasks an array like 3,7 has. Without gaps, the last is
            // known.
            let last = number("MAX")?;
            if of == 0 || last != first + of - 1 || !(first..=last).contains(&id) {
                bail!(
                    "--shard auto: task {id} belongs to an array of {of} tasks from {first} to {last}, which has gaps; \
                     give --shard K/N with the number of all shards"
                );
            }
            return Ok(Part { number: id - first + 1, of });
        };
        Ok(part)
    }
}

/// Returns a command line without the choice of a shard.
pub(crate) fn without_shard(command: &[String]) -> Vec<String> {
    let mut words = command.iter();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--shard" => {
                words.next();
            }
            other if other.starts_with("--shard=") => {}
            _ => kept.push(word.clone()),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_count_from_1() {
        let part = |number, of| Ok(ShardChoice::Part(Part { number, of }));
        assert_eq!("1/16".parse(), part(1, 16));
        assert_eq!("16/16".parse(), part(16, 16));
        assert_eq!("auto".parse(), Ok(ShardChoice::Auto));
        for (text, says) in [
            ("0/4", "count from 1"),
            ("5/4", "only 4 shards"),
            ("1/0", "only 0 shards"),
            ("3", "give K/N"),
            ("-1/4", "give K/N"),
            ("1/1000000", "at most"),
        ] {
            let refused = text.parse::<ShardChoice>().unwrap_err();
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }

    #[test]
    fn auto_reads_the_job_array() {
        let found = |id: &str, count: &str, min: &str, max: &str| {
            let values = [("ID", id), ("COUNT", count), ("MIN", min), ("MAX", max)].map(|(k, v)| (k, v.to_owned()));
            let variable = move |name: &str| {
                let found = values.iter().find(|(key, _)| name == format!("SLURM_ARRAY_TASK_{key}"));
                found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
            };
            ShardChoice::Auto.part(variable).map_err(|error| error.to_string())
        };
        assert_eq!(found("3", "16", "1", "16"), Ok(Part { number: 3, of: 16 }));
        assert_eq!(found("0", "16", "0", "15"), Ok(Part { number: 1, of: 16 }));
        assert_eq!(found("12", "3", "10", "12"), Ok(Part { number: 3, of: 3 }));
        // Two tasks that were submitted again.
        assert!(found("3", "2", "3", "7").unwrap_err().contains("has gaps"));
        assert!(found("", "", "", "").unwrap_err().contains("SLURM_ARRAY_TASK_ID is not set"));
        assert!(found("x", "2", "0", "1").unwrap_err().contains("not a number"));
    }

    #[test]
    fn the_choice_of_the_shard_is_left_out_of_a_command() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let kept = words("sweep --pairs p --out o");
        for command in ["sweep --pairs p --shard 3/16 --out o", "sweep --shard=auto --pairs p --out o"] {
            assert_eq!(without_shard(&words(command)), kept);
        }
    }
}
