//! A study, run in one process or as one shard.

use super::choice::ShardArguments;
use super::{Basis, Counted, Divisible, compute};
use crate::interrupt::Interrupts;
use crate::publish::{RESULTS, tell};

/// Runs a study in one process, or one shard of it.
pub(crate) fn run_study(
    study: &impl Divisible,
    ShardArguments { shard }: &ShardArguments,
    interrupts: &Interrupts,
) -> anyhow::Result<()> {
    if let Some(choice) = shard {
        let part = choice.part(|name| std::env::var(name).ok())?;
        return compute::run(study, part, interrupts);
    }
    let Basis { session, run, out, output, .. } = study.basis();
    let directory = output.take(out, &RESULTS, run, interrupts)?;
    study.announce(None)?;
    let found = study.compute(&(), Counted::Patches)?;
    let summary = study.write(found, &directory)?;
    tell(session, out, &summary)
}
