//! Writes GGUF files for tests: whole ones, and ones that are damaged in one place.

/// A file to write.
#[derive(Clone, Default)]
pub(crate) struct File {
    keys: Vec<(Vec<u8>, Vec<u8>)>,
    tensors: Vec<Entry>,
    data: Vec<u8>,
}

/// The entry of a tensor, as it is written.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    /// In the order of the file: neighbors first.
    pub(crate) sizes: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) offset: u64,
}

/// The multiple at which tensors begin.
const ALIGNMENT: usize = 32;

/// Returns the length of some bytes, and the bytes.
fn counted(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes() as &[u8], bytes].concat()
}

impl File {
    /// A file of an architecture without other keys.
    pub(crate) fn of(architecture: &str) -> Self {
        Self::default().with_text("general.architecture", architecture)
    }

    /// Adds a key with the number of its type and the bytes of its value.
    pub(crate) fn with(mut self, key: impl AsRef<[u8]>, kind: u32, value: &[u8]) -> Self {
        self.keys.push((key.as_ref().to_vec(), [&kind.to_le_bytes() as &[u8], value].concat()));
        self
    }

    pub(crate) fn with_u32(self, key: &str, value: u32) -> Self {
        self.with(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn with_f32(self, key: &str, value: f32) -> Self {
        self.with(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn with_flag(self, key: &str, value: bool) -> Self {
        self.with(key, 7, &[value.into()])
    }

    pub(crate) fn with_text(self, key: &str, value: &str) -> Self {
        self.with(key, 8, &counted(value.as_bytes()))
    }

    pub(crate) fn with_texts<T: AsRef<str>>(self, key: &str, values: &[T]) -> Self {
        let items: Vec<u8> = values.iter().flat_map(|value| counted(value.as_ref().as_bytes())).collect();
        self.with_array(key, 8, values.len() as u64, &items)
    }

    pub(crate) fn with_i32s(self, key: &str, values: &[i32]) -> Self {
        let items: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.with_array(key, 5, values.len() as u64, &items)
    }

    pub(crate) fn with_f32s(self, key: &str, values: &[f32]) -> Self {
        let items: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.with_array(key, 6, values.len() as u64, &items)
    }

    /// Adds an array that claims a length.
    pub(crate) fn with_array(self, key: &str, kind: u32, length: u64, items: &[u8]) -> Self {
        self.with(key, 9, &[&kind.to_le_bytes() as &[u8], &length.to_le_bytes(), items].concat())
    }

    /// Adds a float32 tensor of zeros.
    pub(crate) fn with_tensor(self, name: &str, sizes: &[u64]) -> Self {
        let values = sizes.iter().product::<u64>() as usize;
        self.with_values(name, sizes, &vec![0.0; values])
    }

    /// Adds a float32 tensor.
    pub(crate) fn with_values(self, name: &str, sizes: &[u64], values: &[f32]) -> Self {
        let offset = self.data.len() as u64;
        let entry = Entry { name: name.into(), sizes: sizes.to_vec(), kind: 0, offset };
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.with_entry(entry, &data)
    }

    /// Adds an entry as it is, and values at the end of the data.
    pub(crate) fn with_entry(mut self, entry: Entry, values: &[u8]) -> Self {
        self.tensors.push(entry);
        self.data.extend(values);
        self.data.resize(self.data.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    /// Returns the bytes of the file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            bytes.extend(counted(key));
            bytes.extend(value);
        }
        for tensor in &self.tensors {
            bytes.extend(counted(&tensor.name));
            bytes.extend((tensor.sizes.len() as u32).to_le_bytes());
            bytes.extend(tensor.sizes.iter().flat_map(|size| size.to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend(tensor.offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes.extend(&self.data);
        bytes
    }
}
