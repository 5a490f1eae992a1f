//! What a partition does when memory is full. Which key goes is decided in [`crate::evict`].

use super::{Keyspace, Shard, discard};
use crate::evict::Victim;
use hypercache_journal::{Change, Effect, Event};
use hypercache_stdx::rng::Rng;
use hypercache_store::evict::{Mode, Pool, Score, Whereabouts};
use hypercache_store::{Choice, expect, prefetch_to_write};

/// The number by which a database of a partition is found again.
pub(super) fn place_of((partition, db): (u16, u8)) -> u16 {
    partition << 4 | u16::from(db)
}

/// Partition and database of a key that was drawn.
pub(crate) fn partition_and_db(at: Whereabouts) -> (u16, u8) {
    (at.place() >> 4, (at.place() & 15) as u8)
}

/// How a key went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// To make room.
    Evicted,
    /// Because its time was past anyway.
    Expired,
}

impl Keyspace {
    /// Brings what giving up some keys reads towards the cache.
    pub(crate) fn expect(&self, victims: &[Victim]) {
        expect(victims.iter().map(|&(_, at)| {
            let (partition, db) = partition_and_db(at);
            prefetch_to_write(std::ptr::from_ref(&self.partition(partition).shard).cast());
            (at.hash(), self.core(partition, db).hint())
        }));
    }
}

impl Shard {
    /// Draws some keys that may go, of which a pool keeps the worst. Returns how many of the pool should go
    /// for that: 0 if there is none to draw.
    pub(crate) fn draw(
        &self,
        choice: Choice,
        now_ms: u64,
        rng: &mut Rng,
        pool: &mut Pool<Whereabouts>,
    ) -> usize {
        self.dbs.iter().map(|(_, db)| db.draw(choice, now_ms, rng, pool)).sum()
    }

    /// Gives up a key that was drawn, unless it is worth more by now or gone.
    pub(crate) fn give_up(
        &mut self,
        at: Whereabouts,
        drawn: (Choice, Score),
        now_ms: u64,
    ) -> Option<Gone> {
        let (_, number) = partition_and_db(at);
        let (removed, is_expired) = self.dbs.get_mut(number)?.give_up(at, drawn, now_ms)?;
        self.is_changed = true;
        if is_expired {
            self.history.record_expired(number, removed);
            return Some(Gone::Expired);
        }
        let (key, change, event) = (removed.key(), Change::Del, Event::Evicted);
        self.history.record(&Effect { db: number, key, change, event, is_new: false });
        discard(removed);
        Some(Gone::Evicted)
    }

    /// Keeps something else of the uses of all keys from now on, as [`Mode`] says. What was remembered of
    /// evicted keys goes.
    pub(crate) fn set_mode(&mut self, mode: Mode, now_s: u32) {
        self.is_changed = true;
        self.dbs.iter_mut().for_each(|(_, db)| db.set_mode(mode, now_s));
    }
}
