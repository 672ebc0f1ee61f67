//! The tensors of a file: names, shapes, types and places. Places are checked against each other
//! and against the end of the file.

use std::collections::BTreeSet;
use std::path::Path;

use crate::dequantize::dequantize;
use crate::error::GgufError;
use crate::read::cursor::Cursor;
use crate::read::tensor_type::TensorType;

/// Most dimensions of a tensor, as in the format.
const MOST_DIMENSIONS: u32 = 4;

/// A tensor in a file.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    /// The name in the file.
    pub name: &'a str,
    /// The type.
    pub kind: TensorType,
    /// The shape in row-major order: the last number counts neighbors. Files have the numbers in
    /// the opposite order.
    pub shape: Vec<usize>,
    bytes: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// Returns the bytes of the values.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the values in float32, in row-major order, exactly as the format's reference
    /// dequantizes them.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        dequantize(self.kind, self.bytes)
    }
}

/// The entry of a tensor before its place is checked.
pub(crate) struct Entry<'a> {
    name: &'a str,
    kind: TensorType,
    shape: Vec<usize>,
    /// The first byte, counted from the beginning of the data.
    offset: u64,
    length: u64,
}

impl<'a> Entry<'a> {
    /// Reads the entries of `count` tensors.
    pub(crate) fn read_all(cursor: &mut Cursor<'a>, count: u64, path: &Path) -> Result<Vec<Self>, GgufError> {
        let mut names = BTreeSet::new();
        let mut entries = Vec::new();
        for index in 0..count {
            let place = |reason| GgufError::file(path, format!("tensor {} of {count}: {reason}", index + 1));
            let name = cursor.string().map_err(place)?;
            let entry = Self::read(cursor, name).map_err(|reason| GgufError::tensor(path, name, reason))?;
            if !names.insert(name) {
                return Err(GgufError::tensor(path, name, "the file has it twice; keep one"));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn read(cursor: &mut Cursor<'a>, name: &'a str) -> Result<Self, String> {
        let dimensions = cursor.u32()?;
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            return Err(format!("it has {dimensions} dimensions; 1 to {MOST_DIMENSIONS} are possible"));
        }
        let sizes = (0..dimensions).map(|_| cursor.u64()).collect::<Result<Vec<_>, _>>()?;
        let kind = TensorType::from_number(cursor.u32()?)?;
        let offset = cursor.u64()?;
        let too_large = || format!("its shape {sizes:?} has more values than a file can hold");
        let values = sizes.iter().try_fold(1_u64, |product, size| product.checked_mul(*size)).ok_or_else(too_large)?;
        if values == 0 {
            return Err(format!("its shape {sizes:?} has no values"));
        }
        let block = kind.block_values() as u64;
        if !sizes[0].is_multiple_of(block) {
            return Err(format!("its rows have {} values, and the type {kind} needs a multiple of {block}", sizes[0]));
        }
        let length = (values / block).checked_mul(kind.block_bytes() as u64).ok_or_else(too_large)?;
        let shape = sizes.iter().rev().map(|size| usize::try_from(*size)).collect::<Result<_, _>>();
        Ok(Self { name, kind, shape: shape.map_err(|_| too_large())?, offset, length })
    }
}

/// Finds the values of each tensor in `data`, the part of the file after its header. Tensors begin
/// at multiples of `alignment`, end before the file does, and share no byte.
pub(crate) fn place<'a>(
    entries: Vec<Entry<'a>>,
    data: &'a [u8],
    alignment: u64,
    path: &Path,
) -> Result<Vec<Tensor<'a>>, GgufError> {
    let mut order: Vec<&Entry<'_>> = entries.iter().collect();
    order.sort_by_key(|entry| entry.offset);
    for pair in order.windows(2) {
        let [first, second] = pair else { continue };
        if second.offset - first.offset < first.length {
            let reason = format!("its values overlap those of the tensor `{}`", rewire_input::cut(first.name));
            return Err(GgufError::tensor(path, second.name, reason));
        }
    }
    let place = |entry: Entry<'a>| {
        let refuse = |reason: String| GgufError::tensor(path, entry.name, reason);
        let Entry { offset, length, .. } = entry;
        if !offset.is_multiple_of(alignment) {
            return Err(refuse(format!("its values begin at byte {offset}, not at a multiple of {alignment}")));
        }
        let end = offset.checked_add(length).and_then(|end| usize::try_from(end).ok());
        let bytes = end.and_then(|end| data.get(offset as usize..end)).ok_or_else(|| {
            let data = data.len();
            refuse(format!("its {length} bytes begin at byte {offset} of the data, and the data has {data} bytes"))
        })?;
        Ok(Tensor { name: entry.name, kind: entry.kind, shape: entry.shape, bytes })
    };
    entries.into_iter().map(place).collect()
}
