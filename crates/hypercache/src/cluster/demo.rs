//! `hypercache cluster demo`: a cluster on this machine whose nodes are killed while it is written to, and
//! the count of what was lost.

use super::load::{Counters, Found, Load};
use super::local::Local;
use super::print;
use anyhow::Context;
use hypercache_stdx::clock::mono_ms;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// How long a cluster may take to form, and to mend itself.
const FORMS: Duration = Duration::from_secs(60);
/// A killed node stays away for so long.
const AWAY_MS: u64 = 1000;

/// What to try.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Nodes
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u8).range(2..=16))]
    nodes: u8,
    /// Seconds to write for
    #[arg(long, value_name = "S", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// When a write is acknowledged: sync (all copies in sync have it) or async
    #[arg(long, value_name = "MODE", default_value = "sync")]
    #[arg(value_parser = ["sync", "async"])]
    durability: String,
    /// Seconds between two kills; 0 kills nobody
    #[arg(long, value_name = "S", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=3600))]
    kill_every: u64,
    /// Writers, one connection to each node
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    clients: u16,
    /// Keys to write a second
    #[arg(long, value_name = "N", default_value_t = 2000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
}

/// Runs it.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("signals")?;
    }
    let is_stopped = || stop.load(Relaxed);
    let began_ms = mono_ms();
    let say = |text: &str| print(&format!("{:>5.1} s  {text}\n", since(began_ms)));
    let nodes = usize::from(options.nodes);
    let mut local = Local::start(nodes, &options.durability)?;
    local.wait_until_well(FORMS, &is_stopped).context("the cluster did not form")?;
    let ports = local.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    say(&format!("{nodes} nodes serve: {ports}"))?;

    let mut load = Load::start(&local.addresses(), usize::from(options.clients), options.rate);
    let mut trial = Trial { options, kills: 0, due_ms: mono_ms() + trial_ms(options), away: None };
    let (end_ms, mut told) = (mono_ms() + 1000 * options.seconds, 0);
    while mono_ms() < end_ms && !is_stopped() {
        std::thread::sleep(Duration::from_millis(20));
        if let Some(text) = trial.step(&mut local)? {
            say(&text)?;
        }
        if mono_ms() >= began_ms + 1000 * (told + 1) {
            told = (mono_ms() - began_ms) / 1000;
            say(&line(load.counters()))?;
        }
    }
    trial.end(&mut local)?;
    load.stop();
    say("the writers ended; waiting until all copies are there")?;
    let is_well = local.wait_until_well(FORMS, &|| false);
    let summary = Summary::of(load.counters(), trial.kills);
    let found = load.read_back();
    print(&summary.text(&found, options))?;
    is_well.context("the cluster did not mend itself")?;
    let is_broken = found.unread > 0 || found.lost > 0 && options.durability == "sync";
    Ok(if is_broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn since(began_ms: u64) -> f64 {
    (mono_ms() - began_ms) as f64 / 1000.0
}

fn trial_ms(options: &Options) -> u64 {
    if options.kill_every == 0 { u64::MAX / 2 } else { 1000 * options.kill_every }
}

fn line(counters: &Counters) -> String {
    format!(
        "acked {:>7}  unknown {:>4}  refused {:>4}  longest wait {:>5} ms",
        counters.acked.load(Relaxed),
        counters.unknown.load(Relaxed),
        counters.refused.load(Relaxed),
        counters.longest_us.load(Relaxed) / 1000,
    )
}

/// Who is killed when.
struct Trial<'a> {
    options: &'a Options,
    kills: usize,
    due_ms: u64,
    /// A node that was killed, and when it starts again.
    away: Option<(usize, u64)>,
}

impl Trial<'_> {
    /// Does what is due, and says so.
    fn step(&mut self, local: &mut Local) -> anyhow::Result<Option<String>> {
        let now_ms = mono_ms();
        if let Some((node, back_ms)) = self.away {
            if now_ms < back_ms {
                return Ok(None);
            }
            local.revive(node)?;
            self.away = None;
            return Ok(Some(format!("node {} starts again, empty", node + 1)));
        }
        if now_ms < self.due_ms {
            return Ok(None);
        }
        // What is promised is that nothing is lost while a copy is left: the next one goes when the
        // last one has everything again.
        if !local.is_well() {
            self.due_ms = now_ms + 100;
            return Ok(None);
        }
        let node = self.kills % local.len();
        self.kills += 1;
        local.kill(node);
        self.away = Some((node, now_ms + AWAY_MS));
        self.due_ms = now_ms + trial_ms(self.options);
        Ok(Some(format!("node {} is killed (SIGKILL)", node + 1)))
    }

    /// Has everybody back.
    fn end(&mut self, local: &mut Local) -> anyhow::Result<()> {
        if let Some((node, _)) = self.away.take() {
            local.revive(node)?;
        }
        Ok(())
    }
}

struct Summary {
    acked: u64,
    unknown: u64,
    refused: u64,
    gap_ms: u64,
    longest_ms: u64,
    kills: usize,
}

impl Summary {
    fn of(counters: &Counters, kills: usize) -> Summary {
        Summary {
            acked: counters.acked.load(Relaxed),
            unknown: counters.unknown.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            gap_ms: counters.gap_us.load(Relaxed) / 1000,
            longest_ms: counters.longest_us.load(Relaxed) / 1000,
            kills,
        }
    }

    fn text(&self, found: &Found, options: &Options) -> String {
        let lines = [
            ("nodes killed", self.kills.to_string()),
            ("acknowledged", self.acked.to_string()),
            ("read back", found.read_back.to_string()),
            ("lost", found.lost.to_string()),
            ("not readable", found.unread.to_string()),
            ("unknown outcome", self.unknown.to_string()),
            ("refused", self.refused.to_string()),
            ("longest wait", format!("{} ms for one write", self.longest_ms)),
            ("longest gap", format!("{} ms without any write", self.gap_ms)),
        ];
        let lines = lines.map(|(name, value)| format!("  {name:<17}{value}\n")).concat();
        let keys = found.lost_keys.iter().take(5).cloned().collect::<Vec<_>>().join(" ");
        let keys = if keys.is_empty() { keys } else { format!("  lost keys        {keys} …\n") };
        format!("\n{} nodes, durability {}\n{lines}{keys}", options.nodes, options.durability)
    }
}
