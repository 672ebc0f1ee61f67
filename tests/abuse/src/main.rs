//! Runs trials for a given time: `cargo xtask soak`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rewire_abuse::{Program, Trials};

/// Abuse rewire's commands at random and count the trials that pass.
#[derive(Parser)]
struct Arguments {
    /// Minutes to run.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Seed of every random choice.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The program under test [default: the xtask beside this program].
    #[arg(long)]
    program: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let program = match &arguments.program {
        Some(path) => Program::new(path)?,
        None => Program::beside_this()?,
    };
    let time = Duration::try_from_secs_f64(arguments.minutes * 60.0)?;
    let counts = Trials::new(program, arguments.seed).run_for(time, |counts| println!("so far:\n{counts}"));
    println!("seed {}, {} minutes:\n{counts}", arguments.seed, arguments.minutes);
    Ok(if counts.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
