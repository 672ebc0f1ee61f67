//! Protection from faults of the tokenizers library. Settings that make the library panic are
//! refused, and its panics become errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rewire_input::{cut, quoted, repeated_key};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::utils::SysRegex;

/// Largest `tokenizer.json` that is read, in bytes. A file with 250,000 tokens has about 35 million
/// bytes; GPT-2's has 1.4 million.
const MOST_FILE_BYTES: usize = 64 << 20;

/// The settings of a `tokenizer.json` that Rewire reads itself.
#[derive(Deserialize)]
pub(crate) struct Settings {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    pub(crate) model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

/// The token for unknown words, as the file names it.
#[derive(Deserialize)]
pub(crate) struct Model {
    pub(crate) unk_token: Option<String>,
    pub(crate) unk_id: Option<u32>,
}

impl Settings {
    /// Reads the settings, and refuses settings that make the tokenizers library panic.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MOST_FILE_BYTES {
            return Err(format!("it has {} bytes, and the limit is {MOST_FILE_BYTES}", bytes.len()));
        }
        if let Some(key) = repeated_key(bytes) {
            return Err(format!("it names `{}` twice; keep one", cut(&key)));
        }
        let settings: Self = serde_json::from_slice(bytes).map_err(|e| cut(&e.to_string()))?;
        check_parts(&settings.normalizer)?;
        check_parts(&settings.pre_tokenizer)?;
        Ok(settings)
    }

    /// Returns whether every byte of a text is in one of its tokens. A token then stands for no
    /// more bytes than it has. This holds if nothing normalizes the text, bytes become letters one
    /// by one, and no added token takes the spaces beside it.
    pub(crate) fn keeps_bytes(&self) -> bool {
        self.normalizer.is_null()
            && self.pre_tokenizer["type"] == "ByteLevel"
            && !self.added_tokens.iter().any(|token| token.lstrip || token.rstrip)
    }
}

/// Checks a normalizer or a pre-tokenizer with all its parts.
fn check_parts(part: &Value) -> Result<(), String> {
    match part {
        Value::Object(fields) => {
            check_part(part)?;
            fields.values().try_for_each(check_parts)
        }
        Value::Array(parts) => parts.iter().try_for_each(check_parts),
        _ => Ok(()),
    }
}

fn check_part(part: &Value) -> Result<(), String> {
    match part["type"].as_str() {
        Some("Replace") => match part["pattern"]["Regex"].as_str() {
            Some(pattern) if guarded(|| matches_nothing(pattern))? => Err(format!(
                "its normalizer `Replace` has the pattern {}, which matches between letters; give a pattern that matches at \
                 least one letter",
                quoted(pattern)
            )),
            _ => Ok(()),
        },
        Some("Prepend") if part["prepend"] == "" => {
            Err("its normalizer `Prepend` has nothing to prepend; remove it".to_owned())
        }
        Some("FixedLength") if part["length"] == 0 => {
            Err("its pre-tokenizer `FixedLength` has the length 0, and it must be at least 1".to_owned())
        }
        _ => Ok(()),
    }
}

/// Returns whether the pattern matches an empty piece of a probe text.
fn matches_nothing(pattern: &str) -> bool {
    // The library itself refuses a pattern that is not a regular expression.
    let Ok(regex) = SysRegex::new(pattern) else { return false };
    PROBES.iter().any(|text| regex.find_iter(text).any(|(start, end)| start == end))
}

/// Texts that probe a tokenizer: prose, an answer, other scripts with a combining mark, the empty
/// text, control characters.
pub(crate) const PROBES: [&str; 5] = [
    "When Mary and John went to the store, John gave a drink to",
    " Mary",
    "\u{e9}\u{65e5}\u{672c} x  y\u{301}",
    "",
    "\0\n\t",
];

/// Runs `work`, a call into the tokenizers library, and returns an error if it panics.
///
/// The panic's own message still goes to standard error: only a process-wide panic hook could
/// suppress it.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // A panic can only interrupt the library's word cache, which is filled entry by entry and stays
    // valid.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        format!("the tokenizers library cannot work with its settings ({})", cut(said.unwrap_or("it panicked")))
    })
}
