//! What an experiment is run on and judged by: prompt pairs, the tokenizer, the IOI and fact data sets, and metrics.
//!
//! Use this crate to make pairs of prompts (a clean one, on which a model behaves, and a corrupted one, on which it does
//! not), from text, from token ids, from a JSONL file or from the generators, and to turn logits into one number a prompt.
//! It knows no model: a [`Metric`] says which logits it reads, and is given those.
//!
//! ```
//! use rewire_tasks::{LogitDiff, Metric, PromptPair, PromptPairs};
//!
//! let pair = PromptPair { clean: vec![1, 2, 3], corrupted: vec![1, 4, 3], answers: vec![5], wrong_answers: vec![6] };
//! let pairs = PromptPairs::new(vec![pair]).unwrap();
//! assert_eq!(pairs.first_difference(0), Some(1));
//! assert_eq!(pairs.end(0), 2);
//!
//! let reads = LogitDiff::new(&pairs).reads();
//! assert_eq!((reads.positions, reads.columns), (vec![2], Some(vec![5, 6])));
//! ```
#![forbid(unsafe_code)]

mod clusters;
pub mod facts;
mod formats;
mod guard;
pub mod ioi;
mod metrics;
mod pairs;
mod pairs_file;
mod tokenizer;

pub use clusters::Clusters;
pub use formats::{Choices, Format, Place};
pub use metrics::accuracy::Accuracy;
pub use metrics::builtin::BuiltinMetric;
pub use metrics::closure::MetricFn;
pub use metrics::divergence::KlDivergence;
pub use metrics::linear::{LinearMetric, LinearMetricError, LogitDiff};
pub use metrics::metric::{AtClean, Metric, Reads};
pub use metrics::normalization::{Normalization, NormalizationError};
pub use metrics::probability::Probability;
pub use pairs::{PairsError, PromptPair, PromptPairs};
pub use pairs_file::{AnswerTokens, PairsFile, PairsFileError, PairsProblem, PairsSource, read_pairs};
pub use tokenizer::{ChangedText, Surrounding, Tokenizer, TokenizerError};
