//! Faults of the tokenizers library, kept from the caller: settings that it panics on are refused,
//! and its panics are errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rewire_input::{cut, quoted, repeated_key};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::utils::SysRegex;

/// Most bytes of a `tokenizer.json`. Those of 250,000 tokens have about 35 million; GPT-2's has 1.4
/// million.
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

/// How the file names the token for unknown words.
#[derive(Deserialize)]
pub(crate) struct Model {
    pub(crate) unk_token: Option<String>,
    pub(crate) unk_id: Option<u32>,
}

impl Settings {
    /// Reads the settings, and refuses those that the tokenizers library is known to panic on.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MOST_FILE_BYTES {
            return Err(format!("it has {} bytes, and {MOST_FILE_BYTES} are the most", bytes.len()));
        }
        if let Some(key) = repeated_key(bytes) {
            return Err(format!("it names `{}` twice; keep one of them", cut(&key)));
        }
        let settings: Self = serde_json::from_slice(bytes).map_err(|e| cut(&e.to_string()))?;
        check_parts(&settings.normalizer)?;
        check_parts(&settings.pre_tokenizer)?;
        Ok(settings)
    }

    /// Whether every byte of a text is in one of its tokens, so that a token's length bounds what
    /// it stands for: nothing normalizes the text, bytes become letters one by one, and no added
    /// token takes the spaces beside it.
    pub(crate) fn keeps_bytes(&self) -> bool {
        self.normalizer.is_null()
            && self.pre_tokenizer["type"] == "ByteLevel"
            && !self.added_tokens.iter().any(|token| token.lstrip || token.rstrip)
    }
}

/// Checks a normalizer or a pre-tokenizer and all that it is made of.
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

/// Whether the pattern matches a piece without letters in some text.
fn matches_nothing(pattern: &str) -> bool {
    // A pattern that is no regular expression is the library's to refuse.
    let Ok(regex) = SysRegex::new(pattern) else { return false };
    PROBES.iter().any(|text| regex.find_iter(text).any(|(start, end)| start == end))
}

/// Texts to see what a tokenizer does: prose, an answer, other scripts with a combining mark,
/// nothing, control characters.
pub(crate) const PROBES: [&str; 5] = [
    "When Mary and John went to the store, John gave a drink to",
    " Mary",
    "\u{e9}\u{65e5}\u{672c} x  y\u{301}",
    "",
    "\0\n\t",
];

/// Runs `work`, a call into the tokenizers library, and returns a panic as an error.
///
/// The panic's own message still goes to standard error: only a hook of the whole process could
/// keep it from there.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // What a panic leaves half done is the library's cache of words, which it fills entry by entry.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        format!("the tokenizers library cannot work with its settings ({})", cut(said.unwrap_or("it panicked")))
    })
}
