//! See `hypercache_commands::testing::fuzz::restore_payload`.
#![no_main]

use hypercache_commands::testing::fuzz;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::restore_payload(input));
