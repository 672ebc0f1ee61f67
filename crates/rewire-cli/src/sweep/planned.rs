//! Predicts the time and the memory of the shards of a sweep, without computing a pass.

use std::io;
use std::sync::{Mutex, PoisonError};

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use rewire_analysis::patching::Cost;
use rewire_analysis::run::{Checkpoint, Deal, PlannedWork, WorkId};
use rewire_model::Transformer;
use rewire_tensor::is_synchronous;

use super::analyze::{Run, analyze};
use super::arguments::Arguments;
use super::choices::MethodName;
use super::prepared::Prepared;
use crate::bench::{CoreRates, Rates};
use crate::cpu_time;
use crate::interrupt::Interrupts;
use crate::on_device::on_device;
use crate::shards::{Counted, is_expected};

/// Memory of the program itself and of what loading takes, in bytes.
const PROGRAM: u64 = 256 << 20;

/// The factor between the time of a sweep and its lower bound, in processor time. Sweeps of heads
/// took 0.87 and 1.25 times the bound with SmolLM2 on a busy machine, and 1.14 to 1.29 times at
/// GPT-2 small's size on a quiet one.
const ABOVE_BOUND_EXACT: f64 = 1.1;
/// The same for path patching, which took 2.3 and 2.5 times the bound with SmolLM2, and 1.45 to
/// 1.59 times at GPT-2 small's size.
const ABOVE_BOUND_PATHS: f64 = 2.0;
/// The same for attribution, whose steps between matmuls take longer. With SmolLM2 it took 2.5 and
/// 2.6 times the bound for nodes at all positions, and more for nodes by position.
const ABOVE_BOUND_ATTRIBUTION: f64 = 2.8;
/// The same for estimates of edges, whose last matmuls the bound leaves out. With SmolLM2 they took
/// 6.6 and 8.3 times the bound.
const ABOVE_BOUND_EDGE_ESTIMATES: f64 = 8.0;
/// The same for integrated gradients, which took 2.2 times the bound with SmolLM2.
const ABOVE_BOUND_INTEGRALS: f64 = 2.3;

/// The predicted cost of the shards of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prediction {
    /// The number of passes of all shards.
    pub(crate) passes: usize,
    /// Seconds of the longest shard.
    pub(crate) seconds: f64,
    /// The load of the longest shard over the mean load.
    pub(crate) spread: f64,
    /// Peak memory of a process, in bytes.
    pub(crate) memory: u64,
}

/// Predicts the cost of a sweep in `shards` shards, each with `cores` cores of a processor like
/// that of this machine. Loads the model.
pub(crate) fn predict(
    arguments: &Arguments,
    shards: usize,
    cores: usize,
    interrupts: &Interrupts,
) -> anyhow::Result<Prediction> {
    let prepared = Prepared::read(arguments, interrupts)?;
    let (session, source) = (&prepared.session, &prepared.source);
    let inputs = prepared.inputs();
    on_device!(session, |B, device| {
        let model: Transformer<Autodiff<B>> = source.load(&device)?.to_precision(arguments.numbers.dtype);
        let checkpoint = PlanCheckpoint(Mutex::new(Planned { deal: Deal::new(0, shards), passes: Vec::new() }));
        let (setup, scale) = (session.setup(), arguments.scale());
        let run = Run { setup, checkpoint: &checkpoint, scale, what: "plan", counted: Counted::Passes };
        match analyze(&model, inputs, arguments, run) {
            Err(error) if !is_expected(&error) => return Err(error),
            _ => {}
        }
        let Planned { deal, passes } = checkpoint.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let inner = model.valid();
        // Reading, hashing and loading the model take one core.
        let start = cpu_time::seconds().unwrap_or_default();
        let dtype = inner.precision().dtype().into();
        let of_a_core = is_synchronous::<B>(&device).then(|| CoreRates::measure::<B>(&device, dtype)).flatten();
        let ([products, bandwidth], share) = match of_a_core {
            Some(CoreRates { products, bandwidth }) => ([products, bandwidth], cores as f64),
            None => {
                let Rates { products, bandwidth, .. } = Rates::measure::<B>(&device, dtype);
                ([products, bandwidth], 1.0)
            }
        };
        let cost = whole(&passes);
        let mean = deal.loads().iter().sum::<f64>() / shards as f64;
        let spread = deal.loads().iter().copied().fold(0.0, f64::max) / mean.max(f64::MIN_POSITIVE);
        let bound = cost.seconds(products * share, bandwidth * share) / shards as f64;
        let above = match arguments.method {
            MethodName::AttributionPatching if arguments.wants_edges() => ABOVE_BOUND_EDGE_ESTIMATES,
            MethodName::AttributionPatching => ABOVE_BOUND_ATTRIBUTION,
            MethodName::IntegratedGradients => ABOVE_BOUND_INTEGRALS,
            MethodName::PathPatching => ABOVE_BOUND_PATHS,
            _ => ABOVE_BOUND_EXACT,
        };
        anyhow::Ok(Prediction {
            passes: passes.len(),
            seconds: start + bound * spread * above,
            spread,
            memory: PROGRAM + prepared.memory_elsewhere(cores)?.total(),
        })
    })
}

/// Returns the cost of all passes, with the runs that the passes over a batch share.
fn whole(passes: &[PlannedWork]) -> Cost {
    let is_first = |number: usize| number == 0 || passes[number - 1].id.batch != passes[number].id.batch;
    let of_pass = |(number, pass): (usize, &PlannedWork)| match is_first(number) {
        true => pass.cost + pass.setup,
        false => pass.cost,
    };
    passes.iter().enumerate().map(of_pass).sum()
}

/// A checkpoint that takes no pass, and keeps the announced ones.
struct PlanCheckpoint(Mutex<Planned>);

struct Planned {
    deal: Deal,
    passes: Vec<PlannedWork>,
}

impl Checkpoint for PlanCheckpoint {
    fn begin(&self, passes: &dyn Fn() -> Vec<PlannedWork>) {
        let passes = passes();
        let mut planned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        planned.deal.add(&passes);
        planned.passes.extend(passes);
    }

    fn takes(&self, _: WorkId) -> bool {
        false
    }

    fn load(&self, _: WorkId) -> Option<Vec<f32>> {
        None
    }

    fn store(&self, _: WorkId, _: &[f32]) -> io::Result<()> {
        Ok(())
    }
}
