//! `sim --seeds N [--seed FIRST]`: runs seeds and prints what they came to; `sim --replay SEED`: runs one
//! twice; `sim mutants [--budget N]`: breaks each rule and looks whether it is noticed.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it talks to whoever runs it")]

use hypercache_cluster::mutant::Mutant;
use hypercache_sim::campaign::{Totals, kill, run_seeds};
use hypercache_sim::run::{run, tell};
use std::process::ExitCode;

const HELP: &str = "usage: sim [--seeds N] [--seed FIRST] [--threads N] [--seconds N] | sim --replay SEED | \
                    sim --tell SEED [--only MUTANT] | sim mutants [--budget N] [--only NAME]";

struct Options {
    words: Vec<String>,
}

impl Options {
    fn text(&self, name: &str) -> Option<&str> {
        let at = self.words.iter().position(|word| word == name)?;
        self.words.get(at + 1).map(String::as_str)
    }

    fn mutant(&self) -> Option<Mutant> {
        let name = self.text("--only")?;
        Mutant::ALL.iter().copied().find(|mutant| format!("{mutant:?}") == name)
    }

    fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    }
}

fn main() -> ExitCode {
    let options = Options { words: std::env::args().skip(1).collect() };
    let is_fine = match options.words.first().map(String::as_str) {
        Some("mutants") => mutants(&options),
        Some("--tell") => {
            let (verdict, story) = tell(options.number("--tell", 0), options.mutant());
            story.iter().chain(&verdict.violations).for_each(|line| println!("{line}"));
            verdict.violations.is_empty()
        }
        Some("--replay") => replay(options.number("--replay", 0)),
        None | Some("--seeds" | "--seed" | "--threads" | "--seconds") => seeds(&options),
        Some(_) => {
            println!("{HELP}");
            false
        }
    };
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seeds(options: &Options) -> bool {
    let only = options.text("--seed").is_some() && options.text("--seeds").is_none();
    let count = if only { 1 } else { options.number("--seeds", 2_000) };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = options.number("--threads", threads as u64) as usize;
    let began_ms = hypercache_stdx::clock::mono_ns() / 1_000_000;
    let passed_ms = || hypercache_stdx::clock::mono_ns() / 1_000_000 - began_ms;
    let seconds = options.number("--seconds", u64::from(u32::MAX));
    let has_enough = |t: &Totals| t.failed.len() >= 5 || passed_ms() >= seconds * 1000;
    let totals = run_seeds(options.number("--seed", 1), count, threads.max(1), &has_enough);
    let took_ms = passed_ms();
    print_totals(&totals, took_ms.max(1));
    totals.failed.iter().for_each(|verdict| {
        replay(verdict.seed);
    });
    totals.failed.is_empty()
}

fn print_totals(totals: &Totals, took_ms: u64) {
    let s = &totals.stats;
    let per_s = totals.seeds as f64 * 1000.0 / took_ms as f64;
    let hours = totals.lasted_us as f64 / 3.6e9;
    println!("{} seeds, {hours:.2} virtual hours, {} events", totals.seeds, s.events);
    println!("{:.1} s, {per_s:.0} seeds per second", took_ms as f64 / 1000.0);
    println!("faults {}, of them triggered {}", s.faults, s.triggered);
    println!(
        "failovers {}, hand-overs {}, shrinks {}, joins {}, full copies {} (in sync {}), declared losses {}",
        s.failovers, s.handovers, s.shrinks, s.joins, s.copies, s.copies_in_sync, s.losses
    );
    println!(
        "acknowledged writes {}, reads {} (by replicas {}), unknown {}",
        s.writes, s.reads, s.replica_reads, s.unknown
    );
    println!(
        "failed seeds {}: invariants {}, lost or stale {}, not linearizable {}, not live {}",
        totals.failed.len(),
        totals.failed_with(": I") - totals.failed_with("I22") - totals.failed_with("I4"),
        totals.failed_with("I4"),
        totals.failed_with("not linearizable"),
        totals.failed_with("I22"),
    );
}

fn replay(seed: u64) -> bool {
    let (first, second) = (run(seed, None), run(seed, None));
    println!("seed {seed}: trace {:016x}, again {:016x}", first.trace, second.trace);
    first.violations.iter().for_each(|text| println!("  {text}"));
    first.violations.is_empty() && first.trace == second.trace
}

fn mutants(options: &Options) -> bool {
    let budget = options.number("--budget", 300);
    let only = options.text("--only");
    let mut survivors = Vec::new();
    let chosen = |m: &&Mutant| only.is_none_or(|name| format!("{m:?}") == name);
    for mutant in Mutant::ALL.iter().filter(chosen) {
        match kill(*mutant, 1, budget) {
            Some(v) => println!("{mutant:?}: killed by seed {}: {}", v.seed, v.violations[0]),
            None => survivors.push(*mutant),
        }
    }
    survivors.iter().for_each(|mutant| println!("{mutant:?}: SURVIVED {budget} seeds"));
    println!("mutants killed: {} of {}", Mutant::ALL.len() - survivors.len(), Mutant::ALL.len());
    survivors.is_empty()
}
