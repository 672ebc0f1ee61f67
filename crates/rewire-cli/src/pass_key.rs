//! The key of a pass in records and shards.

use rewire_analysis::run::WorkId;
use rewire_store::Key;

/// Returns the key under which a pass is stored.
pub(crate) fn key(pass: WorkId) -> Key {
    Key { portion: pass.batch, number: pass.number, plan: pass.plan }
}
