//! See `hypercache_commands::testing::fuzz::command_sequence`.
#![no_main]

use hypercache_commands::testing::fuzz;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::command_sequence(input));
