//! Why a file of prompt pairs was refused.

use std::fmt;
use std::path::{Path, PathBuf};

use rewire_input::quoted;

use crate::formats::{MOST_LINE_BYTES, Place};
use crate::pairs::PairsError;
use crate::tokenizer::TokenizerError;

/// Most prompt pairs of a file. More would take days on any model.
pub(super) const MOST_PAIRS: usize = 1_000_000;

/// Why a file of prompt pairs was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairsFileError {
    /// The file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has no prompt pairs.
    #[error("{path} holds no prompt pairs")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file as a whole is of no format that is read.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected, and what the file looks like.
        reason: String,
    },
    /// The file has more pairs than are read.
    #[error("{path}, {place}: a file may have at most {MOST_PAIRS} prompt pairs; split it")]
    TooManyPairs {
        /// The file.
        path: PathBuf,
        /// The first pair that is too many.
        place: Place,
    },
    /// Text would begin with a token that the model does not have.
    #[error(
        "{path}: text begins with the model's BOS, and config.json's bos_token_id {bos} is outside the vocabulary of \
         {d_vocab}; correct it, or leave the BOS out (--bos none)"
    )]
    BosOutsideVocabulary {
        /// The file.
        path: PathBuf,
        /// The token in front.
        bos: u32,
        /// Size of the vocabulary.
        d_vocab: usize,
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
    /// Some pairs cannot be used.
    #[error("{}", listed(path, problems, *more))]
    Problems {
        /// The file.
        path: PathBuf,
        /// Where and why; the first twenty.
        problems: Vec<(Place, PairsProblem)>,
        /// How many more there are.
        more: usize,
    },
}

/// One problem as a sentence, several as a list.
fn listed(path: &Path, problems: &[(Place, PairsProblem)], more: usize) -> String {
    if let [(place, problem)] = problems {
        return format!("{}, {place}: {problem}", path.display());
    }
    let mut text = format!("{} has {} pairs that cannot be used:", path.display(), problems.len() + more);
    for (place, problem) in problems {
        text += &format!("\n  {place}: {problem}");
    }
    if more > 0 {
        text += &format!("\n  and {more} more");
    }
    text
}

/// Why one pair of a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PairsProblem {
    /// The line or row is not a prompt pair.
    Content(String),
    /// The marked position is missing, and other pairs have one.
    NoPosition,
    /// Text where the model has no tokenizer.
    NoTokenizer {
        /// The text.
        text: String,
    },
    /// A token id that stands for another text in this model's vocabulary.
    OtherTokenizer {
        /// The token id.
        id: u32,
        /// What it stands for here.
        token: String,
        /// What the file says that it begins.
        text: String,
    },
    /// A token id for a name in the prompt that stands for other text in this model's vocabulary.
    IdNotInPrompt {
        /// The token id.
        id: u32,
        /// What it stands for here.
        token: String,
    },
    /// A token that is a right and a wrong answer.
    RightAndWrong {
        /// The token's text.
        token: String,
    },
    /// Prompts of unequal lengths.
    UnequalLengths {
        /// Tokens of the clean and of the corrupted prompt.
        lengths: [usize; 2],
        /// The first position at which they differ.
        first: usize,
        /// A few tokens of both from there on.
        pieces: [Vec<String>; 2],
    },
    /// Text that does not become the tokens asked for.
    Tokens(TokenizerError),
    /// A pair that cannot be patched, or not with this model.
    Pair(PairsError),
}

impl From<TokenizerError> for PairsProblem {
    fn from(error: TokenizerError) -> Self {
        PairsProblem::Tokens(error)
    }
}

impl From<PairsError> for PairsProblem {
    fn from(error: PairsError) -> Self {
        PairsProblem::Pair(error)
    }
}

impl fmt::Display for PairsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PairsProblem::Content(reason) => f.write_str(reason),
            PairsProblem::NoPosition => f.write_str("`position` is missing, and other pairs have it"),
            PairsProblem::NoTokenizer { text } => {
                write!(
                    f,
                    "{} is text, and the model has no tokenizer.json, nor both vocab.json and merges.txt; give token ids",
                    quoted(text)
                )
            }
            PairsProblem::OtherTokenizer { id, token, text } if token.is_empty() => write!(
                f,
                "token id {id} is no token of this model, and the file has it for {}: the ids are of another tokenizer; use text",
                quoted(text)
            ),
            PairsProblem::OtherTokenizer { id, token, text } => write!(
                f,
                "token id {id} is {} for this model, and the file has it for {}: the ids are of another tokenizer; use text",
                quoted(token),
                quoted(text)
            ),
            PairsProblem::IdNotInPrompt { id, token } => write!(
                f,
                "token id {id} is {} for this model, and the prompt does not hold it, although the table's answers are names in \
                 the prompt: the ids are of another tokenizer; replace them by the columns `answer` and `wrong_answer` with text",
                quoted(token)
            ),
            PairsProblem::RightAndWrong { token } => {
                write!(f, "the token {} is both an answer and a wrong answer; keep it on one side", quoted(token))
            }
            PairsProblem::UnequalLengths { lengths: [clean, corrupted], first, pieces } => {
                let [of_clean, of_corrupted] = pieces.each_ref().map(|pieces| quoted(&pieces.join("|")));
                write!(
                    f,
                    "the clean prompt has {clean} tokens and the corrupted prompt has {corrupted}; give prompts of equal length. From \
                     position {first} on, clean is {of_clean} and corrupted {of_corrupted}"
                )
            }
            PairsProblem::Tokens(error @ TokenizerError::NotOneToken { text, pieces })
                if pieces.len() > 1 && !text.starts_with(char::is_alphabetic) =>
            {
                write!(f, "{error}; give --answers first-token to use the first")
            }
            PairsProblem::Tokens(error) => error.fmt(f),
            PairsProblem::Pair(error) => error.fmt(f),
        }
    }
}
