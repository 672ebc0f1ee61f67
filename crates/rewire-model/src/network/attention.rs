//! Causal multi-head attention.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rewire_hooks::{Hook, HookPoint, Site};

use crate::kernels::attend::{attend, pattern};
use crate::kernels::blocks::AttentionInputs;
use crate::kernels::queries::{Queries, ScoreRule};
use crate::kernels::{mix, scores};
use crate::network::backward::BackwardRule;
use crate::network::matrix::Matrix;
use crate::network::norm::Norm;
use crate::network::project::{project, project_parts};
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
    pub(crate) w_qkv: Matrix<B>,
    /// `[(head + 2 * key/value head) * d_head]`.
    pub(crate) b_qkv: Param<Tensor<B, 1>>,
    /// The norms of the queries and of the keys, in models that have them.
    pub(crate) query_norm: Option<Norm<B>>,
    pub(crate) key_norm: Option<Norm<B>>,
    /// `[head * d_head, d_model]`.
    pub(crate) w_o: Matrix<B>,
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
    /// What a backward pass computes.
    pub(crate) backward: BackwardRule,
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
        let AttentionContext { first, rotary, earlier, read, backward } = context;
        let [q, k, v] = self.queries_keys_values(x, read.as_ref(), backward);
        let mut q = hook.visit(at(Site::Q), q); // [batch, query, head, d_head]
        let mut k = hook.visit(at(Site::K), k); // [batch, pos, key/value head, d_head]
        let v = hook.visit(at(Site::V), v);
        if let Some([rotary_q, rotary_k]) = rotary {
            q = hook.visit(at(Site::RotQ), rotary_q.rotate(q));
            k = hook.visit(at(Site::RotK), rotary_k.rotate(k));
        }
        let (rule, [q, k, v]) = (self.score_rule(backward), backward.attended([q, k, v]));
        let queries = match read {
            Some(ReadRows { positions, per_row, .. }) => Queries::Each { positions, per_row },
            None => Queries::From(first),
        };
        let z = match [Site::AttnScores, Site::Pattern].iter().any(|site| hook.sees(at(*site))) {
            true => {
                let (keys, values) = earlier.map(|e| (e.keys, e.values)).unzip();
                // [batch, head, query, key]
                let scores = hook.visit(at(Site::AttnScores), scores(q, k, keys, &queries, rule));
                let pattern = hook.visit(at(Site::Pattern), pattern(scores, rule));
                mix(pattern, v, values)
            }
            false => {
                let earlier = earlier.map(|e| [e.keys, e.values]);
                attend(AttentionInputs { q, k, v, earlier }, &queries, rule)
            }
        };
        let z = hook.visit(at(Site::Z), z); // [batch, query, head, d_head]

        let [batch, n, n_heads, d_head] = z.dims();
        let out = project(z.reshape([batch, n, n_heads * d_head]), &self.w_o, self.b_o.val());
        let out = match self.post_norm {
            Some(_) => self.after_norm(hook.visit(at(Site::AttnBeforeNorm), out), layer, backward, hook),
            None => out,
        };
        hook.visit(at(Site::AttnOut), out)
    }

    /// Applies the norm of the output, if there is one, to `x` `[batch, pos, d_model]`.
    pub(crate) fn after_norm<H: Hook<B>>(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        backward: BackwardRule,
        hook: &mut H,
    ) -> Tensor<B, 3> {
        let points = [Site::Ln1PostScale, Site::Ln1PostNormalized].map(|site| HookPoint::block(layer, site));
        match &self.post_norm {
            Some(norm) => norm.forward(x, points, backward, hook),
            None => x,
        }
    }

    /// Applies the norm of queries or keys, if there is one, to those of some heads,
    /// `[batch, pos, head, d_head]`. All heads must be there if they share the norm.
    pub(crate) fn normed(&self, input: HeadInput, x: Tensor<B, 4>, backward: BackwardRule) -> Tensor<B, 4> {
        match self.norm_of(input) {
            Some(norm) => norm.of_heads(x, backward),
            None => x,
        }
    }

    /// Returns the norm of each head's queries or keys, if there is one.
    pub(crate) fn norm_of(&self, input: HeadInput) -> Option<&Norm<B>> {
        match input {
            HeadInput::Q => self.query_norm.as_ref(),
            HeadInput::K => self.key_norm.as_ref(),
            HeadInput::V => None,
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
    /// [`Transformer::attend_by_rule`](crate::Transformer::attend_by_rule).
    pub(crate) fn attend(
        &self,
        qkv: [Tensor<B, 4>; 3],
        earlier: Option<[Tensor<B, 4>; 2]>,
        backward: BackwardRule,
    ) -> Tensor<B, 4> {
        let first = earlier.as_ref().map_or(0, |[keys, _]| keys.dims()[1]);
        let [q, k, v] = backward.attended(qkv);
        attend(AttentionInputs { q, k, v, earlier }, &Queries::From(first), self.score_rule(backward))
    }

    /// Returns the rule of scores and patterns in a run with this backward rule.
    fn score_rule(&self, backward: BackwardRule) -> ScoreRule {
        ScoreRule { softmax_temperature: backward.softmax_temperature(), ..self.rule }
    }

    /// Returns queries, keys and values, `[batch, pos, head, d_head]`, each with its own heads. If
    /// `read` is given, queries are computed only at those positions.
    fn queries_keys_values(
        &self,
        x: Tensor<B, 3>,
        read: Option<&ReadRows<B>>,
        backward: BackwardRule,
    ) -> [Tensor<B, 4>; 3] {
        let inputs = [HeadInput::Q, HeadInput::K, HeadInput::V];
        let [[_, queries], [_, shared], _] = inputs.map(|input| self.columns(input));
        let d_head = queries / self.n_heads;
        let (w, b) = (&self.w_qkv, self.b_qkv.val());
        let (values, all) = (queries + shared, queries + 2 * shared);
        // [batch, pos, (head + 2 * key/value head) * d_head]
        let parts = match read {
            None => project_parts(x, w, [0..queries, queries..values, values..all], b),
            Some(read) => {
                let of_q = b.clone().narrow(0, 0, queries);
                #[expect(clippy::single_range_in_vec_init, reason = "one part of the columns, not its numbers")]
                let [q] = project_parts(read.select(x.clone()), w, [0..queries], of_q);
                let of_kv = b.narrow(0, queries, 2 * shared);
                let [k, v] = project_parts(x, w, [queries..values, values..all], of_kv);
                [q, k, v]
            }
        };
        let [q, k, v] = parts.map(|part| {
            let [batch, pos, width] = part.dims();
            part.reshape([batch, pos, width / d_head, d_head])
        });
        [self.normed(HeadInput::Q, q, backward), self.normed(HeadInput::K, k, backward), v]
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
