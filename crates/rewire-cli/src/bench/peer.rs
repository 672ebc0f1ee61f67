//! Runs TransformerLens on the same weights and prompts, in a Python environment of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};

use super::sizes::Size;
use super::workloads::Work;
use crate::device::Device;
use crate::output::print;

const SCRIPT: &str = include_str!("peer.py");
/// The Python packages to install, in the versions that generated the parity fixtures.
const REQUIREMENTS: &str = include_str!("requirements.txt");

/// A running process with TransformerLens.
pub(crate) struct Peer {
    directory: PathBuf,
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The time and the results of a work on TransformerLens.
pub(crate) struct Answer {
    /// Mean seconds per patch.
    pub(crate) seconds_a_patch: f64,
    /// Results of every `stride`-th patch.
    pub(crate) results: Vec<f32>,
}

/// The part of the model that Rewire and TransformerLens share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// The weights. Times and results are compared.
    Weights,
    /// The shape only. Times are compared.
    Shape,
}

impl Sharing {
    /// Returns the part of the model that is shared for a size.
    pub(super) fn of(size: Size) -> Self {
        if size.is_shared() { Sharing::Weights } else { Sharing::Shape }
    }
}

impl Answer {
    /// Returns the largest absolute difference from `ours`, the results of all `nodes`. This answer
    /// has the results of every `stride`-th node. Returns 0 if the weights are not shared.
    ///
    /// # Errors
    /// If the numbers of results differ.
    pub(crate) fn difference(
        &self,
        ours: &[f32],
        nodes: usize,
        stride: usize,
        sharing: Sharing,
    ) -> anyhow::Result<f32> {
        if sharing == Sharing::Shape {
            return Ok(0.0);
        }
        let numbers = (ours.len() / nodes).max(1);
        let of_ours: Vec<f32> = ours.chunks(numbers).step_by(stride).flatten().copied().collect();
        let (ours, theirs) = (of_ours.len(), self.results.len());
        anyhow::ensure!(ours == theirs, "Rewire has {ours} results, TransformerLens has {theirs}");
        let pairs = of_ours.iter().zip(&self.results).map(|(a, b)| (a - b).abs());
        Ok(pairs.fold(0.0, |m, d| if d.is_nan() { f32::INFINITY } else { m.max(d) }))
    }
}

impl Peer {
    /// Starts TransformerLens on the model and prompts in `directory`.
    ///
    /// # Errors
    /// If the environment cannot be made, or TransformerLens does not start.
    pub(crate) fn start(
        python: Option<&Path>,
        directory: &Path,
        threads: usize,
        device: Device,
    ) -> anyhow::Result<Self> {
        let python = match python {
            Some(python) => python.to_owned(),
            None => environment()?,
        };
        let script = directory.join("peer.py");
        std::fs::write(&script, SCRIPT).with_context(|| format!("cannot write {}", script.display()))?;
        let mut child = Command::new(&python)
            .arg(&script)
            .args([directory.as_os_str(), threads.to_string().as_ref(), torch_device(device).as_ref()])
            .env("OMP_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot run {}", python.display()))?;
        let (Some(commands), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("cannot open the standard input and output of {}", python.display());
        };
        let mut peer = Self { directory: directory.to_owned(), child, commands, answers: BufReader::new(answers) };
        match peer.line()?.as_str() {
            "ready" => Ok(peer),
            other => bail!("TransformerLens did not start: {other}"),
        }
    }

    /// Runs every `stride`-th patch of a work.
    ///
    /// # Errors
    /// If TransformerLens fails or stops.
    pub(crate) fn run(&mut self, work: Work, stride: usize) -> anyhow::Result<Answer> {
        let out = self.directory.join("results.f32");
        writeln!(self.commands, "{} {stride} {}", work.name(), out.display()).context("TransformerLens has stopped")?;
        let line = self.line()?;
        if let Some(reason) = line.strip_prefix("failed ") {
            bail!("{reason}");
        }
        let seconds: f64 =
            line.split(' ').next().unwrap_or_default().parse().context("TransformerLens answered without a time")?;
        let bytes = std::fs::read(&out).with_context(|| format!("cannot read {}", out.display()))?;
        let results = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let patches: f64 = line
            .split(' ')
            .nth(1)
            .unwrap_or_default()
            .parse()
            .context("TransformerLens answered without a number of patches")?;
        Ok(Answer { seconds_a_patch: seconds / patches.max(1.0), results })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("TransformerLens has stopped; its output is above");
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns PyTorch's name of a device.
fn torch_device(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        _ => "cpu".to_owned(),
    }
}

/// Returns the Python of the environment in `target/peer`. Makes the environment if it does not
/// exist.
fn environment() -> anyhow::Result<PathBuf> {
    let root = Path::new("target/peer");
    let python = root.join("bin/python");
    let done = root.join("installed");
    if done.is_file() {
        return Ok(python);
    }
    print("installing TransformerLens into target/peer (about 3 GB, only once) ..\n")?;
    let run = |command: &mut Command| -> anyhow::Result<()> {
        let status = command.stdout(Stdio::null()).status().with_context(|| format!("cannot run {command:?}"))?;
        if status.success() { Ok(()) } else { bail!("{command:?} failed") }
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(root))?;
    let requirements = root.join("requirements.txt");
    std::fs::write(&requirements, REQUIREMENTS)?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&requirements))?;
    std::fs::write(&done, "")?;
    Ok(python)
}
