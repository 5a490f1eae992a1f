//! Collections on their way to the cache before the commands of a window run. Hot path.
//!
//! An entry of a collection leads to its object and that to what it owns: two waits for memory that
//! no hint can spare, since what an entry leads to may be read under its partition's lock only. Locks
//! are cheap beside such a wait, so each key's is taken twice before its command takes it. What is in
//! the first cache anyway gains nothing by it and pays some 30 ns.

use super::{Keyspace, Located};

impl Keyspace {
    /// Brings what the keys hold towards the cache, of those that hold collections: what the entries
    /// lead to, and then what these lead to. A partition that is locked is passed over.
    #[inline(never)]
    pub fn prefetch_objects(&self, keys: &[Located]) {
        for is_there in [false, true] {
            for at in keys.iter().filter(|at| at.holds_object) {
                if let Some(shard) = self.try_lock(at.partition)
                    && let Some(db) = shard.db(at.db)
                {
                    db.prefetch_object(at.hash, &at.hint, is_there);
                }
            }
        }
    }
}
