//! The comparison of recorded numbers with numbers that were computed again.

use std::fmt;

use ndarray::ArrayD;
use serde_json::Value;

/// Most numbers that are shown.
const SHOWN: usize = 10;

/// The error of recorded numbers that a repeated computation does not confirm.
#[derive(Debug, Clone)]
pub(crate) struct DoesNotHold(pub(crate) String);

impl fmt::Display for DoesNotHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DoesNotHold {}

/// The numbers compared so far.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// How many numbers were compared.
    pub(crate) numbers: usize,
    /// The largest difference, and the place of the number.
    pub(crate) largest: Option<(f64, String)>,
    /// How many numbers or texts differ by more than the tolerance.
    pub(crate) wrong: usize,
    /// The first of them, one line each.
    shown: Vec<String>,
}

impl Compared {
    /// Compares two tensors of the same shape, except where `again` is NaN. `name` gives the place
    /// of a number.
    pub(crate) fn tensor(
        &mut self,
        recorded: &ArrayD<f32>,
        again: &ArrayD<f32>,
        tolerance: f64,
        name: impl Fn(&[usize]) -> String,
    ) {
        for (index, again) in again.indexed_iter().filter(|(_, again)| !again.is_nan()) {
            let index = ndarray::Dimension::slice(&index);
            self.number(f64::from(recorded[index]), f64::from(*again), tolerance, || name(index));
        }
    }

    /// Compares two numbers.
    fn number(&mut self, recorded: f64, again: f64, tolerance: f64, place: impl Fn() -> String) {
        self.numbers += 1;
        let difference = (recorded - again).abs();
        if self.largest.as_ref().is_none_or(|(largest, _)| difference > *largest) {
            self.largest = Some((difference, place()));
        }
        // The difference to a recorded NaN is NaN.
        if difference.is_nan() || difference > tolerance {
            self.differs(|| format!("{}: recorded {recorded}, now {again}", place()));
        }
    }

    /// Compares two JSON values: numbers up to the tolerance, all others exactly.
    pub(crate) fn json(&mut self, recorded: &Value, again: &Value, tolerance: f64, place: &str) {
        match (recorded, again) {
            (Value::Number(a), Value::Number(b)) => {
                let [a, b] = [a, b].map(|number| number.as_f64().unwrap_or(f64::NAN));
                self.number(a, b, tolerance, || place.to_owned());
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                for (number, (a, b)) in a.iter().zip(b).enumerate() {
                    self.json(a, b, tolerance, &format!("{place}[{number}]"));
                }
            }
            (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
                for ((key, a), b) in a.iter().zip(b.values()) {
                    self.json(a, b, tolerance, &format!("{place}.{key}"));
                }
            }
            _ if recorded == again => {}
            _ => self.differs(|| format!("{place}: recorded {}, now {}", short(recorded), short(again))),
        }
    }

    /// Notes something that is not as recorded.
    pub(crate) fn differs(&mut self, line: impl Fn() -> String) {
        self.wrong += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(line());
        }
    }
}

/// Shows what differs, one line each.
impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.shown {
            writeln!(f, "  {line}")?;
        }
        match self.wrong - self.shown.len() {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}

/// Returns a JSON value in one short line.
fn short(value: &Value) -> String {
    rewire_input::cut(&value.to_string())
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_hold_up_to_the_tolerance() {
        let mut compared = Compared::default();
        let again = array![1.0, f32::NAN, 2.5, 0.0].into_dyn();
        compared.tensor(&array![1.25, 9.0, 2.5, f32::NAN].into_dyn(), &again, 0.25, |at| format!("t{at:?}"));
        assert_eq!((compared.numbers, compared.wrong), (3, 1));
        assert_eq!(compared.to_string(), "  t[3]: recorded NaN, now 0\n");
        compared.tensor(&array![1.5].into_dyn(), &array![1.0].into_dyn(), 0.25, |_| "far".to_owned());
        assert_eq!((compared.wrong, compared.largest), (2, Some((0.5, "far".to_owned()))));
    }

    #[test]
    fn a_changed_leaf_of_json_is_named() {
        let value = |x: f64, name: &str| json!({ "a": [1, x], "b": { "name": name } });
        let mut compared = Compared::default();
        compared.json(&value(2.0, "n"), &value(2.001, "n"), 0.01, "notes");
        assert_eq!((compared.numbers, compared.wrong), (2, 0));
        compared.json(&value(2.0, "n"), &value(3.0, "m"), 0.01, "notes");
        assert_eq!(
            compared.to_string(),
            "  notes.a[1]: recorded 2, now 3\n  notes.b.name: recorded \"n\", now \"m\"\n"
        );
        compared.json(&json!({ "a": 1 }), &json!({ "b": 1 }), 1.0, "x");
        assert_eq!(compared.wrong, 3);
    }
}
