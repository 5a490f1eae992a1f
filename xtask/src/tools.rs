//! What the tests need beside Rust: the servers to compare with and public client libraries.

use crate::process::{run, works};
use anyhow::{Result, bail};

/// Programs, how to tell that they are there, and the Debian package that has them.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("redis-server", "--version", "redis-server"),
    ("redis-cli", "--version", "redis-tools"),
    ("python3", "--version", "python3"),
    ("memcached", "--version", "memcached"),
    ("memcstat", "--version", "libmemcached-tools"),
];

/// Installs what is missing; says what to do where it may not.
pub(crate) fn install() -> Result<()> {
    let missing = PROGRAMS.iter().filter(|(program, flag, _)| !works(program, &[flag]));
    let packages: Vec<&str> = missing.map(|(_, _, package)| *package).collect();
    if !packages.is_empty() {
        apt(&packages)?;
    }
    if !works("python3", &["-c", "import redis, pymemcache"]) {
        if !works("python3", &["-m", "pip", "--version"]) {
            apt(&["python3-pip"])?;
        }
        let packages = ["redis==5.2.1", "pymemcache==4.0.0"];
        let install = [&["-m", "pip", "install", "--quiet"], &packages[..]].concat();
        let done = works("python3", &install)
            || works("python3", &[&install[..], &["--break-system-packages"]].concat());
        if !done {
            bail!("cannot install Python packages: try `pip install redis pymemcache` by hand");
        }
    }
    Ok(())
}

fn apt(packages: &[&str]) -> Result<()> {
    let is_root = crate::process::output("id", &["-u"])?.trim() == "0";
    let prefix: &[&str] = if is_root { &["env"] } else { &["sudo", "-n", "env"] };
    let install = ["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet"];
    let words = [&prefix[1..], &install, packages].concat();
    let update = [&prefix[1..], &["apt-get", "update", "--quiet"]].concat();
    let installed = run(prefix[0], &words).is_ok()
        || (run(prefix[0], &update).is_ok() && run(prefix[0], &words).is_ok());
    if !installed {
        bail!("cannot install {0}: run `apt-get install {0}` as root", packages.join(" "));
    }
    Ok(())
}
