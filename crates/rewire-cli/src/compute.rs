//! In what numbers a command computes and how much memory it may take: flags, and what they come to.

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::bail;
use burn::tensor::backend::Backend;
use bytesize::ByteSize;
use clap::Args;
use rewire_analysis::AnalysisError;
use rewire_analysis::integrated::DEFAULT_TOLERANCE;
use rewire_analysis::run::{Halved, MemoryEstimate, Options};
use rewire_model::Transformer;
use rewire_tensor::{Fault, Precision, Products, set_products};
use serde_json::{Value, json};

use crate::device::Device;
use crate::output::say;

/// The numbers that are computed with.
#[derive(Args)]
pub(crate) struct NumberArguments {
    /// What weights and activations are held in: f32, or bf16, which takes half the memory and has 8 bits; norms, softmax, logits and
    /// metrics are of float32 either way.
    #[arg(long, value_name = "f32|bf16", default_value = "f32")]
    pub(crate) dtype: Precision,
    /// On an NVIDIA GPU: let products of float32 round their factors to the 11 bits of TF32, which is faster.
    #[arg(long)]
    pub(crate) tf32: bool,
}

impl NumberArguments {
    /// Sets how products are computed; refuses what the device has not.
    pub(crate) fn apply(&self, device: Device) -> anyhow::Result<()> {
        let device = device.resolve();
        if self.tf32 && !matches!(device, Device::Cuda(_)) {
            bail!("--tf32 is of NVIDIA GPUs: the products of --device {device} are of float32");
        }
        if self.dtype == Precision::BFloat16 && device == Device::NdArray {
            bail!("--dtype bf16: --device ndarray has no such numbers");
        }
        set_products(self.products());
        Ok(())
    }

    /// What integrated gradients may miss the metric's change by: those of shorter numbers do not sum more exactly than they are.
    pub(crate) fn tolerance(&self) -> f64 {
        if self.are_short() { 0.1 } else { DEFAULT_TOLERANCE }
    }

    pub(crate) fn products(&self) -> Products {
        if self.tf32 { Products::Tf32 } else { Products::Float32 }
    }

    /// Whether anything is computed in less than float32.
    pub(crate) fn are_short(&self) -> bool {
        self.tf32 || self.dtype != Precision::Float32
    }

    /// In words, for the head of a report.
    pub(crate) fn told(&self) -> String {
        match (self.dtype, self.products()) {
            (Precision::Float32, Products::Float32) => "float32".to_owned(),
            (Precision::Float32, Products::Tf32) => "float32, products in tf32".to_owned(),
            (Precision::BFloat16, Products::Float32) => "bfloat16 weights and activations".to_owned(),
            (Precision::BFloat16, Products::Tf32) => {
                "bfloat16 weights and activations, other products in tf32".to_owned()
            }
        }
    }

    /// The same for effects.json.
    pub(crate) fn describe(&self) -> Value {
        json!({ "weights_and_activations": self.dtype, "products_of_float32": self.products() })
    }
}

/// How much memory may be taken.
#[derive(Args)]
pub(crate) struct MemoryArguments {
    /// Most memory for activations and passes, such as 8GiB; without it what is free on a GPU, and on the CPU sizes that are the same on
    /// every machine.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory_budget: Option<u64>,
}

fn size(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.parse().map_err(|e| format!("{e}; a size is a number and a unit, such as 8GiB"))?;
    match size.as_u64() {
        0 => Err("must be more than 0".to_owned()),
        size => Ok(size),
    }
}

/// What the command line says of memory: one command runs in a process.
static BUDGET: OnceLock<u64> = OnceLock::new();

/// What the options of this command were fitted to.
static FITTED: OnceLock<u64> = OnceLock::new();

/// Every time that there was too little memory.
static HALVED: Mutex<Vec<Halved>> = Mutex::new(Vec::new());

impl MemoryArguments {
    /// From now on [`options`] keep to it.
    pub(crate) fn apply(&self) {
        if let Some(budget) = self.memory_budget {
            let _ = BUDGET.set(budget);
        }
    }
}

/// The options that every analysis of a command begins with, for prompts of `pos` tokens: as much at once as there is memory for.
pub(crate) fn options<B: Backend>(model: &Transformer<B>, pos: usize) -> Options<'static> {
    let free = rewire_tensor::memory::<B>(&model.device()).map(|memory| memory.free);
    let budget = [BUDGET.get().copied(), free].into_iter().flatten().min();
    if let Some(budget) = budget {
        let enough = MemoryEstimate::new(model.config(), pos, model.precision()).enough();
        FITTED.get_or_init(|| budget.min(enough));
    }
    Options { notice: &note, ..Options::default() }.fitted(model, pos, budget)
}

fn note(halved: &Halved) {
    say(&halved.to_string());
    HALVED.lock().unwrap_or_else(PoisonError::into_inner).push(halved.clone());
}

/// What the device failed with, if that is what is wrong: then nothing more can be computed in this process.
pub(crate) fn fault(error: &anyhow::Error) -> Option<&Fault> {
    error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(AnalysisError::Device(fault)) => Some(fault),
        _ => cause.downcast_ref::<Fault>(),
    })
}

/// Set in a process that begins a command again: what is said of it.
const AGAIN: &str = "REWIRE_BEGUN_AGAIN";

/// How often a command is begun again.
const MOST_TIMES: usize = 4;

/// Where `error` is that a device's memory ran out: does the whole command again in a new process with half of the memory that this one
/// meant to take, and gives its exit code. A process whose device failed cannot go on: the backend is left with work half done.
pub(crate) fn again_with_half(error: &anyhow::Error) -> Option<ExitCode> {
    let fault = fault(error)?;
    if !matches!(fault, Fault::OutOfMemory(_)) {
        return None;
    }
    let said = std::env::var(AGAIN).unwrap_or_default();
    let times = said.lines().count();
    let budget = FITTED.get().filter(|_| times < MOST_TIMES)? / 2;
    let line = format!("{fault}: begun again with {} of memory", ByteSize(budget));
    say(&line);
    let given: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut command = Command::new(std::env::current_exe().ok()?);
    command
        .args(without(&given, &["--memory-budget"]))
        .args(["--memory-budget", &format!("{budget}B")])
        .env(AGAIN, format!("{said}{line}\n"));
    // In place of this process where that can be had: what it holds on the device goes with it.
    #[cfg(unix)]
    let status: std::io::Result<std::process::ExitStatus> = Err(std::os::unix::process::CommandExt::exec(&mut command));
    #[cfg(not(unix))]
    let status = command.status();
    let code = status.ok()?.code().and_then(|code| u8::try_from(code).ok());
    Some(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Whether this process begins a command again that had too little memory.
pub(crate) fn is_begun_again() -> bool {
    std::env::var_os(AGAIN).is_some()
}

/// Arguments without some flags and their values.
pub(crate) fn without(arguments: &[OsString], flags: &[&str]) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        let (name, with_value) = text.split_once('=').map_or((text.as_ref(), false), |(name, _)| (name, true));
        match flags.contains(&name) {
            true if !with_value => {
                arguments.next();
            }
            true => {}
            false => kept.push(argument.clone()),
        }
    }
    kept
}

/// What there is to say of too little memory: how often the command was begun again, and what [`options`] were told.
pub(crate) fn halved() -> Vec<String> {
    let again = std::env::var(AGAIN).unwrap_or_default();
    let again = again.lines().map(str::to_owned);
    again.chain(noted()).collect()
}

fn noted() -> Vec<String> {
    HALVED.lock().unwrap_or_else(PoisonError::into_inner).iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{size, without};

    #[test]
    fn flags_go_with_their_values() {
        let given = ["bench", "--sizes", "tiny", "--device=cuda", "--works=heads", "--pairs", "4"].map(OsString::from);
        assert_eq!(without(&given, &["--sizes", "--works"]), ["bench", "--device=cuda", "--pairs", "4"]);
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("8GiB"), Ok(8 << 30));
        assert_eq!(size("512 MB"), Ok(512_000_000));
        assert!(size("0").is_err() && size("much").unwrap_err().contains("8GiB"));
    }
}
