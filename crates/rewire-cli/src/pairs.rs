//! `rewire pairs`: check a file of prompt pairs, or convert it to JSON Lines, without running a
//! model.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use rewire_report::names::{counted, printable};
use rewire_tasks::{AnswerTokens, PairsFile, PromptPair, Tokenizer};
use serde_json::json;

use crate::arguments::at_least_one;
use crate::headings::OUTPUT;
use crate::model::{ModelArguments, Source};
use crate::output::{print, say};
use crate::pairs_file::PairsArguments;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Show each pair as tokens and where its prompts differ, or list the pairs that cannot be
    /// used.
    Check {
        /// File of prompt pairs.
        file: PathBuf,
        #[command(flatten)]
        reading: PairsArguments,
        #[command(flatten)]
        model: ModelArguments,
        /// Number of pairs to show.
        #[arg(long, default_value_t = 10, value_parser = at_least_one, value_name = "N", help_heading = OUTPUT)]
        show: usize,
    },
    /// Write a file of prompt pairs as JSON Lines with token ids.
    Convert {
        /// File of prompt pairs.
        file: PathBuf,
        #[command(flatten)]
        reading: PairsArguments,
        #[command(flatten)]
        model: ModelArguments,
        /// File to write, or - for standard output.
        #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
        out: PathBuf,
        /// Replace the file if it exists.
        #[arg(long, help_heading = OUTPUT)]
        force: bool,
    },
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.job {
        Job::Check { file, reading, model, show } => {
            let source = Source::open(model)?;
            let found = reading.read(file, &source, AnswerTokens::Single)?;
            found.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
            print(&shown(&found, source.tokenizer.as_ref(), *show))
        }
        Job::Convert { file, reading, model, out, force } => {
            let source = Source::open(model)?;
            anyhow::ensure!(
                reading.answers(AnswerTokens::Single) != AnswerTokens::Whole,
                "JSON Lines with token ids have answers of one token; remove --answers whole"
            );
            let found = reading.read(file, &source, AnswerTokens::Single)?;
            found.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
            if out.as_os_str() == "-" {
                return print(&rows(&found));
            }
            check_replaceable(out, *force)?;
            write(&rows(&found), out)?;
            print(&format!("{} written to {}\n", counted(found.pairs.len(), "pair"), out.display()))
        }
    }
}

/// The pairs as text: tokens, answers, and where the prompts differ.
fn shown(found: &PairsFile, tokenizer: Option<&Tokenizer>, show: usize) -> String {
    let pairs = &found.pairs;
    let name = |token: u32| tokenizer.map_or_else(|| token.to_string(), |tokenizer| tokenizer.decode(&[token]));
    let tokens = |tokens: &[u32]| tokens.iter().map(|&token| name(token)).collect::<Vec<_>>().join("|");
    let mut text = format!("{} from {}\n", counted(pairs.len(), "pair"), found.format);
    for (number, pair) in pairs.pairs().iter().enumerate().take(show) {
        let PromptPair { clean, corrupted, answers, wrong_answers } = pair;
        let differing: Vec<String> = clean
            .iter()
            .zip(corrupted)
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .map(|(at, (a, b))| format!("{at} ({:?} and {:?})", name(*a), name(*b)))
            .collect();
        text += &format!("\npair {number}, {}\n", counted(clean.len(), "token"));
        text +=
            &format!("  clean      {}\n  corrupted  {}\n", printable(&tokens(clean)), printable(&tokens(corrupted)));
        let wrong =
            if wrong_answers.is_empty() { String::new() } else { format!(", wrong {:?}", tokens(wrong_answers)) };
        text += &format!("  answers    {:?}{wrong}\n", tokens(answers));
        if pairs.begun(number) > 0 {
            let begun = counted(pairs.begun(number), "token");
            text += &format!("  the prompts end in the first {begun} of the answer; its last token is shown above\n");
        }
        text += &match differing.as_slice() {
            [] => "  the prompts are the same: patching changes nothing\n".to_owned(),
            positions => format!("  they differ at {}\n", positions.join(", ")),
        };
        if let Some(marks) = pairs.marked_positions() {
            text += &format!("  marked     position {} ({:?})\n", marks[number], name(clean[marks[number]]));
        }
    }
    if pairs.len() > show {
        text += &format!("\nand {} more (--show {} shows all)\n", pairs.len() - show, pairs.len());
    }
    text
}

/// Returns the pairs as JSON Lines with token ids.
fn rows(found: &PairsFile) -> String {
    let mut text = String::new();
    for (number, pair) in found.pairs.pairs().iter().enumerate() {
        let PromptPair { clean, corrupted, answers, wrong_answers } = pair;
        let mut row = json!({
            "clean": clean, "corrupt": corrupted, "answers": answers, "wrong_answers": wrong_answers,
        });
        if let Some(marks) = found.pairs.marked_positions() {
            row["position"] = json!(marks[number]);
        }
        text += &format!("{row}\n");
    }
    text
}

/// Refuses to replace anything but a regular file, such as a device, and a file without `force`.
pub(crate) fn check_replaceable(out: &Path, force: bool) -> anyhow::Result<()> {
    let Ok(found) = std::fs::symlink_metadata(out) else { return Ok(()) };
    anyhow::ensure!(found.is_file(), "{} is not a regular file; choose another --out", out.display());
    anyhow::ensure!(force, "{} exists; give --force to replace it", out.display());
    Ok(())
}

/// Writes text to a temporary file that is renamed.
pub(crate) fn write(text: &str, out: &Path) -> anyhow::Result<()> {
    let directory = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    anyhow::ensure!(directory.is_dir(), "cannot write {}: {} is no directory", out.display(), directory.display());
    let failed = || format!("cannot write {}", out.display());
    let mut builder = tempfile::Builder::new();
    // The permissions that the user's settings give any new file, and not those of a secret.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(directory).with_context(failed)?;
    file.write_all(text.as_bytes()).with_context(failed)?;
    let file = file.persist(out).map_err(|error| error.error).with_context(failed)?;
    file.sync_all().with_context(failed)
}
