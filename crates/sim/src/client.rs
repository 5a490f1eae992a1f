//! Clients: one call at a time, unique values, no retries; and the history of what they saw.

use crate::env::{Env, Event};
use crate::net::{Ask, Outcome, Payload, Request};
use crate::wgl::{Call, Op};
use std::collections::BTreeMap;

/// A call as its client sees it.
#[derive(Clone, Copy, Debug)]
struct Asked {
    ask: Ask,
    start: u64,
    to: usize,
    partition: usize,
}

/// All clients.
#[derive(Debug)]
pub struct Clients {
    /// Which node each client takes for the primary of each partition.
    believes: Vec<Vec<usize>>,
    /// The value of each key that each client saw last.
    saw: Vec<BTreeMap<u64, Option<u64>>>,
    open: BTreeMap<u64, (usize, Asked)>,
    waiting: Vec<Option<u64>>,
    calls: u64,
    values: u64,
    clock: u64,
    /// Calls by key.
    pub history: BTreeMap<u64, Vec<Call>>,
    /// When a write to each partition was last acknowledged, and how many were begun and done since all is
    /// calm.
    pub last_write_us: Vec<u64>,
}

impl Clients {
    /// Clients that know nothing.
    #[must_use]
    pub fn new(count: usize, partitions: usize) -> Self {
        Clients {
            believes: vec![vec![0; partitions]; count],
            saw: vec![BTreeMap::new(); count],
            open: BTreeMap::new(),
            waiting: vec![None; count],
            calls: 0,
            values: 0,
            clock: 0,
            history: BTreeMap::new(),
            last_write_us: vec![0; partitions],
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn fresh(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    /// A client makes its next call.
    pub fn step(&mut self, client: usize, env: &mut Env) {
        if env.is_quiet || self.waiting[client].is_some() {
            return;
        }
        let key = env.rng.below(env.plan.keys);
        let ask = match env.rng.below(10) {
            0..5 => Ask::Read(key),
            5 => {
                let from = self.saw[client].get(&key).copied().flatten();
                Ask::Cas(key, from, self.fresh())
            }
            6 => {
                let other = key + env.plan.keys * u64::from(env.plan.partitions);
                Ask::Write([Some((key, self.fresh())), Some((other, self.fresh()))])
            }
            _ => Ask::Write([Some((key, self.fresh())), None]),
        };
        let partition = (key % u64::from(env.plan.partitions)) as usize;
        let wants_replica = env.plan.replica_reads && env.chance(0.4);
        let at_replica = wants_replica && matches!(ask, Ask::Read(_));
        let anywhere = at_replica || env.chance(0.1);
        let to = if anywhere {
            env.rng.below(env.plan.nodes as u64) as usize
        } else {
            self.believes[client][partition]
        };
        self.calls += 1;
        let call = self.calls;
        let asked = Asked { ask, start: self.tick(), to, partition };
        self.open.insert(call, (client, asked));
        self.waiting[client] = Some(call);
        let request = Request { call, ask, at_replica };
        env.send(env.client(client), to, Payload::Request(request));
        let patience_us = env.between(80_000, 500_000);
        env.after(patience_us, Event::ClientTimeout(client, call));
    }

    /// A client gives up.
    pub fn give_up(&mut self, client: usize, call: u64, env: &mut Env) {
        if self.waiting[client] == Some(call) {
            self.on_reply(call, Outcome::Unknown, env);
        }
    }

    /// A client is told something.
    pub fn on_reply(&mut self, call: u64, outcome: Outcome, env: &mut Env) {
        let Some((client, asked)) = self.open.remove(&call) else { return };
        let now = self.tick();
        self.waiting[client] = None;
        let pause_us = env.between(500, env.plan.think_us);
        env.after(pause_us, Event::ClientStep(client));
        if matches!(outcome, Outcome::Refused | Outcome::Unknown) {
            env.stats.unknown += u64::from(outcome == Outcome::Unknown);
            let other = env.rng.below(env.plan.nodes as u64) as usize;
            self.believes[client][asked.partition] = other;
        } else if !matches!(asked.ask, Ask::Read(_)) {
            self.believes[client][asked.partition] = asked.to;
            self.last_write_us[asked.partition] = env.now_us;
        }
        if outcome != Outcome::Refused {
            self.record(client, &asked, outcome, now);
        }
    }

    fn record(&mut self, client: usize, asked: &Asked, outcome: Outcome, now: u64) {
        let is_known = outcome != Outcome::Unknown;
        let end = is_known.then_some(now);
        let mut add = |key: u64, op: Op| {
            self.history.entry(key).or_default().push(Call { start: asked.start, end, op });
        };
        match (asked.ask, outcome) {
            (Ask::Read(key), Outcome::Value(value)) => {
                add(key, Op::Read(value));
                self.saw[client].insert(key, value);
            }
            (Ask::Write(pairs), _) => {
                let pairs = pairs.into_iter().flatten();
                pairs.for_each(|(key, value)| add(key, Op::Write(Some(value))));
            }
            (Ask::Cas(key, ..), Outcome::Missed(value)) => add(key, Op::Read(value)),
            (Ask::Cas(key, from, to), _) => add(key, Op::Cas { from, to, done: true }),
            (Ask::Read(_), _) => {}
        }
    }

    /// Calls that nobody answered may still take effect; notes them all.
    pub fn finish(&mut self) {
        let open = std::mem::take(&mut self.open);
        for (client, asked) in open.into_values() {
            let now = self.tick();
            self.record(client, &asked, Outcome::Unknown, now);
        }
    }

    /// All keys of a partition became empty, and that was declared.
    pub fn declare_loss(&mut self, partition: u64, partitions: u64, keys: u64) {
        let (start, end) = (self.tick(), self.tick());
        let lost = (0..keys).filter(|key| key % partitions == partition);
        for key in lost.flat_map(|key| [key, key + keys * partitions]) {
            let op = Op::Write(None);
            self.history.entry(key).or_default().push(Call { start, end: Some(end), op });
        }
    }

    /// What a copy holds at the end, as one more read.
    pub fn read_at_end(&mut self, key: u64, value: Option<u64>) {
        let (start, end) = (self.tick(), self.tick());
        let read = Call { start, end: Some(end), op: Op::Read(value) };
        self.history.entry(key).or_default().push(read);
    }
}
