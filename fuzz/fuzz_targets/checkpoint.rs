//! Fuzzes the loader of PyTorch checkpoints.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| rewire_tests::fuzzed::checkpoint(bytes));
