//! What growing tables cost can be seen: while LATENCY notes events, their steps are counted.

use hypercache_tests::{Server, Wire, request};

const KEYS: u64 = 200_000;

/// Sets all keys, or deletes them, in one pipeline.
fn for_all_keys(wire: &mut Wire, words: impl Fn(&str) -> Vec<String>) {
    for first in (0..KEYS).step_by(1000) {
        let keys = first..first + 1000;
        let requests: Vec<u8> =
            keys.clone().flat_map(|key| request(&words(&format!("key:{key}")))).collect();
        wire.send(&requests);
        keys.for_each(|_| assert_ne!(wire.read().kind(), b'-'));
    }
}

fn set(key: &str) -> Vec<String> {
    ["SET", key, "v"].map(str::to_owned).to_vec()
}

fn del(key: &str) -> Vec<String> {
    ["DEL", key].map(str::to_owned).to_vec()
}

#[test]
fn steps_of_growth_are_counted_while_latency_is_watched() {
    let server = Server::start(&["--threads", "1"]);
    let mut wire = server.wire();
    for_all_keys(&mut wire, set);
    assert_eq!(server.info_number("table_growth_steps"), 0);
    for_all_keys(&mut wire, del);
    server.ask(&["CONFIG", "SET", "latency-monitor-threshold", "1"]);
    for_all_keys(&mut wire, set);
    let grown = server.info_number("table_growth_steps");
    // A bucket for every six keys, which must come from somewhere.
    assert!((KEYS / 7..KEYS).contains(&grown), "{grown} steps");
    for_all_keys(&mut wire, del);
    assert!(server.info_number("table_growth_steps") > grown + KEYS / 7, "shrinking counts");
    let percentiles = server.info("table_growth_percentiles_usec");
    assert!(percentiles.starts_with("p50=") && percentiles.contains(",p99.9999="), "{percentiles}");
    let max_us = server.info_number("table_growth_max_usec");
    let events = server.ask(&["LATENCY", "HISTORY", "table-growth"]);
    // What was seen less than a tick ago may not be noted yet, but nothing is noted without cause.
    assert!(max_us >= 1000 || events == "Array([])", "{max_us} us, {events}");
    server.ask(&["CONFIG", "RESETSTAT"]);
    assert_eq!(server.info_number("table_growth_max_usec"), 0);
}
