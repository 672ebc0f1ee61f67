//! What commands print and write.

use std::io::Write;
use std::time::Instant;

use rewire_analysis::Warning;
use rewire_device::Precision;
use rewire_report::{About, Page};
use serde_json::{Value, json};

use crate::compute::halved;
use crate::device::Device;
use crate::model::Source;

/// The description of a run, for its `effects.json`; the caller fills in what was measured.
pub(crate) fn about(source: &Source, device: Device, started: Instant) -> About {
    About {
        command: std::env::args().skip(1).collect(),
        model: source.name.clone(),
        config: source.config.to_hugging_face(),
        processed_weights: source.is_processed(),
        metric: String::new(),
        device: device.resolve().to_string(),
        computed: json!({
            "weights_and_activations": Precision::Float32,
            "products_of_float32": rewire_device::products(),
            "halved": halved(),
        }),
        seed: None,
        labels: Value::Null,
        baselines: Value::Null,
        warnings: Vec::new(),
        notes: Value::Null,
        wall_time_s: started.elapsed().as_secs_f64(),
        versions: json!({ "rewire": env!("CARGO_PKG_VERSION"), "burn": "0.21.0" }),
    }
}

/// Prints warnings to standard error, one line each with the name of its result, and returns the
/// lines.
pub(crate) fn warn<'a>(of: impl IntoIterator<Item = (&'a str, Vec<Warning>)>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (name, warnings) in of {
        for warning in warnings {
            let line = if name.is_empty() { warning.to_string() } else { format!("{name}: {warning}") };
            if !lines.contains(&line) {
                eprintln!("warning: {line}");
                lines.push(line);
            }
        }
    }
    lines
}

/// Returns a page of a report that begins with the warnings, and with a note if there was too
/// little memory.
pub(crate) fn new_page(title: &str, subtitle: &str, warnings: &[String]) -> Page {
    let mut page = Page::new(title, subtitle);
    page.warnings(warnings);
    let halved = halved();
    if !halved.is_empty() {
        page.section(
            "Memory",
            "There was too little memory for as much at once as was meant. The numbers are the same.",
        );
        halved.iter().for_each(|halved| page.text(halved));
    }
    page
}

/// `L9H6`.
pub(crate) fn head_name(layer: usize, head: usize) -> String {
    format!("L{layer}H{head}")
}

/// Names `prefix0`, `prefix1`, ..
pub(crate) fn numbered(prefix: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{prefix}{i}")).collect()
}

/// Token labels that are distinct: the token, and its position. The token in front of a prompt is called BOS, which leaves
/// room for the rest.
pub(crate) fn token_labels(labels: &[String]) -> Vec<String> {
    let label = |(i, token): (usize, &String)| match token.as_str() {
        "<|endoftext|>" => format!("BOS_{i}"),
        token => format!("{}_{i}", token.escape_debug()),
    };
    labels.iter().enumerate().map(label).collect()
}

/// Rows under a header, each column as wide as its widest cell; the first aligned left, the others right.
pub(crate) fn text_table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().enumerate().map(|(i, cell)| match i {
            0 => format!("{cell:<w$}", w = width(i)),
            _ => format!("{cell:>w$}", w = width(i)),
        });
        format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    [line(header.to_vec())].into_iter().chain(rows).collect()
}

/// Writes to standard output; a reader that has had enough (`| head`) is no error.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
