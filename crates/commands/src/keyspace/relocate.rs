//! Entries are moved out of sparse memory ([`hypercache_store::Sparse`]).

use super::Keyspace;
use hypercache_store::{Hint, Sparse};
use smallvec::SmallVec;

/// Slots whose keys are looked for together, so that memory is waited for together.
const TOGETHER: usize = 32;

/// An entry that may be where it is thought to be.
struct Sought {
    address: u64,
    partition: u16,
    hash: u64,
    hint: Hint,
}

impl Keyspace {
    /// Moves entries of the next slots. Returns whether there are more slots. A partition that is locked
    /// is passed over.
    pub(crate) fn move_some(&self, sparse: &mut Sparse) -> bool {
        let mut all = SmallVec::<[Sought; TOGETHER]>::new();
        let has_more = sparse.next(TOGETHER, |guess| {
            let (partition, hash) = self.place_and_hash(guess.key);
            // Most keys are of the first database; for others the hint is in vain.
            let hint = self.core(partition, 0).hint();
            all.push(Sought { address: guess.address, partition, hash, hint });
        });
        all.iter_mut().for_each(|sought| sought.hint.find_block(sought.hash));
        all.iter_mut().for_each(|sought| sought.hint.find_bucket());
        for Sought { address, partition, hash, .. } in all {
            if let Some(mut shard) = self.try_lock(partition) {
                let mut dbs = shard.dbs.iter_mut();
                let _elsewhere_or_gone = dbs.any(|(_, db)| db.relocate(hash, address));
            }
        }
        has_more
    }
}
