//! The real store and the real commands as what a partition holds.
//!
//! A node has one server's worth of state without sockets; each of its copies is one partition of that. A
//! write runs as a command, and its record is the effects that the command left in the partition's log;
//! replicas apply the effects. Full copies are made of effects, too: each entry is the one that sets it.

use crate::machine::{Machine, record_kind};
use hypercache_cluster::data::{BadPart, Chunk, Cursor, Data, Part};
use hypercache_commands::config::Config;
use hypercache_commands::keyspace::{DATABASES, partition_of};
use hypercache_commands::testing::Harness;
use hypercache_commands::testing::replay::KEEP_ALL;
use hypercache_journal::{Change, Effect, Event, decode, encode};
use hypercache_stdx::crc32c::crc32c;
use hypercache_stdx::hash::KeyHasher;
use hypercache_store::{EntryRef, Mark};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A node's server state.
pub type Server = Rc<RefCell<Harness>>;

/// A server with nothing in it.
///
/// # Panics
/// When a setting of the tests is none.
#[must_use]
pub fn new_server() -> Server {
    let mut config = Config::default();
    for (name, value) in KEEP_ALL {
        config.set_at_start(name, value).expect("a valid setting");
    }
    Rc::new(RefCell::new(Harness::new(config)))
}

/// One partition of a server.
pub struct StoreCopy {
    server: Server,
    tag: String,
    partition: u16,
    now_ms: u64,
    loading: Option<Vec<Vec<u8>>>,
    refused: u64,
}

impl std::fmt::Debug for StoreCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoreCopy({})", self.partition)
    }
}

fn order() -> KeyHasher {
    KeyHasher::new((3, 4))
}

/// Where a key is in the order of a walk; never 0, which is where it begins.
fn place(db: u8, key: &[u8]) -> u64 {
    u64::from(db) << 60 | order().hash(key) >> 4 | 1
}

fn parts(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        parts.push(part);
        bytes = rest;
    }
    Some(parts)
}

fn add_part(effect: &Effect<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    encode(effect, out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// The effects that make an entry what it is.
fn add_entry(db: u8, entry: &EntryRef<'_>, out: &mut Vec<u8>) {
    let (key, deadline, event) = (entry.key(), entry.deadline(), Event::Silent);
    let mut ops = Vec::new();
    let change = match entry.object() {
        Some(object) => {
            object.encode(&mut ops);
            Change::Object { kind: object.kind(), ops: &ops, deadline }
        }
        None => Change::Set { value: entry.value(), deadline },
    };
    add_part(&Effect { db, key, change, event, is_new: true }, out);
    let Mark { client_flags, state, .. } = entry.mark();
    if client_flags != 0 || state != 0 {
        let change = Change::Mark { client_flags, state };
        add_part(&Effect { db, key, change, event, is_new: false }, out);
    }
}

impl StoreCopy {
    /// Copy number `copy` of the simulation on a server.
    #[must_use]
    pub fn new(server: &Server, copy: u16) -> Self {
        let tag = format!("{{p{copy}}}");
        let partition = partition_of(tag.as_bytes());
        let (server, loading) = (Rc::clone(server), None);
        StoreCopy { server, tag, partition, now_ms: 1, loading, refused: 0 }
    }

    fn each(&self, mut f: impl FnMut(u8, EntryRef<'_>)) {
        let server = self.server.borrow();
        let shard = server.shared.keyspace.lock(self.partition);
        for i in 0..DATABASES as u8 {
            if let Some(db) = shard.db(i) {
                db.for_each(|entry| f(i, entry));
            }
        }
    }

    fn follow(&self, record: &[u8]) {
        for part in parts(record).unwrap_or_default() {
            if let Ok(effect) = decode(part) {
                let server = self.server.borrow();
                server.shared.keyspace.follow(self.partition, &effect, self.now_ms);
            }
        }
    }

    /// Runs something and returns the record of what it did.
    fn recorded(&self, f: impl FnOnce(&mut Harness)) -> Option<Vec<u8>> {
        let mut server = self.server.borrow_mut();
        server.worker.now_ms = self.now_ms;
        let before = server.shared.keyspace.lock(self.partition).history.log.last();
        f(&mut server);
        let mut record = Vec::new();
        let shard = server.shared.keyspace.lock(self.partition);
        let read = shard.history.log.read_from(before + 1, &mut |e| add_part(&e, &mut record));
        (read.is_ok() && !record.is_empty()).then_some(record)
    }
}

/// A command on one of few keys of every type.
fn any_command(tag: &str, n: u64) -> String {
    let key = format!("{tag}x{}", n / 32 % 5);
    let word = n / 1024 % 50;
    match n % 20 {
        0 => format!("RPUSH {key} {word} b{word}"),
        1 => format!("LPOP {key}"),
        2 => format!("SADD {key} {word} b{word} 7"),
        3 => format!("SREM {key} {word}"),
        4 => format!("HSET {key} f{word} {n} g {word}"),
        5 => format!("HINCRBY {key} g {word}"),
        6 => format!("ZADD {key} {word} m{word} 1 x"),
        7 => format!("ZPOPMIN {key}"),
        8 => format!("XADD {key} MAXLEN 5 * f {word}"),
        9 => format!("APPEND {key} {word}"),
        10 => format!("INCRBY {key} {word}"),
        11 => format!("SETRANGE {key} {word} z"),
        12 => format!("PEXPIRE {key} {}", 20 + word * 20),
        13 => format!("SET {key} {word} PX {}", 10 + word * 10),
        14 => format!("RENAME {key} {tag}x{}", word % 5),
        15 => format!("COPY {key} {tag}x{} REPLACE", word % 5),
        16 => format!("PFADD {key} {word} {n}"),
        17 => format!("MSET {key} {word} {tag}x{} {n}", word % 5),
        18 => format!("GETDEL {key}"),
        _ => format!("DEL {key} {tag}x{}", word % 5),
    }
}

impl Machine for StoreCopy {
    fn get(&self, key: u64) -> Option<u64> {
        let name = format!("{}{key}", self.tag);
        let mut found = None;
        self.each(|_, entry| {
            if entry.key() == name.as_bytes() {
                found = std::str::from_utf8(entry.value()).ok().and_then(|text| text.parse().ok());
            }
        });
        found
    }

    fn place(&self, key: u64) -> u64 {
        place(0, format!("{}{key}", self.tag).as_bytes())
    }

    fn write(&mut self, changes: &[(u64, u64)]) -> Vec<u8> {
        let pairs = changes.iter().map(|(key, value)| format!(" {}{key} {value}", self.tag));
        let line = format!("MSET{}", pairs.collect::<String>());
        self.recorded(|server| {
            server.run(&line);
        })
        .unwrap_or_default()
    }

    fn other_write(&mut self, n: u64) -> Option<Vec<u8>> {
        let line = any_command(&self.tag, n);
        self.recorded(|server| {
            if n.is_multiple_of(3) {
                // A transaction is one record.
                server.run("MULTI");
                server.run(&any_command(&self.tag, n / 7));
                server.run(&line);
                server.run("EXEC");
            } else {
                server.run(&line);
            }
        })
    }

    fn expire(&mut self) -> Option<Vec<u8>> {
        self.recorded(|server| {
            let mut shard = server.shared.keyspace.lock(self.partition);
            shard.expire_due(self.now_ms, 100);
        })
    }

    fn set_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    fn digest(&self) -> u32 {
        let mut all = BTreeMap::new();
        self.each(|db, entry| {
            let value =
                entry.object().map_or_else(|| entry.value().to_vec(), |object| object.canonical());
            all.insert((db, entry.key().to_vec()), (value, entry.deadline()));
        });
        all.iter().fold(0, |crc, ((db, key), (value, deadline))| {
            let crc = crc32c(crc32c(crc, &[*db]), key);
            crc32c(crc32c(crc, value), &deadline.unwrap_or(0).to_le_bytes())
        })
    }

    fn refused(&self) -> u64 {
        self.refused
    }
}

impl Data for StoreCopy {
    fn apply(&mut self, record: &[u8]) {
        self.follow(record);
    }

    fn touched(&self, record: &[u8], each: &mut dyn FnMut(u64)) {
        let parts = parts(record).unwrap_or_default();
        let effects = parts.into_iter().filter_map(|part| decode(part).ok());
        effects.for_each(|effect| each(place(effect.db, effect.key)));
    }

    fn chunk(&mut self, from: Cursor, bytes_max: usize) -> Chunk {
        let mut ahead: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        self.each(|db, entry| {
            let at = place(db, entry.key());
            if at >= from.0 {
                add_entry(db, &entry, ahead.entry(at).or_default());
            }
        });
        let mut bytes = Vec::new();
        for (at, entry) in ahead {
            if bytes.len() >= bytes_max {
                return Chunk { bytes, next: Some(Cursor(at)) };
            }
            bytes.extend_from_slice(&entry);
        }
        Chunk { bytes, next: None }
    }

    fn part_before(&self, record: &[u8], cursor: Cursor) -> Part {
        let Some(parts) = parts(record) else { return Part::Unclear };
        let mut before = Vec::new();
        for part in parts {
            let Ok(effect) = decode(part) else { return Part::Unclear };
            if matches!(effect.change, Change::Flush | Change::Swap(_)) {
                return Part::Unclear;
            }
            if place(effect.db, effect.key) < cursor.0 {
                add_part(&effect, &mut before);
            }
        }
        record_kind(before, record)
    }

    fn load_begin(&mut self, keep: bool) {
        if !keep {
            self.clear();
        }
        self.loading = Some(Vec::new());
    }

    fn load_chunk(&mut self, bytes: &[u8]) -> Result<(), BadPart> {
        self.load_record(bytes);
        Ok(())
    }

    fn load_record(&mut self, record: &[u8]) {
        if let Some(loading) = &mut self.loading {
            loading.push(record.to_vec());
        }
    }

    fn load_end(&mut self) {
        let loaded = self.loading.take().unwrap_or_default();
        self.clear();
        loaded.iter().for_each(|record| self.follow(record));
    }

    fn load_abort(&mut self) {
        self.loading = None;
    }

    fn clear(&mut self) {
        self.loading = None;
        self.server.borrow().shared.keyspace.clear_partition(self.partition, self.now_ms);
    }
}
