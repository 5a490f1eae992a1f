//! Slabs that are emptied: which entries are in them, so that their owner moves them elsewhere.
//!
//! After deletes, or when sizes shift, slabs are left with few entries each. [`Sparse::close`] picks some
//! whose entries fit into the free slots of others, and [`Sparse::next`] tells where these entries are
//! and which keys they have. Whoever knows the keyspace then locks the key's partition, looks whether its
//! table has that very address under the key's hash, and has the entry moved
//! ([`crate::Db::relocate`]). A slab that becomes empty is free pages.
//!
//! **Keys are guesses.** A slab knows which slots it handed out, but not whether they are linked to a
//! table, and the lock that orders access to an entry is found by its key. So the key is read without the
//! lock, while the entry may be written, freed, or never have been one. What is read is believed only so
//! far as to lock a partition and look for the *address* in its table: no entry is touched unless a table
//! links to it and that table's lock is held. The memory itself is safe to read, since closed slabs keep
//! theirs. Words are read as atomics, whole; by the letter of the language such a read races with a write
//! that is not atomic, as in any sequence lock.
//!
//! An entry with an empty key is not told of: the first word of a free slot looks like one.

use super::classes::CLASS;
use super::entry::key_place;
use super::slab::{self, Closed, ORDER_REGION};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is to be gained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gain {
    /// Pages for slabs of other sizes.
    Pages,
    /// As many beside each other as the longest slab has.
    Run,
    /// A region, to give it back to the system.
    Region,
}

/// Slabs that are closed until this is dropped. There is one at a time.
#[derive(Debug)]
pub struct Sparse {
    closed: Vec<Closed>,
    /// Bytes to move for each that is gained.
    pub cost: usize,
    /// The slot to look at next, of the last slab.
    slot: usize,
    words: Vec<u64>,
}

/// An entry, perhaps.
#[derive(Clone, Copy, Debug)]
pub struct Guess<'a> {
    /// Where it is.
    pub address: u64,
    /// Its key.
    pub key: &'a [u8],
}

impl Sparse {
    /// Closes slabs that are worth to be emptied, if there are any.
    #[must_use]
    pub fn close(gain: Gain) -> Option<Sparse> {
        let order = match gain {
            Gain::Pages => 0,
            Gain::Run => super::classes::ORDER_MAX,
            Gain::Region => ORDER_REGION,
        };
        let (closed, cost) = slab::lock().close(order)?;
        Some(Sparse { closed, cost, slot: 0, words: Vec::new() })
    }

    /// Calls `f` with the entries of the next `max` slots. Returns whether there are more.
    pub fn next(&mut self, max: usize, mut f: impl FnMut(Guess<'_>)) -> bool {
        for _ in 0..max {
            let Some(&Closed { start, class, slots }) = self.closed.last() else { return false };
            if self.slot == slots {
                self.closed.pop();
                self.slot = 0;
                continue;
            }
            let bytes = CLASS[class].bytes as usize;
            let address = start + self.slot * bytes;
            self.slot += 1;
            if let Some((from, to)) = self.read_key(address, bytes) {
                let key = &as_bytes(&self.words)[from..to];
                f(Guess { address: address as u64, key });
            }
        }
        true
    }

    /// Reads so much of a slot that the key is in it; where in the words it is.
    fn read_key(&mut self, address: usize, bytes: usize) -> Option<(usize, usize)> {
        let load = |word: usize| {
            // SAFETY: the word is one of a slot of a closed slab, which is mapped, and is aligned. See
            // the module's text about who else may use it.
            let word = unsafe { AtomicU64::from_ptr((address + word * 8) as *mut u64) };
            word.load(Relaxed)
        };
        let first = load(0);
        let (_, len) = key_place([first, 0, 0]);
        if len == 0 {
            return None;
        }
        let second = if bytes >= 24 { [load(1), load(2)] } else { [load(1), 0] };
        let (at, len) = key_place([first, second[0], second[1]]);
        let end = at.checked_add(len).filter(|end| *end <= bytes)?;
        self.words.clear();
        self.words.extend((0..end.div_ceil(8)).map(load));
        Some((at, end))
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        slab::lock().reopen();
    }
}

/// The bytes of words.
fn as_bytes(words: &[u64]) -> &[u8] {
    // SAFETY: bytes have no alignment and may be anything, and these are all of the words.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), size_of_val(words)) }
}
