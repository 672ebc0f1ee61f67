//! What the device can do at best: its rate of products, and how fast it moves bytes.

use std::time::Instant;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Distribution, Tensor};
use rewire_tensor::{is_synchronous, matmul, memory};

use super::seconds::median;

/// The rates that floors are reckoned by.
pub(crate) struct Rates {
    /// Operations a second of a large product.
    pub(crate) products: f64,
    /// The shapes of that product.
    pub(crate) shape: [usize; 3],
    /// Bytes a second, read and written together.
    pub(crate) bandwidth: f64,
}

impl Rates {
    /// Measures both, with products of the numbers that are computed with.
    pub(crate) fn measure<B: Backend>(device: &B::Device, dtype: DType) -> Self {
        // On the CPU, GPT-2 small's first MLP layer on the demo's prompts, all of which a core's caches hold no more than of a large one.
        let (shape, numbers) = match is_synchronous::<B>(device) {
            true => ([1440, 768, 3072], 1 << 24),
            false => ([8192, 4096, 4096], a_gigabyte::<B>(device)),
        };
        Self { products: products::<B>(shape, device, dtype), shape, bandwidth: bandwidth::<B>(numbers, device) }
    }
}

/// How many float32 numbers are a gigabyte, or an eighth of the memory that is free if that is less.
fn a_gigabyte<B: Backend>(device: &B::Device) -> usize {
    let eighth = memory::<B>(device).and_then(|memory| usize::try_from(memory.free / 8).ok());
    eighth.unwrap_or(usize::MAX).clamp(1 << 22, 1 << 30) / 4096 * 1024
}

fn products<B: Backend>([m, k, n]: [usize; 3], device: &B::Device, dtype: DType) -> f64 {
    let random = |shape| Tensor::<B, 2>::random(shape, Distribution::Normal(0.0, 1.0), (device, dtype));
    let (a, b) = (random([m, k]), random([k, n]));
    let seconds = seconds_each(25, || matmul(a.clone(), b.clone()));
    2.0 * (m * k * n) as f64 / seconds
}

fn bandwidth<B: Backend>(numbers: usize, device: &B::Device) -> f64 {
    let x = Tensor::<B, 2>::zeros([numbers / 1024, 1024], device);
    let seconds = seconds_each(15, || x.clone() + 1.0);
    2.0 * 4.0 * numbers as f64 / seconds
}

/// The median time of a step, once it is warm.
fn seconds_each<B: Backend>(times: usize, step: impl Fn() -> Tensor<B, 2>) -> f64 {
    let once = || {
        let started = Instant::now();
        // Reading one number waits for the step on devices that work behind the program's back.
        let _ = step().slice([0..1, 0..1]).into_data();
        started.elapsed().as_secs_f64()
    };
    (0..3).for_each(|_| {
        once();
    });
    median((0..times).map(|_| once()).collect())
}
