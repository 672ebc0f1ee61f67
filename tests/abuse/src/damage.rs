//! Damaged records of unfinished runs.

use std::time::Duration;

use anyhow::{Context, ensure};
use rand_chacha::ChaCha8Rng;
use rewire_store::RECORD;

use crate::commands::{SWEEPS, below, share, start};
use crate::program::kill_after;
use crate::results::{check_equal, has_record, read};
use crate::trials::Trials;

/// Kills a sweep, damages its record in a random way, and runs it again.
pub(crate) fn damage(trials: &mut Trials) -> anyhow::Result<()> {
    let line = SWEEPS[trials.number() % SWEEPS.len()];
    let reference = trials.reference(line)?;
    let directory = trials.fresh()?;
    let out = directory.path().join("o");
    // Some kills come before the first pass or after the last.
    for _ in 0..20 {
        let delay = Duration::from_secs_f64(reference.seconds * (0.2 + 0.7 * share(&mut trials.random)));
        kill_after(start(&trials.program, directory.path(), line, "o")?, delay)?;
        if has_record(&out) {
            break;
        }
        let _ = std::fs::remove_dir_all(&out);
    }
    let path = out.join(RECORD);
    if !path.exists() {
        return Ok(());
    }
    let whole = std::fs::read(&path)?;
    let (what, damaged) = hurt(&mut trials.random, trials.count, &whole);
    std::fs::write(&path, &damaged)?;
    let again = trials.program.run(directory.path(), &line.arguments_to("o"))?;
    if again.code == Some(2) {
        // A record without a valid line may be the user's file, so it is refused and kept.
        ensure!(again.stderr.contains(RECORD), "{what}: refused without the file's name: {}", again.stderr);
        ensure!(std::fs::read(&path)? == damaged, "{what}: a refused file was changed");
        std::fs::remove_file(&path)?;
        trials.program.succeed(directory.path(), &line.arguments_to("o"))?;
    } else {
        ensure!(again.code == Some(0), "{what}: ended with {:?}: {}", again.code, again.stderr);
    }
    check_equal(&read(&out)?, &reference.files).with_context(|| format!("{} with a damaged record: {what}", line.name))
}

/// Damages a record; returns what was done.
fn hurt(random: &mut ChaCha8Rng, number: usize, whole: &[u8]) -> (&'static str, Vec<u8>) {
    let mut bytes = whole.to_vec();
    let place = below(random, bytes.len());
    let digits: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i].is_ascii_digit()).collect();
    let mut lines: Vec<Vec<u8>> = whole.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let last = lines.len() - 1;
    let what = match number % 9 {
        0 => {
            bytes[place] ^= 1 << below(random, 8);
            "a flipped bit"
        }
        1 => {
            let at = digits[below(random, digits.len())];
            bytes[at] = b'0' + (bytes[at] - b'0' + 1) % 10;
            "another digit"
        }
        2 => {
            bytes.truncate(place);
            "a cut end"
        }
        3 => {
            let at = digits[below(random, digits.len())];
            bytes.splice(at..=at, *b"NaN");
            "NaN"
        }
        4 => {
            let (a, b) = (below(random, last + 1), below(random, last + 1));
            lines.swap(a, b);
            bytes = lines.concat();
            "swapped lines"
        }
        5 => {
            let mut copy = lines[last].clone();
            if let Some(at) = copy.iter().rposition(u8::is_ascii_digit) {
                copy[at] = b'0' + (copy[at] - b'0' + 1) % 10;
            }
            lines.push(copy);
            bytes = lines.concat();
            "a repeated line with another number"
        }
        6 => {
            bytes.splice(place..place, std::iter::repeat_n(0, 4096));
            "a block of zeros"
        }
        7 => {
            let to = (place + 512).min(bytes.len());
            bytes.drain(place..to);
            "a lost block"
        }
        _ => {
            lines.remove(below(random, last + 1));
            bytes = lines.concat();
            "a lost line"
        }
    };
    (what, bytes)
}
