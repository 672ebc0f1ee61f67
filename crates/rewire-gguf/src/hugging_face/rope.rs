//! The scaling of rotary angles for long texts.

use rewire_input::quoted;
use serde_json::{Value, json};

use crate::error::GgufError;
use crate::hugging_face::fields::Fields;
use crate::read::tensors::Tensor;

/// The tensor with a divisor for each angle.
pub(crate) const DIVISORS: &str = "rope_freqs.weight";

/// The settings of Llama 3's scaling that the converter of llama.cpp assumes where `config.json`
/// lacks them. All published models have them.
const LOW_FREQUENCY: f32 = 1.0;
const HIGH_FREQUENCY: f32 = 4.0;
const ORIGINAL_CONTEXT: u64 = 8192;

/// Largest relative difference of a stored divisor and ours: powers are rounded differently.
const TOLERANCE: f32 = 1e-4;

/// Returns the field `rope_scaling` of `config.json`, or `None` if angles are not scaled.
///
/// Linear scaling is in the metadata. Llama 3's is not: the file has the divisors that result, and
/// this function finds the settings that give them.
pub(crate) fn rope_scaling(fields: &Fields<'_, '_>) -> Result<Option<Value>, GgufError> {
    let factor = fields.optional_number("rope.scaling.factor")?;
    let linear = match (fields.text("rope.scaling.type")?, factor) {
        (Some("none"), _) | (None | Some("linear"), None) => None,
        (None | Some("linear"), Some(factor)) => Some(factor).filter(|factor| *factor != 1.0),
        (Some(other), _) => {
            let reason = format!("it is {}, and Rewire supports none and linear", quoted(other));
            return Err(fields.refuse("rope.scaling.type", reason));
        }
    };
    let divisors = fields.file.tensor(DIVISORS);
    match (linear, divisors) {
        (None, None) => Ok(None),
        (Some(factor), None) => Ok(Some(json!({ "rope_type": "linear", "factor": factor }))),
        (None, Some(divisors)) => llama3(fields, divisors),
        (Some(_), Some(_)) => {
            let reason = format!("the file also has the tensor `{DIVISORS}`, another scaling; one is possible");
            Err(fields.refuse("rope.scaling.factor", reason))
        }
    }
}

/// Returns the settings of Llama 3's scaling that give these divisors.
fn llama3(fields: &Fields<'_, '_>, stored: &Tensor<'_>) -> Result<Option<Value>, GgufError> {
    let refuse = |reason: &str| GgufError::tensor(fields.file.path(), DIVISORS, reason);
    let d_head = fields.d_head()?;
    if stored.shape != [(d_head / 2) as usize] {
        return Err(refuse("it must have one number for each two dimensions of a head"));
    }
    let divisors = stored.to_f32();
    let factor = divisors.iter().copied().fold(1.0, f32::max);
    if divisors.iter().all(|divisor| *divisor == 1.0) {
        return Ok(None);
    }
    let base = fields.optional_number("rope.freq_base")?.unwrap_or(10_000.0) as f32;
    let context = fields.optional_size("rope.scaling.original_context_length")?.unwrap_or(ORIGINAL_CONTEXT);
    let ours = |pair: usize| {
        let frequency = 1.0 / base.powf(2.0 * pair as f32 / d_head as f32);
        let turns = context as f32 * frequency / (2.0 * std::f32::consts::PI);
        if turns > HIGH_FREQUENCY {
            1.0
        } else if turns < LOW_FREQUENCY {
            factor
        } else {
            let smooth = (turns - LOW_FREQUENCY) / (HIGH_FREQUENCY - LOW_FREQUENCY);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    let fits = |(pair, divisor): (usize, &f32)| (ours(pair) - divisor).abs() <= TOLERANCE * divisor.abs();
    match divisors.iter().enumerate().all(fits) {
        true => Ok(Some(json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": LOW_FREQUENCY,
            "high_freq_factor": HIGH_FREQUENCY, "original_max_position_embeddings": context,
        }))),
        false => Err(refuse("its numbers are not those of Llama 3's scaling, and Rewire supports no other")),
    }
}
