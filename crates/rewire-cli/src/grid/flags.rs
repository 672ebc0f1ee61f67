//! Flags of `rewire sweep` in the file of a grid, as words of a command line.

use clap::{CommandFactory, Parser};
use rewire_input::{cut, did_you_mean};
use toml::Value;

use super::file::{Flags, Toml};
use crate::{Command, sweep};

/// Flags that the grid sets itself, and what the file gives in their place.
const OWN: [(&str, &str); 8] = [
    ("model", "give [[models]]"),
    ("pairs", "give [[tasks]]"),
    ("seed", "give seeds"),
    ("out", "give --out to `rewire grid`"),
    ("force", "give --force to `rewire grid`"),
    ("wait", "give --wait to `rewire grid`"),
    ("shard", "a grid runs each cell whole"),
    ("per-prompt", "the table of a grid has mean effects"),
];

/// The metric of a grid whose file gives none. A share of the clean minus the corrupted metric says
/// nothing about a model that does not do the task yet, because that difference is near 0.
const METRIC: &str = "--metric=logit-diff";

/// Returns flags as words, such as `--nodes=head_z,mlp_out`. Flags of the task come after those of
/// all cells and replace them.
///
/// # Errors
/// If `rewire sweep` has no such flag, with the line.
pub(super) fn words(file: &Toml, of_all: &Flags, of_task: &Flags) -> anyhow::Result<Vec<String>> {
    let known = names();
    let mut words = Vec::new();
    let is_replaced = |name: &str| of_task.keys().any(|key| key.get_ref() == name);
    let kept = of_all.iter().filter(|(key, _)| !is_replaced(key.get_ref()));
    for (key, value) in kept.chain(of_task) {
        let (name, refuse) = (key.get_ref().as_str(), |problem: &str| file.error(Some(key.span()), problem));
        if let Some((_, instead)) = OWN.iter().find(|(own, _)| *own == name) {
            return Err(refuse(&format!("`{name}` cannot be set for cells: {instead}")));
        }
        if !known.iter().any(|known| known == name) {
            let suggested = did_you_mean(name, known.iter().map(String::as_str));
            return Err(refuse(&format!("`rewire sweep` has no flag --{}{suggested}", cut(name))));
        }
        words.extend(word(name, value).map_err(|problem| refuse(&format!("`{name}`: {problem}")))?);
    }
    if !of_all.keys().chain(of_task.keys()).any(|key| key.get_ref() == "metric") {
        words.push(METRIC.to_owned());
    }
    Ok(words)
}

/// Parses the command line of a cell.
///
/// # Errors
/// In one line, if `rewire sweep` refuses it.
pub(super) fn parsed(command: &[String]) -> Result<Box<sweep::Arguments>, String> {
    let words = ["rewire"].into_iter().chain(command.iter().map(String::as_str));
    match crate::Arguments::try_parse_from(words) {
        Ok(crate::Arguments { command: Command::Sweep(arguments) }) => {
            arguments.check_flags().map_err(|error| error.to_string())?;
            Ok(arguments)
        }
        Ok(_) => Err("the command of a cell is not a sweep".to_owned()),
        Err(error) => {
            let text = error.render().to_string();
            let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage"));
            let lines: Vec<&str> = lines.filter(|line| !line.is_empty() && !line.starts_with("For more")).collect();
            Err(lines.join("; ").trim_start_matches("error: ").to_owned())
        }
    }
}

/// Returns the names of the flags of `rewire sweep`.
fn names() -> Vec<String> {
    let command = crate::Arguments::command();
    let sweep = command.find_subcommand("sweep").into_iter().flat_map(clap::Command::get_arguments);
    sweep.filter_map(clap::Arg::get_long).map(str::to_owned).collect()
}

/// Returns the word of a flag with a value; none for a switch that is off.
fn word(name: &str, value: &Value) -> Result<Option<String>, String> {
    let of_list = match value {
        Value::Boolean(true) => return Ok(Some(format!("--{name}"))),
        Value::Boolean(false) => return Ok(None),
        Value::Array(values) => values.iter().map(plain).collect::<Result<Vec<_>, _>>()?.join(","),
        value => plain(value)?,
    };
    Ok(Some(format!("--{name}={of_list}")))
}

/// Returns a value without the marks of TOML.
fn plain(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        _ => Err("give a text, a number, true or false, or a list of texts and numbers".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the words of a file that has these lines in `[sweep]`, and these in that of a task.
    fn words_of(of_all: &str, of_task: &str) -> Result<Vec<String>, String> {
        let text =
            format!("[[models]]\nmodel = \"a\"\n[sweep]\n{of_all}\n[[tasks]]\nioi = 4\n[tasks.sweep]\n{of_task}");
        let file = Toml { path: "grid.toml".into(), text };
        let grid = file.parse().map_err(|error| error.to_string())?;
        words(&file, &grid.sweep, &grid.tasks.get_ref()[0].get_ref().sweep).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_words_and_those_of_a_task_replace_those_of_all() {
        let words = words_of("nodes = [\"head_z\", \"mlp_out\"]\nintervals = true\nsteps = 5", "steps = 7").unwrap();
        assert_eq!(words, ["--intervals", "--nodes=head_z,mlp_out", "--steps=7", METRIC]);
        assert_eq!(words_of("metric = \"kl\"", "intervals = false").unwrap(), ["--metric=kl"]);
    }

    #[test]
    fn unknown_flags_and_those_of_the_grid_are_refused_with_their_line() {
        let message = words_of("node = \"head_z\"", "").unwrap_err();
        assert_eq!(message, "grid.toml, line 4: `rewire sweep` has no flag --node; did you mean `nodes`?");
        let message = words_of("", "model = \"b\"").unwrap_err();
        assert_eq!(message, "grid.toml, line 8: `model` cannot be set for cells: give [[models]]");
        assert!(words_of("nodes = { a = 1 }", "").unwrap_err().contains("line 4: `nodes`: give a text"));
    }
}
