//! The command `rewire bench`: times each sweep, and compares the time with its lower bound and
//! with TransformerLens.

mod arguments;
mod measured;
mod peer;
mod rates;
mod run;
mod seconds;
mod sizes;
mod table;
mod timing;
mod workloads;

pub(crate) use arguments::Arguments;
pub(crate) use rates::{CoreRates, Rates};
pub(crate) use run::run;
