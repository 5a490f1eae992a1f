//! `hypercache [serve]`: the server, with the settings of [`crate::settings`].

use crate::settings;
use anyhow::{Context, Result};
use hypercache_commands::config::{self, Config};
use std::fs::File;
use std::io::{Write, sink, stderr};
use std::path::Path;
use std::process::ExitCode;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Runs the server until it is told to stop.
pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let (config, warnings) = settings::load(args)?;
    let folder = config.get("dir");
    std::env::set_current_dir(&folder).with_context(|| format!("cannot use dir {folder}"))?;
    start_log(&config)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let pidfile = config.get("pidfile");
    if !pidfile.is_empty() {
        let id = format!("{}\n", std::process::id());
        std::fs::write(&pidfile, id).with_context(|| format!("cannot write pidfile {pidfile}"))?;
    }
    let ended = hypercache_server::serve(config).map_err(anyhow::Error::msg);
    if !pidfile.is_empty() {
        // Someone may have removed it already.
        let _gone = std::fs::remove_file(&pidfile);
    }
    ended.map(|()| ExitCode::SUCCESS)
}

/// Where log lines go. What is less severe than the setting `loglevel` goes nowhere.
enum Log {
    Stderr,
    File(File),
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Box<dyn Write + 'a>;

    fn make_writer(&'a self) -> Self::Writer {
        match self {
            Log::Stderr => Box::new(stderr()),
            Log::File(file) => Box::new(file),
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        let least = match config::log_level().as_str() {
            "debug" => Level::TRACE,
            "verbose" => Level::DEBUG,
            "warning" => Level::WARN,
            _ => Level::INFO,
        };
        // The consensus library tells of its inner life, which is for its authors.
        let least = if meta.target().starts_with("openraft") { Level::ERROR } else { least };
        if *meta.level() <= least { self.make_writer() } else { Box::new(sink()) }
    }
}

fn start_log(config: &Config) -> Result<()> {
    let name = config.get("logfile");
    let log = if name.is_empty() {
        Log::Stderr
    } else {
        let file = File::options().append(true).create(true).open(Path::new(&name));
        Log::File(file.with_context(|| format!("cannot open logfile {name}"))?)
    };
    let is_terminal = name.is_empty() && std::io::IsTerminal::is_terminal(&stderr());
    let builder = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_target(false);
    builder.with_ansi(is_terminal).with_writer(log).init();
    Ok(())
}
