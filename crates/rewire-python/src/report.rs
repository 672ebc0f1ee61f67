//! Reports of results: one HTML file each.

use std::path::PathBuf;

use pyo3::prelude::*;
use rewire_report::Draw;

use crate::failure::Failure;
use crate::outcome::Parts;

/// Writes the report of a result to a file.
#[pyfunction]
pub(crate) fn report(py: Python<'_>, parts: Parts<'_>, path: PathBuf) -> PyResult<()> {
    let outcome = parts.outcome()?;
    Ok(py.allow_threads(|| outcome.heat_map().save(path)).map_err(Failure::from)?)
}
