//! The model families, one file each: the fields of its `config.json`, and its tensors.
//!
//! `docs/adding-a-family.md` says how to add one.

pub(crate) mod family;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neo;
mod gptj;
mod llama;
mod llama_like;
mod mistral;
mod neox;
mod olmo2;
mod opt;
mod phi3;
mod qwen2;
mod qwen3;
pub(crate) mod registry;
mod rope;
mod smollm3;
mod windows;
