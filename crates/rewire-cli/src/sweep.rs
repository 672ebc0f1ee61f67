//! The command `rewire sweep`: patches the user's own prompt pairs, at any kind of node.

mod analyze;
mod arguments;
mod at;
mod checkpoint;
mod choices;
mod correct;
mod doubts;
mod equal_runs;
mod findings;
mod identity;
mod inputs;
mod intervene;
mod paths;
mod report;
mod results;
mod run;
mod sample;
mod shortened;
mod single;

pub(crate) use arguments::Arguments;
pub(crate) use run::run;
