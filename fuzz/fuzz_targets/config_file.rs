//! See `hypercache_commands::testing::fuzz::config_file`.
#![no_main]

use hypercache_commands::testing::fuzz;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::config_file(input));
