//! The mapping between the tensors of a Hugging Face file and the weights of the model, for both
//! architectures and both directions.
//!
//! | weight | GPT-2 | GPT-NeoX |
//! |---|---|---|
//! | token embedding | `wte.weight` | `gpt_neox.embed_in.weight` |
//! | position embedding | `wpe.weight` | none |
//! | norm before attention | `h.L.ln_1` | `gpt_neox.layers.L.input_layernorm` |
//! | queries, keys, values | `h.L.attn.c_attn` | `gpt_neox.layers.L.attention.query_key_value` |
//! | attention output | `h.L.attn.c_proj` | `gpt_neox.layers.L.attention.dense` |
//! | norm before the MLP | `h.L.ln_2` | `gpt_neox.layers.L.post_attention_layernorm` |
//! | MLP in | `h.L.mlp.c_fc` | `gpt_neox.layers.L.mlp.dense_h_to_4h` |
//! | MLP out | `h.L.mlp.c_proj` | `gpt_neox.layers.L.mlp.dense_4h_to_h` |
//! | final norm | `ln_f` | `gpt_neox.final_layer_norm` |
//! | unembedding | tied to `wte.weight` | `embed_out.weight` |
//!
//! The names from the first norm to the final norm continue with `.weight` and `.bias`. GPT-2
//! stores linear weights as `[in, out]`, with queries, keys and values as
//! `[in, (qkv head d_head)]`. GPT-NeoX stores linear weights and the unembedding as `[out, in]`,
//! with queries, keys and values as `[(head qkv d_head), in]`.

use crate::config::{Architecture, TransformerConfig};

/// A weight of the model, in the model's own layout (`[in, out]`; queries, keys and values in that
/// order).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WeightName {
    WE,
    WPos,
    Ln1Gain,
    Ln1Bias,
    WQkv,
    BQkv,
    WO,
    BO,
    Ln2Gain,
    Ln2Bias,
    WIn,
    BIn,
    WOut,
    BOut,
    FinalGain,
    FinalBias,
    WU,
}

/// The weights of one block.
pub(crate) const BLOCK_PARTS: [WeightName; 12] = [
    WeightName::Ln1Gain,
    WeightName::Ln1Bias,
    WeightName::WQkv,
    WeightName::BQkv,
    WeightName::WO,
    WeightName::BO,
    WeightName::Ln2Gain,
    WeightName::Ln2Bias,
    WeightName::WIn,
    WeightName::BIn,
    WeightName::WOut,
    WeightName::BOut,
];

/// Returns the tensor's name in a file, without the `transformer.` prefix of some GPT-2 files.
pub(crate) fn file_name(architecture: Architecture, part: WeightName, layer: usize) -> String {
    let inside = |gpt2: &str, neox: &str| match architecture {
        Architecture::Gpt2 => format!("h.{layer}.{gpt2}"),
        Architecture::GptNeoX => format!("gpt_neox.layers.{layer}.{neox}"),
    };
    let outside = |gpt2: &str, neox: &str| match architecture {
        Architecture::Gpt2 => gpt2.to_owned(),
        Architecture::GptNeoX => neox.to_owned(),
    };
    match part {
        WeightName::WE => outside("wte.weight", "gpt_neox.embed_in.weight"),
        WeightName::WPos => outside("wpe.weight", "gpt_neox.embed_pos.weight"),
        WeightName::Ln1Gain => inside("ln_1.weight", "input_layernorm.weight"),
        WeightName::Ln1Bias => inside("ln_1.bias", "input_layernorm.bias"),
        WeightName::WQkv => inside("attn.c_attn.weight", "attention.query_key_value.weight"),
        WeightName::BQkv => inside("attn.c_attn.bias", "attention.query_key_value.bias"),
        WeightName::WO => inside("attn.c_proj.weight", "attention.dense.weight"),
        WeightName::BO => inside("attn.c_proj.bias", "attention.dense.bias"),
        WeightName::Ln2Gain => inside("ln_2.weight", "post_attention_layernorm.weight"),
        WeightName::Ln2Bias => inside("ln_2.bias", "post_attention_layernorm.bias"),
        WeightName::WIn => inside("mlp.c_fc.weight", "mlp.dense_h_to_4h.weight"),
        WeightName::BIn => inside("mlp.c_fc.bias", "mlp.dense_h_to_4h.bias"),
        WeightName::WOut => inside("mlp.c_proj.weight", "mlp.dense_4h_to_h.weight"),
        WeightName::BOut => inside("mlp.c_proj.bias", "mlp.dense_4h_to_h.bias"),
        WeightName::FinalGain => outside("ln_f.weight", "gpt_neox.final_layer_norm.weight"),
        WeightName::FinalBias => outside("ln_f.bias", "gpt_neox.final_layer_norm.bias"),
        WeightName::WU => outside("lm_head.weight", "embed_out.weight"),
    }
}

/// Returns whether the files of a model hold this weight of a block. A model without attention
/// biases has zeros instead.
pub(crate) fn is_stored(config: &TransformerConfig, part: WeightName) -> bool {
    config.attention_bias || !matches!(part, WeightName::BQkv | WeightName::BO)
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
    let TransformerConfig { d_model, d_mlp, d_vocab, n_ctx, .. } = *config;
    let width = config.n_heads * config.d_head;
    match part {
        WeightName::WE => vec![d_vocab, d_model],
        WeightName::WPos => vec![n_ctx, d_model],
        WeightName::WQkv => vec![d_model, 3 * width],
        WeightName::BQkv => vec![3 * width],
        WeightName::WO => vec![width, d_model],
        WeightName::WIn => vec![d_model, d_mlp],
        WeightName::BIn => vec![d_mlp],
        WeightName::WOut => vec![d_mlp, d_model],
        WeightName::WU => vec![d_model, d_vocab],
        WeightName::Ln1Gain
        | WeightName::Ln1Bias
        | WeightName::BO
        | WeightName::Ln2Gain
        | WeightName::Ln2Bias
        | WeightName::BOut
        | WeightName::FinalGain
        | WeightName::FinalBias => vec![d_model],
    }
}

/// Returns whether the file holds the weight transposed, `[out, in]`.
fn is_transposed(architecture: Architecture, part: WeightName) -> bool {
    part == WeightName::WU
        || (architecture == Architecture::GptNeoX
            && matches!(part, WeightName::WQkv | WeightName::WO | WeightName::WIn | WeightName::WOut))
}

/// Returns the weight's shape in the file.
pub(crate) fn file_shape(config: &TransformerConfig, part: WeightName) -> Vec<usize> {
    let mut shape = shape(config, part);
    if is_transposed(config.architecture, part) {
        shape.reverse();
    }
    shape
}

/// Converts a weight from file layout to model layout.
pub(crate) fn to_model(config: &TransformerConfig, part: WeightName, mut data: Vec<f32>) -> Vec<f32> {
    let TransformerConfig { n_heads, d_head, architecture, .. } = *config;
    if architecture == Architecture::GptNeoX && matches!(part, WeightName::WQkv | WeightName::BQkv) {
        // Rows (head, qkv, d_head) become (qkv, head, d_head).
        data = regroup(&data, n_heads, 3, d_head);
    }
    if is_transposed(architecture, part) {
        let file = file_shape(config, part);
        data = transpose(&data, file[0], file[1]);
    }
    data
}

/// Converts a weight from model layout to file layout.
pub(crate) fn to_file(config: &TransformerConfig, part: WeightName, mut data: Vec<f32>) -> Vec<f32> {
    let TransformerConfig { n_heads, d_head, architecture, .. } = *config;
    if is_transposed(architecture, part) {
        let model = shape(config, part);
        data = transpose(&data, model[0], model[1]);
    }
    if architecture == Architecture::GptNeoX && matches!(part, WeightName::WQkv | WeightName::BQkv) {
        data = regroup(&data, 3, n_heads, d_head);
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

    #[test]
    fn file_layout_round_trips() {
        for config in [TransformerConfig::gpt2(1, 2, 8, 5, 4), TransformerConfig::neox(1, 2, 8, 5, 4)] {
            for part in BLOCK_PARTS.into_iter().chain([WeightName::WE, WeightName::WU]) {
                let len = shape(&config, part).iter().product::<usize>();
                let data: Vec<f32> = (0..len).map(|i| i as f32).collect();
                assert_eq!(to_model(&config, part, to_file(&config, part, data.clone())), data, "{part:?}");
            }
        }
    }

    #[test]
    fn neox_attention_rows_are_regrouped_into_q_k_v() {
        // Two heads of one dimension: q0 k0 v0 q1 k1 v1 becomes q0 q1 k0 k1 v0 v1.
        assert_eq!(regroup(&[0., 1., 2., 3., 4., 5.], 2, 3, 1), [0., 3., 1., 4., 2., 5.]);
    }
}
