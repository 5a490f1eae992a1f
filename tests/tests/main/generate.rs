//! Random commands with arguments at the edges of what commands take.

use hypercache_stdx::rng::Rng;

/// Arguments of one command, its name first.
pub(crate) type Words = Vec<Vec<u8>>;

/// A command to fill in, and words that may follow it.
struct Shape {
    head: &'static str,
    tails: &'static [&'static str],
}

const fn plain(head: &'static str) -> Shape {
    Shape { head, tails: &[] }
}

const fn with(head: &'static str, tails: &'static [&'static str]) -> Shape {
    Shape { head, tails }
}

const EXPIRY: &[&str] = &["NX", "XX", "GT", "LT"];
const FIELDS: &[&str] = &[
    "GET width offset",
    "SET width offset int",
    "INCRBY width offset int",
    "OVERFLOW WRAP",
    "OVERFLOW SAT",
    "OVERFLOW FAIL",
];

/// What is in lower case is filled in: see [`fill`].
const SHAPES: &[Shape] = &[
    plain("GET key"),
    plain("GET key"),
    with(
        "SET key value",
        &["NX", "XX", "GET", "KEEPTTL", "EX ttl", "PX ttl", "EXAT time", "PXAT mstime"],
    ),
    plain("SET key value"),
    plain("SETNX key value"),
    plain("SETEX key ttl value"),
    plain("PSETEX key ttl value"),
    plain("GETSET key value"),
    plain("GETDEL key"),
    with("GETEX key", &["PERSIST", "EX ttl", "PX ttl", "EXAT time", "PXAT mstime"]),
    plain("APPEND key value"),
    plain("STRLEN key"),
    plain("SETRANGE key offset value"),
    plain("GETRANGE key index index"),
    plain("SUBSTR key index index"),
    plain("INCR key"),
    plain("DECR key"),
    plain("INCRBY key int"),
    plain("DECRBY key int"),
    plain("INCRBYFLOAT key float"),
    with("MSET key value", &["key value", "key value", "key"]),
    with("MSETNX key value", &["key value", "key value"]),
    with("MGET key", &["key", "key"]),
    with("LCS key key", &["LEN", "IDX", "MINMATCHLEN int", "WITHMATCHLEN"]),
    with("DEL key", &["key", "key"]),
    with("UNLINK key", &["key", "key"]),
    with("EXISTS key", &["key", "key"]),
    with("TOUCH key", &["key", "key"]),
    plain("TYPE key"),
    plain("OBJECT ENCODING key"),
    plain("OBJECT REFCOUNT key"),
    plain("RENAME key key"),
    plain("RENAMENX key key"),
    with("COPY key key", &["REPLACE", "DB db"]),
    plain("MOVE key db"),
    plain("DBSIZE"),
    plain("RANDOMKEY"),
    plain("KEYS glob"),
    with("SCAN int", &["MATCH glob", "COUNT int", "TYPE string", "TYPE list"]),
    plain("SELECT db"),
    plain("SWAPDB db db"),
    plain("ECHO value"),
    with("PING", &["value"]),
    with("EXPIRE key ttl", EXPIRY),
    with("PEXPIRE key ttl", EXPIRY),
    with("EXPIREAT key time", EXPIRY),
    with("PEXPIREAT key mstime", EXPIRY),
    plain("TTL key"),
    plain("PTTL key"),
    plain("EXPIRETIME key"),
    plain("PEXPIRETIME key"),
    plain("PERSIST key"),
    plain("SETBIT key offset bit"),
    plain("GETBIT key offset"),
    with("BITCOUNT key", &["index index", "index index BIT", "index index BYTE", "index"]),
    with("BITPOS key bit", &["index", "index index", "index index BIT", "index index BYTE"]),
    with("BITOP AND key key", &["key", "key"]),
    with("BITOP OR key key", &["key", "key"]),
    with("BITOP XOR key key", &["key", "key"]),
    with("BITOP NOT key key", &["key"]),
    with("BITFIELD key", FIELDS),
    with("BITFIELD_RO key", FIELDS),
];

const KEYS: &[&[u8]] = &[b"a", b"b", b"c", b"key:1", b"", b"k\x00\xff"];
const VALUES: &[&[u8]] = &[
    b"",
    b"0",
    b"1",
    b"-1",
    b"10",
    b"007",
    b"+1",
    b" 1",
    b"3.0",
    b"1e5",
    b"0.1",
    b"-0",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"abcdefgh",
    b"ohmytext",
    b"\x00\x01\xff\xfe\r\n",
    b"mynewtext that is longer than what is embedded in an object, so it is kept in another way",
];
const INTS: &[&[u8]] = &[
    b"0",
    b"1",
    b"-1",
    b"2",
    b"7",
    b"100",
    b"-100",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"1.5",
    b"x",
    b"",
    b"01",
    b" 5",
];
const FLOATS: &[&[u8]] = &[
    b"0",
    b"1",
    b"-1.5",
    b"0.1",
    b"3.14159265358979",
    b"1e10",
    b"1e-10",
    b"5e18",
    b"-1e17",
    b"inf",
    b"nan",
    b"x",
    b" 1",
    b"1 ",
    b"0x10",
    b"",
];
const INDEXES: &[&[u8]] = &[
    b"0",
    b"1",
    b"-1",
    b"-2",
    b"3",
    b"7",
    b"8",
    b"-100",
    b"100",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"x",
];
const OFFSETS: &[&[u8]] = &[
    b"0",
    b"1",
    b"7",
    b"8",
    b"31",
    b"100",
    b"1000",
    b"#0",
    b"#1",
    b"#10",
    b"-1",
    b"4294967296",
    b"x",
    b"9223372036854775807",
];
const WIDTHS: &[&[u8]] = &[
    b"u8", b"i8", b"u1", b"i1", b"i5", b"u16", b"i32", b"u63", b"i64", b"u64", b"i65", b"x", b"u0",
];
const TTLS: &[&[u8]] = &[
    b"0",
    b"-1",
    b"-1000",
    b"9223372036854775807",
    b"9223372036854775",
    b"-9223372036854775808",
    b"x",
    b"",
];
/// Seconds since the epoch, all far from now.
const TIMES: &[&[u8]] =
    &[b"1", b"0", b"-1", b"4000000000", b"5000000000", b"9223372036854775807", b"x"];
const MS_TIMES: &[&[u8]] =
    &[b"1", b"0", b"-1", b"4000000000000", b"5000000000000", b"9223372036854775807", b"x"];
const GLOBS: &[&[u8]] = &[b"*", b"a*", b"?", b"[a-b]", b"[^a]", b"key:\\*", b"", b"k*\xff", b"\\"];
const DBS: &[&[u8]] = &[b"0", b"1", b"0", b"1", b"15", b"16", b"-1", b"x"];
const BITS: &[&[u8]] = &[b"0", b"1", b"0", b"1", b"2", b"x"];

fn pick<'a, T: ?Sized>(rng: &mut Rng, list: &[&'a T]) -> &'a T {
    list[rng.below(list.len() as u64) as usize]
}

/// The word itself, or for the name of a kind of argument one of that kind.
fn fill(rng: &mut Rng, word: &str) -> Vec<u8> {
    let list = match word {
        // Mostly the same few, so that commands meet.
        "key" => &KEYS[..if rng.below(4) == 0 { KEYS.len() } else { 3 }],
        "value" => VALUES,
        "int" => INTS,
        "float" => FLOATS,
        "index" => INDEXES,
        "offset" => OFFSETS,
        "width" => WIDTHS,
        // Long, so that nothing expires while one server is ahead of the other, and hardly ever the
        // same, or GT and LT would depend on the millisecond.
        "ttl" if rng.below(2) == 0 => return (100_000 + rng.below(1 << 30)).to_string().into(),
        "ttl" => TTLS,
        "time" => TIMES,
        "mstime" => MS_TIMES,
        "glob" => GLOBS,
        "db" => DBS,
        "bit" => BITS,
        literal => return literal.into(),
    };
    pick(rng, list).to_vec()
}

/// A random command.
pub(crate) fn command(rng: &mut Rng) -> Words {
    let shape = &SHAPES[rng.below(SHAPES.len() as u64) as usize];
    let mut words: Vec<&str> = shape.head.split(' ').collect();
    if !shape.tails.is_empty() {
        for _ in 0..rng.below(4) {
            words.extend(pick(rng, shape.tails).split(' '));
        }
    }
    let mut filled: Words = words.iter().map(|word| fill(rng, word)).collect();
    match rng.below(60) {
        0 if filled.len() > 1 => drop(filled.pop()),
        1 => filled.push(b"extra".to_vec()),
        2 => filled[0].make_ascii_lowercase(),
        _ => {}
    }
    filled
}
