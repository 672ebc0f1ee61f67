//! Chooses the device that the parity tests run on.

use std::sync::Once;

/// Makes GPU failures visible to the tests of this process. The program must install the hook, and
/// here the program is the test.
pub fn see_faults() {
    static ONCE: Once = Once::new();
    ONCE.call_once(rewire_tensor::install_fault_hook);
}

/// Returns whether tests on `backend` run: those that `REWIRE_DEVICE` names, or, if it is not set,
/// those on the CPU.
///
/// # Panics
/// If `REWIRE_DEVICE` names a backend that was not built in, because all tests would be skipped and
/// pass.
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
