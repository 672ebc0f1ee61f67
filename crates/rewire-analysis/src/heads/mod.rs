//! What single heads do: what they add to the logits themselves, what they copy, what takes over when they are gone.

mod backup;
mod copying;
mod inhibition;
mod logit_attribution;
mod suppression;

pub use backup::{Backup, backup_heads};
pub use copying::{CopyNorms, CopyScores, copy_scores};
pub use inhibition::{Inhibition, s2_inhibition};
pub use logit_attribution::logit_attribution;
pub use suppression::{KeptTokens, Suppression, copy_suppression};
