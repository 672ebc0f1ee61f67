//! `cargo xtask bench`: what each sweep takes at GPT-2-small size, how far that is from the least it could take, and what
//! TransformerLens takes for the same.

mod peer;
mod works;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, Tensor};
use clap::Args;
use rewire_model::{Transformer, TransformerConfig, WeightProcessing};

use crate::device::{Device, on_device};
use crate::output::{print, text_table};
use peer::Peer;
use works::{Setting, Work};

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
    /// Run the same on TransformerLens, alternating, and print the ratios.
    #[arg(long)]
    peer: bool,
    /// A Python that has TransformerLens; without it an environment is made in target/peer.
    #[arg(long, requires = "peer")]
    python: Option<PathBuf>,
    /// Most patches that TransformerLens makes of one work each time; the others are reckoned at the same time each.
    #[arg(long, default_value_t = 144)]
    peer_patches: usize,
    /// Threads, of both.
    #[arg(long, default_value_t = 2, value_parser = crate::arguments::at_least_one)]
    threads: usize,
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
    // The backend's own threads, for what is not a sweep of many passes.
    rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global().context("threads")?;
    on_device!(arguments.device, |B, device| {
        let model: Transformer<Autodiff<B>> = Transformer::random(&gpt2_small(), arguments.seed, &device);
        time(model, &works, arguments)
    })
}

fn time<B: AutodiffBackend>(model: Transformer<B>, works: &[Work], arguments: &Arguments) -> anyhow::Result<()> {
    let setting = Setting::new(&model.valid(), arguments.seed, arguments.threads, arguments.token_budget)?;
    let directory = tempfile::tempdir().context("no place for temporary files")?;
    if arguments.peer {
        setting.write(&model, directory.path())?;
    }
    let model = model.processed(WeightProcessing::default());
    let mut peer = match arguments.peer {
        true => Some(Peer::start(arguments.python.as_deref(), directory.path(), arguments.threads)?),
        false => None,
    };
    let rate = gemm_rate::<B::InnerBackend>(&model.device());
    let (device, seed, threads) = (arguments.device.resolve(), arguments.seed, arguments.threads);
    print(&format!("GPT-2 small's shape, random weights (seed {seed}), {device}, {threads} threads\n"));
    print(&format!("a product of [1440, 768] and [768, 3072]: {:.0} GFLOP/s\n\n", rate / 1e9));
    let mut header = vec!["work", "nodes", "seconds", "GFLOP", "floor, s", "time / floor"];
    if peer.is_some() {
        header.extend(["TransformerLens, s", "times faster", "largest difference"]);
    }
    let mut rows = Vec::new();
    for &work in works {
        let nodes = work.n_nodes(&gpt2_small());
        let stride = stride(nodes, arguments.peer_patches);
        let (mut ours, mut theirs, mut difference) = (Vec::new(), Vec::new(), 0.0_f32);
        for _ in 0..arguments.repeats.max(1) {
            let started = Instant::now();
            let results = work.run(&model, &setting)?;
            ours.push(started.elapsed().as_secs_f64());
            if let Some(peer) = &mut peer {
                let answer = peer.run(work, stride)?;
                theirs.push(answer.seconds_a_patch * nodes as f64);
                let numbers = (results.len() / nodes).max(1);
                let of_ours: Vec<f32> = results.chunks(numbers).step_by(stride).flatten().copied().collect();
                anyhow::ensure!(
                    of_ours.len() == answer.results.len(),
                    "{} results, and {}",
                    of_ours.len(),
                    answer.results.len()
                );
                let pairs = of_ours.iter().zip(&answer.results).map(|(a, b)| (a - b).abs());
                difference = pairs.fold(difference, |m, d| if d.is_nan() { f32::INFINITY } else { m.max(d) });
            }
        }
        let time = median(ours);
        let operations = work.operations(&model.valid(), &setting)?;
        let mut row = vec![work.name(), nodes.to_string(), format!("{time:.2}")];
        row.extend(match operations {
            Some(o) => [format!("{:.0}", o / 1e9), format!("{:.2}", o / rate), format!("{:.2}", time * rate / o)],
            None => ["", "", ""].map(str::to_owned),
        });
        if peer.is_some() {
            let theirs = median(theirs);
            let reckoned = if stride > 1 { "~" } else { "" };
            let cells =
                [format!("{reckoned}{theirs:.2}"), format!("{:.1}", theirs / time), format!("{difference:.0e}")];
            row.extend(cells);
        }
        print(&format!("{}\n", row.join("  ")));
        rows.push(row);
    }
    print(&format!("\n{}", text_table(&header, &rows)));
    if peer.is_some() {
        print(&format!("~: reckoned from at most {} patches, each a whole forward\n", arguments.peer_patches));
    }
    Ok(())
}

/// Which of `nodes` patches the peer makes so that they are at most `most`: every stride-th. Of no common measure with positions,
/// heads and layers, so that they are not all at the same position.
fn stride(nodes: usize, most: usize) -> usize {
    let shared = |stride: &usize| [2, 3, 5].iter().any(|factor| stride.is_multiple_of(*factor));
    match nodes.div_ceil(most.max(1)) {
        1 => 1,
        least => (least..).find(|stride| !shared(stride)).unwrap_or(least),
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Floating-point operations a second of a product of the shape of GPT-2 small's first MLP layer: median of many.
fn gemm_rate<B: Backend>(device: &B::Device) -> f64 {
    let [m, k, n]: [usize; 3] = [1440, 768, 3072];
    let random = |shape| Tensor::<B, 2>::random(shape, Distribution::Normal(0.0, 1.0), device);
    let (a, b) = (random([m, k]), random([k, n]));
    let times = (0..25).map(|_| {
        let started = Instant::now();
        // Reading one number waits for the product on devices that work behind the program's back.
        let _ = a.clone().matmul(b.clone()).slice([0..1, 0..1]).into_data();
        started.elapsed().as_secs_f64()
    });
    2.0 * (m * k * n) as f64 / median(times.collect())
}
