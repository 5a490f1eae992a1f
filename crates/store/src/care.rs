//! How a value that was loaded from elsewhere may be used: for how long it is stale before it goes,
//! what it took to load it, what it depends on, and whether it only says that there is nothing.
//!
//! An entry has a care only if it was stored with one (HC.SET). It lies behind the mark:
//! ```text
//! offset  0             4            8                      9
//!         stale_ms u32  cost_us u32  count of tags, u8      id of each tag, u32
//!                                    highest bit: negative
//! ```
//! so it costs 9 bytes and 4 for each tag, and none of this for other keys. The ids are those of the
//! database's [`crate::tags`].

use smallvec::SmallVec;

/// Most tags of a key.
pub const TAGS_MAX: usize = 64;
/// Where the count of tags is.
pub(crate) const COUNT_OFFSET: usize = 8;

const HEAD: usize = 9;
const NEGATIVE: u8 = 0x80;

/// A care in the form in which it is kept.
pub(crate) type CareBytes = SmallVec<[u8; 64]>;

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Care {
    /// How long the value is stale before its deadline, in ms.
    pub stale_ms: u32,
    /// What it took to load it, in microseconds; 0: nobody knows.
    pub cost_us: u32,
    /// Whether it stands for nothing: the source was asked, and has no such thing.
    pub is_negative: bool,
    /// What it depends on: numbers that stand for names ([`tag_number`]), none twice.
    pub tags: SmallVec<[u64; 4]>,
}

/// The number of a tag. It is the same on all servers, and two names of a million share theirs with a
/// chance of one in forty millions.
#[must_use]
pub fn tag_number(name: &[u8]) -> u64 {
    hypercache_stdx::hash::KeyHasher::new((0x6879_7065_7263_6163, 0x6865_2074_6167_7331)).hash(name)
}

impl Care {
    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Care::default()
    }

    /// Adds a tag, unless it is there or there are too many. Returns whether it is there now.
    pub fn add_tag(&mut self, tag: u64) -> bool {
        let has_room = self.tags.len() < TAGS_MAX;
        if has_room && !self.tags.contains(&tag) {
            self.tags.push(tag);
        }
        self.tags.contains(&tag)
    }

    pub(crate) fn head(&self) -> Head {
        let Care { stale_ms, cost_us, is_negative, .. } = *self;
        Head { stale_ms, cost_us, is_negative }
    }
}

/// A care but for its tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// See [`Care`].
    pub stale_ms: u32,
    /// See [`Care`].
    pub cost_us: u32,
    /// See [`Care`].
    pub is_negative: bool,
}

impl Head {
    pub(crate) fn encode(self, ids: &[u32]) -> CareBytes {
        let mut bytes = CareBytes::new();
        bytes.extend_from_slice(&self.stale_ms.to_ne_bytes());
        bytes.extend_from_slice(&self.cost_us.to_ne_bytes());
        bytes.push(ids.len().min(TAGS_MAX) as u8 | if self.is_negative { NEGATIVE } else { 0 });
        ids.iter().take(TAGS_MAX).for_each(|id| bytes.extend_from_slice(&id.to_ne_bytes()));
        bytes
    }

    /// Reads what [`Self::encode`] wrote; what is empty is none.
    pub(crate) fn decode(care: &[u8]) -> Head {
        let Some((stale, rest)) = care.split_first_chunk() else { return Head::default() };
        let Some((cost, rest)) = rest.split_first_chunk() else { return Head::default() };
        Head {
            stale_ms: u32::from_ne_bytes(*stale),
            cost_us: u32::from_ne_bytes(*cost),
            is_negative: rest.first().is_some_and(|count| count & NEGATIVE != 0),
        }
    }
}

/// The ids of the tags of a care as it is kept.
pub(crate) fn ids(care: &[u8]) -> impl Iterator<Item = u32> {
    let ids = care.get(HEAD..).unwrap_or_default().chunks_exact(4);
    ids.map(|id| u32::from_ne_bytes([id[0], id[1], id[2], id[3]]))
}

/// Bytes of a care with this count of tags.
pub(crate) fn len_of(count: u8) -> usize {
    HEAD + 4 * usize::from(count & !NEGATIVE)
}

/// Whether a care decides whether its key is there: one with tags, or that stands for nothing.
pub(crate) fn depends(care: &[u8]) -> bool {
    care.get(COUNT_OFFSET).is_some_and(|count| *count != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cares_come_back() {
        let head = Head { stale_ms: 1, cost_us: u32::MAX, is_negative: true };
        for tags in 0..=TAGS_MAX as u32 {
            let all: Vec<u32> = (0..tags).collect();
            let bytes = head.encode(&all);
            assert_eq!(bytes.len(), len_of(bytes[COUNT_OFFSET]));
            assert_eq!(Head::decode(&bytes), head);
            assert!(ids(&bytes).eq(0..tags) && depends(&bytes));
        }
        assert!(!depends(&Head::default().encode(&[])) && !depends(&[]));
        assert_eq!((Head::decode(&[]), ids(&[]).count()), (Head::default(), 0));
    }

    #[test]
    fn there_are_not_too_many_tags_and_none_is_there_twice() {
        let mut care = Care::default();
        assert!((0..TAGS_MAX as u64).all(|tag| care.add_tag(tag) && care.add_tag(tag)));
        assert!(!care.add_tag(1000) && care.add_tag(5));
        assert_eq!(care.tags.len(), TAGS_MAX);
    }
}
