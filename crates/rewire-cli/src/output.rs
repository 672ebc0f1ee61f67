//! The text that commands print, and the output directory that they write to.

mod directory;
mod finished;
mod printing;

pub use directory::WaitArguments;
pub(crate) use directory::{OutputArguments, command};
pub(crate) use printing::{explain, text_table};
pub use printing::{print, say};
