//! What is kept of a key's use: 32 bits. Hot path.
//!
//! ```text
//! 31 ................. 10   9 .. 7   6 ... 2   1 .. 0
//! tick of the last use      level    gap       trend
//! ```
//! *Level* is the logarithm of how often the key was used: it rises from `l` to `l + 1` with
//! probability `2^-l` (Morris, "Counting large numbers of events in small registers", 1978). *Gap* is
//! a running mean of the logarithm of the time between two uses, *trend* says whether the last gap was
//! much shorter than that, alike, or much longer. A use costs a subtraction, a count of leading zeros
//! and a few shifts.

/// Ticks of a clock that counts in shares of the cache's size; see [`super::Clock`].
pub type Tick = u32;

pub(super) const TICK_BITS: u32 = 22;
const TICK_MASK: u32 = (1 << TICK_BITS) - 1;
const TICK_SHIFT: u32 = 32 - TICK_BITS;
const LEVEL_SHIFT: u32 = 7;
const LEVEL_MAX: u32 = 7;
const GAP_SHIFT: u32 = 2;
const GAP_MASK: u32 = 31;
/// The trend of a gap that is like those before.
const STEADY: u32 = 1;

/// Gaps are told apart in pairs of codes: the greatest code is that of all of the clock's range.
const GAP_CLASSES: usize = (gap_code(TICK_MASK) / 2 + 1) as usize;
const TRENDS: usize = 3;
/// Classes of keys that were used once, by size.
pub(super) const FIRST_CLASSES: usize = 8;
/// All classes.
pub(super) const CLASSES: usize = FIRST_CLASSES + LEVEL_MAX as usize * GAP_CLASSES * TRENDS;
/// Classes that learn from each other: one for those that were used once, and one per gap.
pub(super) const FAMILIES: usize = GAP_CLASSES + 1;

/// Ages are told apart in four steps per doubling.
pub(super) const BINS: usize = bin_of(TICK_MASK) + 1;

/// Sixteen times the logarithm to base 2 of `n`, which is not 0; straight between powers of two.
#[inline]
const fn log2_16(n: u32) -> u32 {
    let exponent = n.ilog2();
    let mantissa = (n << (31 - exponent)) >> 27 & 15;
    exponent << 4 | mantissa
}

/// 1.3 times the logarithm of a gap.
#[inline]
const fn gap_code(gap: u32) -> u32 {
    (log2_16(gap + 1) * 83) >> 10
}

/// Which step of age.
#[inline]
pub(super) const fn bin_of(age: Tick) -> usize {
    // In the wide arithmetic of an age of half a billion, four more are still no overflow.
    let age = if age > TICK_MASK { TICK_MASK } else { age };
    ((log2_16(age + 4) - 32) / 4) as usize
}

/// How many ticks a step of age is wide.
pub(super) fn bin_width(bin: usize) -> f32 {
    (1u32 << (bin / 4)) as f32
}

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct State(u32);

impl State {
    /// Of a key that is used for the first time.
    #[inline]
    #[must_use]
    pub fn new(now: Tick) -> State {
        State(now << TICK_SHIFT | STEADY)
    }

    /// From [`Self::bits`].
    #[inline]
    #[must_use]
    pub fn from_bits(bits: u32) -> State {
        State(bits)
    }

    /// The 32 bits.
    #[inline]
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Ticks since the last use. Beyond the clock's range it begins anew.
    #[inline]
    #[must_use]
    pub fn age(self, now: Tick) -> Tick {
        now.wrapping_sub(self.0 >> TICK_SHIFT) & TICK_MASK
    }

    #[inline]
    fn level(self) -> u32 {
        self.0 >> LEVEL_SHIFT & LEVEL_MAX
    }

    #[inline]
    fn gap(self) -> u32 {
        self.0 >> GAP_SHIFT & GAP_MASK
    }

    /// About how many times the key was used, at most 128.
    #[must_use]
    pub fn uses(self) -> u32 {
        1 << self.level()
    }

    /// After one more use.
    #[inline]
    #[must_use]
    pub fn used(self, now: Tick) -> State {
        let (level, mean) = (self.level(), self.gap());
        let gap = gap_code(self.age(now));
        let is_second = level == 0;
        let trend = match () {
            () if is_second => STEADY,
            () if gap + 2 < mean => 0,
            () if gap > mean + 2 => 2,
            () => STEADY,
        };
        let mean = if is_second { gap } else { (mean + gap).div_ceil(2) };
        // The state and the time of a use are as good as a die.
        let die = (self.0 ^ now).wrapping_mul(0x9E37_79B1) >> 16;
        let rises = level < LEVEL_MAX && die & ((1 << level) - 1) == 0;
        let level = level + u32::from(rises);
        State(now << TICK_SHIFT | level << LEVEL_SHIFT | mean << GAP_SHIFT | trend)
    }

    /// The class of keys that this one is taken to behave like; `bytes` is its size.
    #[inline]
    #[must_use]
    pub fn class(self, bytes: u32) -> Class {
        let level = self.level() as usize;
        if level == 0 {
            let size = (bytes.max(32).ilog2() as usize - 5) / 2;
            return Class(size.min(FIRST_CLASSES - 1) as u16);
        }
        let trend = (self.0 & 3) as usize % TRENDS;
        let gap = (self.gap() as usize / 2).min(GAP_CLASSES - 1);
        Class((FIRST_CLASSES + (gap * TRENDS + trend) * LEVEL_MAX as usize + level - 1) as u16)
    }
}

/// A class of keys, below [`CLASSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(u16);

impl Class {
    #[inline]
    pub(super) fn number(self) -> usize {
        self.0 as usize
    }

    /// Which family a class is of, below [`FAMILIES`].
    pub(super) fn family_of(class: usize) -> usize {
        match class.checked_sub(FIRST_CLASSES) {
            None => FAMILIES - 1,
            Some(other) => other / (TRENDS * LEVEL_MAX as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_follow_each_other_and_have_their_width() {
        let mut start = 0;
        for bin in 0..40 {
            assert_eq!(bin_of(start), bin, "age {start}");
            assert_eq!(bin_of(start + bin_width(bin) as u32 - 1), bin, "end of {bin}");
            start += bin_width(bin) as u32;
        }
        assert_eq!(bin_of(u32::MAX), BINS - 1);
    }

    #[test]
    fn a_state_knows_how_it_was_used() {
        let mut state = State::new(100);
        assert_eq!((state.age(130), state.uses()), (30, 1));
        for n in 1..2000 {
            state = state.used(100 + n * 40);
        }
        assert_eq!(state.uses(), 128, "it was used often");
        assert_eq!(state.gap(), gap_code(40));
        assert_eq!(state.0 & 3, STEADY);
        assert_eq!(state.used(100 + 2000 * 40 + 5000).0 & 3, 2, "much longer than the others");
        assert_eq!(state.used(100 + 1999 * 40 + 1).0 & 3, 0, "much shorter than the others");
    }

    #[test]
    fn the_clock_may_wrap() {
        let before = State::new(u32::MAX - 2);
        assert_eq!(before.age(7), 10);
        assert_eq!(before.used(7).age(9), 2);
    }

    #[test]
    fn classes_are_below_their_number() {
        let mut seen = vec![false; CLASSES];
        for bits in 0..1024 {
            for bytes in [0, 1, 40, 5000, u32::MAX] {
                let class = State(bits).class(bytes).number();
                seen[class] = true;
                assert!(Class::family_of(class) < FAMILIES);
            }
        }
        assert!(seen.iter().filter(|&&s| s).count() > CLASSES - 8);
    }
}
