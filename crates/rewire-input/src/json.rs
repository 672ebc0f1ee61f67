//! Finds repeated keys in JSON objects. A parser keeps one of the values and silently drops the
//! other.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Returns a key that an object of the text has twice, at any depth. Returns `None` if there is no
/// such key or the text is not JSON.
#[must_use]
pub fn repeated_key(json: &[u8]) -> Option<String> {
    let found = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    // `found` contains everything that the error of a repeated key does. The caller's parser
    // reports bad JSON.
    let _ = Walk(&found).deserialize(&mut deserializer);
    found.into_inner()
}

/// Searches the objects of a value, and stores the first repeated key.
struct Walk<'a>(&'a RefCell<Option<String>>);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                *self.0.borrow_mut() = Some(key);
                return Err(A::Error::custom("repeated key"));
            }
            map.next_value_seed(Walk(self.0))?;
            seen.insert(key);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Walk(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::repeated_key;

    #[test]
    fn repeated_keys_are_found_at_any_depth() {
        let found = |json: &str| repeated_key(json.as_bytes());
        assert_eq!(found(r#"{"a": 1, "b": {"a": [true, null, 1.5, -2, "x"]}}"#), None);
        assert_eq!(found(r#"{"a": 1, "a": 1}"#).as_deref(), Some("a"));
        assert_eq!(found(r#"[0, {"b": {"c": 1, "d": {}, "\u0063": 2}}]"#).as_deref(), Some("c"));
        assert_eq!(found(r#"{"a": 1, "#), None);
        // serde_json stops at a depth of 128.
        assert_eq!(found(&"[".repeat(1_000_000)), None);
    }
}
