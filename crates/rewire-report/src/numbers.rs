//! Numbers as text, the same in all tables and sentences of reports.

/// Values nearer to 0 are written in scientific notation.
const SMALL: f64 = 1e-3;

/// Returns a number as text: four decimals, scientific notation below 0.001 (`5.3e-8`), one decimal
/// from 1000 on, `0` for exactly 0, and `-` for NaN (no value).
///
/// ```
/// use rewire_report::numbers::number;
///
/// assert_eq!([0.25, -2e-7, 0.0, f64::NAN].map(number), ["0.2500", "-2.0e-7", "0", "-"]);
/// ```
#[must_use]
pub fn number(value: impl Into<f64>) -> String {
    let value = value.into();
    match value.abs() {
        _ if value.is_nan() => "-".to_owned(),
        0.0 => "0".to_owned(),
        size if size < SMALL => format!("{value:.1e}"),
        size if size < 1e3 => format!("{value:.4}"),
        size if size < 1e6 => format!("{value:.1}"),
        _ => format!("{value:.3e}"),
    }
}

/// Returns a number with its sign, for differences: `+0.2500`.
#[must_use]
pub fn signed(value: impl Into<f64>) -> String {
    let value = value.into();
    let sign = if value > 0.0 { "+" } else { "" };
    format!("{sign}{}", number(value))
}

/// Returns an interval as text: `0.1000 to 0.3000`, or `-` if an end has no value.
#[must_use]
pub fn interval([low, high]: [f32; 2]) -> String {
    match low.is_nan() || high.is_nan() {
        true => "-".to_owned(),
        false => format!("{} to {}", number(low), number(high)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_are_not_printed_as_zeros() {
        let printed = [0.0, -0.0, 1e-7, -4.26e-5, 0.00099, 0.001, -0.5, 999.99, 1234.56, 2.5e7].map(number);
        let expected = ["0", "0", "1.0e-7", "-4.3e-5", "9.9e-4", "0.0010", "-0.5000", "999.9900", "1234.6", "2.500e7"];
        assert_eq!(printed, expected);
    }

    #[test]
    fn differences_have_a_sign_and_missing_values_a_dash() {
        assert_eq!([0.5, -0.5, 0.0, f64::NAN].map(signed), ["+0.5000", "-0.5000", "0", "-"]);
        assert_eq!(interval([-1e-5, 0.25]), "-1.0e-5 to 0.2500");
        assert_eq!(interval([f32::NAN, 1.0]), "-");
    }
}
