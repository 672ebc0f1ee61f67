//! The file of one shard: a description of the run, one line per finished pass, and a last line
//! once the shard is finished.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::checksum::checksum;
use crate::error::StoreError;
use crate::line::{Key, checked, read, split_sum, with_sum};

/// Name of the folder in an output directory that holds the shards of a run.
pub const SHARDS: &str = "shards";

/// Longest first line in bytes. The first line of a real shard is far shorter.
const LONGEST_HEADER: u64 = 1 << 20;

/// Describes a shard: the run that it is a part of, and which part.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardHeader {
    /// The shard, counted from 1.
    pub number: usize,
    /// The number of shards of the run.
    pub of: usize,
    /// A JSON object with everything that the results depend on.
    pub identity: Value,
    /// The command line of the run without the program and without the choice of the shard.
    pub command: Vec<String>,
    /// The working directory in which the command ran.
    pub directory: String,
}

/// What a file of a shard holds.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) header: ShardHeader,
    /// The checksum of the run.
    pub(crate) run: String,
    /// Offset and length, both in bytes, of the line of each pass.
    pub(crate) kept: HashMap<Key, (u64, usize)>,
    /// The hash of each list of planned passes, if the shard is finished.
    pub(crate) plans: Option<Vec<String>>,
    /// The number of damaged lines. A last line that a kill cut off is not damaged.
    pub(crate) damaged: usize,
}

impl ShardHeader {
    /// Returns the checksum of the run. All its shards have the same.
    pub(crate) fn run(&self) -> String {
        checksum(&[&self.identity.to_string(), &self.of.to_string()])
    }

    /// Returns the path of the finished shard in an output directory.
    pub(crate) fn path(&self, out: &Path) -> PathBuf {
        out.join(SHARDS).join(format!("{}.jsonl", self.stem()))
    }

    /// Returns the beginning of the name of the shard's files.
    pub(crate) fn stem(&self) -> String {
        format!("{:05}-of-{:05}", self.number, self.of)
    }

    /// Returns the first line of the file.
    pub(crate) fn line(&self) -> String {
        let Self { number, of, identity, command, directory } = self;
        let run = self.run();
        let text = json!({
            "rewire": "shard", "run": run, "shard": number, "of": of, "identity": identity, "command": command,
            "directory": directory,
        });
        with_sum(&text.to_string(), &run)
    }

    /// Parses the first line of a file; returns the checksum of its run, too.
    fn parse(line: &str) -> Option<(Self, String)> {
        let (text, sum) = split_sum(line)?;
        let found: Value = serde_json::from_str(&format!("{text}}}")).ok()?;
        let run = found.get("run")?.as_str()?.to_owned();
        if found.get("rewire")? != "shard" || checksum(&[&run, text]) != sum {
            return None;
        }
        let number = |key: &str| found.get(key)?.as_u64()?.try_into().ok();
        let words = found.get("command")?.as_array()?.iter();
        let header = Self {
            number: number("shard")?,
            of: number("of")?,
            identity: found.get("identity")?.clone(),
            command: words.map(|word| Some(word.as_str()?.to_owned())).collect::<Option<_>>()?,
            directory: found.get("directory")?.as_str()?.to_owned(),
        };
        Some((header, run))
    }

    /// Returns the names of the settings in which the run of another shard differs.
    pub(crate) fn differences(&self, other: &Self) -> String {
        let of = (self.of != other.of).then(|| "number of shards".to_owned());
        let [ours, theirs] = [self, other].map(|header| header.identity.as_object());
        let keys = ours.into_iter().chain(theirs).flat_map(|settings| settings.keys());
        let differs = |key: &&String| {
            let [a, b] = [ours, theirs].map(|settings| settings.and_then(|settings| settings.get(*key)));
            a.map(Value::to_string) != b.map(Value::to_string)
        };
        let mut names: Vec<String> = of.into_iter().chain(keys.filter(differs).cloned()).collect();
        names.sort();
        names.dedup();
        if names.is_empty() { "version".to_owned() } else { names.join(", ") }
    }
}

/// Returns the last line of a finished shard with this many passes.
pub(crate) fn last_line(run: &str, passes: usize, plans: &[String]) -> String {
    with_sum(&json!({ "run": run, "finished": passes, "plans": plans }).to_string(), run)
}

/// Reads the first line of a file. Returns `None` if it does not describe a shard.
pub(crate) fn header(path: &Path) -> Result<Option<(ShardHeader, String)>, StoreError> {
    let unreadable = |source| StoreError::Read { path: path.into(), source };
    let mut line = Vec::new();
    let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
    reader.by_ref().take(LONGEST_HEADER).read_until(b'\n', &mut line).map_err(unreadable)?;
    Ok(std::str::from_utf8(&line).ok().and_then(ShardHeader::parse))
}

/// Reads a file and checks every line. Returns `None` if its first line does not describe a shard.
pub(crate) fn scan(path: &Path) -> Result<Option<Contents>, StoreError> {
    let unreadable = |source| StoreError::Read { path: path.into(), source };
    let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut line = Vec::new();
    let mut at = reader.by_ref().take(LONGEST_HEADER).read_until(b'\n', &mut line).map_err(unreadable)? as u64;
    let Some((header, run)) = std::str::from_utf8(&line).ok().and_then(ShardHeader::parse) else { return Ok(None) };
    let mut contents = Contents { header, run, kept: HashMap::new(), plans: None, damaged: 0 };
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line).map_err(unreadable)?;
        if length == 0 {
            break;
        }
        let text = checked(&line, &contents.run).map(|(text, _)| text);
        if let Some((key, _)) = text.and_then(read) {
            contents.kept.insert(key, (at, length));
        } else if let Some(plans) = text.and_then(|text| finished(text, contents.kept.len())) {
            contents.plans = Some(plans);
        } else if line.ends_with(b"\n") {
            contents.damaged += 1;
        }
        at += length as u64;
    }
    if contents.damaged > 0 {
        contents.plans = None;
    }
    Ok(Some(contents))
}

/// Parses the last line of a finished shard. Returns `None` if the file lacks passes.
fn finished(text: &str, passes: usize) -> Option<Vec<String>> {
    let found: Value = serde_json::from_str(&format!("{text}}}")).ok()?;
    let plans = found.get("plans")?.as_array()?.iter();
    let plans = plans.map(|plan| Some(plan.as_str()?.to_owned())).collect::<Option<_>>()?;
    (found.get("finished")?.as_u64()? == passes as u64).then_some(plans)
}

/// Returns the files of shards in an output directory, finished or not, in the order of their
/// names. There are none if the directory does not exist.
pub(crate) fn files(out: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let folder = out.join(SHARDS);
    let unreadable = |source| StoreError::Read { path: folder.clone(), source };
    let entries = match std::fs::read_dir(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let is_ours = |name: &str| name.contains("-of-") && (name.ends_with(".jsonl") || name.ends_with(PARTIAL));
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_ours) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The end of the names of unfinished shards.
pub(crate) const PARTIAL: &str = ".partial";
