//! The JSON object of auto-circuit's data sets.

use serde_json::{Map, Value};

use super::record::{Mark, Place, Record, kind, text, token_id};
use super::{foreign, row};

/// What an object holds beside its pairs.
#[derive(Debug, Default)]
pub(super) struct Object {
    /// The pairs, each with its place, or the sentence that says why it is none.
    pub(super) records: Vec<(Place, Result<Record, String>)>,
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
        let place = Place::Pair(number + 1);
        let record = match value {
            Value::Object(pair) => row::own(place, pair).map(|record| Record { position, ..record }),
            other => Err(format!("expected a JSON object, and this is {}", kind(other))),
        };
        (place, record)
    };
    Ok(Object { records: prompts.iter().enumerate().map(record).collect(), labels })
}

/// The marked position: the word of this name, or the only one.
fn marked(words: Option<&Value>, name: Option<&str>) -> Result<Option<Mark>, String> {
    let words = match (words, name) {
        (None | Some(Value::Null), None) => return Ok(None),
        (None | Some(Value::Null), Some(name)) => {
            return Err(format!(
                "there is no `word_idxs`, which would have the word `{}` of --mark",
                rewire_input::cut(name)
            ));
        }
        (Some(words), _) => words,
    };
    let words = match words {
        Value::Object(words) => words,
        other => return Err(format!("`word_idxs` is {}; expected an object", kind(other))),
    };
    let position = |name: &str| {
        let at = token_id(&rewire_input::cut(name), &words[name])?;
        Ok(Some(Mark::TextToken(at as usize)))
    };
    match (name, words.keys().next()) {
        (Some(name), _) if words.contains_key(name) => position(name),
        (Some(name), _) => {
            let names: Vec<&str> = words.keys().map(String::as_str).collect();
            let (name, names) = (rewire_input::cut(name), rewire_input::cut(&names.join(", ")));
            let names = if names.is_empty() { "no words" } else { &names };
            Err(format!("`word_idxs` has no `{name}`; it has {names}"))
        }
        (None, Some(only)) if words.len() == 1 => position(only),
        (None, _) => Ok(None),
    }
}
