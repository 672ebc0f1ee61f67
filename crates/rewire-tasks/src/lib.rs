//! Prompt pairs, the tokenizer, the IOI and fact data sets, and metrics.
//!
//! Use this crate to make prompt pairs and to turn logits into one number per prompt. A pair has a
//! clean prompt, on which the model shows the behavior, and a corrupted prompt, on which it does
//! not. Pairs come from text, token ids, a JSONL file or the generators. The crate does not depend
//! on a model: a [`Metric`] names the logits that it reads and receives only those.
//!
//! ```
//! use rewire_tasks::{LogitDiff, Metric, PromptPair, PromptPairs};
//!
//! let (clean, corrupted) = (vec![1, 2, 3], vec![1, 4, 3]);
//! let pair = PromptPair { clean, corrupted, answers: vec![5], wrong_answers: vec![6] };
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
mod whole_answers;

pub use clusters::Clusters;
pub use formats::{Choices, Format, Place};
pub use metrics::accuracy::Accuracy;
pub use metrics::builtin::BuiltinMetric;
pub use metrics::closure::MetricFn;
pub use metrics::divergence::KlDivergence;
pub use metrics::linear::{LinearMetric, LinearMetricError, LogitDiff};
pub use metrics::log_probability::LogProbability;
pub use metrics::margin::Margin;
pub use metrics::metric::{AtClean, Metric, Reads};
pub use metrics::normalization::{Normalization, NormalizationError};
pub use metrics::position::{MetricPosition, MetricPositionError};
pub use metrics::probability::{Probability, ProbabilityDifference};
pub use pairs::{PairsError, PromptPair, PromptPairs};
pub use pairs_file::{AnswerTokens, PairsFile, PairsFileError, PairsProblem, PairsSource, read_pairs};
pub use tokenizer::{ChangedText, Surrounding, Tokenizer, TokenizerError};
pub use whole_answers::WholeAnswers;
