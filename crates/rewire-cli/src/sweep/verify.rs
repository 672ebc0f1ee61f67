//! Verifies the results of a sweep: names the inputs that have changed, and compares recorded
//! numbers with numbers that are computed again.

mod inputs;
mod share;
mod tolerance;

use anyhow::bail;
use rewire_report::{Quantity, Table, names, result_files};
use rewire_store::Traces;
use serde_json::Value;

use super::arguments::Arguments;
use super::findings::Findings;
use super::prepared::Prepared;
use super::results;
use crate::interrupt::Interrupts;
use crate::output::print;
use crate::shards::Divisible;
use crate::verify::compared::{Compared, DoesNotHold};
use crate::verify::recorded::Recorded;
use inputs::Changes;
pub(crate) use share::Choice;
use share::Share;
use tolerance::Tolerance;

/// Keys of `effects.json` that say when, where and in which files the numbers were written. The
/// inputs among them are compared on their own.
const NOT_NUMBERS: [&str; 8] = ["run", "provenance", "started", "wall_time_s", "versions", "files", "device", "model"];

/// Verifies recorded results. `arguments` are those of the recorded command.
pub(crate) fn verify(
    arguments: &Arguments,
    recorded: &Recorded,
    choice: Choice,
    interrupts: &Interrupts,
) -> anyhow::Result<()> {
    if !arguments.file.pairs.exists() && recorded.about["pairs"]["file_sha256"].is_null() {
        bail!("the sweep read its pairs from a pipe; give them with --pairs FILE");
    }
    let mut prepared = Prepared::read(arguments, interrupts)?;
    prepared.session.set_command(recorded.command.clone());
    let changes = Changes::new(recorded, &prepared)?;
    print(&changes.text())?;
    if !recorded.changed.is_empty() {
        print("files that are not those of the run:\n")?;
        recorded.changed.iter().try_for_each(|line| print(&format!("  {line}\n")))?;
    }
    if !changes.question.is_empty() {
        let reason = "nothing was computed again, because the prompts or the settings differ";
        bail!(DoesNotHold(format!("the results cannot be repeated: {reason}")));
    }
    prepared.memory()?;
    interrupts.begin_computing(Traces::default());
    let share = Share::new(&prepared, choice)?;
    let found = share.recompute(&prepared)?;
    let is_same = changes.are_none() && has_recorded_paths(recorded, &prepared);
    let tolerance = Tolerance::new(recorded, &prepared, &share, is_same);
    let compared = compare(recorded, &prepared, found, &share, &tolerance)?;
    print(&format!("{}\n", share.in_words(&prepared, choice.seed)))?;
    report(&compared, &tolerance, recorded)
}

/// Returns whether the model and the pairs have the recorded names, which stand in the files of
/// results.
fn has_recorded_paths(recorded: &Recorded, prepared: &Prepared) -> bool {
    let about = &recorded.about;
    about["model"] == prepared.source.name.as_str() && about["pairs"]["file"] == prepared.origin.file.as_str()
}

/// Prints the comparison.
///
/// # Errors
/// [`DoesNotHold`] if a number or a file is not as recorded.
fn report(compared: &Compared, tolerance: &Tolerance, recorded: &Recorded) -> anyhow::Result<()> {
    let Compared { numbers, largest, wrong, .. } = compared;
    let numbers = names::counted(*numbers, "number");
    match largest {
        Some((difference, place)) if *difference > 0.0 => {
            print(&format!("compared {numbers}; the largest difference is {difference:.1e} ({place})\n"))?;
        }
        _ => print(&format!("compared {numbers}; all are equal\n"))?,
    }
    print(&format!("tolerance: {}\n", tolerance.in_words()))?;
    if *wrong > 0 {
        print(&format!("more than the tolerance away from the recorded value:\n{compared}"))?;
        bail!(DoesNotHold(format!("the numbers do not hold: {wrong} of them differ")));
    }
    if !recorded.changed.is_empty() {
        bail!(DoesNotHold("these numbers hold, but a file was changed after the run".to_owned()));
    }
    print("the numbers hold\n")
}

/// Compares the recorded numbers with those that were computed again.
fn compare(
    recorded: &Recorded,
    prepared: &Prepared,
    found: Findings,
    share: &Share,
    tolerance: &Tolerance,
) -> anyhow::Result<Compared> {
    let mut compared = Compared::default();
    if !matches!(share, Share::Whole(_)) {
        let baselines = &found.outcome.baselines;
        let described = rewire_report::describe_baselines(baselines);
        for key in ["clean_mean", "corrupted_mean", "clean", "corrupted"] {
            let recorded = &recorded.about["baselines"][key];
            compared.json(recorded, &from_text(&described[key])?, tolerance.metric(), &format!("baselines.{key}"));
        }
        for table in results::recomputed(&found, prepared.arguments) {
            compare_table(&mut compared, recorded, &table, tolerance);
        }
        return Ok(compared);
    }
    let contents = prepared.contents(found)?;
    contents.tables.iter().for_each(|table| compare_table(&mut compared, recorded, table, tolerance));
    for name in recorded.tensors.keys().filter(|name| contents.tables.iter().all(|table| table.name != **name)) {
        compared.differs(|| format!("{name}: the sweep gives no such table"));
    }
    let files = result_files(&contents.tables, &contents.about, contents.files)?;
    for (name, bytes) in &files {
        match *name {
            "effects.json" => compare_description(&mut compared, recorded, bytes, tolerance)?,
            // Other files have the numbers as text, which differs with the last digit.
            _ if !tolerance.is_exact() => {}
            _ if recorded.file(name).as_ref() == Some(bytes) => {}
            _ => compared.differs(|| format!("{name}: the file has other contents than these numbers give")),
        }
    }
    Ok(compared)
}

/// Compares the description of the results. With a tolerance, compares only its baselines, because
/// names and ranks depend on the last digits of the numbers.
fn compare_description(
    compared: &mut Compared,
    recorded: &Recorded,
    bytes: &[u8],
    tolerance: &Tolerance,
) -> anyhow::Result<()> {
    let (was, is): (&Value, Value) = (&recorded.about, serde_json::from_slice(bytes)?);
    for (key, value) in is.as_object().into_iter().flatten() {
        let is_compared = if tolerance.is_exact() { !NOT_NUMBERS.contains(&key.as_str()) } else { key == "baselines" };
        if is_compared {
            compared.json(&was[key], value, tolerance.metric(), key);
        }
    }
    Ok(())
}

/// Compares a table, except where it is NaN.
fn compare_table(compared: &mut Compared, recorded: &Recorded, table: &Table, tolerance: &Tolerance) {
    let Some(tensor) = recorded.tensors.get(&table.name) else {
        return compared.differs(|| format!("{}: the results have no such table", table.name));
    };
    if tensor.shape() != table.values.shape() {
        let [was, is] = [tensor, &table.values].map(|values| format!("{:?}", values.shape()));
        return compared.differs(|| format!("{}: recorded shape {was}, now {is}", table.name));
    }
    // Ranks of resampled values jump where two values nearly tie.
    if !tolerance.is_exact() && matches!(table.quantity, Quantity::PValue) {
        return;
    }
    let place = |index: &[usize]| {
        let axes = table.axes.iter().zip(index).map(|(axis, at)| format!("{axis} {at}"));
        format!("{}, {}", table.name, axes.collect::<Vec<_>>().join(", "))
    };
    compared.tensor(tensor, &table.values, tolerance.of(table), place);
}

/// Returns a value as it is after it was written and read.
fn from_text(value: &Value) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&serde_json::to_vec(value)?)?)
}
