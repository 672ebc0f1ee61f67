//! A GGUF file as the files of a model: the configuration, the tokenizer and the weights are all in
//! it.

use std::path::{Path, PathBuf};

use rewire_gguf::{Gguf, GgufError, NamedTensor, config_json, named_tensors, tokenizer_json};

use crate::error::ModelError;

/// Returns whether a file is a GGUF file, by its name.
pub(crate) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gguf")
}

/// Returns the only GGUF file in a directory, or `None` if there is none.
pub(crate) fn only_file_in(directory: &Path) -> Result<Option<PathBuf>, ModelError> {
    let read = |source| ModelError::Read { path: directory.into(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if is_gguf(&path) {
            files.push(path);
        }
    }
    files.sort();
    match files.len() {
        0 | 1 => Ok(files.pop()),
        _ => Err(ModelError::SeveralGguf { directory: directory.into(), files }),
    }
}

/// Returns the text of the `config.json` that describes the model.
pub(crate) fn config(bytes: &[u8], path: &Path) -> Result<Vec<u8>, GgufError> {
    Ok(config_json(&Gguf::read(bytes, path)?)?.to_string().into_bytes())
}

/// Returns the text of the model's `tokenizer.json`, or `None` if the file has no tokenizer.
pub(crate) fn tokenizer(bytes: &[u8], path: &Path) -> Result<Option<Vec<u8>>, GgufError> {
    let tokenizer = tokenizer_json(&Gguf::read(bytes, path)?)?;
    Ok(tokenizer.map(|json| json.to_string().into_bytes()))
}

/// Returns the tensors by their names in transformers, sorted by name.
pub(crate) fn tensors<'a>(bytes: &'a [u8], path: &Path) -> Result<Vec<NamedTensor<'a>>, GgufError> {
    let mut tensors = named_tensors(&Gguf::read(bytes, path)?)?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}
