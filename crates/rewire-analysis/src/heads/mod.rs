//! Analyses of single heads: direct logit attribution, copying, backup, suppression, attention
//! patterns.

pub(crate) mod backup;
pub(crate) mod copying;
pub(crate) mod inhibition;
pub(crate) mod logit_attribution;
pub(crate) mod patterns;
pub(crate) mod suppression;

pub use backup::{Backup, backup_heads};
pub use copying::{CopyNorms, CopyScores, copy_scores};
pub use inhibition::{Inhibition, s2_inhibition};
pub use logit_attribution::{LOGIT_DIFF_BEFORE_CAP, logit_attribution};
pub use patterns::{attention_entropy, attention_patterns};
pub use suppression::{KeptTokens, Suppression, copy_suppression};
