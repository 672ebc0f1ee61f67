//! The input of a model: text or token ids.

/// A prompt, as text or as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Text. It is tokenized, and the model's BOS token is put in front.
    Text(String),
    /// Token ids, used as they are.
    Tokens(Vec<u32>),
}

impl From<&str> for Input {
    fn from(text: &str) -> Self {
        Input::Text(text.to_owned())
    }
}

impl From<&String> for Input {
    fn from(text: &String) -> Self {
        Input::Text(text.clone())
    }
}

impl From<String> for Input {
    fn from(text: String) -> Self {
        Input::Text(text)
    }
}

impl From<Vec<u32>> for Input {
    fn from(tokens: Vec<u32>) -> Self {
        Input::Tokens(tokens)
    }
}

impl From<&Vec<u32>> for Input {
    fn from(tokens: &Vec<u32>) -> Self {
        Input::Tokens(tokens.clone())
    }
}

impl From<&[u32]> for Input {
    fn from(tokens: &[u32]) -> Self {
        Input::Tokens(tokens.to_vec())
    }
}
