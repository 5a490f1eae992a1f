//! See `hypercache_commands::testing::fuzz::resp_parser`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hypercache_commands::testing::fuzz::resp_parser(input));
