//! Is a history of one register linearizable?
//!
//! The search of Wing and Gong (1993) with the memory of Lowe (2017): calls are taken in an order that
//! keeps "this one returned before that one began", each must give the result that was seen, and a pair
//! of "which are taken" and "value then" is tried once. Keys are independent (Herlihy and Wing: locality),
//! so each is checked on its own.
//!
//! A call without a return may take effect at any time after it began, or never. Values are written once,
//! so one whose value nobody saw can be left out: that keeps the search short after many time-outs.

use std::collections::HashSet;

/// A value, or that there is none.
pub type Value = Option<u64>;

/// What a call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Saw this.
    Read(Value),
    /// Wrote this.
    Write(Value),
    /// Replaced the first by the second, or (`done: false`) saw something else than the first.
    Cas {
        /// Expected.
        from: Value,
        /// New.
        to: u64,
        /// Whether it did.
        done: bool,
    },
}

/// One call; times are positions in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// When it began.
    pub start: u64,
    /// When it returned; `None` when nobody knows what came of it.
    pub end: Option<u64>,
    /// What it did, or would have done.
    pub op: Op,
}

impl Op {
    /// The value after it, if it may come at `value`.
    pub(crate) fn step(self, value: Value) -> Option<Value> {
        match self {
            Op::Read(seen) => (seen == value).then_some(value),
            Op::Write(new) => Some(new),
            Op::Cas { from, to, done: true } => (from == value).then_some(Some(to)),
            Op::Cas { from, done: false, .. } => (from != value).then_some(value),
        }
    }

    fn writes(self) -> Option<Value> {
        match self {
            Op::Write(value) => Some(value),
            Op::Cas { to, done: true, .. } => Some(Some(to)),
            Op::Read(_) | Op::Cas { done: false, .. } => None,
        }
    }

    fn sees(self) -> Option<Value> {
        match self {
            Op::Read(value) => Some(value),
            Op::Cas { from, .. } => Some(from),
            Op::Write(_) => None,
        }
    }
}

/// Drops calls without a return that nobody needs.
fn relevant(calls: &[Call]) -> Vec<Call> {
    let seen: HashSet<Value> = calls.iter().filter_map(|call| call.op.sees()).collect();
    let misses = |call: &Call| matches!(call.op, Op::Cas { done: false, .. });
    if calls.iter().any(misses) {
        // It saw a value that is not named: that may be any.
        return calls.to_vec();
    }
    let is_needed = |call: &&Call| {
        call.end.is_some() || call.op.writes().is_some_and(|value| seen.contains(&value))
    };
    calls.iter().filter(is_needed).copied().collect()
}

/// Whether the calls on one register, which held nothing at first, are linearizable.
#[must_use]
pub fn is_linearizable(calls: &[Call]) -> bool {
    let calls = relevant(calls);
    Search::new(&calls).run()
}

/// The end of the shortest beginning of a history that is not linearizable, and the calls around it:
/// for whoever looks for the reason.
#[must_use]
pub fn first_contradiction(calls: &[Call]) -> Option<Vec<Call>> {
    let up_to = |t: u64| -> Vec<Call> {
        let begun = calls.iter().filter(|call| call.start <= t);
        begun.map(|call| Call { end: call.end.filter(|end| *end <= t), ..*call }).collect()
    };
    let mut ends: Vec<u64> = calls.iter().filter_map(|call| call.end).collect();
    ends.sort_unstable();
    let place = ends.partition_point(|end| is_linearizable(&up_to(*end)));
    let at = *ends.get(place)?;
    let mut around = up_to(at);
    around.sort_by_key(|call| call.end.unwrap_or(at + call.start));
    around.retain(|call| call.end.is_none_or(|end| end + 400 > at));
    Some(around)
}

/// A place in the list of beginnings and ends in order of time.
#[derive(Clone, Copy)]
struct Event {
    call: usize,
    is_end: bool,
}

struct Search<'a> {
    calls: &'a [Call],
    events: Vec<Event>,
    /// Neighbours in the list of events that are left; 0 is before the first.
    next: Vec<usize>,
    prev: Vec<usize>,
    /// Where the end of each call is in `events`; 0: it has none.
    end_of: Vec<usize>,
    open: usize,
    taken: Vec<u64>,
}

impl<'a> Search<'a> {
    fn new(calls: &'a [Call]) -> Self {
        let mut order: Vec<(u64, Event)> = Vec::new();
        for (call, c) in calls.iter().enumerate() {
            order.push((c.start, Event { call, is_end: false }));
            order.extend(c.end.map(|end| (end, Event { call, is_end: true })));
        }
        order.sort_by_key(|(at, event)| (*at, event.is_end));
        let mut events = vec![Event { call: 0, is_end: false }];
        events.extend(order.into_iter().map(|(_, event)| event));
        let mut end_of = vec![0; calls.len()];
        for (i, event) in events.iter().enumerate().skip(1) {
            if event.is_end {
                end_of[event.call] = i;
            }
        }
        let n = events.len();
        let next = (1..=n).collect();
        let prev = (0..=n).map(|i: usize| i.saturating_sub(1)).collect();
        let open = calls.iter().filter(|call| call.end.is_some()).count();
        let taken = vec![0; calls.len().div_ceil(64)];
        Search { calls, events, next, prev, end_of, open, taken }
    }

    fn unlink(&mut self, i: usize) {
        let (before, after) = (self.prev[i], self.next[i]);
        self.next[before] = after;
        self.prev[after] = before;
    }

    fn relink(&mut self, i: usize) {
        let (before, after) = (self.prev[i], self.next[i]);
        self.next[before] = i;
        self.prev[after] = i;
    }

    fn take(&mut self, i: usize) {
        let call = self.events[i].call;
        self.taken[call / 64] |= 1 << (call % 64);
        self.unlink(i);
        if self.end_of[call] > 0 {
            self.unlink(self.end_of[call]);
            self.open -= 1;
        }
    }

    fn put_back(&mut self, i: usize) {
        let call = self.events[i].call;
        self.taken[call / 64] &= !(1 << (call % 64));
        if self.end_of[call] > 0 {
            self.relink(self.end_of[call]);
            self.open += 1;
        }
        self.relink(i);
    }

    fn run(mut self) -> bool {
        let mut tried: HashSet<(Vec<u64>, Value)> = HashSet::new();
        let mut path: Vec<(usize, Value)> = Vec::new();
        let mut value: Value = None;
        let mut at = self.next[0];
        while self.open > 0 {
            let is_left = at < self.events.len();
            if is_left && !self.events[at].is_end {
                let after = self.calls[self.events[at].call].op.step(value);
                if let Some(after) = after {
                    self.take(at);
                    if tried.insert((self.taken.clone(), after)) {
                        path.push((at, value));
                        value = after;
                        at = self.next[0];
                        continue;
                    }
                    self.put_back(at);
                }
                at = self.next[at];
                continue;
            }
            // A call returned that could not be taken: something before was taken wrongly.
            let Some((i, before)) = path.pop() else { return false };
            value = before;
            self.put_back(i);
            at = self.next[i];
        }
        true
    }
}

/// The same by trying every order: what the search is tested with.
#[must_use]
pub fn is_linearizable_by_force(calls: &[Call]) -> bool {
    fn go(calls: &[Call], taken: u32, value: Value) -> bool {
        let left = |i: &usize| taken >> *i & 1 == 0;
        let all_returned_are_taken = !(0..calls.len()).filter(left).any(|i| calls[i].end.is_some());
        all_returned_are_taken
            || (0..calls.len()).filter(left).any(|i| {
                let returned_before = |j: usize| calls[j].end.is_some_and(|e| e < calls[i].start);
                let is_first = !(0..calls.len()).filter(left).any(returned_before);
                let after = calls[i].op.step(value);
                is_first && after.is_some_and(|after| go(calls, taken | 1 << i, after))
            })
    }
    go(calls, 0, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercache_stdx::rng::Rng;

    fn call(start: u64, end: u64, op: Op) -> Call {
        Call { start, end: Some(end), op }
    }

    #[test]
    fn planted_violations_are_found() {
        let write = |start, end, value| call(start, end, Op::Write(Some(value)));
        let read = |start, end, value| call(start, end, Op::Read(value));
        let stale = [write(0, 1, 1), write(2, 3, 2), read(4, 5, Some(1))];
        let lost = [write(0, 1, 1), read(2, 3, None)];
        let back_and_forth = [write(0, 9, 1), read(1, 2, Some(1)), read(3, 4, None)];
        let from_nowhere = [write(0, 1, 1), read(2, 3, Some(7))];
        let cas =
            |start, end, from, to, done| call(start, end, Op::Cas { from: Some(from), to, done });
        let twice = [write(0, 1, 1), cas(2, 5, 1, 2, true), cas(3, 4, 1, 3, true)];
        let refused = [write(0, 1, 1), cas(2, 3, 1, 2, false)];
        for bad in [&stale[..], &lost, &back_and_forth, &from_nowhere, &twice, &refused] {
            assert!(!is_linearizable(bad), "{bad:?}");
        }
    }

    #[test]
    fn what_may_have_happened_is_accepted() {
        let unknown = |start, value| Call { start, end: None, op: Op::Write(Some(value)) };
        let read = |start, end, value| call(start, end, Op::Read(value));
        let late = [unknown(0, 1), read(1, 2, None), read(3, 4, Some(1))];
        let never = [unknown(0, 1), read(1, 2, None), read(3, 4, None)];
        let gone = [unknown(0, 1), read(1, 2, Some(1)), read(3, 4, None)];
        assert!(is_linearizable(&late) && is_linearizable(&never));
        assert!(!is_linearizable(&gone));
    }

    /// Calls over few values with random intervals: some linearizable, some not.
    fn any_history(rng: &mut Rng) -> Vec<Call> {
        let count = 1 + rng.below(7);
        let mut calls = Vec::new();
        for _ in 0..count {
            let start = rng.below(20);
            let end = (rng.below(4) > 0).then(|| start + 1 + rng.below(8));
            let some = Some(1 + rng.below(3));
            let value = if rng.below(4) == 0 { None } else { some };
            let op = match rng.below(4) {
                0 => Op::Write(value),
                1 => {
                    let (to, done) = (1 + rng.below(3), end.is_none() || rng.below(3) > 0);
                    Op::Cas { from: value, to, done }
                }
                _ => Op::Read(value),
            };
            // Nobody knows what a read without a return saw.
            let is_known = end.is_some() || !matches!(op, Op::Read(_));
            calls.extend(is_known.then_some(Call { start, end, op }));
        }
        calls
    }

    #[test]
    fn the_search_agrees_with_trying_every_order() {
        let mut rng = Rng::new(7);
        let mut found = [0, 0];
        for _ in 0..20_000 {
            let calls = any_history(&mut rng);
            let expected = is_linearizable_by_force(&calls);
            assert_eq!(is_linearizable(&calls), expected, "{calls:?}");
            found[usize::from(expected)] += 1;
        }
        assert!(found.iter().all(|n| *n > 2_000), "both kinds occur: {found:?}");
    }
}
