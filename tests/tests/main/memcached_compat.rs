//! The same requests to this server and to memcached 1.6.18, and the same replies from both.
//!
//! Some requests are answered by nothing, so `mn` follows each one, and its `MN` ends the replies.

use hypercache_stdx::rng::Rng;
use hypercache_tests::{Wire, serve_memcached, start_memcached};
use std::collections::HashMap;

/// The seed, unless the environment variable `TEST_SEED` is another.
const SEED: u64 = 7;
/// Requests per way of sending them.
const REQUESTS: usize = 6000;
/// Longest tail of requests that is tried to reproduce a difference.
const TAIL_MAX: usize = 200;

const FENCE: &[u8] = b"MN\r\n";

/// What is in lower case is filled in: see [`fill`]. A `|` separates a line from its block.
const SHAPES: &[&str] = &[
    "get key",
    "get key",
    "get key key key",
    "gets key",
    "gets key key",
    "gat exptime key",
    "gats exptime key key",
    "set key flags exptime size|block",
    "set key flags exptime size|block",
    "set key flags exptime size noreply|block",
    "set key flags exptime size|wrong",
    "set key flags exptime size noreply|wrong",
    "add key flags exptime size|block",
    "replace key flags exptime size|block",
    "append key flags exptime size|block",
    "prepend key flags exptime size|block",
    "append key flags exptime size noreply|block",
    "cas key flags exptime size unique|block",
    "cas key flags exptime size unique|block",
    "cas key flags exptime size unique noreply|block",
    "delete key",
    "delete key noreply",
    "delete key number",
    "incr key number",
    "incr key number",
    "decr key number",
    "decr key number noreply",
    "touch key exptime",
    "touch key exptime noreply",
    "mg key flag_get",
    "mg key flag_get flag_get",
    "mg key flag_get flag_get flag_get flag_get",
    "mg coded b flag_get flag_get",
    "mg key",
    "ms key size|block",
    "ms key size flag_set|block",
    "ms key size flag_set flag_set flag_set|block",
    "ms coded size b flag_set|block",
    "ms key size flag_set|wrong",
    "md key flag_delete",
    "md key flag_delete flag_delete",
    "md key I",
    "ma key flag_count",
    "ma key flag_count flag_count flag_count",
    "ma coded b flag_count",
    "mn",
    "version",
    "verbosity 0",
    "flush_all",
    "nonsense key",
    "",
];

const KEYS: &[&str] = &["a", "b", "c", "a", "b", "c", "key:1"];
const CODED: &[&str] = &["YQ==", "Yg==", "YQ==", "Yg", "!!!!", "YmM="];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "1",
    "7",
    "99",
    "1000",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "x",
    "+5",
    "9223372036854775808",
];
const FLAGS: &[&str] = &["0", "0", "1", "42", "4294967295", "-1", "x"];
/// Long, so that nothing expires while one server is ahead of the other; or past.
const EXPTIMES: &[&str] = &["0", "0", "0", "100000", "200000", "2000000", "-1", "x", "2592001"];
const BLOCKS: &[&str] = &[
    "",
    "0",
    "1",
    "9",
    "10",
    "99",
    "abc",
    " 5",
    "5 x",
    "-1",
    "18446744073709551615",
    "18446744073709551616",
    "a longer value\r\nwith a line end, which is more than fits where short ones are kept",
    "007",
];
const GETS: &[&str] = &[
    "v", "v", "t", "s", "c", "f", "k", "h", "l", "O123", "q", "u", "N100000", "N0", "R30",
    "R150000", "R1000000", "T100000", "T0", "T-1", "z", "Tx", "I", "M", "D5",
];
const SETS: &[&str] = &[
    "T100000", "T0", "T-1", "F7", "F0", "Cunique", "Cunique", "I", "k", "c", "q", "O9", "ME", "MA",
    "MP", "MR", "MS", "Mx", "MSS", "z", "Fx", "v",
];
const DELETES: &[&str] = &["q", "k", "O5", "I", "T100000", "Cunique", "z", "v", "T-1"];
const COUNTS: &[&str] = &[
    "v", "t", "c", "k", "O7", "q", "N100000", "N0", "J13", "D5", "D1000", "MI", "MD", "M+", "M-",
    "Mx", "T100000", "Cunique", "Dx", "z",
];

fn pick<'a>(rng: &mut Rng, list: &[&'a str]) -> &'a str {
    list[rng.below(list.len() as u64) as usize]
}

/// A request with `unique` where the CAS unique belongs that a server told last of the key.
#[derive(Clone, Debug)]
struct Request {
    words: Vec<String>,
    block: Option<Vec<u8>>,
}

/// The word itself, or for the name of a kind of argument one of that kind.
fn fill(rng: &mut Rng, word: &str, size: usize) -> String {
    let list = match word {
        "key" if rng.below(150) == 0 => return "k".repeat(250 + rng.below(2) as usize),
        "key" => KEYS,
        "coded" => CODED,
        "number" => NUMBERS,
        "flags" => FLAGS,
        "exptime" => EXPTIMES,
        "flag_get" => GETS,
        "flag_set" => SETS,
        "flag_delete" => DELETES,
        "flag_count" => COUNTS,
        "size" => return size.to_string(),
        literal => return literal.to_owned(),
    };
    pick(rng, list).to_owned()
}

fn random_block(rng: &mut Rng) -> Vec<u8> {
    if rng.below(20) > 0 {
        return pick(rng, BLOCKS).as_bytes().to_vec();
    }
    vec![b'v'; [100, 16_384, 16_385, 70_000, 300_000][rng.below(5) as usize]]
}

fn request(rng: &mut Rng) -> Request {
    let shape = pick(rng, SHAPES);
    let (line, kind) = shape.split_once('|').map_or((shape, None), |(l, k)| (l, Some(k)));
    let mut block = kind.map(|_| random_block(rng));
    let size = block.as_ref().map_or(0, Vec::len);
    if let (Some(block), Some("wrong")) = (&mut block, kind) {
        block.extend_from_slice(b"xyz");
    }
    let words: Vec<String> = line.split(' ').map(|word| fill(rng, word, size)).collect();
    // After a line that is wrong the block is read as lines, and how memcached takes a long one
    // depends on how it arrives.
    let is_wrong = |word: &String| word == "-1" || word == "x" || word.len() > 250;
    if size > 1000 && words.iter().any(is_wrong) {
        self::request(rng)
    } else {
        Request { words, block }
    }
}

/// A server, and the CAS unique that it told last of each key.
struct Side {
    wire: Wire,
    uniques: HashMap<String, String>,
}

impl Side {
    fn new(port: u16) -> Side {
        Side { wire: Wire::connect(port), uniques: HashMap::new() }
    }

    fn encode(&self, request: &Request) -> Vec<u8> {
        let key = request.words.get(1).map_or("", String::as_str);
        let unique = self.uniques.get(key).map_or("1", String::as_str);
        let words: Vec<_> = request.words.iter().map(|w| w.replace("unique", unique)).collect();
        let mut bytes = words.join(" ").into_bytes();
        bytes.extend_from_slice(b"\r\n");
        if let Some(block) = &request.block {
            bytes.extend_from_slice(block);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"mn\r\n");
        bytes
    }

    /// The replies to a request, with what cannot be the same made the same.
    fn read(&mut self, request: &Request) -> String {
        let fences = 1 + usize::from(request.words[0] == "mn");
        let mut bytes = Vec::new();
        for _ in 0..fences {
            match self.wire.read_until(FENCE) {
                Some(part) => bytes.extend_from_slice(&part),
                None => return "closed or silent".into(),
            }
        }
        let key = request.words.get(1).cloned().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.split("\r\n").map(|line| self.usual(&key, line) + "\n").collect()
    }

    fn usual(&mut self, key: &str, line: &str) -> String {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if words[0] == "VALUE" && words.len() == 5 {
            let name = words[1].clone();
            words[4] = self.seen(&name, &words[4]);
        }
        if ["HD", "VA", "EX", "NS", "NF"].contains(&words[0].as_str()) {
            for word in &mut words[1..] {
                *word = self.usual_flag(key, word);
            }
        }
        words.join(" ")
    }

    fn usual_flag(&mut self, key: &str, word: &str) -> String {
        let number = |word: &str| word.get(1..).and_then(|digits| digits.parse::<u64>().ok());
        match (word.as_bytes().first(), number(word)) {
            (Some(b'c'), Some(n)) if n > 0 => self.seen(key, &word[1..]),
            // What memcached tells of a time that is past has no meaning.
            (Some(b't'), Some(n)) if n > 4_000_000_000 => "t0".into(),
            (Some(b't'), Some(n)) => format!("t{}", (n + 50) / 100),
            (Some(b'l'), Some(_)) => "l".into(),
            _ => word.to_owned(),
        }
    }

    /// Whether a CAS unique is that which was told last.
    fn seen(&mut self, key: &str, unique: &str) -> String {
        let old = self.uniques.insert(key.to_owned(), unique.to_owned());
        if old.as_deref() == Some(unique) { "same".into() } else { "new".into() }
    }
}

struct Pair {
    ours: Side,
    theirs: Side,
    ports: (u16, u16),
}

impl Pair {
    fn new(ports: (u16, u16)) -> Pair {
        Pair { ours: Side::new(ports.0), theirs: Side::new(ports.1), ports }
    }

    /// Sends the requests, in pieces of random lengths if there is a source of randomness.
    fn send(&mut self, requests: &[Request], mut rng: Option<&mut Rng>) {
        for side in [&mut self.ours, &mut self.theirs] {
            let bytes: Vec<u8> = requests.iter().flat_map(|r| side.encode(r)).collect();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let most = rest.len().min(if rest.len() > 100_000 { 60_000 } else { 400 }) as u64;
                let len = rng.as_deref_mut().map_or(rest.len(), |rng| 1 + rng.below(most) as usize);
                let (piece, after) = rest.split_at(len);
                side.wire.send(piece);
                rest = after;
            }
        }
    }

    /// Runs the requests one by one from an empty state; returns the last replies.
    fn again(&mut self, requests: &[Request]) -> (String, String) {
        *self = Pair::new(self.ports);
        let flush = Request { words: vec!["flush_all".into()], block: None };
        let mut last = Default::default();
        for request in std::iter::once(&flush).chain(requests) {
            self.send(std::slice::from_ref(request), None);
            last = (self.ours.read(request), self.theirs.read(request));
        }
        last
    }

    fn check(&mut self, history: &mut Vec<Request>, batch: &[Request]) {
        for request in batch {
            history.push(request.clone());
            let (ours, theirs) = (self.ours.read(request), self.theirs.read(request));
            if ours != theirs {
                self.report(history, &ours, &theirs);
            }
        }
    }

    /// Panics with the shortest tail of the history that shows a difference again.
    fn report(&mut self, history: &[Request], ours: &str, theirs: &str) {
        let lengths = 1..=history.len().min(TAIL_MAX);
        let tails = lengths.map(|len| &history[history.len() - len..]);
        let found = tails.into_iter().find(|tail| {
            let (ours, theirs) = self.again(tail);
            ours != theirs
        });
        let tail = found.unwrap_or(&history[history.len() - history.len().min(20)..]);
        let show = |r: &Request| {
            let block = r.block.as_ref().map_or(String::new(), |block| {
                format!(" | {}", block[..block.len().min(80)].escape_ascii())
            });
            format!("  {}{block}", r.words.join(" "))
        };
        let steps: Vec<String> = tail.iter().map(show).collect();
        panic!(
            "differs from memcached (TEST_SEED={}, reproduced alone: {}):\n{}\nours:\n{ours}\n\
             memcached:\n{theirs}",
            seed(),
            found.is_some(),
            steps.join("\n"),
        );
    }
}

fn seed() -> u64 {
    std::env::var("TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED)
}

fn against_memcached(flags: &[&str], play: impl FnOnce(&mut Pair, &mut Rng)) {
    let (_ours, port) = serve_memcached(flags);
    let (_theirs, their_port) = start_memcached();
    play(&mut Pair::new((port, their_port)), &mut Rng::new(seed()));
}

#[test]
fn random_requests_one_by_one() {
    against_memcached(&[], |pair, rng| {
        let mut history = Vec::new();
        for _ in 0..REQUESTS {
            let request = request(rng);
            pair.send(std::slice::from_ref(&request), None);
            pair.check(&mut history, &[request]);
        }
    });
}

#[test]
fn random_requests_in_pipelines_of_random_pieces() {
    for io in ["epoll", "auto"] {
        against_memcached(&["--io", io, "--threads", "2"], |pair, rng| {
            let mut history = Vec::new();
            for _ in 0..REQUESTS / 60 {
                let batch: Vec<Request> = (0..30).map(|_| request(rng)).collect();
                pair.send(&batch, Some(rng));
                pair.check(&mut history, &batch);
            }
        });
    }
}

/// Streams that are wrong, or end too early: what is answered, and whether the connection closes.
#[rustfmt::skip]
const STREAMS: &[&[u8]] = &[
    b"\r\n", b"\n", b" \r\n", b"get\r\n", b"gets \r\n", b"gat\r\n", b"gat 1\r\n", b"gat x k\r\n",
    b"set\r\n", b"set k\r\n", b"set k 0 0\r\n", b"set k 0 0 x\r\n", b"set k 0 0 -1\r\n",
    b"set k 0 0 1 noreply x\r\n", b"set k 0 0 2147483646\r\n", b"set k 0 0 2147483647\r\n",
    b"set k 0 0 99999999999999999999\r\n", b"set k 0 0 3\r\nab\r\nversion\r\n",
    b"set k 0 0 3\r\nabc\n\nversion\r\n", b"set k 0 0 0\r\nx\r\n", b"set k 0 0 1\nx\r\nget k\n",
    b"set k 0 0 1\nx\nget k\nversion\r\n", b"set k 0 0 5\r\nab", b"get k", b"get k\r",
    b"get k\rversion\r\n", b"cas k 0 0 1\r\nx\r\n", b"cas k 0 0 1 x\r\n", b"cas k 0 0 1 1 1 1\r\n",
    b"delete\r\n", b"delete k 1\r\n", b"delete k 0 0\r\n", b"delete k 5 noreply\r\n",
    b"delete k noreply x\r\n", b"incr\r\n", b"incr k\r\n", b"incr k x\r\n", b"incr k -1\r\n",
    b"incr k 1 2 3\r\n", b"touch k\r\n", b"touch k x\r\n", b"touch k 0 0 0\r\n", b"verbosity\r\n",
    b"verbosity x\r\n", b"verbosity 1 2 3\r\n", b"flush_all x\r\n", b"flush_all 0 0 0\r\n",
    b"flush_all -1\r\n", b"flush_all noreply 0\r\n", b"shutdown\r\n", b"shutdown graceful\r\n",
    b"quit\r\n", b"quit x\r\n", b"QUIT\r\nversion\r\n", b"GET k\r\n", b"stats nonsense\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /x HTTP/1.0\r\n", b"get / HTTP/1.1\r\n", b"me\r\n",
    b"me k x\r\n", b"mg\r\n", b"mx\r\n", b"m\r\n", b"mg k O1234567890123456789012345678901\r\n",
    b"mg k O12345678901234567890123456789012\r\n", b"mg k v v\r\n", b"mg k \x7f\r\n",
    b"mg k \xff\r\n", b"ms\r\n", b"ms k\r\n", b"ms k x\r\n", b"ms k -1\r\n", b"ms k S1\r\n",
    b"ms k 1 z\r\nx\r\nversion\r\n", b"ms k 2147483647\r\n",
    b"ms k 1 O12345678901234567890123456789012\r\nx\r\n",
    b"ms k 1 v t s c f k h l q u I O1 T5 N5 R5 D5 J5\r\nx\r\n",
    b"mg k v t s c f k h l q u I O1 T5 N5 R5 D5 J5 F5\r\n", b"md\r\n", b"md k z\r\n", b"ma\r\n",
    b"ma k Mx\r\n", b"*1\r\n$4\r\nPING\r\n", b"\xff\xfe\r\n",
];

fn answers(port: u16, stream: &[u8]) -> (String, bool) {
    let mut wire = Wire::connect(port);
    assert!(wire.try_send(stream), "a short stream is taken");
    let (bytes, is_closed) = wire.read_to_end(std::time::Duration::from_millis(60));
    (bytes.escape_ascii().to_string(), is_closed)
}

#[test]
fn wrong_streams_are_answered_as_memcached_does() {
    let (_ours, port) = serve_memcached(&[]);
    let (_theirs, their_port) = start_memcached();
    let long: Vec<Vec<u8>> = vec![
        vec![b'x'; 2048],
        vec![b'x'; 2049],
        [&[b'x'; 3000][..], b"\r\nversion\r\n"].concat(),
        b"get ".iter().copied().chain(b"k ".repeat(3000)).collect(),
        b"mg ".iter().copied().chain(b"k ".repeat(3000)).collect(),
        [b"get ", &[b'k'; 251][..], b"\r\n"].concat(),
        [b"get a ", &[b'k'; 251][..], b" a\r\nversion\r\n"].concat(),
        [b"set ", &[b'k'; 251][..], b" 0 0 1\r\nx\r\n"].concat(),
        [b"ms ", &[b'k'; 251][..], b" 1\r\nx\r\n"].concat(),
        [b"delete ", &[b'k'; 251][..], b"\r\n"].concat(),
        [b"mg ", &[b'k'; 251][..], b"\r\n"].concat(),
        [&b"set k 0 0 1100000\r\n"[..], &[b'x'; 1_100_000], b"\r\nget k\r\n"].concat(),
        [&b"set k 0 0 1100000 noreply\r\n"[..], &[b'x'; 1_100_000], b"\r\nversion\r\n"].concat(),
        [&b"ms k 1100000 k q\r\n"[..], &[b'x'; 1_100_000], b"\r\nmg k\r\n"].concat(),
        [&b"ms k 1100000 z\r\n"[..], &[b'x'; 1_100_000], b"\r\nmg k\r\n"].concat(),
        [&b"set k 0 0 200000\r\n"[..], &[b'x'; 200_003], b"\r\nversion\r\n"].concat(),
        [&b"set k 0 0 200000 noreply\r\n"[..], &[b'x'; 200_003], b"\r\nversion\r\n"].concat(),
    ];
    let streams = STREAMS.iter().map(|stream| stream.to_vec()).chain(long);
    let differing: Vec<String> = streams
        .filter_map(|stream| {
            let (ours, theirs) = (answers(port, &stream), answers(their_port, &stream));
            let shown = stream[..stream.len().min(60)].escape_ascii().to_string();
            (ours != theirs).then(|| format!("{shown}\n  ours  {ours:?}\n  their {theirs:?}"))
        })
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
