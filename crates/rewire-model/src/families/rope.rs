//! The fields of rotary positions in `config.json`.
//!
//! transformers 4 has `rope_theta` beside the object `rope_scaling`. transformers 5 keeps both in
//! the object `rope_parameters`, and still reads `rope_scaling` in its place.

use serde_json::{Map, Value, json};

use crate::config::{Positions, RotaryScaling, TransformerConfig};
use crate::files::fields::{Fields, shown};

/// Returns the name and the fields of the object of rotary parameters: `rope_scaling` or, if that
/// is null or empty, `rope_parameters`.
pub(crate) fn parameters<'a>(
    fields: &Fields<'a>,
    none: &'a Map<String, Value>,
) -> Result<(&'static str, Fields<'a>), String> {
    let mut parameters = ("rope_parameters", Fields(none));
    for name in ["rope_parameters", "rope_scaling"] {
        match fields.0.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::Object(object)) if object.is_empty() => {}
            Some(Value::Object(object)) => parameters = (name, Fields(object)),
            Some(other) => return Err(format!("`{name}` is {}, not an object", shown(other))),
        }
    }
    Ok(parameters)
}

/// Reads rotary positions on a whole head. `default` is the base if the file has none.
pub(crate) fn read(
    fields: &Fields<'_>,
    d_head: usize,
    default: f64,
) -> Result<(Positions, Option<RotaryScaling>), String> {
    let none = Map::new();
    let (name, parameters) = parameters(fields, &none)?;
    let inside = |e: String| format!("in `{name}`: {e}");
    for of in [fields, &parameters] {
        if let Some(share) = of.number("partial_rotary_factor")?
            && share != 1.0
        {
            return Err(format!("`partial_rotary_factor` is {share}; Rewire supports only 1 in this family"));
        }
    }
    let base = match parameters.0.contains_key("rope_theta") {
        true => parameters.positive("rope_theta", default).map_err(inside)?,
        false => fields.positive("rope_theta", default)?,
    };
    match fields.number("rope_theta")? {
        Some(outside) if outside != base => {
            return Err(format!("`rope_theta` is {outside}, and in `{name}` it is {base}; make them equal"));
        }
        _ => {}
    }
    let scaling = scaling(name, &parameters)?;
    Ok((Positions::Rotary { dims: d_head, base }, scaling))
}

/// Reads how angles are stretched.
fn scaling(name: &str, parameters: &Fields<'_>) -> Result<Option<RotaryScaling>, String> {
    let inside = |e: String| format!("in `{name}`: {e}");
    let kinds: Vec<&Value> = ["rope_type", "type"].iter().filter_map(|field| parameters.0.get(*field)).collect();
    if let [first, second] = kinds[..]
        && first != second
    {
        return Err(format!("`{name}` has the types {} and {}; keep one", shown(first), shown(second)));
    }
    let needed = |field: &str| match parameters.0.contains_key(field) {
        true => parameters.positive(field, 1.0).map_err(inside),
        false => Err(format!("`{name}` lacks `{field}`")),
    };
    match kinds.first().map(|kind| kind.as_str()) {
        Some(Some("default")) => Ok(None),
        Some(Some("linear")) => Ok(Some(RotaryScaling::Linear { factor: needed("factor")? })),
        Some(Some("llama3")) => {
            let [factor, low_turns, high_turns] =
                [needed("factor")?, needed("low_freq_factor")?, needed("high_freq_factor")?];
            if low_turns >= high_turns {
                return Err(format!(
                    "in `{name}`: `low_freq_factor` {low_turns} must be below `high_freq_factor` {high_turns}"
                ));
            }
            let context = parameters.size(&["original_max_position_embeddings"]).map_err(inside)?;
            Ok(Some(RotaryScaling::Llama3 { factor, low_turns, high_turns, context }))
        }
        Some(_) => Err(format!(
            "`{name}` has the type {}; Rewire supports the types \"default\", \"linear\" and \"llama3\"",
            shown(kinds[0])
        )),
        None => {
            match parameters.0.keys().find(|field| !["rope_theta", "partial_rotary_factor"].contains(&field.as_str())) {
                Some(field) => {
                    let field = rewire_input::cut(field);
                    Err(format!("`{name}` has `{field}` and no `rope_type`; add the type of rotary positions"))
                }
                None => Ok(None),
            }
        }
    }
}

/// Returns `rope_theta` and `rope_scaling`, which [`read`] reads back.
pub(crate) fn write(config: &TransformerConfig) -> (f64, Value) {
    let base = match config.positions {
        Positions::Rotary { base, .. } => base,
        Positions::Learned => 10_000.0,
    };
    let scaling = match config.rotary_scaling {
        None => Value::Null,
        Some(RotaryScaling::Linear { factor }) => json!({ "rope_type": "linear", "factor": factor }),
        Some(RotaryScaling::Llama3 { factor, low_turns, high_turns, context }) => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low_turns, "high_freq_factor": high_turns,
            "original_max_position_embeddings": context,
        }),
    };
    (base, scaling)
}
