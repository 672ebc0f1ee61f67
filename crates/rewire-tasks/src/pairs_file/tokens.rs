//! A record's text as tokens.

use super::error::PairsProblem;
use super::source::{AnswerTokens, PairsSource, token_position};
use crate::formats::{Answer, Prompt, Record};
use crate::pairs::{PairsError, PromptPair};
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::whole_answers::WholeAnswers;

/// Turns records into pairs of tokens.
pub(super) struct RecordReader<'a> {
    pub(super) source: &'a PairsSource<'a>,
}

/// A pair of tokens.
pub(super) struct ReadPair {
    pub(super) pair: PromptPair,
    /// Number of tokens at the end of both prompts that begin the answers.
    pub(super) begun: usize,
    /// The marked position.
    pub(super) mark: Option<usize>,
    /// The answers of several tokens whose first token stands for them.
    pub(super) first_tokens: Vec<String>,
}

impl RecordReader<'_> {
    /// Returns whether a prompt ends in whitespace and an answer begins with a space.
    pub(super) fn ends_in_space(&self, record: &Record) -> bool {
        let name = |id: &u32| self.source.tokenizer.map(|tokenizer| tokenizer.decode(&[*id])).unwrap_or_default();
        let ends = |prompt: &Prompt| match prompt {
            Prompt::Text(text) => text.ends_with(char::is_whitespace),
            Prompt::Ids(ids) => ids.last().map(name).is_some_and(|last| last.ends_with(char::is_whitespace)),
        };
        let spaced = |answer: &Answer| match answer {
            Answer::Text(text) => text.starts_with(' '),
            Answer::Id(id) | Answer::IdOf { id, .. } | Answer::IdIn { id, .. } => name(id).starts_with(' '),
        };
        let answers = || record.answers.iter().chain(&record.wrong_answers);
        (ends(&record.clean) || ends(&record.corrupted)) && answers().any(spaced)
    }

    /// Returns the BOS if the record's text would begin with one that the model does not have.
    pub(super) fn bos_outside(&self, record: &Record) -> Option<u32> {
        let PairsSource { tokenizer, bos, d_vocab, .. } = *self.source;
        let is_text = [&record.clean, &record.corrupted].into_iter().any(|p| matches!(p, Prompt::Text(_)));
        bos.filter(|&bos| is_text && tokenizer.is_some() && bos as usize >= d_vocab)
    }

    /// Tokenizes a record and checks the pair against the model.
    pub(super) fn pair(&self, record: Record) -> Result<ReadPair, PairsProblem> {
        let Record { clean, corrupted, answers, wrong_answers, position, .. } = record;
        let is_text = matches!(clean, Prompt::Text(_));
        let prompts = [self.prompt(clean)?, self.prompt(corrupted)?];
        let mut first_tokens = Vec::new();
        let (pair, begun) = match self.source.answers {
            AnswerTokens::Single | AnswerTokens::First => {
                (self.single(prompts, [answers, wrong_answers], &mut first_tokens)?, 0)
            }
            AnswerTokens::Whole => self.whole(prompts, answers)?,
        };
        pair.check_model(0, self.source.d_vocab, self.source.n_ctx)?;
        let before_text = match (is_text, self.source.bos) {
            (true, Some(bos)) => usize::from(pair.clean.first() == Some(&bos)),
            _ => 0,
        };
        let mark = position.map(|mark| token_position(mark, before_text));
        if let Some(mark) = mark
            && mark >= pair.clean.len() - begun
        {
            return Err(PairsError::MarkOutside { pair: 0, mark: Some(mark), len: pair.clean.len() - begun }.into());
        }
        Ok(ReadPair { pair, begun, mark, first_tokens })
    }

    /// A pair whose answers, right then wrong, are one token each.
    fn single(
        &self,
        [clean, corrupted]: [Vec<u32>; 2],
        [answers, wrong_answers]: [Vec<Answer>; 2],
        first_tokens: &mut Vec<String>,
    ) -> Result<PromptPair, PairsProblem> {
        if wrong_answers.is_empty() {
            let reason = "there is no wrong answer; give `wrong_answers`, which only --metric log-prob does without";
            return Err(PairsProblem::Content(reason.to_owned()));
        }
        let mut tokens = |answers: Vec<Answer>| -> Result<Vec<u32>, PairsProblem> {
            let mut tokens = Vec::with_capacity(answers.len());
            for answer in answers {
                let token = self.answer(answer, first_tokens)?;
                if !tokens.contains(&token) {
                    tokens.push(token);
                }
            }
            Ok(tokens)
        };
        let (answers, wrong_answers) = (tokens(answers)?, tokens(wrong_answers)?);
        if let (Some(&token), Some(tokenizer)) =
            (answers.iter().find(|token| wrong_answers.contains(token)), self.source.tokenizer)
        {
            return Err(PairsProblem::RightAndWrong { token: tokenizer.decode(&[token]) });
        }
        if clean.len() != corrupted.len() {
            return Err(self.unequal(&clean, &corrupted));
        }
        let pair = PromptPair { clean, corrupted, answers, wrong_answers };
        pair.check(0)?;
        Ok(pair)
    }

    /// A pair whose prompts end in all tokens of its answers but the last, and the number of those
    /// tokens.
    fn whole(
        &self,
        [clean, corrupted]: [Vec<u32>; 2],
        answers: Vec<Answer>,
    ) -> Result<(PromptPair, usize), PairsProblem> {
        let tokens = |answer: Answer| -> Result<Vec<u32>, PairsProblem> {
            match answer {
                Answer::Text(text) => Ok(self.tokenizer(&text)?.encode(&text)?),
                Answer::Id(id) => Ok(vec![id]),
                Answer::IdIn { id, prompt } => Ok(vec![self.id_in(id, &prompt)?]),
                Answer::IdOf { text, .. } => Err(PairsProblem::Content(format!(
                    "the file gives one token id for the answer {}, and may leave out its further tokens; give the answer as text",
                    rewire_input::quoted(&text)
                ))),
            }
        };
        let answers = answers.into_iter().map(tokens).collect::<Result<Vec<_>, _>>()?;
        if clean.len() != corrupted.len() {
            return Err(self.unequal(&clean, &corrupted));
        }
        Ok(WholeAnswers { clean, corrupted, answers }.extended(0)?)
    }

    fn prompt(&self, prompt: Prompt) -> Result<Vec<u32>, PairsProblem> {
        match prompt {
            Prompt::Ids(ids) => Ok(ids),
            Prompt::Text(text) => Ok(self.tokenizer(&text)?.encode_prompt(&text, self.source.bos)?),
        }
    }

    fn answer(&self, answer: Answer, first_tokens: &mut Vec<String>) -> Result<u32, PairsProblem> {
        let text = match answer {
            Answer::Id(id) => return Ok(id),
            Answer::IdOf { id, text } => return self.id_of(id, text, first_tokens),
            Answer::IdIn { id, prompt } => return self.id_in(id, &prompt),
            Answer::Text(text) => text,
        };
        let tokenizer = self.tokenizer(&text)?;
        match (tokenizer.single_token(&text), self.source.answers) {
            (Ok(token), _) => Ok(token),
            (Err(TokenizerError::NotOneToken { text, pieces }), AnswerTokens::First) if pieces.len() > 1 => {
                let tokens = tokenizer.encode(&text)?;
                first_tokens.push(text);
                Ok(tokens[0])
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// A token id, checked against the text that it stands for. If the token is only the beginning
    /// of the text, the text is added to `first_tokens`.
    fn id_of(&self, id: u32, text: String, first_tokens: &mut Vec<String>) -> Result<u32, PairsProblem> {
        let Some(token) = self.whole_letters(id) else { return Ok(id) };
        let [begins, whole] = [token.as_str(), text.as_str()].map(|text| text.trim().to_lowercase());
        if begins.is_empty() || !whole.starts_with(&begins) {
            return Err(PairsProblem::OtherTokenizer { id, token, text });
        }
        if begins != whole {
            first_tokens.push(text);
        }
        Ok(id)
    }

    /// A token id, checked against the prompt that holds its text.
    fn id_in(&self, id: u32, prompt: &str) -> Result<u32, PairsProblem> {
        match self.whole_letters(id) {
            Some(token) if token.trim().is_empty() || !prompt.contains(token.trim()) => {
                Err(PairsProblem::IdNotInPrompt { id, token })
            }
            _ => Ok(id),
        }
    }

    /// The text of a token, without a last letter of which it has only some bytes. `None` if no
    /// letter is whole, there is no tokenizer, or the id is outside the vocabulary, which is
    /// reported for ids of every kind alike.
    fn whole_letters(&self, id: u32) -> Option<String> {
        let tokenizer = self.source.tokenizer.filter(|_| (id as usize) < self.source.d_vocab)?;
        let token = tokenizer.decode(&[id]);
        let whole = token.trim_end_matches(char::REPLACEMENT_CHARACTER);
        (whole == token || !whole.trim().is_empty()).then(|| whole.to_owned())
    }

    /// The tokenizer, for a text that may fit into the model's context.
    fn tokenizer(&self, text: &str) -> Result<&Tokenizer, PairsProblem> {
        let none = || PairsProblem::NoTokenizer { text: text.to_owned() };
        let tokenizer = self.source.tokenizer.ok_or_else(none)?;
        tokenizer.check_fits(text, self.source.n_ctx)?;
        Ok(tokenizer)
    }

    /// The problem of prompts of unequal lengths, with the tokens around the first difference.
    fn unequal(&self, clean: &[u32], corrupted: &[u32]) -> PairsProblem {
        let lengths = [clean.len(), corrupted.len()];
        let Some(tokenizer) = self.source.tokenizer else {
            return PairsError::UnequalLengths { pair: 0, clean: lengths[0], corrupted: lengths[1] }.into();
        };
        let same = clean.iter().zip(corrupted).take_while(|(a, b)| a == b).count();
        let pieces = |tokens: &[u32]| -> Vec<String> {
            tokens.iter().skip(same).take(6).map(|&token| tokenizer.decode(&[token])).collect()
        };
        PairsProblem::UnequalLengths { lengths, first: same, pieces: [pieces(clean), pieces(corrupted)] }
    }
}
