//! Which keys of a database depend on which tags, so that all keys of a tag can be made to be gone at
//! once, however many they are.
//!
//! A tag has an **id** in the database, and an entry keeps the ids of its tags. To invalidate a tag is
//! to forget its id: O(1). The id is dead then, so is every entry that has it, which whoever looks at
//! such an entry sees; a key that gets the tag later gets another id. The dead entries are removed in
//! the background ([`crate::Db::purge`]), and when the last one is gone the id is used again.
//!
//! To find them, each id has a list of **hints**: parts of the hashes of its keys, as the expiry index
//! has them. Each entry with an id has a hint with it. Hints whose entry is gone, or lost the tag, stay
//! until there are as many of them as there are others; then all lists are made anew.
//!
//! **Cost.** 4 bytes per key and tag in the entry; 6 here, with up to twice as many when keys come and
//! go; about 80 per tag that has keys in the database of a partition. Keys without tags cost nothing and
//! their reads look at nothing here. **Tried** on paper: an epoch per tag and per key, for the whole
//! server. That is 12 bytes per key and tag, a shared table that all workers write to, and a copy of one
//! partition on another server could not tell what was invalidated before and after what.

use crate::mem::class_size;
use crate::wheel::{Hint, pack, unpack};
use std::collections::{HashMap, VecDeque};

/// An id that is in use.
#[derive(Debug, Default)]
struct Slot {
    /// The number of its tag.
    tag: u64,
    is_dead: bool,
    hints: Vec<Hint>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    /// The ids of tags that are alive.
    ids: HashMap<u64, u32>,
    slots: Vec<Slot>,
    /// Ids that are not in use.
    free: Vec<u32>,
    /// Dead ids with entries that are not removed yet.
    dead: VecDeque<u32>,
    /// Tags of all entries.
    pub(crate) refs: usize,
    /// Hints in all lists.
    hints: usize,
    /// Bytes of all lists.
    lists_bytes: usize,
}

/// So many hints more than twice the tags of entries are no reason to make lists anew.
const SLACK: usize = 64;

fn list_bytes(list: &Vec<Hint>) -> usize {
    match list.capacity() {
        0 => 0,
        places => class_size(places * size_of::<Hint>()),
    }
}

impl Tags {
    /// The id of a tag, a new one if it has none.
    pub(crate) fn id_of(&mut self, tag: u64) -> u32 {
        if let Some(id) = self.ids.get(&tag) {
            return *id;
        }
        let slot = Slot { tag, ..Slot::default() };
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        self.ids.insert(tag, id);
        id
    }

    /// The tag of an id in use.
    pub(crate) fn tag_of(&self, id: u32) -> u64 {
        self.slots[id as usize].tag
    }

    pub(crate) fn is_dead(&self, id: u32) -> bool {
        self.slots[id as usize].is_dead
    }

    /// Notes that the key with this hash has an id from now on.
    pub(crate) fn add_hint(&mut self, id: u32, hash: u64) {
        let list = &mut self.slots[id as usize].hints;
        self.lists_bytes -= list_bytes(list);
        list.push(pack(hash));
        self.lists_bytes += list_bytes(list);
        self.hints += 1;
    }

    /// How many hints a tag has: at least as many as it has keys.
    pub(crate) fn hints_of(&self, tag: u64) -> usize {
        self.ids.get(&tag).map_or(0, |id| self.slots[*id as usize].hints.len())
    }

    /// Makes all keys with a tag dead. Returns how many hints it has.
    pub(crate) fn invalidate(&mut self, tag: u64) -> usize {
        let Some(id) = self.ids.remove(&tag) else { return 0 };
        let slot = &mut self.slots[id as usize];
        slot.is_dead = true;
        self.dead.push_back(id);
        slot.hints.len()
    }

    /// Whether there are dead entries that are not removed yet, or may be.
    pub(crate) fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// Takes hashes of up to `max` dead entries into `hashes`. What it took before must be removed.
    pub(crate) fn take_dead(&mut self, max: usize, hashes: &mut Vec<u64>) {
        while hashes.len() < max
            && let Some(&id) = self.dead.front()
        {
            let list = &mut self.slots[id as usize].hints;
            if list.is_empty() {
                // Those taken in this call may still have the id.
                if !hashes.is_empty() {
                    return;
                }
                self.dead.pop_front();
                self.release(id);
                continue;
            }
            let count = list.len().min(max - hashes.len());
            hashes.extend(list.drain(list.len() - count..).map(unpack));
            self.hints -= count;
        }
    }

    /// Has an id used again, which no entry has.
    fn release(&mut self, id: u32) {
        let slot = std::mem::take(&mut self.slots[id as usize]);
        self.lists_bytes -= list_bytes(&slot.hints);
        self.free.push(id);
    }

    /// Whether most hints lead to nothing.
    pub(crate) fn is_worn(&self) -> bool {
        self.hints > 2 * self.refs + SLACK
    }

    /// Forgets the hints of live ids for which `leads` does not hold, and ids without any.
    pub(crate) fn renew(&mut self, mut leads: impl FnMut(u64, u32) -> bool) {
        let Tags { ids, slots, .. } = self;
        let mut unused = Vec::new();
        ids.retain(|_, id| {
            let list = &mut slots[*id as usize].hints;
            list.sort_unstable();
            list.dedup();
            list.retain(|hint| leads(unpack(*hint), *id));
            list.shrink_to(2 * list.len());
            let is_used = !list.is_empty();
            if !is_used {
                unused.push(*id);
            }
            is_used
        });
        ids.shrink_to(2 * ids.len());
        for id in unused {
            slots[id as usize] = Slot::default();
            self.free.push(id);
        }
        self.hints = self.slots.iter().map(|slot| slot.hints.len()).sum();
        self.lists_bytes = self.slots.iter().map(|slot| list_bytes(&slot.hints)).sum();
    }

    /// Bytes that all this takes.
    pub(crate) fn bytes(&self) -> usize {
        let map = self.ids.capacity() * (size_of::<(u64, u32)>() + 1) * 8 / 7;
        let slots = self.slots.capacity() * size_of::<Slot>();
        let others = (self.free.capacity() + self.dead.capacity()) * size_of::<u32>();
        size_of::<Self>() + map + slots + others + self.lists_bytes
    }
}
