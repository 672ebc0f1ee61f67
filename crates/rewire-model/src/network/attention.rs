//! Causal multi-head attention.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rewire_hooks::{Hook, HookPoint, Site};

use crate::kernels::queries::{Queries, ScoreRule};
use crate::kernels::{mix, scores};
use crate::network::linear::linear;
use crate::network::norm::Norm;
use crate::network::rotary::Rotary;

/// One of the three input projections of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadInput {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
}

/// Weights of one attention layer.
#[derive(Module, Debug)]
pub(crate) struct Attention<B: Backend> {
    /// `[d_model, (head + 2 * key/value head) * d_head]`: all queries, then keys, then values.
    pub(crate) w_qkv: Param<Tensor<B, 2>>,
    /// `[(head + 2 * key/value head) * d_head]`.
    pub(crate) b_qkv: Param<Tensor<B, 1>>,
    /// The norms of the queries and of the keys of each head, in models that have them.
    pub(crate) query_norm: Option<Norm<B>>,
    pub(crate) key_norm: Option<Norm<B>>,
    /// `[head * d_head, d_model]`.
    pub(crate) w_o: Param<Tensor<B, 2>>,
    /// `[d_model]`.
    pub(crate) b_o: Param<Tensor<B, 1>>,
    /// The norm of the output, in models with post-norms.
    pub(crate) post_norm: Option<Norm<B>>,
    pub(crate) n_heads: usize,
    pub(crate) n_key_value_heads: usize,
    #[module(skip)]
    pub(crate) rule: ScoreRule,
}

/// The properties of a run that attention in one block needs.
#[derive(Debug, Clone)]
pub(crate) struct AttentionContext<B: Backend> {
    /// The first computed position.
    pub(crate) first: usize,
    /// Rotation angles of the queries and of the keys, in rotary models.
    pub(crate) rotary: Option<[Rotary<B>; 2]>,
    /// Keys and values of the positions before `first`.
    pub(crate) earlier: Option<KeysValues<B>>,
    /// The positions at which queries are computed; `None` for all.
    pub(crate) read: Option<ReadRows<B>>,
}

/// Keys (rotated in rotary models) and values of one layer, `[prompts, earlier, key/value head,
/// d_head]`. A batch may hold its prompts several times: row `r` of the batch uses those of prompt
/// `r % prompts`.
#[derive(Debug, Clone)]
pub(crate) struct KeysValues<B: Backend> {
    pub(crate) keys: Tensor<B, 4>,
    pub(crate) values: Tensor<B, 4>,
}

/// The positions that are read, as many in each row of the batch.
#[derive(Debug, Clone)]
pub(crate) struct ReadRows<B: Backend> {
    /// The positions, row by row, counted from the prompt's start.
    pub(crate) positions: Vec<usize>,
    /// The number of positions of each row.
    pub(crate) per_row: usize,
    /// Their indices into the flattened batch of computed positions, `[batch * per_row]`.
    index: Tensor<B, 1, Int>,
}

impl<B: Backend> ReadRows<B> {
    /// Makes the index for `positions`, `per_row` of each row, in a batch that computes `pos`
    /// positions from `first` on.
    pub(crate) fn new(positions: &[usize], per_row: usize, first: usize, pos: usize, device: &B::Device) -> Self {
        let index = |(i, position): (usize, &usize)| (i / per_row * pos + position - first) as i32;
        let rows: Vec<i32> = positions.iter().enumerate().map(index).collect();
        let index = Tensor::from_data(TensorData::new(rows, [positions.len()]), device);
        Self { positions: positions.to_vec(), per_row, index }
    }

    /// Gathers these positions from `x` `[batch, pos, d_model]`. Returns
    /// `[batch, per_row, d_model]`.
    pub(crate) fn select(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, pos, width] = x.dims();
        x.reshape([batch * pos, width]).select(0, self.index.clone()).reshape([batch, self.per_row, width])
    }
}

impl<B: Backend> Attention<B> {
    /// Returns the attention output, `[batch, pos, d_model]`, or `[batch, read, d_model]` if only
    /// some positions of each row are read. `x` is the norm's output, `[batch, pos, d_model]`.
    pub(crate) fn forward<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        context: AttentionContext<B>,
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let at = |site| HookPoint::block(layer, site);
        let AttentionContext { first, rotary, earlier, read } = context;
        let [q, k, v] = self.queries_keys_values(x, read.as_ref());
        let mut q = hook.visit(at(Site::Q), q); // [batch, query, head, d_head]
        let mut k = hook.visit(at(Site::K), k); // [batch, pos, key/value head, d_head]
        let v = hook.visit(at(Site::V), v);
        if let Some([rotary_q, rotary_k]) = rotary {
            q = hook.visit(at(Site::RotQ), rotary_q.rotate(q));
            k = hook.visit(at(Site::RotK), rotary_k.rotate(k));
        }
        let queries = match read {
            Some(ReadRows { positions, per_row, .. }) => Queries::Each { positions, per_row },
            None => Queries::From(first),
        };
        let (keys, values) = earlier.map(|e| (e.keys, e.values)).unzip();
        // [batch, head, query, key]
        let scores = hook.visit(at(Site::AttnScores), scores(q, k, keys, &queries, self.rule));
        let pattern = hook.visit(at(Site::Pattern), softmax(scores, 3));
        let z = hook.visit(at(Site::Z), mix(pattern, v, values)); // [batch, query, head, d_head]

        let [batch, n, n_heads, d_head] = z.dims();
        let out = linear(z.reshape([batch, n, n_heads * d_head]), self.w_o.val(), self.b_o.val());
        let out = match self.post_norm {
            Some(_) => self.after_norm(hook.visit(at(Site::AttnBeforeNorm), out), layer, hook),
            None => out,
        };
        hook.visit(at(Site::AttnOut), out)
    }

    /// Applies the norm of the output, if there is one, to `x` `[batch, pos, d_model]`.
    pub(crate) fn after_norm<H: Hook<B>>(&self, x: Tensor<B, 3>, layer: usize, hook: &mut H) -> Tensor<B, 3> {
        let points = [Site::Ln1PostScale, Site::Ln1PostNormalized].map(|site| HookPoint::block(layer, site));
        match &self.post_norm {
            Some(norm) => norm.forward(x, points, hook),
            None => x,
        }
    }

    /// Applies the norm of queries or keys, if there is one, to those of some heads,
    /// `[batch, pos, head, d_head]`.
    pub(crate) fn normed(&self, input: HeadInput, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let norm = match input {
            HeadInput::Q => &self.query_norm,
            HeadInput::K => &self.key_norm,
            HeadInput::V => &None,
        };
        match norm {
            Some(norm) => norm.of_heads(x),
            None => x,
        }
    }

    /// Returns the columns of [`w_qkv`](Self::w_qkv) that make queries, keys or values: the first,
    /// and their number.
    pub(crate) fn columns(&self, input: HeadInput) -> [usize; 2] {
        let queries = self.w_o.dims()[0]; // head * d_head
        let shared = queries / self.n_heads * self.n_key_value_heads;
        match input {
            HeadInput::Q => [0, queries],
            HeadInput::K => [queries, shared],
            HeadInput::V => [queries + shared, shared],
        }
    }

    /// Mixes values by causal attention from queries to keys: see
    /// [`Transformer::attend`](crate::Transformer::attend).
    pub(crate) fn attend(
        &self,
        q: Tensor<B, 4>,
        k: Tensor<B, 4>,
        v: Tensor<B, 4>,
        earlier: Option<[Tensor<B, 4>; 2]>,
    ) -> Tensor<B, 4> {
        let (earlier_keys, earlier_values) = earlier.map_or((None, None), |[keys, values]| (Some(keys), Some(values)));
        let first = earlier_keys.as_ref().map_or(0, |keys| keys.dims()[1]);
        let scores = scores(q, k, earlier_keys, &Queries::From(first), self.rule);
        mix(softmax(scores, 3), v, earlier_values)
    }

    /// Returns queries, keys and values, `[batch, pos, head, d_head]`, each with its own heads. If
    /// `read` is given, queries are computed only at those positions.
    fn queries_keys_values(&self, x: Tensor<B, 3>, read: Option<&ReadRows<B>>) -> [Tensor<B, 4>; 3] {
        let inputs = [HeadInput::Q, HeadInput::K, HeadInput::V];
        let [[_, queries], [_, shared], _] = inputs.map(|input| self.columns(input));
        let d_head = queries / self.n_heads;
        let (w, b) = (self.w_qkv.val(), self.b_qkv.val());
        let part = |x: &Tensor<B, 3>, from: usize, width: usize| {
            let [batch, pos, _] = x.dims();
            x.clone().narrow(2, from, width).reshape([batch, pos, width / d_head, d_head])
        };
        let parts = match read {
            None => {
                let qkv = linear(x, w, b); // [batch, pos, (head + 2 * key/value head) * d_head]
                inputs.map(|input| self.columns(input)).map(|[from, width]| part(&qkv, from, width))
            }
            Some(read) => {
                let q =
                    linear(read.select(x.clone()), w.clone().narrow(1, 0, queries), b.clone().narrow(0, 0, queries));
                let kv = linear(x, w.narrow(1, queries, 2 * shared), b.narrow(0, queries, 2 * shared));
                [part(&q, 0, queries), part(&kv, 0, shared), part(&kv, shared, shared)]
            }
        };
        let [q, k, v] = parts;
        [self.normed(HeadInput::Q, q), self.normed(HeadInput::K, k), v]
    }
}

/// Mixes values `[batch, pos, key/value head, d_head]` by a pattern `[batch, head, query, key]`.
/// Returns `[batch, query, head, d_head]`. The heads of the pattern share the values in equal
/// groups.
#[must_use]
pub fn mix_values<B: Backend>(pattern: Tensor<B, 4>, v: Tensor<B, 4>) -> Tensor<B, 4> {
    mix(pattern, v, None)
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use rewire_hooks::Recorder;

    use super::*;
    use crate::config::TransformerConfig;
    use crate::network::run::Run;
    use crate::network::transformer::Transformer;

    /// Returns the scores of query 2 of head 1 in each layer, and their literal values: `q @ k`
    /// over `sqrt(d_head)`, divided by the number of the layer, from 1.
    fn scores_and_literal_scores<B: Backend>() -> Vec<[f32; 2]> {
        let config = TransformerConfig { scores_by_inverse_layer: true, ..TransformerConfig::gpt2(3, 2, 16, 11, 6) };
        let model = Transformer::<B>::random(&config, 0, &Default::default());
        let mut recorder = Recorder::all();
        model.forward(Run::tokens(model.tokens(&[vec![3, 1, 4]]).unwrap()), &mut recorder).unwrap();
        let cache = recorder.into_cache();
        let mut found = Vec::new();
        for layer in 0..3 {
            let numbers =
                |site| -> Vec<f32> { cache.block::<4>(layer, site).unwrap().into_data().iter::<f32>().collect() };
            let (q, k, scores) = (numbers(Site::Q), numbers(Site::K), numbers(Site::AttnScores));
            for key in 0..3 {
                // [pos, head, d_head] with 2 heads of 8, and [head, query, key].
                let [q, k] = [(&q, 2), (&k, key)].map(|(of, pos)| &of[(pos * 2 + 1) * 8..][..8]);
                let dot: f32 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                found.push([scores[(3 + 2) * 3 + key], dot / 8.0_f32.sqrt() / (layer + 1) as f32]);
            }
        }
        found
    }

    #[test]
    fn scores_are_divided_by_the_layer_if_the_configuration_says_so() {
        for [found, literal] in
            [scores_and_literal_scores::<Flex>(), scores_and_literal_scores::<Autodiff<Flex>>()].concat()
        {
            assert!((found - literal).abs() <= 1e-5 * (1.0 + literal.abs()), "{found} is not {literal}");
        }
    }
}
