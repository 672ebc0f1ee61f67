//! What every analysis shares: batches of prompt pairs, recorded runs, interventions, options, checkpoints, memory and workers.

pub(crate) mod batch;
pub(crate) mod checkpoint;
pub(crate) mod finite;
pub(crate) mod fit;
pub(crate) mod intervention;
pub(crate) mod logits;
pub(crate) mod means;
pub(crate) mod memory;
pub(crate) mod moves;
pub(crate) mod options;
pub(crate) mod record;
pub(crate) mod transfer;
pub(crate) mod workers;

pub use checkpoint::{Ledger, Pass};
pub use intervention::Intervention;
pub use logits::clean_logits;
pub use means::{MeanOver, mean_activations};
pub use memory::MemoryEstimate;
pub use options::{Direction, Halved, Layers, Options, Reuse, Scale};
