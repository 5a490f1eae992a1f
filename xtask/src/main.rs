//! Everything a shell script would do. `cargo xtask` lists the tasks.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to whoever runs it")]

mod bench;
mod coverage;
mod documents;
mod evict;
mod fuzz;
mod instructions;
mod process;
mod soak;
mod tidy;
mod tools;
mod types;
mod verify;

use anyhow::{Result, bail};
use process::{cargo, cargo_nightly};
use std::path::{Path, PathBuf};

/// The server's, since what `evict --cost` measures is the server's code.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
Usage: cargo xtask TASK

  test      install what tests need, verify, and run all tests
  verify    check format, lints, licences and house rules; writes nothing
  fix       format and apply what lints suggest
  coverage  show which commands of Redis are there; fails below the bar
  gen       write the generated references in docs/ and fuzz/
  sanitize  the store's and the event loops' tests under AddressSanitizer, and loom's
  fuzz      TARGET SECONDS: look for inputs that break a target of fuzz/
  sim       [--seeds N] [--seed FIRST] [--seconds N] | --replay SEED | --tell SEED | mutants [--budget N]:
            run a simulated cluster through faults, or break each rule and see that it is noticed
  faults    [--runs N] [--seconds S] [--nodes N] ..., or failover [--trials N]: the same with real processes,
            killed, stopped and cut off from each other; `faults help` says more
  bench     measure the release build beside the peers that are installed
  bench types  [WORD ..]: the same of commands on collections and of scripts, or of some
  instructions  [epoll|uring]: count those of a GET and a SET with valgrind
  soak      [--minutes M] [--maxmemory 256mb] [--binary PATH] [--port N] [-- FLAGS]: churn at the memory
            limit; shows what was resident at most, and what of it is keys and values in the end
  evict     TRACE... [--svg FILE] [--percent 1,10] [--policies adaptive,lru]: misses of the
            eviction policy beside those of others; or how exact the curves of HC.MRC are
            (--curves TRACE...), or what an eviction costs (--cost), or the misses of running servers
            at equal resident memory (--replay TRACE... [--object-bytes N])
";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Err(error) = run(&words) {
        eprintln!("\nerror: {error:#}");
        std::process::exit(1);
    }
}

fn run(words: &[&str]) -> Result<()> {
    std::env::set_current_dir(root())?;
    match words {
        ["test"] => test(),
        ["verify"] => verify::verify(),
        ["fix"] => verify::fix(),
        ["coverage"] => coverage::coverage(),
        ["gen"] => {
            documents::write()?;
            fuzz::write_dictionaries()
        }
        ["sanitize"] => sanitize(),
        ["fuzz", target, seconds] => fuzz::fuzz(target, seconds),
        ["bench", "types", words @ ..] => types::bench(words),
        ["sim", options @ ..] => sim(options),
        ["faults", options @ ..] => faults(options),
        ["bench", options @ ..] => bench::bench(options),
        ["instructions", back_ends @ ..] => instructions::instructions(back_ends),
        ["soak", words @ ..] => soak::soak(words),
        ["evict", words @ ..] => evict::evict(words),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("no such task: {}\n\n{HELP}", other.join(" ")),
    }
}

/// The workspace's folder.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or_else(|| here.to_path_buf(), Path::to_path_buf)
}

/// Units first, the end-to-end tests last, so that a broken part is named before what it breaks.
fn test() -> Result<()> {
    tools::install()?;
    verify::verify()?;
    coverage::coverage()?;
    sanitize()?;
    cargo(&["test", "--workspace", "--exclude", "hypercache-tests"])?;
    sim_briefly()?;
    cargo(&["build", "--package", "hypercache"])?;
    cargo(&["test", "--package", "hypercache-tests"])
}

/// The simulator, in its own profile: fast, with assertions and overflow checks.
fn sim(options: &[&str]) -> Result<()> {
    let run = ["run", "--quiet", "--profile", "sim", "--package", "hypercache-sim", "--"];
    cargo(&[&run[..], options].concat())
}

/// Real processes of the release build under faults. The kit itself needs assertions, not speed.
fn faults(options: &[&str]) -> Result<()> {
    cargo(&["build", "--release", "--package", "hypercache"])?;
    let run = ["run", "--quiet", "--package", "hypercache-tests", "--bin", "faults", "--"];
    let binary = root().join("target/release/hypercache").display().to_string();
    process::cargo_with(&[&run[..], options].concat(), &[("HYPERCACHE_TEST_BINARY", &binary)])
}

/// What of the simulator fits into every run of the tests: about a minute.
fn sim_briefly() -> Result<()> {
    sim(&["--seeds", "2000"])?;
    sim(&["mutants", "--budget", "2000"])
}

/// AddressSanitizer where `unsafe` lives; loom for what threads share without a lock.
fn sanitize() -> Result<()> {
    if cargo_nightly(&["--version"], &[]).is_err() {
        println!(
            "skipped: AddressSanitizer needs a nightly toolchain (rustup toolchain add nightly)"
        );
    } else {
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let env = [
            ("RUSTFLAGS", "-Zsanitizer=address --cfg asan"),
            ("CARGO_TARGET_DIR", "target/sanitize"),
        ];
        let packages = ["--package", "hypercache-store", "--package", "hypercache-server"];
        let run = ["test", "--lib", "--tests", "--target", &target];
        cargo_nightly(&[&run[..], &packages].concat(), &env)?;
    }
    let env = [("RUSTFLAGS", "--cfg loom"), ("CARGO_TARGET_DIR", "target/loom")];
    process::cargo_with(&["test", "--release", "--package", "hypercache-stdx", "loom"], &env)
}
