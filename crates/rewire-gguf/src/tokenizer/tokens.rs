//! The tokens of a file, and their types.

use std::collections::HashMap;

use rewire_input::quoted;
use serde_json::{Map, Value, json};

use crate::error::GgufError;
use crate::read::metadata::Metadata;

/// The key of the tokens.
pub(crate) const TOKENS: &str = "tokenizer.ggml.tokens";

/// The key of the tokens' types.
const TYPES: &str = "tokenizer.ggml.token_type";

/// Largest number of tokens. Known vocabularies have fewer than 300,000.
const MOST_TOKENS: usize = 1 << 20;

/// Largest token in bytes. Those of known files have fewer than 150.
const MOST_BYTES: usize = 256;

/// What a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A piece of text.
    Normal,
    /// Text that no other token stands for.
    Unknown,
    /// A mark that is not text, as the beginning of a sequence.
    Control,
    /// A piece of text that is found before any other.
    UserDefined,
    /// A place in the vocabulary without a meaning.
    Unused,
    /// One byte.
    Byte,
}

/// The tokens of a file. The index of a token is its id.
#[derive(Debug)]
pub(crate) struct Tokens<'a> {
    pub(crate) texts: Vec<&'a str>,
    pub(crate) kinds: Vec<Kind>,
    /// The id of each token.
    pub(crate) ids: HashMap<&'a str, u32>,
}

impl<'a> Tokens<'a> {
    pub(crate) fn read(metadata: &Metadata<'a>) -> Result<Self, GgufError> {
        let texts = metadata.required(TOKENS, metadata.texts(TOKENS)?)?;
        if texts.len() > MOST_TOKENS {
            return Err(
                metadata.refuse(TOKENS, format!("it has {} tokens; at most {MOST_TOKENS} are allowed", texts.len()))
            );
        }
        let mut ids = HashMap::new();
        for (text, id) in texts.iter().zip(0..) {
            if text.len() > MOST_BYTES {
                let reason = format!("token {id} has {} bytes; at most {MOST_BYTES} are allowed", text.len());
                return Err(metadata.refuse(TOKENS, reason));
            }
            if let Some(other) = ids.insert(*text, id) {
                return Err(metadata.refuse(TOKENS, format!("tokens {other} and {id} are both {}", quoted(text))));
            }
        }
        let kinds = match metadata.wholes(TYPES)? {
            None => vec![Kind::Normal; texts.len()],
            Some(numbers) if numbers.len() == texts.len() => {
                let read = |(number, id): (&i64, u32)| {
                    kind(*number).ok_or_else(|| {
                        metadata.refuse(TYPES, format!("the type of token {id} is {number}; the types are 1 to 6"))
                    })
                };
                numbers.iter().zip(0..).map(read).collect::<Result<_, _>>()?
            }
            Some(numbers) => {
                let reason = format!("it has {} entries, and `{TOKENS}` has {}", numbers.len(), texts.len());
                return Err(metadata.refuse(TYPES, reason));
            }
        };
        Ok(Self { texts, kinds, ids })
    }

    /// Returns the tokens with their ids and types.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &'a str, Kind)> {
        (0..).zip(&self.texts).zip(&self.kinds).map(|((id, text), kind)| (id, *text, *kind))
    }

    /// Returns the vocabulary for a `tokenizer.json`: the id of each token, as `spelled`.
    pub(crate) fn vocabulary(&self, spelled: impl Fn(&str, Kind) -> String) -> Map<String, Value> {
        self.iter().map(|(id, text, kind)| (spelled(text, kind), id.into())).collect()
    }

    /// Returns the tokens that are found in a text before it is split, for a `tokenizer.json`, as
    /// `spelled`. Marks are special.
    pub(crate) fn added(&self, spelled: impl Fn(&str, Kind) -> String) -> Vec<Value> {
        let added = |(id, text, kind): (u32, &str, Kind)| match kind {
            Kind::Normal | Kind::Unused | Kind::Byte => None,
            Kind::Unknown | Kind::Control | Kind::UserDefined => Some(json!({
                "id": id, "content": spelled(text, kind), "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind != Kind::UserDefined,
            })),
        };
        // An empty text is nowhere to be found.
        self.iter().filter(|(_, text, _)| !text.is_empty()).filter_map(added).collect()
    }
}

fn kind(number: i64) -> Option<Kind> {
    Some(match number {
        1 => Kind::Normal,
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => Kind::Unused,
        6 => Kind::Byte,
        _ => return None,
    })
}
