//! Progress on standard error: a bar with the time left on a terminal, else a line every 30
//! seconds, so that a job log or a notebook shows that the work continues.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::output::say;

/// Time between two lines if standard error is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(30);

/// The progress of one step of a command.
#[derive(Debug)]
pub struct StepProgress {
    what: String,
    /// Hidden if standard error is no terminal.
    bar: ProgressBar,
    lines: Option<Lines>,
}

/// When lines are written.
#[derive(Debug)]
struct Lines {
    started: Instant,
    last: Instant,
}

impl StepProgress {
    /// Starts a step with the name `what`.
    #[must_use]
    pub fn new(what: &str) -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg} {eta_precise} left") {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        let now = Instant::now();
        let lines = (!std::io::stderr().is_terminal()).then_some(Lines { started: now, last: now });
        Self { what: what.to_owned(), bar, lines }
    }

    /// Shows that `done` of `of` items are finished; `note` is shown beside them.
    pub fn update(&mut self, done: usize, of: usize, note: &str) {
        self.bar.set_length(of as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(note.to_owned());
        if let Some(lines) = &mut self.lines
            && done < of
            && lines.last.elapsed() >= BETWEEN_LINES
        {
            lines.last = Instant::now();
            say(&line(&self.what, done, of, note, lines.started.elapsed()));
        }
    }

    /// Ends the step and removes its bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// One line of progress: the step, how far it is, and the time left.
fn line(what: &str, done: usize, of: usize, note: &str, elapsed: Duration) -> String {
    let left = match done {
        0 => String::new(),
        _ => {
            let left = elapsed.mul_f64(of.saturating_sub(done) as f64 / done as f64);
            format!(", about {} left", HumanDuration(left))
        }
    };
    let note = if note.is_empty() { String::new() } else { format!(", {note}") };
    format!("{what}: {done} of {of}{note}{left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines_show_the_step_the_count_and_the_time_left() {
        let at = Duration::from_secs(60);
        assert_eq!(line("sweep", 30, 90, "", at), "sweep: 30 of 90, about 2 minutes left");
        assert_eq!(line("sweep", 0, 90, "", at), "sweep: 0 of 90");
        assert_eq!(line("toy-gpt2", 90, 90, "loss 0.5", at), "toy-gpt2: 90 of 90, loss 0.5, about 0 seconds left");
    }
}
