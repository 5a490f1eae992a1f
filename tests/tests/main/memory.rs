//! `maxmemory` bounds what is resident, whatever is written; memory comes back.

use hypercache_tests::{Server, Wire, request, wait_for};

const MIB: u64 = 1 << 20;

/// What may be resident under a limit of 128 MiB. It is to be the limit; while writes come at full rate and
/// sizes shift, up to a thirtieth more was seen, and up to a tenth on a machine that does much else.
const MOST: u64 = 144 * MIB;

/// A number that looks random, of each number.
fn scatter(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

/// Writes about `bytes` in values of half to one and a half times `len` bytes, to keys that are drawn from
/// many.
fn churn(wire: &mut Wire, bytes: u64, len: u64) {
    let value = vec![b'v'; 2 * len as usize];
    for batch in 0..bytes / len / 64 {
        let mut requests = Vec::new();
        for n in batch * 64..(batch + 1) * 64 {
            let key = format!("key:{}", scatter(n + len) % 10_000_000);
            let value = &value[..(len / 2 + scatter(n) % len) as usize];
            requests.extend(request(&[b"SET", key.as_bytes(), value]));
        }
        wire.send(&requests);
        assert_eq!(wire.read_bytes(64 * 5), b"+OK\r\n".repeat(64));
    }
}

#[test]
fn resident_memory_stays_below_the_limit_while_sizes_shift() {
    for policy in ["adaptive", "allkeys-lru"] {
        let flags = ["--maxmemory", "128mb", "--maxmemory-policy", policy, "--threads", "2"];
        let server = Server::start(&flags);
        let mut wire = server.wire();
        for (len, mib) in [(64, 100), (1000, 160), (4096, 240), (300, 120), (64, 24)] {
            churn(&mut wire, mib * MIB, len);
            let most = server.peak_rss();
            assert!(most <= MOST, "{policy}, {len}: {most} bytes were resident");
        }
        let used = server.info_number("used_memory");
        assert!(used > 40 * MIB, "{policy}: only {used} bytes are used");
        let parts = server.ask(&["MEMORY", "MALLOC-STATS"]);
        let number = |name: &str| -> u64 {
            let line = parts.lines().find_map(|line| line.trim().strip_prefix(name));
            let word = line.and_then(|line| line.split([',', ' ']).find(|word| !word.is_empty()));
            word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{name}: {parts}"))
        };
        assert!(number("resident:").abs_diff(server.rss()) < 2 * MIB, "{parts}");
        let before = server.rss();
        assert_eq!(server.ask(&["FLUSHALL"]), "OK");
        wait_for("memory to come back", || (server.rss() < before / 4 * 3).then_some(()));
    }
}

#[test]
fn memory_comes_back_when_most_keys_are_deleted() {
    let server = Server::start(&["--threads", "1"]);
    let mut wire = server.wire();
    let count = 800_000;
    for first in (0..count).step_by(100) {
        let sets =
            (first..first + 100).flat_map(|n| request(&["SET", &format!("key:{n}"), "value"]));
        wire.send(&sets.collect::<Vec<u8>>());
        wire.read_bytes(500);
    }
    let full = server.rss();
    for first in (0..count).step_by(100) {
        // One in ten stays, in every page.
        let gone = (first..first + 100).filter(|n| n % 10 > 0).map(|n| format!("key:{n}"));
        let words: Vec<String> = ["DEL".to_owned()].into_iter().chain(gone).collect();
        assert_eq!(wire.call(&words).as_int(), Some(90));
    }
    let held =
        || server.info_number("resident_entry_holes") + server.info_number("resident_entry_pages");
    wait_for("what is sparse to be moved together", || (held() < 6 * MIB).then_some(()));
    wait_for("memory to come back", || (server.rss() + 4 * MIB < full).then_some(()));
    for n in (0..count).step_by(10) {
        assert_eq!(wire.call(&["GET", &format!("key:{n}")]).text(), "value", "key {n}");
    }
}

#[test]
fn the_clients_with_most_to_read_are_closed_and_no_data_goes() {
    let flags = ["--maxmemory", "128mb", "--maxmemory-policy", "allkeys-lru"];
    let server = Server::start(&[&flags[..], &["--maxmemory-clients", "6mb"]].concat());
    let mut wire = server.wire();
    wire.call(&["SET", "k", &"v".repeat(16_000)]);
    churn(&mut wire, 20 * MIB, 1000);
    let mut readers: Vec<Wire> = (0..20).map(|_| server.wire()).collect();
    for reader in &mut readers {
        // More than the sockets take, and some of the readers are closed meanwhile.
        let _sent = reader.try_send(&request(&["GET", "k"]).repeat(400));
    }
    wait_for("some to be closed", || (server.info_number("evicted_clients") > 0).then_some(()));
    wait_for("the others to fit", || {
        (server.info_number("mem_clients_normal") <= 6 * MIB).then_some(())
    });
    assert_eq!(server.info_number("evicted_keys"), 0);
    assert!(server.info_number("connected_clients") > 1, "not all are closed");
    let most = server.peak_rss();
    assert!(most <= MOST, "{most} bytes were resident");
}
