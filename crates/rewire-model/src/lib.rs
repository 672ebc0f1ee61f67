//! Transformer language models on burn, as one hooked forward: GPT-2, GPT-NeoX, GPT-J, GPT-Neo,
//! OPT, Llama, Mistral, Qwen2, Qwen3, Gemma-2, Gemma-3, OLMo-2, SmolLM3 and Phi-3.
//!
//! Use this crate to load a language model, and to run it while a [`Hook`](rewire_hooks::Hook) sees
//! or edits every activation. One [`Transformer`] serves all families, and it has one
//! [`forward`](Transformer::forward): a plain run passes `()` as its hook. A run may start at a
//! layer, compute only the last positions, and return only some of the logits ([`Run`]).
//!
//! ```
//! use rewire_hooks::{HookPoint, Recorder, Site};
//! use rewire_model::{Run, Transformer, TransformerConfig};
//!
//! type B = burn::backend::Flex;
//! let device = Default::default();
//! // Layers, heads, d_model, vocabulary, context.
//! let config = TransformerConfig::gpt2(2, 4, 32, 50, 16);
//! let model = Transformer::<B>::random(&config, 0, &device);
//! let tokens = model.tokens(&[vec![3, 1, 4, 1, 5]]).unwrap();
//!
//! let mut recorder = Recorder::filtered(|point| point.site() == Some(Site::Z));
//! let logits = model.forward(Run::tokens(tokens), &mut recorder).unwrap();
//! assert_eq!(logits.dims(), [1, 5, 50]); // [batch, pos, vocabulary]
//!
//! let z = recorder.into_cache().get::<4>(HookPoint::block(1, Site::Z)).unwrap();
//! assert_eq!(z.dims(), [1, 5, 4, 8]); // [batch, pos, head, d_head]
//! ```
#![deny(unsafe_code)]

mod config;
mod error;
mod families;
mod files;
mod kernels;
mod network;
mod presets;
mod weights;

pub use config::{
    Activation, Architecture, MlpKind, Positions, QueryKeyNorms, RotaryPairs, RotaryScaling, SlidingWindow,
    TransformerConfig,
};
pub use error::ModelError;
pub use files::activations::{ActivationsError, read_activations};
#[cfg(feature = "hub")]
pub use files::hub::{Hub, resolve_repository, short_names};
pub use files::load::{SavedTensor, WeightStorage, tensors_to_save};
pub use files::model_files::ModelFiles;
#[cfg(feature = "hub")]
pub use files::packaged::{packaged_directory, packaged_model};
pub use files::save::SaveError;
pub use files::warning::LoadWarning;
pub use kernels::attend::QUERY_BLOCK;
pub use network::attention::{HeadInput, mix_values};
pub use network::backward::BackwardRule;
pub use network::differentiable::Differentiable;
pub use network::generate::likeliest;
pub use network::norm::HeadNorm;
pub use network::run::{LastBlock, Prefix, ReadPositions, Readout, Run, RunStart};
pub use network::transformer::Transformer;
pub use rewire_hooks::NormKind;
pub use weights::named::FinalNormGain;
pub use weights::processing::WeightProcessing;
