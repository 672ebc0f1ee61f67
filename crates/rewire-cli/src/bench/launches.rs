//! How many kernels each work launches on a GPU, counted in another process: counting slows what is timed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::sizes::Size;
use super::works::Work;
use crate::compute::without;
use crate::output::say;

/// Launches by the name of the work; none where they were not counted.
#[derive(Default)]
pub(crate) struct Launches(BTreeMap<String, u64>);

impl Launches {
    /// Runs this very command again, to count; none where that fails, which is told.
    pub(crate) fn of_another_process(size: Size, works: &[Work]) -> Self {
        count(size, works).unwrap_or_else(|error| {
            say(&format!("launches are not counted: {error:#}"));
            Self::default()
        })
    }

    pub(crate) fn of(&self, work: Work) -> Option<u64> {
        self.0.get(&work.name()).copied()
    }
}

fn count(size: Size, works: &[Work]) -> anyhow::Result<Launches> {
    let program = std::env::current_exe().context("this program's own file")?;
    let names: Vec<String> = works.iter().map(|work| work.name()).collect();
    // What decides about passes is as given; of what else was asked for, the later word counts.
    let given: Vec<OsString> = std::env::args_os().skip(1).collect();
    let kept = without(&given, &["--sizes", "--works", "--python", "--peer-patches"]);
    let kept = kept.into_iter().filter(|argument| argument != "--peer");
    let output = Command::new(program)
        .args(kept)
        .args(["--sizes", &size.name(), "--works", &names.join(","), "--count-launches"])
        .stderr(Stdio::inherit())
        .output()
        .context("launches cannot be counted")?;
    if !output.status.success() {
        bail!("{}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    Ok(Launches(text.lines().filter_map(line).collect()))
}

#[cfg(feature = "cuda")]
pub(crate) fn start_counting() -> anyhow::Result<()> {
    rewire_tensor::count_launches();
    Ok(())
}

#[cfg(feature = "cuda")]
pub(crate) fn so_far() -> u64 {
    rewire_tensor::launches()
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn start_counting() -> anyhow::Result<()> {
    bail!("only a GPU launches kernels, and this program was built without CUDA")
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn so_far() -> u64 {
    0
}
