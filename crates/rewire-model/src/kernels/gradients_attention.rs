//! Scores, patterns and mixed values on the autodiff backend over flex, each as one step of the
//! tape. Each returns `None` for tensors that are not float32 tensors on that backend.

use burn::tensor::{Tensor, TensorPrimitive, backend::Backend};
use burn_flex::{Flex, FlexTensor};

use crate::kernels::flex::{self, Heads, changed, contiguous, filled, slice};
use crate::kernels::gradients::primitive;
use crate::kernels::queries::{Queries, ScoreRule};
use crate::kernels::simd::Attended;
use crate::kernels::simd_backward::{self as backward, Sharing};
use crate::kernels::tape::{Differentiated, Input, record};

/// The sizes of attention: those of the results, and how rows and heads share keys.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    queries: usize,
    /// All keys.
    keys: usize,
    n_earlier: usize,
    /// The prompts that the earlier keys belong to.
    prompts: usize,
    kv_heads: usize,
    d_head: usize,
}

impl Sizes {
    /// Returns the sizes for queries `[batch, query, head, d_head]`, and keys or values of `own`
    /// and `earlier` positions.
    fn of([batch, queries, heads, d_head]: [usize; 4], own: [usize; 4], earlier: Option<[usize; 4]>) -> Self {
        let [prompts, n_earlier, _, _] = earlier.unwrap_or([1, 0, 0, 0]);
        Self { batch, heads, queries, keys: n_earlier + own[1], n_earlier, prompts, kv_heads: own[2], d_head }
    }

    fn shape(self) -> backward::Shape {
        [self.heads, self.queries, self.keys]
    }

    /// The number of scores of one row.
    fn cells(self) -> usize {
        self.heads * self.queries * self.keys
    }

    fn sharing(self, row: usize) -> Sharing {
        Sharing { row, n_earlier: self.n_earlier, sharing: self.heads / self.kv_heads.max(1) }
    }

    /// Returns the keys or values that a row attends to.
    fn attended<'a>(self, row: usize, own: &'a Heads, earlier: Option<&'a Heads>) -> Attended<'a> {
        let Sharing { n_earlier, sharing, .. } = self.sharing(row);
        let earlier = earlier.map(|earlier| (earlier.rows(), self.prompts));
        Attended { earlier, n_earlier, own: own.rows(), row, sharing }
    }

    /// Returns a tensor `[batch, query, head, d_head]`, filled row by row.
    fn of_queries(self, fill: impl Fn(usize, &mut [f32]) + Sync) -> FlexTensor {
        by_row(&[self.batch, self.queries, self.heads, self.d_head], fill)
    }

    /// Returns a tensor `[batch, own, key/value head, d_head]`, filled row by row.
    fn of_own_keys(self, fill: impl Fn(usize, &mut [f32]) + Sync) -> FlexTensor {
        by_row(&[self.batch, self.keys - self.n_earlier, self.kv_heads, self.d_head], fill)
    }
}

/// Returns a tensor whose rows along the first axis `fill` fills. They are 0 before.
fn by_row(shape: &[usize; 4], fill: impl Fn(usize, &mut [f32]) + Sync) -> FlexTensor {
    let size = shape[1..].iter().product::<usize>().max(1);
    filled(shape, size, |first, out| {
        out.chunks_exact_mut(size).enumerate().for_each(|(i, out)| fill(first + i, out));
    })
}

fn heads(x: FlexTensor) -> Heads {
    Heads::of(x)
}

/// Returns keys or values of earlier positions, or `None` twice over if they are on the tape.
fn constant<B: Backend>(earlier: Option<&Tensor<B, 4>>) -> Option<Option<Tensor<Flex, 4>>> {
    match earlier {
        None => Some(None),
        Some(earlier) => {
            let earlier = Input::of(earlier).filter(|earlier| !earlier.is_tracked())?;
            Some(Some(earlier.value()))
        }
    }
}

/// Keeps queries and keys and, if the rule caps scores, the scores.
#[derive(Debug, Clone)]
struct Scores {
    q: FlexTensor,
    k: FlexTensor,
    earlier: Option<FlexTensor>,
    capped: Option<FlexTensor>,
    queries: Queries,
    rule: ScoreRule,
    sizes: Sizes,
}

impl Differentiated<2> for Scores {
    fn gradients(self, of_result: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let Self { q, k, earlier, capped, queries, rule, sizes } = self;
        let cells = sizes.cells();
        let of_row = |row: usize| row * cells..(row + 1) * cells;
        let capped = capped.as_ref();
        let products = changed(of_result, cells, |first, gradients| {
            for (i, gradients) in gradients.chunks_exact_mut(cells).enumerate() {
                let row = first + i;
                let capped = capped.map(|scores| &slice(scores)[of_row(row)]);
                backward::products(row, sizes.shape(), &queries, rule, capped, gradients);
            }
        });
        let weights = slice(&products);
        let (q, k, earlier) = (heads(q), heads(k), earlier.map(heads));
        let of_q = wanted[0].then(|| {
            sizes.of_queries(|row, out| {
                let keys = sizes.attended(row, &k, earlier.as_ref());
                backward::to_queries(&weights[row * cells..][..cells], keys, sizes.shape(), out);
            })
        });
        let of_k = wanted[1].then(|| {
            sizes.of_own_keys(|row, out| {
                let weights = &weights[row * cells..][..cells];
                backward::to_keys(weights, q.rows(), sizes.sharing(row), sizes.shape(), out);
            })
        });
        [of_q, of_k]
    }
}

pub(super) fn scores<B: Backend>(
    q: &Tensor<B, 4>,
    k: &Tensor<B, 4>,
    earlier: Option<&Tensor<B, 4>>,
    queries: &Queries,
    rule: ScoreRule,
) -> Option<Tensor<B, 4>> {
    let inputs = [Input::of(q)?, Input::of(k)?];
    let earlier = constant(earlier)?;
    let [q, k] = inputs.each_ref().map(Input::value);
    let sizes = Sizes::of(q.dims(), k.dims(), earlier.as_ref().map(Tensor::dims));
    let value = flex::scores(&q, &k, earlier.as_ref(), queries, rule)?;
    let capped = rule.cap.map(|_| primitive(value.clone()));
    Some(record(inputs.map(Input::on_tape), value, || {
        let [q, k] = [q, k].map(primitive);
        Scores { q, k, earlier: earlier.map(primitive), capped, queries: queries.clone(), rule, sizes }
    }))
}

/// Keeps the pattern at which the softmax is differentiated.
#[derive(Debug, Clone)]
struct Softmax {
    pattern: FlexTensor,
}

impl Differentiated<1> for Softmax {
    fn gradients(self, of_result: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let width = self.pattern.layout().shape()[3];
        let patterns = slice(&self.pattern);
        [Some(changed(of_result, width, |first, gradients| {
            backward::softmax(&patterns[first * width..][..gradients.len()], width, gradients);
        }))]
    }
}

/// Returns the softmax over keys of scores `[batch, head, query, key]`, computed by `softmax`. Its
/// derivative is that at `scores / temperature`, without a factor.
pub(super) fn pattern<B: Backend>(
    scores: &Tensor<B, 4>,
    temperature: f64,
    softmax: impl Fn(Tensor<Flex, 4>) -> Tensor<Flex, 4>,
) -> Option<Tensor<B, 4>> {
    let input = Input::of(scores)?;
    let scores = input.value();
    let value = softmax(scores.clone());
    let differentiated = match temperature == 1.0 {
        true => value.clone(),
        false => softmax(scores / temperature),
    };
    Some(record([input.on_tape()], value, || Softmax { pattern: contiguous(primitive(differentiated)) }))
}

/// Keeps a pattern and values.
#[derive(Debug, Clone)]
struct Mixed {
    pattern: FlexTensor,
    v: FlexTensor,
    earlier: Option<FlexTensor>,
    sizes: Sizes,
}

impl Differentiated<2> for Mixed {
    fn gradients(self, of_result: FlexTensor, wanted: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let Self { pattern, v, earlier, sizes } = self;
        let cells = sizes.cells();
        let (of_mixed, v, earlier) = (heads(of_result), heads(v), earlier.map(heads));
        let of_pattern = wanted[0].then(|| {
            by_row(&[sizes.batch, sizes.heads, sizes.queries, sizes.keys], |row, out| {
                backward::patterns(of_mixed.rows(), sizes.attended(row, &v, earlier.as_ref()), sizes.shape(), out);
            })
        });
        let of_v = wanted[1].then(|| {
            let weights = slice(&pattern);
            sizes.of_own_keys(|row, out| {
                let weights = &weights[row * cells..][..cells];
                backward::to_keys(weights, of_mixed.rows(), sizes.sharing(row), sizes.shape(), out);
            })
        });
        [of_pattern, of_v]
    }
}

pub(super) fn mix<B: Backend>(
    pattern: &Tensor<B, 4>,
    v: &Tensor<B, 4>,
    earlier: Option<&Tensor<B, 4>>,
) -> Option<Tensor<B, 4>> {
    let (of_pattern, of_v) = (Input::of(pattern)?, Input::of(v)?);
    let earlier = constant(earlier)?;
    let (pattern, v) = (of_pattern.value(), of_v.value());
    let [batch, n_heads, queries, _] = pattern.dims();
    let d_head = v.dims()[3];
    let sizes = Sizes::of([batch, queries, n_heads, d_head], v.dims(), earlier.as_ref().map(Tensor::dims));
    let pattern = contiguous(primitive(pattern));
    let whole = Tensor::from_primitive(TensorPrimitive::Float(pattern.clone()));
    let value = flex::mix(&whole, &v, earlier.as_ref())?;
    Some(record([of_pattern.on_tape(), of_v.on_tape()], value, || Mixed {
        pattern,
        v: primitive(v),
        earlier: earlier.map(primitive),
        sizes,
    }))
}
