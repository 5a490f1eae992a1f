//! Whether a command runs on this node, and what its reply needs before it may leave.
//!
//! Both are decided under the locks of the command's partitions, so no partition changes hands between the
//! decision and what it is about. In a cluster the keys of a command share a slot, hence it is about one
//! partition; those without keys see what this node decides about, and wait for what they wrote.

use super::durability::stricter;
use super::plane::Plane;
use crate::client::{Client, ClientFlags};
use crate::context::Cx;
use crate::keyspace::{
    Located, Refused, Wish, is_clean, partition_of, read_rule, read_rule_of_all,
};
use crate::session::Multi;
use crate::table::{Entry, Flags};
use hypercache_cluster::gate::{Durability, Need};
use hypercache_cluster::ids::PartitionId;
use hypercache_cluster::partition::ReadRule;
use hypercache_protocol::parse::Args;
use hypercache_protocol::slot::slot_of;
use hypercache_stdx::clock;

/// The keys of a command, or of those of a transaction.
#[derive(Clone, Copy)]
enum Asked<'a> {
    Command(&'a Entry, Args<'a>),
    Transaction(&'a Multi),
}

impl<'a> Asked<'a> {
    fn each_key(self, f: &mut dyn FnMut(&'a [u8])) {
        match self {
            Asked::Command(entry, args) => {
                if entry.locks_keys {
                    entry.row.keys.for_each(args, &mut |i, _| f(args.get(i)));
                }
            }
            Asked::Transaction(multi) => {
                for (entry, args) in &multi.queue {
                    Asked::Command(entry, args.as_args()).each_key(f);
                }
            }
        }
    }

    fn first_key(self) -> Option<&'a [u8]> {
        let mut first = None;
        self.each_key(&mut |key| {
            first.get_or_insert(key);
        });
        first
    }

    fn is_write(self) -> bool {
        match self {
            Asked::Command(entry, _) => entry.row.flags.has(Flags::WRITE),
            Asked::Transaction(multi) => {
                multi.queue.iter().any(|(entry, _)| entry.row.flags.has(Flags::WRITE))
            }
        }
    }

    /// Whether it may read keys beside those that it names.
    fn reads_more(self) -> bool {
        match self {
            Asked::Command(entry, _) => entry.runs_scripts,
            Asked::Transaction(multi) => multi.queue.iter().any(|(entry, _)| entry.runs_scripts),
        }
    }

    fn durability(self, plane: &Plane) -> Durability {
        if self.reads_more() {
            return plane.strictest_durability();
        }
        let mut strictest = None;
        self.each_key(&mut |key| {
            let of_key = plane.durability_of(key);
            strictest = Some(strictest.map_or(of_key, |other| stricter(other, of_key)));
        });
        strictest.unwrap_or_else(|| plane.strictest_durability())
    }
}

/// A refusal, and the slot it is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    why: Refused,
    slot: u16,
}

impl Refusal {
    /// What a client is told.
    pub(crate) fn text(self, plane: &Plane) -> String {
        match self.why {
            Refused::Elsewhere => redirect(plane, self.slot),
            Refused::HandingOver => TRY_AGAIN.to_owned(),
            Refused::NoLease => "CLUSTERDOWN The cluster is down".to_owned(),
            Refused::TooFew => "NOREPLICAS Not enough good replicas to write.".to_owned(),
            Refused::Overloaded => {
                "OVERLOADED too much waits to be replicated, try again later".to_owned()
            }
        }
    }

    /// What a script is told.
    pub(crate) fn script_text(self, is_write: bool) -> &'static str {
        match self.why {
            Refused::Elsewhere if is_write => {
                "READONLY You can't write against a read only replica."
            }
            Refused::Elsewhere => {
                "ERR Script attempted to access a non local key in a cluster node"
            }
            Refused::HandingOver => TRY_AGAIN,
            Refused::NoLease => {
                "ERR Script attempted to execute a command while the cluster is down"
            }
            Refused::TooFew => "NOREPLICAS Not enough good replicas to write.",
            Refused::Overloaded => "OVERLOADED too much waits to be replicated, try again later",
        }
    }
}

const TRY_AGAIN: &str = "TRYAGAIN The slot is changing hands, try again in a moment";

/// Where the primary of a slot is, as an error that cluster clients follow.
fn redirect(plane: &Plane, slot: u16) -> String {
    let meta = plane.meta();
    let id = PartitionId::of_slot(slot);
    let Some(config) = meta.partitions.get(&id) else {
        return "CLUSTERDOWN Hash slot not served".to_owned();
    };
    if plane.me() == Some(config.primary) || !meta.is_alive(config.primary) {
        return TRY_AGAIN.to_owned();
    }
    let address = meta.nodes.get(&config.primary.node).map(|node| &node.address);
    let (host, port) = address.map_or(("", 0), |address| (&*address.host, address.port));
    format!("MOVED {slot} {host}:{port}")
}

/// Whether a command may run. Its partitions are held.
///
/// # Errors
/// Why not.
pub(crate) fn admit(
    cx: &Cx<'_>,
    plane: &Plane,
    (entry, args): (&Entry, Args<'_>),
    client: &Client,
) -> Result<(), Refusal> {
    admit_asked(cx, plane, Asked::Command(entry, args), client)
}

/// Whether a transaction may run. Its partitions are held.
///
/// # Errors
/// Why not.
pub(crate) fn admit_queue(cx: &Cx<'_>, plane: &Plane, multi: &Multi) -> Result<(), Refusal> {
    admit_asked(cx, plane, Asked::Transaction(multi), &cx.session.client)
}

fn admit_asked(
    cx: &Cx<'_>,
    plane: &Plane,
    asked: Asked<'_>,
    client: &Client,
) -> Result<(), Refusal> {
    let Some(first) = asked.first_key() else { return Ok(()) };
    let Some(shard) = cx.keys.held_one(partition_of(first)) else { return Ok(()) };
    let now_us = clock::boot_us();
    let wish = Wish {
        is_write: asked.is_write(),
        takes_copies: client.has(ClientFlags::READS_COPIES),
        durability: asked.durability(plane),
        now_us,
    };
    let (keyspace, db) = (cx.keys.keyspace(), cx.keys.db);
    let admitted = shard.admit(&wish, |partition, plane| {
        let mut all = !asked.reads_more() || partition.dirty_keys() == 0;
        asked.each_key(&mut |key| {
            all &= is_clean(partition, plane, (db, keyspace.locate(key, db).hash), now_us);
        });
        all
    });
    admitted.map_err(|why| Refusal { why, slot: slot_of(first) })
}

/// As [`admit`], for a plain command whose one key was located.
///
/// # Errors
/// Why not.
#[inline]
pub(crate) fn admit_one(
    cx: &Cx<'_>,
    plane: &Plane,
    entry: &Entry,
    (key, at): (&[u8], &Located),
) -> Result<(), Refusal> {
    let Some(shard) = cx.keys.held_one(at.partition) else { return Ok(()) };
    let (now_us, db) = (clock::boot_us(), cx.keys.db);
    let wish = Wish {
        is_write: entry.row.flags.has(Flags::WRITE),
        takes_copies: cx.session.client.has(ClientFlags::READS_COPIES),
        durability: plane.durability_of(key),
        now_us,
    };
    let admitted =
        shard.admit(&wish, |partition, plane| is_clean(partition, plane, (db, at.hash), now_us));
    admitted.map_err(|why| Refusal { why, slot: slot_of(key) })
}

/// As [`note_needs`], for a plain command whose one key was located.
#[inline]
pub(crate) fn note_need_of_one(cx: &mut Cx<'_>, plane: &Plane, (key, at): (&[u8], &Located)) {
    let db = cx.keys.db;
    let Some(shard) = cx.keys.held_one(at.partition) else { return };
    let need = shard.need(at.partition, plane.durability_of(key), |partition, plane| {
        read_rule(partition, plane, db, at.hash)
    });
    let last = shard.last_write(at.partition);
    add(&mut cx.worker.needs, need);
    if last.is_some() {
        cx.session.make_cold().last_write = last;
    }
}

/// Whether a command may be queued, or subscribe to channels of a slot: as far as is known without locks.
///
/// # Errors
/// Why not.
pub(crate) fn admit_unlocked(
    cx: &Cx<'_>,
    plane: &Plane,
    entry: &Entry,
    args: Args<'_>,
) -> Result<(), Refusal> {
    let mut first = None;
    entry.row.keys.for_each(args, &mut |i, _| {
        first.get_or_insert(i);
    });
    let Some(first) = first else { return Ok(()) };
    let slot = slot_of(args.get(first));
    let id = PartitionId::of_slot(slot);
    if plane.is_served(id.0) {
        return Ok(());
    }
    let takes_copies = cx.session.client.has(ClientFlags::READS_COPIES);
    let (meta, me) = (plane.meta(), plane.me());
    let is_copy = || {
        let config = meta.partitions.get(&id);
        config.is_some_and(|config| me.is_some_and(|me| config.is_on(me.node)))
    };
    if takes_copies && !entry.row.flags.has(Flags::WRITE) && is_copy() {
        return Ok(());
    }
    let why = if me.is_none() { Refused::NoLease } else { Refused::Elsewhere };
    Err(Refusal { why, slot })
}

/// Notes what the reply to a command needs that ran. Its partitions are still held.
pub(crate) fn note_needs(cx: &mut Cx<'_>, plane: &Plane, entry: &Entry, args: Args<'_>) {
    note_needs_of(cx, plane, Asked::Command(entry, args));
}

/// Notes what the replies to a transaction need that ran. Its partitions are still held.
pub(crate) fn note_needs_of_queue(cx: &mut Cx<'_>, plane: &Plane, multi: &Multi) {
    note_needs_of(cx, plane, Asked::Transaction(multi));
}

fn note_needs_of(cx: &mut Cx<'_>, plane: &Plane, asked: Asked<'_>) {
    let (keyspace, db) = (cx.keys.keyspace(), cx.keys.db);
    let durability = asked.durability(plane);
    let has_keys = asked.first_key().is_some();
    let (needs, mut last) = (&mut cx.worker.needs, None);
    cx.keys.each_held(|number, shard| {
        let write = shard.last_write(number);
        if !has_keys && write.is_none() && !asked.reads_more() {
            // It holds all partitions, and did nothing to this one. A script holds what it looked at.
            return;
        }
        let need = shard.need(number, durability, |partition, plane| {
            if asked.reads_more() {
                return read_rule_of_all(partition);
            }
            let mut rule = ReadRule::Now;
            asked.each_key(&mut |key| {
                let of_key = read_rule(partition, plane, db, keyspace.locate(key, db).hash);
                rule = later(rule, of_key);
            });
            rule
        });
        last = write.or(last);
        add(needs, need);
    });
    if last.is_some() {
        cx.session.make_cold().last_write = last;
    }
}

fn later(a: ReadRule, b: ReadRule) -> ReadRule {
    match (a, b) {
        (ReadRule::After(a), ReadRule::After(b)) => ReadRule::After(a.max(b)),
        (ReadRule::Now, other) | (other, ReadRule::Now) => other,
    }
}

/// Needs looked through for one that says the same.
const LOOKED_AT: usize = 8;

/// Adds a need to those of a connection in this turn.
pub fn add(needs: &mut Vec<Need>, need: Need) {
    let start = needs.len().saturating_sub(LOOKED_AT);
    for other in &mut needs[start..] {
        let is_covered = match (&*other, &need) {
            (
                Need::Commit { partition: a, term: t, lsn: x },
                Need::Commit { partition: b, term: u, lsn: y },
            )
            | (
                Need::CommitAndLease { partition: a, term: t, lsn: x },
                Need::CommitAndLease { partition: b, term: u, lsn: y },
            ) => a == b && t == u && x <= y,
            (a, b) => a == b,
        };
        if is_covered {
            *other = need;
            return;
        }
    }
    if need != Need::Nothing {
        needs.push(need);
    }
}

/// What the reply to a client needs that waited for a key and was served.
pub(crate) fn need_of_served(cx: &Cx<'_>, key: &[u8]) -> Need {
    let Some(plane) = cx.shared.cluster.plane() else { return Need::Nothing };
    let number = partition_of(key);
    let Some(shard) = cx.keys.held_one(number) else { return Need::Nothing };
    let durability = plane.durability_of(key);
    shard.need(number, durability, |partition, _| read_rule_of_all(partition))
}
