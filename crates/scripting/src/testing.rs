//! What fuzzing runs: a script and its arguments, which must neither break the server nor its books.

use crate::Engine;
use hypercache_commands::config::Config;
use hypercache_commands::testing::Harness;
use hypercache_commands::testing::fuzz::count_replies;
use hypercache_commands::testing::replay::{KEEP_ALL, dataset, replay};
use std::sync::Arc;

/// What a script may take here.
const LIMITS: &[(&str, &str)] = &[("lua-memory-limit", "16mb"), ("busy-reply-threshold", "20")];

/// A server that ends by itself when a script takes long.
fn harness() -> Harness {
    let mut config = Config::default();
    for (name, value) in LIMITS.iter().chain(KEEP_ALL) {
        config.set_at_start(name, value).expect("a valid setting");
    }
    let harness = Harness::new(config);
    harness.shared.scripts.install(Box::new(Engine));
    let turn = Arc::downgrade(&harness.shared.keyspace.turn);
    harness.shared.keyspace.turn.watch(Box::new(move |_| {
        turn.upgrade().into_iter().for_each(|turn| turn.stop());
    }));
    harness
}

/// The target `lua_bridge`: a text, and after zero bytes the arguments, of which the first is a key.
/// The text is run as a script, loaded as a library and restored as a payload.
///
/// # Panics
/// When a promise is broken.
pub fn lua_bridge(input: &[u8]) {
    let mut pieces = input.split(|byte| *byte == 0);
    let text = pieces.next().unwrap_or_default();
    let args: Vec<&[u8]> = pieces.collect();
    let keys: &[u8] = if args.is_empty() { b"0" } else { b"1" };
    let mut h = harness();
    for head in [[b"EVAL", text, keys], [b"EVAL_RO", text, keys], [b"FCALL", b"f", keys]] {
        check(&h.run_args(head.iter().chain(&args)));
        check(&h.run_args([&b"FUNCTION"[..], b"LOAD", b"REPLACE", text]));
    }
    check(&h.run_args([&b"FUNCTION"[..], b"RESTORE", text]));
    assert_eq!(h.shared.keyspace.turn.running(), None, "nothing runs any more");
    assert_eq!(h.bytes_there(), h.shared.bytes_used(), "bytes are counted as they are");
    assert_eq!(replay(&h), dataset(&h), "effects lead to what is there");
}

fn check(reply: &[u8]) {
    assert_eq!(count_replies(reply), Some(1), "one reply: {}", reply.escape_ascii());
}
