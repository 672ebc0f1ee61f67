//! The lines of records and shards: JSON objects whose last entry is a checksum over the run and
//! the object.

use serde_json::{Value, json};

use crate::checksum::checksum;

/// Identifies one pass of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Index of the first prompt in the pass's batch of prompts.
    pub portion: usize,
    /// Number of the pass over that batch.
    pub number: usize,
    /// Hash of what the pass computes.
    pub plan: u64,
}

/// Returns the line that stores the numbers of a pass, bit for bit.
pub(crate) fn pass_line(run: &str, Key { portion, number, plan }: Key, numbers: &[f32]) -> String {
    let bits: Vec<u32> = numbers.iter().map(|m| m.to_bits()).collect();
    let text = json!({ "run": run, "portion": portion, "pass": number, "plan": plan, "numbers": bits });
    with_sum(&text.to_string(), run)
}

/// Returns a JSON object as a line. Its last entry is the checksum over the run and the object.
pub(crate) fn with_sum(object: &str, run: &str) -> String {
    let text = object.strip_suffix('}').unwrap_or(object);
    format!("{text},\"sum\":\"{}\"}}\n", checksum(&[run, text]))
}

/// Splits a line into the text under its checksum, and the checksum.
pub(crate) fn split_sum(line: &str) -> Option<(&str, &str)> {
    line.strip_suffix('\n').unwrap_or(line).strip_suffix("\"}")?.rsplit_once(",\"sum\":\"")
}

/// Returns the text and checksum of a line of this run, or `None` if the line is damaged or belongs
/// to another run.
pub(crate) fn checked<'l>(line: &'l [u8], run: &str) -> Option<(&'l str, &'l str)> {
    let (text, sum) = split_sum(std::str::from_utf8(line).ok()?)?;
    (checksum(&[run, text]) == sum).then_some((text, sum))
}

/// Parses the pass and the numbers in a line's text.
pub(crate) fn read(text: &str) -> Option<(Key, Vec<f32>)> {
    let record: Value = serde_json::from_str(&format!("{text}}}")).ok()?;
    let number = |key: &str| record.get(key)?.as_u64()?.try_into().ok();
    let key = Key { portion: number("portion")?, number: number("pass")?, plan: record.get("plan")?.as_u64()? };
    let bits = |v: &Value| Some(f32::from_bits(v.as_u64()?.try_into().ok()?));
    Some((key, record.get("numbers")?.as_array()?.iter().map(bits).collect::<Option<_>>()?))
}
