//! The JSON object of auto-circuit's data sets.

use serde_json::{Map, Value};

use super::record::{Mark, Place, Record, kind, text, token_id};
use super::{foreign, row};

/// What an object holds beside its pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) records: Vec<Record>,
    /// Names of the positions of every prompt's text, the BOS not counted.
    pub(super) labels: Option<Vec<String>>,
}

/// Reads the object. `mark` names one of its `word_idxs`; a single one needs no name.
///
/// # Errors
/// A sentence that names the key.
pub(super) fn object(object: &Map<String, Value>, mark: Option<&str>) -> Result<Object, String> {
    let prompts = match object.get("prompts") {
        Some(Value::Array(prompts)) => prompts,
        Some(other) => return Err(format!("`prompts` is {}; expected a list of prompt pairs", kind(other))),
        None => {
            let found = foreign::described(object);
            return Err(format!("expected a JSON object with a list `prompts`, and found the keys {found}"));
        }
    };
    if let Some(key) = object.keys().find(|key| !["prompts", "word_idxs", "seq_labels"].contains(&key.as_str())) {
        return Err(format!(
            "unknown key `{}`; the keys are `prompts`, `word_idxs` and `seq_labels`",
            rewire_input::cut(key)
        ));
    }
    let position = marked(object.get("word_idxs"), mark)?;
    let labels = match object.get("seq_labels") {
        None | Some(Value::Null) => None,
        Some(Value::Array(labels)) => {
            let label = |value: &Value| text("seq_labels", value).map(str::to_owned);
            Some(labels.iter().map(label).collect::<Result<_, _>>()?)
        }
        Some(other) => return Err(format!("`seq_labels` is {}; expected a list of text", kind(other))),
    };
    let record = |(number, value): (usize, &Value)| {
        let at = format!("`prompts`, pair {}", number + 1);
        let Value::Object(pair) = value else { return Err(format!("{at}: {} is no prompt pair", kind(value))) };
        let record = row::own(Place::Pair(number + 1), pair).map_err(|reason| format!("{at}: {reason}"))?;
        Ok(Record { position, ..record })
    };
    Ok(Object { records: prompts.iter().enumerate().map(record).collect::<Result<_, _>>()?, labels })
}

/// The marked position: the word of this name, or the only one.
fn marked(words: Option<&Value>, name: Option<&str>) -> Result<Option<Mark>, String> {
    let words = match words {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(words)) => words,
        Some(other) => return Err(format!("`word_idxs` is {}; expected an object", kind(other))),
    };
    let position = |name: &str| Ok(Some(Mark::TextToken(token_id(name, &words[name])? as usize)));
    match (name, words.keys().next()) {
        (Some(name), _) if words.contains_key(name) => position(name),
        (Some(name), _) => {
            let names: Vec<&str> = words.keys().map(String::as_str).collect();
            let (name, names) = (rewire_input::cut(name), rewire_input::cut(&names.join(", ")));
            Err(format!("`word_idxs` has no `{name}`; it has {names}"))
        }
        (None, Some(only)) if words.len() == 1 => position(only),
        (None, _) => Ok(None),
    }
}
