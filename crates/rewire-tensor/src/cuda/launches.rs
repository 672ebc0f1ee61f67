//! Counting the kernels that are launched: where a GPU waits for the program rather than the other way round, their number says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cubecl::config::profiling::ProfilingLogLevel;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use cubecl_common::config::logger::LogCrateLevel;
use log::{LevelFilter, Log, Metadata, Record};

static LAUNCHES: AtomicU64 = AtomicU64::new(0);

/// Counts the backend's lines about launches; it writes one for each.
struct Counter;

impl Log for Counter {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        if record.args().to_string().starts_with("Executing ") {
            LAUNCHES.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// From now on, launches are counted. To be called before the first use of a device, since the backend reads its settings once, and
/// by programs that log nothing themselves. It slows each launch, so what is timed is not counted.
///
/// # Panics
/// After the first use of a device.
pub fn count_launches() {
    let mut config = CubeClRuntimeConfig::default();
    config.profiling.logger.level = ProfilingLogLevel::Minimal;
    config.profiling.logger.log = Some(LogCrateLevel::Info);
    CubeClRuntimeConfig::set(config);
    if log::set_logger(&Counter).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// How many kernels were launched since [`count_launches`].
#[must_use]
pub fn launches() -> u64 {
    // The backend's lines arrive a little later than what they tell of.
    loop {
        let seen = LAUNCHES.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(100));
        if LAUNCHES.load(Ordering::Relaxed) == seen {
            return seen;
        }
    }
}
