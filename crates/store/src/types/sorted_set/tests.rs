//! A sorted set against a map by (score, member), in all it answers.

use super::*;
use crate::types::{Kind, Object};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Scores without NaN in an order that `BTreeSet` takes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Score(f64);

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.partial_cmp(&other.0).expect("no NaN")
    }
}

#[derive(Default)]
struct Model {
    scores: BTreeMap<Vec<u8>, f64>,
    order: BTreeSet<(Score, Vec<u8>)>,
}

impl Model {
    fn put(&mut self, score: f64, member: &[u8]) -> SortedSetDone {
        let old = self.scores.get(member).copied();
        if old == Some(score) {
            return SortedSetDone::Nothing;
        }
        self.remove(member);
        self.scores.insert(member.to_vec(), score);
        self.order.insert((Score(score), member.to_vec()));
        if old.is_some() { SortedSetDone::Moved } else { SortedSetDone::Added }
    }

    fn remove(&mut self, member: &[u8]) -> SortedSetDone {
        let Some(score) = self.scores.remove(member) else { return SortedSetDone::Nothing };
        self.order.remove(&(Score(score), member.to_vec()));
        SortedSetDone::Removed
    }
}

fn run(set: &mut SortedSet, model: &mut Model, op: SortedSetOp<'_>) {
    let mut encoded = Vec::new();
    op.encode(&mut encoded);
    let done = set.apply(SortedSetOp::decode(&encoded).expect("what was encoded"));
    let expected = match op {
        SortedSetOp::Put(score, member) => model.put(score, member),
        SortedSetOp::Remove(member) => model.remove(member),
    };
    assert_eq!(done, expected, "{op:?}");
}

fn owned((member, score): (&[u8], f64)) -> (Score, Vec<u8>) {
    (Score(score), member.to_vec())
}

fn check(set: &SortedSet, model: &Model) {
    let ordered: Vec<_> = model.order.iter().cloned().collect();
    let len = ordered.len();
    assert_eq!(set.len(), len);
    assert!(set.iter().map(owned).eq(ordered.iter().cloned()));
    if len > 0 {
        let back = set.range(len - 1, usize::MAX, true).map(owned);
        assert!(back.eq(ordered.iter().rev().cloned()));
    }
    for (rank, (score, member)) in ordered.iter().enumerate() {
        assert_eq!(set.rank(member), Some((rank, score.0)));
        assert_eq!(set.score(member), Some(score.0));
    }
    for rank in (0..len + 2).step_by(len / 7 + 1) {
        let up = set.range(rank, 40, false).map(owned);
        assert!(up.eq(ordered.iter().skip(rank).take(40).cloned()));
        let down = set.range(rank, 40, true).map(owned);
        let expected = ordered.iter().take(rank + 1).rev().take(40).cloned();
        assert!(down.eq(expected.filter(|_| rank < len)));
    }
    for limit in [-1e9, -3.0, -0.0, 0.0, 0.5, 7.0, f64::INFINITY] {
        for is_behind in [false, true] {
            let edge = Edge::Score { limit, is_behind };
            let expected = ordered.iter().filter(|(s, m)| edge.is_behind(s.0, m)).count();
            assert_eq!(set.count_before(edge), expected, "{edge:?}");
        }
    }
    if let Repr::Many(tree) = &set.repr {
        tree.check();
    }
    assert_eq!(set.clone().bytes(), set.bytes());
}

fn scores() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-6i32..12).prop_map(f64::from),
        3 => any::<i32>().prop_map(|n| f64::from(n) / 7.0),
        1 => prop_oneof![Just(-0.0), Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
    ]
}

fn members() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => (0u32..2000).prop_map(|n| format!("member:{n}").into_bytes()),
        4 => proptest::collection::vec(any::<u8>(), 0..4),
        1 => (0u8..40, 800usize..3000).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_sorted_set_is_a_map_and_an_order(
        puts in proptest::collection::vec((scores(), members()), 1..2500),
        same in any::<bool>(),
        removes in proptest::collection::vec((members(), any::<bool>()), 0..2000),
    ) {
        let (mut set, mut model) = (SortedSet::default(), Model::default());
        for (score, member) in &puts {
            let score = if same { 1.0 } else { *score };
            run(&mut set, &mut model, SortedSetOp::Put(score, member));
        }
        check(&set, &model);
        for (member, is_move) in &removes {
            let op = match is_move {
                true => SortedSetOp::Put(member.len() as f64, member),
                false => SortedSetOp::Remove(member),
            };
            run(&mut set, &mut model, op);
        }
        check(&set, &model);
        let mut copy = Vec::new();
        Object::SortedSet(set.clone()).encode(&mut copy);
        let Some(Object::SortedSet(copy)) = Object::decode(Kind::SortedSet, &copy) else { panic!() };
        check(&copy, &model);
        for (_, member) in &puts {
            run(&mut set, &mut model, SortedSetOp::Remove(member));
        }
        check(&set, &model);
    }

    #[test]
    fn edges_by_member_cut_where_they_say(
        names in proptest::collection::btree_set(members(), 1..700),
        limits in proptest::collection::vec(members(), 20),
    ) {
        let mut set = SortedSet::default();
        names.iter().for_each(|member| {
            set.apply(SortedSetOp::Put(2.0, member));
        });
        for limit in limits.iter().chain(names.iter().take(20)) {
            for is_behind in [false, true] {
                let edge = Edge::Member { limit, is_behind };
                let expected = names.iter().filter(|member| edge.is_behind(2.0, member)).count();
                prop_assert_eq!(set.count_before(edge), expected);
            }
        }
    }
}

fn numbered(n: usize) -> Vec<u8> {
    format!("member:{n:09}").into_bytes()
}

fn filled(n: usize, score: impl Fn(usize) -> f64) -> (SortedSet, Model) {
    let (mut set, mut model) = (SortedSet::default(), Model::default());
    for i in 0..n {
        run(&mut set, &mut model, SortedSetOp::Put(score(i), &numbered(i)));
    }
    (set, model)
}

#[test]
fn many_members_come_and_go_in_every_order() {
    const N: usize = 30_000;
    let orders: [fn(usize) -> f64; 4] =
        [|i| i as f64, |i| -(i as f64), |i| (i * 7919 % N) as f64, |_| 5.0];
    for score in orders {
        let (mut set, mut model) = filled(N, score);
        check(&set, &model);
        for i in 0..N {
            let i = i * 7919 % N;
            if !i.is_multiple_of(50) {
                run(&mut set, &mut model, SortedSetOp::Remove(&numbered(i)));
            }
        }
        check(&set, &model);
        for i in (0..N).step_by(50) {
            run(&mut set, &mut model, SortedSetOp::Remove(&numbered(i)));
        }
        check(&set, &model);
        assert!(set.is_small());
    }
}

#[test]
fn members_in_order_fill_their_leaves() {
    let bytes = |score: fn(usize) -> f64| {
        let (set, _) = filled(20_000, score);
        set.bytes() as f64 / 20_000.0
    };
    let (up, down, mixed) =
        (bytes(|i| i as f64), bytes(|i| -(i as f64)), bytes(|i| (i * 7919 % 20_000) as f64));
    assert!(up < 46.0 && down < 46.0 && mixed < 50.0, "{up} {down} {mixed}");
}

#[test]
fn a_walk_sees_what_is_there_throughout() {
    let (mut set, mut model) = filled(3000, |i| (i % 17) as f64);
    let (mut seen, mut cursor, mut round) = (BTreeSet::new(), 0, 0);
    loop {
        cursor = set.scan(cursor, 10, |member, _| {
            seen.insert(member.to_vec());
        });
        if cursor == 0 {
            break;
        }
        // Odd members stay, even ones go in the first half and others come; all move.
        for i in (0..40).map(|i| (round * 40 + i) % 3000) {
            if i % 2 == 0 {
                run(&mut set, &mut model, SortedSetOp::Remove(&numbered(i)));
                run(&mut set, &mut model, SortedSetOp::Put(1.5, &numbered(i + 10_000)));
            } else {
                run(&mut set, &mut model, SortedSetOp::Put(round as f64, &numbered(i)));
            }
        }
        round += 1;
    }
    check(&set, &model);
    assert!((1..3000).step_by(2).all(|i| seen.contains(&numbered(i))));
    assert!(round > 100, "about ten at a time");
}

#[test]
fn a_negative_zero_is_equal_to_zero_and_kept_only_in_the_large_form() {
    let put = |set: &mut SortedSet, score| set.apply(SortedSetOp::Put(score, b"a"));
    let is_negative = |set: &SortedSet| set.score(b"a").is_some_and(f64::is_sign_negative);
    for (mut set, keeps) in [(SortedSet::default(), false), (SortedSet::wide(), true)] {
        assert_eq!(put(&mut set, -0.0), SortedSetDone::Added);
        assert_eq!(is_negative(&set), keeps);
        assert_eq!(put(&mut set, 0.0), SortedSetDone::Nothing);
        assert_eq!(put(&mut set, 1.0), SortedSetDone::Moved);
        assert_eq!(put(&mut set, -0.0), SortedSetDone::Moved);
        assert_eq!(is_negative(&set), keeps);
        assert!(!is_negative(&set.settled()));
    }
    assert_eq!(put(&mut SortedSet::default(), f64::NAN), SortedSetDone::Nothing);
}

#[test]
fn the_name_of_the_form_is_never_the_small_one_again() {
    let (mut set, mut model) = filled(128, |i| i as f64);
    assert_eq!(set.encoding(), "listpack");
    run(&mut set, &mut model, SortedSetOp::Put(1.0, b"one more"));
    run(&mut set, &mut model, SortedSetOp::Remove(b"one more"));
    assert_eq!(set.encoding(), "skiplist");
    let mut long = SortedSet::default();
    long.apply(SortedSetOp::Put(1.0, &[b'x'; 65]));
    assert_eq!(long.encoding(), "skiplist");
}
