//! Runs the program under test as a process.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// A command that runs longer than this counts as hanging.
const LONGEST: Duration = Duration::from_secs(300);

/// Exit code for a bug in rewire.
const FAULT: i32 = 3;

/// The program under test.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
}

/// The exit code and output of a process.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

impl Program {
    /// Returns the program at `path`.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        let path = path.canonicalize().with_context(|| format!("there is no program {}", path.display()))?;
        Ok(Self { path })
    }

    /// Returns the `xtask` that cargo built next to the running test or program.
    ///
    /// # Errors
    /// If it is not built.
    pub fn beside_this() -> anyhow::Result<Self> {
        let this = std::env::current_exe()?;
        let name = format!("xtask{}", std::env::consts::EXE_SUFFIX);
        let found = this.ancestors().skip(1).take(2).map(|directory| directory.join(&name)).find(|path| path.exists());
        Self::new(&found.context("build the program first: cargo build --workspace")?)
    }

    /// Returns the command line in `directory`, not started yet.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, directory: &Path, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments).current_dir(directory).stdin(Stdio::null());
        command
    }

    /// Returns the program's path, for wrappers that start it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts the program and captures its output.
    pub(crate) fn start<S: AsRef<OsStr>>(&self, directory: &Path, arguments: &[S]) -> anyhow::Result<Child> {
        let mut command = self.command(directory, arguments);
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Runs the program to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, directory: &Path, arguments: &[S]) -> anyhow::Result<Ended> {
        ended(self.start(directory, arguments)?)
    }

    /// Runs the program and returns its output; any exit code except 0 is an error.
    pub(crate) fn succeed<S: AsRef<OsStr>>(&self, directory: &Path, arguments: &[S]) -> anyhow::Result<Ended> {
        let ended = self.run(directory, arguments)?;
        let line: Vec<OsString> = arguments.iter().map(|a| a.as_ref().to_owned()).collect();
        ensure!(ended.code == Some(0), "{line:?} ended with {:?}: {}", ended.code, ended.stderr);
        Ok(ended)
    }
}

/// Waits for a process; returns an error if it hangs or has a bug.
pub(crate) fn ended(child: Child) -> anyhow::Result<Ended> {
    let id = child.id();
    // Another thread reads the output, so that a hanging process can be abandoned.
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    let Ok(output) = receive.recv_timeout(LONGEST) else {
        kill(id);
        bail!("a command was still running after {LONGEST:?}");
    };
    checked(&output?)
}

/// Returns an error if the program reports a bug in itself.
pub(crate) fn checked(output: &Output) -> anyhow::Result<Ended> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ended = Ended { code: output.status.code(), stderr: text(&output.stderr) };
    let is_fault = ended.code == Some(FAULT) || ended.code == Some(101) || ended.stderr.contains("panicked at");
    ensure!(!is_fault, "a panic: exit code {:?}, {}", ended.code, ended.stderr);
    Ok(ended)
}

/// Kills a process with SIGKILL, which it cannot catch, after `delay`; returns whether it was still
/// running.
pub(crate) fn kill_after(mut child: Child, delay: Duration) -> anyhow::Result<bool> {
    let start = Instant::now();
    while start.elapsed() < delay {
        if child.try_wait()?.is_some() {
            checked(&child.wait_with_output()?)?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    child.kill()?;
    let ended = child.wait_with_output()?;
    Ok(ended.status.code().is_none())
}

/// Asks a process to end with SIGTERM after `delay`, as a scheduler does, and waits for its end.
pub(crate) fn terminate_after(mut child: Child, delay: Duration) -> anyhow::Result<Ended> {
    let start = Instant::now();
    while start.elapsed() < delay && child.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_micros(500));
    }
    if child.try_wait()?.is_none() {
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().context("no program `kill`")?;
    }
    ended(child)
}

fn kill(id: u32) {
    // The result does not matter, because the trial has already failed.
    let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
}
