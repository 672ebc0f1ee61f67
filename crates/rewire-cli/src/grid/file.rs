//! The TOML file of a grid: its models, tasks, seeds and flags, and the lines on which they stand.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rewire_input::{cut, did_you_mean, read_regular};
use serde::Deserialize;
use toml::Spanned;

/// Most bytes of a file.
const MOST_BYTES: u64 = 1 << 20;

/// The text of a grid's file.
pub(super) struct Toml {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// Flags of `rewire sweep`, by name.
pub(super) type Flags = BTreeMap<Spanned<String>, toml::Value>;

/// A grid, as its file gives it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GridFile {
    /// Title of the report.
    pub(super) title: Option<String>,
    /// Seeds of generated pairs.
    #[serde(default = "one_seed")]
    pub(super) seeds: Spanned<Vec<u64>>,
    /// Flags for every cell.
    #[serde(default)]
    pub(super) sweep: Flags,
    pub(super) models: Spanned<Vec<Spanned<ModelEntry>>>,
    pub(super) tasks: Spanned<Vec<Spanned<TaskEntry>>>,
}

/// A model, and its revisions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelEntry {
    /// What `--model` takes; a directory or a file relative to the folder of the grid's file.
    pub(super) model: Spanned<String>,
    /// Name in the table; by default the end of the path, or the name itself.
    pub(super) name: Option<String>,
    /// Revisions on the hub, or sub-directories of a local model.
    pub(super) revisions: Option<Spanned<Vec<String>>>,
}

/// A task: a file of prompt pairs, or generated pairs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskEntry {
    /// Name in the table; by default the stem of the file, or `ioi`.
    pub(super) name: Option<String>,
    /// File of prompt pairs, relative to the folder of the grid's file.
    pub(super) pairs: Option<String>,
    /// Number of generated IOI pairs.
    pub(super) ioi: Option<Spanned<usize>>,
    /// Corruption of the generated pairs.
    pub(super) corruption: Option<Spanned<String>>,
    /// Further flags for the cells of this task.
    #[serde(default)]
    pub(super) sweep: Flags,
}

fn one_seed() -> Spanned<Vec<u64>> {
    Spanned::new(0..0, vec![0])
}

impl Toml {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let failed = || format!("cannot read the grid {}", path.display());
        let bytes = read_regular(path, MOST_BYTES).with_context(failed)?;
        let text = String::from_utf8(bytes).ok().with_context(|| format!("{}: the file is no text", path.display()))?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Parses the file.
    ///
    /// # Errors
    /// If it is no TOML, or a key is unknown or missing, with its line.
    pub(super) fn parse(&self) -> anyhow::Result<GridFile> {
        toml::from_str(&self.text).map_err(|error| {
            let key = error.span().and_then(|span| self.key(span.start)).filter(|_| !is_named(error.message()));
            let key = key.map_or_else(String::new, |key| format!("`{}`: ", cut(key)));
            let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join(" ");
            self.error(error.span(), &format!("{key}{}{}", cut(&message), suggestion(&message)))
        })
    }

    /// Returns the error of a problem at a place of the file.
    pub(super) fn error(&self, at: Option<Range<usize>>, problem: &str) -> anyhow::Error {
        let line = at.map(|span| self.text[..span.start.min(self.text.len())].matches('\n').count() + 1);
        let line = line.map_or_else(String::new, |line| format!(", line {line}"));
        anyhow::anyhow!("{}{line}: {problem}", self.path.display())
    }

    /// Returns the folder that paths in the file are relative to.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Returns the key on the line of a place.
    fn key(&self, place: usize) -> Option<&str> {
        let start = self.text.get(..place)?.rfind('\n').map_or(0, |end| end + 1);
        let line = self.text[start..].lines().next()?;
        Some(line.split_once('=')?.0.trim())
    }
}

/// Returns whether a message of the parser names the key.
fn is_named(message: &str) -> bool {
    message.contains(" field `")
}

/// Returns the known key that an unknown key was probably meant to be, for the end of a message of
/// the parser: "unknown field `modles`, expected one of `title`, `models`".
fn suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match (message.starts_with("unknown field"), quoted.next()) {
        (true, Some(typed)) => did_you_mean(typed, quoted),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let toml = Toml { path: "grid.toml".into(), text: text.to_owned() };
        toml.parse().err().unwrap().to_string()
    }

    const TASK: &str = "[[tasks]]\nioi = 4\n";

    #[test]
    fn unknown_keys_are_refused_with_their_line_and_a_suggestion() {
        let message = refusal(&format!("{TASK}[[models]]\nmodle = \"gpt2\"\n"));
        assert!(message.starts_with("grid.toml, line 4: unknown field `modle`, expected one of"), "{message}");
        assert!(message.ends_with("did you mean `model`?"), "{message}");
        let message = refusal(&format!("tittle = 1\n{TASK}"));
        assert!(message.starts_with("grid.toml, line 1: ") && message.ends_with("did you mean `title`?"), "{message}");
    }

    #[test]
    fn values_of_the_wrong_type_are_refused_with_their_line_and_key() {
        let message = refusal("[[models]]\nmodel = \"gpt2\"\nrevisions = \"step1\"\n[[tasks]]\nioi = 4\n");
        assert!(message.starts_with("grid.toml, line 3: `revisions`: invalid type"), "{message}");
        let message = refusal("[[models]]\nmodel = \"gpt2\"\n[[tasks]]\nioi = -4\n");
        assert!(message.starts_with("grid.toml, line 4: `ioi`: "), "{message}");
        assert!(refusal("[[models]\n").starts_with("grid.toml, line 1: "));
        assert!(refusal(TASK).contains("missing field `models`"));
    }
}
