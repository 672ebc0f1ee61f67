//! Prompt pairs from a JSONL file, one a line, as text or token ids.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{PairsError, PromptPair, PromptPairs, Tokenizer, TokenizerError};

/// Why a file of pairs was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairsFileError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has no lines but blank ones.
    #[error("{path} holds no prompt pairs")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line is not a pair in JSON.
    #[error("{path}, line {line}: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A line without a marked position, in a file that marks them.
    #[error("{path}, line {line}: `position` is missing, and other lines have it")]
    NoPosition {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Text where the model has no tokenizer.
    #[error("{path}, line {line}: {text:?} is text, and the model has no tokenizer.json; give token ids")]
    NoTokenizer {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The text.
        text: String,
    },
    /// Text that would begin with a token that the model does not have.
    #[error(
        "{path}, line {line}: text begins with the model's BOS, and its id {bos} is outside the vocabulary of {d_vocab}; \
         leave the BOS out (--bos none) or correct bos_token_id in config.json"
    )]
    BosOutsideVocabulary {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The token in front.
        bos: u32,
        /// Size of the vocabulary.
        d_vocab: usize,
    },
    /// Text that does not become the tokens asked for.
    #[error("{path}, line {line}: {source}")]
    Tokens {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        source: TokenizerError,
    },
    /// A pair that cannot be patched, or not with this model.
    #[error("{path}, line {line}: {source}")]
    Pair {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        source: PairsError,
    },
}

/// One line of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    clean: Prompt,
    corrupt: Prompt,
    answers: Vec<Answer>,
    wrong_answers: Vec<Answer>,
    position: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a prompt is text or a list of token ids")]
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "an answer is text or a token id")]
enum Answer {
    Text(String),
    Id(u32),
}

/// Reads `{"clean": text|[ids], "corrupt": text|[ids], "answers": [text|id, ..], "wrong_answers": [..]}` lines. Ids are used
/// as they are; a `"position"`, on every line or on none, marks a position of each prompt; text is
/// tokenized, with `bos` in front if there is one. Blank lines are passed over.
/// The pairs are checked against the model's vocabulary and context.
///
/// # Errors
/// [`PairsFileError`], naming the file and the line.
pub fn read_pairs(
    path: &Path,
    tokenizer: Option<&Tokenizer>,
    bos: Option<u32>,
    d_vocab: usize,
    n_ctx: usize,
) -> Result<PromptPairs, PairsFileError> {
    let text = std::fs::read_to_string(path).map_err(|source| PairsFileError::Read { path: path.into(), source })?;
    let mut lines = Vec::new();
    let mut pairs = Vec::new();
    let mut marks = Vec::new();
    for (index, content) in text.lines().enumerate().filter(|(_, content)| !content.trim().is_empty()) {
        let reader = LineReader { path, line: index + 1, tokenizer, bos, d_vocab };
        let (pair, mark) = reader.pair(content)?;
        pairs.push(pair);
        marks.push(mark);
        lines.push(index + 1);
    }
    let named = |source: PairsError| match source.pair() {
        None => PairsFileError::Empty { path: path.into() },
        Some(pair) => PairsFileError::Pair { path: path.into(), line: lines[pair], source },
    };
    let mut pairs = PromptPairs::new(pairs).map_err(named)?;
    if marks.iter().any(Option::is_some) {
        let missing = |(mark, line): (Option<usize>, &usize)| {
            mark.ok_or_else(|| PairsFileError::NoPosition { path: path.into(), line: *line })
        };
        let marks = marks.into_iter().zip(&lines).map(missing).collect::<Result<_, _>>()?;
        pairs = pairs.marking(marks).map_err(named)?;
    }
    pairs.check_model(d_vocab, n_ctx).map_err(named)?;
    Ok(match tokenizer {
        Some(tokenizer) => pairs.labelled(|token| tokenizer.decode(&[token])),
        None => pairs,
    })
}

/// What is needed to read one line and to say where it is.
struct LineReader<'a> {
    path: &'a Path,
    line: usize,
    tokenizer: Option<&'a Tokenizer>,
    bos: Option<u32>,
    d_vocab: usize,
}

impl LineReader<'_> {
    fn pair(&self, content: &str) -> Result<(PromptPair, Option<usize>), PairsFileError> {
        let parsed: Line = serde_json::from_str(content).map_err(|e| PairsFileError::Json {
            path: self.path.into(),
            line: self.line,
            // serde counts lines within the line.
            reason: e.to_string().replace(" at line 1 column", " at column"),
        })?;
        let mark = parsed.position;
        let pair = PromptPair {
            clean: self.prompt(parsed.clean)?,
            corrupted: self.prompt(parsed.corrupt)?,
            answers: parsed.answers.into_iter().map(|a| self.answer(a)).collect::<Result<_, _>>()?,
            wrong_answers: parsed.wrong_answers.into_iter().map(|a| self.answer(a)).collect::<Result<_, _>>()?,
        };
        Ok((pair, mark))
    }

    fn prompt(&self, prompt: Prompt) -> Result<Vec<u32>, PairsFileError> {
        match prompt {
            Prompt::Ids(ids) => Ok(ids),
            Prompt::Text(text) => {
                let tokens = self.tokenizer(&text)?.encode(&text).map_err(|source| self.tokens(source))?;
                if let Some(bos) = self.bos.filter(|&bos| bos as usize >= self.d_vocab) {
                    let (path, line, d_vocab) = (self.path.into(), self.line, self.d_vocab);
                    return Err(PairsFileError::BosOutsideVocabulary { path, line, bos, d_vocab });
                }
                Ok(self.bos.into_iter().chain(tokens).collect())
            }
        }
    }

    fn answer(&self, answer: Answer) -> Result<u32, PairsFileError> {
        match answer {
            Answer::Id(id) => Ok(id),
            Answer::Text(text) => self.tokenizer(&text)?.single_token(&text).map_err(|source| self.tokens(source)),
        }
    }

    fn tokenizer(&self, text: &str) -> Result<&Tokenizer, PairsFileError> {
        let (path, line, text) = (self.path.into(), self.line, text.to_owned());
        self.tokenizer.ok_or(PairsFileError::NoTokenizer { path, line, text })
    }

    fn tokens(&self, source: TokenizerError) -> PairsFileError {
        PairsFileError::Tokens { path: self.path.into(), line: self.line, source }
    }
}
