//! The processor time of this process: unlike time by the clock, it does not grow while other
//! programs use the processor.

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};

/// Returns the seconds of processor time that all threads of this process took so far. Returns
/// `None` where the system does not tell.
pub(crate) fn seconds() -> Option<f64> {
    let this = get_current_pid().ok()?;
    let mut system = System::new();
    let what = ProcessRefreshKind::nothing().with_cpu();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[this]), false, what);
    Some(system.process(this)?.accumulated_cpu_time() as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn work_takes_processor_time() {
        let before = seconds().unwrap();
        let mut x = 1_u64;
        while seconds().unwrap() < before + 0.05 {
            x = (0..1_000_000).fold(x, |x, i| std::hint::black_box(x.wrapping_mul(31) ^ i));
        }
        assert!(seconds().unwrap() < before + 30.0, "{x}");
    }
}
