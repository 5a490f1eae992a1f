//! Checks that write nothing, and the mending of what can be mended.

use crate::process::{cargo, works};
use crate::{documents, tidy};
use anyhow::Result;

/// Format, lints, house rules, generated references, licences.
pub(crate) fn verify() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    tidy::tidy()?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    documents::check()?;
    if works("cargo-deny", &["--version"]) {
        return cargo(&["deny", "--all-features", "check", "bans", "licenses", "sources"]);
    }
    println!("skipped: licences need cargo-deny (cargo install --locked cargo-deny)");
    Ok(())
}

/// Formats and applies what lints suggest.
pub(crate) fn fix() -> Result<()> {
    cargo(&["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty"])?;
    cargo(&["fmt", "--all"])?;
    documents::write()
}
