//! The arguments of `bench`.

use std::path::PathBuf;

use burn::tensor::backend::Backend;
use clap::Args;
use rewire_analysis::run::Execution;
use rewire_model::Transformer;
use rewire_tensor::is_synchronous;

use super::sizes::Size;
use super::workloads::{Setting, TOKENS, Work};
use crate::arguments::an_even_number;
use crate::compute::{MemoryArguments, NumberArguments};
use crate::device::Device;
use crate::headings::{COMPUTE, PEER, WHAT};
use crate::session::Session;
use crate::threads::number;

#[derive(Args)]
pub struct Arguments {
    /// Device: auto, flex, ndarray, cuda or cuda:N.
    #[arg(long, default_value = "auto", help_heading = COMPUTE)]
    pub(super) device: Device,
    /// Shapes of the models.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "gpt2-small", help_heading = WHAT)]
    pub(super) sizes: Vec<Size>,
    /// Works to time.
    ///
    /// By default, all works except edges, neurons and neurons-one-pair, which take minutes.
    #[arg(long, value_enum, value_delimiter = ',', help_heading = WHAT)]
    pub(super) works: Vec<Work>,
    /// Number of timed runs per work; the median is printed.
    ///
    /// On a GPU, one run that is not counted comes first.
    #[arg(long, default_value_t = 3, value_name = "N", help_heading = WHAT)]
    pub(super) repeats: usize,
    /// Number of prompt pairs, an even number.
    ///
    /// It is even because each pair occurs in both directions. The default is 8 on the CPU and 64
    /// on a GPU.
    #[arg(long, value_parser = an_even_number, value_name = "N", help_heading = WHAT)]
    pub(super) pairs: Option<usize>,
    #[command(flatten)]
    pub(super) numbers: NumberArguments,
    #[command(flatten)]
    pub(super) memory: MemoryArguments,
    /// Seed of the random weights and prompts.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = WHAT)]
    pub(super) seed: u64,
    /// Largest number of tokens in one pass of a sweep.
    #[arg(long, value_name = "N", help_heading = COMPUTE)]
    pub(super) token_budget: Option<usize>,
    /// Print one JSON object per model instead of tables.
    ///
    /// It has the settings, the rates of the device in operations and bytes per second, and the
    /// figures of each work in seconds.
    #[arg(long, help_heading = WHAT)]
    pub(super) json: bool,
    /// Also run each work on TransformerLens, and print the ratios.
    ///
    /// TransformerLens runs in float32 and on the same device, alternating with Rewire.
    #[arg(long, help_heading = PEER)]
    pub(super) peer: bool,
    /// Python with TransformerLens installed.
    ///
    /// By default, a new environment in target/peer. Needs --peer.
    #[arg(long, requires = "peer", value_name = "FILE", help_heading = PEER)]
    pub(super) python: Option<PathBuf>,
    /// Largest number of patches that TransformerLens runs.
    ///
    /// The number is per work. The time of all patches is extrapolated.
    #[arg(long, default_value_t = 144, value_name = "N", help_heading = PEER)]
    pub(super) peer_patches: usize,
    /// Number of CPU threads.
    ///
    /// For Rewire and for TransformerLens.
    #[arg(long, default_value_t = 2, value_parser = number, value_name = "N", help_heading = COMPUTE)]
    pub(super) threads: usize,
}

impl Arguments {
    /// Returns the works to time.
    pub(super) fn works(&self) -> Vec<Work> {
        match self.works.as_slice() {
            [] => Work::quick(),
            chosen => chosen.to_vec(),
        }
    }

    /// Returns the execution of each work. On the CPU it has `--threads` threads, and batch sizes
    /// that are the same on every machine.
    pub(super) fn execution<'a, B: Backend>(&self, session: &'a Session, model: &Transformer<B>) -> Execution<'a> {
        let mut execution = session.execution(model, TOKENS);
        execution.workers = is_synchronous::<B>(&model.device()).then_some(self.threads);
        execution.token_budget = self.token_budget.unwrap_or(execution.token_budget);
        execution
    }

    /// Returns the prompts that works run on, without an execution yet.
    pub(super) fn setting<'a, B: Backend>(&self, model: &Transformer<B>) -> anyhow::Result<Setting<'a>> {
        let pairs = self.pairs.unwrap_or(if is_synchronous::<B>(&model.device()) { 8 } else { 64 });
        Setting::new(model, self.seed, pairs, self.numbers.tolerance())
    }
}
