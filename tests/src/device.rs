//! The device that the parity tests run on.

use std::sync::Once;

/// Makes failures of a GPU visible to the tests of this process: a test program is the program that
/// has to install the hook.
pub fn see_faults() {
    static ONCE: Once = Once::new();
    ONCE.call_once(rewire_tensor::install_fault_hook);
}

/// Whether tests on `backend` are to run: by `REWIRE_DEVICE`, or, without it, those of the CPU.
///
/// # Panics
/// If `REWIRE_DEVICE` names what was not built in: tests that all stand aside would pass.
pub fn is_wanted(backend: &str) -> bool {
    let built =
        [("flex", cfg!(feature = "flex")), ("ndarray", cfg!(feature = "ndarray")), ("cuda", cfg!(feature = "cuda"))];
    match std::env::var("REWIRE_DEVICE") {
        Err(_) => backend != "cuda",
        Ok(wanted) => {
            let there = built.iter().any(|(name, there)| *name == wanted && *there);
            assert!(there, "REWIRE_DEVICE={wanted}: there are {built:?}; CUDA is built in with --features cuda");
            see_faults();
            wanted == backend
        }
    }
}
