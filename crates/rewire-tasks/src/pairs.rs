//! Prompt pairs: checked when built, padded on the right, with one END position per prompt.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A clean and a corrupted prompt, with right and wrong next tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptPair {
    /// Tokens of the prompt on which the model shows the behavior.
    pub clean: Vec<u32>,
    /// Tokens of the prompt on which the model does not show the behavior; as many as in `clean`.
    pub corrupted: Vec<u32>,
    /// Right next tokens for the clean prompt.
    pub answers: Vec<u32>,
    /// Wrong next tokens for the clean prompt.
    pub wrong_answers: Vec<u32>,
}

/// Prompt pairs that a model can run in one batch.
///
/// The two prompts of a pair have the same length. Pairs of different lengths are padded on the
/// right. Under a causal mask no token of a prompt attends to the padding. [`end`](Self::end) is
/// the last real position of a prompt, and metrics read logits there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptPairs {
    pairs: Vec<PromptPair>,
    /// Names of tokens, for labels. A token without a name is labeled by its id. All batches share
    /// the map, to keep labels from taking memory per pair.
    names: Arc<BTreeMap<u32, String>>,
    /// Names of positions, for prompts of as many tokens.
    positions: Option<Arc<Vec<String>>>,
    marks: Option<Vec<usize>>,
    /// Number of tokens at the end of both prompts of each pair that begin its answers; empty if no
    /// prompt has any.
    begun: Vec<usize>,
    width: usize,
}

/// Why prompt pairs were refused; `pair` counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairsError {
    /// There are no pairs.
    #[error("there are no prompt pairs")]
    Empty,
    /// A prompt has no tokens.
    #[error("a prompt has no tokens")]
    EmptyPrompt {
        /// The pair.
        pair: usize,
    },
    /// The two prompts of a pair differ in length, and their positions do not correspond.
    #[error(
        "the clean prompt has {clean} tokens and the corrupted prompt has {corrupted}; give prompts of equal length"
    )]
    UnequalLengths {
        /// The pair.
        pair: usize,
        /// Tokens of the clean prompt.
        clean: usize,
        /// Tokens of the corrupted prompt.
        corrupted: usize,
    },
    /// A pair has no right answer or no wrong answer.
    #[error("there is no {which}; each pair needs at least one")]
    NoAnswer {
        /// The pair.
        pair: usize,
        /// `answer` or `wrong answer`.
        which: &'static str,
    },
    /// An answer has no tokens.
    #[error("an answer has no tokens")]
    EmptyAnswer {
        /// The pair.
        pair: usize,
    },
    /// Whole answers differ before their last token.
    #[error(
        "the answers differ before their last token, and each would need a run of its own; give one answer, or answers \
         that differ in their last token only"
    )]
    AnswersPart {
        /// The pair.
        pair: usize,
    },
    /// A token that is a right and a wrong answer.
    #[error("token id {token} is both an answer and a wrong answer; keep it on one side")]
    RightAndWrong {
        /// Which pair.
        pair: usize,
        /// The token.
        token: u32,
    },
    /// The marked position of a prompt is missing or past the prompt's end.
    #[error(
        "the marked position is {} (counted from 0), and the prompt has {len} tokens; mark one position of each prompt",
        mark.map_or_else(|| "missing".to_owned(), |mark| mark.to_string())
    )]
    MarkOutside {
        /// The pair.
        pair: usize,
        /// The marked position, if there is one.
        mark: Option<usize>,
        /// Tokens of the prompt.
        len: usize,
    },
    /// A token is outside the model's vocabulary.
    #[error("token id {token} is outside the vocabulary of {d_vocab}")]
    TokenOutsideVocabulary {
        /// The pair.
        pair: usize,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        d_vocab: usize,
    },
    /// A prompt is longer than the model's context.
    #[error("the prompt has {found} tokens, more than the model's context of {n_ctx}")]
    ContextExceeded {
        /// The pair.
        pair: usize,
        /// Tokens of the prompt.
        found: usize,
        /// Positions in the model's context.
        n_ctx: usize,
    },
}

impl PairsError {
    /// Returns the pair at fault, if a single pair is at fault.
    #[must_use]
    pub fn pair(&self) -> Option<usize> {
        match self {
            PairsError::Empty => None,
            PairsError::EmptyPrompt { pair }
            | PairsError::UnequalLengths { pair, .. }
            | PairsError::NoAnswer { pair, .. }
            | PairsError::EmptyAnswer { pair }
            | PairsError::AnswersPart { pair }
            | PairsError::RightAndWrong { pair, .. }
            | PairsError::MarkOutside { pair, .. }
            | PairsError::TokenOutsideVocabulary { pair, .. }
            | PairsError::ContextExceeded { pair, .. } => Some(*pair),
        }
    }
}

impl PromptPair {
    /// Checks the pair alone; `pair` is its number in errors.
    pub(crate) fn check(&self, pair: usize) -> Result<(), PairsError> {
        let Self { clean, corrupted, answers, wrong_answers } = self;
        if clean.len() != corrupted.len() {
            return Err(PairsError::UnequalLengths { pair, clean: clean.len(), corrupted: corrupted.len() });
        }
        if clean.is_empty() {
            return Err(PairsError::EmptyPrompt { pair });
        }
        for (which, tokens) in [("answer", answers), ("wrong answer", wrong_answers)] {
            if tokens.is_empty() {
                return Err(PairsError::NoAnswer { pair, which });
            }
        }
        match answers.iter().find(|token| wrong_answers.contains(token)) {
            Some(&token) => Err(PairsError::RightAndWrong { pair, token }),
            None => Ok(()),
        }
    }

    /// Checks that a model with this vocabulary and context can run the pair; `pair` is its number
    /// in errors.
    pub(crate) fn check_model(&self, pair: usize, d_vocab: usize, n_ctx: usize) -> Result<(), PairsError> {
        if self.clean.len() > n_ctx {
            return Err(PairsError::ContextExceeded { pair, found: self.clean.len(), n_ctx });
        }
        let mut tokens = [&self.clean, &self.corrupted, &self.answers, &self.wrong_answers].into_iter().flatten();
        match tokens.find(|token| **token as usize >= d_vocab) {
            Some(&token) => Err(PairsError::TokenOutsideVocabulary { pair, token, d_vocab }),
            None => Ok(()),
        }
    }
}

impl PromptPairs {
    /// Checks the pairs and builds the set. Tokens are labeled by their ids until
    /// [`with_token_labels`](Self::with_token_labels) names them.
    ///
    /// # Errors
    /// [`PairsError`], which names the pair.
    pub fn new(pairs: Vec<PromptPair>) -> Result<Self, PairsError> {
        pairs.iter().enumerate().try_for_each(|(number, pair)| pair.check(number))?;
        let width = pairs.iter().map(|p| p.clean.len()).max().ok_or(PairsError::Empty)?;
        Ok(Self { pairs, names: Arc::default(), positions: None, marks: None, begun: Vec::new(), width })
    }

    /// Builds a set of checked pairs, whose prompts end in the first `begun` tokens of their
    /// answers. The pairs may lack wrong answers.
    pub(crate) fn with_begun_answers(pairs: Vec<PromptPair>, begun: Vec<usize>) -> Result<Self, PairsError> {
        let width = pairs.iter().map(|p| p.clean.len()).max().ok_or(PairsError::Empty)?;
        Ok(Self { pairs, names: Arc::default(), positions: None, marks: None, begun, width })
    }

    /// Labels every position of the prompts, and every answer, with the `name` of its token.
    #[must_use]
    pub fn with_token_labels(self, name: impl Fn(u32) -> String) -> Self {
        let mut names = BTreeMap::new();
        let of_pair = |p: &PromptPair| [p.clean.as_slice(), &p.corrupted, &p.answers, &p.wrong_answers].concat();
        for token in self.pairs.iter().flat_map(of_pair) {
            names.entry(token).or_insert_with(|| name(token));
        }
        Self { names: Arc::new(names), ..self }
    }

    /// Names the positions of every prompt that has as many tokens, in place of its tokens.
    #[must_use]
    pub fn with_position_labels(self, labels: Vec<String>) -> Self {
        Self { positions: Some(Arc::new(labels)), ..self }
    }

    /// Marks one position per prompt (the repeated name, the verb), for nodes that are patched at
    /// marked positions.
    ///
    /// # Errors
    /// [`PairsError::MarkOutside`] if a position is past its prompt's end, or if the numbers of
    /// positions and prompts differ.
    pub fn with_marked_positions(self, marks: Vec<usize>) -> Result<Self, PairsError> {
        for pair in 0..self.len().max(marks.len()) {
            let mark = marks.get(pair).copied();
            let len = self.pairs.get(pair).map_or(0, |p| p.clean.len());
            if mark.is_none_or(|m| m >= len) {
                return Err(PairsError::MarkOutside { pair, mark, len });
            }
        }
        Ok(Self { marks: Some(marks), ..self })
    }

    /// Returns the marked position of every prompt, if positions are marked.
    #[must_use]
    pub fn marked_positions(&self) -> Option<&[usize]> {
        self.marks.as_deref()
    }

    /// Checks that a model with this vocabulary and context can run the pairs.
    ///
    /// # Errors
    /// [`PairsError::TokenOutsideVocabulary`] or [`PairsError::ContextExceeded`], which names the
    /// pair.
    pub fn check_model(&self, d_vocab: usize, n_ctx: usize) -> Result<(), PairsError> {
        self.pairs.iter().enumerate().try_for_each(|(number, pair)| pair.check_model(number, d_vocab, n_ctx))
    }

    /// Returns the number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Returns false: an empty set of pairs cannot be built.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Returns the number of positions of the longest prompt, to which all prompts are padded.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the pairs.
    #[must_use]
    pub fn pairs(&self) -> &[PromptPair] {
        &self.pairs
    }

    /// Returns the labels of the positions of the clean prompt `pair`.
    #[must_use]
    pub fn labels(&self, pair: usize) -> Vec<String> {
        let clean = &self.pairs[pair].clean;
        if let Some(positions) = self.positions.as_ref().filter(|positions| positions.len() == clean.len()) {
            return positions.to_vec();
        }
        clean.iter().map(|&token| self.token_name(token)).collect()
    }

    /// Returns the name of a token, or its id if it has no name.
    #[must_use]
    pub fn token_name(&self, token: u32) -> String {
        self.names.get(&token).cloned().unwrap_or_else(|| token.to_string())
    }

    /// Returns the last real position of prompt `pair`, whose logits predict the next token.
    #[must_use]
    pub fn end(&self, pair: usize) -> usize {
        self.pairs[pair].clean.len() - 1
    }

    /// Returns how many tokens at the end of both prompts of `pair` begin its answers: 0, unless
    /// the set was made by [`with_whole_answers`](Self::with_whole_answers) and an answer has several
    /// tokens.
    #[must_use]
    pub fn begun(&self, pair: usize) -> usize {
        self.begun.get(pair).copied().unwrap_or_default()
    }

    /// Returns the number of tokens of every prompt.
    #[must_use]
    pub fn lengths(&self) -> Vec<usize> {
        self.pairs.iter().map(|pair| pair.clean.len()).collect()
    }

    /// Returns the last real position of every prompt.
    #[must_use]
    pub fn ends(&self) -> Vec<usize> {
        (0..self.len()).map(|pair| self.end(pair)).collect()
    }

    /// Returns the first position at which the prompts of `pair` differ, or `None` if the prompts
    /// are equal. Under a causal mask every activation before this position is equal in both runs.
    #[must_use]
    pub fn first_difference(&self, pair: usize) -> Option<usize> {
        let PromptPair { clean, corrupted, .. } = &self.pairs[pair];
        clean.iter().zip(corrupted).position(|(c, d)| c != d)
    }

    /// Returns the clean prompts, padded on the right to one width.
    #[must_use]
    pub fn clean(&self) -> Vec<Vec<u32>> {
        self.pairs.iter().map(|p| self.padded(&p.clean)).collect()
    }

    /// Returns the corrupted prompts, padded on the right to one width.
    #[must_use]
    pub fn corrupted(&self) -> Vec<Vec<u32>> {
        self.pairs.iter().map(|p| self.padded(&p.corrupted)).collect()
    }

    /// Returns the pairs in batches of at most `size`, all padded to the width of the whole set.
    pub fn batches(&self, size: usize) -> impl Iterator<Item = PromptPairs> + '_ {
        let size = size.max(1);
        (0..self.len()).step_by(size).map(move |from| self.batch(from..(from + size).min(self.len())))
    }

    /// Returns the pairs in `range` as one batch, padded to the width of the whole set.
    ///
    /// # Panics
    /// If `range` is outside the pairs.
    #[must_use]
    pub fn batch(&self, range: Range<usize>) -> PromptPairs {
        PromptPairs {
            pairs: self.pairs[range.clone()].to_vec(),
            names: Arc::clone(&self.names),
            positions: self.positions.clone(),
            marks: self.marks.as_ref().map(|marks| marks[range.clone()].to_vec()),
            begun: self.begun.get(range).unwrap_or_default().to_vec(),
            width: self.width,
        }
    }

    fn padded(&self, tokens: &[u32]) -> Vec<u32> {
        // Any token will do: under a causal mask no token of the prompt attends to the padding.
        let mut padded = tokens.to_vec();
        padded.resize(self.width, tokens[0]);
        padded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(clean: &[u32], corrupted: &[u32]) -> PromptPair {
        PromptPair { clean: clean.to_vec(), corrupted: corrupted.to_vec(), answers: vec![1], wrong_answers: vec![2] }
    }

    #[test]
    fn shorter_pairs_are_padded_on_the_right_and_keep_their_end_position() {
        let pairs = PromptPairs::new(vec![pair(&[7, 8, 9], &[7, 5, 9]), pair(&[4], &[3])]).unwrap();
        assert_eq!(pairs.clean(), [vec![7, 8, 9], vec![4, 4, 4]]);
        assert_eq!(pairs.ends(), [2, 0]);
        assert_eq!([pairs.first_difference(0), pairs.first_difference(1)], [Some(1), Some(0)]);
        let widths: Vec<_> = pairs.batches(1).map(|batch| (batch.len(), batch.width())).collect();
        assert_eq!(widths, [(1, 3), (1, 3)]);
    }

    #[test]
    fn empty_and_unequal_pairs_are_refused() {
        let refused = |pairs| PromptPairs::new(pairs).unwrap_err();
        assert_eq!(refused(vec![]), PairsError::Empty);
        assert_eq!(refused(vec![pair(&[], &[])]), PairsError::EmptyPrompt { pair: 0 });
        let unequal = PairsError::UnequalLengths { pair: 1, clean: 2, corrupted: 1 };
        assert_eq!(refused(vec![pair(&[1], &[2]), pair(&[1, 2], &[1])]), unequal);
        let no_answer = PromptPair { answers: vec![], ..pair(&[1], &[2]) };
        assert_eq!(refused(vec![no_answer]), PairsError::NoAnswer { pair: 0, which: "answer" });
    }

    #[test]
    fn pairs_outside_the_vocabulary_or_context_are_refused() {
        let pairs = PromptPairs::new(vec![pair(&[1, 2], &[1, 9])]).unwrap();
        assert_eq!(pairs.check_model(10, 2), Ok(()));
        assert_eq!(pairs.check_model(9, 2), Err(PairsError::TokenOutsideVocabulary { pair: 0, token: 9, d_vocab: 9 }));
        assert_eq!(pairs.check_model(10, 1), Err(PairsError::ContextExceeded { pair: 0, found: 2, n_ctx: 1 }));
    }
}
