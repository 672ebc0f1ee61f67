//! The items that most programs need: `use rewire::prelude::*;`.

#[cfg(feature = "flex")]
pub use crate::Cpu;
pub use crate::error::Error;
pub use crate::input::Input;
pub use crate::language_model::{LanguageModel, Pair};
pub use crate::pretrained::Pretrained;
pub use crate::study::Study;
pub use burn::tensor::Tensor;
pub use burn::tensor::backend::Backend;
pub use rewire_analysis::node::{By, Component, Node, NodeKind, Positions};
pub use rewire_analysis::path::{FreezePolicy, Receiver};
pub use rewire_analysis::{Effects, Outcome, RankedNode};
pub use rewire_hooks::{ActivationCache, Head, Hook, HookPoint, Patch, Recorder, Site, edit};
pub use rewire_model::{BackwardRule, Readout, Run, Transformer};
pub use rewire_report::{Draw, Page};
pub use rewire_tasks::{LinearMetric, LogitDiff, Metric, MetricFn, PromptPair, PromptPairs, Reads};
