//! The metadata: a value for each key, and typed access that names the key in errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rewire_input::quoted;

use crate::error::GgufError;
use crate::read::cursor::Cursor;
use crate::read::value::{Array, Value};

/// The metadata of a file.
#[derive(Debug, Clone)]
pub struct Metadata<'a> {
    path: PathBuf,
    values: BTreeMap<&'a str, Value<'a>>,
}

impl<'a> Metadata<'a> {
    /// Reads `count` keys with their values.
    pub(crate) fn read(cursor: &mut Cursor<'a>, count: u64, path: &Path) -> Result<Self, GgufError> {
        let mut values = BTreeMap::new();
        for index in 0..count {
            let place = |reason| GgufError::file(path, format!("key {} of {count}: {reason}", index + 1));
            let key = cursor.string().map_err(place)?;
            let value = Value::read(cursor).map_err(|reason| GgufError::key(path, key, reason))?;
            if values.insert(key, value).is_some() {
                return Err(GgufError::key(path, key, "the metadata has it twice; keep one"));
            }
        }
        Ok(Self { path: path.into(), values })
    }

    /// Returns the value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.values.get(key)
    }

    /// Returns the keys in alphabetic order.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.values.keys().copied()
    }

    /// Returns an error about a key.
    pub(crate) fn refuse(&self, key: &str, reason: impl Into<String>) -> GgufError {
        GgufError::key(&self.path, key, reason)
    }

    fn of_other_type(&self, key: &str, value: &Value<'_>, needed: &str) -> GgufError {
        self.refuse(key, format!("it is {}, and must be {needed}", value.kind()))
    }

    /// Returns the value of a key that the file must have.
    pub(crate) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, GgufError> {
        value.ok_or_else(|| self.refuse(key, "the metadata lacks it"))
    }

    /// Returns a text, or `None` without the key.
    ///
    /// # Errors
    /// [`GgufError::Key`] for a value of another type. The same holds for the methods below.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.of_other_type(key, other, "a text")),
        }
    }

    /// Returns a whole number from 0 on.
    ///
    /// # Errors
    /// See [`text`](Self::text).
    pub fn whole(&self, key: &str) -> Result<Option<u64>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(number)) => Ok(Some(*number)),
            Some(Value::Signed(number)) => match u64::try_from(*number) {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(self.refuse(key, format!("it is {number}, and must be at least 0"))),
            },
            Some(other) => Err(self.of_other_type(key, other, "a whole number")),
        }
    }

    /// Returns a number. A float32 becomes the float64 with the fewest decimal digits that round to
    /// it: 1e-5 in float32 is 1e-5 and not 9.999999747378752e-6.
    ///
    /// # Errors
    /// See [`text`](Self::text).
    pub fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(number)) => Ok(Some(number.to_string().parse().unwrap_or((*number).into()))),
            Some(Value::F64(number)) => Ok(Some(*number)),
            Some(Value::Unsigned(number)) => Ok(Some(*number as f64)),
            Some(Value::Signed(number)) => Ok(Some(*number as f64)),
            Some(other) => Err(self.of_other_type(key, other, "a number")),
        }
    }

    /// Returns true or false.
    ///
    /// # Errors
    /// See [`text`](Self::text).
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.of_other_type(key, other, "true or false")),
        }
    }

    /// Returns an array of texts.
    ///
    /// # Errors
    /// See [`text`](Self::text).
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, GgufError> {
        self.items(key, "texts", |value| match value {
            Value::Text(text) => Some(text),
            _ => None,
        })
    }

    /// Returns an array of whole numbers.
    ///
    /// # Errors
    /// See [`text`](Self::text).
    pub fn wholes(&self, key: &str) -> Result<Option<Vec<i64>>, GgufError> {
        self.items(key, "whole numbers", |value| match value {
            Value::Signed(number) => Some(number),
            Value::Unsigned(number) => i64::try_from(number).ok(),
            _ => None,
        })
    }

    /// Returns an array of float32.
    ///
    /// # Errors
    /// See [`text`](Self::text).
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        self.items(key, "float32 numbers", |value| match value {
            Value::F32(number) => Some(number),
            _ => None,
        })
    }

    /// Returns an array of true and false.
    ///
    /// # Errors
    /// See [`text`](Self::text).
    pub fn flags(&self, key: &str) -> Result<Option<Vec<bool>>, GgufError> {
        self.items(key, "true and false", |value| match value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    fn items<T>(
        &self,
        key: &str,
        needed: &str,
        convert: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, GgufError> {
        let array: &Array<'a> = match self.get(key) {
            None => return Ok(None),
            Some(Value::Array(array)) => array,
            Some(other) => return Err(self.of_other_type(key, other, &format!("an array of {needed}"))),
        };
        let mut items = Vec::new();
        for (index, item) in array.items().enumerate() {
            let item = item.map_err(|reason| self.refuse(key, format!("item {index}: {reason}")))?;
            let kind = item.kind();
            let converted = convert(item)
                .ok_or_else(|| self.refuse(key, format!("item {index} is {kind}; the array must have {needed}")))?;
            items.push(converted);
        }
        Ok(Some(items))
    }

    /// Returns the name of the model's architecture.
    ///
    /// # Errors
    /// [`GgufError::Key`] if the file has none.
    pub fn architecture(&self) -> Result<&'a str, GgufError> {
        const KEY: &str = "general.architecture";
        let name = self.required(KEY, self.text(KEY)?)?;
        match name.is_empty() {
            false => Ok(name),
            true => Err(self.refuse(KEY, format!("it is {}", quoted(name)))),
        }
    }
}
