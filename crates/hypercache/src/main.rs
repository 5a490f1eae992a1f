//! The hypercache binary.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod clock;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((name, rest)) if name == "cli" => cli::run(rest),
        Some((name, rest)) if name == "bench" => bench::run(rest),
        _ => Err(anyhow::anyhow!("The first argument must be 'cli' or 'bench'")),
    };
    result.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

#[allow(clippy::print_stderr, reason = "this is where a command-line tool reports its failure")]
fn complain(error: &anyhow::Error) {
    eprintln!("{error:#}");
}
