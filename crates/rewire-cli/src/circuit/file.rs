//! Circuit files on disk.

use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use rewire_circuits::{CircuitFile, CircuitShape, OLD_SIGN};
use rewire_model::TransformerConfig;

/// The sign of the scores in a file, as `--sign` names it.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(super) enum SignName {
    AsWritten,
    Opposite,
}

/// Reads a circuit file for a model.
pub(super) fn read(path: &Path, config: &TransformerConfig, sign: SignName) -> anyhow::Result<CircuitFile> {
    let found = CircuitFile::read(&bytes(path)?, config).with_context(|| cannot_use(path))?;
    Ok(with_sign(found, path, sign))
}

/// Reads a circuit file for a model of the shape that it states.
pub(super) fn read_alone(path: &Path, sign: SignName) -> anyhow::Result<(CircuitFile, CircuitShape)> {
    let (found, shape) = CircuitFile::read_alone(&bytes(path)?).with_context(|| cannot_use(path))?;
    Ok((with_sign(found, path, sign), shape))
}

fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| cannot_use(path))
}

fn cannot_use(path: &Path) -> String {
    format!("cannot use {}", path.display())
}

/// Turns the sign of the scores if it is the opposite, and names the file in its warnings.
fn with_sign(mut found: CircuitFile, path: &Path, sign: SignName) -> CircuitFile {
    if sign == SignName::Opposite {
        found.scores = found.scores.opposite();
        found.node_scores = found.node_scores.map(|scores| scores.into_iter().map(|score| -score).collect());
        found.warnings.retain(|warning| warning != OLD_SIGN);
    }
    found.warnings = found.warnings.iter().map(|warning| format!("{}: {warning}", path.display())).collect();
    found
}
