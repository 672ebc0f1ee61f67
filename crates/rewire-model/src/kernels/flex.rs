//! The fused operations, on the memory of burn's flex backend. Each returns `None` or `Err` for
//! tensors that are not untracked float32 tensors on flex.

use std::any::Any;

use burn::tensor::{DType, Shape, Tensor, TensorPrimitive, backend::Backend};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;
use rewire_hooks::NormKind;

use crate::config::Activation;
use crate::kernels::blocks::{AttentionInputs, Blocks};
use crate::kernels::queries::{Queries, ScoreRule};
use crate::kernels::simd::{self, Attended, StridedRows};
use crate::kernels::simd_attend;

/// Below this number of elements, parallel work costs more than it saves.
const PARALLEL: usize = 1 << 15;

/// A number of elements that stay in the fastest cache from one loop to the next.
const CACHED: usize = 1 << 12;

/// Returns the flex tensor if `tensor` is on flex and float32. Gives other tensors back as the
/// error.
fn as_flex<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<FlexTensor, Tensor<B, D>> {
    let mut slot = Some(tensor);
    let any: &mut dyn Any = &mut slot;
    if let Some(found) = any.downcast_mut::<Option<Tensor<Flex, D>>>()
        && let Some(tensor) = found.take()
    {
        let primitive = tensor.into_primitive().tensor();
        if primitive.dtype() == DType::F32 {
            return Ok(primitive);
        }
        *found = Some(Tensor::from_primitive(TensorPrimitive::Float(primitive)));
    }
    Err(slot.expect("put back if it was taken"))
}

/// Returns a flex tensor as a tensor on backend `B`. [`as_flex`] has shown that `B` is flex.
fn from_flex<B: Backend, const D: usize>(primitive: FlexTensor) -> Tensor<B, D> {
    let mut slot = Some(Tensor::<Flex, D>::from_primitive(TensorPrimitive::Float(primitive)));
    let any: &mut dyn Any = &mut slot;
    any.downcast_mut::<Option<Tensor<B, D>>>().and_then(Option::take).expect("the backend that it came from")
}

pub(super) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.layout().contiguous_offsets().is_some() { tensor } else { tensor.to_contiguous() }
}

pub(super) fn slice(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("contiguous float32")
}

/// Returns a new tensor, filled by `fill`. Each call of `fill` takes the index of its first row and
/// a chunk of whole rows of `row` elements.
pub(super) fn filled(shape: &[usize], row: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> FlexTensor {
    let mut out = FlexTensor::zeros(Shape::from(shape.to_vec()), DType::F32);
    share(out.storage_mut(), row, fill);
    out
}

/// Splits whole rows among the threads.
fn share(out: &mut [f32], row: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
    let threads = rayon::current_num_threads();
    if out.len() < PARALLEL || threads == 1 {
        return fill(0, out);
    }
    let rows = (out.len() / row.max(1)).div_ceil(4 * threads).max(1);
    out.par_chunks_mut(rows * row).enumerate().for_each(|(i, chunk)| fill(i * rows, chunk));
}

pub(super) fn norm_scale<B: Backend>(x: &Tensor<B, 3>, kind: NormKind, eps: f32) -> Option<Tensor<B, 3>> {
    let [batch, pos, d] = x.dims();
    let x = contiguous(as_flex(x.clone()).ok()?);
    let x = slice(&x);
    let out = filled(&[batch, pos, 1], 1, |first, scale| {
        let rows = &x[first * d..][..scale.len() * d];
        match kind {
            NormKind::Layer => simd::norm_scale(rows, d, eps, scale),
            NormKind::Rms => simd::rms_scale(rows, d, eps, scale),
        }
    });
    Some(from_flex(out))
}

/// Returns `x`, centered and divided by `scale`, or `None` if a hook has put a scale of another
/// shape or type there.
pub(super) fn normalize<B: Backend>(x: &Tensor<B, 3>, scale: &Tensor<B, 3>) -> Option<Tensor<B, 3>> {
    let dims = x.dims();
    let d = dims[2];
    if scale.dims() != [dims[0], dims[1], 1] {
        return None;
    }
    let (x, scale) = (contiguous(as_flex(x.clone()).ok()?), contiguous(as_flex(scale.clone()).ok()?));
    let (x, scale) = (slice(&x), slice(&scale));
    Some(from_flex(filled(&dims, d, |first, out| {
        let rows = out.len() / d;
        simd::normalize(&x[first * d..][..rows * d], d, &scale[first..][..rows], out);
    })))
}

pub(super) fn activate<B: Backend>(x: Tensor<B, 3>, activation: Activation) -> Result<Tensor<B, 3>, Tensor<B, 3>> {
    match function_of(activation) {
        Some(function) => in_place(x, 1, |_, share| function(share)),
        None => Err(x),
    }
}

/// Returns the activation function of `gate` times `factor`.
pub(super) fn gated<B: Backend>(
    gate: Tensor<B, 3>,
    factor: &Tensor<B, 3>,
    activation: Activation,
) -> Result<Tensor<B, 3>, Tensor<B, 3>> {
    let (Some(function), true) = (function_of(activation), gate.dims() == factor.dims()) else { return Err(gate) };
    let Ok(factor) = as_flex(factor.clone()).map(contiguous) else { return Err(gate) };
    let factor = slice(&factor);
    in_place(gate, 1, |first, gate| {
        for (i, gate) in gate.chunks_mut(CACHED).enumerate() {
            function(gate);
            simd::multiply(gate, &factor[first + i * CACHED..][..gate.len()]);
        }
    })
}

/// Returns the fused activation function, if there is one.
fn function_of(activation: Activation) -> Option<fn(&mut [f32])> {
    match activation {
        Activation::Gelu => Some(simd::gelu),
        Activation::GeluNew => Some(simd::gelu_new),
        Activation::Silu => Some(simd::silu),
        Activation::Relu => None,
    }
}

/// Changes the numbers of `x`. Each call of `change` takes the index of its first row and a chunk
/// of whole rows of `row` numbers. This works in place if nothing else holds the tensor, and copies
/// a shared one.
fn in_place<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    row: usize,
    change: impl Fn(usize, &mut [f32]) + Sync,
) -> Result<Tensor<B, D>, Tensor<B, D>> {
    Ok(from_flex(changed(as_flex(x)?, row, change)))
}

/// As [`in_place`], for a tensor whose backend is known.
pub(super) fn changed(x: FlexTensor, row: usize, change: impl Fn(usize, &mut [f32]) + Sync) -> FlexTensor {
    let mut x = contiguous(x);
    let (from, to) = x.layout().contiguous_offsets().expect("made contiguous");
    share(&mut x.storage_mut()[from..to], row, change);
    x
}

/// A tensor `[batch, position, head, d_head]` whose innermost elements are contiguous.
pub(super) struct Heads(FlexTensor);

impl Heads {
    fn new<B: Backend>(tensor: &Tensor<B, 4>) -> Option<Self> {
        as_flex(tensor.clone()).ok().map(Self::of)
    }

    pub(super) fn of(tensor: FlexTensor) -> Self {
        let strides = tensor.layout().strides();
        let readable = strides[3] == 1 && strides.iter().all(|&s| s >= 0);
        Heads(if readable { tensor } else { tensor.to_contiguous() })
    }

    pub(super) fn rows(&self) -> StridedRows<'_> {
        let layout = self.0.layout();
        let strides = [0, 1, 2].map(|axis| layout.strides()[axis] as usize);
        StridedRows { data: self.0.storage(), start: layout.start_offset(), strides, d_head: layout.shape()[3] }
    }
}

pub(super) fn rotated<B: Backend>(x: &Tensor<B, 4>, cos: &Tensor<B, 4>, sin: &Tensor<B, 4>) -> Option<Tensor<B, 4>> {
    let dims = x.dims();
    let ([_, pos, heads, d_head], [rows, _, _, turning]) = (dims, cos.dims());
    let x = Heads::new(x)?;
    let [cos, sin] = [contiguous(as_flex(cos.clone()).ok()?), contiguous(as_flex(sin.clone()).ok()?)];
    let [cos, sin] = [slice(&cos), slice(&sin)];
    let size = heads * d_head;
    Some(from_flex(filled(&dims, size, |first, out| {
        for (i, out) in out.chunks_exact_mut(size).enumerate().map(|(i, out)| (first + i, out)) {
            let angles = if rows == 1 { i % pos } else { i } * turning;
            let angles = [cos, sin].map(|of| &of[angles..][..turning]);
            simd::rotate(x.rows(), [i / pos, i % pos], angles, out);
        }
    })))
}

pub(super) fn scores<B: Backend>(
    q: &Tensor<B, 4>,
    k: &Tensor<B, 4>,
    earlier: Option<&Tensor<B, 4>>,
    queries: &Queries,
    rule: ScoreRule,
) -> Option<Tensor<B, 4>> {
    let [batch, n, heads, _] = q.dims();
    let (prompts, n_earlier) = earlier.map_or((1, 0), |e| (e.dims()[0], e.dims()[1]));
    let keys = n_earlier + k.dims()[1];
    let sharing = heads / k.dims()[2].max(1);
    let [q, k] = [Heads::new(q)?, Heads::new(k)?];
    let earlier = earlier.and_then(Heads::new);
    let size = heads * n * keys;
    Some(from_flex(filled(&[batch, heads, n, keys], size, |first, out| {
        for (row, out) in out.chunks_exact_mut(size).enumerate().map(|(i, out)| (first + i, out)) {
            let earlier = earlier.as_ref().map(|e| (e.rows(), prompts));
            let attended = Attended { earlier, n_earlier, own: k.rows(), row, sharing };
            simd::scores(q.rows(), attended, [heads, n, keys], queries, rule, out);
        }
    })))
}

pub(super) fn mix<B: Backend>(
    pattern: &Tensor<B, 4>,
    v: &Tensor<B, 4>,
    earlier: Option<&Tensor<B, 4>>,
) -> Option<Tensor<B, 4>> {
    let [batch, heads, n, keys] = pattern.dims();
    let (prompts, n_earlier) = earlier.map_or((1, 0), |e| (e.dims()[0], e.dims()[1]));
    let d_head = v.dims()[3];
    let sharing = heads / v.dims()[2].max(1);
    let pattern = contiguous(as_flex(pattern.clone()).ok()?);
    let (pattern, v, earlier) = (slice(&pattern), Heads::new(v)?, earlier.and_then(Heads::new));
    let (size, cells) = (n * heads * d_head, heads * n * keys);
    Some(from_flex(filled(&[batch, n, heads, d_head], size, |first, out| {
        for (row, out) in out.chunks_exact_mut(size).enumerate().map(|(i, out)| (first + i, out)) {
            let earlier = earlier.as_ref().map(|e| (e.rows(), prompts));
            let attended = Attended { earlier, n_earlier, own: v.rows(), row, sharing };
            simd::mix(&pattern[row * cells..][..cells], attended, [heads, n, keys], out);
        }
    })))
}

/// Returns the softmax of scores `[batch, head, query, key]` over keys.
pub(super) fn softmax<B: Backend>(scores: Tensor<B, 4>) -> Result<Tensor<B, 4>, Tensor<B, 4>> {
    let keys = scores.dims()[3];
    in_place(scores, keys, |_, rows| simd::softmax(rows, keys))
}

/// Returns values mixed by attention, `[batch, query, head, d_head]`, by blocks of queries.
pub(super) fn attend<B: Backend>(inputs: &AttentionInputs<B>, blocks: Blocks, rule: ScoreRule) -> Option<Tensor<B, 4>> {
    let AttentionInputs { q, k, v, earlier } = inputs;
    let [batch, n, heads, d_head] = q.dims();
    let (prompts, n_earlier) = earlier.as_ref().map_or((1, 0), |[keys, _]| (keys.dims()[0], keys.dims()[1]));
    let sharing = heads / k.dims()[2].max(1);
    let [q, k, v] = [Heads::new(q)?, Heads::new(k)?, Heads::new(v)?];
    let earlier = match earlier {
        Some([keys, values]) => [Some(Heads::new(keys)?), Some(Heads::new(values)?)],
        None => [None, None],
    };
    let size = n * d_head;
    let z: Tensor<B, 4> = from_flex(filled(&[batch, heads, n, d_head], size, |first, out| {
        for (i, out) in out.chunks_exact_mut(size).enumerate() {
            let (row, head) = ((first + i) / heads, (first + i) % heads);
            let attended = [(&k, &earlier[0]), (&v, &earlier[1])].map(|(own, earlier)| {
                let earlier = earlier.as_ref().map(|e| (e.rows(), prompts));
                Attended { earlier, n_earlier, own: own.rows(), row, sharing }
            });
            simd_attend::attend(q.rows(), attended, head, blocks, rule, out);
        }
    }));
    Some(z.swap_dims(1, 2).reshape([batch, n, heads * d_head]).reshape([batch, n, heads, d_head]))
}
