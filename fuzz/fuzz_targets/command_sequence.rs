//! See `hypercache_commands::testing::fuzz::command_sequence`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hypercache_commands::testing::fuzz::command_sequence(input));
