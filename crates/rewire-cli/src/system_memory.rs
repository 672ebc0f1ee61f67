//! The memory that this machine has left for the program.

use sysinfo::System;

/// Returns the bytes that the program can still take: what the system can give without swapping, at
/// most what the container's limit leaves. Mapped files and other caches count as free, because the
/// system drops them. Returns `None` where the system does not tell.
pub(crate) fn available() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory();
    if system.total_memory() == 0 {
        return None;
    }
    let in_container = system.cgroup_limits().map(|limits| limits.total_memory.saturating_sub(limits.rss));
    Some(in_container.map_or(system.available_memory(), |left| left.min(system.available_memory())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_memory_is_left() {
        let left = available().unwrap();
        assert!((1 << 20..1 << 50).contains(&left), "{left}");
    }
}
