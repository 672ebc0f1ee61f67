//! `cargo xtask bench`: what each sweep takes, how far that is from the least it could take, and what TransformerLens takes for the
//! same.

mod peer;
mod rates;
mod sizes;
mod works;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use bytesize::ByteSize;
use clap::Args;
use rewire_analysis::patching::Cost;
use rewire_analysis::run::Options;
use rewire_model::{Transformer, WeightProcessing};
use rewire_tensor::computes_here;

use crate::arguments::an_even_number;
use crate::compute::{MemoryArguments, NumberArguments};
use crate::device::{Device, on_device};
use crate::output::{print, text_table};
use crate::session::{Session, fault};
use peer::{Peer, Sharing};
use rates::Rates;
use sizes::Size;
use works::{Setting, TOKENS, Work};

#[derive(Args)]
pub struct Arguments {
    /// Where to compute: auto, flex, ndarray, cuda, cuda:N.
    #[arg(long, default_value = "auto")]
    device: Device,
    /// The models' shapes.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "gpt2-small")]
    sizes: Vec<Size>,
    /// What to time; all but the neurons, which take minutes, if none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    works: Vec<Work>,
    /// How often each is timed, on a GPU after a first time that is not counted; the median is printed.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Prompt pairs, an even number: each is there both ways round [default: 8 on the CPU, 64 on a GPU].
    #[arg(long, value_parser = an_even_number)]
    pairs: Option<usize>,
    #[command(flatten)]
    numbers: NumberArguments,
    #[command(flatten)]
    memory: MemoryArguments,
    /// Seed of the random weights and prompts.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Most tokens in one pass of a sweep.
    #[arg(long)]
    token_budget: Option<usize>,
    /// Run the same on TransformerLens in float32, alternating, on the same device, and print the ratios.
    #[arg(long)]
    peer: bool,
    /// A Python that has TransformerLens; without it an environment is made in target/peer.
    #[arg(long, requires = "peer")]
    python: Option<PathBuf>,
    /// Most patches that TransformerLens makes of one work each time; the others are taken to need the same time each.
    #[arg(long, default_value_t = 144)]
    peer_patches: usize,
    /// Threads on the CPU, of both.
    #[arg(long, default_value_t = 2, value_parser = crate::threads::number)]
    threads: usize,
}

impl Arguments {
    fn works(&self) -> Vec<Work> {
        match self.works.as_slice() {
            [] => Work::quick(),
            chosen => chosen.to_vec(),
        }
    }

    /// What works are done with: on the CPU as many threads as asked for, and sizes that are the same on every machine.
    fn options<'a, B: Backend>(&self, session: &'a Session, model: &Transformer<B>) -> Options<'a> {
        let mut options = session.options(model, TOKENS);
        options.workers = computes_here::<B>(&model.device()).then_some(self.threads);
        options.token_budget = self.token_budget.unwrap_or(options.token_budget);
        options
    }

    fn setting<'a, B: Backend>(&self, model: &Transformer<B>) -> anyhow::Result<Setting<'a>> {
        let pairs = self.pairs.unwrap_or(if computes_here::<B>(&model.device()) { 8 } else { 64 });
        Setting::new(model, self.seed, pairs, self.numbers.tolerance())
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let session = Session::with_numbers(arguments.device, arguments.numbers, &arguments.memory)?;
    // The backend's own threads, for what is not a sweep of many passes.
    rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global().context("threads")?;
    let mut failed = Vec::new();
    for &size in &arguments.sizes {
        let of_size = on_device!(&session, |B, device| {
            let model: Transformer<Autodiff<B>> = size.model(arguments.seed, &device);
            time(&session, model, size, arguments)
        })?;
        failed.extend(of_size.into_iter().map(|work| format!("{} of {}", work.name(), size.name())));
    }
    if !failed.is_empty() {
        bail!("{} failed", failed.join(", "));
    }
    Ok(())
}

/// The weights that are computed with.
fn ready<B: Backend>(model: Transformer<B>, arguments: &Arguments) -> Transformer<B> {
    model.processed(WeightProcessing::default()).in_precision(arguments.numbers.dtype)
}

/// Prints what each work takes, and gives those that failed.
fn time<B: AutodiffBackend>(
    session: &Session,
    model: Transformer<B>,
    size: Size,
    arguments: &Arguments,
) -> anyhow::Result<Vec<Work>> {
    let setting = arguments.setting(&model.valid())?;
    let directory = tempfile::tempdir().context("no place for temporary files")?;
    if arguments.peer {
        setting.write(&model, size, directory.path())?;
    }
    let model = ready(model, arguments);
    let device = session.device();
    let mut peer = match arguments.peer {
        true => Some(Peer::start(arguments.python.as_deref(), directory.path(), arguments.threads, device)?),
        false => None,
    };
    // After the peer has taken its share of the device.
    let setting = setting.with(arguments.options(session, &model.valid()));
    let rates = Rates::measure::<B::InnerBackend>(&model.device(), arguments.numbers.dtype.dtype().into());
    print(&head(session, &model, size, &setting, &rates, arguments))?;
    let on_gpu = !computes_here::<B>(&model.device());
    let mut header = vec!["work", "nodes", "seconds", "GFLOP", "GB", "floor, s", "time / floor", "products, %"];
    if on_gpu {
        header.push("first, s");
    }
    if peer.is_some() {
        header.extend(["TransformerLens, s", "times faster", "largest difference"]);
    }
    let sharing = if size.is_shared() { Sharing::Weights } else { Sharing::Shape };
    let (mut rows, mut failed, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
    for work in arguments.works() {
        let mut row = vec![work.name(), work.n_nodes(model.config()).to_string()];
        match timed(work, &model, &setting, peer.as_mut(), sharing, arguments) {
            Ok(timed) => {
                row.extend(against_floor(timed.ours, work.cost(&model, &setting)?, &rates));
                if on_gpu {
                    row.push(seconds(timed.first));
                }
                match &timed.theirs {
                    Some(Ok(theirs)) => {
                        let stride = stride(work.n_nodes(model.config()), arguments.peer_patches);
                        row.extend(against_peer(timed.ours, *theirs, stride, sharing));
                    }
                    Some(Err(error)) => reasons.push(format!("{} on TransformerLens: {error:#}", work.name())),
                    None => {}
                }
            }
            Err(error) if fault(&error).is_some() => return Err(error),
            Err(error) => {
                reasons.push(format!("{}: {error:#}", work.name()));
                failed.push(work);
            }
        }
        row.resize(header.len(), "-".to_owned());
        print(&format!("{}\n", row.join("  ")))?;
        rows.push(row);
    }
    print(&format!("\n{}", text_table(&header, &rows)))?;
    if on_gpu {
        print("first: with what is compiled and tuned once; seconds are of later times\n")?;
    }
    print("seconds: the median; GFLOP and GB: what cannot be left out;\n")?;
    print(
        "floor: GFLOP at the rate of products or GB at the bandwidth, whichever takes longer; products: share of their rate\n",
    )?;
    if peer.is_some() {
        print(&format!("~: estimated from at most {} patches, each a whole forward\n", arguments.peer_patches))?;
        if !size.is_shared() {
            print("TransformerLens has random weights of its own: times are compared, numbers are not\n")?;
        }
    }
    reasons.iter().chain(&session.reduced()).try_for_each(|line| print(&format!("{line}\n")))?;
    print("\n")?;
    Ok(failed)
}

/// Seconds, what cannot be left out, the floor that follows from it, the time over it, and the share of the products' rate.
fn against_floor(ours: f64, cost: Cost, rates: &Rates) -> [String; 6] {
    let floor = cost.seconds(rates.products, rates.bandwidth);
    let share = 100.0 * cost.operations / rates.products / ours;
    let [operations, bytes] = [format!("{:.0}", cost.operations / 1e9), format!("{:.1}", cost.bytes / 1e9)];
    [seconds(ours), operations, bytes, seconds(floor), format!("{:.2}", ours / floor), format!("{share:.0}")]
}

/// The peer's seconds, marked where only each `stride`-th patch was run, how much faster ours are, and the largest difference.
fn against_peer(ours: f64, (theirs, difference): (f64, f32), stride: usize, sharing: Sharing) -> [String; 3] {
    let mark = if stride > 1 { "~" } else { "" };
    let compared = match sharing {
        Sharing::Weights => format!("{difference:.0e}"),
        Sharing::Shape => "-".to_owned(),
    };
    [format!("{mark}{}", seconds(theirs)), format!("{:.1}", theirs / ours), compared]
}

/// What a work came to.
struct Timed {
    /// Median seconds.
    ours: f64,
    /// Seconds of a first time, on a GPU.
    first: f64,
    /// The peer's median seconds, and the largest difference of its results from ours.
    theirs: Option<anyhow::Result<(f64, f32)>>,
}

/// Times a work, alternating with the peer.
fn timed<B: AutodiffBackend>(
    work: Work,
    model: &Transformer<B>,
    setting: &Setting,
    mut peer: Option<&mut Peer>,
    sharing: Sharing,
    arguments: &Arguments,
) -> anyhow::Result<Timed> {
    let nodes = work.n_nodes(model.config());
    let stride = stride(nodes, arguments.peer_patches);
    let once = || -> anyhow::Result<(f64, Vec<f32>)> {
        let started = Instant::now();
        let results = work.run(model, setting)?;
        Ok((started.elapsed().as_secs_f64(), results))
    };
    let mut first = 0.0;
    if !computes_here::<B>(&model.device()) {
        (first, _) = once()?;
        if let Some(peer) = &mut peer {
            // What it fails at is told when it is timed.
            let _ = peer.run(work, stride);
        }
    }
    let mut ours = Vec::new();
    let mut theirs = peer.is_some().then(|| Ok((Vec::new(), 0.0_f32)));
    for _ in 0..arguments.repeats.max(1) {
        let (seconds, results) = once()?;
        ours.push(seconds);
        if let (Some(peer), Some(Ok((seconds, difference)))) = (&mut peer, &mut theirs) {
            match peer
                .run(work, stride)
                .and_then(|a| Ok((a.seconds_a_patch, a.difference(&results, nodes, stride, sharing)?)))
            {
                Ok((a_patch, off)) => {
                    seconds.push(a_patch * nodes as f64);
                    *difference = difference.max(off);
                }
                Err(error) => theirs = Some(Err(error)),
            }
        }
    }
    let theirs = theirs.map(|found| found.map(|(seconds, difference)| (median(seconds), difference)));
    Ok(Timed { ours: median(ours), first, theirs })
}

/// What is timed, and on what.
fn head<B: Backend>(
    session: &Session,
    model: &Transformer<B>,
    size: Size,
    setting: &Setting,
    rates: &Rates,
    arguments: &Arguments,
) -> String {
    let device = model.device();
    let on = match rewire_tensor::memory::<B>(&device) {
        Some(memory) => {
            let name = memory.name.unwrap_or_else(|| "a GPU".to_owned());
            format!("{} ({name}, {} free of {})", session.device(), ByteSize(memory.free), ByteSize(memory.total))
        }
        None => format!("{}, {} threads", session.device(), arguments.threads),
    };
    let Rates { products, shape: [m, k, n], bandwidth } = rates;
    let (prompts, sizes) = (setting.n_pairs(), setting.options());
    format!(
        "{}'s shape, random weights (seed {}), {}, on {on}\n{prompts} pairs of {TOKENS} tokens; at once {} pairs held, {} \
         differentiated, {} tokens in a pass\na product of [{m}, {k}] and [{k}, {n}]: {:.0} GFLOP/s; memory: {:.0} GB/s\n\n",
        size.name(),
        arguments.seed,
        arguments.numbers.told(),
        sizes.prompt_batch,
        sizes.gradient_batch,
        sizes.token_budget,
        products / 1e9,
        bandwidth / 1e9
    )
}

/// Seconds with three digits that count.
fn seconds(time: f64) -> String {
    match time {
        t if t >= 1.0 => format!("{t:.2}"),
        t if t >= 0.01 => format!("{t:.4}"),
        t => format!("{t:.6}"),
    }
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
