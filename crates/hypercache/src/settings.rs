//! Where settings come from: a file in the syntax of `redis.conf`, then the environment, then flags;
//! later ones win.

use anyhow::{Context, Result, anyhow, bail};
use hypercache_commands::acl::Strangers;
use hypercache_commands::config::Config;
use hypercache_commands::{config_file, exposure};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Prefix of environment variables that are settings.
const PREFIX: &str = "HYPERCACHE_";
/// Files that include each other in a circle end here.
const INCLUDES_MAX: usize = 16;

/// The settings of `[CONFIG-FILE] [--name value ...]` and the environment, and what to warn of.
///
/// # Errors
/// One sentence that names the file and line, the variable or the flag at fault.
pub(crate) fn load(args: &[String]) -> Result<(Config, Vec<String>)> {
    let mut config = Config::default();
    let (file, flags) = match args.split_first() {
        Some((first, rest)) if !first.starts_with("--") => (Some(first.as_str()), rest),
        _ => (None, args),
    };
    if let Some(path) = file {
        load_file(&mut config, path, 0)?;
        config.file = (path != "-").then(|| absolute(Path::new(path)));
    }
    let warnings = load_environment(&mut config, std::env::vars())?;
    load_flags(&mut config, flags)?;
    check_exposure(&config)?;
    Ok((config, warnings))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn load_file(config: &mut Config, path: &str, depth: usize) -> Result<()> {
    if depth > INCLUDES_MAX {
        bail!("{path}: more than {INCLUDES_MAX} files include each other");
    }
    let mut bytes = Vec::new();
    if path == "-" {
        std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
    } else {
        bytes = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
    }
    for line in config_file::lines(&bytes) {
        let line = line.map_err(|bad| anyhow!("{path}:{}: {}", bad.number, bad.why))?;
        let at = || format!("{path}:{}", line.number);
        if line.name.eq_ignore_ascii_case("include") {
            for file in &line.values {
                load_file(config, file, depth + 1).with_context(at)?;
            }
            continue;
        }
        set(config, &line.name, &line.values).with_context(at)?;
    }
    Ok(())
}

fn set(config: &mut Config, name: &str, values: &[String]) -> Result<()> {
    config_file::apply(config, name, values).map_err(anyhow::Error::msg)
}

/// What Kubernetes sets for a service called `hypercache`, which is not meant for us.
fn is_service_link(name: &str, value: &str) -> bool {
    name.starts_with("SERVICE_")
        || name.starts_with("PORT_")
        || name == "PORT" && value.contains("://")
}

/// A wrong value is refused. An unknown name is only warned of: others may use the prefix, too.
fn load_environment(
    config: &mut Config,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for (variable, value) in variables {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        if is_service_link(name, &value) {
            continue;
        }
        let name = name.to_ascii_lowercase().replace('_', "-");
        match config.set_at_start(&name, &value) {
            Ok(()) => {}
            Err(why) if hypercache_commands::config::index_of(&name).is_none() => {
                warnings.push(format!("environment variable {variable} is ignored: {why}"));
            }
            Err(why) => bail!("environment variable {variable}: {why}"),
        }
    }
    Ok(warnings)
}

/// `--name value ...`: the values go on until the next word that begins with `--`.
fn load_flags(config: &mut Config, flags: &[String]) -> Result<()> {
    let mut rest = flags;
    while let Some((flag, after)) = rest.split_first() {
        let Some(name) = flag.strip_prefix("--") else {
            bail!("'{flag}' is no flag; settings are given as `--name value`");
        };
        let count = after.iter().take_while(|word| !word.starts_with("--")).count();
        let (values, next) = after.split_at(count);
        set(config, name, values).with_context(|| format!("flag {flag}"))?;
        rest = next;
    }
    Ok(())
}

/// Refuses settings that let in whom they should not. Where they name users, what these may do is
/// known only once they are loaded: the server looks then.
fn check_exposure(config: &Config) -> Result<()> {
    if !config.users.is_empty() || !config.get("aclfile").is_empty() {
        return Ok(());
    }
    let has_password = !config.get("requirepass").is_empty();
    let strangers = if has_password { Strangers::Refused } else { Strangers::Free };
    exposure::check(config, strangers).map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_words(words: &[&str]) -> Result<Config> {
        let mut config = Config::default();
        load_flags(&mut config, &words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())?;
        check_exposure(&config)?;
        Ok(config)
    }

    fn message(result: Result<Config>) -> String {
        format!("{:#}", result.expect_err("must be refused"))
    }

    #[test]
    fn flags_take_values_up_to_the_next_flag() {
        let config = load_words(&["--port", "7000", "--bind", "127.0.0.1", "::1"]).expect("valid");
        assert_eq!(config.get("port"), "7000");
        assert_eq!(config.get("bind"), "127.0.0.1 ::1");
    }

    #[test]
    fn wrong_flags_are_named() {
        assert_eq!(
            message(load_words(&["--maxmemry", "1gb"])),
            "flag --maxmemry: unknown setting 'maxmemry'; did you mean 'maxmemory'?"
        );
        assert_eq!(message(load_words(&["--port"])), "flag --port: 'port' needs a value");
        assert!(message(load_words(&["port", "1"])).contains("--name value"));
        assert!(message(load_words(&["--port", "70000"])).starts_with("flag --port: 'port': "));
    }

    #[test]
    fn a_public_address_needs_a_password() {
        assert!(message(load_words(&["--bind", "0.0.0.0"])).contains("without a password"));
        assert!(load_words(&["--bind", "0.0.0.0", "--requirepass", "x"]).is_ok());
        assert!(load_words(&["--bind", "0.0.0.0", "--protected-mode", "no"]).is_ok());
        assert!(load_words(&["--bind", "-::1", "localhost"]).is_ok());
    }

    #[test]
    fn memcached_clients_are_let_in_knowingly() {
        let port = ["--memcached-port", "11211"];
        let with = |words: &[&str]| load_words(&[&port[..], words].concat());
        assert!(with(&[]).is_ok());
        assert!(message(with(&["--port", "11211"])).contains("its own"));
        let public = ["--bind", "0.0.0.0", "--requirepass", "x"];
        assert!(message(with(&public)).contains("memcached clients, who need no password"));
        let closed = ["--requirepass", "x"];
        assert!(message(with(&closed)).contains("--memcached-unauthenticated yes"));
        assert!(with(&[&closed[..], &["--memcached-unauthenticated", "yes"]].concat()).is_ok());
        assert!(with(&["--bind", "0.0.0.0", "--protected-mode", "no"]).is_ok());
    }

    #[test]
    fn files_are_read_with_line_numbers() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("redis.conf");
        let name = path.to_str().expect("UTF-8");
        let text = "# a comment\n\nmaxmemory 1gb\nrequirepass \"a b\"\nsave \"\"\n";
        std::fs::write(&path, text).expect("written");
        let mut config = Config::default();
        load_file(&mut config, name, 0).expect("valid");
        assert_eq!(config.get("maxmemory"), "1073741824");
        assert_eq!(config.get("requirepass"), "a b");
        std::fs::write(&path, "port 1\nprot 2\n").expect("written");
        let error = load_file(&mut config, name, 0).expect_err("an unknown name");
        assert!(format!("{error:#}").contains("redis.conf:2: unknown setting 'prot'"));
        std::fs::write(&path, "port \"1\n").expect("written");
        let error = load_file(&mut config, name, 0).expect_err("a quote");
        assert!(format!("{error:#}").contains("redis.conf:1: quotes do not close"));
        std::fs::write(&path, format!("include {name}\n")).expect("written");
        assert!(load_file(&mut config, name, 0).is_err(), "a circle");
    }

    #[test]
    fn the_environment_is_read_but_not_service_links() {
        let set = |name: &str, value: &str| {
            let mut config = Config::default();
            let given = [(name.into(), value.into())].into_iter();
            load_environment(&mut config, given).map(|warnings| (config, warnings))
        };
        let (config, _) = set("HYPERCACHE_MAXMEMORY_POLICY", "allkeys-random").expect("valid");
        assert_eq!(config.get("maxmemory-policy"), "allkeys-random");
        assert!(set("HYPERCACHE_PORT", "tcp://10.0.0.1:6379").is_ok());
        assert!(set("HYPERCACHE_SERVICE_HOST", "10.0.0.1").is_ok());
        let (_, warnings) = set("HYPERCACHE_PROT", "1").expect("ignored");
        assert!(warnings[0].starts_with("environment variable HYPERCACHE_PROT is ignored: "));
        assert!(set("HYPERCACHE_PORT", "x").is_err());
    }
}
