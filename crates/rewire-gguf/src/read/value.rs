//! The values of the metadata. Arrays stay in the file's bytes and are decoded one by one.

use crate::read::cursor::Cursor;

/// Most arrays inside each other. Known files have one.
const MOST_NESTED: usize = 4;

/// A value of the metadata.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// An unsigned number of 8 to 64 bits.
    Unsigned(u64),
    /// A signed number of 8 to 64 bits.
    Signed(i64),
    /// A float32.
    F32(f32),
    /// A float64.
    F64(f64),
    /// True or false.
    Bool(bool),
    /// A text.
    Text(&'a str),
    /// An array of values of one type.
    Array(Array<'a>),
}

/// An array, as its place in the file.
#[derive(Debug, Clone)]
pub struct Array<'a> {
    kind: u32,
    length: usize,
    bytes: &'a [u8],
}

// The numbers of the types in a file.
const U8: u32 = 0;
const I8: u32 = 1;
const U16: u32 = 2;
const I16: u32 = 3;
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;
const U64: u32 = 10;
const I64: u32 = 11;
const F64: u32 = 12;

impl<'a> Value<'a> {
    /// Reads a value: the number of its type, and the value.
    pub(crate) fn read(cursor: &mut Cursor<'a>) -> Result<Self, String> {
        let kind = cursor.u32()?;
        Self::read_kind(cursor, kind, 0)
    }

    fn read_kind(cursor: &mut Cursor<'a>, kind: u32, depth: usize) -> Result<Self, String> {
        Ok(match kind {
            U8 => Value::Unsigned(u8::from_le_bytes(cursor.array()?).into()),
            I8 => Value::Signed(i8::from_le_bytes(cursor.array()?).into()),
            U16 => Value::Unsigned(u16::from_le_bytes(cursor.array()?).into()),
            I16 => Value::Signed(i16::from_le_bytes(cursor.array()?).into()),
            U32 => Value::Unsigned(cursor.u32()?.into()),
            I32 => Value::Signed(i32::from_le_bytes(cursor.array()?).into()),
            F32 => Value::F32(f32::from_le_bytes(cursor.array()?)),
            BOOL => match cursor.array()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return Err(format!("{other} is neither false (0) nor true (1)")),
            },
            TEXT => Value::Text(cursor.string()?),
            ARRAY => Value::Array(Array::read(cursor, depth)?),
            U64 => Value::Unsigned(cursor.u64()?),
            I64 => Value::Signed(i64::from_le_bytes(cursor.array()?)),
            F64 => Value::F64(f64::from_le_bytes(cursor.array()?)),
            other => return Err(format!("the type {other} of a value is unknown; the types are 0 to 12")),
        })
    }

    /// Returns what kind of value it is, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Unsigned(_) | Value::Signed(_) => "a whole number",
            Value::F32(_) | Value::F64(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::Text(_) => "a text",
            Value::Array(_) => "an array",
        }
    }
}

impl<'a> Array<'a> {
    /// Reads the type and the length, and walks over the items, so that all of them are there.
    fn read(cursor: &mut Cursor<'a>, depth: usize) -> Result<Self, String> {
        if depth == MOST_NESTED {
            return Err(format!("arrays are nested more than {MOST_NESTED} deep"));
        }
        let kind = cursor.u32()?;
        let length = cursor.u64()?;
        let mut start = cursor.clone();
        let before = cursor.position();
        match size(kind) {
            Some(size) => {
                let bytes = length.checked_mul(size).ok_or_else(|| format!("an array claims {length} items"))?;
                cursor.take(bytes)?;
            }
            None => {
                for _ in 0..length {
                    Value::read_kind(cursor, kind, depth + 1)?;
                }
            }
        }
        let bytes = start.take((cursor.position() - before) as u64)?;
        // An item has at least one byte, so the length is at most the file's.
        Ok(Self { kind, length: length as usize, bytes })
    }

    /// Returns the number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether the array has no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the items in order.
    ///
    /// # Errors
    /// An item is an error if a boolean is neither 0 nor 1.
    pub fn items(&self) -> impl Iterator<Item = Result<Value<'a>, String>> + use<'a> {
        let (kind, mut cursor) = (self.kind, Cursor::new(self.bytes));
        (0..self.length).map(move |_| Value::read_kind(&mut cursor, kind, 0))
    }
}

/// Returns the bytes of a value of this type, or `None` if values differ in length or the type is
/// unknown.
fn size(kind: u32) -> Option<u64> {
    match kind {
        U8 | I8 | BOOL => Some(1),
        U16 | I16 => Some(2),
        U32 | I32 | F32 => Some(4),
        U64 | I64 | F64 => Some(8),
        _ => None,
    }
}
