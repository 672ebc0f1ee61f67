//! What a sweep on the CPU will take of the memory: printed before it starts, and refused if the
//! machine has less.

use bytesize::ByteSize;
use rewire_analysis::node::{By, Component, NodeKind};
use rewire_analysis::patching::held_a_pair;
use rewire_analysis::run::{Execution, LogitColumns, MemoryNeeds, PassKinds, Patterns, Workload};
use rewire_hooks::Axis;
use rewire_model::{TransformerConfig, WeightStorage};
use rewire_tasks::PromptPairs;

use super::arguments::Arguments;
use super::choices::{MethodName, MetricName};
use crate::device::Device;
use crate::model::Source;
use crate::session::Session;
use crate::{system_memory, threads};

/// The memory that a sweep will take, and the memory that is left.
pub(crate) struct Memory {
    needs: MemoryNeeds,
    /// Bytes of the files that weights stay in; `None` if they are in memory.
    in_files: Option<u64>,
    left: Option<u64>,
}

/// Returns the memory that a sweep of these pairs takes on the CPU, with passes on `workers`
/// threads at once, or on those that the environment sets.
pub(super) fn needs(
    arguments: &Arguments,
    session: &Session,
    source: &Source,
    pairs: &PromptPairs,
    workers: Option<usize>,
) -> anyhow::Result<MemoryNeeds> {
    let workload = workload(arguments, session, source, pairs)?;
    Ok(MemoryNeeds::new(&workload, &sized(arguments, session, source, pairs, workers)))
}

/// Returns the memory that a sweep takes on another machine, with passes on `workers` threads at
/// once. Of exact patches, it counts the activations of these kinds of nodes alone.
pub(super) fn elsewhere(
    arguments: &Arguments,
    session: &Session,
    source: &Source,
    pairs: &PromptPairs,
    workers: usize,
) -> anyhow::Result<MemoryNeeds> {
    let mut needs = needs(arguments, session, source, pairs, Some(workers))?;
    if matches!(arguments.method, MethodName::ActivationPatching) && !arguments.wants_edges() {
        let batch = sized(arguments, session, source, pairs, Some(workers)).prompt_batch.min(pairs.len());
        let held = held_a_pair(&arguments.kinds()?, &source.config, pairs.width(), arguments.numbers.dtype);
        needs.activations = needs.activations.min(held.saturating_mul(batch as u64));
    }
    Ok(needs)
}

/// Returns the batch sizes of a sweep.
fn sized(
    arguments: &Arguments,
    session: &Session,
    source: &Source,
    pairs: &PromptPairs,
    workers: Option<usize>,
) -> Execution<'static> {
    let (pos, budget) = (pairs.width(), session.setup().memory_budget);
    let execution = Execution { workers: workers.or_else(threads::limit), ..Execution::default() };
    let sized = execution.fitted_on_cpu(&source.config, pos, arguments.numbers.dtype, budget);
    Execution { prompt_batch: arguments.prompt_batch.unwrap_or(sized.prompt_batch), ..sized }
}

/// Returns the memory that a sweep of these pairs will take. Returns `None` on a GPU, whose memory
/// the sweep asks for before each pass.
///
/// # Errors
/// If the machine has less, with what to change.
pub(super) fn check(
    arguments: &Arguments,
    session: &Session,
    source: &Source,
    pairs: &PromptPairs,
) -> anyhow::Result<Option<Memory>> {
    if matches!(session.device(), Device::Cuda(_)) {
        return Ok(None);
    }
    let needs = needs(arguments, session, source, pairs, None)?;
    let in_files = match source.storage {
        WeightStorage::Stored => Some(source.files.weight_bytes()?),
        WeightStorage::Float32 => None,
    };
    let memory = Memory { needs, in_files, left: system_memory::available() };
    // Files that are too small are damaged. Loading them names the tensor.
    let is_whole = source.files.weight_bytes()? > source.config.weight_count() / 4;
    match memory.left {
        Some(left) if is_whole && needs.total() > left => anyhow::bail!(
            "the sweep takes {}, and {} are free; {}",
            memory.in_words(),
            ByteSize(left),
            memory.advice(source.files.can_stay_stored())
        ),
        _ => Ok(Some(memory)),
    }
}

fn workload<'a>(
    arguments: &Arguments,
    session: &Session,
    source: &'a Source,
    pairs: &PromptPairs,
) -> anyhow::Result<Workload<'a>> {
    let differs = (0..pairs.len()).filter_map(|pair| pairs.first_difference(pair)).min();
    // Ablation and lines from other baselines change activations at every position.
    let everywhere = matches!(arguments.method, MethodName::Ablation | MethodName::IntegratedGradients);
    let gradients = matches!(arguments.method, MethodName::AttributionPatching | MethodName::IntegratedGradients);
    let whole = matches!(arguments.metric, MetricName::Kl | MetricName::Accuracy | MetricName::LogProb)
        || matches!(arguments.metric, MetricName::Probability | MetricName::ProbDiff)
        // Whether the model is right is then read from all logits.
        || pairs.pairs().iter().any(|pair| pair.wrong_answers.is_empty());
    let reads_patterns = arguments.kinds()?.iter().any(|kind| kind.component == Component::HeadPattern);
    let whole_patterns = reads_patterns || gradients && session.device() != Device::Flex;
    Ok(Workload {
        config: &source.config,
        precision: arguments.numbers.dtype,
        storage: source.storage,
        processed: source.is_processed(),
        prompts: pairs.len(),
        nodes: nodes(arguments, &source.config, pairs.width())?,
        pos: pairs.width(),
        first_difference: if everywhere { 0 } else { differs.unwrap_or_default() },
        columns: if whole { LogitColumns::All } else { LogitColumns::Answers },
        passes: if gradients { PassKinds::Backward } else { PassKinds::Forward },
        patterns: if whole_patterns { Patterns::Whole } else { Patterns::ByBlocks },
    })
}

/// Returns the number of nodes of a sweep of prompts of `pos` tokens.
fn nodes(arguments: &Arguments, config: &TransformerConfig, pos: usize) -> anyhow::Result<u64> {
    let size = |kind: &NodeKind, axis: Axis| match axis {
        Axis::Head => config.heads_at(kind.site()),
        Axis::DMlp => config.d_mlp,
        _ => pos,
    };
    let of_kind = |kind: &NodeKind| kind.axes().into_iter().map(|axis| size(kind, axis) as u64).product::<u64>();
    let positions = if arguments.by.division() == By::All { 1 } else { pos as u64 };
    Ok(match arguments.single()? {
        Some(_) => arguments.nodes.len() as u64 * positions,
        None => arguments.kinds()?.iter().map(|kind| config.n_layers as u64 * of_kind(kind)).sum(),
    })
}

impl Memory {
    /// Returns one line, for the screen.
    pub(super) fn line(&self) -> String {
        let left = self.left.map_or_else(String::new, |left| format!("; {} are free", ByteSize(left)));
        let in_files = self.in_files.map_or_else(String::new, |bytes| {
            format!(
                "; the weights stay in files of {}, which the system keeps in memory as far as it is free",
                ByteSize(bytes)
            )
        });
        format!("memory: {}{left}{in_files}", self.in_words())
    }

    /// Returns the estimate and its parts.
    fn in_words(&self) -> String {
        let MemoryNeeds { weights, converted, activations, passes, effects } = self.needs;
        // Those of few prompts are no part that a reader would miss.
        let effects = match effects > self.needs.total() / 100 {
            true => format!(", effects {}", ByteSize(effects)),
            false => String::new(),
        };
        let weights = match self.in_files {
            None => format!("weights {}", ByteSize(weights)),
            Some(_) => format!("converted weights {}", ByteSize(converted)),
        };
        format!(
            "about {} ({weights}, activations {}, passes {}{effects})",
            ByteSize(self.needs.total()),
            ByteSize(activations),
            ByteSize(passes)
        )
    }

    /// Returns what to change to take less.
    fn advice(&self, can_stay_stored: bool) -> &'static str {
        let MemoryNeeds { weights, converted, activations, passes, effects } = self.needs;
        let of_batches = activations.max(passes);
        if effects > of_batches.max(weights).max(converted) {
            "the effects of every node on every prompt are kept until they are written: sweep fewer prompts or nodes at once"
        } else if weights > of_batches && can_stay_stored {
            "leave the weights in their files with --weights stored"
        } else if weights > of_batches {
            "convert the weights to safetensors and leave them in their files with --weights stored"
        } else if converted > of_batches {
            "each processor converts a matrix of its own: give the command fewer processors (taskset), or use a smaller model"
        } else {
            "make smaller batches with --memory-budget or --prompt-batch, or use shorter prompts"
        }
    }
}
