//! The corpus of each fuzz target is replayed as an ordinary test, and the dictionaries are those
//! of the tables.

use hypercache_commands::testing::fuzz::{TARGETS, Target, dictionary};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// Far longer than any input takes: one that takes longer waits for a lock for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a target in a thread of its own, so that neither a panic nor a hang hides its input.
fn replay(target: Target, input: Vec<u8>) -> Result<(), &'static str> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        target(&input);
        sender.send(()).expect("the test is listening");
    });
    receiver.recv_timeout(PATIENCE).map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => "hangs",
        mpsc::RecvTimeoutError::Disconnected => "panics",
    })
}

/// Inputs that were found to break something, and those that reach what others do not.
#[test]
fn the_corpus_breaks_nothing() {
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        let files = fs::read_dir(folder().join("corpus").join(name)).expect("a corpus");
        let paths = files.map(|file| file.expect("a file").path()).collect::<Vec<_>>();
        assert!(paths.len() >= 20, "{name}: only {} files", paths.len());
        for path in paths {
            if let Err(what) = replay(*target, fs::read(&path).expect("readable")) {
                broken.push(format!("{what}: {}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_dictionaries_are_up_to_date() {
    for (name, _) in TARGETS {
        let path = folder().join(format!("dictionaries/{name}.dict"));
        let there = fs::read_to_string(&path).unwrap_or_default();
        assert!(there == dictionary(name), "{}: run `cargo xtask gen`", path.display());
    }
}
