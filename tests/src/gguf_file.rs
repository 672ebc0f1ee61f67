//! Writes GGUF files for tests: whole ones, and ones that are damaged in one place. The tests of
//! `rewire-gguf` include this file.

/// A file to write.
#[derive(Clone, Default)]
pub struct File {
    keys: Vec<(Vec<u8>, Vec<u8>)>,
    tensors: Vec<Entry>,
    data: Vec<u8>,
}

/// The entry of a tensor, as it is written.
#[derive(Clone)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// In the order of the file: neighbors first.
    pub sizes: Vec<u64>,
    /// The number of its type.
    pub kind: u32,
    /// Where its values begin in the data.
    pub offset: u64,
}

/// The multiple at which tensors begin.
const ALIGNMENT: usize = 32;

/// Returns the length of some bytes, and the bytes.
fn counted(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes() as &[u8], bytes].concat()
}

impl File {
    /// A file of an architecture without other keys.
    pub fn of(architecture: &str) -> Self {
        Self::default().with_text("general.architecture", architecture)
    }

    /// Adds a key with the number of its type and the bytes of its value.
    pub fn with(mut self, key: impl AsRef<[u8]>, kind: u32, value: &[u8]) -> Self {
        self.keys.push((key.as_ref().to_vec(), [&kind.to_le_bytes() as &[u8], value].concat()));
        self
    }

    /// Returns the file with another text as the value of a key.
    #[must_use]
    pub fn replacing_text(&self, key: &str, value: &str) -> Self {
        let mut file = self.clone();
        file.keys.retain(|(known, _)| known != key.as_bytes());
        file.with_text(key, value)
    }

    /// Adds a whole number.
    pub fn with_u32(self, key: &str, value: u32) -> Self {
        self.with(key, 4, &value.to_le_bytes())
    }

    /// Adds a float32.
    pub fn with_f32(self, key: &str, value: f32) -> Self {
        self.with(key, 6, &value.to_le_bytes())
    }

    /// Adds true or false.
    pub fn with_flag(self, key: &str, value: bool) -> Self {
        self.with(key, 7, &[value.into()])
    }

    /// Adds a text.
    pub fn with_text(self, key: &str, value: &str) -> Self {
        self.with(key, 8, &counted(value.as_bytes()))
    }

    /// Adds texts.
    pub fn with_texts<T: AsRef<str>>(self, key: &str, values: &[T]) -> Self {
        let items: Vec<u8> = values.iter().flat_map(|value| counted(value.as_ref().as_bytes())).collect();
        self.with_array(key, 8, values.len() as u64, &items)
    }

    /// Adds whole numbers.
    pub fn with_i32s(self, key: &str, values: &[i32]) -> Self {
        let items: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.with_array(key, 5, values.len() as u64, &items)
    }

    /// Adds float32 numbers.
    pub fn with_f32s(self, key: &str, values: &[f32]) -> Self {
        let items: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.with_array(key, 6, values.len() as u64, &items)
    }

    /// Adds an array that claims a length.
    pub fn with_array(self, key: &str, kind: u32, length: u64, items: &[u8]) -> Self {
        self.with(key, 9, &[&kind.to_le_bytes() as &[u8], &length.to_le_bytes(), items].concat())
    }

    /// Adds a float32 tensor of zeros.
    pub fn with_tensor(self, name: &str, sizes: &[u64]) -> Self {
        let values = sizes.iter().product::<u64>() as usize;
        self.with_values(name, sizes, &vec![0.0; values])
    }

    /// Adds a float32 tensor.
    pub fn with_values(self, name: &str, sizes: &[u64], values: &[f32]) -> Self {
        let offset = self.data.len() as u64;
        let entry = Entry { name: name.into(), sizes: sizes.to_vec(), kind: 0, offset };
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.with_entry(entry, &data)
    }

    /// Adds an entry as it is, and values at the end of the data.
    pub fn with_entry(mut self, entry: Entry, values: &[u8]) -> Self {
        self.tensors.push(entry);
        self.data.extend(values);
        self.data.resize(self.data.len().next_multiple_of(ALIGNMENT), 0);
        self
    }

    /// Returns the bytes of the file.
    pub fn bytes(&self) -> Vec<u8> {
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
