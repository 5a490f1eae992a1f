//! Prints the dictionary of a fuzz target. `cargo xtask gen` keeps it in `fuzz/dictionaries`.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

fn main() {
    let target = std::env::args().nth(1).unwrap_or_default();
    print!("{}", hypercache_commands::testing::fuzz::dictionary(&target));
}
