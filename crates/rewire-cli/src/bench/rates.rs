//! Measures the peak rates of the device: matmul operations and memory bandwidth.

use std::time::Instant;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Distribution, Tensor};
use rewire_tensor::{is_synchronous, matmul, memory};
use serde::Serialize;

use super::seconds::median;
use crate::cpu_time;

/// The rates of the device.
#[derive(Debug, Serialize)]
pub(crate) struct Rates {
    /// Operations per second of the first of [`matmuls`](Self::matmuls), a large one. Floors are
    /// computed from it.
    pub(crate) products: f64,
    /// Matmuls of many, of some and of few rows. Those of few rows are limited by the bandwidth.
    pub(crate) matmuls: [MatmulRate; 3],
    /// Bytes per second, reads and writes together.
    pub(crate) bandwidth: f64,
}

/// The rate of one matmul.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct MatmulRate {
    /// `[m, k, n]` for the product of `[m, k]` and `[k, n]`.
    pub(crate) shape: [usize; 3],
    /// Operations per second.
    pub(crate) rate: f64,
}

/// The rates of one core, in processor time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CoreRates {
    /// Operations per second of a large matmul.
    pub(crate) products: f64,
    /// Bytes per second, reads and writes together.
    pub(crate) bandwidth: f64,
}

impl Rates {
    /// Measures the rates. The matmul has the element type `dtype`.
    pub(crate) fn measure<B: Backend>(device: &B::Device, dtype: DType) -> Self {
        // On the CPU, the matmul of GPT-2 small's first MLP layer on the demo's prompts. Like a
        // larger matmul, it does not fit into the caches of a core.
        let (rows, [k, n], numbers) = match is_synchronous::<B>(device) {
            true => ([1440, 80, 8], [768, 3072], 1 << 24),
            false => ([8192, 512, 64], [4096, 4096], a_gigabyte::<B>(device)),
        };
        let matmuls = rows.map(|m| {
            let shape = [m, k, n];
            MatmulRate { shape, rate: products::<B>(shape, device, dtype, by_clock) }
        });
        Self { products: matmuls[0].rate, matmuls, bandwidth: bandwidth::<B>(numbers, device, by_clock) }
    }
}

impl CoreRates {
    /// Measures the rates of one core of a CPU, in processor time. Other programs change them
    /// little. Returns `None` where the system does not tell the processor time.
    pub(crate) fn measure<B: Backend>(device: &B::Device, dtype: DType) -> Option<Self> {
        cpu_time::seconds()?;
        let products = products::<B>([1440, 768, 3072], device, dtype, in_processor_time);
        Some(Self { products, bandwidth: bandwidth::<B>(1 << 24, device, in_processor_time) })
    }
}

/// Returns the number of float32 values in a gigabyte, or in an eighth of the free memory if that
/// is less.
fn a_gigabyte<B: Backend>(device: &B::Device) -> usize {
    let eighth = memory::<B>(device).and_then(|memory| usize::try_from(memory.free / 8).ok());
    eighth.unwrap_or(usize::MAX).clamp(1 << 22, 1 << 30) / 4096 * 1024
}

/// Returns the seconds of a step over a number of runs.
type Timer = fn(usize, &mut dyn FnMut()) -> f64;

/// Returns the operations per second of a matmul of `[m, k]` and `[k, n]`.
fn products<B: Backend>([m, k, n]: [usize; 3], device: &B::Device, dtype: DType, timer: Timer) -> f64 {
    let random = |shape| Tensor::<B, 2>::random(shape, Distribution::Normal(0.0, 1.0), (device, dtype));
    let (a, b) = (random([m, k]), random([k, n]));
    let seconds = timer(25, &mut || finish(matmul(a.clone(), b.clone())));
    2.0 * (m * k * n) as f64 / seconds
}

/// Returns the bytes per second that adding 1 to `numbers` float32 values reads and writes.
fn bandwidth<B: Backend>(numbers: usize, device: &B::Device, timer: Timer) -> f64 {
    let x = Tensor::<B, 2>::zeros([numbers / 1024, 1024], device);
    let seconds = timer(15, &mut || finish(x.clone() + 1.0));
    2.0 * 4.0 * numbers as f64 / seconds
}

/// Waits until a step has finished: on an asynchronous device, reading one number waits.
fn finish<B: Backend>(found: Tensor<B, 2>) {
    let _ = found.slice([0..1, 0..1]).into_data();
}

/// Number of runs before the first one that is timed.
const WARM_UP: usize = 3;

/// Returns the median seconds of a step over `times` runs, after a warm-up.
fn by_clock(times: usize, step: &mut dyn FnMut()) -> f64 {
    let mut once = || {
        let started = Instant::now();
        step();
        started.elapsed().as_secs_f64()
    };
    (0..WARM_UP).for_each(|_| {
        once();
    });
    median((0..times).map(|_| once()).collect())
}

/// Returns the mean processor seconds of a step over `times` runs, after a warm-up. Single runs are
/// shorter than the ticks in which systems count.
fn in_processor_time(times: usize, step: &mut dyn FnMut()) -> f64 {
    let now = || cpu_time::seconds().unwrap_or_default();
    (0..WARM_UP).for_each(|_| step());
    let started = now();
    (0..times).for_each(|_| step());
    (now() - started).max(f64::MIN_POSITIVE) / times as f64
}
