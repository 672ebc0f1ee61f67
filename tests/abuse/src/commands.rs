//! The commands under test. Each takes a second or two.

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use crate::program::Program;

/// A command line without its output directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    arguments: &'static [&'static str],
    /// The subdirectory of the output directory that holds the files.
    below: &'static str,
}

const fn line(name: &'static str, arguments: &'static [&'static str]) -> Line {
    Line { name, arguments, below: "" }
}

/// Sweeps, which keep a record.
pub(crate) const SWEEPS: [Line; 6] = [
    line("sweep", &["sweep", "--pairs", "pairs.jsonl", "--nodes", "mlp_post,head_k", "--by", "position"]),
    line(
        "attribution",
        &["sweep", "--pairs", "pairs.jsonl", "--nodes", "mlp_post", "--method", "attribution-patching"],
    ),
    line("integral", &["sweep", "--pairs", "pairs.jsonl", "--nodes", "head_z", "--method", "integrated-gradients"]),
    line(
        "paths",
        &[
            "sweep",
            "--pairs",
            "pairs.jsonl",
            "--nodes",
            "head_z",
            "--method",
            "path-patching",
            "--receivers",
            "resid_post:3",
        ],
    ),
    line("ablation", &["sweep", "--pairs", "pairs.jsonl", "--nodes", "mlp_post", "--method", "ablation"]),
    line(
        "neox",
        &["sweep", "--pairs", "pairs.jsonl", "--model", "toy-neox", "--nodes", "head_q,head_v", "--by", "position"],
    ),
];

/// The same sweep with another metric, for runs that must not be mixed.
pub(crate) const OTHER_METRIC: Line = line(
    "other metric",
    &["sweep", "--pairs", "pairs.jsonl", "--nodes", "mlp_post,head_k", "--by", "position", "--metric", "probability"],
);

/// Commands without a record.
pub(crate) const OTHERS: [Line; 5] = [
    line("reproduce-ioi", &["reproduce-ioi", "--prompts", "4"]),
    line("reproduce-ig", &["reproduce-ig", "--prompts", "10", "--generated-pairs", "4"]),
    line(
        "reproduce-pythia",
        &["reproduce-pythia", "--prompts", "3", "--choose-prompts", "10", "--judge-prompts", "10"],
    ),
    line("reproduce-facts", &["reproduce-facts"]),
    Line {
        name: "train-toy",
        arguments: &["train-toy", "--model", "toy-neox", "--steps", "30", "--force"],
        below: "toy-neox",
    },
];

/// Returns every long command, starting with one of each kind.
pub(crate) fn all() -> impl Iterator<Item = Line> {
    let [sweep, sweeps @ ..] = SWEEPS;
    let [ioi, ig, pythia, facts, train] = OTHERS;
    [sweep, ioi, train].into_iter().chain(sweeps).chain([ig, pythia, facts])
}

/// Returns every command that can be divided into shards.
pub(crate) fn divisible() -> Vec<Line> {
    let [ioi, ig, _, facts, _] = OTHERS;
    SWEEPS.into_iter().chain([ioi, ig, facts]).collect()
}

impl Line {
    /// Returns the whole command line.
    pub(crate) fn arguments_to<'a>(&'a self, out: &'a str) -> Vec<&'a str> {
        self.arguments.iter().copied().chain(["--out", out]).collect()
    }

    /// Returns the whole command line. It replaces the results of another command, if there are
    /// any.
    pub(crate) fn replacing<'a>(&'a self, out: &'a str) -> Vec<&'a str> {
        let force = if self.name == "train-toy" { &[][..] } else { &["--force"] };
        self.arguments_to(out).into_iter().chain(force.iter().copied()).collect()
    }

    /// Returns the directory that holds its files.
    pub(crate) fn files(&self, out: &Path) -> std::path::PathBuf {
        if self.below.is_empty() { out.to_owned() } else { out.join(self.below) }
    }
}

/// Writes `pairs.jsonl` for the sweeps.
pub(crate) fn write_pairs(directory: &Path) -> anyhow::Result<()> {
    let mut lines = String::new();
    for (io, s, place) in [("Mary", "John", "shops"), ("John", "Mary", "park"), ("Tom", "James", "shops")] {
        for (clean, other) in [(s, io), (io, s)] {
            let prompt = |giver: &str| format!("When {io} and {s} went to the {place}, {giver} gave the bag to");
            let pair = serde_json::json!({
                "clean": prompt(clean), "corrupt": prompt(other), "answers": [format!(" {other}")],
                "wrong_answers": [format!(" {clean}")],
            });
            lines += &format!("{pair}\n");
        }
    }
    Ok(std::fs::write(directory.join("pairs.jsonl"), lines)?)
}

/// Draws a number from 0 up to but not including `n`.
pub(crate) fn below(random: &mut ChaCha8Rng, n: usize) -> usize {
    (random.next_u64() % n.max(1) as u64) as usize
}

/// Draws a share from 0 up to 1.
pub(crate) fn share(random: &mut ChaCha8Rng) -> f64 {
    random.next_u32() as f64 / f64::from(u32::MAX)
}

/// Starts a command into `out` and returns the process.
pub(crate) fn start(program: &Program, directory: &Path, line: Line, out: &str) -> anyhow::Result<std::process::Child> {
    program.start(directory, &line.arguments_to(out))
}
