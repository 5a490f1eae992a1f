//! Random programs of three clients.

use hypercache_stdx::rng::Rng;

/// Clients of a program.
pub(crate) const CLIENTS: usize = 3;
/// Steps of a program.
const STEPS: u64 = 40;

/// What is done beside sending a step's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Do {
    /// Nothing.
    Send,
    /// Its time to wait is short, and is waited for.
    TimeOut,
    /// What it has expire is given the time to.
    Expire,
}

/// A command of one client.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) client: usize,
    pub(crate) words: Vec<String>,
    pub(crate) doing: Do,
}

impl Step {
    /// Replies that the command has: one for each channel, else one.
    pub(crate) fn replies(&self) -> usize {
        if self.words[0].ends_with("SUBSCRIBE") { self.words.len() - 1 } else { 1 }
    }

    /// Whether it has no message but at most one to the client itself.
    pub(crate) fn is_about_messages(&self) -> bool {
        let shape = |shape: &&str| shape.split(' ').next() == Some(&self.words[0]);
        self.words[0] == "RESET" || MESSAGES.iter().any(shape)
    }

    pub(crate) fn show(&self) -> String {
        format!("{}: {} ({:?})", self.client, self.words.join(" "), self.doing)
    }
}

/// Words in lower case are filled in; see [`fill`].
const TRANSACTIONS: &[&str] = &[
    "WATCH any",
    "WATCH any any",
    "UNWATCH",
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "DISCARD",
    "RESET",
    "GET string",
    "EXISTS any any",
];

const WAITS: &[&str] = &[
    "BLPOP list 0",
    "BLPOP list list 0",
    "BRPOP any list 0",
    "BLMOVE list list side side 0",
    "BLMOVE list list side side 0",
    "BRPOPLPUSH list list 0",
    "BLMPOP 0 2 list list side COUNT 2",
    "BLPOP list short",
    "BLMOVE list list side side short",
    "BZPOPMIN zset short",
    "BZPOPMIN zset 0",
    "BZPOPMAX zset any 0",
    "BZMPOP 0 2 zset zset MIN COUNT 2",
    "XREAD BLOCK 0 STREAMS stream $",
    "XREAD COUNT 1 BLOCK 0 STREAMS stream stream $ 5-0",
    "XREADGROUP GROUP g c1 BLOCK 0 STREAMS stream >",
    "XREADGROUP GROUP g c2 COUNT 1 BLOCK 0 STREAMS stream stream > >",
    "XREADGROUP GROUP g c1 BLOCK shortms STREAMS stream >",
    "XREAD BLOCK shortms STREAMS stream $",
    "CLIENT UNBLOCK client",
    "CLIENT UNBLOCK client ERROR",
    "CLIENT UNBLOCK client TIMEOUT",
];

const MESSAGES: &[&str] = &[
    "SUBSCRIBE channel",
    "SUBSCRIBE channel channel",
    "UNSUBSCRIBE channel",
    "PSUBSCRIBE pattern",
    "PUNSUBSCRIBE pattern",
    "SSUBSCRIBE shard",
    "SUNSUBSCRIBE shard",
    "PUBLISH channel value",
    "PUBLISH channel value",
    "PUBLISH channel value",
    "SPUBLISH shard value",
    "PUBSUB NUMSUB channel",
    "PUBSUB NUMPAT",
    "PUBSUB SHARDNUMSUB shard",
    "PING",
];

const WRITES: &[&str] = &[
    "RPUSH list value",
    "RPUSH list value value",
    "LPUSH list value",
    "LPUSH list value value value",
    "LPOP list",
    "RPOP list",
    "LMOVE list list side side",
    "LTRIM list 1 -1",
    "LRANGE list 0 -1",
    "LREM list 0 value",
    "SORT list ALPHA STORE list",
    "ZADD zset 1 value",
    "ZADD zset 2 value 3 value",
    "ZPOPMIN zset",
    "ZREM zset value",
    "ZUNIONSTORE zset 2 zset zset",
    "ZRANGE zset 0 -1",
    "XADD stream id f value",
    "XADD stream id f value",
    "XDEL stream 7-1",
    "XTRIM stream MAXLEN 1",
    "XLEN stream",
    "XGROUP CREATE stream g $ MKSTREAM",
    "XGROUP CREATE stream g 0 MKSTREAM",
    "XGROUP DESTROY stream g",
    "XGROUP DELCONSUMER stream g c1",
    "XACK stream g 7-1",
    "SET any value",
    "SET string value",
    "INCR string",
    "APPEND string value",
    "MSET string 1 string 2",
    "GETDEL string",
    "DEL any",
    "DEL any any",
    "UNLINK any",
    "RENAME any any",
    "RENAMENX any any",
    "COPY any any REPLACE",
    "COPY any any",
    "EXPIRE any 1000",
    "PERSIST any",
    "PEXPIRE any soon",
    "PEXPIRE any soon",
    "SET string value PX soon",
    "EXPIRE any -1",
    "MOVE any 1",
    "SELECT 1",
    "SELECT 0",
    "SWAPDB 0 1",
    "FLUSHDB",
    "FLUSHALL",
    "EVAL redis.call('rpush',KEYS[1],'e')return(redis.call('lpop',KEYS[1])) 1 list",
    "EVAL redis.call('rpush',KEYS[1],'e')return(redis.call('llen',KEYS[1])) 1 list",
    "EVAL redis.call('del',KEYS[1])return(redis.call('rpush',KEYS[2],'f')) 2 any list",
];

const LISTS: &[&str] = &["l1", "l2", "l3"];
const ZSETS: &[&str] = &["z1", "z2"];
const STREAMS: &[&str] = &["s1", "s2"];
const STRINGS: &[&str] = &["a", "b"];
/// All keys.
pub(crate) const KEYS: &[&str] = &["l1", "l2", "l3", "z1", "z2", "s1", "s2", "a", "b"];

fn pick<'a>(rng: &mut Rng, list: &[&'a str]) -> &'a str {
    list[rng.below(list.len() as u64) as usize]
}

/// The word itself, or for the name of a kind of argument one of that kind.
fn fill(rng: &mut Rng, step: u64, word: &str) -> String {
    let list = match word {
        "list" => LISTS,
        "zset" => ZSETS,
        "stream" => STREAMS,
        "string" => STRINGS,
        "any" => KEYS,
        "value" => &["x", "y", "z"],
        "side" => &["LEFT", "RIGHT"],
        "channel" => &["n1", "n2"],
        "shard" => &["c1", "c2"],
        // No two of them match the same channel: in which order Redis tells of those is chance.
        "pattern" => &["n*", "__keyspace@0__:*", "__keyevent@?__:*"],
        "client" => &["{0}", "{1}", "{2}"],
        "short" => &["0.004"],
        "shortms" => &["4"],
        "soon" => &["1"],
        // They ascend, as a stream's must.
        "id" => return format!("{}-1", 6 + step),
        literal => return literal.into(),
    };
    pick(rng, list).into()
}

/// A random program.
pub(crate) fn program(rng: &mut Rng) -> Vec<Step> {
    // How often each kind of command comes, in this program.
    let weights: Vec<u64> = (0..4).map(|_| 1 + rng.below(6)).collect();
    let kinds = [TRANSACTIONS, WAITS, MESSAGES, WRITES];
    let sum: u64 = weights.iter().sum();
    let steps = 4 + rng.below(STEPS);
    let step = |n: u64| {
        let (mut at, mut kind) = (rng.below(sum), 0);
        while at >= weights[kind] {
            at -= weights[kind];
            kind += 1;
        }
        let shape = pick(rng, kinds[kind]);
        let has = |name: &str| shape.split(' ').any(|word| word == name);
        let doing = match () {
            () if has("short") || has("shortms") => Do::TimeOut,
            // A transaction may have something expire, too.
            () if has("soon") || shape == "EXEC" => Do::Expire,
            () => Do::Send,
        };
        let words = shape.split(' ').map(|word| fill(rng, n, word)).collect();
        Step { client: rng.below(CLIENTS as u64) as usize, words, doing }
    };
    (0..steps).map(step).collect()
}
