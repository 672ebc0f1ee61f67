//! Prompt pairs from a JSONL file, one a line, as text or token ids.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use rewire_input::{Line, cut, quoted, read_line};

use crate::json_line::{Answer, JsonLine, Prompt};
use crate::pairs::{PairsError, PromptPair, PromptPairs};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Most bytes of a line. Two texts of the longest that is tokenized fit, whatever JSON escapes in
/// them.
const MOST_LINE_BYTES: usize = 16 << 20;

/// Most prompt pairs of a file. More would take days on any model.
const MOST_PAIRS: usize = 1_000_000;

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
    /// The file has more pairs than are read.
    #[error("{path}, line {line}: a file may have at most {MOST_PAIRS} prompt pairs; split it")]
    TooManyPairs {
        /// The file.
        path: PathBuf,
        /// The line of the first pair that is too many, from 1.
        line: usize,
    },
    /// A line has more bytes than are read.
    #[error(
        "{path}, line {line}: the line has more than {MOST_LINE_BYTES} bytes, the most that are read; is this the right file?"
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
    #[error("{path}, line {line}: {} is text, and the model has no tokenizer.json; give token ids", quoted(text))]
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

/// Reads `{"clean": text|[ids], "corrupt": text|[ids], "answers": [text|id, ..], "wrong_answers": [..]}` lines. Ids are used
/// as they are; a `"position"`, on every line or on none, marks a position of each prompt; text is
/// tokenized, with `bos` in front if there is one. Blank lines and a byte order mark are passed
/// over. The pairs are checked against the model's vocabulary and context.
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

/// Gives every line that is not blank to `work`, with its number from 1. One line at a time is in
/// memory.
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

/// What is needed to read one line and to say where it is.
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
            // serde counts lines within the line.
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

    /// The tokenizer for a text that may fit into the model's context.
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
