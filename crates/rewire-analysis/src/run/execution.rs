//! Execution settings of an analysis: batch sizes, threads, reuse, checkpoint and progress.

use std::fmt;

use burn::tensor::backend::Backend;
use rewire_tensor::is_synchronous;

use crate::run::checkpoint::Checkpoint;

/// Which parts of the base run a sweep reuses. Both variants give the same effects, up to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Reuses everything that a patch cannot change: layers below it, positions before it and
    /// logits that the metric does not read. Patches that start at one layer and position run in
    /// one batch.
    Everything,
    /// Reuses nothing: one whole forward pass with all logits per patch.
    Nothing,
}

/// A report of a pass that was split because it did not fit into memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReducedBatch {
    /// Name of the items in the pass, such as patches.
    pub what: &'static str,
    /// Number of items in the pass as planned.
    pub from: usize,
    /// Number of items per pass after the split.
    pub to: usize,
    /// Free bytes of device memory.
    pub free: u64,
}

impl fmt::Display for ReducedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, from, to, free } = self;
        write!(f, "{from} {what} do not fit into the free memory of the device ({free} bytes); running {to} per pass")
    }
}

/// Which patches of a sweep run in one batch, among those that compute the same positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerBatching {
    /// Patches that enter at one layer. The runs are short, and the CPU cores share them.
    PerLayer,
    /// Patches of all layers. They share one run, which the patches of each layer join at the layer
    /// at which they enter. On a GPU this gives fewer and larger matmuls and fewer kernel launches.
    AllLayers,
}

/// Execution settings of an analysis. They do not change the question.
#[derive(Clone, Copy)]
pub struct Execution<'a> {
    /// Number of prompt pairs whose activations are cached at once. [`fitted`](Self::fitted)
    /// chooses this field, `gradient_batch` and `token_budget` to fit the memory of a device. In
    /// float32, the caches hold the residual stream, keys and values of every layer and the patched
    /// activations, for both runs. For every kind of node they take at most about
    /// `4 * n_layers * pos * prompt_batch * (16 d_model + 2 d_mlp + 2 n_heads * pos)` bytes. The
    /// last term, attention patterns, is there only for `head_pattern`, and for `head_v` in prompts
    /// of at most [`QUERY_BLOCK`](rewire_model::QUERY_BLOCK) positions.
    pub prompt_batch: usize,
    /// Largest number of prompt pairs per backward pass. With few pairs, the CPU backends use
    /// smaller batches to keep several threads busy. The tape of each thread holds every activation
    /// of its prompts, and the gradients take about as much again. Together they take about
    /// `8 * n_layers * pos * gradient_batch * (30 d_model + 8 d_mlp + 6 n_heads * pos)` bytes.
    /// Here, `pos` counts the positions from the first one that differs between the two runs.
    /// Beyond [`QUERY_BLOCK`](rewire_model::QUERY_BLOCK) of them, the last term is there only for
    /// `head_pattern`, and on backends other than flex.
    pub gradient_batch: usize,
    /// Largest number of tokens per forward pass. Patches share a batch up to this number of tokens
    /// and up to `token_budget * d_mlp` logits. A batch holds at least one patch for all cached
    /// prompts. On each thread, a pass takes about
    /// `4 * token_budget * (2 d_mlp + 8 d_model + 2 n_heads * pos)` bytes. A metric that reads the
    /// whole vocabulary takes about four times the memory of its logits in addition.
    pub token_budget: usize,
    /// Number of passes that run at once on the CPU backends, each on its own thread; `None` for
    /// one per core. Other backends run one pass at a time.
    pub workers: Option<usize>,
    /// Which patches run in one batch. `None` selects [`LayerBatching::PerLayer`] on the CPU
    /// backends and [`LayerBatching::AllLayers`] on others. The effects are the same, up to
    /// rounding.
    pub layers: Option<LayerBatching>,
    /// Which parts of the base run are reused.
    pub reuse: Reuse,
    /// Stores finished passes; an interrupted sweep resumes from them.
    pub checkpoint: &'a dyn Checkpoint,
    /// Called if a pass over nodes, groups or points of a line does not fit into the free memory of
    /// the device and is split.
    pub on_reduced: &'a (dyn Fn(&ReducedBatch) + Sync),
    /// Called with the number of finished patches and the number of all patches. A patch counts
    /// once per prompt.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

impl Default for Execution<'_> {
    fn default() -> Self {
        Self {
            prompt_batch: 32,
            gradient_batch: 16,
            token_budget: 1024,
            workers: None,
            layers: None,
            reuse: Reuse::Everything,
            checkpoint: &(),
            on_reduced: &|_| {},
            progress: &|_, _| {},
        }
    }
}

impl Execution<'_> {
    /// Returns the reference execution: one whole forward pass per patch, nothing reused. It is
    /// slow; tests compare the defaults with it.
    #[must_use]
    pub fn reference() -> Self {
        Self { reuse: Reuse::Nothing, ..Self::default() }
    }

    /// Returns how many of `n` pairs share one backward pass. On the CPU this number does not
    /// depend on the machine, to give the same results on every machine. A GPU has one thread,
    /// which gets as many pairs as allowed.
    pub(crate) fn gradient_batch_size<B: Backend>(&self, n: usize, device: &B::Device) -> usize {
        if is_synchronous::<B>(device) { self.cpu_gradient_batch(n) } else { self.gradient_batch.min(n).max(1) }
    }

    /// Returns how many of `n` pairs share one backward pass on the CPU.
    pub(crate) fn cpu_gradient_batch(&self, n: usize) -> usize {
        self.gradient_batch.min(n.div_ceil(4).max(4)).max(1)
    }

    /// Returns which patches run in one batch on backend `B`.
    pub(crate) fn layers<B: Backend>(&self, device: &B::Device) -> LayerBatching {
        self.layers.unwrap_or(if is_synchronous::<B>(device) {
            LayerBatching::PerLayer
        } else {
            LayerBatching::AllLayers
        })
    }

    /// Returns the number of passes that run at once on backend `B`.
    pub(crate) fn workers<B: Backend>(&self, device: &B::Device) -> usize {
        // A device has one queue, and only the thread that watches it receives its faults.
        if !is_synchronous::<B>(device) {
            return 1;
        }
        self.cpu_workers()
    }

    /// Returns the number of passes that run at once on the CPU.
    pub(crate) fn cpu_workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.workers.unwrap_or_else(cores).max(1)
    }
}

impl fmt::Debug for Execution<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution")
            .field("prompt_batch", &self.prompt_batch)
            .field("gradient_batch", &self.gradient_batch)
            .field("token_budget", &self.token_budget)
            .field("workers", &self.workers)
            .field("layers", &self.layers)
            .field("reuse", &self.reuse)
            .finish_non_exhaustive()
    }
}
