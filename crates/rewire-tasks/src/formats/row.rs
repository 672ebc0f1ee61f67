//! Rows of JSON Lines: Rewire's own keys, and the keys that other projects write.

use serde_json::{Map, Value};

use super::foreign;
use super::record::{Answer, Mark, Place, Prompt, Record, answers, kind, prompt, text, token_id};

/// The schema of a row, recognized by its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    /// `clean`, `corrupt`, `answers`, `wrong_answers`, and optionally `position`.
    Own,
    /// `clean_prefix`, `patch_prefix`, `clean_answer`, `patch_answer` (feature-circuits).
    Prefixes,
    /// `prompt`, `choices`, `answerKey` and counterfactuals by name (MIB).
    Mib,
    /// `one_prefix_prefix` and its two words (BLiMP).
    Blimp,
}

/// Each key of Rewire's own rows, then its aliases.
const OWN: [&[&str]; 5] =
    [&["clean"], &["corrupt", "corrupted"], &["answers", "answer"], &["wrong_answers", "wrong_answer"], &["position"]];

type Object = Map<String, Value>;

/// Recognizes the schema of a row.
///
/// # Errors
/// A sentence that lists the keys that were found and those that are expected.
pub(super) fn schema(row: &Object) -> Result<Schema, String> {
    let has = |key: &str| row.contains_key(key);
    if has("clean_prefix") && has("patch_prefix") {
        Ok(Schema::Prefixes)
    } else if has("one_prefix_prefix") || (has("sentence_good") && has("sentence_bad")) {
        Ok(Schema::Blimp)
    } else if has("prompt") && row.keys().any(|key| key.ends_with(COUNTERFACTUAL)) {
        Ok(Schema::Mib)
    } else if OWN[..2].iter().flat_map(|names| names.iter()).any(|key| has(key)) {
        Ok(Schema::Own)
    } else if has("prompt") && has("choices") {
        Err(format!("a row of MIB has a counterfactual, whose key ends in `{COUNTERFACTUAL}`; this row has none"))
    } else {
        Err(format!(
            "expected the keys `clean`, `corrupt`, `answers` and `wrong_answers`, and found {}",
            foreign::described(row)
        ))
    }
}

/// Reads a row with Rewire's own keys or their aliases.
pub(super) fn own(place: Place, row: &Object) -> Result<Record, String> {
    for key in row.keys() {
        if !OWN.iter().any(|names| names.contains(&key.as_str())) {
            return Err(format!(
                "unknown key `{}`; the keys are `clean`, `corrupt`, `answers`, `wrong_answers` and `position`",
                rewire_input::cut(key)
            ));
        }
    }
    let get = |names: &[&str]| -> Result<Option<(String, Value)>, String> {
        let mut found = names.iter().filter_map(|name| row.get(*name).map(|value| ((*name).to_owned(), value.clone())));
        match (found.next(), found.next()) {
            (Some((first, _)), Some((second, _))) => {
                Err(format!("`{first}` and `{second}` are the same key; keep one of them"))
            }
            (first, _) => Ok(first),
        }
    };
    let needed = |names: &[&str]| get(names)?.ok_or_else(|| format!("the key `{}` is missing", names[0]));
    let of_prompt = |names: &[&str]| needed(names).and_then(|(key, value)| prompt(&key, &value));
    let of_answers = |names: &[&str]| needed(names).and_then(|(key, value)| answers(&key, &value));
    let position = match get(OWN[4])? {
        None | Some((_, Value::Null)) => None,
        Some((key, value)) => Some(Mark::Token(token_id(&key, &value)? as usize)),
    };
    Ok(Record {
        place,
        clean: of_prompt(OWN[0])?,
        corrupted: of_prompt(OWN[1])?,
        answers: of_answers(OWN[2])?,
        // Metrics that read no wrong answers do without; others refuse a pair that has none.
        wrong_answers: get(OWN[3])?.map_or(Ok(Vec::new()), |(key, value)| answers(&key, &value))?,
        position,
    })
}

/// Reads a row of feature-circuits.
pub(super) fn prefixes(place: Place, row: &Object) -> Result<Record, String> {
    let get = |key: &str| row.get(key).ok_or_else(|| format!("the key `{key}` is missing"));
    Ok(Record {
        place,
        clean: prompt("clean_prefix", get("clean_prefix")?)?,
        corrupted: prompt("patch_prefix", get("patch_prefix")?)?,
        answers: answers("clean_answer", get("clean_answer")?)?,
        wrong_answers: answers("patch_answer", get("patch_answer")?)?,
        position: None,
    })
}

/// What the keys of MIB's counterfactuals end in.
const COUNTERFACTUAL: &str = "_counterfactual";

/// The counterfactuals that MIB's own code takes for its tasks, the first that a row has.
const DEFAULT_COUNTERFACTUALS: [&str; 3] =
    ["s2_io_flip_counterfactual", "symbol_counterfactual", "random_counterfactual"];

/// Reads a row of MIB with the counterfactual of this name, or with the default of its task.
///
/// The answer is the row's, and the wrong answer is the counterfactual's, as in MIB's own code; for
/// two choices whose counterfactual keeps the answer, it is the other choice.
pub(super) fn mib(place: Place, row: &Object, counterfactual: Option<&str>) -> Result<Record, String> {
    let names: Vec<&str> = row.keys().map(String::as_str).filter(|key| key.ends_with(COUNTERFACTUAL)).collect();
    let listed = || rewire_input::cut(&names.join(", "));
    let name = match counterfactual {
        Some(name) => {
            *names.iter().find(|found| **found == name || found.strip_suffix(COUNTERFACTUAL) == Some(name)).ok_or_else(
                || format!("there is no counterfactual `{}`; the row has {}", rewire_input::cut(name), listed()),
            )?
        }
        None => match DEFAULT_COUNTERFACTUALS.iter().find(|name| names.contains(name)) {
            Some(name) => name,
            None if names.len() == 1 => names[0],
            None => return Err(format!("choose one with --counterfactual: {}", listed())),
        },
    };
    let Value::Object(other) = &row[name] else {
        return Err(format!("`{name}` is {}; expected an object", kind(&row[name])));
    };
    let of = |what: &str, object: &Object| -> Result<String, String> {
        let value = object.get("prompt").ok_or_else(|| format!("{what} has no `prompt`"))?;
        value.as_str().map(str::to_owned).ok_or_else(|| format!("`prompt` of {what} is {}; expected text", kind(value)))
    };
    let answer = mib_answer("the row", row)?;
    let mut wrong = mib_answer(&format!("`{name}`"), other)?;
    if wrong == answer
        && let Some(choices) = mib_choices(row)
        && let [a, b] = choices.as_slice()
    {
        wrong = if *a == answer { b.clone() } else { a.clone() };
    }
    if wrong == answer {
        let answer = rewire_input::quoted(&answer);
        let name = rewire_input::cut(name);
        return Err(format!("the answer of `{name}` is that of the row, {answer}; choose another counterfactual"));
    }
    // MIB's code puts a space before each answer; arithmetic prompts end in the space.
    let clean = of("the row", row)?;
    let space = if clean.ends_with(' ') { "" } else { " " };
    let spaced = |answer: String| vec![Answer::Text(format!("{space}{answer}"))];
    Ok(Record {
        place,
        clean: Prompt::Text(clean),
        corrupted: Prompt::Text(of(&format!("`{name}`"), other)?),
        answers: spaced(answer),
        wrong_answers: spaced(wrong),
        position: None,
    })
}

/// The choices of a row as text: a list, or the labels of a list of options.
fn mib_choices(row: &Object) -> Option<Vec<String>> {
    let list = match row.get("choices")? {
        Value::Array(list) => list,
        Value::Object(options) => options.get("label")?.as_array()?,
        _ => return None,
    };
    list.iter().map(scalar).collect()
}

/// The answer of a row: the choice that `answerKey` counts, or else its label.
fn mib_answer(what: &str, row: &Object) -> Result<String, String> {
    let key = row.get("answerKey").filter(|key| !key.is_null());
    let number = key.and_then(Value::as_u64).and_then(|at| usize::try_from(at).ok());
    if let (Some(key), None, true) = (key, number, row.get("label").and_then(scalar).is_none()) {
        let key = rewire_input::cut(&key.to_string());
        return Err(format!("`answerKey` of {what} is {key}; expected the number of a choice, counted from 0"));
    }
    match (mib_choices(row), number) {
        (Some(choices), Some(at)) => choices
            .get(at)
            .cloned()
            .ok_or_else(|| format!("`answerKey` of {what} is {at}, and there are {} choices", choices.len())),
        _ => row
            .get("label")
            .and_then(scalar)
            .ok_or_else(|| format!("{what} has neither `choices` with an `answerKey` nor a `label`")),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The parts of a BLiMP row that a pair is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlimpRow {
    pub(super) place: Place,
    pub(super) prefix: String,
    pub(super) good: String,
    pub(super) bad: String,
}

/// Reads a row of BLiMP.
pub(super) fn blimp(place: Place, row: &Object) -> Result<BlimpRow, String> {
    let get = |key: &str| {
        let value = row.get(key).ok_or_else(|| {
            format!("the key `{key}` is missing; Rewire reads BLiMP's one-prefix rows (`one_prefix_method`)")
        })?;
        text(key, value).map(str::to_owned)
    };
    Ok(BlimpRow {
        place,
        prefix: get("one_prefix_prefix")?,
        good: get("one_prefix_word_good")?,
        bad: get("one_prefix_word_bad")?,
    })
}
