//! The reproductions of published analyses, by the code of the commands.
//!
//! Each function returns a dictionary: `effects` and `arrays` by the names that the tables of the
//! command's effects.safetensors have, `checks` and `figures`.

mod facts;
mod integrated_gradients;
mod ioi;
mod pythia;
mod study;

pub(crate) use facts::reproduce_facts;
pub(crate) use integrated_gradients::reproduce_ig;
pub(crate) use ioi::reproduce_ioi;
pub(crate) use pythia::reproduce_pythia;
