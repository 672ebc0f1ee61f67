//! Prompt pairs whose answers have several tokens.

use crate::pairs::{PairsError, PromptPair, PromptPairs};

/// A clean and a corrupted prompt, with right continuations of one or more tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeAnswers {
    /// Tokens of the prompt on which the model shows the behavior.
    pub clean: Vec<u32>,
    /// Tokens of the prompt on which the model does not show the behavior; as many as in `clean`.
    pub corrupted: Vec<u32>,
    /// Right continuations of the clean prompt. Several may differ in their last token only.
    pub answers: Vec<Vec<u32>>,
}

impl WholeAnswers {
    /// Appends to both prompts all tokens of the answers but the last, which becomes the answer.
    /// Also returns the number of appended tokens. `pair` is the number of the pair in errors.
    pub(crate) fn extended(&self, pair: usize) -> Result<(PromptPair, usize), PairsError> {
        let Self { clean, corrupted, answers } = self;
        if clean.len() != corrupted.len() {
            return Err(PairsError::UnequalLengths { pair, clean: clean.len(), corrupted: corrupted.len() });
        }
        if clean.is_empty() {
            return Err(PairsError::EmptyPrompt { pair });
        }
        let first = answers.first().ok_or(PairsError::NoAnswer { pair, which: "answer" })?;
        let (_, begin) = first.split_last().ok_or(PairsError::EmptyAnswer { pair })?;
        let mut last_tokens = Vec::with_capacity(answers.len());
        for answer in answers {
            let (last, before) = answer.split_last().ok_or(PairsError::EmptyAnswer { pair })?;
            if before != begin {
                return Err(PairsError::AnswersPart { pair });
            }
            if !last_tokens.contains(last) {
                last_tokens.push(*last);
            }
        }
        let [clean, corrupted] = [clean, corrupted].map(|prompt| [prompt.as_slice(), begin].concat());
        let pair = PromptPair { clean, corrupted, answers: last_tokens, wrong_answers: Vec::new() };
        Ok((pair, begin.len()))
    }
}

impl PromptPairs {
    /// Builds the set for [`LogProbability`](crate::LogProbability), whose answers may have several
    /// tokens. Both prompts of a pair are extended by all tokens of its answers but the last, so
    /// that one run gives the probability of every token of an answer. There are no wrong answers.
    ///
    /// Several answers of a pair must share all tokens but the last. The probability of any of them
    /// is then the probability of the shared tokens times the sum over the last tokens.
    ///
    /// Other metrics read the last position alone, where the answers are the last tokens.
    ///
    /// # Errors
    /// [`PairsError`], which names the pair.
    ///
    /// # Example
    /// ```
    /// use rewire_tasks::{PromptPairs, WholeAnswers};
    ///
    /// let answers = vec![vec![7, 8, 9]];
    /// let pair = WholeAnswers { clean: vec![1, 2], corrupted: vec![1, 3], answers };
    /// let pairs = PromptPairs::with_whole_answers(&[pair])?;
    /// assert_eq!(pairs.pairs()[0].clean, [1, 2, 7, 8]);
    /// assert_eq!(pairs.begun(0), 2);
    /// # Ok::<(), rewire_tasks::PairsError>(())
    /// ```
    pub fn with_whole_answers(pairs: &[WholeAnswers]) -> Result<Self, PairsError> {
        let extended = pairs.iter().enumerate().map(|(number, pair)| pair.extended(number));
        let extended = extended.collect::<Result<Vec<_>, _>>()?;
        let (pairs, begun) = extended.into_iter().unzip();
        Self::with_begun_answers(pairs, begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(answers: &[&[u32]]) -> WholeAnswers {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        WholeAnswers { clean: vec![1, 2, 3], corrupted: vec![1, 4, 3], answers }
    }

    #[test]
    fn prompts_end_in_all_tokens_of_the_answer_but_the_last() {
        let pairs = PromptPairs::with_whole_answers(&[pair(&[&[5, 6]]), pair(&[&[7], &[8], &[7]])]).unwrap();
        let [first, second] = pairs.pairs() else { panic!("two pairs") };
        assert_eq!(
            (first.clean.as_slice(), first.corrupted.as_slice()),
            ([1, 2, 3, 5].as_slice(), [1, 4, 3, 5].as_slice())
        );
        assert_eq!((first.answers.as_slice(), second.answers.as_slice()), ([6].as_slice(), [7, 8].as_slice()));
        assert_eq!((pairs.begun(0), pairs.begun(1), pairs.width()), (1, 0, 4));
        assert_eq!(pairs.batch(1..2).begun(0), 0);
        assert_eq!(pairs.batch(0..1).begun(0), 1);
        assert_eq!(pairs.clusters().len(), 1, "the answer does not count");
    }

    #[test]
    fn answers_without_a_joint_run_are_refused() {
        let refused = |of: WholeAnswers| PromptPairs::with_whole_answers(&[of]).unwrap_err();
        assert_eq!(refused(pair(&[&[5, 6], &[7, 6]])), PairsError::AnswersPart { pair: 0 });
        assert_eq!(refused(pair(&[&[5, 6], &[5]])), PairsError::AnswersPart { pair: 0 });
        assert_eq!(refused(pair(&[&[]])), PairsError::EmptyAnswer { pair: 0 });
        assert_eq!(refused(pair(&[])), PairsError::NoAnswer { pair: 0, which: "answer" });
        let shorter = WholeAnswers { corrupted: vec![1], ..pair(&[&[5]]) };
        assert_eq!(refused(shorter), PairsError::UnequalLengths { pair: 0, clean: 3, corrupted: 1 });
        assert_eq!(PromptPairs::with_whole_answers(&[]).unwrap_err(), PairsError::Empty);
    }
}
