//! The map against a simple model, and what it promises of walks and of chance.

use super::*;
use hypercache_stdx::rng::Rng;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

fn key_of(n: u32) -> Vec<u8> {
    format!("key:{n}").into_bytes()
}

fn check(dict: &Dict, model: &Model) {
    assert_eq!(dict.len(), model.len());
    for (key, (value, deadline)) in model {
        assert_eq!(dict.get(key), Some(Record { key, value, deadline: *deadline }));
    }
    let seen: BTreeSet<Vec<u8>> = dict.iter().map(|record| record.key.to_vec()).collect();
    assert!(seen.iter().eq(model.keys()));
    let soonest = model.values().filter_map(|(_, deadline)| *deadline).min();
    assert!(dict.next_deadline().unwrap_or(u64::MAX) <= soonest.unwrap_or(u64::MAX));
    let mut settled = dict.clone();
    settled.settle();
    assert_eq!(settled.next_deadline(), soonest);
    if let Repr::Many(table) = &dict.0 {
        let recount: usize = table.segments.iter().map(Segment::bytes).sum();
        assert_eq!(table.segment_bytes, recount, "accounting is exact");
        let list = class_size(table.segments.capacity() * size_of::<Segment>());
        let directory = class_size(table.directory.capacity() * size_of::<u32>());
        let frame = class_size(size_of::<Table>()) + list + directory;
        assert_eq!(table.frame_bytes, frame, "accounting is exact");
        for (number, segment) in table.segments.iter().enumerate() {
            assert!(table.entries_of(segment).all(|i| table.directory[i] as usize == number));
            let depth = segment.depth;
            assert!(segment.iter().all(|r| prefix_of(hash_of(r.key), depth) == segment.prefix));
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<(u32, bool, usize, Option<u64>)>> {
    let len = prop_oneof![20 => 0usize..60, 1 => 500usize..3000];
    let deadline = proptest::option::weighted(0.2, 1u64..1000);
    proptest::collection::vec((0u32..3000, proptest::bool::weighted(0.7), len, deadline), 1..3000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_dict_is_a_map(steps in steps(), shrinks in any::<bool>()) {
        let (mut dict, mut model) = (Dict::default(), Model::new());
        for (n, is_put, len, deadline) in steps {
            let key = key_of(n);
            if is_put {
                let value = vec![n as u8; len];
                let was_there = dict.put(Record { key: &key, value: &value, deadline });
                prop_assert_eq!(was_there, model.insert(key, (value, deadline)).is_some());
            } else {
                prop_assert_eq!(dict.remove(&key), model.remove(&key).is_some());
            }
        }
        check(&dict, &model);
        if shrinks {
            let keys: Vec<_> = model.keys().cloned().collect();
            for (i, key) in keys.iter().enumerate() {
                prop_assert!(dict.remove(key));
                model.remove(key);
                if i.is_multiple_of(64) {
                    check(&dict, &model);
                }
            }
            prop_assert!(dict.is_empty() && dict.bytes() == 0);
        }
    }

    /// A key that is there from first to last is seen by a walk, whatever comes and goes meanwhile.
    #[test]
    fn a_walk_misses_no_key_while_the_map_changes(
        changes in proptest::collection::vec((1000u32..20_000, any::<bool>()), 1..6000),
        first in 0u32..6000,
    ) {
        let mut dict = Dict::default();
        let put = |dict: &mut Dict, n: u32| {
            dict.put(Record { key: &key_of(n), value: b"", deadline: None });
        };
        (0..100).chain(1000..1000 + first).for_each(|n| put(&mut dict, n));
        let (mut seen, mut cursor) = (BTreeSet::new(), 0);
        let mut changes = changes.chunks(300);
        loop {
            cursor = dict.scan(cursor, |record| {
                seen.insert(record.key.to_vec());
            });
            if cursor == 0 {
                break;
            }
            for (n, is_put) in changes.next().unwrap_or_default() {
                // Growing now, shrinking then.
                if *is_put {
                    put(&mut dict, *n);
                } else {
                    (0..20).for_each(|i| {
                        dict.remove(&key_of(n - n % 20 + i));
                    });
                }
            }
        }
        prop_assert!((0..100).all(|n| seen.contains(&key_of(n))));
    }
}

/// Every record is as likely as any other: chi-square over 2000 of them, drawn 100 times each.
#[test]
fn chance_is_fair() {
    const KEYS: u32 = 2000;
    const DRAWS: u32 = 100 * KEYS;
    let mut dict = Dict::default();
    (0..KEYS).for_each(|n| {
        dict.put(Record { key: &key_of(n), value: b"", deadline: None });
    });
    let mut rng = Rng::new(11);
    let mut counts: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for _ in 0..DRAWS {
        let record = dict.random(&mut |n| rng.below(n)).expect("there are some");
        *counts.entry(record.key.to_vec()).or_default() += 1;
    }
    let expected = f64::from(DRAWS / KEYS);
    let squares = |count: u32| (f64::from(count) - expected).powi(2) / expected;
    let chi: f64 = (0..KEYS).map(|n| squares(*counts.get(&key_of(n)).unwrap_or(&0))).sum();
    // The mean is KEYS - 1, the standard deviation its double's root: this is four of them.
    let (mean, deviation) = (f64::from(KEYS - 1), f64::from(2 * (KEYS - 1)).sqrt());
    assert!((chi - mean).abs() < 4.0 * deviation, "chi-square {chi}");
}

#[test]
fn what_is_expired_is_found() {
    let mut dict = Dict::default();
    for n in 0..1000 {
        let deadline = (n % 3 == 0).then_some(u64::from(n));
        dict.put(Record { key: &key_of(n), value: b"v", deadline });
    }
    let mut found = Vec::new();
    dict.each_expired(300, |record| {
        found.push(record.key.to_vec());
        true
    });
    assert_eq!(found.len(), 100);
    found.iter().for_each(|key| assert!(dict.remove(key)));
    assert_eq!(dict.next_deadline(), Some(0));
    dict.settle();
    assert_eq!(dict.next_deadline(), Some(300));
    let mut first = 0;
    dict.each_expired(1000, |_| {
        first += 1;
        first < 5
    });
    assert_eq!(first, 5);
}

#[test]
fn memory_per_key_is_what_the_text_says() {
    let mut dict = Dict::default();
    for n in 0..100_000u32 {
        let key = format!("{n:016}");
        dict.put(Record { key: key.as_bytes(), value: b"", deadline: None });
    }
    let per_key = dict.bytes() as f64 / f64::from(100_000);
    assert!((20.0..24.5).contains(&per_key), "{per_key} bytes per key of 16");
}
