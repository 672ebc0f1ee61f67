//! One prompt pair as a file states it, before its text is tokenized.

use std::fmt;

use serde_json::Value;

/// A place in a file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line.
    Line(usize),
    /// A pair of a list that spans lines.
    Pair(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(f, "line {line}"),
            Place::Pair(pair) => write!(f, "pair {pair}"),
        }
    }
}

/// A prompt pair as a file states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where in the file it is.
    pub(crate) place: Place,
    /// The clean prompt.
    pub(crate) clean: Prompt,
    /// The corrupted prompt.
    pub(crate) corrupted: Prompt,
    /// The right next tokens of the clean prompt.
    pub(crate) answers: Vec<Answer>,
    /// The wrong next tokens.
    pub(crate) wrong_answers: Vec<Answer>,
    /// The marked position, if the file marks one.
    pub(crate) position: Option<Mark>,
}

/// A prompt: text or token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// Text, which is tokenized with the BOS in front.
    Text(String),
    /// Token ids, which are used as they are.
    Ids(Vec<u32>),
}

/// An answer: text or a token id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Text.
    Text(String),
    /// A token id.
    Id(u32),
    /// A token id of the tokenizer that the file was written for, and text that its token begins.
    IdOf {
        /// The token id.
        id: u32,
        /// The text, without a leading space.
        text: String,
    },
    /// A token id of the tokenizer that the file was written for, whose text the prompt holds.
    IdIn {
        /// The token id.
        id: u32,
        /// The prompt.
        prompt: String,
    },
}

/// A marked position of both prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A position of the tokens as the model gets them: the BOS, if there is one, is 0.
    Token(usize),
    /// A position of the text's own tokens: the BOS is not counted.
    TextToken(usize),
}

/// Returns a prompt from JSON.
///
/// # Errors
/// A sentence that names `key` if the value is neither text nor a list of token ids.
pub(super) fn prompt(key: &str, value: &Value) -> Result<Prompt, String> {
    match value {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(ids) => ids.iter().map(|id| token_id(key, id)).collect::<Result<_, _>>().map(Prompt::Ids),
        other => Err(format!("`{key}` is {}; expected text or a list of token ids", kind(other))),
    }
}

/// Returns answers from JSON: a list, or one answer alone.
///
/// # Errors
/// A sentence that names `key` if an answer is neither text nor a token id.
pub(super) fn answers(key: &str, value: &Value) -> Result<Vec<Answer>, String> {
    match value {
        Value::Array(list) => list.iter().map(|value| answer(key, value)).collect(),
        other => Ok(vec![answer(key, other)?]),
    }
}

fn answer(key: &str, value: &Value) -> Result<Answer, String> {
    match value {
        Value::String(text) => Ok(Answer::Text(text.clone())),
        Value::Number(_) => token_id(key, value).map(Answer::Id),
        Value::Array(_) => Err(format!(
            "`{key}` holds a list of lists, answers at several positions; Rewire reads the answers at one position"
        )),
        other => Err(format!("`{key}` holds {}; expected text or token ids", kind(other))),
    }
}

/// Returns a token id or a position.
///
/// # Errors
/// A sentence that names `key` if the number is negative, has a fraction, or does not fit.
pub(super) fn token_id(key: &str, value: &Value) -> Result<u32, String> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| {
        let found = if value.is_number() { value.to_string() } else { kind(value).to_owned() };
        format!("`{key}` holds {found}; expected a whole number from 0 to {}", u32::MAX)
    })
}

/// Returns text from JSON.
///
/// # Errors
/// A sentence that names `key` if the value is no text.
pub(super) fn text<'a>(key: &str, value: &'a Value) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("`{key}` is {}; expected text", kind(value)))
}

/// Names the kind of a JSON value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
