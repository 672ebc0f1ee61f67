//! Progress bars on standard error, with the time left. They are hidden if standard error is no
//! terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// Returns a progress bar with `len` steps and the name `what`.
pub fn bar(len: usize, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(len as u64);
    if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg} {eta_precise} left") {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_owned());
    bar
}
