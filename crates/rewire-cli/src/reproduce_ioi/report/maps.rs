//! The maps that the report draws, and the names along their axes.

use ndarray::{Array2, ArrayView4, Axis, Ix2};
use rewire_analysis::Effects;
use rewire_report::charts::{self, HeatMapLabels};
use rewire_report::names::{self, numbered};
use rewire_report::{AttentionMap, Page};
use rewire_tasks::PromptPairs;

use crate::model::Source;

/// The names along the axes of the demo's maps.
pub(super) struct Labels {
    pub(super) layers: Vec<String>,
    pub(super) heads: Vec<String>,
    /// The first prompt's tokens, each with its position.
    pub(super) tokens: Vec<String>,
    /// The heads of all layers: `L0H0`, ..
    pub(super) all_heads: Vec<String>,
}

impl Labels {
    pub(super) fn new(source: &Source, pairs: &PromptPairs) -> Self {
        let (layers, heads) = (source.config.n_layers, source.config.n_heads);
        let tokens = match pairs.labels(0) {
            of_first if of_first.len() == pairs.width() => names::token_labels(&of_first),
            _ => names::of_axis("pos", pairs.width(), pairs),
        };
        Self {
            layers: numbered("L", layers),
            heads: numbered("H", heads),
            tokens,
            all_heads: rewire_report::head_edges::heads(layers, heads),
        }
    }

    pub(super) fn by_head(&self) -> [(&str, &[String]); 2] {
        [("layer", &self.layers), ("head", &self.heads)]
    }

    pub(super) fn by_position(&self) -> [(&str, &[String]); 2] {
        [("layer", &self.layers), ("position", &self.tokens)]
    }

    pub(super) fn heads_by_position(&self) -> [(&str, &[String]); 2] {
        [("head", &self.all_heads), ("position", &self.tokens)]
    }
}

/// The names of a chart's rows and columns.
pub(super) type AxisNames<'a> = [(&'a str, &'a [String]); 2];

/// Adds maps on one color scale.
pub(super) fn maps(page: &mut Page, maps: &[(String, Array2<f32>)], [rows, columns]: AxisNames) {
    let reach = charts::color_limit(maps.iter().map(|(_, map)| map.view()));
    for (title, map) in maps {
        page.chart(charts::heat_map(title, &map.view(), HeatMapLabels { rows, columns, reach }));
    }
}

/// Returns the mean over prompts: `[layer, head]`, `[layer, pos]`, or `[head, pos]` with the heads
/// of all layers.
pub(super) fn mean_map(effects: &Effects) -> Array2<f32> {
    let mean = effects.mean();
    let flat = match *mean.shape() {
        [layers, heads, positions] => mean.into_shape_with_order((layers * heads, positions)).ok(),
        _ => mean.into_dimensionality::<Ix2>().ok(),
    };
    flat.unwrap_or_default()
}

/// Returns a prompt's tokens as text.
fn shown_tokens(pairs: &PromptPairs, prompt: usize) -> Vec<String> {
    let shown = |token: &String| if token == "<|endoftext|>" { "BOS ".to_owned() } else { token.clone() };
    pairs.labels(prompt).iter().map(shown).collect()
}

/// Returns the map of one head on one prompt; `values` are `[layer, head, dest, src]`.
pub(super) fn attention_map(
    name: String,
    values: ArrayView4<f32>,
    [layer, head]: [usize; 2],
    pairs: &PromptPairs,
    prompt: usize,
) -> AttentionMap {
    let n = pairs.labels(prompt).len();
    let values = values.index_axis(Axis(0), layer).index_axis(Axis(0), head).to_owned();
    let values = Array2::from_shape_fn((n, n), |(dest, src)| values[[dest, src]]);
    AttentionMap { name, tokens: shown_tokens(pairs, prompt), values }
}
