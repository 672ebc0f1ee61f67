//! The provenance of results: the files, the program and the machine that made them.

use serde_json::{Value, json};
use sysinfo::{CpuRefreshKind, RefreshKind, System};

use crate::model::Source;
use crate::session::Session;

/// Returns the provenance of the results of a run. The command, the pairs, the seed and the time
/// stand beside it in `effects.json`.
///
/// # Errors
/// If a file of the model cannot be read.
pub(crate) fn provenance(session: &Session, source: &Source) -> anyhow::Result<Value> {
    Ok(json!({
        "rewire": env!("CARGO_PKG_VERSION"),
        "model_files": source.sha256s()?,
        "tokenizer_sha256": source.tokenizer_sha256()?,
        "backend": session.device().to_string(),
        "precision": session.precision(),
        "machine": machine(),
    }))
}

/// Returns the description of the machine that this process runs on. A fact that the system does
/// not tell is null.
pub(crate) fn machine() -> Value {
    let system = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()));
    json!({
        "operating_system": System::long_os_version(),
        "kernel": System::kernel_version(),
        "architecture": System::cpu_arch(),
        "processor": system.cpus().first().map(|processor| processor.brand().trim().to_owned()),
        "cores": System::physical_core_count(),
        "threads": std::thread::available_parallelism().ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_system_and_a_processor() {
        let machine = machine();
        for fact in ["operating_system", "architecture", "processor"] {
            assert!(machine[fact].as_str().is_some_and(|text| !text.is_empty()), "{fact}: {machine}");
        }
        assert!(machine["threads"].as_u64() > Some(0));
    }
}
