//! The output directory: one run takes it and writes its results there.

use std::path::Path;

use clap::Args;
use rewire_store::{OutputDirectory, StoreError, Waiting};

use super::printing::say;

/// The words of this command line after the program; bytes that are not UTF-8 are replaced.
pub(crate) fn command() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Whether a command waits for another run that holds its output directory.
#[derive(Args)]
pub struct WaitArguments {
    /// Wait while another run is writing to --out, instead of refusing.
    #[arg(long)]
    wait: bool,
}

impl WaitArguments {
    /// Takes the output directory for this run, which will write files of these names.
    pub fn take(&self, out: &Path, results: &[&str]) -> Result<OutputDirectory, StoreError> {
        let tell =
            |holder: &str| say(&format!("waiting for another run that is writing to {} ({holder})", out.display()));
        let waiting = if self.wait { Waiting::Wait(&tell) } else { Waiting::Refuse };
        let taken = OutputDirectory::take(out, results, &command().join(" "), waiting)?;
        taken.notices().iter().for_each(|notice| say(notice));
        Ok(taken)
    }
}
