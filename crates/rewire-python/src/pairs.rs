//! Prompt pairs: read for a model, and described to Python.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use pyo3::prelude::*;
use rewire::{Cpu, LanguageModel};
use rewire_tasks::{AnswerTokens, Choices, PairsFile, PairsFileError, PairsSource, PromptPairs, read_pairs};

use crate::failure::{Failure, in_words};

/// Prompt pairs as tokens of one model.
#[pyclass(frozen, module = "rewire._rewire")]
pub(crate) struct Pairs {
    pub(crate) pairs: Arc<PromptPairs>,
    warnings: Vec<String>,
}

#[pymethods]
impl Pairs {
    /// Returns the texts of the tokens of each clean prompt.
    fn labels(&self) -> Vec<Vec<String>> {
        (0..self.pairs.len()).map(|pair| self.pairs.labels(pair)).collect()
    }

    /// Returns the token ids of the clean and of the corrupted prompts.
    fn tokens(&self) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
        (self.pairs.clean(), self.pairs.corrupted())
    }

    /// Returns the answer tokens and the wrong answer tokens of each pair.
    fn answers(&self) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
        let pairs = self.pairs.pairs();
        (pairs.iter().map(|p| p.answers.clone()).collect(), pairs.iter().map(|p| p.wrong_answers.clone()).collect())
    }

    /// Returns what is doubtful about the pairs, one line each.
    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

/// Where pairs come from.
pub(crate) enum Source<'a> {
    /// A file in any format.
    File(&'a Path),
    /// JSON Lines that Python made from lists.
    Lines(&'a str),
}

/// Reads pairs for a model.
pub(crate) fn read(
    model: &LanguageModel<Cpu>,
    source: &Source<'_>,
    answers: AnswerTokens,
    choices: Choices<'_>,
    prepend_bos: bool,
) -> Result<Pairs, Failure> {
    let config = model.config();
    let tokenizer = model.tokenizer().ok();
    let bos = model.bos().filter(|_| prepend_bos);
    let reading = PairsSource { answers, choices, ..PairsSource::new(tokenizer, bos, config.d_vocab, config.n_ctx) };
    let PairsFile { pairs, warnings, .. } = match source {
        Source::File(path) => read_pairs(path, &reading)?,
        Source::Lines(lines) => read_lines(lines, &reading)?,
    };
    Ok(Pairs { pairs: Arc::new(pairs), warnings })
}

/// Reads pairs from a temporary file, which no error names.
fn read_lines(lines: &str, reading: &PairsSource<'_>) -> Result<PairsFile, Failure> {
    let failed = |error: std::io::Error| Failure::Pairs(format!("cannot write a temporary file: {error}"));
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    file.write_all(lines.as_bytes()).map_err(failed)?;
    read_pairs(file.path(), reading).map_err(|error| Failure::Pairs(unnamed(&error, file.path())))
}

/// Returns the words of an error with pairs in place of the file and its lines.
fn unnamed(error: &PairsFileError, path: &Path) -> String {
    let words = in_words(error);
    let name = path.display().to_string();
    words.replace(&format!("{name}, line "), "Pairs, pair number ").replace(&name, "Pairs")
}

/// Reads the name of a way to read answers.
pub(crate) fn answer_tokens(name: &str) -> Result<AnswerTokens, Failure> {
    match name {
        "single" => Ok(AnswerTokens::Single),
        "first-token" => Ok(AnswerTokens::First),
        "whole" => Ok(AnswerTokens::Whole),
        other => Err(Failure::Argument(format!(
            "unknown answers {}; use single, first-token or whole",
            rewire_input::quoted(other)
        ))),
    }
}
