//! How a file of prompt pairs is read for a model.

use crate::formats::{Choices, Mark};
use crate::tokenizer::Tokenizer;

/// How an answer of several tokens is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AnswerTokens {
    /// Each answer must be one token; several are an error.
    #[default]
    Single,
    /// An answer's first token stands for it, as in EAP-IG and MIB.
    First,
    /// All tokens of an answer count, for [`LogProbability`](crate::LogProbability): prompts are
    /// extended as by [`PromptPairs::with_whole_answers`](crate::PromptPairs::with_whole_answers).
    /// Wrong answers are not read and may be absent.
    Whole,
}

/// How a file of prompt pairs is read for a model.
#[derive(Debug, Clone, Copy)]
pub struct PairsSource<'a> {
    /// The model's tokenizer; without one a file must have token ids.
    pub tokenizer: Option<&'a Tokenizer>,
    /// The token in front of text, if there is one.
    pub bos: Option<u32>,
    /// Size of the model's vocabulary.
    pub d_vocab: usize,
    /// Positions that the model has.
    pub n_ctx: usize,
    /// How an answer of several tokens is read.
    pub answers: AnswerTokens,
    /// Which of the file's alternatives are read.
    pub choices: Choices<'a>,
}

impl<'a> PairsSource<'a> {
    /// Reads answers of one token each, and the defaults of a file's alternatives.
    #[must_use]
    pub fn new(tokenizer: Option<&'a Tokenizer>, bos: Option<u32>, d_vocab: usize, n_ctx: usize) -> Self {
        Self { tokenizer, bos, d_vocab, n_ctx, answers: AnswerTokens::Single, choices: Choices::default() }
    }
}

/// Counts a marked position from the model's first token.
pub(super) fn token_position(mark: Mark, tokens_before_text: usize) -> usize {
    match mark {
        Mark::Token(position) => position,
        Mark::TextToken(position) => position + tokens_before_text,
    }
}
