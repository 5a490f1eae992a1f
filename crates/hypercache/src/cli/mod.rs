//! `hypercache cli`: the command line of a Redis-compatible server, for people and for scripts.
//!
//! Options, output and quoting are those users of `redis-cli` expect. One process is in one of
//! three modes: one command from the arguments, commands from standard input (a terminal or a
//! file), or one of the tools (`--scan`, `--pipe`, ...).

mod format;
mod hints;
mod interactive;
mod options;
mod pipe;
mod quoting;
mod scan;
mod session;
mod shell;
mod watch;

use anyhow::{Context, bail};
use clap::Parser;
use format::Format;
use options::Options;
pub(crate) use quoting::split_arguments;
use scan::{Measure, Walk};
use session::Session;
use shell::{Printer, Shell};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

/// The longest line read from standard input.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// The longest argument `-x` takes, which is the longest string a server takes.
const MAX_ARGUMENT_BYTES: u64 = 512 << 20;

/// Runs `hypercache cli` with the arguments that follow `cli`.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    let words = std::iter::once("hypercache cli").chain(args.iter().map(String::as_str));
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)));
        }
    };
    match dispatch(&options) {
        // `hypercache cli --scan | head` ends like this, and nothing is wrong with it.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

fn dispatch(options: &Options) -> anyhow::Result<ExitCode> {
    if options.exposes_password() {
        let warning = "Warning: a password on the command line can be seen by other users; \
                       set REDISCLI_AUTH instead";
        writeln!(io::stderr(), "{warning}")?;
    }
    let mut shell = new_shell(options)?;
    let is_tool = options.scan
        || options.bigkeys
        || options.memkeys
        || options.latency
        || options.latency_history
        || options.stat
        || options.pipe;
    let result = if is_tool {
        run_tool(options, &mut shell)
    } else if !options.command.is_empty() {
        run_command(options, &mut shell)
    } else if shell.interactive {
        interactive::run(&mut shell)
    } else {
        run_lines(&mut shell, io::stdin().lock())
    };
    result?;
    let failed = shell.any_error && options.fail_on_error;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn new_shell(options: &Options) -> anyhow::Result<Shell> {
    let format = options.format();
    let wants_resp3 = options.resp3 || (format == Format::Json && !options.resp2);
    let session = Session::new(options.endpoint()?, wants_resp3.then_some(3), options.cluster);
    let printer = Printer {
        format,
        delimiter: options.delimiter.clone(),
        errors_apart: options.fail_on_error,
    };
    Ok(Shell {
        session,
        printer,
        interval: seconds(options).unwrap_or_default(),
        interactive: options.command.is_empty() && io::stdin().is_terminal(),
        hints: None,
        any_error: false,
    })
}

fn seconds(options: &Options) -> Option<Duration> {
    options.interval.map(Duration::from_secs_f64)
}

fn run_tool(options: &Options, shell: &mut Shell) -> anyhow::Result<()> {
    shell.session.connected()?;
    shell.show_notices()?;
    let (session, printer) = (&mut shell.session, &shell.printer);
    let interval = seconds(options);
    let lines = options.repeat.and_then(|times| u64::try_from(times).ok());
    let walk = Walk {
        pattern: options.pattern.clone(),
        count: options.count,
        key_type: options.key_type.clone(),
        pause: interval.unwrap_or_default(),
    };
    if options.scan {
        scan::print_keys(session, &walk, printer)
    } else if options.bigkeys {
        scan::print_big_keys(session, walk, Measure::Elements, printer)
    } else if options.memkeys {
        scan::print_big_keys(session, walk, Measure::Memory, printer)
    } else if options.latency {
        watch::latency(session, printer, interval)
    } else if options.latency_history {
        watch::latency_history(session, printer, interval, lines)
    } else if options.stat {
        watch::stat(session, printer, interval, lines)
    } else {
        pipe::run(session.take_connection()?, Duration::from_secs(options.pipe_timeout))
    }
}

/// Runs the command given as arguments.
fn run_command(options: &Options, shell: &mut Shell) -> anyhow::Result<()> {
    let mut arguments: Vec<Vec<u8>> =
        options.command.iter().map(|word| word.clone().into_bytes()).collect();
    if options.last_from_stdin {
        arguments.push(read_argument(io::stdin().lock())?);
    }
    if arguments.len() <= 2 && arguments[0].eq_ignore_ascii_case(b"help") {
        return shell.line(&arguments.join(&b' ')).map(drop);
    }
    shell.repeat(&arguments, options.repeat.unwrap_or(1))
}

/// Reads the last argument of a command, for `-x`.
fn read_argument(input: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input
        .take(MAX_ARGUMENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .context("Standard input cannot be read")?;
    if bytes.len() as u64 > MAX_ARGUMENT_BYTES {
        bail!("Standard input is longer than the 512 MB an argument may have");
    }
    Ok(bytes)
}

/// Runs every line of `input` as a command.
fn run_lines(shell: &mut Shell, mut input: impl BufRead) -> anyhow::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut input).take(MAX_LINE_BYTES);
        let len = bounded.read_until(b'\n', &mut line).context("Standard input cannot be read")?;
        if len == 0 {
            return Ok(());
        }
        if len as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
            bail!("A line of input is longer than 64 MB; use --pipe for requests of that size");
        }
        if shell.line(&line)?.is_break() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_errors_exit_with_two() {
        let code = run(&["--scan".into(), "--pipe".into()]).unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(2)));
    }

    #[test]
    fn a_closed_pipe_is_recognised() {
        assert!(is_broken_pipe(&io::Error::from(io::ErrorKind::BrokenPipe).into()));
        assert!(!is_broken_pipe(&anyhow::anyhow!("x")));
    }

    #[test]
    fn arguments_are_read_to_the_end() {
        assert_eq!(read_argument(&b"a\nb\n"[..]).unwrap(), b"a\nb\n");
    }
}
