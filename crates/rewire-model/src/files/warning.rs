//! What is doubtful about a model's files, although the model can be loaded.

use std::fmt;
use std::path::PathBuf;

/// A doubtful property of a model's files.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LoadWarning {
    /// The configuration ties the unembedding to the embedding, and the files hold an unembedding
    /// that differs. It is ignored.
    IgnoredUnembedding {
        /// The weight file.
        path: PathBuf,
        /// The unembedding.
        tensor: String,
        /// The embedding, which is used for both.
        embedding: String,
        /// The largest difference of two numbers, or `None` if they cannot be compared because of
        /// their shapes or types.
        largest: Option<f32>,
    },
    /// All tensors have a prefix that training code adds. It is removed.
    RemovedPrefix {
        /// The first weight file.
        path: PathBuf,
        /// The prefix.
        prefix: String,
    },
}

impl fmt::Display for LoadWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadWarning::IgnoredUnembedding { path, tensor, embedding, largest } => {
                let difference = match largest {
                    Some(largest) => format!("their largest difference is {largest}"),
                    None => "it has another shape or type".to_owned(),
                };
                write!(
                    f,
                    "{}: the tensor `{tensor}` is ignored, because config.json ties it to `{embedding}`; {difference}; \
                     set `tie_word_embeddings` to false to use both",
                    path.display()
                )
            }
            LoadWarning::RemovedPrefix { path, prefix } => write!(
                f,
                "{}: the names of all tensors begin with `{prefix}`; they are read without it",
                path.display()
            ),
        }
    }
}
