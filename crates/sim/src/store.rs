//! The real store and the real commands as what a partition holds.
//!
//! A node has one server's worth of state without sockets; each of its copies is one partition of that. A
//! write runs as a command, and its record is the effects that the command left in the partition's log;
//! replicas apply the effects. Full copies are made of effects, too: each entry is the one that sets it.

use crate::machine::Machine;
use hypercache_cluster::data::{BadPart, Chunk, Cursor, Data, Part};
use hypercache_commands::config::Config;
use hypercache_commands::keyspace::{Copy, DATABASES, Loading, partition_of};
use hypercache_commands::testing::Harness;
use hypercache_commands::testing::replay::KEEP_ALL;
use hypercache_journal::record;
use hypercache_stdx::crc32c::crc32c;
use hypercache_store::EntryRef;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A node's server state.
pub type Server = Rc<RefCell<Harness>>;

/// A server with nothing in it, whose hash is keyed by `secret`.
///
/// # Panics
/// When a setting of the tests is none.
#[must_use]
pub fn new_server(secret: u64) -> Server {
    let mut config = Config::default();
    for (name, value) in KEEP_ALL {
        config.set_at_start(name, value).expect("a valid setting");
    }
    Rc::new(RefCell::new(Harness::with_secret(config, (secret, secret.rotate_left(32)))))
}

/// One partition of a server.
pub struct StoreCopy {
    server: Server,
    tag: String,
    partition: u16,
    now_ms: u64,
    loading: RefCell<Loading>,
}

impl std::fmt::Debug for StoreCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoreCopy({})", self.partition)
    }
}

impl StoreCopy {
    /// Copy number `copy` of the simulation on a server.
    #[must_use]
    pub fn new(server: &Server, copy: u16) -> Self {
        let tag = format!("{{p{copy}}}");
        let partition = partition_of(tag.as_bytes());
        let (server, loading) = (Rc::clone(server), RefCell::default());
        StoreCopy { server, tag, partition, now_ms: 1, loading }
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

    /// Has the partition do something, as the cluster's state machine sees it.
    fn with_copy<R>(&self, f: impl FnOnce(&mut Copy<'_>) -> R) -> R {
        let server = self.server.borrow();
        let keyspace = &server.shared.keyspace;
        let mut shard = keyspace.lock(self.partition);
        let mut loading = self.loading.borrow_mut();
        f(&mut keyspace.copy((self.partition, &mut shard), &mut loading, self.now_ms))
    }

    /// Runs something and returns the record of what it did.
    fn recorded(&self, f: impl FnOnce(&mut Harness)) -> Option<Vec<u8>> {
        let mut server = self.server.borrow_mut();
        server.worker.now_ms = self.now_ms;
        let before = server.shared.keyspace.lock(self.partition).history.log.last();
        f(&mut server);
        let mut body = Vec::new();
        let shard = server.shared.keyspace.lock(self.partition);
        let read = shard.history.log.read_from(before + 1, &mut |e| record::add(&e, &mut body));
        (read.is_ok() && !body.is_empty()).then_some(body)
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
        let name = format!("{}{key}", self.tag);
        self.with_copy(|copy| copy.mark(0, name.as_bytes()))
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
        // A key that came twice would show in the digest.
        0
    }
}

impl Data for StoreCopy {
    fn apply(&mut self, record: &[u8]) {
        self.with_copy(|copy| copy.apply(record));
    }

    fn touched(&self, record: &[u8], each: &mut dyn FnMut(u64)) {
        self.with_copy(|copy| copy.touched(record, each));
    }

    fn chunk(&mut self, from: Cursor, bytes_max: usize) -> Chunk {
        self.with_copy(|copy| copy.chunk(from, bytes_max))
    }

    fn part_before(&self, record: &[u8], cursor: Cursor) -> Part {
        self.with_copy(|copy| copy.part_before(record, cursor))
    }

    fn load_begin(&mut self, keep: bool) {
        self.with_copy(|copy| copy.load_begin(keep));
    }

    fn load_chunk(&mut self, bytes: &[u8]) -> Result<(), BadPart> {
        self.with_copy(|copy| copy.load_chunk(bytes))
    }

    fn load_record(&mut self, record: &[u8]) {
        self.with_copy(|copy| copy.load_record(record));
    }

    fn load_end(&mut self) {
        self.with_copy(|copy| copy.load_end());
    }

    fn load_abort(&mut self) {
        self.with_copy(|copy| copy.load_abort());
    }

    fn clear(&mut self) {
        self.with_copy(|copy| copy.clear());
    }
}
