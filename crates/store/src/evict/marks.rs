//! When ticks were, in seconds.
//!
//! One mark per second in which the clock was read, up to [`LEN`]; then every second one of the older
//! half goes. So what was used in the last minutes is known to the second, and what was used long ago to
//! a small share of the time since.

const LEN: usize = 1024;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Ticks and the seconds in which they began, in ascending order.
    marks: Vec<(u64, u32)>,
}

impl Marks {
    /// Notes that a second begins at a tick. Earlier seconds are ignored.
    pub(super) fn add(&mut self, tick: u64, second: u32) {
        if self.marks.last().is_some_and(|&(_, last)| last >= second) {
            return;
        }
        if self.marks.len() == LEN {
            let mut n = 0;
            self.marks.retain(|_| {
                n += 1;
                n > LEN / 2 || n % 2 == 1
            });
        }
        self.marks.push((tick, second));
    }

    /// The second in which a tick was.
    pub(super) fn second_of(&self, tick: u64) -> Option<u32> {
        let after = self.marks.partition_point(|&(at, _)| at <= tick);
        let (_, second) = self.marks.get(after.saturating_sub(1))?;
        Some(*second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_ticks_are_known_to_the_second() {
        let mut marks = Marks::default();
        assert_eq!(marks.second_of(5), None);
        (1..100_000u32).for_each(|second| marks.add(u64::from(second) * 3, second));
        marks.add(u64::MAX, 50);
        assert!(
            (99_600..100_000)
                .all(|second| marks.second_of(u64::from(second) * 3 + 2) == Some(second))
        );
        for second in (1000..99_600).step_by(777) {
            let told = marks.second_of(u64::from(second) * 3).unwrap();
            let idle = 100_000 - second;
            assert!(told.abs_diff(second) <= idle / 50, "{told} for {second}");
        }
        assert!(marks.marks.len() <= LEN);
    }
}
