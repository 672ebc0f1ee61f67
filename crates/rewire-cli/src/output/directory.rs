//! The output directory. One run locks it and writes its results there.

use std::path::Path;

use clap::Args;
use rewire_store::{OutputDirectory, StoreError, Waiting};

use super::printing::say;

/// Returns the arguments of this command line, without the program. Replaces bytes that are not
/// UTF-8.
pub(crate) fn command() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The choice of whether a command waits for another run that writes to its output directory.
#[derive(Args)]
pub struct WaitArguments {
    /// Wait until another run has finished writing to --out, instead of failing.
    #[arg(long)]
    wait: bool,
}

impl WaitArguments {
    /// Locks the output directory for this run, which will write files with the names `results`.
    ///
    /// # Errors
    /// If another run is writing there and `--wait` is not given, or the directory cannot be used.
    pub fn take(&self, out: &Path, results: &[&str]) -> Result<OutputDirectory, StoreError> {
        let tell =
            |holder: &str| say(&format!("waiting for another run that is writing to {} ({holder})", out.display()));
        let waiting = if self.wait { Waiting::Wait(&tell) } else { Waiting::Refuse };
        let taken = OutputDirectory::take(out, results, &command().join(" "), waiting)?;
        taken.notices().iter().for_each(|notice| say(notice));
        Ok(taken)
    }
}
