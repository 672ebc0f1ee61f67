//! The prompt pairs of a cell: a file, or generated pairs that are written into its directory.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rewire_tasks::ioi::{Corruption, IoiGenerator, IoiPrompt, Split};
use serde_json::json;

use crate::model::{ModelArguments, Source};

/// Name of the file of generated pairs in the directory of a cell.
const FILE: &str = "pairs.jsonl";

/// Where the prompt pairs of a cell come from.
pub(super) enum Prompts {
    /// From a file.
    File(PathBuf),
    /// Generated IOI pairs.
    Ioi { number: usize, corruption: Corruption, seed: u64 },
}

impl Prompts {
    /// Returns the file of the pairs, for a cell with this directory.
    pub(super) fn file(&self, directory: &Path) -> PathBuf {
        match self {
            Prompts::File(path) => path.clone(),
            Prompts::Ioi { .. } => directory.join(FILE),
        }
    }

    /// Writes generated pairs, unless they are there. They have only names that are single tokens
    /// of the model's tokenizer.
    pub(super) fn write(&self, model: &ModelArguments, directory: &Path) -> anyhow::Result<()> {
        let Prompts::Ioi { number, corruption, seed } = *self else { return Ok(()) };
        let source = Source::open(model)?;
        let prompts = IoiGenerator::new(source.tokenizer()?)?.sample(number, seed, Split::All);
        let text: String = prompts.iter().map(|prompt| row(prompt, corruption)).collect();
        let path = directory.join(FILE);
        if std::fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
            return Ok(());
        }
        let failed = || format!("cannot write {}", path.display());
        std::fs::create_dir_all(directory).with_context(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(directory).with_context(failed)?;
        file.write_all(text.as_bytes()).with_context(failed)?;
        file.persist(&path).map_err(|error| error.error).with_context(failed)?;
        Ok(())
    }
}

/// Returns one pair as a line of JSON.
fn row(prompt: &IoiPrompt, corruption: Corruption) -> String {
    let [io, subject] = [prompt.io, prompt.subject].map(|name| format!(" {name}"));
    let (clean, corrupt) = (prompt.text(), corruption.text(prompt));
    format!("{}\n", json!({ "clean": clean, "corrupt": corrupt, "answers": [io], "wrong_answers": [subject] }))
}
