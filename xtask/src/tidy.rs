//! House rules that no lint knows.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// Which crate may use which of ours. An edge that is not here is a decision: make it here.
const EDGES: &[(&str, &[&str])] = &[
    ("stdx", &[]),
    ("protocol", &["stdx"]),
    ("store", &["stdx"]),
    ("journal", &["store", "stdx"]),
    ("rdb", &["store", "stdx"]),
    ("commands", &["protocol", "store", "journal", "rdb", "cluster", "stdx"]),
    ("scripting", &["commands", "protocol", "stdx"]),
    (
        "server",
        &["node", "cluster", "commands", "scripting", "protocol", "store", "journal", "stdx"],
    ),
    ("cluster", &["stdx"]),
    ("node", &["cluster", "stdx"]),
    ("sim", &["cluster", "stdx", "commands", "journal", "store", "protocol"]),
    ("client", &["protocol", "stdx"]),
    ("hypercache", &["server", "commands", "client", "stdx", "protocol"]),
];

/// The rooms with `unsafe` in them.
const UNSAFE_ROOMS: &[&str] =
    &["crates/store/src/mem", "crates/store/src/table", "crates/server/src/io"];

/// A file longer than this wants to be two.
const LINES_MAX: usize = 800;

/// What rustfmt leaves alone (comments, texts) may be a little longer than its 100.
const COLUMNS_MAX: usize = 110;

/// Checks all rules and names every place that breaks one.
pub(crate) fn tidy() -> Result<()> {
    let mut problems = Vec::new();
    check_edges(&mut problems)?;
    let mut files = Vec::new();
    for folder in ["crates", "xtask", "tests", "fuzz"] {
        collect(Path::new(folder), &mut files)?;
    }
    for file in &files {
        check_file(file, &std::fs::read_to_string(file)?, &mut problems);
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("house rules:\n  {}", problems.join("\n  "))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn check_edges(problems: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir("crates")? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))?;
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else {
            problems.push(format!("crates/{name}: give it a line in xtask/src/tidy.rs"));
            continue;
        };
        let uses = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let uses = uses.split("\n[").next().unwrap_or_default();
        for line in uses.lines() {
            let Some(used) = line.strip_prefix("hypercache-") else { continue };
            let used = used.split(['.', ' ', '=']).next().unwrap_or_default();
            if !allowed.contains(&used) {
                problems.push(format!("crates/{name} must not depend on {used}"));
            }
        }
    }
    Ok(())
}

fn check_file(path: &Path, text: &str, problems: &mut Vec<String>) {
    let name = path.display();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        problems.push(format!("{name}: {lines} lines; split it (at most {LINES_MAX})"));
    }
    if !text.starts_with("//!") && !text.starts_with("#!") {
        problems.push(format!("{name}: begins without saying what it is for (`//!`)"));
    }
    let is_room = UNSAFE_ROOMS.iter().any(|room| path.starts_with(room) || is_file_of(path, room));
    for (n, line) in text.lines().enumerate() {
        let at = n + 1;
        if line.chars().count() > COLUMNS_MAX && !has_long_literal(line) {
            problems.push(format!("{name}:{at}: longer than {COLUMNS_MAX} columns"));
        }
        let opens_unsafe =
            ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|u| line.contains(u));
        let is_code = !line.trim_start().starts_with("//") && !line.contains("\"unsafe");
        if opens_unsafe && is_code && !is_room {
            problems.push(format!("{name}:{at}: unsafe outside of its rooms"));
        }
    }
}

/// A text that is longer than what fits beside its name cannot be broken by rustfmt.
fn has_long_literal(line: &str) -> bool {
    line.split('"').skip(1).any(|piece| piece.len() > 40)
}

fn is_file_of(path: &Path, room: &str) -> bool {
    path == Path::new(&format!("{room}.rs"))
}
