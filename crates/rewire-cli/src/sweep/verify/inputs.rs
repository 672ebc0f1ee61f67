//! The inputs of a sweep that have changed since its results were written.

use rewire_input::cut;
use serde_json::{Map, Value};

use crate::provenance::machine;
use crate::sweep::prepared::Prepared;
use crate::verify::recorded::Recorded;

/// The differences between the recorded inputs and those of today, one line each.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Inputs without which the numbers are about something else: prompts, nodes, settings.
    pub(super) question: Vec<String>,
    /// Inputs that should give the same numbers: the program, the files of the model.
    pub(super) inputs: Vec<String>,
    /// Facts of the machine and the device.
    pub(super) machine: Vec<String>,
    /// Inputs of which the results record nothing.
    pub(super) unknown: Vec<String>,
}

impl Changes {
    /// Compares the recorded inputs with those of the prepared sweep.
    pub(super) fn new(recorded: &Recorded, prepared: &Prepared) -> anyhow::Result<Self> {
        let mut changes = Self::default();
        let about = &recorded.about;
        changes.files(&about["provenance"], prepared)?;
        changes.pairs(&about["pairs"], prepared);
        // The same numbers can be read back differently from their text: both are read from text.
        let run: Value = serde_json::from_slice(&serde_json::to_vec(&prepared.run)?)?;
        for (key, [was, is]) in differing(&about["run"], &run) {
            let line = format!("{key}: recorded {}, now {}", short(was), short(is));
            match key.as_str() {
                // The times of change of files say less than their contents.
                "model" => {}
                "version" => changes.inputs.push(line),
                "device" => changes.machine.push(line),
                "pairs" => changes.question.push(format!(
                    "pairs: the prompts or answers are others than the recorded ones ({} pairs then, {} now)",
                    was["number"], is["number"]
                )),
                _ => changes.question.push(line),
            }
        }
        let (was, is) = (&about["provenance"]["machine"], machine());
        match was.is_object() {
            true => {
                let lines = differing(was, &is);
                changes.machine.extend(
                    lines
                        .into_iter()
                        .map(|(key, [was, is])| format!("{key}: recorded {}, now {}", short(was), short(is))),
                );
            }
            false => changes.unknown.push("the machine".to_owned()),
        }
        Ok(changes)
    }

    /// Compares the files of the model and of its tokenizer.
    fn files(&mut self, provenance: &Value, prepared: &Prepared) -> anyhow::Result<()> {
        let now: Map<String, Value> =
            prepared.source.sha256s()?.iter().map(|(name, sum)| (name.clone(), sum.as_str().into())).collect();
        match provenance["model_files"].is_object() {
            true => {
                for (name, [was, is]) in differing(&provenance["model_files"], &Value::Object(now)) {
                    self.inputs.push(format!("{name}: recorded SHA-256 {}, now {}", short(was), short(is)));
                }
            }
            false => self.unknown.push("the files of the model".to_owned()),
        }
        let tokenizer: Value = prepared.source.tokenizer_sha256()?.into();
        if provenance.is_object() && provenance["tokenizer_sha256"] != tokenizer {
            let was = short(&provenance["tokenizer_sha256"]);
            self.inputs.push(format!("tokenizer: recorded SHA-256 {was}, now {}", short(&tokenizer)));
        }
        Ok(())
    }

    /// Compares the file of the pairs. Whether its prompts have changed is found elsewhere.
    fn pairs(&mut self, pairs: &Value, prepared: &Prepared) {
        let now: Value = prepared.origin.file_sha256.clone().into();
        if pairs["file_sha256"] != now {
            let (was, is) = (short(&pairs["file_sha256"]), short(&now));
            self.inputs.push(format!("{}: recorded SHA-256 {was}, now {is}", prepared.origin.file));
        }
    }

    /// Returns whether everything is recorded and as it was, the machine included.
    pub(super) fn are_none(&self) -> bool {
        let Self { question, inputs, machine, unknown } = self;
        [question, inputs, machine, unknown].iter().all(|lines| lines.is_empty())
    }

    /// Returns the text to print.
    pub(super) fn text(&self) -> String {
        let Self { question, inputs, machine, unknown } = self;
        let mut text = String::new();
        if [question, inputs].iter().all(|lines| lines.is_empty()) {
            text += "inputs: as recorded\n";
        } else {
            text += "inputs that differ from the recorded ones:\n";
            question.iter().chain(inputs).for_each(|line| text += &format!("  {line}\n"));
        }
        if !machine.is_empty() {
            text += "the machine differs from the recorded one:\n";
            machine.iter().for_each(|line| text += &format!("  {line}\n"));
        }
        if !unknown.is_empty() {
            text += &format!("not recorded: {}\n", unknown.join(", "));
        }
        text
    }
}

/// Returns the keys whose values differ in two objects. A missing value is null.
fn differing<'v>(was: &'v Value, is: &'v Value) -> Vec<(String, [&'v Value; 2])> {
    let keys = |object: &Value| object.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
    let [mut names, others]: [Vec<String>; 2] = [keys(was), keys(is)];
    names.extend(others);
    names.sort();
    names.dedup();
    let pair = |key: String| {
        let both = [&was[&key], &is[&key]];
        (key, both)
    };
    names.into_iter().map(pair).filter(|(_, [was, is])| was != is).collect()
}

/// Returns a JSON value in one short line, without quotes around a text.
fn short(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => cut(text),
        other => cut(&other.to_string()),
    }
}
