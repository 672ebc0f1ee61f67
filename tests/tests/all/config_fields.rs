//! Every field of `config.json` is honored as in transformers, refused by name, or without effect.
//!
//! The table is `fixtures/config-fields/fields.json`, with one row per line.
//! `fixtures/config_fields.py` computed the logits of transformers 4.57.6 and 5.24.0 for its rows.
//! If the two versions disagree, the row has `differs_in`, and the later version is right.

use std::collections::BTreeSet;
use std::path::Path;

use burn::backend::Flex;
use ndarray::{ArrayD, IxDyn};
use rewire_model::{ModelError, ModelFiles, ReadPositions, Readout, Run, Transformer};
use rewire_tests::compare::{array, largest_difference, scale};
use rewire_tests::model_files::{Tensors, read, resized, write};
use serde_json::Value;

/// Largest allowed difference from the float64 logits of transformers, as a share of the largest
/// logit.
const TOLERANCE: f32 = 1e-5;
/// Smallest change of the logits by an honored field, as a share of the largest logit.
const EFFECT: f32 = 1e-4;

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn json(name: &str) -> Value {
    let path = fixtures().join("config-fields").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Reads logits `[prompt, vocabulary]` from nested lists.
fn logits(lists: &Value) -> ArrayD<f32> {
    let prompts = lists.as_array().unwrap();
    let values: Vec<f32> =
        prompts.iter().flat_map(|p| p.as_array().unwrap()).map(|v| v.as_f64().unwrap() as f32).collect();
    ArrayD::from_shape_vec(IxDyn(&[prompts.len(), values.len() / prompts.len()]), values).unwrap()
}

/// The table and the results that transformers computes for it.
struct Table {
    rows: Vec<Value>,
    expected: Value,
}

impl Table {
    fn read() -> Self {
        let rows = json("fields.json").as_array().unwrap().clone();
        Self { rows, expected: json("expected.json") }
    }

    fn versions(&self) -> Vec<&String> {
        self.expected["versions"].as_object().unwrap().keys().collect()
    }

    /// Returns the results of the transformers versions that run row `index`, except a version that
    /// is known to differ.
    fn results(&self, index: usize) -> Vec<ArrayD<f32>> {
        let row = &self.rows[index];
        let wanted = self.versions().into_iter().filter(|version| row["differs_in"] != ***version);
        let result = |version: &String| match &self.expected["versions"][version]["results"][index] {
            Value::String(same) if same == "unchanged" => Some(self.unchanged(row)),
            lists @ Value::Array(_) => Some(logits(lists)),
            _ => None,
        };
        wanted.filter_map(result).collect()
    }

    /// Returns the result of transformers without any change.
    fn unchanged(&self, row: &Value) -> ArrayD<f32> {
        let first = self.rows.iter().position(|r| r["family"] == row["family"]).unwrap();
        logits(&self.expected["versions"][self.versions()[0]]["results"][first])
    }

    fn tokens(&self) -> Vec<Vec<u32>> {
        let prompts = self.expected["tokens"].as_array().unwrap().iter();
        prompts.map(|p| p.as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect()).collect()
    }
}

/// Loads the model of a row.
fn load(row: &Value) -> Result<Transformer<Flex>, ModelError> {
    let name = if row["family"] == "gpt2" { "tiny-gpt2" } else { "tiny-neox" };
    let source = fixtures().join(name).join("model");
    let mut config: Value = serde_json::from_slice(&std::fs::read(source.join("config.json")).unwrap()).unwrap();
    let fields = config.as_object_mut().unwrap();
    for removed in row["remove"].as_array().into_iter().flatten() {
        fields.remove(removed.as_str().unwrap());
    }
    fields.extend(row["change"].as_object().unwrap().clone());
    let tensors: Tensors =
        resized(read(&source.join("model.safetensors")), row["weights"].as_str().unwrap_or_default());
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    write(&directory.path().join("model.safetensors"), &tensors);
    Transformer::load(&ModelFiles::directory(directory.path()).unwrap(), &Default::default())
}

/// Returns the fault of a row that must be refused, if there is one.
fn check_refused(row: &Value) -> Option<String> {
    let error = match load(row) {
        Ok(_) => return Some("it was not refused".to_owned()),
        Err(error) => error.to_string(),
    };
    let words = row["words"].as_array().unwrap().iter().map(|w| w.as_str().unwrap());
    let file = if error.contains("config.json") { "config.json" } else { "model.safetensors" };
    let missing: Vec<_> = words.chain([file]).filter(|word| !error.contains(word)).collect();
    (!missing.is_empty()).then(|| format!("{missing:?} is not in `{error}`"))
}

/// Returns the fault of a row that must run, if there is one.
fn check_run(table: &Table, index: usize) -> Option<String> {
    let row = &table.rows[index];
    let model = match load(row) {
        Ok(model) => model,
        Err(error) => return Some(error.to_string()),
    };
    let config = serde_json::to_value(model.config()).unwrap();
    for (name, value) in row["config"].as_object().into_iter().flatten() {
        if config[name] != *value {
            return Some(format!("{name} is {}, not {value}", config[name]));
        }
    }
    let tokens = table.tokens();
    let readout =
        Readout { positions: ReadPositions::Each(tokens.iter().map(|t| t.len() - 1).collect()), columns: None };
    let ours = model.forward(Run::tokens(model.tokens(&tokens).unwrap()).with_readout(readout), ()).unwrap();
    let ours = array(ours);
    let ours = ours.clone().into_shape_with_order(IxDyn(&[tokens.len(), ours.len() / tokens.len()])).unwrap();
    let results = table.results(index);
    if results.is_empty() {
        return Some("no version of transformers runs it".to_owned());
    }
    let unchanged = table.unchanged(row);
    for expected in results {
        let difference = largest_difference(&ours, &expected) / scale(&expected);
        if difference > TOLERANCE {
            return Some(format!("logits differ from those of transformers by {difference:e} of the largest"));
        }
        let effect = match expected.shape() == unchanged.shape() {
            true => largest_difference(&expected, &unchanged) / scale(&unchanged),
            false => f32::INFINITY,
        };
        match row["verdict"].as_str() {
            Some("honored") if row["config"].is_null() && effect < EFFECT => {
                return Some(format!("the row cannot show that it is honored: its effect is {effect:e}"));
            }
            Some("ignored") if effect > TOLERANCE => return Some(format!("it has an effect: {effect:e}")),
            _ => {}
        }
    }
    None
}

#[test]
fn every_config_field_behaves_as_in_the_table() {
    let table = Table::read();
    let mut wrong = Vec::new();
    for (index, row) in table.rows.iter().enumerate() {
        let found = match row["verdict"].as_str() {
            Some("refused") => check_refused(row),
            Some("honored" | "ignored") => check_run(&table, index),
            _ => Some("it has no verdict".to_owned()),
        };
        wrong.extend(found.map(|what| format!("{row}: {what}")));
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), table.rows.len(), wrong.join("\n"));
}

#[test]
fn the_table_lists_every_config_field_of_transformers() {
    let table = Table::read();
    for family in ["gpt2", "gpt_neox"] {
        let rows = table.rows.iter().filter(|row| row["family"] == family);
        let of_row = |row: &Value| -> Vec<String> {
            let removed = row["remove"].as_array().into_iter().flatten().map(|n| n.as_str().unwrap().to_owned());
            row["change"].as_object().unwrap().keys().cloned().chain(removed).collect()
        };
        let in_table: BTreeSet<String> = rows.flat_map(of_row).collect();
        for version in table.versions() {
            let fields = table.expected["versions"][version]["fields"][family].as_array().unwrap();
            assert!(fields.len() > 30, "{version}: {} fields", fields.len());
            let absent: Vec<_> = fields.iter().filter(|field| !in_table.contains(field.as_str().unwrap())).collect();
            assert!(absent.is_empty(), "{family} of transformers {version}: no row for {absent:?}");
        }
    }
}
