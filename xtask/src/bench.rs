//! `cargo xtask bench`: what each sweep takes at GPT-2-small size, and how far that is from the least it could.

mod works;

use std::time::Instant;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use clap::Args;
use rewire_model::{Transformer, TransformerConfig};

use crate::bench::works::Work;
use crate::device::{Device, on_device};
use crate::output::{print, text_table};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to compute: auto, flex, ndarray, cuda, cuda:N.
    #[arg(long, default_value = "auto")]
    device: Device,
    /// What to time; all but the neurons, which take minutes, if none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    works: Vec<Work>,
    /// How often each is timed; the median is printed.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Seed of the random weights and prompts.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Most tokens in one pass of a sweep.
    #[arg(long)]
    token_budget: Option<usize>,
}

/// GPT-2 small's shape.
fn gpt2_small() -> TransformerConfig {
    TransformerConfig::gpt2(12, 12, 768, 50_257, 1024)
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let works = match arguments.works.as_slice() {
        [] => Work::quick(),
        chosen => chosen.to_vec(),
    };
    on_device!(arguments.device, |B, device| {
        let model: Transformer<Autodiff<B>> = Transformer::random(&gpt2_small(), arguments.seed, &device);
        let rate = gemm_rate::<B>(&device);
        print(&format!(
            "GPT-2 small's shape, random weights (seed {}), on {}\n",
            arguments.seed,
            arguments.device.resolve()
        ));
        print(&format!("a product of [1440, 768] and [768, 3072]: {:.0} GFLOP/s\n", rate / 1e9));
        let mut rows = Vec::new();
        for work in works {
            let mut times = Vec::new();
            for _ in 0..arguments.repeats.max(1) {
                let started = Instant::now();
                work.run(&model, arguments.seed, arguments.token_budget)?;
                times.push(started.elapsed().as_secs_f64());
            }
            times.sort_by(f64::total_cmp);
            let time = times[times.len() / 2];
            let operations = work.operations(&model.valid(), arguments.seed)?;
            rows.push(vec![
                work.describe(),
                format!("{time:.2}"),
                operations.map_or(String::new(), |o| format!("{:.0}", o / 1e9)),
                operations.map_or(String::new(), |o| format!("{:.2}", o / rate)),
                operations.map_or(String::new(), |o| format!("{:.2}", time * rate / o)),
            ]);
            print(&format!("{}\n", rows.last().map_or(String::new(), |r| r.join("  "))));
        }
        print(&text_table(&["work", "seconds", "GFLOP", "floor, s", "time / floor"], &rows));
        anyhow::Ok(())
    })
}

/// Floating-point operations a second of a product of GPT-2 small's first MLP layer's shape: median of many.
fn gemm_rate<B: Backend>(device: &B::Device) -> f64 {
    let [m, k, n]: [usize; 3] = [1440, 768, 3072];
    let random = |shape| Tensor::<B, 2>::random(shape, Distribution::Normal(0.0, 1.0), device);
    let (a, b) = (random([m, k]), random([k, n]));
    let mut times: Vec<f64> = (0..25)
        .map(|_| {
            let started = Instant::now();
            // Reading one number waits for the product on devices that work behind the program's back.
            let _ = a.clone().matmul(b.clone()).slice([0..1, 0..1]).into_data();
            started.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    2.0 * (m * k * n) as f64 / times[times.len() / 2]
}
