//! See `hypercache_commands::testing::fuzz::memcached_parser`.
#![no_main]

use hypercache_commands::testing::fuzz;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::memcached_parser(input));
