//! One run of `bench`: times the works on each model size and prints a table.

use anyhow::{Context, bail};
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use bytesize::ByteSize;
use rewire_model::{Transformer, WeightProcessing};
use rewire_tensor::is_synchronous;

use super::arguments::Arguments;
use super::measured::Measured;
use super::peer::{Peer, Sharing};
use super::rates::{MatmulRate, Rates};
use super::sizes::Size;
use super::table::{Columns, Table};
use super::timing::timed;
use super::workloads::{Setting, TOKENS, Work};
use crate::interrupt::Interrupts;
use crate::on_device::on_device;
use crate::output::print;
use crate::session::{Session, fault};

/// Runs `bench`.
pub(crate) fn run(arguments: &Arguments, interrupts: &Interrupts) -> anyhow::Result<()> {
    let session = Session::with_numbers(arguments.device, arguments.numbers, &arguments.memory, interrupts)?;
    // The threads of the backend, which a work without passes in parallel uses.
    rayon::ThreadPoolBuilder::new()
        .num_threads(arguments.threads)
        .build_global()
        .context("cannot start --threads threads")?;
    let mut failed = Vec::new();
    for &size in &arguments.sizes {
        let of_size = on_device!(&session, |B, device| {
            let model: Transformer<Autodiff<B>> = size.model(arguments.seed, &device);
            time(&session, model, size, arguments)
        })?;
        failed.extend(of_size.into_iter().map(|work| format!("{} on {}", work.name(), size.name())));
    }
    if !failed.is_empty() {
        bail!("these works failed: {}; the reasons are above", failed.join(", "));
    }
    Ok(())
}

/// Returns the model with processed weights, in the precision of `--dtype`.
fn ready<B: Backend>(model: Transformer<B>, arguments: &Arguments) -> Transformer<B> {
    model.processed(WeightProcessing::default()).to_precision(arguments.numbers.dtype)
}

/// Times each work and prints the table. Returns the works that failed.
fn time<B: AutodiffBackend>(
    session: &Session,
    model: Transformer<B>,
    size: Size,
    arguments: &Arguments,
) -> anyhow::Result<Vec<Work>> {
    let setting = arguments.setting(&model.valid())?;
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    if arguments.peer {
        setting.write(&model, size, directory.path())?;
    }
    let model = ready(model, arguments);
    let mut peer = match arguments.peer {
        true => {
            let (python, threads) = (arguments.python.as_deref(), arguments.threads);
            Some(Peer::start(python, directory.path(), threads, session.device())?)
        }
        false => None,
    };
    // Batch sizes are fitted to the memory that the peer leaves free, so the peer starts first.
    let setting = setting.with(arguments.execution(session, &model.valid()));
    let rates = Rates::measure::<B::InnerBackend>(&model.device(), arguments.numbers.dtype.dtype().into());
    let shown = |text: String| if arguments.json { Ok(()) } else { print(&text) };
    shown(head(session, &model, size, &setting, &rates, arguments))?;
    let sharing = Sharing::of(size);
    let first = !is_synchronous::<B>(&model.device());
    let mut table = Table::new(Columns { first, peer: peer.is_some().then_some(sharing) });
    let (mut measured, mut failed, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
    for work in arguments.works() {
        let nodes = work.n_nodes(model.config());
        let line = match timed(work, &model, &setting, peer.as_mut(), sharing, arguments) {
            Ok(timed) => {
                if let Some(Err(error)) = &timed.theirs {
                    reasons.push(format!("{} on TransformerLens: {error:#}", work.name()));
                }
                let cost = work.cost(&model, &setting)?;
                measured.push(Measured::new(work, nodes, &timed, cost, &rates, sharing));
                measured.last().map_or_else(String::new, |measured| table.add(measured))
            }
            Err(error) if fault(&error).is_some() => return Err(error),
            Err(error) => {
                reasons.push(format!("{}: {error:#}", work.name()));
                failed.push(work);
                table.add_failed(work.name(), nodes)
            }
        };
        shown(line)?;
    }
    reasons.extend(session.reduced());
    if arguments.json {
        print(&format!("{}\n", json(size, &setting, &rates, &measured, &reasons, arguments)))?;
    } else {
        print(&table.text(arguments.peer_patches))?;
        reasons.iter().try_for_each(|line| print(&format!("{line}\n")))?;
        print("\n")?;
    }
    Ok(failed)
}

/// Returns the figures of all works on one model as a JSON object.
fn json(
    size: Size,
    setting: &Setting,
    rates: &Rates,
    works: &[Measured],
    notes: &[String],
    arguments: &Arguments,
) -> serde_json::Value {
    let sizes = setting.execution();
    serde_json::json!({
        "shape": size.name(), "seed": arguments.seed, "numbers": arguments.numbers.summary(),
        "threads": arguments.threads, "repeats": arguments.repeats, "pairs": setting.n_pairs(), "tokens": TOKENS,
        "prompt_batch": sizes.prompt_batch, "gradient_batch": sizes.gradient_batch,
        "token_budget": sizes.token_budget, "rates": rates, "works": works, "notes": notes,
    })
}

/// Returns the lines above the table: the model, the device, the batch sizes, and the rates of the
/// device.
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
    let matmuls = rates.matmuls.map(|MatmulRate { shape: [m, k, n], rate }| {
        format!("matmul of [{m}, {k}] and [{k}, {n}]: {:.0} GFLOP/s\n", rate / 1e9)
    });
    let (prompts, sizes) = (setting.n_pairs(), setting.execution());
    format!(
        "shape of {}, random weights (seed {}), {}, on {on}\n{prompts} prompt pairs of {TOKENS} tokens; {} pairs held \
         in memory, {} pairs per backward pass, {} tokens per pass\n{}memory bandwidth: {:.0} GB/s\n\n",
        size.name(),
        arguments.seed,
        arguments.numbers.summary(),
        sizes.prompt_batch,
        sizes.gradient_batch,
        sizes.token_budget,
        matmuls.concat(),
        rates.bandwidth / 1e9
    )
}
