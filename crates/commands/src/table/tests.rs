//! Where the keys of commands are.

use super::*;
use hypercache_protocol::parse::OwnedArgs;

fn keys(spec: Keys, words: &[&str]) -> Vec<usize> {
    let mut found = Vec::new();
    spec.for_each(OwnedArgs::from_pieces(words).as_args(), &mut |i, _| found.push(i));
    found
}

#[test]
fn keys_may_be_counted_by_an_argument() {
    let spec = Keys::Counted { count: 2, flags: KeyFlags::RO };
    assert_eq!(keys(spec, &["EVAL", "s", "2", "a", "b", "x"]), [3, 4]);
    assert_eq!(keys(spec, &["EVAL", "s", "2", "a", "b"]), [3, 4]);
    for count in ["0", "3", "-1", "x", "9223372036854775807"] {
        assert_eq!(keys(spec, &["EVAL", "s", count, "a", "b"]), [0; 0], "{count}");
    }
    assert_eq!(keys(spec, &["EVAL", "s"]), [0; 0]);
}

#[test]
fn counted_keys_may_have_values() {
    let spec = Keys::CountedPairs { count: 1, flags: KeyFlags::OW };
    assert_eq!(keys(spec, &["MSETEX", "2", "a", "1", "b", "2", "NX"]), [2, 4]);
    assert_eq!(keys(spec, &["MSETEX", "2", "a", "1", "b", "2"]), [2, 4]);
    for count in ["0", "3", "-1", "x", "9223372036854775807"] {
        assert_eq!(keys(spec, &["MSETEX", count, "a", "1", "b", "2"]), [0; 0], "{count}");
    }
}

#[test]
fn a_key_may_be_behind_a_word() {
    const WORDS: &[&str] = &["STORE", "STOREDIST"];
    let spec = Keys::Behind { words: WORDS, from: 2, flags: KeyFlags::OW };
    assert_eq!(keys(spec, &["X", "store", "a", "Store", "k"]), [4]);
    assert_eq!(keys(spec, &["X", "k", "STORE", "STOREDIST", "STOREDIST", "k"]), [5]);
    assert_eq!(keys(spec, &["X", "k", "STORE"]), [0; 0]);
    assert_eq!(spec.specs().len(), 2);
}
