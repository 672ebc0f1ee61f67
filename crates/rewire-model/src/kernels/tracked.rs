//! Attention by blocks of queries on the autodiff backend over flex, with a gradient of its own.
//!
//! The tape would keep the scores and the pattern of every layer until the backward pass. This
//! operation keeps queries, keys and values alone, and computes the pattern of each block again
//! when the backward pass reaches it.

use std::any::Any;
use std::ops::Range;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Tensor, TensorPrimitive, backend::Backend};
use burn_flex::Flex;
use rewire_tensor::matmul;

use crate::kernels::blocks::{AttentionInputs, Block, Blocks};
use crate::kernels::queries::ScoreRule;
use crate::kernels::{join, shared_by};

/// Returns the mixed values, or `None` for tensors that are not float32 tensors on autodiff over
/// flex.
pub(super) fn attend<B: Backend>(inputs: &AttentionInputs<B>, blocks: Blocks, rule: ScoreRule) -> Option<Tensor<B, 4>> {
    let AttentionInputs { q, k, v, earlier } = inputs;
    let is_tracked = |x: &Tensor<B, 4>| {
        let any: &dyn Any = x;
        any.is::<Tensor<Autodiff<Flex>, 4>>() && x.dtype() == DType::F32
    };
    if ![q, k, v].into_iter().chain(earlier.iter().flatten()).all(is_tracked) {
        return None;
    }
    let [keys, values] = earlier.clone().map_or([None, None], |earlier| earlier.map(Some));
    let inputs = [q.clone(), join(keys, k.clone()), join(values, v.clone())];
    let [q, k, v] = inputs.map(|x| {
        let any: &dyn Any = &x;
        any.downcast_ref::<Tensor<Autodiff<Flex>, 4>>().cloned()
    });
    let z = attend_tracked([q?, k?, v?], blocks, rule);
    let any: &dyn Any = &z;
    any.downcast_ref::<Tensor<B, 4>>().cloned()
}

/// Mixes values by attention. Takes queries, and keys and values of all positions up to the last
/// query, `[batch, pos, head, d_head]`.
fn attend_tracked<B: Backend>(
    inputs: [Tensor<Autodiff<B>, 4>; 3],
    blocks: Blocks,
    rule: ScoreRule,
) -> Tensor<Autodiff<B>, 4> {
    let tracked = inputs.map(|x| x.into_primitive().tensor());
    let nodes = tracked.each_ref().map(|x| x.node.clone());
    let inputs = Inputs { qkv: tracked.map(|x| float(x.primitive)), blocks, rule };
    let z = inputs.mixed().into_primitive().tensor();
    let z = match AttendByBlocks.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(inputs, z),
        OpsKind::UnTracked(prep) => prep.finish(z),
    };
    Tensor::from_primitive(TensorPrimitive::Float(z))
}

fn float<B: Backend>(primitive: B::FloatTensorPrimitive) -> Tensor<B, 4> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// The operation. Its state are its inputs.
#[derive(Debug)]
struct AttendByBlocks;

impl<B: Backend> Backward<B, 3> for AttendByBlocks {
    type State = Inputs<B>;

    fn backward(self, ops: Ops<Inputs<B>, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let of_z = float(gradients.consume::<B>(&ops.node));
        let of_inputs = ops.state.gradients(&of_z);
        for (parent, gradient) in ops.parents.into_iter().zip(of_inputs) {
            if let Some(parent) = parent {
                gradients.register::<B>(parent.id, gradient.into_primitive().tensor());
            }
        }
    }
}

/// Queries, keys and values, `[batch, pos, head, d_head]`, each with its own heads.
#[derive(Debug, Clone)]
struct Inputs<B: Backend> {
    qkv: [Tensor<B, 4>; 3],
    blocks: Blocks,
    rule: ScoreRule,
}

/// The scores of one block, `[batch, head, query, key]`.
struct BlockScores<B: Backend> {
    scores: Tensor<B, 4>,
    /// The derivative of the capped scores with respect to the scores before, if they are capped.
    slope: Option<Tensor<B, 4>>,
}

impl<B: Backend> Inputs<B> {
    /// Returns queries, keys and values, `[batch, head, pos, d_head]`, with a copy of keys and
    /// values for each head.
    fn by_head(&self) -> [Tensor<B, 4>; 3] {
        let heads = self.qkv[0].dims()[2];
        self.qkv.clone().map(|x| shared_by(heads, x).swap_dims(1, 2))
    }

    fn blocks(&self) -> impl Iterator<Item = Block> {
        self.blocks.of(self.qkv[0].dims()[1])
    }

    /// Returns the mixed values, `[batch, query, head, d_head]`.
    fn mixed(&self) -> Tensor<B, 4> {
        let [q, k, v] = self.by_head();
        let parts = self.blocks().map(|block| {
            let scores = self.scores(of(&q, &block.queries), of(&k, &block.keys), &block).scores;
            matmul(softmax(scores, 3), of(&v, &block.keys)).swap_dims(1, 2)
        });
        Tensor::cat(parts.collect(), 1)
    }

    /// Returns the masked scores of one block. `q` and `k` are its queries and keys.
    fn scores(&self, q: Tensor<B, 4>, k: Tensor<B, 4>, block: &Block) -> BlockScores<B> {
        let rule = self.rule;
        let scores = matmul(q, k.swap_dims(2, 3)) / rule.divisor;
        let (scores, slope) = match rule.cap {
            None => (scores, None),
            Some(cap) => {
                let bent = (scores / cap).tanh();
                (bent.clone() * cap, Some(bent.clone() * bent * -1.0 + 1.0))
            }
        };
        let mask = block.at.mask::<B>(scores.dims(), rule.window, &scores.device()).expand(scores.shape());
        BlockScores { scores: scores.mask_fill(mask, f32::NEG_INFINITY), slope }
    }

    /// Returns the pattern of one block's scores, and the pattern at which its softmax is
    /// differentiated.
    fn patterns(&self, scores: Tensor<B, 4>) -> (Tensor<B, 4>, Tensor<B, 4>) {
        let temperature = self.rule.softmax_temperature;
        let pattern = softmax(scores.clone(), 3);
        let softened = if temperature == 1.0 { pattern.clone() } else { softmax(scores / temperature, 3) };
        (pattern, softened)
    }

    /// Returns the gradients of queries, keys and values for the gradient of the mixed values.
    fn gradients(&self, of_z: &Tensor<B, 4>) -> [Tensor<B, 4>; 3] {
        let [q, k, v] = self.by_head();
        let of_z = of_z.clone().swap_dims(1, 2);
        let (mut of_k, mut of_v) = (k.zeros_like(), v.zeros_like());
        let of_q = self.blocks().map(|block| {
            let [q, of_z] = [&q, &of_z].map(|x| of(x, &block.queries));
            let [k, v] = [&k, &v].map(|x| of(x, &block.keys));
            let BlockScores { scores, slope } = self.scores(q.clone(), k.clone(), &block);
            let (pattern, softened) = self.patterns(scores);
            let of_pattern = matmul(of_z.clone(), v.swap_dims(2, 3));
            add(&mut of_v, &block.keys, matmul(pattern.swap_dims(2, 3), of_z));
            let product = softened.clone() * of_pattern;
            let of_scores = product.clone() - softened * product.sum_dim(3);
            let of_scores = match slope {
                Some(slope) => of_scores * slope,
                None => of_scores,
            } / self.rule.divisor;
            add(&mut of_k, &block.keys, matmul(of_scores.clone().swap_dims(2, 3), q));
            matmul(of_scores, k).swap_dims(1, 2)
        });
        let of_q = Tensor::cat(of_q.collect(), 1);
        let shared = self.qkv[1].dims();
        [of_q, summed_over_groups(of_k, shared), summed_over_groups(of_v, shared)]
    }
}

/// Returns these positions of `x` `[batch, head, pos, d_head]`.
fn of<B: Backend>(x: &Tensor<B, 4>, positions: &Range<usize>) -> Tensor<B, 4> {
    x.clone().narrow(2, positions.start, positions.len())
}

/// Adds `change` to `sum` `[batch, head, pos, d_head]` at these positions.
fn add<B: Backend>(sum: &mut Tensor<B, 4>, positions: &Range<usize>, change: Tensor<B, 4>) {
    let [batch, heads, _, d_head] = sum.dims();
    let changed = of(sum, positions) + change;
    sum.inplace(|sum| sum.slice_assign([0..batch, 0..heads, positions.clone(), 0..d_head], changed));
}

/// Returns the sums of `x` `[batch, head, pos, d_head]` over the heads that share a key/value head,
/// `[batch, pos, key/value head, d_head]`.
fn summed_over_groups<B: Backend>(x: Tensor<B, 4>, [batch, pos, shared, d_head]: [usize; 4]) -> Tensor<B, 4> {
    let x = match x.dims()[1] / shared.max(1) {
        1 => x,
        copies => x.reshape([batch, shared, copies, pos, d_head]).sum_dim(2).reshape([batch, shared, pos, d_head]),
    };
    x.swap_dims(1, 2)
}
