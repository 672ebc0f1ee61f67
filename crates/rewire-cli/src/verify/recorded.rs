//! The results of a finished sweep, as they are on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ndarray::{ArrayD, IxDyn};
use rewire_input::read_regular;
use rewire_report::TABLE_FILES;
use rewire_store::{INCOMPLETE, sha256};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Largest file of results that is read, in bytes.
const MOST_BYTES: u64 = 64 << 30;

/// Name of the file of tensors.
const TENSORS: &str = TABLE_FILES[0];
/// Name of the file that describes the results.
const DESCRIPTION: &str = TABLE_FILES[2];

/// The results of a finished sweep.
pub(crate) struct Recorded {
    directory: PathBuf,
    /// The contents of `effects.json`.
    pub(crate) about: Value,
    /// The command line of the sweep, without the program.
    pub(crate) command: Vec<String>,
    /// The tensors by name.
    pub(crate) tensors: BTreeMap<String, ArrayD<f32>>,
    /// One line for each file that is not the one that `effects.json` describes.
    pub(crate) changed: Vec<String>,
}

impl Recorded {
    /// Reads the results in a directory. Changes nothing there.
    ///
    /// # Errors
    /// If a file is missing or damaged, or if the results are not those of a sweep.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(DESCRIPTION);
        if directory.join(INCOMPLETE).exists() {
            bail!("{} holds incomplete results; run their command again, which completes them", directory.display());
        }
        let text = read_regular(&path, MOST_BYTES)
            .with_context(|| format!("cannot read {}; give the output directory of a sweep", path.display()))?;
        let about: Value =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged: it is no JSON", path.display()))?;
        let kind = about["run"]["command"].as_str();
        let words = about["command"].as_array().into_iter().flatten();
        let command: Option<Vec<String>> = words.map(|word| word.as_str().map(str::to_owned)).collect();
        let command = match (kind, command) {
            (Some("sweep"), Some(command)) if !command.is_empty() => command,
            (Some(other), Some(_)) if other != "sweep" => bail!(
                "{} describes results of {other}; verify takes those of sweep. Run the command again into another \
                 directory, and compare",
                path.display()
            ),
            _ => bail!("{} describes no sweep; its keys `command` and `run` are missing or damaged", path.display()),
        };
        let tensors = tensors(&directory.join(TENSORS))?;
        let changed = changed(directory, &about);
        Ok(Self { directory: directory.into(), about, command, tensors, changed })
    }

    /// Returns the path of the description.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(DESCRIPTION)
    }

    /// Returns the bytes of another file of the results, if it can be read.
    pub(crate) fn file(&self, name: &str) -> Option<Vec<u8>> {
        read_regular(&self.directory.join(name), MOST_BYTES).ok()
    }
}

/// Reads the tensors in a file.
fn tensors(path: &Path) -> anyhow::Result<BTreeMap<String, ArrayD<f32>>> {
    let bytes = read_regular(path, MOST_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
    let damaged = || format!("{} is damaged", path.display());
    let file = SafeTensors::deserialize(&bytes).with_context(damaged)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            bail!("{}: the tensor {name} is {:?}, not float32", damaged(), view.dtype());
        }
        let numbers = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let tensor = ArrayD::from_shape_vec(IxDyn(view.shape()), numbers).with_context(damaged)?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

/// Returns a line for each file whose length or SHA-256 is not the recorded one.
fn changed(directory: &Path, about: &Value) -> Vec<String> {
    let listed = about["files"].as_object().into_iter().flatten();
    let line = |(name, described): (&String, &Value)| {
        let is_plain = Path::new(name).file_name().is_some_and(|plain| plain == name.as_str());
        match read_regular(&directory.join(name), MOST_BYTES) {
            _ if !is_plain => Some(format!("{name}: it is no name of a file")),
            Err(error) => Some(format!("{name}: {error}")),
            Ok(bytes) if described["sha256"] == sha256(&bytes).as_str() => None,
            Ok(_) => Some(format!("{name}: its SHA-256 is not the one in {DESCRIPTION}")),
        }
    };
    listed.filter_map(line).collect()
}
