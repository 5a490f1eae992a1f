//! See `hypercache_commands::testing::fuzz::config_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hypercache_commands::testing::fuzz::config_file(input));
