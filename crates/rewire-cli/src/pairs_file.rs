//! Arguments for a file of prompt pairs, and its reading for a model.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rewire_tasks::{AnswerTokens, Choices, PairsFile, PairsFileError, PairsSource, read_pairs};

use crate::headings::PROMPTS;
use crate::model::Source;

#[derive(Args)]
pub(crate) struct PairsArguments {
    /// Tokens of an answer: single, first-token or whole.
    ///
    /// single: each answer is one token. first-token: the first token stands for an answer of
    /// several tokens. whole: all tokens count, for --metric log-prob, where this is the default.
    /// Elsewhere, the default is single.
    #[arg(long, value_enum, hide_possible_values = true, value_name = "TOKENS", help_heading = PROMPTS)]
    answers: Option<AnswersName>,
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
    Whole,
}

impl PairsArguments {
    /// Returns how answers of several tokens are read: as `--answers` says, or else as `otherwise`.
    pub(crate) fn answers(&self, otherwise: AnswerTokens) -> AnswerTokens {
        match self.answers {
            None => otherwise,
            Some(AnswersName::Single) => AnswerTokens::Single,
            Some(AnswersName::FirstToken) => AnswerTokens::First,
            Some(AnswersName::Whole) => AnswerTokens::Whole,
        }
    }

    /// Reads a file of prompt pairs for a model, and answers as `otherwise` if `--answers` is not
    /// given.
    pub(crate) fn read(
        &self,
        path: &Path,
        source: &Source,
        otherwise: AnswerTokens,
    ) -> Result<PairsFile, PairsFileError> {
        let answers = self.answers(otherwise);
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
