//! Progress bars: on standard error, with the time left, and silent when that is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `len` steps of `what`.
pub fn bar(len: usize, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(len as u64);
    if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg} {eta_precise} left") {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_owned());
    bar
}
