//! The command `rewire sweep`: patches the user's own prompt pairs, at any kind of node.

mod analyze;
mod arguments;
mod at;
mod checkpoint;
mod choices;
mod doubts;
mod edges;
mod equal_runs;
mod estimator;
mod findings;
mod identity;
mod inputs;
mod intervene;
mod memory;
mod paths;
mod planned;
mod prepared;
mod report;
mod results;
mod run;
mod sample;
mod shortened;
mod single;
mod verify;

pub(crate) use arguments::Arguments;
pub(crate) use checkpoint::SweepCheckpoint;
pub(crate) use choices::MetricName;
pub(crate) use planned::predict;
pub(crate) use prepared::{Prepared, origin};
pub(crate) use run::{CellRun, run, run_cell};
pub(crate) use verify::{Choice, verify};
