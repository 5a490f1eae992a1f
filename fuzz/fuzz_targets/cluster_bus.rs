//! See `hypercache_cluster::bus::check_round_trip`.
#![no_main]

use hypercache_cluster::bus::check_round_trip;

libfuzzer_sys::fuzz_target!(|input: &[u8]| check_round_trip(input));
