//! What the memcached protocol keeps of an item beside its value: client flags, the CAS unique, and
//! the state of its invalidation.
//!
//! An entry has a mark only if it needs one. Nothing is stored for a key that was written through
//! Redis, or through memcached with flags 0, until somebody asks for its CAS unique. Then the entry
//! ends with
//! ```text
//! offset  0     1               1 or 5
//!         tags  [client_flags]  [cas]
//!         u8    u32 if not 0    u64 once it was asked for
//! ```
//! so an item with flags takes 5 bytes more, one that was read with `gets` 9 or 13.
//!
//! A CAS unique is therefore not the number of the write but of the first question after it: every
//! write forgets it, and the next question takes the next number of a counter of the whole keyspace.
//! What clients rely on holds: the number is the same as long as the value is, and no number comes
//! twice. The alternative, a number with every write, costs 8 bytes for every key and buys nothing.

/// See the module's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The number that a memcached client stored with the value.
    pub client_flags: u32,
    /// Bits [`Mark::STALE`], [`Mark::WON`] and [`Mark::BINARY`].
    pub state: u8,
    /// The CAS unique, or 0: nobody asked for it since the value was written.
    pub cas: u64,
}

/// Longest form of a mark, in bytes.
pub(crate) const MARK_MAX: usize = 13;

/// Whether a [`crate::care`] follows.
pub(crate) const HAS_CARE: u8 = 0x08;
const HAS_FLAGS: u8 = 0x40;
const HAS_CAS: u8 = 0x80;
const STATES: u8 = 0x07;

impl Mark {
    /// That of most entries.
    pub const NONE: Mark = Mark { client_flags: 0, state: 0, cas: 0 };
    /// The value was invalidated and may be served while one client makes a new one.
    pub const STALE: u8 = 1;
    /// A client was told to make the new value.
    pub const WON: u8 = 2;
    /// The key was given in base64, and is shown in it.
    pub const BINARY: u8 = 4;

    /// The mark of an item with these client flags.
    #[must_use]
    pub fn of_flags(client_flags: u32) -> Mark {
        Mark { client_flags, ..Mark::NONE }
    }

    /// Whether a state bit is set.
    #[must_use]
    pub fn is(self, state: u8) -> bool {
        self.state & state != 0
    }

    /// What is left of it when the value changes: the client flags.
    #[must_use]
    pub fn of_next_value(self) -> Mark {
        Mark::of_flags(self.client_flags)
    }

    fn tags(self) -> u8 {
        let flags = if self.client_flags == 0 { 0 } else { HAS_FLAGS };
        let cas = if self.cas == 0 { 0 } else { HAS_CAS };
        self.state & STATES | flags | cas
    }

    /// Bytes that it takes.
    #[inline]
    pub(crate) fn len(self) -> usize {
        if self == Mark::NONE { 0 } else { len_of(self.tags()) }
    }

    pub(crate) fn encode(self) -> [u8; MARK_MAX] {
        let mut bytes = [0; MARK_MAX];
        let tags = self.tags();
        bytes[0] = tags;
        if tags & HAS_FLAGS != 0 {
            bytes[1..5].copy_from_slice(&self.client_flags.to_ne_bytes());
        }
        if tags & HAS_CAS != 0 {
            bytes[cas_offset(tags)..][..8].copy_from_slice(&self.cas.to_ne_bytes());
        }
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Mark {
        let Some((&tags, rest)) = bytes.split_first() else { return Mark::NONE };
        let (flags, rest) = match rest.split_first_chunk() {
            Some((flags, rest)) if tags & HAS_FLAGS != 0 => (u32::from_ne_bytes(*flags), rest),
            _ => (0, rest),
        };
        let cas = match rest.first_chunk() {
            Some(cas) if tags & HAS_CAS != 0 => u64::from_ne_bytes(*cas),
            _ => 0,
        };
        Mark { client_flags: flags, state: tags & STATES, cas }
    }
}

/// Whether something follows the mark that begins with `tags`.
#[inline]
pub(crate) fn has_care(tags: u8) -> bool {
    tags & HAS_CARE != 0
}

/// Length of the mark that begins with `tags`.
#[inline]
pub(crate) fn len_of(tags: u8) -> usize {
    cas_offset(tags) + if tags & HAS_CAS == 0 { 0 } else { 8 }
}

#[inline]
fn cas_offset(tags: u8) -> usize {
    if tags & HAS_FLAGS == 0 { 1 } else { 5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_and_take_what_they_need() {
        assert_eq!(Mark::NONE.len(), 0);
        for (client_flags, state, cas, len) in
            [(0, Mark::STALE, 0, 1), (7, 0, 0, 5), (0, 0, 9, 9), (u32::MAX, 7, u64::MAX, 13)]
        {
            let mark = Mark { client_flags, state, cas };
            assert_eq!(mark.len(), len);
            assert_eq!(len_of(mark.encode()[0]), len);
            assert_eq!(Mark::decode(&mark.encode()[..len]), mark);
        }
    }
}
