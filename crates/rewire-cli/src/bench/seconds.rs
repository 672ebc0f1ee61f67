//! Seconds: their median, and how they are printed.

/// The median of some times, in seconds.
pub(super) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A time in seconds, with three digits that count.
pub(super) fn in_words(time: f64) -> String {
    match time {
        t if t >= 1.0 => format!("{t:.2}"),
        t if t >= 0.01 => format!("{t:.4}"),
        t => format!("{t:.6}"),
    }
}
