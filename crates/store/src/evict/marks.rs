//! When ticks were, in seconds.
//!
//! Each level has a mark for the first second of every 2^level in which the clock was read, the latest
//! [`LEN`] of them. So what was used in the last two minutes is known to the second, and what was used
//! before to a sixty-fourth of the time since. At most 40 KB.

use std::collections::VecDeque;

const LEN: usize = 128;
/// The last one reaches back for two years.
const LEVELS: usize = 20;

/// A tick, and the second that began with it.
type Mark = (u64, u32);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Marks {
    levels: [VecDeque<Mark>; LEVELS],
}

impl Marks {
    /// Notes that a second begins at a tick. Earlier seconds are ignored.
    pub(super) fn add(&mut self, tick: u64, second: u32) {
        for (level, marks) in self.levels.iter_mut().enumerate() {
            let is_new = marks.back().is_none_or(|(_, last)| second >> level > last >> level);
            if !is_new {
                continue;
            }
            if marks.len() == LEN {
                marks.pop_front();
            }
            marks.push_back((tick, second));
        }
    }

    /// The second in which a tick was. Before all marks ticks stand for seconds: so many are given to what
    /// was used before the clock began.
    pub(super) fn second_of(&self, tick: u64) -> Option<u32> {
        let reaches_back = |marks: &&VecDeque<Mark>| marks.front().is_some_and(|m| m.0 <= tick);
        let last = self.levels.last()?;
        let marks = self.levels.iter().find(reaches_back).unwrap_or(last);
        let after = marks.partition_point(|&(at, _)| at <= tick);
        match after.checked_sub(1) {
            Some(before) => marks.get(before).map(|(_, second)| *second),
            None => marks.front().map(|(at, second)| second.saturating_sub((at - tick) as u32)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_known_the_better_the_more_recent_they_are() {
        let mut marks = Marks::default();
        assert_eq!(marks.second_of(5), None);
        (1..100_000u32).for_each(|second| marks.add(u64::from(second) * 3, second));
        marks.add(u64::MAX, 50);
        for second in 1..100_000 {
            let told = marks.second_of(u64::from(second) * 3 + 2).unwrap();
            let idle = 100_000 - second;
            assert!(told.abs_diff(second) <= idle / 63, "{told} for {second}");
        }
        assert_eq!(Marks::default().second_of(9), None);
        let mut marks = Marks::default();
        marks.add(1000, 500);
        assert_eq!([1000, 990, 0].map(|tick| marks.second_of(tick)), [500, 490, 0].map(Some));
        assert!(marks.levels.iter().all(|marks| marks.len() <= LEN));
    }
}
