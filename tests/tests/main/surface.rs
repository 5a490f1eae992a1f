//! Commands about connections, the server and messages, compared with Redis 7.0 one by one.

use hypercache_tests::{Frame, Server, Wire, request};

/// Requests sent in turn to both servers; replies must be the same bytes.
fn check_same(lists: &[&[&str]]) {
    let (ours, redis) = (Server::start(&["--enable-debug-command", "yes"]), Server::redis(&[]));
    let mut differences = Vec::new();
    for list in lists {
        let (mut a, mut b) = (ours.wire(), redis.wire());
        for line in *list {
            let words: Vec<&str> = line.split(' ').collect();
            let (a, b) = (a.call(&words), b.call(&words));
            if a != b {
                differences.push(format!("{line}\n  ours:  {a:?}\n  redis: {b:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn connection_commands() {
    check_same(&[
        &["PING", "PING hello", "ECHO x", "ECHO", "PING a b"],
        &["SELECT 1", "SELECT 16", "SELECT -1", "SELECT x", "SELECT 99999999999999999999"],
        &["CLIENT GETNAME", "CLIENT SETNAME me", "CLIENT GETNAME", "CLIENT SETNAME", "RESET"],
        &["CLIENT SETNAME ", "CLIENT GETNAME", "CLIENT ID x", "CLIENT NO-EVICT on"],
        &["CLIENT NO-EVICT x", "CLIENT REPLY ON", "CLIENT REPLY x", "CLIENT KILL"],
        &["CLIENT KILL 1.2.3.4:5", "CLIENT KILL ID 12345", "CLIENT KILL ID x"],
        &["CLIENT KILL TYPE nosuch", "CLIENT KILL USER nosuch", "CLIENT KILL ADDR x LADDR y"],
        &["CLIENT KILL SKIPME maybe", "CLIENT LIST TYPE nosuch", "CLIENT LIST ID x"],
        &["CLIENT LIST ID 999999", "CLIENT UNBLOCK 999999", "CLIENT UNBLOCK x"],
        &["CLIENT UNBLOCK 1 x", "CLIENT PAUSE x", "CLIENT PAUSE -1", "CLIENT PAUSE 1 x"],
        &["CLIENT UNPAUSE", "CLIENT PAUSE 0 WRITE", "CLIENT PAUSE 0 ALL"],
        &["AUTH x", "AUTH default x", "AUTH nosuch x", "AUTH a b c", "HELLO 2 AUTH a b"],
        &["HELLO 3 SETNAME x NOSUCH", "HELLO 5", "HELLO x", "HELLO 1"],
        &["WAIT 0 0", "WAIT x 0", "WAIT 0 x", "WAIT 0 -1"],
        &["MULTI", "CLIENT GETNAME", "SELECT 3", "PING", "EXEC", "RESET", "PING"],
        &["RESET", "MULTI", "RESET", "EXEC", "DISCARD", "UNWATCH", "WATCH"],
    ]);
}

#[test]
fn server_commands() {
    check_same(&[
        &["CONFIG GET maxmemory", "CONFIG GET maxmemory-policy", "CONFIG GET timeout"],
        &["CONFIG GET maxclients", "CONFIG GET tcp-keepalive", "CONFIG GET databases"],
        &["CONFIG GET appendonly", "CONFIG GET save", "CONFIG GET requirepass"],
        &["CONFIG GET proto-max-bulk-len", "CONFIG GET slowlog-max-len", "CONFIG GET nosuch"],
        &["CONFIG GET slowlog-log-slower-than", "CONFIG GET notify-keyspace-events"],
        &["CONFIG GET client-output-buffer-limit", "CONFIG GET tcp-backlog"],
        &["CONFIG GET client-query-buffer-limit", "CONFIG GET latency-monitor-threshold"],
        &["CONFIG SET maxmemory 100mb", "CONFIG GET maxmemory", "CONFIG SET maxmemory 0"],
        &["CONFIG SET notify-keyspace-events KEA", "CONFIG GET notify-keyspace-events"],
        &["CONFIG SET notify-keyspace-events Elg", "CONFIG GET notify-keyspace-events"],
        &["CONFIG SET notify-keyspace-events ", "CONFIG GET notify-keyspace-events"],
        &["CONFIG SET timeout 100", "CONFIG GET timeout", "CONFIG SET timeout 0"],
        &["CONFIG SET a", "CONFIG GET", "CONFIG SET", "CONFIG RESETSTAT"],
        &["DBSIZE", "FLUSHALL", "FLUSHALL ASYNC", "FLUSHALL SYNC", "FLUSHALL x", "FLUSHDB x"],
        &["SET a 1", "DBSIZE", "SWAPDB 0 1", "DBSIZE", "SWAPDB 1 0", "DBSIZE", "FLUSHDB"],
        &["SWAPDB 0 16", "SWAPDB x 0", "SWAPDB 0 x", "SWAPDB 0 0", "SLOWLOG RESET"],
        &["SLOWLOG LEN", "SLOWLOG GET", "SLOWLOG GET x", "SLOWLOG GET -2", "SLOWLOG x"],
        &["ROLE", "LATENCY LATEST", "LATENCY HISTORY x", "LATENCY RESET", "LATENCY RESET x"],
        &["OBJECT FREQ none", "OBJECT IDLETIME none", "OBJECT ENCODING none", "MEMORY x"],
        &["DEBUG SLEEP 0", "SHUTDOWN NOW NOSUCH", "SHUTDOWN ABORT"],
        &["COMMAND COUNT x", "COMMAND GETKEYS GET a", "COMMAND GETKEYS MSET a 1 b 2"],
        &["COMMAND GETKEYS PING", "COMMAND GETKEYS NOSUCH", "COMMAND GETKEYS GET"],
        &["COMMAND GETKEYSANDFLAGS SET a b", "COMMAND INFO nosuch", "COMMAND LIST x"],
        &["COMMAND LIST FILTERBY PATTERN getbi*", "COMMAND LIST FILTERBY x y"],
    ]);
}

/// Channels of these are not declared as keys.
const WITHOUT_KEYS: &[&str] = &["ssubscribe", "sunsubscribe", "spublish"];

/// These take an option of a later version, so their number of arguments differs.
const EXTENDED: &[&str] = &["zrank", "zrevrank"];

/// Name, arity, flags, keys, categories, key specifications and subcommands; tips are advice.
#[test]
fn command_info_says_what_redis_says() {
    let (ours, redis) = (Server::start(&[]), Server::redis(&[]));
    let (mut a, mut b) = (ours.wire(), redis.wire());
    let names = a.call(&["COMMAND", "LIST"]).items().expect("names");
    let mut differences = Vec::new();
    for name in names {
        let name = name.text();
        let words = ["COMMAND", "INFO", name.as_str()];
        let (ours, redis) = (a.call(&words), b.call(&words));
        // Later versions know more commands.
        let Some(redis) = facts(&redis) else { continue };
        for (ours, redis) in facts(&ours).expect("facts").iter().zip(&redis) {
            let has_notes = redis.0.windows(9).any(|bytes| bytes == b"$5\r\nnotes");
            let is_known = WITHOUT_KEYS.iter().chain(EXTENDED).any(|known| *known == name);
            if ours != redis && !has_notes && !is_known {
                differences.push(format!("{name}\n  ours:  {ours:?}\n  redis: {redis:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The parts of the only command in a reply of COMMAND INFO that are compared.
fn facts(info: &Frame) -> Option<Vec<Frame>> {
    let mut facts = info.items()?.first()?.items()?;
    // Subcommands are commands of their own, with tips.
    facts.truncate(9);
    facts.remove(7);
    Some(facts)
}

/// One connection and all that it has received, from where the test looks on.
struct Listener {
    wire: Wire,
    got: Vec<Frame>,
}

impl Listener {
    fn new(server: &Server, version: &str) -> Listener {
        let mut wire = server.wire();
        wire.call(&["HELLO", version]);
        Listener { wire, got: Vec::new() }
    }

    /// Reads all that comes before the answer to a PING, which comes last.
    fn catch_up(&mut self) {
        self.wire.send(&request(&["PING", "caught up"]));
        loop {
            let frame = self.wire.read();
            if frame.0.ends_with(b"caught up\r\n") {
                return;
            }
            self.got.push(frame);
        }
    }
}

/// Lets connections send in turn, and returns all that each received.
fn play(server: &Server, versions: &[&str], steps: &[(usize, &str)]) -> Vec<Vec<Frame>> {
    let mut all: Vec<Listener> = versions.iter().map(|v| Listener::new(server, v)).collect();
    for (who, line) in steps {
        all[*who].wire.send(&request(&line.split(' ').collect::<Vec<_>>()));
        all.iter_mut().for_each(Listener::catch_up);
        // What another worker sent on may come a little later.
        std::thread::sleep(std::time::Duration::from_millis(2));
        all.iter_mut().for_each(Listener::catch_up);
    }
    all.into_iter().map(|listener| listener.got).collect()
}

#[test]
fn messages_reach_the_same_subscribers() {
    let steps: &[(usize, &str)] = &[
        (0, "SUBSCRIBE news sport news"),
        (1, "PSUBSCRIBE n* s?ort"),
        (1, "SUBSCRIBE news"),
        (2, "PUBLISH news hello"),
        (2, "PUBLISH none hello"),
        (2, "PUBSUB CHANNELS"),
        (2, "PUBSUB CHANNELS s*"),
        (2, "PUBSUB NUMSUB news none"),
        (2, "PUBSUB NUMPAT"),
        (0, "GET a"),
        (1, "GET a"),
        (0, "UNSUBSCRIBE sport"),
        (1, "PUNSUBSCRIBE n*"),
        (2, "PUBLISH news again"),
        (0, "UNSUBSCRIBE"),
        (1, "PUNSUBSCRIBE"),
        (1, "UNSUBSCRIBE"),
        (1, "UNSUBSCRIBE"),
        (0, "GET a"),
        (2, "PUBLISH news nobody"),
        (1, "SSUBSCRIBE shard"),
        (2, "SPUBLISH shard hello"),
        (2, "PUBSUB SHARDCHANNELS"),
        (2, "PUBSUB SHARDNUMSUB shard none"),
        (1, "SUNSUBSCRIBE"),
        (2, "SUBSCRIBE"),
        (2, "PUBLISH a"),
    ];
    let (ours, redis) = (Server::start(&[]), Server::redis(&[]));
    for versions in [["2", "2", "2"], ["3", "3", "3"], ["2", "3", "2"]] {
        let expected = play(&redis, &versions, steps);
        let got = play(&ours, &versions, steps);
        for (who, (ours, redis)) in got.iter().zip(&expected).enumerate() {
            for (i, (a, b)) in ours.iter().zip(redis).enumerate() {
                assert_eq!(in_order(a), in_order(b), "RESP {versions:?}, client {who}, frame {i}");
            }
            assert_eq!(ours.len(), redis.len(), "RESP {versions:?}, client {who}");
        }
    }
}

/// Lists of channels come in any order.
fn in_order(frame: &Frame) -> Frame {
    match frame.items() {
        Some(mut items) if frame.kind() == b'*' && items.iter().all(|i| i.kind() == b'$') => {
            items.sort_by(|a, b| a.0.cmp(&b.0));
            Frame(items.into_iter().flat_map(|item| item.0).collect())
        }
        _ => frame.clone(),
    }
}

/// Every way to write, in an order in which each finds something.
const WRITES: &[&str] = &[
    "SET a 1",
    "SET a 2 EX 1000",
    "SET a 3 PX 100000 XX",
    "SET a 3 KEEPTTL",
    "SET a 3 EXAT 1",
    "SET none 1 XX",
    "SET b 1 NX GET",
    "SETNX a 1",
    "SETNX a 2",
    "SETEX a 1000 1",
    "PSETEX a 100000 1",
    "GETSET a 1",
    "GETSET new 1",
    "GETDEL new",
    "GETDEL new",
    "GETEX a",
    "GETEX a EX 100",
    "GETEX a PERSIST",
    "GETEX a PERSIST",
    "GETEX a EXAT 1",
    "APPEND a 1",
    "APPEND a ",
    "SETRANGE a 1 xyz",
    "SETRANGE none 0 ",
    "SETRANGE a 0 ",
    "INCR c",
    "DECR c",
    "INCRBY c 5",
    "DECRBY c 5",
    "INCRBYFLOAT c 1.5",
    "INCR a",
    "MSET a 1 b 2 a 3",
    "MSETNX a 1 z 2",
    "MSETNX y 1 z 2",
    "SETBIT bits 7 1",
    "SETBIT bits 7 1",
    "BITFIELD bits SET u8 0 5 INCRBY u8 0 1",
    "BITFIELD bits GET u8 0",
    "BITFIELD bits OVERFLOW FAIL INCRBY u2 0 100",
    "BITOP AND dest a bits",
    "BITOP OR dest none none2",
    "BITOP NOT dest none",
    "RENAME a a2",
    "RENAME a2 b",
    "RENAME b b",
    "RENAMENX b c",
    "RENAMENX b d",
    "COPY d e",
    "COPY d e",
    "COPY d c REPLACE",
    "COPY d f DB 1",
    "MOVE d 1",
    "MOVE none 1",
    "EXPIRE e 1000",
    "EXPIRE e 1000 NX",
    "PEXPIRE e 100000 XX",
    "EXPIREAT e 4000000000",
    "PEXPIREAT e 4000000000000",
    "PERSIST e",
    "PERSIST e",
    "EXPIRE e -1",
    "SET e 1",
    "PEXPIREAT e 1",
    "SET e 1",
    "EXPIRE e 0",
    "DEL c none",
    "UNLINK y z none",
    "TOUCH bits",
    "SELECT 1",
    "SET in1 1",
    "SELECT 0",
    "SWAPDB 0 1",
    "FLUSHDB",
    "SET a 1",
    "FLUSHALL",
];

#[test]
fn every_write_notifies_as_in_redis() {
    let flags = ["--notify-keyspace-events", "KEA"];
    let (ours, redis) = (Server::start(&flags), Server::redis(&flags));
    let listen = |server: &Server| {
        let mut listener = Listener::new(server, "2");
        listener.wire.call(&["PSUBSCRIBE", "__key*"]);
        listener
    };
    let mut sides = [(listen(&ours), ours.wire()), (listen(&redis), redis.wire())];
    for line in WRITES {
        let words: Vec<&str> = line.split(' ').collect();
        let [ours, redis] = &mut sides;
        let (a, b) = (ours.1.call(&words), redis.1.call(&words));
        assert_eq!(a, b, "{line}");
        // A subscriber's PING is answered with an array, in order after the messages of before.
        for (listener, _) in [&mut *ours, &mut *redis] {
            listener.wire.send(&request(&["PING"]));
        }
        let (a, b) = (events(&mut ours.0.wire), events(&mut redis.0.wire));
        assert_eq!(a, b, "events of {line}: ours on the left, Redis' on the right");
    }
}

/// The events up to the answer to PING.
fn events(wire: &mut Wire) -> Vec<Frame> {
    let mut events = Vec::new();
    loop {
        let frame = wire.read();
        if frame.0.starts_with(b"*2\r\n$4\r\npong") {
            return events;
        }
        events.push(frame);
    }
}
