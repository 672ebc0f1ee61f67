//! Tests of loading, refusing and recovering records.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::directory::Waiting;

const VALUES: [f32; 4] = [0.1, f32::NAN, -0.0, f32::MIN_POSITIVE / 2.0];

fn take(path: &Path) -> OutputDirectory {
    OutputDirectory::take(path, &[], "test", Waiting::Refuse).unwrap()
}

fn at(number: usize) -> Key {
    Key { portion: 0, number, plan: u64::MAX - 1 }
}

fn kl() -> Value {
    json!({ "metric": "kl", "nodes": ["head_z"] })
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// A directory with the record of a run that was killed after `n` passes.
fn killed(n: usize) -> tempfile::TempDir {
    let temporary = tempfile::tempdir().unwrap();
    let directory = take(temporary.path());
    let record = Record::open(&directory, &kl()).unwrap();
    (0..n).for_each(|number| record.store(at(number), &VALUES).unwrap());
    temporary
}

fn edit(directory: &Path, change: impl Fn(String) -> String) {
    let path = directory.join(RECORD);
    std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
}

#[test]
fn stored_passes_load_and_a_truncated_line_is_dropped() {
    let temporary = killed(2);
    edit(temporary.path(), |text| text[..text.len() - 20].to_owned());
    let directory = take(temporary.path());
    let record = Record::open(&directory, &kl()).unwrap();
    assert_eq!((record.finished(), record.notices().len()), (1, 0));
    assert_eq!(bits(&record.load(at(0)).unwrap().unwrap()), bits(&VALUES));
    assert_eq!(record.load(at(1)).unwrap(), None);
    record.store(at(1), &[1.0]).unwrap();
    let record = Record::open(&directory, &kl()).unwrap();
    assert_eq!(record.load(at(1)).unwrap(), Some(vec![1.0]));
    record.remove().unwrap();
    assert!(!temporary.path().join(RECORD).exists());
}

#[test]
fn a_last_line_without_a_newline_is_loaded() {
    let temporary = killed(2);
    edit(temporary.path(), |text| text.trim_end().to_owned());
    let directory = take(temporary.path());
    let record = Record::open(&directory, &kl()).unwrap();
    assert_eq!(record.finished(), 2);
    record.store(at(2), &VALUES).unwrap();
    assert_eq!(Record::open(&directory, &kl()).unwrap().finished(), 3);
}

#[test]
fn nothing_is_written_before_the_first_pass() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = take(temporary.path());
    Record::open(&directory, &kl()).unwrap().remove().unwrap();
    assert!(!temporary.path().join(RECORD).exists());
}

#[test]
fn another_runs_record_is_refused_and_kept() {
    let temporary = killed(1);
    let directory = take(temporary.path());
    let refused = Record::open(&directory, &json!({ "metric": "probability", "nodes": ["head_z"] })).unwrap_err();
    assert!(refused.to_string().contains("differs in: metric"), "{refused}");
    assert_eq!(Record::open(&directory, &kl()).unwrap().finished(), 1);
}

#[test]
fn a_file_of_the_users_is_refused_and_kept() {
    for mine in ["", "mine", "mine\n", "{\"metric\":\"kl\"}\n{}\n", "\u{0}\u{0}"] {
        let temporary = tempfile::tempdir().unwrap();
        std::fs::write(temporary.path().join(RECORD), mine).unwrap();
        let directory = take(temporary.path());
        let refused = Record::open(&directory, &kl()).unwrap_err();
        assert!(matches!(refused, StoreError::NotOurs { .. }), "{mine:?}: {refused}");
        assert_eq!(std::fs::read_to_string(temporary.path().join(RECORD)).unwrap(), mine);
    }
}

#[cfg(unix)]
#[test]
fn a_symlink_in_the_records_place_is_refused_and_not_written_through() {
    let temporary = tempfile::tempdir().unwrap();
    let target = temporary.path().join("target");
    std::os::unix::fs::symlink(&target, temporary.path().join(RECORD)).unwrap();
    let directory = take(temporary.path());
    assert!(matches!(Record::open(&directory, &kl()), Err(StoreError::NotOurs { .. })));
    assert!(!target.exists());
}

#[test]
fn lines_of_another_run_in_the_record_are_ignored() {
    let [temporary, other] = [killed(2), tempfile::tempdir().unwrap()];
    let directory = take(other.path());
    Record::open(&directory, &json!({ "metric": "probability" })).unwrap().store(at(1), &[9.0]).unwrap();
    let theirs = std::fs::read_to_string(other.path().join(RECORD)).unwrap();
    edit(temporary.path(), |text| text + theirs.lines().last().unwrap() + "\n");
    let directory = take(temporary.path());
    let record = Record::open(&directory, &kl()).unwrap();
    assert_eq!((record.finished(), record.notices().len()), (2, 1));
    assert_eq!(bits(&record.load(at(1)).unwrap().unwrap()), bits(&VALUES));
}

#[test]
fn contradicting_lines_for_one_pass_are_both_dropped() {
    let temporary = killed(2);
    let directory = take(temporary.path());
    let record = Record::open(&directory, &kl()).unwrap();
    record.store(at(1), &[7.0]).unwrap();
    record.store(at(0), &VALUES).unwrap();
    let record = Record::open(&directory, &kl()).unwrap();
    assert_eq!(record.load(at(1)).unwrap(), None);
    assert_eq!(bits(&record.load(at(0)).unwrap().unwrap()), bits(&VALUES));
    assert!(record.notices()[0].contains("2 damaged lines (line 3, 4)"), "{:?}", record.notices());
}

#[test]
fn a_damaged_first_line_loses_no_pass() {
    let temporary = killed(3);
    edit(temporary.path(), |text| text.replacen("unfinished run", "unfinished ruN", 1));
    let directory = take(temporary.path());
    assert_eq!(Record::open(&directory, &kl()).unwrap().finished(), 3);
    assert!(std::fs::read_to_string(temporary.path().join(RECORD)).unwrap().contains("unfinished run"));
}

#[test]
fn a_record_removed_during_the_run_is_recreated() {
    let temporary = killed(1);
    let directory = take(temporary.path());
    let record = Record::open(&directory, &kl()).unwrap();
    record.store(at(1), &VALUES).unwrap();
    std::fs::remove_file(temporary.path().join(RECORD)).unwrap();
    assert!(record.load(at(0)).unwrap().is_some());
    record.store(at(2), &VALUES).unwrap();
    assert_eq!(Record::open(&directory, &kl()).unwrap().finished(), 1);
    std::fs::remove_file(temporary.path().join(RECORD)).unwrap();
    std::fs::write(temporary.path().join(RECORD), "theirs").unwrap();
    assert!(record.store(at(3), &VALUES).is_err());
    record.remove().unwrap();
    assert_eq!(std::fs::read_to_string(temporary.path().join(RECORD)).unwrap(), "theirs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// After a change of any one byte, a pass is loaded unchanged, or not at all.
    #[test]
    fn a_pass_with_a_changed_byte_loads_unchanged_or_not_at_all(place in 0.0..1.0, with: u8, kind in 0..3) {
        let temporary = killed(4);
        let path = temporary.path().join(RECORD);
        let mut bytes = std::fs::read(&path).unwrap();
        let place = (place * bytes.len() as f64) as usize;
        match kind {
            0 => bytes[place] = with,
            1 => bytes.insert(place, with),
            _ => {
                bytes.remove(place);
            }
        }
        std::fs::write(&path, bytes).unwrap();
        let directory = take(temporary.path());
        let record = Record::open(&directory, &kl()).unwrap();
        prop_assert!(record.finished() >= 2, "one byte cost more than two passes");
        for number in 0..4 {
            if let Some(numbers) = record.load(at(number)).unwrap() {
                prop_assert_eq!(bits(&numbers), bits(&VALUES));
            }
        }
    }
}
