//! Indirect object identification: "When John and Mary went to the shops, John gave the bag to" ->
//! " Mary".
//!
//! Prompts follow Wang et al. 2022. Each prompt has two names. The subject (S) occurs twice, and
//! the indirect object (IO) is the answer. IO comes first in ABBA prompts, S in BABA prompts. The
//! generator is seeded and gives the same prompts on every machine. It draws only names that are
//! single tokens of the model's tokenizer.

mod circuit;
mod comparison;
mod corrupt;
mod demo;
mod generate;
pub(crate) mod pools;

pub use circuit::{GPT2_SMALL_CIRCUIT, HeadClass, gpt2_small_class};
pub use comparison::{COMPARISON_PROMPT, Contrast, comparison_pair, contrastive_pair};
pub use corrupt::Corruption;
pub use demo::{DEMO_ANSWER_IDS_GPT2, DemoError, demo_pairs, demo_prompts};
pub use generate::{IoiError, IoiGenerator, IoiPrompt, Order, Roles, Split};
pub use pools::{NAMES, OBJECTS, PLACES, TEMPLATES};
