//! Members at random: what SRANDMEMBER, HRANDFIELD and their like have in common.

use crate::error::{Outcome, ReplyError};
use hypercache_protocol::reply::Reply;
use hypercache_stdx::number;
use hypercache_stdx::rng::Rng;
use hypercache_store::types::{Hash, Record};
use std::collections::BTreeSet;

/// Reads how many are wanted; negative: the same may come again.
pub(crate) fn parse_count(text: &[u8]) -> Result<i64, ReplyError> {
    match number::parse_i64(text).ok_or(ReplyError::NotAnInteger)? {
        i64::MIN => Err(ReplyError::Text(
            "ERR value is out of range, value must between -9223372036854775807 and \
             9223372036854775807",
        )),
        count => Ok(count),
    }
}

/// How a number of members is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sample {
    /// All there are. With their number, as the others.
    All(usize),
    /// So many of so many, most of them: each is looked at and taken or not.
    Most(usize, usize),
    /// So many different ones, few of those there are: they are drawn.
    Few(usize),
    /// So many, each drawn from all.
    Any(usize),
}

impl Sample {
    /// How `count` of `len` are chosen.
    pub(crate) fn new(count: i64, len: usize) -> Self {
        let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        match wanted {
            _ if len == 0 => Sample::All(0),
            _ if count < 0 => Sample::Any(wanted),
            _ if wanted >= len => Sample::All(len),
            _ if wanted > len / 3 => Sample::Most(wanted, len),
            _ => Sample::Few(wanted),
        }
    }

    /// How many are answered.
    pub(crate) fn len(self) -> usize {
        match self {
            Sample::All(n) | Sample::Most(n, _) | Sample::Few(n) | Sample::Any(n) => n,
        }
    }
}

/// Says of one after the other of `len` whether it is among `wanted`; every choice is as likely
/// (Knuth, "The Art of Computer Programming", 3.4.2, algorithm S).
pub(crate) fn chooser<'r, T>(
    mut wanted: usize,
    mut len: usize,
    rng: &'r mut Rng,
) -> impl FnMut(&T) -> bool + use<'r, T> {
    move |_| {
        let is_chosen = (rng.below(len as u64) as usize) < wanted;
        len = len.saturating_sub(1);
        wanted -= usize::from(is_chosen);
        is_chosen
    }
}

/// Draws until there are `n` different ones.
pub(crate) fn different<T: Ord>(n: usize, mut draw: impl FnMut() -> Option<T>) -> BTreeSet<T> {
    let mut drawn = BTreeSet::new();
    while drawn.len() < n
        && let Some(one) = draw()
    {
        drawn.insert(one);
    }
    drawn
}

/// Bytes of a reply with repetitions, which the data do not bound.
const REPEATED_BYTES_MAX: usize = 512 << 20;

/// Has `n` members written, unless the reply becomes too large.
pub(crate) fn repeat(
    reply: &mut Reply<'_>,
    (n, heads): (usize, usize),
    mut write: impl FnMut(&mut Reply<'_>),
) -> Outcome {
    let mark = reply.output().mark();
    let most = mark.0.saturating_add(REPEATED_BYTES_MAX);
    reply.array(n.saturating_mul(heads));
    for _ in 0..n {
        write(reply);
        if reply.output().bytes.len() > most {
            reply.output().truncate(mark);
            return Err(ReplyError::Text("ERR the reply would be larger than 512 MiB"));
        }
    }
    Ok(())
}

/// A field at random of those `live` that are not expired.
pub(crate) fn field<'h>(
    hash: &'h Hash,
    rng: &mut Rng,
    live: usize,
    now_ms: u64,
) -> Option<Record<'h>> {
    const TRIES: usize = 100;
    if live == 0 {
        return None;
    }
    for _ in 0..TRIES {
        let drawn = hash.fields().random(&mut |n| rng.below(n))?;
        if !drawn.is_expired(now_ms) {
            return Some(drawn);
        }
    }
    // Nearly all are expired, and about to be removed.
    hash.iter_live(now_ms).nth(rng.below(live as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_of_most_is_as_likely() {
        let mut rng = Rng::new(5);
        let mut counts = [0u32; 5];
        for _ in 0..10_000 {
            let chosen: Vec<usize> = (0..5).filter(chooser(3, 5, &mut rng)).collect();
            assert_eq!(chosen.len(), 3);
            chosen.into_iter().for_each(|i| counts[i] += 1);
        }
        assert!(counts.iter().all(|count| (5_800..6_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_way_fits_the_number() {
        assert_eq!(Sample::new(5, 0), Sample::All(0));
        assert_eq!(Sample::new(5, 5), Sample::All(5));
        assert_eq!(Sample::new(4, 9), Sample::Most(4, 9));
        assert_eq!(Sample::new(3, 9), Sample::Few(3));
        assert_eq!(Sample::new(-7, 2), Sample::Any(7));
        assert_eq!(Sample::new(0, 2).len(), 0);
    }
}
