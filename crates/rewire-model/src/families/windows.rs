//! The fields of sliding windows in `config.json`.

use serde_json::Value;

use crate::config::SlidingWindow;
use crate::files::fields::{Fields, shown};

/// Maximum number of layers of a model whose layers differ: the list of its layers takes memory
/// before any weight has shown that they exist.
const MOST_LAYERS: usize = 10_000;

/// The values of `layer_types`.
const TYPES: [&str; 2] = ["full_attention", "sliding_attention"];

/// Returns the window of `size` keys in the layers that `layer_types` names or, without that field,
/// in those that `slides` accepts. `None` if no layer has it.
pub(crate) fn read(
    fields: &Fields<'_>,
    n_layers: usize,
    size: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<Option<SlidingWindow>, String> {
    let layers: Vec<usize> = match fields.0.get("layer_types") {
        None | Some(Value::Null) => return in_layers(n_layers, size, slides),
        Some(Value::Array(types)) if types.len() == n_layers => {
            let known = |value: &&Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
            if let Some(other) = types.iter().find(|value| !known(value)) {
                let [full, sliding] = TYPES;
                return Err(format!(
                    "`layer_types` names {}; Rewire supports \"{full}\" and \"{sliding}\"",
                    shown(other)
                ));
            }
            (0..n_layers).filter(|&layer| types[layer].as_str() == Some(TYPES[1])).collect()
        }
        Some(other) => {
            return Err(format!(
                "`layer_types` is {}, not a list with a type for each of {n_layers} layers",
                shown(other)
            ));
        }
    };
    match (layers.is_empty(), size) {
        (true, _) => Ok(None),
        (false, Some(size)) => Ok(Some(SlidingWindow { size, layers })),
        (false, None) => Err("`layer_types` names \"sliding_attention\", and there is no `sliding_window`".to_owned()),
    }
}

/// Returns the window of `size` keys in the layers that `slides` accepts. `None` if no layer has
/// it.
pub(crate) fn in_layers(
    n_layers: usize,
    size: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<Option<SlidingWindow>, String> {
    let Some(size) = size else { return Ok(None) };
    let layers = layers(n_layers, slides)?;
    Ok((!layers.is_empty()).then_some(SlidingWindow { size, layers }))
}

/// Returns the layers that `accepts` accepts.
pub(crate) fn layers(n_layers: usize, accepts: impl Fn(usize) -> bool) -> Result<Vec<usize>, String> {
    if n_layers > MOST_LAYERS {
        return Err(format!(
            "the model has {n_layers} layers; if layers differ from each other, at most {MOST_LAYERS} are supported"
        ));
    }
    Ok((0..n_layers).filter(|&layer| accepts(layer)).collect())
}

/// Returns `layer_types`.
pub(crate) fn types(window: Option<&SlidingWindow>, n_layers: usize) -> Value {
    let slides = |layer: usize| window.is_some_and(|window| window.layers.contains(&layer));
    (0..n_layers).map(|layer| TYPES[usize::from(slides(layer))]).collect::<Vec<_>>().into()
}
