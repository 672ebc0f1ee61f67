//! Times in seconds: their median and their text.

/// Returns the median of times, in seconds.
pub(super) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Returns the text of a time in seconds, with about three significant digits.
pub(super) fn in_words(time: f64) -> String {
    match time {
        t if t >= 1.0 => format!("{t:.2}"),
        t if t >= 0.01 => format!("{t:.4}"),
        t => format!("{t:.6}"),
    }
}
