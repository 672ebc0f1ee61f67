//! What an unfinished sweep leaves in its output directory, so that the same command goes on where it ended.
//!
//! `unfinished.jsonl` begins with what the sweep is of, and has one line a finished pass: numbers as the bits of float32, so
//! that they come back as they were. A line that was cut off by the end of the program is dropped.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, bail};
use rewire_analysis::{Ledger, Pass};
use serde_json::{Map, Value, json};

/// The file of an unfinished sweep; it is made with the first pass that is kept, so that a refused sweep leaves nothing.
pub(crate) struct SweepLedger {
    path: PathBuf,
    /// What the sweep is of.
    first_line: String,
    /// Bytes of the whole lines that are there.
    length: u64,
    /// Directories that do not exist yet and are made with the first pass, the deepest first.
    absent: Vec<PathBuf>,
    file: Mutex<Option<File>>,
    kept: HashMap<Pass, Vec<f32>>,
}

impl SweepLedger {
    /// Opens the ledger of the sweep that `identity` describes in `directory`, where there may be none yet.
    ///
    /// Refuses a directory that holds another sweep's.
    pub(crate) fn open(directory: &Path, identity: &Map<String, Value>) -> anyhow::Result<Self> {
        let path = directory.join("unfinished.jsonl");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut whole_lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let mut length = 0;
        let mut kept = HashMap::new();
        if let Some(line) = whole_lines.next() {
            check(&path, line, identity)?;
            length += line.len();
            for line in whole_lines {
                let Some((pass, metrics)) = read(line) else { break };
                kept.insert(pass, metrics);
                length += line.len();
            }
        }
        let first_line = format!("{}\n", Value::Object(identity.clone()));
        let absent = directory.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists());
        let absent = absent.map(Path::to_owned).collect();
        Ok(Self { path, absent, first_line, length: length as u64, file: Mutex::new(None), kept })
    }

    /// How many passes were finished before.
    pub(crate) fn finished(&self) -> usize {
        self.kept.len()
    }

    /// Removes the file: the sweep is done and its results are written.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("cannot remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes the file and the directories that were made for it: the sweep can never be finished.
    pub(crate) fn discard(self) -> anyhow::Result<()> {
        let absent = self.absent.clone();
        self.close()?;
        for directory in absent {
            // A directory that another program has written to stays.
            let _ = std::fs::remove_dir(directory);
        }
        Ok(())
    }

    /// The file, ready for another line.
    fn make(&self) -> io::Result<File> {
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.set_len(self.length)?;
        if self.length == 0 {
            file.write_all(self.first_line.as_bytes())?;
        }
        Ok(file)
    }
}

impl Ledger for SweepLedger {
    fn load(&self, pass: Pass) -> Option<Vec<f32>> {
        self.kept.get(&pass).cloned()
    }

    fn store(&self, pass: Pass, metrics: &[f32]) -> io::Result<()> {
        let bits: Vec<u32> = metrics.iter().map(|m| m.to_bits()).collect();
        let line = format!(
            "{}\n",
            json!({
                "portion": pass.portion, "pass": pass.number, "plan": pass.plan, "metrics": bits,
            })
        );
        let mut file = self.file.lock().map_err(|_| io::Error::other("another thread failed while writing"))?;
        let file = match &mut *file {
            Some(file) => file,
            none => none.insert(self.make()?),
        };
        file.write_all(line.as_bytes())
    }
}

/// Refuses a file whose first line describes another sweep, and names what differs.
fn check(path: &Path, line: &str, identity: &Map<String, Value>) -> anyhow::Result<()> {
    let directory = path.parent().unwrap_or(path).display();
    let Ok(Value::Object(found)) = serde_json::from_str::<Value>(line) else {
        bail!("{} is not the record of a sweep; choose another --out, or remove it", path.display());
    };
    let differs: Vec<&str> =
        identity.iter().filter(|(key, v)| found.get(*key) != Some(v)).map(|(key, _)| key.as_str()).collect();
    if !differs.is_empty() {
        bail!(
            "{directory} holds an unfinished sweep of another run (it differs in: {}); run that command again to finish it, \
             choose another --out, or remove {}",
            differs.join(", "),
            path.display()
        );
    }
    Ok(())
}

fn read(line: &str) -> Option<(Pass, Vec<f32>)> {
    let record: Value = serde_json::from_str(line).ok()?;
    let number = |key: &str| record.get(key)?.as_u64()?.try_into().ok();
    let plan = record.get("plan")?.as_u64()?;
    let pass = Pass { portion: number("portion")?, number: number("pass")?, plan };
    let bits = |v: &Value| Some(f32::from_bits(v.as_u64()?.try_into().ok()?));
    Some((pass, record.get("metrics")?.as_array()?.iter().map(bits).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(metric: &str) -> Map<String, Value> {
        [("metric".to_owned(), json!(metric)), ("nodes".to_owned(), json!(["head_z"]))].into_iter().collect()
    }

    #[test]
    fn what_was_stored_comes_back_and_a_cut_line_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let at = |number| Pass { portion: 0, number, plan: u64::MAX - 1 };
        let values = [0.1_f32, f32::NAN, -0.0, f32::MIN_POSITIVE / 2.0];
        let ledger = SweepLedger::open(directory.path(), &identity("kl")).unwrap();
        ledger.store(at(3), &values).unwrap();
        drop(ledger);
        let path = directory.path().join("unfinished.jsonl");
        let mut cut = std::fs::read_to_string(&path).unwrap();
        cut.push_str("{\"portion\":0,\"pass\":4,\"metr");
        std::fs::write(&path, cut).unwrap();

        let ledger = SweepLedger::open(directory.path(), &identity("kl")).unwrap();
        assert_eq!(ledger.finished(), 1);
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&ledger.load(at(3)).unwrap()), bits(&values));
        ledger.store(at(4), &[1.0]).unwrap();
        drop(ledger);
        let ledger = SweepLedger::open(directory.path(), &identity("kl")).unwrap();
        assert_eq!(ledger.load(at(4)), Some(vec![1.0]));
        ledger.close().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_discarded_sweep_leaves_the_directory_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("out/sweep");
        let ledger = SweepLedger::open(&below, &identity("kl")).unwrap();
        ledger.store(Pass { portion: 0, number: 0, plan: 1 }, &[1.0]).unwrap();
        assert!(below.join("unfinished.jsonl").exists());
        ledger.discard().unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        std::fs::create_dir(directory.path().join("mine")).unwrap();
        SweepLedger::open(&directory.path().join("mine"), &identity("kl")).unwrap().discard().unwrap();
        assert!(directory.path().join("mine").exists());
    }

    #[test]
    fn another_sweeps_record_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = SweepLedger::open(directory.path(), &identity("kl")).unwrap();
        assert!(!directory.path().join("unfinished.jsonl").exists());
        ledger.store(Pass { portion: 0, number: 0, plan: 1 }, &[1.0]).unwrap();
        let refused = SweepLedger::open(directory.path(), &identity("probability")).err().unwrap().to_string();
        assert!(refused.contains("differs in: metric"), "{refused}");
        assert!(SweepLedger::open(directory.path(), &identity("kl")).is_ok());
    }
}
