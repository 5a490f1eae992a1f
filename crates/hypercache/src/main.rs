//! The hypercache binary: the server by default, and the tools around it as subcommands.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod cluster;
mod reference;
mod serve;
mod settings;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
A distributed cache that speaks Redis.

Usage:
  hypercache [serve] [CONFIG-FILE] [--name value ...]   start the server
  hypercache cli [OPTIONS] [COMMAND ...]                talk to a server
  hypercache bench [OPTIONS]                            measure a server
  hypercache cluster status|nodes|plan|drain|...        look after a cluster, or try one
  hypercache docs commands|config|errors                print the reference

Settings are those of docs/config.md: a redis.conf line `name value` is the flag `--name value` and
the environment variable HYPERCACHE_NAME. `hypercache cli --help`, `hypercache bench --help` and
`hypercache cluster --help` say more about the tools.
";

fn main() -> ExitCode {
    dispatch().unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

fn dispatch() -> anyhow::Result<ExitCode> {
    let args = std::env::args_os().skip(1).map(|word| word.into_string());
    let Ok(args) = args.collect::<Result<Vec<String>, _>>() else {
        anyhow::bail!("the arguments must be UTF-8; other bytes can go through standard input");
    };
    match args.first().map(String::as_str) {
        Some("cli") => cli::run(&args[1..]),
        Some("bench") => bench::run(&args[1..]),
        Some("cluster") => cluster::run(&args[1..]),
        Some("docs") => reference::run(&args[1..]),
        Some("serve") => serve::run(&args[1..]),
        Some("help" | "--help" | "-h") => print(HELP),
        Some("version" | "--version" | "-v" | "-V") => {
            print(&format!("hypercache {}\n", env!("CARGO_PKG_VERSION")))
        }
        _ => serve::run(&args),
    }
}

#[allow(clippy::print_stdout, reason = "the user asked for this text")]
fn print(text: &str) -> anyhow::Result<ExitCode> {
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stderr, reason = "this is where a command-line tool reports its failure")]
fn complain(error: &anyhow::Error) {
    let text = format!("{error:#}");
    // A sentence that begins with a capital stands by itself.
    let is_sentence = text.starts_with(|c: char| c.is_ascii_uppercase());
    eprintln!("{}{text}", if is_sentence { "" } else { "hypercache: " });
}
