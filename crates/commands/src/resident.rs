//! What memory is used for, as INFO and MEMORY tell: the parts add up to what is resident.

use crate::context::Cx;
use crate::keyspace::DATABASES;
use crate::system;
use hypercache_store::{Items, items};
use std::sync::atomic::Ordering::Relaxed;

/// What INFO and MEMORY tell.
pub(crate) struct Memory {
    /// Bytes of keyspace and connection buffers.
    pub(crate) used: u64,
    /// The most those ever were.
    pub(crate) peak: u64,
    /// Bytes of the process, as the kernel sees it.
    pub(crate) rss: u64,
    /// Of these, bytes of files: the program.
    pub(crate) program: u64,
    /// Memory for entries.
    pub(crate) items: Items,
    /// Bytes of connection buffers.
    pub(crate) clients: u64,
    /// Bytes of tables and expiry indexes.
    pub(crate) tables: u64,
    /// Bytes of what eviction learns.
    pub(crate) learned: u64,
    /// Bytes of what clients have registered: waits, watched keys and keys that they keep copies of.
    pub(crate) registered: u64,
}

impl Memory {
    pub(crate) fn read(cx: &mut Cx<'_>) -> Memory {
        let mut tables = 0;
        cx.keys.each_shard(|_, shard| {
            let dbs = (0..DATABASES as u8).filter_map(|db| shard.db(db));
            tables += dbs.map(|db| db.overhead_bytes() as u64).sum::<u64>();
            true
        });
        let clients = cx.shared.clients.all();
        let used = cx.shared.bytes_used();
        let (rss, program) = system::rss_and_program_bytes();
        Memory {
            used,
            peak: cx.shared.peak_bytes.load(Relaxed),
            rss,
            program,
            items: items(),
            clients: clients.iter().map(|client| client.buffer_bytes()).sum(),
            tables,
            learned: cx.shared.keyspace.uses.bytes() as u64,
            registered: cx.shared.keyspace.registered.bytes() as u64,
        }
    }

    /// Bytes that are no keys and values.
    pub(crate) fn overhead(&self) -> u64 {
        self.clients + self.tables + self.registered
    }

    /// Bytes of keys and values.
    pub(crate) fn dataset(&self) -> u64 {
        self.used.saturating_sub(self.overhead())
    }

    /// Where the resident memory is: names and bytes. The rest is what the allocator and the tables hold
    /// beyond what they were asked for, stacks, and buffers that are no connection's.
    pub(crate) fn parts(&self) -> [(&'static str, u64); 9] {
        let entries = (self.items.used as u64).min(self.used);
        let counted = entries + self.overhead() + self.learned;
        let known = [
            ("entries", entries),
            ("entry holes", self.items.holes() as u64),
            ("entry pages", self.items.free as u64),
            ("large values", self.used.saturating_sub(counted)),
            ("tables", self.tables),
            ("clients", self.clients + self.registered),
            ("learned", self.learned),
            ("program", self.program),
        ];
        let sum: u64 = known.iter().map(|(_, bytes)| bytes).sum();
        let [a, b, c, d, e, f, g, h] = known;
        [a, b, c, d, e, f, g, h, ("rest", self.rss.saturating_sub(sum))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_what_is_resident() {
        let items = Items { held: 64 << 20, free: 1 << 20, used: 60 << 20, has_run: true };
        let (clients, tables, learned, registered) = (1 << 20, 5 << 20, 2 << 20, 0);
        let (used, peak, rss, program) = (72 << 20, 0, 90 << 20, 4 << 20);
        let memory =
            Memory { used, peak, rss, program, items, clients, tables, learned, registered };
        let parts = memory.parts();
        assert_eq!(parts.iter().map(|(_, bytes)| bytes).sum::<u64>(), rss);
        let of =
            |name| parts.iter().find(|(other, _)| *other == name).map(|(_, bytes)| bytes >> 20);
        assert_eq!(
            (of("entry holes"), of("large values"), of("rest")),
            (Some(3), Some(4), Some(10))
        );
    }
}
