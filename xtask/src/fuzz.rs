//! Fuzzing: the targets of `fuzz/`, built as cargo-fuzz would build them, without needing it.

use crate::process::{cargo, cargo_nightly, output, run};
use anyhow::{Context, Result, bail};
use std::fs;

/// The targets. Their bodies are in `hypercache_commands::testing::fuzz`, that of `lua_bridge` in
/// `hypercache_scripting::testing`, and those of `cluster_frames` and `cluster_bus` in
/// `hypercache_cluster`.
const TARGETS: &[&str] = &[
    "resp_parser",
    "memcached_parser",
    "command_sequence",
    "config_file",
    "acl_rules",
    "restore_payload",
    "lua_bridge",
    "cluster_frames",
    "cluster_bus",
];

/// AddressSanitizer, and the coverage that libFuzzer is guided by.
const FLAGS: &str = "--cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 -Cpasses=sancov-module \
                     -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Looks for inputs that break a target. What it learned stays in `target/fuzz/corpus` for the next
/// time; what it found is in `target/fuzz/found`, for a test and `fuzz/corpus`.
pub(crate) fn fuzz(target: &str, seconds: &str) -> Result<()> {
    if !TARGETS.contains(&target) {
        bail!("no such target: {target}; there are {}", TARGETS.join(", "));
    }
    let seconds: u32 = seconds.parse().with_context(|| format!("not seconds: {seconds}"))?;
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let env = [("RUSTFLAGS", FLAGS), ("CARGO_TARGET_DIR", "target/fuzz")];
    let package = ["--manifest-path", "fuzz/Cargo.toml", "--locked", "--bin", target];
    let build = ["build", "--release", "--target", &triple];
    cargo_nightly(&[&build[..], &package].concat(), &env)
        .context("fuzzing needs a nightly toolchain (rustup toolchain add nightly)")?;
    let folders = ["target/fuzz/corpus", "target/fuzz/found"].map(|f| format!("{f}/{target}"));
    for folder in &folders {
        fs::create_dir_all(folder)?;
    }
    let [learned, found] = &folders;
    let seeds = format!("fuzz/corpus/{target}");
    let limits = [format!("-max_total_time={seconds}"), format!("-artifact_prefix={found}/")];
    let words = format!("-dict={}", path_of(target));
    let program = format!("target/fuzz/{triple}/release/{target}");
    // The leak check does not see what the tables hold, so it takes what the background thread has
    // yet to free for lost. The store's own tests look for leaks.
    let others = ["-rss_limit_mb=2048", "-timeout=20", "-print_final_stats=1", "-detect_leaks=0"];
    let own: [&str; 5] = [learned, &seeds, &limits[0], &limits[1], &words];
    run(&program, &[&own[..], &others].concat())
}

fn path_of(target: &str) -> String {
    format!("fuzz/dictionaries/{target}.dict")
}

/// Writes the dictionaries from the tables. That they are up to date is a test of the commands.
pub(crate) fn write_dictionaries() -> Result<()> {
    let example = ["--package", "hypercache-commands", "--example", "fuzz_dictionary"];
    cargo(&[&["build"], &example[..]].concat())?;
    for target in TARGETS {
        let text = output("cargo", &[&["run", "--quiet"], &example[..], &["--", target]].concat())?;
        fs::write(path_of(target), text)?;
    }
    Ok(())
}
