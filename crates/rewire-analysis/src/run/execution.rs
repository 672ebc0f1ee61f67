//! How an analysis is carried out: in what portions, on how many threads, and what is kept of it.

use std::fmt;

use burn::tensor::backend::Backend;
use rewire_tensor::is_synchronous;

use crate::run::checkpoint::Checkpoint;

/// What of the base run a sweep uses again. Both give the same effects, to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Everything that a patch cannot change: layers below it, positions before it, logits that are not read; and patches that
    /// start at one place run side by side.
    Everything,
    /// Nothing: one whole forward with all logits a patch.
    Nothing,
}

/// What had to be done in smaller portions, for want of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReducedBatch {
    /// What the portions are of.
    pub what: &'static str,
    /// How many there were in one.
    pub from: usize,
    /// How many there are now.
    pub to: usize,
    /// Bytes of the device's memory that are free.
    pub free: u64,
}

impl fmt::Display for ReducedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, from, to, free } = self;
        write!(f, "{from} {what} do not fit into what is free of the device's memory ({free} bytes): {to} at a time")
    }
}

/// Which patches of a sweep run side by side, of those that compute the same positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerBatching {
    /// Those that enter at one layer: short runs, which cores can share out.
    PerLayer,
    /// Those of all layers: one run, which each layer's patches join from where they enter. A GPU has fewer and larger products so, and
    /// fewer kernels to launch.
    LineScope,
}

/// How an analysis is carried out. None of it changes what is asked.
#[derive(Clone, Copy)]
pub struct Execution<'a> {
    /// Prompt pairs whose activations are held at once; [`fitted`](Self::fitted) chooses this and the next two by a device's memory.
    /// They hold, in float32, the residual stream, keys and values of
    /// every layer and the patched activations of both runs: at most about
    /// `4 * n_layers * pos * prompt_batch * (16 d_model + 2 d_mlp + 2 n_heads * pos)` bytes, whatever is patched.
    pub prompt_batch: usize,
    /// Most prompt pairs that one backward pass is for; on the CPU fewer where there are few pairs, so that several threads have some. Each
    /// thread's tape holds every activation of its prompts, and about as much again in gradients: about
    /// `8 * n_layers * pos * gradient_batch * (30 d_model + 8 d_mlp + 6 n_heads * pos)` bytes, of positions from the first
    /// different one on.
    pub gradient_batch: usize,
    /// Most tokens in one forward pass: patches run side by side up to this many (but always one
    /// patch of all prompts held), and to `token_budget * d_mlp` logits. A pass needs about
    /// `4 * token_budget * (2 d_mlp + 8 d_model + 2 n_heads * pos)` bytes while it runs, on each thread; a metric of the whole
    /// vocabulary some four times its logits besides.
    pub token_budget: usize,
    /// Passes that run at once on the CPU backends, each on a thread of its own; `None` for one a core. Elsewhere one runs at a time.
    pub workers: Option<usize>,
    /// Which patches run side by side; `None` for [`LayerBatching::PerLayer`] on the CPU backends and [`LayerBatching::LineScope`] elsewhere. The effects are the
    /// same, to rounding.
    pub layers: Option<LayerBatching>,
    /// What is used again from the base run.
    pub reuse: Reuse,
    /// Keeps finished passes, so that an interrupted sweep goes on where it ended.
    pub checkpoint: &'a dyn Checkpoint,
    /// Told where a device has too little memory left for a pass of nodes, groups or places of a line, and less is done at once.
    pub on_reduced: &'a (dyn Fn(&ReducedBatch) + Sync),
    /// Told how many of how many patches are done; both count prompts.
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
    /// One whole forward a patch, nothing reused: slow, and what the defaults are held against.
    #[must_use]
    pub fn reference() -> Self {
        Self { reuse: Reuse::Nothing, ..Self::default() }
    }

    /// How many of `n` pairs one backward pass is for. On the CPU it depends on nothing of the machine, so that results do not; a GPU
    /// has one thread, which gets as many as it may.
    pub(crate) fn gradient_batch_size<B: Backend>(&self, n: usize, device: &B::Device) -> usize {
        let shared = if is_synchronous::<B>(device) { n.div_ceil(4).max(4) } else { n };
        self.gradient_batch.min(shared).max(1)
    }

    /// Which patches run side by side on backend `B`.
    pub(crate) fn layers<B: Backend>(&self, device: &B::Device) -> LayerBatching {
        self.layers.unwrap_or(if is_synchronous::<B>(device) {
            LayerBatching::PerLayer
        } else {
            LayerBatching::LineScope
        })
    }

    /// How many passes run at once on backend `B`.
    pub(crate) fn workers<B: Backend>(&self, device: &B::Device) -> usize {
        // A device has one queue, and what fails on it is told to the thread that watches.
        if !is_synchronous::<B>(device) {
            return 1;
        }
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
