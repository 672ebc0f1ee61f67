//! The JSON format of one line in a file of prompt pairs.
//!
//! Prompts and answers are text or numbers. Visitors distinguish the two without an intermediate
//! JSON value. Their errors name a number that is not a token id.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};

/// One line of the file.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JsonLine {
    pub(crate) clean: Prompt,
    pub(crate) corrupt: Prompt,
    pub(crate) answers: Vec<Answer>,
    pub(crate) wrong_answers: Vec<Answer>,
    position: Option<Whole>,
}

impl JsonLine {
    /// Returns the marked position, if there is one.
    pub(crate) fn position(&self) -> Option<usize> {
        self.position.as_ref().map(|Whole(position)| *position as usize)
    }
}

/// A prompt: text or token ids.
pub(crate) enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// An answer: text or a token id.
pub(crate) enum Answer {
    Text(String),
    Id(u32),
}

/// A whole number in the range of token ids and positions.
struct Whole(u32);

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PromptVisitor)
    }
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnswerVisitor)
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor)
    }
}

struct PromptVisitor;

impl<'de> Visitor<'de> for PromptVisitor {
    type Value = Prompt;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prompt: text or a list of token ids")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Prompt, E> {
        Ok(Prompt::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompt, A::Error> {
        let mut ids = Vec::new();
        while let Some(Whole(id)) = seq.next_element()? {
            ids.push(id);
        }
        Ok(Prompt::Ids(ids))
    }
}

struct AnswerVisitor;

impl Visitor<'_> for AnswerVisitor {
    type Value = Answer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer: text or a token id from 0 to 4294967295")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Answer, E> {
        Ok(Answer::Text(text.to_owned()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Answer, E> {
        u32::try_from(number).map(Answer::Id).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0 to 4294967295")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
        u32::try_from(number).map(Whole).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}
