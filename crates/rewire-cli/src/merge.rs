//! The command `rewire merge`: makes the results of a command from its shards.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Parser};
use rewire_store::{MissingShard, ShardHeader, Shards};

use crate::interrupt::Interrupts;
use crate::output::OutputArguments;
use crate::shards::choice::Part;
use crate::shards::merged;
use crate::{Command, reproduce_facts, reproduce_ig, reproduce_ioi, slurm, sweep};

/// Most unfinished shards that are named.
const SHOWN: usize = 20;

#[derive(Args)]
pub struct Arguments {
    /// Output directory of the shards: their --out.
    directory: PathBuf,
    #[command(flatten)]
    output: OutputArguments,
}

pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    let Arguments { directory, output } = arguments;
    let shards = Shards::read(directory)?;
    if !shards.missing().is_empty() {
        bail!(unfinished(directory, shards.missing(), shards.header()));
    }
    let ShardHeader { command, directory: ran_in, .. } = shards.header().clone();
    let parsed = crate::Arguments::try_parse_from(["rewire"].into_iter().chain(command.iter().map(String::as_str)));
    let Ok(crate::Arguments { command: parsed }) = parsed else {
        bail!("this version does not know the command of the shards in {}: {}", directory.display(), joined(&command));
    };
    merge(&parsed, output, directory, shards, interrupts)
        .with_context(|| format!("cannot merge {} (its shards ran in {ran_in})", directory.display()))
}

/// Merges the shards of a command.
fn merge(
    command: &Command,
    output: &OutputArguments,
    directory: &Path,
    shards: Shards,
    interrupts: &Interrupts,
) -> anyhow::Result<()> {
    match command {
        Command::Sweep(arguments) => {
            merged::merge(sweep::Prepared::read(arguments, interrupts)?, output, directory, shards, interrupts)
        }
        Command::ReproduceIoi(arguments) => {
            merged::merge(reproduce_ioi::Prepared::read(arguments, interrupts)?, output, directory, shards, interrupts)
        }
        Command::ReproduceIg(arguments) => {
            merged::merge(reproduce_ig::Prepared::read(arguments, interrupts)?, output, directory, shards, interrupts)
        }
        Command::ReproduceFacts(arguments) => merged::merge(
            reproduce_facts::Prepared::read(arguments, interrupts)?,
            output,
            directory,
            shards,
            interrupts,
        ),
        other => crate::shards::of(other).map(drop),
    }
}

/// Returns the error that names unfinished shards and the commands that compute them.
fn unfinished(directory: &Path, missing: &[MissingShard], header: &ShardHeader) -> String {
    let of = header.of;
    let mut text = format!("{} of {of} shards are not finished; run in {}:", missing.len(), header.directory);
    for MissingShard { number, kept } in missing.iter().take(SHOWN) {
        let command = [header.command.clone(), vec!["--shard".to_owned(), Part { number: *number, of }.to_string()]];
        let done = match kept {
            0 => String::new(),
            1 => "  # 1 pass is done".to_owned(),
            kept => format!("  # {kept} passes are done"),
        };
        text += &format!("\n  {}{done}", joined(&command.concat()));
    }
    if missing.len() > SHOWN {
        text += &format!("\n  and {} more", missing.len() - SHOWN);
    }
    let script = directory.join(slurm::FOLDER).join(slurm::SHARDS);
    if script.exists() {
        let numbers: Vec<String> = missing.iter().map(|shard| shard.number.to_string()).collect();
        text += &format!("\nor on Slurm: sbatch --array={} {}", numbers.join(","), script.display());
    }
    text
}

/// Returns a command line for a shell.
pub(crate) fn joined(command: &[String]) -> String {
    let words = ["rewire"].into_iter().chain(command.iter().map(String::as_str));
    // A word with a zero byte cannot be an argument of a process.
    shlex::try_join(words).unwrap_or_default()
}
