//! Real processes under faults, and the proof that nothing acknowledged was lost.
//!
//! Clients read and write registers, each write with a value of its own, while nodes are killed, stopped and
//! cut off. What every client saw is a history; it is linearizable or it is not (the checker is that of the
//! simulator), and it is written down in the form that Jepsen's tools read.
//!
//! - [`history`]: what was seen, as EDN, and what it says.
//! - [`clients`]: who reads and writes.
//! - [`nemesis`]: what goes wrong.
//! - [`failover`]: how long a crash is felt.

pub mod clients;
pub mod failover;
pub mod history;
pub mod nemesis;

use crate::cluster::{Nodes, Plan};
use clients::Clients;
use history::{Record, Verdict};
use nemesis::{Kind, Nemesis};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// One run.
#[derive(Debug, Clone)]
pub struct Run {
    /// The cluster.
    pub plan: Plan,
    /// How long clients work.
    pub seconds: u64,
    /// What everything random is drawn from.
    pub seed: u64,
    /// How many clients work.
    pub clients: usize,
    /// What may go wrong.
    pub kinds: Vec<Kind>,
    /// Milliseconds from the end of a fault to the next.
    pub pause_ms: (u64, u64),
}

impl Default for Run {
    fn default() -> Self {
        Run {
            plan: Plan::default(),
            seconds: 20,
            seed: 1,
            clients: 10,
            kinds: vec![Kind::Kill, Kind::Bounce, Kind::Pause],
            pause_ms: (500, 1500),
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// Everything that clients saw.
    pub records: Vec<Record>,
    /// What it says.
    pub verdict: Verdict,
    /// How often what went wrong.
    pub faults: BTreeMap<&'static str, u32>,
    /// The longest time in which no client was answered.
    pub gap_ms: u64,
    /// How long it took until all copies were there again in the end.
    pub mended_ms: u64,
}

/// Runs it. Panics when the cluster does not mend itself.
pub fn run(run: &Run) -> Report {
    let mut nodes = Nodes::start(run.plan.clone());
    let clients = Clients::start(&nodes.addresses(), run.clients, run.seed);
    let mut nemesis = Nemesis::new(run.seed, run.kinds.clone(), run.pause_ms);
    let end_ms = crate::mono_ms() + 1000 * run.seconds;
    while crate::mono_ms() < end_ms {
        nemesis.step(&mut nodes);
        std::thread::sleep(Duration::from_millis(10));
    }
    nemesis.heal(&mut nodes);
    let healed_ms = crate::mono_ms();
    nodes.wait_until_well();
    let mended_ms = crate::mono_ms() - healed_ms;
    let records = clients.finish();
    let verdict = history::judge(&records);
    let gap_ms = history::longest_gap_ms(&records);
    Report { records, verdict, faults: nemesis.counts(), gap_ms, mended_ms }
}

impl Report {
    /// Whether everything that was promised was kept.
    pub fn is_good(&self) -> bool {
        self.verdict.lost == 0 && self.verdict.violations.is_empty() && self.verdict.unread == 0
    }

    /// A line with the figures.
    pub fn line(&self) -> String {
        let Verdict { acked, answered, unknown, refused, lost, unread, violations, .. } =
            &self.verdict;
        let calls = answered + unknown + refused;
        let share = |n: &usize| 100.0 * *n as f64 / calls.max(1) as f64;
        let faults: Vec<String> = self.faults.iter().map(|(k, n)| format!("{n} {k}")).collect();
        let mut text = format!(
            "{calls} calls, {acked} writes acknowledged, {lost} lost, {} violations, {:.2} % unknown, \
             {:.2} % refused, longest gap {} ms, mended in {} ms; faults: {}",
            violations.len(),
            share(unknown),
            share(refused),
            self.gap_ms,
            self.mended_ms,
            faults.join(", "),
        );
        if *unread > 0 {
            _ = write!(text, "; {unread} registers could not be read in the end");
        }
        for violation in violations.iter().take(3) {
            _ = write!(text, "\n  not linearizable: {violation}");
        }
        text
    }
}
