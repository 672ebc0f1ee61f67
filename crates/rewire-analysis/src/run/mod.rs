//! Shared steps of all analyses: question, execution settings, batches of prompt pairs, recorded
//! runs, interventions, checkpoints, memory and workers.

pub(crate) mod batch;
pub(crate) mod checkpoint;
pub(crate) mod cost;
pub(crate) mod deal;
pub(crate) mod execution;
pub(crate) mod finite;
pub(crate) mod fit;
pub(crate) mod intervention;
pub(crate) mod logits;
pub(crate) mod means;
pub(crate) mod memory;
pub(crate) mod moves;
pub(crate) mod needs;
pub(crate) mod post_norm;
pub(crate) mod question;
pub(crate) mod record;
pub(crate) mod transfer;
pub(crate) mod workers;

pub use checkpoint::{Checkpoint, NamedCheckpoint, PlannedWork, WorkId};
pub use deal::Deal;
pub use execution::{Execution, LayerBatching, ReducedBatch, Reuse};
pub use intervention::Intervention;
pub use logits::{clean_logits, clean_logits_at, unpatched_metric};
pub use means::{MeanOver, mean_activations};
pub use memory::MemoryEstimate;
pub use needs::{LogitColumns, MemoryNeeds, PassKinds, Patterns, Workload};
pub use question::{Direction, Question, Scale};
