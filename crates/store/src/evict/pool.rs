//! Candidates for eviction that are kept from one draw to the next.
//!
//! To look at a key costs a wait for memory; so a draw is small, and the best candidates of the draws
//! before stay. (The idea is Redis' eviction pool.) What a candidate's score was may be old news: who
//! takes one looks again, and gives it up only if it still is what it was.

use super::Score;

/// Candidates kept.
const LEN: usize = 16;

/// See the module's text. `T` says where a candidate is.
#[derive(Debug)]
pub struct Pool<T> {
    /// The worst, which is the first to go, is the last.
    candidates: Vec<(Score, T)>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool { candidates: Vec::with_capacity(LEN + 1) }
    }
}

impl<T: PartialEq> Pool<T> {
    /// Offers a candidate; the pool keeps the worst.
    pub fn offer(&mut self, score: Score, at: T) {
        if !self.wants(score) || self.candidates.iter().any(|(_, other)| *other == at) {
            return;
        }
        if self.candidates.len() == LEN {
            self.candidates.remove(0);
        }
        let place = self.candidates.partition_point(|(other, _)| *other > score);
        self.candidates.insert(place, (score, at));
    }

    /// Whether a candidate with this score would be kept.
    #[must_use]
    pub fn wants(&self, score: Score) -> bool {
        self.candidates.len() < LEN
            || self.candidates.first().is_some_and(|(best, _)| score < *best)
    }

    /// The worst, as many as are wanted and there, which are taken next unless worse ones come.
    pub fn worst(&self, wanted: usize) -> impl Iterator<Item = &T> {
        self.candidates.iter().rev().take(wanted).map(|(_, at)| at)
    }

    /// Takes the worst, as many as are wanted and there.
    pub fn take(&mut self, wanted: usize) -> impl Iterator<Item = (Score, T)> + '_ {
        self.candidates.drain(self.candidates.len().saturating_sub(wanted)..).rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_worst_and_gives_the_worst_of_them() {
        let mut pool = Pool::default();
        for n in 0..1000 {
            pool.offer((n * 617) % 1000, n);
            pool.offer((n * 617) % 1000, n);
        }
        let mut scores: Vec<_> = pool.take(3).map(|(score, _)| score).collect();
        scores.extend(pool.take(1000).map(|(score, _)| score));
        assert_eq!(scores, (0..LEN as Score).collect::<Vec<_>>());
    }
}
