//! `hypercache [serve]`: settings from flags, environment and file; then the server.

use hypercache_commands::config::Config;
use std::process::ExitCode;

/// Runs the server until it is told to stop.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    let mut config = Config::default();
    for pair in args.chunks(2) {
        let [name, value] = pair else { anyhow::bail!("'{}' needs a value", pair[0]) };
        config.set_at_start(name.trim_start_matches('-'), value).map_err(anyhow::Error::msg)?;
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    hypercache_server::serve(config).map_err(anyhow::Error::msg)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a generated reference.
pub(crate) fn print_reference(_args: &[String]) -> anyhow::Result<ExitCode> {
    anyhow::bail!("say which reference: commands, config or errors")
}
