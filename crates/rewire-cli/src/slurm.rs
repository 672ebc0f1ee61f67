//! The command `rewire slurm`: writes the scripts of a command in shards for Slurm, and submits
//! them.

mod script;

use std::path::PathBuf;
use std::process::Command as Process;

use anyhow::{Context, bail, ensure};
use bytesize::ByteSize;
use clap::{Args, Parser};
use rewire_report::names::counted;

use crate::arguments::at_least_one;
use crate::headings::{COMPUTE, SHARDS as SHARDS_HEADING};
use crate::interrupt::Interrupts;
use crate::output::print;
use crate::{Command, shards, sweep};
pub(crate) use script::SHARDS;
use script::{MERGE, Scripts, hours};

/// Name of the folder of the scripts and logs in the output directory.
pub(crate) const FOLDER: &str = "slurm";
/// Name of the script that submits the jobs.
const SUBMIT: &str = "submit.sh";

/// Shortest time limit in seconds. Starting a job and reading a model from a slow disk take time.
const SHORTEST: f64 = 600.0;
/// The time limit over the predicted time.
const MARGIN: f64 = 2.0;
/// The memory limit over the predicted memory.
const MEMORY_MARGIN: f64 = 1.25;

#[derive(Args)]
pub struct Arguments {
    /// Number of shards: tasks of the job array.
    #[arg(long, value_parser = at_least_one, value_name = "N", help_heading = SHARDS_HEADING)]
    shards: usize,
    /// Cores of each task.
    #[arg(long, default_value_t = 4, value_parser = at_least_one, value_name = "N", help_heading = COMPUTE)]
    cpus: usize,
    /// Give each task a GPU (--gpus-per-task=1).
    #[arg(long, help_heading = COMPUTE)]
    gpu: bool,
    /// Memory of each task, such as 16GiB [default: 1.25 times the predicted memory].
    #[arg(long, value_name = "SIZE", value_parser = crate::compute::size, help_heading = COMPUTE)]
    memory: Option<u64>,
    /// Time limit of each task in minutes [default: twice the predicted time].
    ///
    /// The prediction measures this machine. With --memory and --time, nothing is predicted and the
    /// model is not loaded.
    #[arg(long, value_name = "MINUTES", value_parser = at_least_one, help_heading = COMPUTE)]
    time: Option<usize>,
    /// Further option of sbatch, such as --sbatch=--partition=cpu. Can be repeated.
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true, help_heading = SHARDS_HEADING)]
    sbatch: Vec<String>,
    /// Submit the jobs.
    #[arg(long, help_heading = SHARDS_HEADING)]
    submit: bool,
    /// The command, after `--`: sweep --pairs FILE .., reproduce-ioi, reproduce-ig or
    /// reproduce-facts.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    let parsed =
        crate::Arguments::try_parse_from(["rewire"].into_iter().chain(arguments.command.iter().map(String::as_str)));
    let parsed = match parsed {
        Ok(crate::Arguments { command }) => command,
        Err(error) => bail!("the command after -- is refused: {}", error.render().to_string().trim_end()),
    };
    let (to, shard) = shards::of(&parsed)?;
    ensure!(shard.is_none(), "the scripts choose the shard of each task; remove --shard from the command");
    let Limits { memory, minutes, predicted } = limits(arguments, &parsed, interrupts)?;
    let directory = std::env::current_dir().context("cannot find the working directory")?;
    let out = directory.join(to);
    let scripts = Scripts {
        program: std::env::current_exe().context("cannot find the program rewire")?,
        directory,
        out: to.to_owned(),
        folder: out.join(FOLDER),
        command: arguments.command.clone(),
        shards: arguments.shards,
        cpus: arguments.cpus,
        gpu: arguments.gpu,
        memory,
        minutes,
        options: arguments.sbatch.clone(),
    };
    let submit = write(&scripts)?;
    print(&format!("{predicted}{}", scripts.summary(&submit)))?;
    if arguments.submit {
        let status = Process::new("sh").arg(&submit).status().context("cannot run sh")?;
        ensure!(status.success(), "the jobs could not be submitted; {} says why above", submit.display());
    }
    Ok(())
}

/// The limits of each task, and the prediction in words if there is one.
struct Limits {
    memory: u64,
    minutes: usize,
    predicted: String,
}

/// Returns the given limits, and predicted ones in place of those that are not given.
fn limits(arguments: &Arguments, command: &Command, interrupts: &Interrupts) -> anyhow::Result<Limits> {
    if let (Some(memory), Some(minutes)) = (arguments.memory, arguments.time) {
        return Ok(Limits { memory, minutes, predicted: String::new() });
    }
    let Command::Sweep(sweep) = command else {
        bail!(
            "only the memory and time of a sweep are predicted; give --memory and --time, which also hold for the merge"
        );
    };
    let found = sweep::predict(sweep, arguments.shards, arguments.cpus, interrupts)?;
    let limit = ((found.seconds * MARGIN).max(SHORTEST) / 60.0).ceil() as usize;
    let predicted = format!(
        "{} passes in {}; predicted: {} and {} for the longest shard, {:.0}% above the mean\n",
        found.passes,
        counted(arguments.shards, "shard"),
        hours(found.seconds),
        ByteSize(found.memory),
        100.0 * (found.spread - 1.0)
    );
    let room = (found.memory as f64 * MEMORY_MARGIN) as u64;
    let (memory, minutes) = (arguments.memory.unwrap_or(room), arguments.time.unwrap_or(limit));
    Ok(Limits { memory, minutes, predicted })
}

/// Writes the scripts; returns the path of the one that submits the jobs.
fn write(scripts: &Scripts) -> anyhow::Result<PathBuf> {
    let folder = &scripts.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, text) in [(SHARDS, scripts.shards()), (MERGE, scripts.merge()), (SUBMIT, scripts.submit())] {
        let path = folder.join(name);
        std::fs::write(&path, text?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(folder.join(SUBMIT))
}
