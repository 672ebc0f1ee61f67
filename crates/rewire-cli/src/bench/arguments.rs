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
use crate::session::Session;
use crate::threads::number;

#[derive(Args)]
pub struct Arguments {
    /// Where to compute: auto, flex, ndarray, cuda, cuda:N.
    #[arg(long, default_value = "auto")]
    pub(super) device: Device,
    /// The models' shapes.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "gpt2-small")]
    pub(super) sizes: Vec<Size>,
    /// What to time; all but the neurons, which take minutes, if none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) works: Vec<Work>,
    /// How often each is timed, on a GPU after a first time that is not counted; the median is
    /// printed.
    #[arg(long, default_value_t = 3)]
    pub(super) repeats: usize,
    /// Prompt pairs, an even number: each is there both ways round [default: 8 on the CPU, 64 on a
    /// GPU].
    #[arg(long, value_parser = an_even_number)]
    pub(super) pairs: Option<usize>,
    #[command(flatten)]
    pub(super) numbers: NumberArguments,
    #[command(flatten)]
    pub(super) memory: MemoryArguments,
    /// Seed of the random weights and prompts.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Most tokens in one pass of a sweep.
    #[arg(long)]
    pub(super) token_budget: Option<usize>,
    /// Run the same on TransformerLens in float32, alternating, on the same device, and print the
    /// ratios.
    #[arg(long)]
    pub(super) peer: bool,
    /// A Python that has TransformerLens; without it an environment is made in target/peer.
    #[arg(long, requires = "peer")]
    pub(super) python: Option<PathBuf>,
    /// Most patches that TransformerLens makes of one work each time; the others are taken to need
    /// the same time each.
    #[arg(long, default_value_t = 144)]
    pub(super) peer_patches: usize,
    /// Threads on the CPU, of both.
    #[arg(long, default_value_t = 2, value_parser = number)]
    pub(super) threads: usize,
}

impl Arguments {
    /// The works to time.
    pub(super) fn works(&self) -> Vec<Work> {
        match self.works.as_slice() {
            [] => Work::quick(),
            chosen => chosen.to_vec(),
        }
    }

    /// The execution of each work. On the CPU these are as many threads as `--threads` says, and
    /// sizes that are the same on every machine.
    pub(super) fn execution<'a, B: Backend>(&self, session: &'a Session, model: &Transformer<B>) -> Execution<'a> {
        let mut execution = session.execution(model, TOKENS);
        execution.workers = is_synchronous::<B>(&model.device()).then_some(self.threads);
        execution.token_budget = self.token_budget.unwrap_or(execution.token_budget);
        execution
    }

    /// The prompts that works run on.
    pub(super) fn setting<'a, B: Backend>(&self, model: &Transformer<B>) -> anyhow::Result<Setting<'a>> {
        let pairs = self.pairs.unwrap_or(if is_synchronous::<B>(&model.device()) { 8 } else { 64 });
        Setting::new(model, self.seed, pairs, self.numbers.tolerance())
    }
}
