//! Arguments for a file of prompt pairs, and its reading for a model.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rewire_tasks::{AnswerTokens, Choices, PairsFile, PairsFileError, PairsSource, read_pairs};

use crate::headings::PROMPTS;
use crate::model::Source;

#[derive(Args)]
pub(crate) struct PairsArguments {
    /// Tokens of an answer: single or first-token.
    ///
    /// single: each answer is one token. first-token: the first token stands for an answer of
    /// several tokens.
    #[arg(
        long,
        value_enum,
        default_value = "single",
        hide_possible_values = true,
        value_name = "TOKENS",
        help_heading = PROMPTS
    )]
    answers: AnswersName,
    /// Counterfactual to use, in MIB rows or in a CSV table.
    ///
    /// For MIB rows: the name of the counterfactual, such as s2_io_flip or abc [default: the one of
    /// the task]. For a CSV table: the column of the corrupted prompts [default: corrupted].
    #[arg(long, value_name = "NAME", help_heading = PROMPTS)]
    counterfactual: Option<String>,
    /// Word of auto-circuit's word_idxs to mark, for --by marked.
    #[arg(long, value_name = "WORD", help_heading = PROMPTS)]
    mark: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum AnswersName {
    Single,
    FirstToken,
}

impl PairsArguments {
    /// Reads a file of prompt pairs for a model.
    pub(crate) fn read(&self, path: &Path, source: &Source) -> Result<PairsFile, PairsFileError> {
        let answers = match self.answers {
            AnswersName::Single => AnswerTokens::Single,
            AnswersName::FirstToken => AnswerTokens::First,
        };
        let choices = Choices { counterfactual: self.counterfactual.as_deref(), mark: self.mark.as_deref() };
        read_pairs(
            path,
            &PairsSource {
                tokenizer: source.tokenizer.as_ref(),
                bos: source.bos(),
                d_vocab: source.config.d_vocab,
                n_ctx: source.config.n_ctx,
                answers,
                choices,
            },
        )
    }
}

/// A file of prompt pairs and the way to read it.
#[derive(Args)]
pub(crate) struct PairsFileArguments {
    /// Prompt pairs: JSON Lines, or another format of the field.
    ///
    /// JSON Lines with clean, corrupt, answers, wrong_answers (text or token ids) and, for --by
    /// marked, position (counted from 0, the BOS included); or a file of auto-circuit, EAP-IG, MIB,
    /// BLiMP or feature-circuits. `rewire pairs check FILE` shows the pairs of a file as tokens.
    #[arg(long, value_name = "FILE", help_heading = PROMPTS)]
    pub(crate) pairs: PathBuf,
    #[command(flatten)]
    pub(crate) reading: PairsArguments,
}
