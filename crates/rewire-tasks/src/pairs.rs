//! Pairs of prompts: checked when built, padded on the right, END per prompt.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// One clean and one corrupted prompt, and what tells right from wrong after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptPair {
    /// Tokens of the prompt on which the model behaves.
    pub clean: Vec<u32>,
    /// Tokens of the prompt on which it does not; as many as the clean one has.
    pub corrupted: Vec<u32>,
    /// Right next tokens of the clean prompt.
    pub answers: Vec<u32>,
    /// Wrong ones.
    pub wrong_answers: Vec<u32>,
}

/// Prompt pairs that a model can be run on as one batch.
///
/// The prompts of a pair have one length. Pairs of different lengths are padded on the right, where a causal model does not
/// look from any token of the prompt; [`end`](Self::end) is each prompt's last real position, and what reads logits reads
/// them there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptPairs {
    pairs: Vec<PromptPair>,
    /// Names of tokens, for labels; a token without one is labeled by its id. Shared by all
    /// batches, so that labels take no memory a pair.
    names: Arc<BTreeMap<u32, String>>,
    marks: Option<Vec<usize>>,
    width: usize,
}

/// Why pairs were refused; `pair` counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairsError {
    /// There is no pair.
    #[error("there are no prompt pairs")]
    Empty,
    /// A prompt without tokens.
    #[error("a prompt has no tokens")]
    EmptyPrompt {
        /// Which pair.
        pair: usize,
    },
    /// The two prompts of a pair differ in length, so that positions do not correspond.
    #[error("the clean prompt has {clean} tokens, the corrupted one {corrupted}; patching needs as many in both")]
    UnequalLengths {
        /// Which pair.
        pair: usize,
        /// Tokens of the clean prompt.
        clean: usize,
        /// Tokens of the corrupted prompt.
        corrupted: usize,
    },
    /// A pair without a right or a wrong answer.
    #[error("there is no {which}; each pair needs at least one")]
    NoAnswer {
        /// Which pair.
        pair: usize,
        /// `answer` or `wrong answer`.
        which: &'static str,
    },
    /// A token that is a right and a wrong answer.
    #[error("token id {token} is both an answer and a wrong answer; keep it on one side")]
    RightAndWrong {
        /// Which pair.
        pair: usize,
        /// The token.
        token: u32,
    },
    /// A prompt whose marked position is missing or past its end.
    #[error("the marked position is {mark:?} (none, or counted from 0), and the prompt has {len} tokens")]
    MarkOutside {
        /// Which pair.
        pair: usize,
        /// The position, if there is one.
        mark: Option<usize>,
        /// Tokens of the prompt.
        len: usize,
    },
    /// A token that the model does not have.
    #[error("token id {token} is outside the vocabulary of {d_vocab}")]
    TokenOutsideVocabulary {
        /// Which pair.
        pair: usize,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        d_vocab: usize,
    },
    /// A prompt longer than the model's context.
    #[error("the prompt has {found} tokens, more than the model's context of {n_ctx}")]
    ContextExceeded {
        /// Which pair.
        pair: usize,
        /// Tokens of the prompt.
        found: usize,
        /// Positions that the model has.
        n_ctx: usize,
    },
}

impl PairsError {
    /// Which pair is at fault, if one is.
    #[must_use]
    pub fn pair(&self) -> Option<usize> {
        match self {
            PairsError::Empty => None,
            PairsError::EmptyPrompt { pair }
            | PairsError::UnequalLengths { pair, .. }
            | PairsError::NoAnswer { pair, .. }
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
    /// Checks the pairs and puts them together; tokens are labeled by their ids until [`with_token_labels`](Self::with_token_labels).
    ///
    /// # Errors
    /// [`PairsError`], naming the pair.
    pub fn new(pairs: Vec<PromptPair>) -> Result<Self, PairsError> {
        pairs.iter().enumerate().try_for_each(|(number, pair)| pair.check(number))?;
        let width = pairs.iter().map(|p| p.clean.len()).max().ok_or(PairsError::Empty)?;
        Ok(Self { pairs, names: Arc::default(), marks: None, width })
    }

    /// Names every position of the clean prompts, by `name` of its token.
    #[must_use]
    pub fn with_token_labels(self, name: impl Fn(u32) -> String) -> Self {
        let mut names = BTreeMap::new();
        for &token in self.pairs.iter().flat_map(|p| &p.clean) {
            names.entry(token).or_insert_with(|| name(token));
        }
        Self { names: Arc::new(names), ..self }
    }

    /// Marks one position a prompt (the repeated name, the verb), for nodes that are patched there.
    ///
    /// # Errors
    /// [`PairsError::MarkOutside`] for a position past a prompt's end or another number of them than of prompts.
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

    /// The marked position of every prompt, if any are marked.
    #[must_use]
    pub fn marked_positions(&self) -> Option<&[usize]> {
        self.marks.as_deref()
    }

    /// Checks that a model with this vocabulary and context can run the pairs.
    ///
    /// # Errors
    /// [`PairsError::TokenOutsideVocabulary`] or [`PairsError::ContextExceeded`], naming the pair.
    pub fn check_model(&self, d_vocab: usize, n_ctx: usize) -> Result<(), PairsError> {
        self.pairs.iter().enumerate().try_for_each(|(number, pair)| pair.check_model(number, d_vocab, n_ctx))
    }

    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Never: an empty set of pairs cannot be built.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Positions of the longest prompt, to which the others are padded.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The pairs.
    #[must_use]
    pub fn pairs(&self) -> &[PromptPair] {
        &self.pairs
    }

    /// Names of the positions of the clean prompt `pair`.
    #[must_use]
    pub fn labels(&self, pair: usize) -> Vec<String> {
        let name = |token: &u32| self.names.get(token).cloned().unwrap_or_else(|| token.to_string());
        self.pairs[pair].clean.iter().map(name).collect()
    }

    /// The last real position of prompt `pair`, where its next token is predicted.
    #[must_use]
    pub fn end(&self, pair: usize) -> usize {
        self.pairs[pair].clean.len() - 1
    }

    /// The number of tokens of every prompt.
    #[must_use]
    pub fn lengths(&self) -> Vec<usize> {
        self.pairs.iter().map(|pair| pair.clean.len()).collect()
    }

    /// The last real position of every prompt.
    #[must_use]
    pub fn ends(&self) -> Vec<usize> {
        (0..self.len()).map(|pair| self.end(pair)).collect()
    }

    /// The first position at which the prompts of `pair` differ; `None` if they are the same. Under a causal mask every
    /// activation before it is equal in both runs.
    #[must_use]
    pub fn first_difference(&self, pair: usize) -> Option<usize> {
        let PromptPair { clean, corrupted, .. } = &self.pairs[pair];
        clean.iter().zip(corrupted).position(|(c, d)| c != d)
    }

    /// The clean prompts, padded on the right to one width.
    #[must_use]
    pub fn clean(&self) -> Vec<Vec<u32>> {
        self.pairs.iter().map(|p| self.padded(&p.clean)).collect()
    }

    /// The corrupted prompts, padded on the right to one width.
    #[must_use]
    pub fn corrupted(&self) -> Vec<Vec<u32>> {
        self.pairs.iter().map(|p| self.padded(&p.corrupted)).collect()
    }

    /// The pairs in runs of at most `size`, each padded to the width of all.
    pub fn batches(&self, size: usize) -> impl Iterator<Item = PromptPairs> + '_ {
        let size = size.max(1);
        (0..self.len()).step_by(size).map(move |from| self.batch(from..(from + size).min(self.len())))
    }

    /// Returns the pairs of `range`, padded to the width of all.
    ///
    /// # Panics
    /// If there are fewer pairs.
    #[must_use]
    pub fn batch(&self, range: Range<usize>) -> PromptPairs {
        PromptPairs {
            pairs: self.pairs[range.clone()].to_vec(),
            names: Arc::clone(&self.names),
            marks: self.marks.as_ref().map(|marks| marks[range].to_vec()),
            width: self.width,
        }
    }

    fn padded(&self, tokens: &[u32]) -> Vec<u32> {
        // Any token does: no position of the prompt looks to the right.
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
    fn shorter_pairs_are_padded_on_the_right_and_keep_their_end() {
        let pairs = PromptPairs::new(vec![pair(&[7, 8, 9], &[7, 5, 9]), pair(&[4], &[3])]).unwrap();
        assert_eq!(pairs.clean(), [vec![7, 8, 9], vec![4, 4, 4]]);
        assert_eq!(pairs.ends(), [2, 0]);
        assert_eq!([pairs.first_difference(0), pairs.first_difference(1)], [Some(1), Some(0)]);
        let widths: Vec<_> = pairs.batches(1).map(|batch| (batch.len(), batch.width())).collect();
        assert_eq!(widths, [(1, 3), (1, 3)]);
    }

    #[test]
    fn what_cannot_be_patched_is_refused() {
        let refused = |pairs| PromptPairs::new(pairs).unwrap_err();
        assert_eq!(refused(vec![]), PairsError::Empty);
        assert_eq!(refused(vec![pair(&[], &[])]), PairsError::EmptyPrompt { pair: 0 });
        let unequal = PairsError::UnequalLengths { pair: 1, clean: 2, corrupted: 1 };
        assert_eq!(refused(vec![pair(&[1], &[2]), pair(&[1, 2], &[1])]), unequal);
        let no_answer = PromptPair { answers: vec![], ..pair(&[1], &[2]) };
        assert_eq!(refused(vec![no_answer]), PairsError::NoAnswer { pair: 0, which: "answer" });
    }

    #[test]
    fn what_the_model_cannot_run_is_refused() {
        let pairs = PromptPairs::new(vec![pair(&[1, 2], &[1, 9])]).unwrap();
        assert_eq!(pairs.check_model(10, 2), Ok(()));
        assert_eq!(pairs.check_model(9, 2), Err(PairsError::TokenOutsideVocabulary { pair: 0, token: 9, d_vocab: 9 }));
        assert_eq!(pairs.check_model(10, 1), Err(PairsError::ContextExceeded { pair: 0, found: 2, n_ctx: 1 }));
    }
}
