//! Runs the shell commands of README.md and the guide, on the embedded models.
//!
//! There, a block that begins with `sh` runs as it stands, in a folder that holds the repository's
//! docs. A block of `text` below it is its output, or the first lines of it before a line `..`.
//! Words and layout must be those of the real output; digits may differ, because they depend on the
//! machine. With the variable UPDATE_GUIDE, the test writes the real output into the page.
//!
//! Blocks on the pretrained model `smollm2` run only if `cargo xtask fetch-smollm2` has fetched it,
//! as in CI.
//!
//! Blocks that begin with `sh,ignore`, and those of other pages, are only parsed. They may need a
//! GPU, or minutes. `cargo xtask` runs the program `rewire`. Every other use of cargo does nothing.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;

use crate::shared::is_progress;

/// Writes its arguments to the file `$CALLS`, one a line, and an empty line. Then runs `$PROGRAM`
/// with them, if it is set.
const REWIRE: &str = r#"#!/bin/sh
{ printf '%s\n' "$@"; printf '\n'; } >> "$CALLS"
[ -z "$PROGRAM" ] || exec "$PROGRAM" "$@"
"#;

/// Runs `rewire` for `cargo xtask ..` and `cargo run .. -- ..`.
const CARGO: &str = r#"#!/bin/sh
case "$1" in
  xtask) shift; exec rewire "$@" ;;
  run)
    while [ "$#" -gt 0 ] && [ "$1" != -- ]; do shift; done
    [ "$#" -gt 0 ] || exit 0
    shift
    exec rewire "$@" ;;
esac
"#;

/// The commands of `cargo xtask` that `rewire` does not have.
const FOR_DEVELOPERS: [&str; 6] = ["ci", "fetch-smollm2", "fixtures", "fuzz", "soak", "train-toy"];

/// The name of the pretrained model, which is not part of the program.
const PRETRAINED: &str = "smollm2";

/// The last line of an excerpt that does not show the whole output.
const CUT: &str = "..";

/// A block of shell commands.
struct Block {
    /// The page and the line, for messages.
    place: String,
    commands: String,
    ignored: bool,
    /// The lines of the page that show the output.
    output: Option<Range<usize>>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Returns the pages in a folder of docs, in alphabetical order.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    pages.sort();
    pages
}

/// Returns the blocks of code of a page: the language and the lines of each.
fn fences<'a>(lines: &[&'a str]) -> Vec<(&'a str, Range<usize>)> {
    let fences: Vec<usize> = (0..lines.len()).filter(|&i| lines[i].starts_with("```")).collect();
    fences.chunks_exact(2).map(|ends| (&lines[ends[0]][3..], ends[0] + 1..ends[1])).collect()
}

/// Returns the shell blocks of a page.
fn blocks(page: &Path, text: &str) -> Vec<Block> {
    let lines: Vec<&str> = text.lines().collect();
    let fences = fences(&lines);
    let mut blocks = Vec::new();
    for (i, (language, range)) in fences.iter().enumerate() {
        if !["sh", "sh,ignore"].contains(language) {
            continue;
        }
        let below = fences.get(i + 1).filter(|(language, below)| {
            *language == "text" && lines[range.end + 1..below.start - 1].iter().all(|line| line.is_empty())
        });
        blocks.push(Block {
            place: format!("{}, line {}", page.display(), range.start + 1),
            commands: lines[range.clone()].join("\n"),
            ignored: language.ends_with("ignore"),
            output: below.map(|(_, range)| range.clone()),
        });
    }
    blocks
}

/// A folder with the scripts `rewire` and `cargo`.
fn scripts(folder: &Path) -> PathBuf {
    let scripts = folder.join("scripts");
    fs::create_dir(&scripts).unwrap();
    for (name, text) in [("rewire", REWIRE), ("cargo", CARGO)] {
        let path = scripts.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    scripts
}

/// Returns a shell that will run commands in a folder. The commands find only the scripts.
fn shell(commands: &str, folder: &Path, scripts: &Path) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", commands]).current_dir(folder).env("PATH", scripts).env("CALLS", folder.join("calls"));
    shell
}

/// Returns the calls of `rewire` since the last time, each with its arguments.
fn calls(folder: &Path) -> Vec<Vec<String>> {
    let file = folder.join("calls");
    let text = fs::read_to_string(&file).unwrap_or_default();
    let _ = fs::remove_file(&file);
    text.split_terminator("\n\n").map(|call| call.lines().map(str::to_owned).collect()).collect()
}

/// A line without what depends on the machine: digits, signs, stars and the width of columns.
fn form(line: &str) -> String {
    let kept: String = line.chars().filter(|c| !c.is_ascii_digit() && !"+-*.".contains(*c)).collect();
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the lines of an output that an excerpt should have.
fn excerpt(shown: &[&str], output: &str) -> Vec<String> {
    let output = output.trim_end().lines().map(str::to_owned);
    match shown.last() {
        Some(&CUT) => output.take(shown.len() - 1).chain([CUT.to_owned()]).collect(),
        _ => output.collect(),
    }
}

/// Runs the blocks of a page and compares their outputs with those on the page. Returns the number
/// of calls of `rewire`, and the page with the real outputs.
fn run(page: &Path, text: &str, faults: &mut Vec<String>) -> (usize, String) {
    let folder = tempfile::tempdir().unwrap();
    let scripts = scripts(folder.path());
    symlink(root().join("docs"), folder.path().join("docs")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let (mut updated, mut copied) = (Vec::new(), 0);
    let is_fetched = rewire_model::packaged_directory(PRETRAINED).is_ok();
    let runs = |block: &&Block| !block.ignored && (is_fetched || !block.commands.contains(PRETRAINED));
    for block in blocks(page, text).iter().filter(runs) {
        let output = shell(&format!("set -e\nexec 2>&1\n{}", block.commands), folder.path(), &scripts)
            .env("PATH", format!("{}:/usr/bin:/bin", scripts.display()))
            .env("PROGRAM", env!("CARGO_BIN_EXE_rewire"))
            .output()
            .unwrap();
        // A slow machine reports progress.
        let printed = String::from_utf8_lossy(&output.stdout);
        let printed = printed.lines().filter(|line| !is_progress(line)).collect::<Vec<_>>().join("\n");
        assert!(output.status.success(), "{}: {printed}", block.place);
        let Some(range) = &block.output else { continue };
        let shown = &lines[range.clone()];
        let real = excerpt(shown, &printed);
        if !shown.iter().map(|line| form(line)).eq(real.iter().map(|line| form(line))) {
            faults.push(format!("{}: the page shows\n{}\nand the output is\n{printed}", block.place, shown.join("\n")));
        }
        updated.extend(lines[copied..range.start].iter().map(|line| (*line).to_owned()));
        updated.extend(real);
        copied = range.end;
    }
    updated.extend(lines[copied..].iter().map(|line| (*line).to_owned()));
    (calls(folder.path()).len(), updated.join("\n") + "\n")
}

#[test]
fn the_commands_of_the_guide_run_and_print_what_it_shows() {
    let (mut ran, mut faults) = (0, Vec::new());
    for page in [vec![root().join("README.md")], pages(&root().join("docs/guide"))].concat() {
        let text = fs::read_to_string(&page).unwrap();
        let (calls, updated) = run(&page, &text, &mut faults);
        ran += calls;
        if std::env::var_os("UPDATE_GUIDE").is_some() && updated != text {
            fs::write(&page, updated).unwrap();
        }
    }
    let hint = "UPDATE_GUIDE=1 cargo test --package rewire-cli --test all guide:: writes the outputs";
    assert!(faults.is_empty(), "{}\n{hint}", faults.join("\n\n"));
    assert!(ran > 15, "only {ran} commands ran");
}

#[test]
fn the_commands_of_every_page_have_flags_that_exist() {
    let docs = root().join("docs");
    let folders = [docs.clone(), docs.join("guide"), docs.join("methods"), docs.join("decisions")];
    let all = folders.iter().flat_map(|folder| pages(folder)).chain([root().join("README.md")]);
    let folder = tempfile::tempdir().unwrap();
    let scripts = scripts(folder.path());
    let mut parsed = 0;
    for block in all.flat_map(|page| blocks(&page, &fs::read_to_string(&page).unwrap())) {
        shell(&block.commands, folder.path(), &scripts).output().unwrap();
        for call in calls(folder.path()) {
            if call.first().is_some_and(|command| FOR_DEVELOPERS.contains(&command.as_str())) {
                continue;
            }
            let arguments = std::iter::once("rewire").chain(call.iter().map(String::as_str));
            // `--help` is an error with exit code 0.
            let refused = rewire_cli::Arguments::try_parse_from(arguments).err().filter(|e| e.exit_code() != 0);
            assert!(refused.is_none(), "{}: {}", block.place, refused.unwrap());
            parsed += 1;
        }
    }
    assert!(parsed > 20, "only {parsed} commands were parsed");
}

#[test]
fn an_excerpt_is_the_output_or_its_first_lines() {
    assert_eq!(excerpt(&["old"], "a\nb\n"), ["a", "b"]);
    assert_eq!(excerpt(&["old", ".."], "a\nb\n"), ["a", ".."]);
    assert_eq!(form("  L3H7 *  0.4256  -0.0608"), form("  L3H7  1.42 0.0"));
    assert_ne!(form("node  effect"), form("node  share"));
}
