//! Clients that read and write registers and note what they saw.

use super::history::{Fate, Record};
use hypercache_client::{Address, Cluster, Failure, Patience, Reply};
use hypercache_sim::wgl::Op;
use hypercache_stdx::clock::mono_ns;
use hypercache_stdx::rng::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Registers in use at a time. Few, so that clients meet.
const REGISTERS: u64 = 8;
/// So often others take their place: what a checker does for a register grows faster than its history.
const EPOCH_NS: u64 = 3_000_000_000;
/// Between two calls of a client.
const PAUSE: Duration = Duration::from_millis(2);

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    threads: Vec<JoinHandle<Vec<Record>>>,
    board: Arc<Board>,
    seeds: Vec<Address>,
}

#[derive(Debug, Default)]
struct Board {
    is_over: AtomicBool,
    next_value: AtomicU64,
    start_ns: AtomicU64,
}

/// Short, so that a client that met a dead node soon does something else.
fn patience() -> Patience {
    let ms = Duration::from_millis;
    Patience { connect: ms(300), reply: ms(1000), request: ms(1000) }
}

fn name(key: u32) -> String {
    format!("register:{key}")
}

impl Clients {
    /// Starts so many.
    pub fn start(seeds: &[Address], count: usize, seed: u64) -> Clients {
        let board = Arc::new(Board::default());
        board.start_ns.store(mono_ns(), Relaxed);
        let thread = |i: usize| {
            let (seeds, board) = (seeds.to_vec(), Arc::clone(&board));
            thread::spawn(move || work(i as u32, count as u32, seeds, seed, &board))
        };
        let threads = (0..count).map(thread).collect();
        Clients { threads, board, seeds: seeds.to_vec() }
    }

    /// Ends them, and reads every register once more.
    pub fn finish(self) -> Vec<Record> {
        self.board.is_over.store(true, Relaxed);
        let threads = self.threads.into_iter().map(|t| t.join().expect("no panic"));
        let mut records: Vec<Record> = threads.flatten().collect();
        let mut keys: Vec<u32> = records.iter().map(|record| record.key).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut cluster = Cluster::new(self.seeds, patience());
        for key in keys {
            // The cluster is whole: a few attempts are many.
            let read = (0..10).map(|_| read(&mut cluster, u32::MAX, key));
            let read = read.into_iter().find(|record| record.fate == Fate::Ok);
            records.extend(read.map(|record| Record { is_last: true, ..record }));
        }
        records
    }
}

fn work(id: u32, count: u32, seeds: Vec<Address>, seed: u64, board: &Board) -> Vec<Record> {
    let mut rng = Rng::new(seed ^ u64::from(id + 1).wrapping_mul(0x9e37_79b9));
    let mut cluster = Cluster::new(seeds, patience());
    let (mut records, mut process) = (Vec::new(), id);
    while !board.is_over.load(Relaxed) {
        let epoch = (mono_ns() - board.start_ns.load(Relaxed)) / EPOCH_NS;
        let key = (epoch * REGISTERS + rng.below(REGISTERS)) as u32;
        let record = if rng.below(2) == 0 {
            read(&mut cluster, process, key)
        } else {
            write(&mut cluster, process, key, 1 + board.next_value.fetch_add(1, Relaxed))
        };
        if record.fate == Fate::Unknown {
            process += count;
        }
        records.push(record);
        thread::sleep(PAUSE);
    }
    records
}

fn read(cluster: &mut Cluster, process: u32, key: u32) -> Record {
    let (name, start_ns) = (name(key), mono_ns());
    let reply = cluster.command(name.as_bytes(), &["GET", &name]);
    let end_ns = mono_ns();
    let (op, fate) = match reply {
        Ok(Reply::Null) => (Op::Read(None), Fate::Ok),
        Ok(Reply::Error(_)) | Err(Failure::NotDone(_)) => (Op::Read(None), Fate::Fail),
        Ok(reply) => {
            let value = reply.as_int().and_then(|value| u64::try_from(value).ok());
            (Op::Read(Some(value.expect("registers hold numbers"))), Fate::Ok)
        }
        Err(Failure::Unknown(_)) => (Op::Read(None), Fate::Unknown),
    };
    Record { process, key, op, start_ns, end_ns, fate, is_last: false }
}

fn write(cluster: &mut Cluster, process: u32, key: u32, value: u64) -> Record {
    let (name, start_ns) = (name(key), mono_ns());
    let reply = cluster.command(name.as_bytes(), &["SET", &name, &value.to_string()]);
    let end_ns = mono_ns();
    let fate = match reply {
        Ok(Reply::Error(_)) | Err(Failure::NotDone(_)) => Fate::Fail,
        Ok(_) => Fate::Ok,
        Err(Failure::Unknown(_)) => Fate::Unknown,
    };
    Record { process, key, op: Op::Write(Some(value)), start_ns, end_ns, fate, is_last: false }
}
