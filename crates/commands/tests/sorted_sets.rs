//! What a comparison with another server cannot test of sorted sets: members at random, and walks while
//! members come and go. And that no key is touched that a command did not declare.

use hypercache_commands::testing::Harness;
use std::collections::{BTreeMap, BTreeSet};

/// A harness with a sorted set of so many members, each with its number as score.
fn with_members(n: usize) -> Harness {
    let mut harness = Harness::default();
    for i in 0..n {
        harness.run(&format!("ZADD z {i} m{i}"));
    }
    harness
}

/// The strings of a reply, however they are nested.
fn strings(reply: &[u8]) -> Vec<String> {
    let text = String::from_utf8(reply.to_vec()).expect("text");
    let lines: Vec<&str> = text.split("\r\n").collect();
    let heads = lines.iter().enumerate().filter(|(_, line)| line.starts_with('$'));
    heads.map(|(i, _)| lines[i + 1].to_owned()).collect()
}

fn run(harness: &mut Harness, command: &str) -> Vec<String> {
    let args: Vec<&str> = command.split(' ').collect();
    strings(&harness.run_args(&args))
}

#[test]
fn every_member_is_drawn_about_as_often() {
    for n in [5, 500] {
        let mut harness = with_members(n);
        let mut counts = BTreeMap::new();
        for member in run(&mut harness, &format!("ZRANDMEMBER z -{}", n * 200)) {
            *counts.entry(member).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), n);
        assert!(counts.values().all(|count| (120..300).contains(count)), "{counts:?}");
        let one = run(&mut harness, "ZRANDMEMBER z");
        assert!(one.len() == 1 && counts.contains_key(&one[0]));
    }
}

#[test]
fn different_members_are_drawn_with_their_scores() {
    for n in [5, 500] {
        let mut harness = with_members(n);
        for count in [1, 2, n / 2, n - 1, n, n + 10] {
            let drawn = run(&mut harness, &format!("ZRANDMEMBER z {count} WITHSCORES"));
            let pairs: BTreeSet<(String, String)> =
                drawn.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
            assert_eq!(pairs.len(), count.min(n));
            assert_eq!(drawn.len(), 2 * pairs.len());
            assert!(pairs.iter().all(|(member, score)| *member == format!("m{score}")));
        }
    }
}

#[test]
fn a_walk_tells_every_member_that_stays() {
    for n in [20, 2000] {
        let mut harness = with_members(n);
        let (mut seen, mut cursor, mut step) = (BTreeSet::new(), "0".to_owned(), n);
        loop {
            let mut found = run(&mut harness, &format!("ZSCAN z {cursor} COUNT 7"));
            cursor = found.remove(0);
            seen.extend(found.chunks(2).map(|pair| pair[0].clone()));
            if cursor == "0" {
                break;
            }
            step += 1;
            harness.run(&format!("ZADD z {step} new{step} {step} m{}", step % n));
            harness.run(&format!("ZREM z new{}", step - 3));
        }
        let stayed = seen.iter().filter(|member| member.starts_with('m')).count();
        assert_eq!(stayed, n);
        let some = run(&mut harness, "ZSCAN z 0 MATCH m1 COUNT 100000");
        assert_eq!(some[1..].first().map(String::as_str), Some("m1"));
    }
}

#[test]
fn a_search_that_stores_locks_whatever_its_words_may_name() {
    let mut harness = Harness::default();
    harness.run("GEOADD g 13 38 a");
    for words in [
        "STORE x",
        "STORE x STORE y",
        "STOREDIST x STORE y",
        "STORE STORE",
        "STORE STOREDIST STORE x",
        "COUNT STORE",
        "STORE",
        "STORE WITHDIST STOREDIST z",
    ] {
        harness.run(&format!("GEORADIUS g 13 38 10 km {words}"));
        harness.run(&format!("GEORADIUSBYMEMBER g a 10 km {words}"));
    }
    for key in ["x", "y", "STORE", "WITHDIST"] {
        let members = run(&mut harness, &format!("ZRANGE {key} 0 -1"));
        assert_eq!(members.len(), usize::from(key != "WITHDIST"), "{key}");
    }
}

#[test]
fn a_search_says_what_it_misses() {
    let mut harness = Harness::default();
    let mut error = |command: &str| {
        let words: Vec<&str> = command.split(' ').collect();
        String::from_utf8(harness.run_args(&words)).expect("text")
    };
    assert_eq!(
        error("GEOSEARCH g BYRADIUS 1 m ASC DESC ASC"),
        "-ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for GEOSEARCH\r\n"
    );
    assert_eq!(
        error("geosearch g FROMLONLAT 1 2 ASC DESC ASC"),
        "-ERR exactly one of BYRADIUS and BYBOX can be specified for geosearch\r\n"
    );
}

/// Their numbers are one more than those of the last cells of the grid.
#[test]
fn places_on_the_edge_of_the_grid_are_found() {
    let mut harness = Harness::default();
    for (name, place) in [("east", "180 44.9"), ("north", "10 85.05112878"), ("west", "-180 44.9")]
    {
        harness.run(&format!("GEOADD g {place} {name}"));
        let near = run(&mut harness, &format!("GEORADIUS g {place} 1 km"));
        assert_eq!(near[0], name);
    }
    assert_eq!(run(&mut harness, "GEORADIUSBYMEMBER g east 1 km"), ["east"]);
    assert_eq!(run(&mut harness, "GEOSEARCH g FROMMEMBER north BYBOX 9 9 m"), ["north"]);
}
