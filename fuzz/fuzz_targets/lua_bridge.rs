//! See `hypercache_scripting::testing::lua_bridge`.
#![no_main]

use hypercache_scripting::testing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| testing::lua_bridge(input));
