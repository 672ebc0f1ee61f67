//! Circuits: which heads, or which edges between heads and MLPs, carry a behavior, chosen on some
//! prompts and judged on others.
//!
//! [`EdgeScores`] chooses circuits of edges, [`SizedCircuits`] and [`Curve`] give MIB's figures of
//! them, and [`CircuitFile`] reads and writes the files of EAP-IG and MIB. The rest of the crate is
//! for circuits of heads.
//!
//! Use this crate after an analysis has ranked heads. [`find_circuit`] chooses the fewest heads
//! that keep the behavior alone and without which nothing of it is left ([`Shares`]). It judges
//! them on other prompts, with bootstrap intervals, and compares them with random heads.
//!
//! For indirect object identification (IOI), [`PathStep`] path-patches all heads into some
//! receivers, [`AttentionProfile`] has the heads' attention between the names, and [`evidence`]
//! gives heads their roles.
//!
//! ```
//! use burn::backend::Flex;
//! use rewire_analysis::run::Execution;
//! use rewire_circuits::{Ablations, find_circuit, means_by};
//! use rewire_hooks::Head;
//! use rewire_tasks::PromptPairs;
//! use rewire_tasks::ioi::demo_pairs;
//! use rewire_toy::Toy;
//!
//! let model = Toy::Gpt2.load::<Flex>(&Default::default()).unwrap();
//! let pairs = demo_pairs(&Toy::Gpt2.tokenizer().unwrap(), model.config().bos_token).unwrap();
//! let [choosing, judging] =
//!     [0..4, 4..8].map(|i| PromptPairs::new(pairs.pairs()[i].to_vec()).unwrap());
//!
//! // Ablated heads get their mean output over the prompts, by position.
//! let means = means_by(&model, &[((), pairs.clean())].into(), 8).unwrap();
//! let [choosing, judging] =
//!     [choosing, judging].map(|set| Ablations::new(&model, vec![(set, &means[&()])], 0).unwrap());
//!
//! let ranked = [(Head::new(3, 0), 0.9), (Head::new(3, 4), 0.5), (Head::new(2, 1), 0.2)];
//! let circuit = find_circuit(&choosing, &judging, &ranked, 0, &Execution::default()).unwrap();
//! assert!(!circuit.judged.heads.is_empty());
//! println!("kept {:.2}, left {:.2}", circuit.judged.shares.kept, circuit.judged.shares.left);
//! ```
#![forbid(unsafe_code)]

mod compare;
mod curve;
mod error;
mod faithfulness;
mod find;
mod graph_file;
mod judged;
mod marginal;
mod means;
mod names;
mod random;
mod rivals;
mod roles;
mod search;
mod selection;
mod shape;
mod shrink;
mod step;

pub use compare::{Comparison, Overlap};
pub use curve::{Curve, CurveIntervals, Resampled, SIZES, SizedCircuits, check_sizes, halves, on_prompts};
pub use error::CircuitError;
pub use faithfulness::{Ablations, Carried, KEPT, LEFT, Shares};
pub use find::{FoundCircuit, find_circuit, rank_heads};
pub use graph_file::{CircuitFile, CircuitFileError, OLD_SIGN};
pub use judged::{ChoiceCurve, JudgedCurve, Judging, judge_choice, judge_effects, judge_scores};
pub use marginal::{MarginalEffect, marginal_effects};
pub use means::means_by;
pub use names::{AttentionProbe, AttentionProfile, mean_attention};
pub use random::{Random, compare_with_random, random_sets};
pub use rivals::random_circuits;
pub use roles::{COPIES, Evidence, HeadRole, Seen, evidence, induces, inhibits};
pub use search::{Choice, STABLE, choose};
pub use selection::{EdgeScores, Ranking};
pub use shape::{CircuitShape, ShapeDifference};
pub use shrink::{Shrunk, acdc, exact_greedy};
pub use step::{PathStep, mean_by_head};
