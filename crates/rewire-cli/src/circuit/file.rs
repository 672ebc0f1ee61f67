//! Circuit files on disk.

use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use rewire_circuits::{CircuitFile, OLD_SIGN};
use rewire_model::TransformerConfig;

/// The sign of the scores in a file, as `--sign` names it.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(super) enum SignName {
    AsWritten,
    Opposite,
}

/// Reads a circuit file for a model.
pub(super) fn read(path: &Path, config: &TransformerConfig, sign: SignName) -> anyhow::Result<CircuitFile> {
    let named = || format!("cannot use {}", path.display());
    let bytes = std::fs::read(path).with_context(named)?;
    let mut found = CircuitFile::read(&bytes, config).with_context(named)?;
    if sign == SignName::Opposite {
        found.scores = found.scores.opposite();
        found.warnings.retain(|warning| warning != OLD_SIGN);
    }
    found.warnings = found.warnings.iter().map(|warning| format!("{}: {warning}", path.display())).collect();
    Ok(found)
}
