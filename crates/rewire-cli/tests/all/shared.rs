//! Shared code of the command tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use safetensors::SafeTensors;
use serde_json::Value;

/// Runs a command that must succeed; returns its standard output. Tests run several analyses into
/// one directory, so analyses replace the results of others.
pub fn run(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let is_analysis = arguments.first().is_some_and(|name| *name == "sweep" || name.starts_with("reproduce-"));
    let output = Command::new(env!("CARGO_BIN_EXE_rewire"))
        .args(arguments)
        .args(is_analysis.then_some("--force"))
        .current_dir(directory)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {message}");
    // Without a terminal there is no progress bar, only a line every 30 seconds.
    let others: Vec<&str> = message.lines().filter(|line| !is_progress(line)).collect();
    assert!(others.is_empty(), "{arguments:?}: {message}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a line of standard error reports progress: `sweep: 30 of 90, about 2 minutes left`, or
/// `sweep: 0 of 90` at the beginning; or the memory that a sweep will take.
pub fn is_progress(line: &str) -> bool {
    let at_the_beginning = line.rsplit_once(": 0 of ").is_some_and(|(_, of)| of.parse::<usize>().is_ok());
    at_the_beginning
        || line.contains(": memory: about ")
        || (line.contains(" of ") && line.contains(", about ") && line.ends_with(" left"))
}

/// Returns standard error without the line on the memory that a sweep will take, which differs from
/// run to run.
pub fn complaints(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.split_inclusive('\n').filter(|line| !line.contains(": memory: about ")).collect()
}

/// The float32 tensors in a file: shapes and numbers.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Sweeps the `pairs.jsonl` in a directory into its folder `o`; returns the effects, their
/// description, and standard output.
pub fn sweep(directory: &Path, arguments: &[&str]) -> (Tensors, Value, String) {
    let printed = run(directory, &[&["sweep", "--pairs", "pairs.jsonl", "--out", "o"], arguments].concat(), &[]);
    let out = directory.join("o");
    (tensors(&out.join("effects.safetensors")), json(&out.join("effects.json")), printed)
}

/// Reads the float32 tensors in a file.
pub fn tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let read = |view: safetensors::tensor::TensorView<'_>| {
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        (view.shape().to_vec(), values)
    };
    file.tensors().into_iter().map(|(name, view)| (name, read(view))).collect()
}

/// Reads a JSON file.
pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Returns the section headings of a report, in order, as text.
pub fn headings(report: &str) -> Vec<String> {
    let sections: Vec<&str> = report.split("</h2>").collect();
    let before = sections[..sections.len() - 1].iter();
    before.map(|section| text_of(section.rsplit('>').next().unwrap())).collect()
}

/// Replaces the HTML escapes that a report has.
pub fn text_of(html: &str) -> String {
    html.replace("&#39;", "'").replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// Two of the demo's pairs.
pub const PAIRS: &str = r#"{"clean": "When John and Mary went to the shops, John gave the bag to", "corrupt": "When John and Mary went to the shops, Mary gave the bag to", "answers": [" Mary"], "wrong_answers": [" John"]}
{"clean": "When Tom and James went to the park, James gave the ball to", "corrupt": "When Tom and James went to the park, Tom gave the ball to", "answers": [" Tom"], "wrong_answers": [" James"]}
"#;

/// Returns a command of `rewire` that listens to signals, also if these tests run in the background
/// of a script, where processes ignore SIGINT.
#[cfg(target_os = "linux")]
pub(crate) fn interruptible() -> std::process::Command {
    let mut command = std::process::Command::new("env");
    command.args(["--default-signal=INT,HUP", env!("CARGO_BIN_EXE_rewire")]);
    command
}
