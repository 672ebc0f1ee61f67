//! Reads prompt pairs from a JSONL file, one per line, as text or token ids.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use rewire_input::{Line, cut, quoted, read_line};

use crate::json_line::{Answer, JsonLine, Prompt};
use crate::pairs::{PairsError, PromptPair, PromptPairs};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Largest line that is read, in bytes. Two texts of the largest size that is tokenized fit, even
/// if JSON escapes every character.
const MOST_LINE_BYTES: usize = 16 << 20;

/// Largest number of prompt pairs in a file. More would take days on any model.
const MOST_PAIRS: usize = 1_000_000;

/// Why a file of prompt pairs was refused.
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
    /// The file has only blank lines.
    #[error("{path} holds no prompt pairs; give one JSON object per line")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file has more prompt pairs than the limit.
    #[error("{path}, line {line}: a file may have at most {MOST_PAIRS} prompt pairs; split it")]
    TooManyPairs {
        /// The file.
        path: PathBuf,
        /// The line of the first pair over the limit, from 1.
        line: usize,
    },
    /// A line has more bytes than the limit.
    #[error(
        "{path}, line {line}: the line has more than {MOST_LINE_BYTES} bytes, the limit; check that this is a file of prompt pairs"
    )]
    LineTooLong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A line is not UTF-8.
    #[error("{path}, line {line}: byte {column} of the line is not UTF-8; save the file as UTF-8")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The byte, from 1.
        column: usize,
    },
    /// A line is not a prompt pair in JSON.
    #[error("{path}, line {line}: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's message.
        reason: String,
    },
    /// A line has no marked position, but other lines have one.
    #[error("{path}, line {line}: `position` is missing, and other lines have it; give it on every line or on none")]
    NoPosition {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A line has text, but the model has no tokenizer.
    #[error("{path}, line {line}: {} is text, and the model has no tokenizer.json; give token ids", quoted(text))]
    NoTokenizer {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The text.
        text: String,
    },
    /// A text would begin with a BOS token outside the vocabulary.
    #[error(
        "{path}, line {line}: the model's BOS token has id {bos}, outside the vocabulary of {d_vocab}; \
         leave the BOS token out (--bos none) or correct bos_token_id in config.json"
    )]
    BosOutsideVocabulary {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The BOS token.
        bos: u32,
        /// Size of the vocabulary.
        d_vocab: usize,
    },
    /// A text cannot be tokenized as required.
    #[error("{path}, line {line}: {source}")]
    Tokens {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        source: TokenizerError,
    },
    /// A pair cannot be patched, or this model cannot run it.
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

/// Reads prompt pairs from a JSONL file, and checks them against the model's vocabulary and
/// context.
///
/// The keys of each line:
///
/// ```text
/// {"clean": text|[ids], "corrupt": text|[ids], "answers": [text|id, ..], "wrong_answers": [..]}
/// ```
///
/// Token ids are used unchanged. Text is tokenized, with `bos` in front of prompts if it is given.
/// The key `"position"` marks a position of each prompt; it is on every line or on none. Blank
/// lines and a byte order mark are skipped.
///
/// # Errors
/// [`PairsFileError`], which names the file and the line.
pub fn read_pairs(
    path: &Path,
    tokenizer: Option<&Tokenizer>,
    bos: Option<u32>,
    d_vocab: usize,
    n_ctx: usize,
) -> Result<PromptPairs, PairsFileError> {
    let mut lines = Vec::new();
    let mut pairs = Vec::new();
    let mut marks = Vec::new();
    each_line(path, |line, content| {
        if pairs.len() == MOST_PAIRS {
            return Err(PairsFileError::TooManyPairs { path: path.into(), line });
        }
        let reader = LineReader { path, line, tokenizer, bos, d_vocab, n_ctx };
        let (pair, mark) = reader.pair(content)?;
        pairs.push(pair);
        marks.push(mark);
        lines.push(line);
        Ok(())
    })?;
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
        pairs = pairs.with_marked_positions(marks).map_err(named)?;
    }
    pairs.check_model(d_vocab, n_ctx).map_err(named)?;
    Ok(match tokenizer {
        Some(tokenizer) => pairs.with_token_labels(|token| tokenizer.decode(&[token])),
        None => pairs,
    })
}

/// Calls `work` with every line that is not blank and its number, from 1. Holds one line in memory
/// at a time.
fn each_line(
    path: &Path,
    mut work: impl FnMut(usize, &str) -> Result<(), PairsFileError>,
) -> Result<(), PairsFileError> {
    let unread = |source| PairsFileError::Read { path: path.into(), source };
    let mut reader = BufReader::new(File::open(path).map_err(unread)?);
    let mut bytes = Vec::new();
    for line in 1.. {
        match read_line(&mut reader, MOST_LINE_BYTES, &mut bytes).map_err(unread)? {
            Line::End => break,
            Line::TooLong => return Err(PairsFileError::LineTooLong { path: path.into(), line }),
            Line::Whole => {}
        }
        let content = std::str::from_utf8(&bytes).map_err(|e| {
            let column = e.valid_up_to() + 1;
            PairsFileError::NotUtf8 { path: path.into(), line, column }
        })?;
        let content = if line == 1 { content.trim_start_matches('\u{feff}') } else { content };
        if !content.trim().is_empty() {
            work(line, content)?;
        }
    }
    Ok(())
}

/// Reads one line, and names the file and the line number in errors.
struct LineReader<'a> {
    path: &'a Path,
    line: usize,
    tokenizer: Option<&'a Tokenizer>,
    bos: Option<u32>,
    d_vocab: usize,
    n_ctx: usize,
}

impl LineReader<'_> {
    fn pair(&self, content: &str) -> Result<(PromptPair, Option<usize>), PairsFileError> {
        let parsed: JsonLine = serde_json::from_str(content).map_err(|e| PairsFileError::Json {
            path: self.path.into(),
            line: self.line,
            // serde's line number counts within this line of the file, and is always 1.
            reason: cut(&e.to_string().replace(" at line 1 column", " at column")),
        })?;
        let mark = parsed.position();
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
                let tokens =
                    self.tokenizer(&text)?.encode_prompt(&text, self.bos).map_err(|source| self.tokens(source))?;
                if let Some(bos) = self.bos.filter(|&bos| bos as usize >= self.d_vocab) {
                    let (path, line, d_vocab) = (self.path.into(), self.line, self.d_vocab);
                    return Err(PairsFileError::BosOutsideVocabulary { path, line, bos, d_vocab });
                }
                Ok(tokens)
            }
        }
    }

    fn answer(&self, answer: Answer) -> Result<u32, PairsFileError> {
        match answer {
            Answer::Id(id) => Ok(id),
            Answer::Text(text) => self.tokenizer(&text)?.single_token(&text).map_err(|source| self.tokens(source)),
        }
    }

    /// Returns the tokenizer, or an error if `text` cannot fit into the model's context.
    fn tokenizer(&self, text: &str) -> Result<&Tokenizer, PairsFileError> {
        let none = || PairsFileError::NoTokenizer { path: self.path.into(), line: self.line, text: text.to_owned() };
        let tokenizer = self.tokenizer.ok_or_else(none)?;
        tokenizer.check_fits(text, self.n_ctx).map_err(|source| self.tokens(source))?;
        Ok(tokenizer)
    }

    fn tokens(&self, source: TokenizerError) -> PairsFileError {
        PairsFileError::Tokens { path: self.path.into(), line: self.line, source }
    }
}
