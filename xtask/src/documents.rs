//! References that are generated from the program's own tables.

use crate::process::{cargo, output};
use anyhow::{Context, Result, bail};

/// The parts of `hypercache docs`, one file each.
const PARTS: &[&str] = &["commands", "config", "errors"];

fn path_of(part: &str) -> String {
    format!("docs/{part}.md")
}

fn generate(part: &str) -> Result<String> {
    output("target/debug/hypercache", &["docs", part])
}

/// Writes the references.
pub(crate) fn write() -> Result<()> {
    cargo(&["build", "--package", "hypercache"])?;
    std::fs::create_dir_all("docs")?;
    for part in PARTS {
        std::fs::write(path_of(part), generate(part)?)?;
    }
    Ok(())
}

/// Fails when a reference is not what would be written.
pub(crate) fn check() -> Result<()> {
    cargo(&["build", "--package", "hypercache"])?;
    for part in PARTS {
        let path = path_of(part);
        let there =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        if there != generate(part)? {
            bail!("{path} is not up to date: run `cargo xtask gen`");
        }
    }
    Ok(())
}
