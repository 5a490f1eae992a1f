//! What the logs of effects lead to, beside what is there: a replica, a backup and a restore rest on
//! the two being the same.

use super::Harness;
use crate::keyspace::{DATABASES, PARTITIONS};
use hypercache_journal::{Change, apply};
use hypercache_stdx::hash::KeyHasher;
use hypercache_store::{Care, Db, Mark};
use std::collections::BTreeMap;

/// Value (of a collection, its canonical form), deadline, mark but for its CAS unique, and care, by
/// database and key.
pub type Dataset = BTreeMap<(usize, Vec<u8>), (Vec<u8>, Option<u64>, Mark, Option<Care>)>;

/// Settings under which all effects are kept.
pub const KEEP_ALL: &[(&str, &str)] =
    &[("notify-keyspace-events", "KEA"), ("partition-log-size", "1gb")];

fn collect(db: &Db, number: usize, into: &mut Dataset) {
    db.for_each(|e| {
        let value = e.object().map_or_else(|| e.value().to_vec(), |object| object.canonical());
        let mark = Mark { cas: 0, ..e.mark() };
        into.insert((number, e.key().to_vec()), (value, e.deadline(), mark, db.care_of(e)));
    });
}

/// What is in the server's keyspace.
#[must_use]
pub fn dataset(harness: &Harness) -> Dataset {
    let mut found = Dataset::new();
    for partition in 0..PARTITIONS as u16 {
        let shard = harness.shared.keyspace.lock(partition);
        for number in 0..DATABASES {
            if let Some(db) = shard.db(number as u8) {
                collect(db, number, &mut found);
            }
        }
    }
    found
}

/// What the logs of all partitions lead to, from an empty store.
///
/// # Panics
/// When a log was not kept from the start (see [`KEEP_ALL`]), or has a change that no one applies.
#[must_use]
pub fn replay(harness: &Harness) -> Dataset {
    let hasher = KeyHasher::new((5, 6));
    let mut found = Dataset::new();
    for partition in 0..PARTITIONS as u16 {
        let shard = harness.shared.keyspace.lock(partition);
        if shard.history.log.last() == 0 {
            continue;
        }
        let mut dbs: Vec<Db> = (0..DATABASES).map(|_| Db::new(hasher, 0)).collect();
        let read = shard.history.log.read_from(1, &mut |effect| {
            let number = effect.db as usize;
            if apply(&effect, hasher.hash(effect.key), &mut dbs[number]) {
                return;
            }
            match effect.change {
                Change::Flush => dbs[number] = Db::new(hasher, 0),
                Change::Swap(other) => dbs.swap(number, other as usize),
                other => panic!("not applied: {other:?}"),
            }
        });
        read.expect("the log was kept from the start");
        dbs.iter().enumerate().for_each(|(number, db)| collect(db, number, &mut found));
    }
    found
}
