//! Runs the shell commands of README.md and the guide, on the embedded models.
//!
//! There, a block that begins with `sh` runs as it stands, in a folder that holds the repository's
//! docs. Blocks that begin with `sh,ignore`, and those of other pages, are only parsed. They may need
//! a GPU, or minutes. `cargo xtask` runs the program `rewire`. Every other use of cargo does nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;

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
const FOR_DEVELOPERS: [&str; 5] = ["ci", "fixtures", "fuzz", "soak", "train-toy"];

/// A block of shell commands.
struct Block {
    /// The page and the line, for messages.
    place: String,
    commands: String,
    ignored: bool,
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

/// Returns the shell blocks of a page.
fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_open = false;
    for (number, line) in text.lines().enumerate() {
        let opens = ["```sh", "```sh,ignore"].contains(&line);
        match (opens, is_open, blocks.last_mut()) {
            (true, _, _) => blocks.push(Block {
                place: format!("{}, line {}", page.display(), number + 1),
                commands: String::new(),
                ignored: line.ends_with("ignore"),
            }),
            (false, true, Some(block)) if line != "```" => block.commands += &format!("{line}\n"),
            _ => {}
        }
        is_open = opens || (is_open && line != "```");
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

/// Returns a shell that will run the commands of a block in a folder. The commands find only
/// the scripts.
fn shell(block: &Block, folder: &Path, scripts: &Path) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &block.commands]).current_dir(folder).env("PATH", scripts).env("CALLS", folder.join("calls"));
    shell
}

/// Returns the calls of `rewire` since the last time, each with its arguments.
fn calls(folder: &Path) -> Vec<Vec<String>> {
    let file = folder.join("calls");
    let text = fs::read_to_string(&file).unwrap_or_default();
    let _ = fs::remove_file(&file);
    text.split_terminator("\n\n").map(|call| call.lines().map(str::to_owned).collect()).collect()
}

#[test]
fn the_commands_of_the_guide_run() {
    let mut ran = 0;
    for page in [vec![root().join("README.md")], pages(&root().join("docs/guide"))].concat() {
        let folder = tempfile::tempdir().unwrap();
        let scripts = scripts(folder.path());
        symlink(root().join("docs"), folder.path().join("docs")).unwrap();
        for mut block in blocks(&page).into_iter().filter(|block| !block.ignored) {
            block.commands.insert_str(0, "set -e\n");
            let output = shell(&block, folder.path(), &scripts)
                .env("PATH", format!("{}:/usr/bin:/bin", scripts.display()))
                .env("PROGRAM", env!("CARGO_BIN_EXE_rewire"))
                .output()
                .unwrap();
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {message}", block.place);
            ran += calls(folder.path()).len();
        }
    }
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
    for block in all.flat_map(|page| blocks(&page)) {
        shell(&block, folder.path(), &scripts).output().unwrap();
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
