//! `rewire pairs`: check a file of prompt pairs, or convert it to JSON Lines, without running a
//! model.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use rewire_report::names::counted;
use rewire_tasks::{PairsFile, PromptPair, Tokenizer};
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
        /// File to write.
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
            let found = reading.read(file, &source)?;
            found.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
            print(&shown(&found, source.tokenizer.as_ref(), *show))
        }
        Job::Convert { file, reading, model, out, force } => {
            let source = Source::open(model)?;
            let found = reading.read(file, &source)?;
            found.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
            anyhow::ensure!(*force || !out.exists(), "{} exists; give --force to replace it", out.display());
            write(&found, out)?;
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
        text += &format!(
            "  clean      {}\n  corrupted  {}\n",
            tokens(clean).escape_debug(),
            tokens(corrupted).escape_debug()
        );
        text += &format!("  answers    {:?}, wrong {:?}\n", tokens(answers), tokens(wrong_answers));
        text += &match differing.as_slice() {
            [] => "  the prompts are the same: every effect will be 0\n".to_owned(),
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

/// Writes the pairs as token ids, to a temporary file that is renamed.
fn write(found: &PairsFile, out: &std::path::Path) -> anyhow::Result<()> {
    let directory = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let failed = || format!("cannot write {}", out.display());
    let file = tempfile::NamedTempFile::new_in(directory).with_context(failed)?;
    let mut writer = BufWriter::new(file);
    for (number, pair) in found.pairs.pairs().iter().enumerate() {
        let PromptPair { clean, corrupted, answers, wrong_answers } = pair;
        let mut row = json!({
            "clean": clean, "corrupt": corrupted, "answers": answers, "wrong_answers": wrong_answers,
        });
        if let Some(marks) = found.pairs.marked_positions() {
            row["position"] = json!(marks[number]);
        }
        writeln!(writer, "{row}").with_context(failed)?;
    }
    let file = writer.into_inner().map_err(|error| error.into_error()).with_context(failed)?;
    let file: File = file.persist(out).map_err(|error| error.error).with_context(failed)?;
    file.sync_all().with_context(failed)
}
