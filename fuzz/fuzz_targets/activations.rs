//! Fuzzes the reader of files of activations.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| rewire_tests::fuzzed::activations(bytes));
