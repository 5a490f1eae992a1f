//! See `hypercache_commands::testing::fuzz::acl_rules`.
#![no_main]

use hypercache_commands::testing::fuzz;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::acl_rules(input));
