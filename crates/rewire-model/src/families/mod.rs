//! The model families, one file each: the fields of its `config.json`, and its tensors.
//!
//! `docs/adding-a-family.md` says how to add one.

pub(crate) mod family;
mod gemma2;
mod gpt2;
mod llama;
mod llama_like;
mod mistral;
mod neox;
mod qwen2;
mod qwen3;
pub(crate) mod registry;
mod rope;
mod windows;
