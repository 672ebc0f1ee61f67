//! The mapping between the tensors of a Hugging Face file and the weights of the model, in both
//! directions. The names of the tensors and how they are stored are those of the
//! [family](crate::families).

use std::ops::Range;

use rewire_hooks::NormKind;

use crate::config::{Architecture, MlpKind, QueryKeyNorms, TransformerConfig};
use crate::families::family::{Gains, Orientation, QkvRows};
use crate::families::registry::family;
use crate::weights::weight_name::WeightName;

/// Returns the name of a weight's only or first tensor in a file, without the `transformer.` prefix
/// of some GPT-2 files.
pub(crate) fn file_name(architecture: Architecture, part: WeightName, layer: usize) -> String {
    family(architecture).names(part, layer).into_iter().next().unwrap_or_default()
}

/// Returns whether a model's files hold this weight. A model without some biases has zeros instead.
pub(crate) fn is_stored(config: &TransformerConfig, part: WeightName) -> bool {
    match part {
        WeightName::WPos => !config.is_rotary(),
        WeightName::Ln1Gain => config.pre_norms,
        WeightName::Ln2Gain => config.pre_norms && !config.shared_norm,
        WeightName::Ln1Bias | WeightName::Ln2Bias => config.norm == NormKind::Layer && is_stored(config, gain_of(part)),
        WeightName::FinalBias => config.norm == NormKind::Layer,
        WeightName::BQkv => config.attention_bias && config.attention_input_bias,
        WeightName::BO => config.attention_bias && config.attention_output_bias,
        WeightName::QueryGain | WeightName::KeyGain => config.query_key_norms != QueryKeyNorms::None,
        WeightName::AfterAttentionGain | WeightName::AfterMlpGain => config.post_norms,
        WeightName::WGate => config.mlp == MlpKind::Gated,
        WeightName::BGate => config.mlp == MlpKind::Gated && config.mlp_bias,
        WeightName::BIn | WeightName::BOut => config.mlp_bias,
        WeightName::WU => !config.tied_unembedding,
        WeightName::BU => config.unembedding_bias,
        _ => true,
    }
}

/// Returns the gain of the norm of a bias.
fn gain_of(bias: WeightName) -> WeightName {
    match bias {
        WeightName::Ln1Bias => WeightName::Ln1Gain,
        _ => WeightName::Ln2Gain,
    }
}

/// Returns whether a file may hold this tensor although the loader does not read it: mask and
/// rotary buffers of old exports.
pub(crate) fn is_buffer(name: &str) -> bool {
    [".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}

/// Returns the weight's shape in the model.
pub(crate) fn shape(config: &TransformerConfig, part: WeightName) -> Vec<usize> {
    let TransformerConfig { d_model, d_mlp, d_vocab, n_ctx, d_head, .. } = *config;
    let width = config.n_heads * d_head;
    let qkv = width + 2 * config.n_key_value_heads() * d_head;
    match part {
        WeightName::WE => vec![d_vocab, d_model],
        WeightName::WPos => vec![n_ctx, d_model],
        WeightName::WQkv => vec![d_model, qkv],
        WeightName::BQkv => vec![qkv],
        WeightName::QueryGain if config.query_key_norms == QueryKeyNorms::AllHeads => vec![width],
        WeightName::KeyGain if config.query_key_norms == QueryKeyNorms::AllHeads => vec![(qkv - width) / 2],
        WeightName::QueryGain | WeightName::KeyGain => vec![d_head],
        WeightName::WO => vec![width, d_model],
        WeightName::WGate | WeightName::WIn => vec![d_model, d_mlp],
        WeightName::BGate | WeightName::BIn => vec![d_mlp],
        WeightName::WOut => vec![d_mlp, d_model],
        WeightName::WU => vec![d_model, d_vocab],
        WeightName::BU => vec![d_vocab],
        WeightName::Ln1Gain
        | WeightName::Ln1Bias
        | WeightName::BO
        | WeightName::AfterAttentionGain
        | WeightName::Ln2Gain
        | WeightName::Ln2Bias
        | WeightName::BOut
        | WeightName::AfterMlpGain
        | WeightName::FinalGain
        | WeightName::FinalBias => vec![d_model],
    }
}

/// Returns the shape of a weight that is a matrix.
pub(crate) fn matrix_shape(config: &TransformerConfig, part: WeightName) -> [usize; 2] {
    let shape = shape(config, part);
    [shape[0], shape[1]]
}

/// Returns whether the file holds the weight transposed, `[out, in]`.
pub(crate) fn is_transposed(architecture: Architecture, part: WeightName) -> bool {
    use WeightName::{WGate, WIn, WO, WOut, WQkv, WU};
    let is_linear = matches!(part, WQkv | WO | WGate | WIn | WOut);
    part == WU || is_linear && family(architecture).linear == Orientation::OutIn
}

/// A tensor of a file, and its rows that belong to a weight.
pub(crate) struct FileTensor {
    pub(crate) name: String,
    /// The shape of the whole tensor.
    pub(crate) shape: Vec<usize>,
    pub(crate) rows: Range<usize>,
}

impl FileTensor {
    /// Returns the weight's values in the whole tensor.
    pub(crate) fn range(&self) -> Range<usize> {
        let width: usize = self.shape[1..].iter().product();
        self.rows.start * width..self.rows.end * width
    }
}

/// Returns a weight's tensors in the file. If there are several, the weight consists of the rows of
/// the first, then those of the next.
pub(crate) fn file_tensors(config: &TransformerConfig, part: WeightName, layer: usize) -> Vec<FileTensor> {
    let family = family(config.architecture);
    let shape = file_shape(config, part);
    let names = family.names(part, layer);
    let shared = config.n_key_value_heads() * config.d_head;
    let rows = match names.len() {
        1 => vec![shape[0]],
        _ => vec![config.n_heads * config.d_head, shared, shared],
    };
    // Rows of other weights in the same tensor, before and after those of this one.
    let [before, after] = match part {
        WeightName::WPos => [family.unused_positions, 0],
        _ => family.fused_with(part).map(|others| others.iter().map(|of| file_shape(config, *of)[0]).sum()),
    };
    let tensor = |(name, rows): (String, usize)| FileTensor {
        name,
        shape: [&[before + rows + after], &shape[1..]].concat(),
        rows: before..before + rows,
    };
    names.into_iter().zip(rows).map(tensor).collect()
}

/// Returns the shape of a weight as the file stores it.
fn file_shape(config: &TransformerConfig, part: WeightName) -> Vec<usize> {
    let mut shape = shape(config, part);
    if is_transposed(config.architecture, part) {
        shape.reverse();
    }
    shape
}

/// Converts a weight from file layout to model layout.
pub(crate) fn to_model(config: &TransformerConfig, part: WeightName, mut data: Vec<f32>) -> Vec<f32> {
    let family = family(config.architecture);
    if family.qkv == QkvRows::ByHead && matches!(part, WeightName::WQkv | WeightName::BQkv) {
        // Rows (head, qkv, d_head) become (qkv, head, d_head).
        data = regroup(&data, config.n_heads, 3, config.d_head);
    }
    if is_transposed(config.architecture, part) {
        let model = shape(config, part);
        data = transpose(&data, model[1], model[0]);
    }
    if family.gains == Gains::FromOne && part.is_gain() {
        data.iter_mut().for_each(|gain| *gain += 1.0);
    }
    data
}

/// Returns the order of the `rows` rows of a weight's tensors in the model: row `i` of the model's
/// order is the row of the file at place `i`. `None` if the order is the same.
pub(crate) fn row_order(config: &TransformerConfig, part: WeightName, rows: usize) -> Option<Vec<usize>> {
    let by_head = family(config.architecture).qkv == QkvRows::ByHead && part == WeightName::WQkv;
    by_head.then(|| {
        let (n_heads, d_head) = (config.n_heads, config.d_head);
        let place = |row: usize| {
            let (input, head, at) = (row / (n_heads * d_head), row / d_head % n_heads, row % d_head);
            (head * 3 + input) * d_head + at
        };
        (0..rows).map(place).collect()
    })
}

/// Converts a weight from model layout to file layout.
pub(crate) fn to_file(config: &TransformerConfig, part: WeightName, mut data: Vec<f32>) -> Vec<f32> {
    let family = family(config.architecture);
    if family.gains == Gains::FromOne && part.is_gain() {
        data.iter_mut().for_each(|gain| *gain -= 1.0);
    }
    if is_transposed(config.architecture, part) {
        let model = shape(config, part);
        data = transpose(&data, model[0], model[1]);
    }
    if family.qkv == QkvRows::ByHead && matches!(part, WeightName::WQkv | WeightName::BQkv) {
        data = regroup(&data, 3, config.n_heads, config.d_head);
    }
    data
}

/// Transposes `[rows, columns]` to `[columns, rows]`.
fn transpose(data: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| data[r * columns + c])).collect()
}

/// Regroups rows from `(outer, inner, block)` to `(inner, outer, block)`, for rows of any length.
fn regroup(data: &[f32], outer: usize, inner: usize, block: usize) -> Vec<f32> {
    let run = block * (data.len() / (outer * inner * block));
    let chunk = |o: usize, i: usize| &data[(o * inner + i) * run..][..run];
    (0..inner).flat_map(|i| (0..outer).flat_map(move |o| chunk(o, i).iter().copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::weight_name::BLOCK_PARTS;

    #[test]
    fn file_layout_round_trips() {
        for config in Architecture::ALL.map(TransformerConfig::tiny) {
            let parts = BLOCK_PARTS.into_iter().chain([WeightName::WE, WeightName::WU]);
            for part in parts.filter(|&part| is_stored(&config, part)) {
                let len = shape(&config, part).iter().product::<usize>();
                let data: Vec<f32> = (0..len).map(|i| i as f32).collect();
                assert_eq!(to_model(&config, part, to_file(&config, part, data.clone())), data, "{part:?}");
                let stored = file_tensors(&config, part, 0);
                assert_eq!(stored.iter().map(|tensor| tensor.range().len()).sum::<usize>(), len);
            }
        }
    }

    #[test]
    fn neox_attention_rows_are_regrouped_into_q_k_v() {
        // Two heads of one dimension: q0 k0 v0 q1 k1 v1 becomes q0 q1 k0 k1 v0 v1.
        assert_eq!(regroup(&[0., 1., 2., 3., 4., 5.], 2, 3, 1), [0., 3., 1., 4., 2., 5.]);
    }
}
