//! What storing and counting do, for classic and meta commands alike. The key must be held.

use super::ttl_of;
use crate::keyspace::Keys;
use hypercache_journal::Event;
use hypercache_protocol::memcached::number::parse_u64;
use hypercache_store::{Mark, Payload, Ttl};

/// When a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Always.
    Set,
    /// If the key is not there.
    Add,
    /// If it is.
    Replace,
    /// After the value that is there.
    Append,
    /// Before it.
    Prepend,
    /// If the key was not changed.
    Cas,
}

/// What is to be stored, but for the value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Store {
    pub(super) mode: Mode,
    pub(super) mark: Mark,
    pub(super) ttl: Ttl,
    /// The CAS unique that the key must have; 0 stands for none, and is that of no key.
    pub(super) cas: u64,
    /// A value that is older than the one there is stored as stale.
    pub(super) invalidates: bool,
    /// Longest value, in bytes.
    pub(super) value_max: usize,
    /// Where nothing is there to append to, the value is stored with this.
    pub(super) vivifies: Option<Ttl>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Yes,
    No,
    Exists,
    NotFound,
    TooLarge,
}

/// Stores a value.
#[inline]
pub(super) fn store(keys: &mut Keys<'_>, key: &[u8], value: Payload<'_>, store: &Store) -> Stored {
    if store.mode == Mode::Set {
        keys.set_item(key, value, store.ttl, store.mark, Event::Set);
        return Stored::Yes;
    }
    let found = keys.item(key).map(|entry| entry.mark());
    let Some(mark) = found else { return store_new(keys, key, value, store) };
    match store.mode {
        Mode::Add => Stored::No,
        Mode::Cas => compare_and_set(keys, key, value, store, mark),
        Mode::Append | Mode::Prepend if store.cas != 0 && store.cas != mark.cas => Stored::Exists,
        Mode::Append => append(keys, key, value.bytes(), store.value_max),
        Mode::Prepend => prepend(keys, key, value.bytes(), store.value_max),
        Mode::Set | Mode::Replace => {
            keys.set_item(key, value, store.ttl, store.mark, Event::Set);
            Stored::Yes
        }
    }
}

/// Stores a value under a key that is not there.
fn store_new(keys: &mut Keys<'_>, key: &[u8], value: Payload<'_>, store: &Store) -> Stored {
    // A key of another type is no item, but it is there.
    let is_free = !keys.exists(key);
    let ttl = match store.mode {
        Mode::Add | Mode::Append | Mode::Prepend if !is_free => return Stored::No,
        Mode::Add | Mode::Set => store.ttl,
        Mode::Cas => return Stored::NotFound,
        Mode::Append | Mode::Prepend if store.vivifies.is_some() => {
            store.vivifies.unwrap_or(Ttl::Clear)
        }
        Mode::Append | Mode::Prepend | Mode::Replace => return Stored::No,
    };
    keys.set_item(key, value, ttl, store.mark, Event::Set);
    Stored::Yes
}

fn compare_and_set(
    keys: &mut Keys<'_>,
    key: &[u8],
    value: Payload<'_>,
    store: &Store,
    old: Mark,
) -> Stored {
    if store.cas != 0 && store.cas == old.cas {
        keys.set_item(key, value, store.ttl, store.mark, Event::Set);
        return Stored::Yes;
    }
    // Of a key whose CAS unique nobody asked for, any one given now is newer than all before.
    if store.invalidates && store.cas != 0 && store.cas < keys.cas_of(key) {
        let state = store.mark.state | Mark::STALE | old.state & Mark::WON;
        let mark = Mark { state, ..store.mark };
        keys.set_item(key, value, Ttl::Keep, mark, Event::Set);
        return Stored::Yes;
    }
    Stored::Exists
}

fn append(keys: &mut Keys<'_>, key: &[u8], tail: &[u8], value_max: usize) -> Stored {
    let len = keys.item(key).map_or(0, |entry| entry.value().len());
    if tail.is_empty() {
        // It is a change all the same, which a splice of nothing is not.
        return prepend(keys, key, tail, value_max);
    }
    if len + tail.len() > value_max {
        return Stored::TooLarge;
    }
    keys.splice(key, len + tail.len(), len, tail, Event::Append);
    Stored::Yes
}

fn prepend(keys: &mut Keys<'_>, key: &[u8], head: &[u8], value_max: usize) -> Stored {
    let Some(entry) = keys.item(key) else { return Stored::No };
    let (value, mark) = ([head, entry.value()].concat(), entry.mark().of_next_value());
    if value.len() > value_max {
        return Stored::TooLarge;
    }
    keys.set_item(key, Payload::Slice(&value), Ttl::Keep, mark, Event::Set);
    Stored::Yes
}

/// What came of counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// The new number.
    Is(u64),
    NotFound,
    NotNumber,
    /// The key has another CAS unique than it should.
    Exists,
}

/// Adds to a number, or subtracts from it. `cas` is the CAS unique that the key must have, or 0.
///
/// As in memcached a value never gets shorter by this: spaces follow a number that lost digits.
pub(super) fn count(keys: &mut Keys<'_>, key: &[u8], adds: bool, delta: u64, cas: u64) -> Counted {
    let Some(entry) = keys.item(key) else { return Counted::NotFound };
    let mark = entry.mark();
    let len = entry.value().len();
    let old = parse_u64(entry.value());
    if cas != 0 && mark.cas != cas {
        return if len == 0 { Counted::NotNumber } else { Counted::Exists };
    }
    let Some(old) = old else { return Counted::NotNumber };
    let new = if adds { old.wrapping_add(delta) } else { old.saturating_sub(delta) };
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(new).as_bytes();
    if digits.len() > len {
        let mark = mark.of_next_value();
        keys.set_item(key, Payload::Slice(digits), Ttl::Keep, mark, Event::IncrBy);
    } else {
        let mut bytes = vec![b' '; len];
        bytes[..digits.len()].copy_from_slice(digits);
        keys.splice(key, len, 0, &bytes, Event::IncrBy);
    }
    Counted::Is(new)
}

/// Changes when a key that is there expires.
pub(super) fn set_time(keys: &mut Keys<'_>, key: &[u8], exptime: i64) {
    match ttl_of(exptime, keys.now_ms) {
        Ttl::At(at) => keys.set_ttl(key, Some(at), Event::Expire),
        Ttl::Clear | Ttl::Keep => {
            if keys.item(key).is_some_and(|entry| entry.deadline().is_some()) {
                keys.set_ttl(key, None, Event::Persist);
            }
        }
    }
}
