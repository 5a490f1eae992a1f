//! The corpus of the fuzz target is replayed as an ordinary test, and its dictionary is up to date.

use hypercache_commands::testing::fuzz::dictionary;
use hypercache_scripting::testing::lua_bridge;
use std::fs;
use std::path::Path;

const FUZZ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz");

#[test]
fn the_corpus_breaks_nothing() {
    let files = fs::read_dir(Path::new(FUZZ).join("corpus/lua_bridge")).expect("a corpus");
    let paths = files.map(|file| file.expect("a file").path()).collect::<Vec<_>>();
    assert!(paths.len() >= 20, "only {} files", paths.len());
    for path in paths {
        lua_bridge(&fs::read(&path).expect("readable"));
    }
}

#[test]
fn the_dictionary_is_up_to_date() {
    let there = fs::read_to_string(Path::new(FUZZ).join("dictionaries/lua_bridge.dict"));
    assert_eq!(there.unwrap_or_default(), dictionary("lua_bridge"), "run `cargo xtask gen`");
}
