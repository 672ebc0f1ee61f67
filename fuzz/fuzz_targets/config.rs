//! Fuzzes the reader of `config.json`, and the loader with it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| rewire_tests::fuzzed::config(bytes));
