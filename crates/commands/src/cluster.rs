//! What this node knows of its cluster, and the rule that a command's keys share a slot.
//!
//! So far a cluster has one node, which serves all slots: cluster clients work, and applications
//! written for a cluster meet its rules. Replication, membership and failover come with the nodes.

use crate::error::ReplyError;
use crate::session::Session;
use crate::table::Entry;
use hypercache_protocol::parse::Args;
use hypercache_protocol::slot::slot_of;
use hypercache_stdx::rng;

/// Bytes of a node's id in text.
pub const ID_BYTES: usize = 40;

/// See the module's text.
#[derive(Debug)]
pub struct Cluster {
    is_enabled: bool,
    /// Forty hexadecimal digits that name the node, new with every start.
    pub node_id: String,
    /// Those that name the group of nodes with the same slots.
    pub shard_id: String,
}

impl Cluster {
    /// A node that is alone; whether clients see a cluster does not change while it runs.
    #[must_use]
    pub fn new(is_enabled: bool) -> Self {
        Cluster { is_enabled, node_id: new_id(), shard_id: new_id() }
    }

    /// Whether clients see a cluster.
    #[inline]
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// What HELLO and INFO call it.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        if self.is_enabled { "cluster" } else { "standalone" }
    }
}

fn new_id() -> String {
    let mut id = format!("{:016x}{:016x}{:016x}", rng::entropy(), rng::entropy(), rng::entropy());
    id.truncate(ID_BYTES);
    id
}

/// The slot of all keys (and shard channels) of a command; `None` if it has none.
///
/// # Errors
/// [`ReplyError::CrossSlot`] if they are of several.
pub fn slot_of_keys(entry: &Entry, args: Args<'_>) -> Result<Option<u16>, ReplyError> {
    let (mut slot, mut is_crossing) = (None, false);
    entry.row.keys.for_each(args, &mut |i, _| {
        let of_key = slot_of(args.get(i));
        is_crossing |= *slot.get_or_insert(of_key) != of_key;
    });
    if is_crossing { Err(ReplyError::CrossSlot) } else { Ok(slot) }
}

/// Whether the keys of a command are of several slots; those of a transaction if it is EXEC.
pub(crate) fn crosses_slots(session: &Session, entry: &Entry, args: Args<'_>) -> bool {
    let multi = session.multi().filter(|_| entry.row.name == "EXEC");
    let Some(multi) = multi else { return slot_of_keys(entry, args).is_err() };
    // Each command by itself was looked at when it was queued.
    let slots = multi.queue.iter().map(|(queued, args)| slot_of_keys(queued, args.as_args()));
    let mut slots = slots.filter_map(|slot| slot.ok().flatten());
    let first = slots.next();
    slots.any(|slot| Some(slot) != first)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::testing::Harness;

    fn in_cluster() -> Harness {
        let mut config = Config::default();
        config.set_at_start("cluster-enabled", "yes").expect("a setting");
        Harness::new(config)
    }

    /// Runs lines; each reply must begin as told.
    fn check(script: &[(&str, &str)]) {
        let mut h = in_cluster();
        for (line, expected) in script {
            let reply = String::from_utf8_lossy(&h.run(line)).into_owned();
            assert!(reply.starts_with(expected), "{line}: {reply:?} for {expected:?}");
        }
    }

    #[test]
    fn keys_of_a_command_share_a_slot() {
        check(&[
            ("MSET {t}a 1 {t}b 2", "+OK"),
            ("MGET {t}a {t}b", "*2"),
            ("MGET {t}a b", "-CROSSSLOT Keys in request don't hash to the same slot"),
            ("RENAME a b", "-CROSSSLOT"),
            ("EVAL 'return 1' 2 a b", "-CROSSSLOT"),
            ("SUNIONSTORE {t}d {t}a b", "-CROSSSLOT"),
            ("XREAD STREAMS a b 0 0", "-CROSSSLOT"),
            ("DBSIZE", ":2"),
            ("SORT {t}a BY w*", "-ERR BY option of SORT denied in cluster mode."),
            ("SORT {t}a GET w", "-ERR GET option of SORT denied in cluster mode."),
            ("SORT {t}none BY nosort GET #", "*0"),
            ("SWAPDB 0 1", "-ERR SWAPDB is not allowed in cluster mode"),
        ]);
    }

    #[test]
    fn a_transaction_stays_in_its_slot() {
        check(&[
            ("MULTI", "+OK"),
            ("SET {t}a 1", "+QUEUED"),
            ("MGET a b", "-CROSSSLOT"),
            ("EXEC", "-EXECABORT"),
            ("MULTI", "+OK"),
            ("SET a 1", "+QUEUED"),
            ("SET b 1", "+QUEUED"),
            ("EXEC", "-CROSSSLOT Keys in request don't hash to the same slot"),
            ("EXEC", "-ERR EXEC without MULTI"),
            ("EXISTS a", ":0"),
            ("MULTI", "+OK"),
            ("SET {t}a 1", "+QUEUED"),
            ("PING", "+QUEUED"),
            ("GET {t}a", "+QUEUED"),
            ("EXEC", "*3\r\n+OK\r\n+PONG\r\n$1\r\n1"),
        ]);
    }

    #[test]
    fn keys_of_a_slot_are_found() {
        let slot = crate::cluster::slot_of(b"{t}");
        let mut h = in_cluster();
        for i in 0..500 {
            h.run(&format!("SET {{t}}{i} x"));
            h.run(&format!("SET other{i} x"));
        }
        assert_eq!(h.run(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), b":500\r\n");
        let some = h.run(&format!("CLUSTER GETKEYSINSLOT {slot} 3"));
        assert!(some.starts_with(b"*3\r\n"), "{}", String::from_utf8_lossy(&some));
        let all = h.run(&format!("CLUSTER GETKEYSINSLOT {slot} 1000"));
        assert!(all.starts_with(b"*500\r\n") && !all.windows(5).any(|w| w == b"other"));
        for (line, error) in [
            ("CLUSTER COUNTKEYSINSLOT 16384", "-ERR Invalid slot\r\n"),
            ("CLUSTER COUNTKEYSINSLOT x", "-ERR value is not an integer or out of range\r\n"),
            ("CLUSTER GETKEYSINSLOT 1 -1", "-ERR Invalid slot or number of keys\r\n"),
        ] {
            assert_eq!(String::from_utf8_lossy(&h.run(line)), error, "{line}");
        }
    }

    #[test]
    fn one_node_has_all_slots() {
        check(&[
            ("CLUSTER SLOTS", "*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n"),
            ("CLUSTER INFO", "$"),
            ("CLUSTER KEYSLOT foo", ":12182"),
            ("CLUSTER MYID", "$40"),
            ("CLUSTER REPLICAS 1", "-ERR Unknown node 1"),
            ("CLUSTER ADDSLOTS 1", "-ERR CLUSTER ADDSLOTS is not supported"),
            ("READONLY", "+OK"),
            ("READWRITE", "+OK"),
            ("ASKING", "+OK"),
        ]);
    }
}
