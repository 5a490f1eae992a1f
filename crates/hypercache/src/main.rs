//! The hypercache binary.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod clock;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dispatch().unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

fn dispatch() -> anyhow::Result<ExitCode> {
    let args = std::env::args_os().skip(1).map(|word| word.into_string());
    let Ok(args) = args.collect::<Result<Vec<String>, _>>() else {
        anyhow::bail!("The arguments must be UTF-8; other bytes can go through standard input");
    };
    match args.split_first() {
        Some((name, rest)) if name == "cli" => cli::run(rest),
        Some((name, rest)) if name == "bench" => bench::run(rest),
        _ => anyhow::bail!("The first argument must be 'cli' or 'bench'"),
    }
}

#[allow(clippy::print_stderr, reason = "this is where a command-line tool reports its failure")]
fn complain(error: &anyhow::Error) {
    eprintln!("{error:#}");
}
