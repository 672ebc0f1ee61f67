//! `cargo xtask bench`: what each sweep takes, how far that is from the least it could take, and what TransformerLens takes for the
//! same.

mod arguments;
mod peer;
mod rates;
mod run;
mod seconds;
mod sizes;
mod table;
mod timing;
mod workloads;

pub(crate) use arguments::Arguments;
pub(crate) use run::run;
