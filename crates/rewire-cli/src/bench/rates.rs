//! Measures the peak rates of the device: matmul operations and memory bandwidth.

use std::time::Instant;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Distribution, Tensor};
use rewire_tensor::{is_synchronous, matmul, memory};

use super::seconds::median;

/// The rates that floors are computed from.
pub(crate) struct Rates {
    /// Operations per second of a large matmul.
    pub(crate) products: f64,
    /// The shape of that matmul, `[m, k, n]`.
    pub(crate) shape: [usize; 3],
    /// Bytes per second, reads and writes together.
    pub(crate) bandwidth: f64,
}

impl Rates {
    /// Measures the rates. The matmul has the element type `dtype`.
    pub(crate) fn measure<B: Backend>(device: &B::Device, dtype: DType) -> Self {
        // On the CPU, the matmul of GPT-2 small's first MLP layer on the demo's prompts. Like a
        // larger matmul, it does not fit into the caches of a core.
        let (shape, numbers) = match is_synchronous::<B>(device) {
            true => ([1440, 768, 3072], 1 << 24),
            false => ([8192, 4096, 4096], a_gigabyte::<B>(device)),
        };
        Self { products: products::<B>(shape, device, dtype), shape, bandwidth: bandwidth::<B>(numbers, device) }
    }
}

/// Returns the number of float32 values in a gigabyte, or in an eighth of the free memory if that
/// is less.
fn a_gigabyte<B: Backend>(device: &B::Device) -> usize {
    let eighth = memory::<B>(device).and_then(|memory| usize::try_from(memory.free / 8).ok());
    eighth.unwrap_or(usize::MAX).clamp(1 << 22, 1 << 30) / 4096 * 1024
}

/// Returns the operations per second of a matmul of `[m, k]` and `[k, n]`.
fn products<B: Backend>([m, k, n]: [usize; 3], device: &B::Device, dtype: DType) -> f64 {
    let random = |shape| Tensor::<B, 2>::random(shape, Distribution::Normal(0.0, 1.0), (device, dtype));
    let (a, b) = (random([m, k]), random([k, n]));
    let seconds = seconds_each(25, || matmul(a.clone(), b.clone()));
    2.0 * (m * k * n) as f64 / seconds
}

/// Returns the bytes per second that adding 1 to `numbers` float32 values reads and writes.
fn bandwidth<B: Backend>(numbers: usize, device: &B::Device) -> f64 {
    let x = Tensor::<B, 2>::zeros([numbers / 1024, 1024], device);
    let seconds = seconds_each(15, || x.clone() + 1.0);
    2.0 * 4.0 * numbers as f64 / seconds
}

/// Returns the median seconds of a step over `times` runs, after a warm-up.
fn seconds_each<B: Backend>(times: usize, step: impl Fn() -> Tensor<B, 2>) -> f64 {
    let once = || {
        let started = Instant::now();
        // On an asynchronous device, reading one number waits until the step has finished.
        let _ = step().slice([0..1, 0..1]).into_data();
        started.elapsed().as_secs_f64()
    };
    (0..3).for_each(|_| {
        once();
    });
    median((0..times).map(|_| once()).collect())
}
