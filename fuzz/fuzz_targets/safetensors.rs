//! Fuzzes the loader of weights: a header and its data.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| rewire_tests::fuzzed::safetensors(bytes));
