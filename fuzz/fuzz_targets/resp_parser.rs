//! See `hypercache_commands::testing::fuzz::resp_parser`.
#![no_main]

use hypercache_commands::testing::fuzz;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::resp_parser(input));
