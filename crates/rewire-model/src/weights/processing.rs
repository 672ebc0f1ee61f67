//! Weight processing: makes weights easier to interpret, and keeps the logits up to one constant
//! per position.

use burn::tensor::{Tensor, backend::Backend};
use rewire_hooks::NormKind;

use crate::config::TransformerConfig;
use crate::network::attention::HeadInput;
use crate::network::linear::frozen;
use crate::network::matrix::{Matrix, centered};
use crate::network::norm::Norm;
use crate::network::transformer::Transformer;
use rewire_tensor::matmul;

/// The processing steps to apply, in the order of the fields. All are on by default, as in
/// TransformerLens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightProcessing {
    /// Folds every norm's gain and bias into the weights that read its output, and centers those
    /// weights over `d_model`. The norm's output is centered, and centering therefore changes
    /// nothing else. RMSNorm does not center: its gain is folded, and nothing is centered.
    pub fold_norm: bool,
    /// Centers the weights that write to the residual stream over `d_model`: embeddings, `W_O`,
    /// `b_O`, `W_out`, `b_out`. Every reader centers its input, and nothing else changes. Left out
    /// for models with RMSNorm, whose readers do not center.
    pub center_writing_weights: bool,
    /// Centers the unembedding over the vocabulary. All logits at a position shift by one constant.
    /// Left out for models with RMSNorm, whose processing keeps the logits.
    pub center_unembed: bool,
    /// Moves the value biases into the attention's output bias. Patterns sum to one, and
    /// `b_V @ W_O` is added for every pattern.
    pub fold_value_biases: bool,
}

impl Default for WeightProcessing {
    fn default() -> Self {
        Self { fold_norm: true, center_writing_weights: true, center_unembed: true, fold_value_biases: true }
    }
}

impl WeightProcessing {
    /// Returns settings that keep the weights as the files have them.
    #[must_use]
    pub fn none() -> Self {
        Self { fold_norm: false, center_writing_weights: false, center_unembed: false, fold_value_biases: false }
    }
}

impl<B: Backend> Transformer<B> {
    /// Returns the model with processed weights.
    #[must_use]
    pub fn processed(mut self, processing: WeightProcessing) -> Self {
        if processing.fold_norm {
            self.fold_norm();
        }
        let centers = self.config.norm == NormKind::Layer && self.config.pre_norms;
        if processing.center_writing_weights && centers {
            self.center_writing_weights();
        }
        if processing.center_unembed && centers {
            self.center_unembed();
        }
        if processing.fold_value_biases {
            self.fold_value_biases();
        }
        self
    }

    fn fold_norm(&mut self) {
        for block in &mut self.blocks {
            let (attention, mlp) = (&mut block.attention, &mut block.mlp);
            if let Some((w, b)) = folded(&mut block.ln1, &attention.w_qkv, attention.b_qkv.val()) {
                attention.w_qkv = w;
                attention.b_qkv = frozen(b);
            }
            if let Some(gate) = &mut mlp.gate
                && let Some((w, b)) = folded(&mut block.ln2.clone(), &gate.w, gate.b.val())
            {
                gate.w = w;
                gate.b = frozen(b);
            }
            if let Some((w, b)) = folded(&mut block.ln2, &mlp.w_in, mlp.b_in.val()) {
                mlp.w_in = w;
                mlp.b_in = frozen(b);
            }
        }
        let has_bias = self.b_u.is_some() || self.final_norm.bias.is_some();
        let w_u = self.unembedding_matrix();
        let b_u = match &self.b_u {
            Some(b_u) => b_u.val(),
            None => Tensor::zeros([self.config.d_vocab], &w_u.device()),
        };
        if let Some((w_u, b_u)) = folded(&mut self.final_norm, &w_u, b_u) {
            self.w_u = Some(w_u);
            self.b_u = has_bias.then(|| frozen(b_u));
        }
    }

    fn center_writing_weights(&mut self) {
        // A tied unembedding keeps its mean: it reads the residual stream and does not write to it.
        self.w_u = Some(self.unembedding_matrix());
        self.w_e = self.w_e.clone().centered(1);
        self.w_pos = self.w_pos.take().map(|w_pos| frozen(centered(w_pos.val(), 1)));
        for block in &mut self.blocks {
            block.attention.w_o = block.attention.w_o.clone().centered(1);
            block.attention.b_o = frozen(centered(block.attention.b_o.val(), 0));
            block.mlp.w_out = block.mlp.w_out.clone().centered(1);
            block.mlp.b_out = frozen(centered(block.mlp.b_out.val(), 0));
        }
    }

    fn center_unembed(&mut self) {
        self.w_u = Some(self.unembedding_matrix().centered(1));
        self.b_u = self.b_u.take().map(|b_u| frozen(centered(b_u.val(), 0)));
    }

    /// Returns the unembedding. If it is tied to the embedding, it is a matrix of its own from now
    /// on.
    fn unembedding_matrix(&self) -> Matrix<B> {
        match &self.w_u {
            Some(w_u) => w_u.clone(),
            None => self.w_e.clone().transposed(),
        }
    }

    fn fold_value_biases(&mut self) {
        let TransformerConfig { n_heads, d_head, d_model, .. } = self.config;
        let (shared, copies) = (self.config.n_key_value_heads(), self.config.heads_per_key_value_head());
        if self.config.norm == NormKind::Rms && !self.config.attention_bias {
            // The biases are zeros, and no norm's bias was folded into them.
            return;
        }
        for block in &mut self.blocks {
            let attention = &mut block.attention;
            let b_qkv = attention.b_qkv.val();
            let [from, width] = attention.columns(HeadInput::V);
            // Each head mixes the values of its key/value head.
            let b_v = b_qkv.clone().narrow(0, from, width).reshape([shared, 1, d_head]);
            let b_v = b_v.expand([shared, copies, d_head]).reshape([1, n_heads * d_head]);
            let moved = matmul(b_v, attention.w_o.val()).reshape([d_model]);
            attention.b_o = frozen(attention.b_o.val() + moved);
            let zeros = Tensor::zeros([width], &b_qkv.device());
            attention.b_qkv = frozen(Tensor::cat(vec![b_qkv.narrow(0, 0, from), zeros], 0));
        }
    }
}

/// Removes the norm's gain and bias, and folds them into the weights `[d_model, to]` and the bias
/// `[to]` that read its output.
fn folded<B: Backend>(norm: &mut Norm<B>, w: &Matrix<B>, b: Tensor<B, 1>) -> Option<(Matrix<B>, Tensor<B, 1>)> {
    let (gain, bias) = norm.take_affine()?;
    let [d_model, to] = w.dims();
    let b = match bias {
        Some(bias) => b + matmul(bias.reshape([1, d_model]), w.val()).reshape([to]),
        None => b,
    };
    let w = w.clone().times_rows(gain);
    Some(match norm.kind {
        Some(NormKind::Layer) => (w.centered(0), b),
        _ => (w, b),
    })
}
