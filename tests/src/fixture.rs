//! Reads the parity fixtures in the layout that `tests/fixtures/generate.py` writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use ndarray::{ArrayD, IxDyn};
use rewire_model::{ModelFiles, Transformer, WeightProcessing};
use rewire_tasks::{PairsSource, PromptPairs, read_pairs};
use safetensors::SafeTensors;

/// Arrays by name.
pub type Arrays = BTreeMap<String, ArrayD<f32>>;

/// A tiny model and the results that TransformerLens computes for it.
#[derive(Debug)]
pub struct Fixture {
    /// Name of its directory.
    pub name: String,
    directory: PathBuf,
    /// Tables of results, by the names in `results.safetensors`.
    pub results: Arrays,
    /// Activations and gradients of row 0, by the names in `cache_row0.safetensors`, with the
    /// weight processing that they were computed with.
    pub caches: Vec<(&'static str, WeightProcessing, Arrays)>,
}

/// Returns the two kinds of weight processing, each with the prefix of its tables' names.
pub fn processings() -> [(&'static str, WeightProcessing); 2] {
    [("proc", WeightProcessing::default()), ("raw", WeightProcessing::none())]
}

impl Fixture {
    /// Returns every fixture: those in this repository, and those in the directory that
    /// `REWIRE_FIXTURES` names, if it is set.
    pub fn all() -> Vec<Fixture> {
        let own = own_directory();
        let further = std::env::var_os("REWIRE_FIXTURES").map(PathBuf::from);
        let mut directories: Vec<PathBuf> = [Some(own), further]
            .into_iter()
            .flatten()
            .flat_map(|d| std::fs::read_dir(&d).unwrap_or_else(|e| panic!("{}: {e}", d.display())))
            .map(|entry| entry.expect("a readable directory").path())
            .filter(|path| path.join("cache_row0.safetensors").is_file())
            .collect();
        directories.sort();
        assert!(directories.len() >= 2, "the fixtures are missing");
        directories.into_iter().map(Fixture::read).collect()
    }

    fn read(directory: PathBuf) -> Fixture {
        Fixture {
            name: directory.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            results: tensors(&directory.join("results.safetensors")),
            caches: ["cache_row0.safetensors", "cache_row0_raw.safetensors"]
                .into_iter()
                .zip(processings())
                .map(|(file, (weights, processing))| (weights, processing, directory.join(file)))
                .filter(|(.., path)| path.is_file())
                .map(|(weights, processing, path)| (weights, processing, tensors(&path)))
                .collect(),
            directory,
        }
    }

    /// Loads the model, with this weight processing.
    pub fn model<B: Backend>(&self, processing: WeightProcessing) -> Transformer<B> {
        let files = ModelFiles::directory(&self.directory.join("model")).expect("the fixture has a model");
        Transformer::load(&files, &Default::default()).expect("the fixture's model loads").processed(processing)
    }

    /// Returns the model's directory.
    pub fn model_directory(&self) -> PathBuf {
        self.directory.join("model")
    }

    /// Returns the path of the prompt pairs.
    pub fn pairs_file(&self) -> PathBuf {
        self.directory.join("pairs.jsonl")
    }

    /// Reads the prompt pairs.
    pub fn pairs<B: Backend>(&self, model: &Transformer<B>) -> PromptPairs {
        Self::read_pairs(model, &self.pairs_file())
    }

    /// Reads the prompt pairs in another file of its directory.
    pub fn pairs_of<B: Backend>(&self, model: &Transformer<B>, file: &str) -> PromptPairs {
        Self::read_pairs(model, &self.directory.join(file))
    }

    fn read_pairs<B: Backend>(model: &Transformer<B>, path: &Path) -> PromptPairs {
        let config = model.config();
        let source = PairsSource::new(None, None, config.d_vocab, config.n_ctx);
        read_pairs(path, &source).expect("the fixture's pairs are whole").pairs
    }

    /// Returns whether it belongs to this repository and therefore has every table.
    pub fn is_own(&self) -> bool {
        self.directory.starts_with(own_directory())
    }

    /// Returns a table, if the fixture has it.
    pub fn table(&self, name: &str) -> Option<&ArrayD<f32>> {
        self.results.get(name)
    }
}

/// Returns the directory of this repository's fixtures. Two packages include this file in their
/// tests, and the path is right in both.
fn own_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// Reads all float32 tensors in a safetensors file.
pub fn tensors(path: &Path) -> Arrays {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let array = |view: safetensors::tensor::TensorView<'_>| {
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        ArrayD::from_shape_vec(IxDyn(view.shape()), values).expect("a tensor holds its shape")
    };
    file.tensors().into_iter().map(|(name, view)| (name, array(view))).collect()
}
