//! How many kernels each work launches on a GPU, counted in another process: counting slows what is timed.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::sizes::Size;
use super::works::Work;

/// Launches by the name of the work; none where they were not counted.
#[derive(Default)]
pub(crate) struct Launches(BTreeMap<String, u64>);

impl Launches {
    /// Runs this very command again, to count.
    pub(crate) fn of_another_process(size: Size, works: &[Work]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's own file")?;
        let names: Vec<String> = works.iter().map(|work| work.name()).collect();
        // What decides about passes is as given; of what else was asked for, the later word counts.
        let given: Vec<String> = std::env::args().skip(1).collect();
        let kept = without(&given, &["--sizes", "--works", "--python", "--peer-patches"]);
        let kept = kept.into_iter().filter(|argument| argument != "--peer");
        let output = Command::new(program)
            .args(kept)
            .args(["--sizes", &size.name(), "--works", &names.join(","), "--count-launches"])
            .stderr(Stdio::inherit())
            .output()
            .context("launches cannot be counted")?;
        if !output.status.success() {
            bail!("launches could not be counted: {}", output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let line = |line: &str| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        Ok(Self(text.lines().filter_map(line).collect()))
    }

    pub(crate) fn are_counted(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn of(&self, work: Work) -> Option<u64> {
        self.0.get(&work.name()).copied()
    }
}

/// Arguments without some flags and their values.
fn without(arguments: &[String], flags: &[&str]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let (name, with_value) = argument.split_once('=').map_or((argument.as_str(), false), |(name, _)| (name, true));
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

#[cfg(feature = "cuda")]
pub(crate) fn start_counting() -> anyhow::Result<()> {
    rewire_device::count_launches();
    Ok(())
}

#[cfg(feature = "cuda")]
pub(crate) fn so_far() -> u64 {
    rewire_device::launches()
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn start_counting() -> anyhow::Result<()> {
    bail!("only a GPU launches kernels, and this program was built without CUDA")
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn so_far() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn flags_go_with_their_values() {
        let given = ["bench", "--sizes", "tiny", "--device=cuda", "--works=heads", "--pairs", "4"].map(str::to_owned);
        assert_eq!(without(&given, &["--sizes", "--works"]), ["bench", "--device=cuda", "--pairs", "4"]);
    }
}
