//! Which parts of a model a behaviour runs through: exactly, by patching, and by gradients, all at once.
//!
//! Use this crate to ask of every head, layer and position of a model how much of a [`Metric`](rewire_tasks::Metric) runs
//! through it, over a set of [`PromptPairs`](rewire_tasks::PromptPairs). [`activation_patching`] runs what each node can
//! change once more, [`patch_groups`] the same for nodes together; [`attribution_patching`] estimates it from one backward
//! pass, [`Agreement`] says how well, and [`screen_then_verify`] does the cheap one first and the exact one where it matters.
//! [`integrated_gradients`] attributes along a line of activations, with the completeness gap in the result; [`ablation`] removes
//! nodes, [`answer_accuracy`] says how often the model still answers right, [`interpolation_curves`] how it gets from one to the
//! other.
//!
//! ```
//! use burn::backend::{Autodiff, Flex};
//! use rewire_analysis::{Component, NodeKind, Options, activation_patching};
//! use rewire_tasks::{LogitDiff, ioi::demo_pairs};
//! use rewire_toy::Toy;
//!
//! let model = Toy::Gpt2.load::<Flex>(&Default::default()).unwrap();
//! let tokenizer = Toy::Gpt2.tokenizer().unwrap();
//! let pairs = demo_pairs(&tokenizer, model.config().bos_token).unwrap();
//!
//! let heads = [NodeKind::all(Component::HeadZ)];
//! let outcome = activation_patching(&model, &pairs, &LogitDiff::new(&pairs), &heads, &Options::default()).unwrap();
//! let effect = outcome.effects[0].mean(); // [layer, head], 0 = as corrupted, 1 = as clean
//! assert_eq!(effect.shape(), [4, 8]);
//! assert!(effect.iter().any(|e| *e > 0.2));
//! ```
#![forbid(unsafe_code)]

mod ablation;
mod accuracy;
mod activation;
mod attention;
mod attribution;
mod comparison;
mod cost;
mod delta;
mod effects;
mod error;
mod family;
mod finite;
mod group_attribution;
mod groups;
mod head_paths;
mod heads;
mod integrated;
mod interpolation;
mod intervention;
mod ledger;
mod line;
mod linearise;
mod lines;
mod literal;
mod means;
mod memory;
mod moves;
mod node;
mod options;
mod paths;
mod patterns;
mod plan;
mod proportion;
mod quadrature;
mod reference;
mod room;
mod runs;
mod screen;
mod slope;
mod span;
mod stats;
mod student;
mod uncertainty;
mod validation;
mod workers;

pub use ablation::{ablate_groups, ablation};
pub use accuracy::{Ablated, AnswerAccuracy, answer_accuracy};
pub use activation::activation_patching;
pub use attention::attention_attribution;
pub use attribution::{attribution_patching, attribution_patching_with_head_paths};
pub use comparison::{Comparison, MeanDifference, top_by_size};
pub use cost::{Cost, activation_patching_cost, attribution_patching_cost, forward_cost, integrated_gradients_cost};
pub use effects::{Baselines, Effects, Method, Outcome};
pub use error::AnalysisError;
pub use family::{Family, SignFlips};
pub use group_attribution::attribute_groups;
pub use groups::{GroupOutcome, patch_groups};
pub use head_paths::{HeadPaths, NormJacobian, PathOptions, PerPrompt, head_path_attribution};
pub use heads::{
    Backup, CopyNorms, CopyScores, Inhibition, KeptTokens, Suppression, backup_heads, copy_scores, copy_suppression,
    logit_attribution, s2_inhibition,
};
pub use integrated::{
    Completeness, DEFAULT_TOLERANCE, Integrated, PathIntegral, Together, integrated_gradients, literal_first_node,
    literal_first_node_backward,
};
pub use interpolation::{Curves, interpolation_curves};
pub use intervention::Intervention;
pub use ledger::{Ledger, Pass};
pub use means::{MeanOver, mean_activations};
pub use memory::MemoryEstimate;
pub use node::{By, Component, Node, NodeKind, ParseNodeError, Positions};
pub use options::{Direction, Halved, Layers, Options, Reuse, Scale};
pub use paths::{
    Edge, FreezePolicy, Frozen, HeadEdges, HeldAttention, Input, ParseReceiverError, Path, PathPatching, PathRun,
    Receiver, Taking, head_edges, patch_path, patch_paths, path_patching, path_patching_cost,
};
pub use patterns::{attention_entropy, attention_patterns};
pub use proportion::Proportion;
pub use quadrature::{Quadrature, QuadratureNode, Rule};
pub use reference::clean_logits;
pub use screen::{Place, Screened, screen_then_verify};
pub use span::{Span, SpanVerdict, Warning};
pub use stats::{pearson, r_squared, regression, slope, spearman};
pub use uncertainty::{Bootstrap, FEWEST_FOR_BOOTSTRAP, IntervalKind, Intervals};
pub use validation::{Agreement, NodeError};
