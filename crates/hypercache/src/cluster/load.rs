//! Writers that note what became of each write, and the reading back.
//!
//! Each writes keys of its own, each once, so that whether one is there says whether its write is.

use hypercache_client::{Address, Cluster, Failure, Patience, Reply};
use hypercache_stdx::clock::{mono_ms, mono_us};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acked,
    /// Nobody knows.
    Unknown,
    /// It certainly was not done.
    Refused,
}

/// Counters that are looked at while the writers run.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Writes that were acknowledged.
    pub(crate) acked: AtomicU64,
    /// Writes of which nobody knows.
    pub(crate) unknown: AtomicU64,
    /// Writes that were refused until patience ended.
    pub(crate) refused: AtomicU64,
    /// The longest time that a write took that was acknowledged.
    pub(crate) longest_us: AtomicU64,
    /// The longest time without any acknowledgement.
    pub(crate) gap_us: AtomicU64,
    last_ack_us: AtomicU64,
    is_ended: AtomicBool,
}

impl Counters {
    fn ack(&self, began_us: u64) {
        let now_us = mono_us();
        self.acked.fetch_add(1, Relaxed);
        self.longest_us.fetch_max(now_us - began_us, Relaxed);
        let last_us = self.last_ack_us.swap(now_us, Relaxed);
        if last_us > 0 {
            self.gap_us.fetch_max(now_us.saturating_sub(last_us), Relaxed);
        }
    }
}

/// Writers at work, or what they did.
#[derive(Debug)]
pub(crate) struct Load {
    counters: Arc<Counters>,
    writers: Vec<JoinHandle<Vec<Fate>>>,
    fates: Vec<Vec<Fate>>,
    seeds: Vec<Address>,
}

/// What was found in the end.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Acknowledged writes that are there.
    pub(crate) read_back: u64,
    /// Acknowledged writes that are not.
    pub(crate) lost: u64,
    /// Acknowledged writes that could not be looked for.
    pub(crate) unread: u64,
    /// The first keys that were lost.
    pub(crate) lost_keys: Vec<String>,
}

fn patience() -> Patience {
    let ms = Duration::from_millis;
    Patience { connect: ms(500), reply: ms(3000), request: ms(10_000) }
}

fn key(writer: usize, n: usize) -> String {
    format!("demo:{writer}:{n}")
}

impl Load {
    /// Starts so many writers, which write `rate` keys a second together.
    pub(crate) fn start(seeds: &[Address], writers: usize, rate: u64) -> Load {
        let counters = Arc::new(Counters::default());
        let pause = Duration::from_micros(1_000_000 * writers as u64 / rate.max(1));
        let start = |writer| {
            let (seeds, counters) = (seeds.to_vec(), Arc::clone(&counters));
            thread::spawn(move || write(writer, seeds, &counters, pause))
        };
        let writers = (0..writers).map(start).collect();
        Load { counters, writers, fates: Vec::new(), seeds: seeds.to_vec() }
    }

    /// What is counted.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Ends the writers.
    pub(crate) fn stop(&mut self) {
        self.counters.is_ended.store(true, Relaxed);
        // What a writer did that panicked would be missing from the sums, so that is not passed over.
        let fates = self.writers.drain(..).map(|w| w.join().expect("a writer does not panic"));
        self.fates.extend(fates);
    }

    /// Reads everything back that was acknowledged.
    pub(crate) fn read_back(self) -> Found {
        let readers: Vec<_> = (self.fates.into_iter().enumerate())
            .map(|(writer, fates)| {
                let seeds = self.seeds.clone();
                thread::spawn(move || read_back(writer, &fates, seeds))
            })
            .collect();
        let mut all = Found::default();
        for reader in readers {
            let found = reader.join().expect("a reader does not panic");
            all.read_back += found.read_back;
            all.lost += found.lost;
            all.unread += found.unread;
            all.lost_keys.extend(found.lost_keys);
        }
        all
    }
}

fn write(writer: usize, seeds: Vec<Address>, counters: &Counters, pause: Duration) -> Vec<Fate> {
    let mut cluster = Cluster::new(seeds, patience());
    let (mut fates, start_us) = (Vec::new(), mono_us());
    while !counters.is_ended.load(Relaxed) {
        let n = fates.len();
        let due_us = start_us + n as u64 * pause.as_micros() as u64;
        thread::sleep(Duration::from_micros(due_us.saturating_sub(mono_us()).min(1_000_000)));
        let (key, began_us) = (key(writer, n), mono_us());
        let reply = cluster.command(key.as_bytes(), &["SET", &key, &n.to_string()]);
        fates.push(match reply {
            Ok(Reply::Error(_)) | Err(Failure::NotDone(_)) => {
                counters.refused.fetch_add(1, Relaxed);
                Fate::Refused
            }
            Ok(_) => {
                counters.ack(began_us);
                Fate::Acked
            }
            Err(Failure::Unknown(_)) => {
                counters.unknown.fetch_add(1, Relaxed);
                Fate::Unknown
            }
        });
    }
    fates
}

/// Reading has no effect, so what is not answered is asked again for a while.
fn read_back(writer: usize, fates: &[Fate], seeds: Vec<Address>) -> Found {
    let mut cluster = Cluster::new(seeds, patience());
    let mut found = Found::default();
    for (n, _) in fates.iter().enumerate().filter(|(_, fate)| **fate == Fate::Acked) {
        let key = key(writer, n);
        match get(&mut cluster, &key) {
            None => found.unread += 1,
            Some(reply) if reply.as_int() == Some(n as i64) => found.read_back += 1,
            Some(_) => {
                found.lost += 1;
                found.lost_keys.push(key);
            }
        }
    }
    found
}

fn get(cluster: &mut Cluster, key: &str) -> Option<Reply> {
    let deadline_ms = mono_ms() + 20_000;
    loop {
        match cluster.command(key.as_bytes(), &["GET", key]) {
            Ok(reply) if !reply.is_error() => return Some(reply),
            _ if mono_ms() > deadline_ms => return None,
            _ => thread::sleep(Duration::from_millis(20)),
        }
    }
}
