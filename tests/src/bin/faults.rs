//! Longer runs of real processes under faults: see `hypercache_tests::faults`.
#![allow(clippy::print_stdout, reason = "it talks to whoever runs it")]

use hypercache_tests::cluster::{Kind as Server, Nodes, Plan};
use hypercache_tests::faults::nemesis::Kind;
use hypercache_tests::faults::{Run, failover, history, run};
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
usage: faults [--runs N] [--seconds S] [--nodes N] [--copies N] [--clients N] [--seed FIRST]
              [--durability sync|async] [--kinds all|processes] [--pause MS-MS] [--edn FOLDER]
              [--server ours|redis|redis-safe] (with an even number of nodes, and --kinds processes)
       faults failover [--trials N] [--nodes N]
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (is_failover, flags) = match words.first().map(String::as_str) {
        Some("failover") => (true, &words[1..]),
        _ => (false, &words[..]),
    };
    let Some(options) = Options::read(flags) else {
        print!("{HELP}");
        return ExitCode::from(2);
    };
    let is_good = if is_failover { measure_failover(&options) } else { run_all(&options) };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Options {
    runs: u64,
    trials: usize,
    edn: Option<PathBuf>,
    run: Run,
}

impl Options {
    fn read(flags: &[String]) -> Option<Options> {
        let plan = Plan { nodes: 5, is_shaped: true, ..Plan::default() };
        let kinds = Kind::ALL.to_vec();
        let run = Run { plan, seconds: 60, kinds, pause_ms: (1000, 3000), ..Run::default() };
        let mut options = Options { runs: 1, trials: 20, edn: None, run };
        for pair in flags.chunks(2) {
            let [flag, value] = pair else { return None };
            options.set(flag, value)?;
        }
        Some(options)
    }

    fn set(&mut self, flag: &str, value: &str) -> Option<()> {
        let number = || value.parse::<u64>().ok();
        match flag {
            "--runs" => self.runs = number()?,
            "--trials" => self.trials = number()? as usize,
            "--seconds" => self.run.seconds = number()?,
            "--nodes" => self.run.plan.nodes = number()? as usize,
            "--copies" => self.run.plan.copies = number()? as usize,
            "--clients" => self.run.clients = number()? as usize,
            "--seed" => self.run.seed = number()?,
            "--edn" => self.edn = Some(value.into()),
            "--durability" => {
                self.run.plan.durability = ["sync", "async"].into_iter().find(|m| *m == value)?;
            }
            "--server" => {
                self.run.plan.kind = match value {
                    "ours" => Server::Ours,
                    "redis" => Server::Redis,
                    "redis-safe" => Server::SafeRedis,
                    _ => return None,
                };
                self.run.plan.is_shaped = self.run.plan.kind == Server::Ours;
            }
            "--pause" => {
                let (least, most) = value.split_once('-')?;
                self.run.pause_ms = (least.parse().ok()?, most.parse().ok()?);
            }
            "--kinds" => match value {
                "all" => self.run.kinds = Kind::ALL.to_vec(),
                "processes" => self.run.kinds = vec![Kind::Kill, Kind::Bounce, Kind::Pause],
                _ => return None,
            },
            _ => return None,
        }
        Some(())
    }
}

fn run_all(options: &Options) -> bool {
    let (mut bad, mut sums) = (0, [0; 4]);
    for n in 0..options.runs {
        let seed = options.run.seed + n;
        let report = run(&Run { seed, ..options.run.clone() });
        println!("seed {seed}: {}", report.line());
        if let Some(folder) = &options.edn {
            let file = folder.join(format!("history-{seed}.edn"));
            std::fs::write(&file, history::edn(&report.records)).expect("a file");
        }
        let verdict = &report.verdict;
        let calls = verdict.answered + verdict.unknown + verdict.refused;
        let of_run = [calls, verdict.acked, verdict.lost, verdict.unknown];
        sums.iter_mut().zip(of_run).for_each(|(sum, n)| *sum += n);
        bad += u64::from(!report.is_good());
    }
    let [calls, acked, lost, unknown] = sums;
    println!(
        "{} runs of {} s: {calls} calls, {acked} writes acknowledged, {lost} lost, {:.2} % unknown; \
         {bad} runs broke a promise",
        options.runs,
        options.run.seconds,
        100.0 * unknown as f64 / calls.max(1) as f64
    );
    bad == 0
}

fn measure_failover(options: &Options) -> bool {
    let nodes = options.run.plan.nodes;
    let plan = Plan { is_shaped: false, ..options.run.plan.clone() };
    let mut cluster = Nodes::start(plan);
    let times: Vec<u64> = (0..options.trials)
        .map(|n| {
            let took_ms = failover::trial(&mut cluster, n % nodes);
            println!("trial {n}: node {} killed, served again after {took_ms} ms", n % nodes);
            took_ms
        })
        .collect();
    let at = |percent| failover::percentile(&times, percent);
    println!(
        "{} crashes of a primary, {nodes} nodes: first write served again after p50 {} ms, p99 {} ms, most {} ms",
        times.len(),
        at(50),
        at(99),
        at(100)
    );
    true
}
