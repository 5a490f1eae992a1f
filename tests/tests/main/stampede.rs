//! What HC.GET and HC.SET promise, with real connections: the source of a value is asked once however
//! many clients miss it, and nothing is served that was invalidated. `docs/stampede.md` is the contract.

use hypercache_client::{Connection, Reply};
use hypercache_tests::{Server, wait_for};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// Clients that miss a key at once.
const CLIENTS: usize = 300;
/// What it takes to load a value.
const LOADING: Duration = Duration::from_millis(200);

fn field<'r>(reply: &'r Reply, name: &str) -> &'r Reply {
    let Reply::Array(items) = reply else { panic!("a list of fields, not {reply:?}") };
    let mut fields = items.chunks_exact(2);
    let field = fields.find(|field| field[0].as_bytes() == Some(name.as_bytes()));
    &field.expect("the field is there")[1]
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(reply.as_bytes().unwrap_or_default()).into_owned()
}

fn ask(connection: &mut Connection, words: &[&str]) -> Reply {
    connection.command(words).expect("the server answers")
}

/// Reads a key through the cache: whoever gets the lease asks the source.
fn read_through(connection: &mut Connection, key: &str, load: &dyn Fn() -> String) -> String {
    loop {
        let reply = ask(connection, &["HC.GET", key, "LEASE", "10000"]);
        match &*text(field(&reply, "state")) {
            "hit" | "stale" => return text(field(&reply, "value")),
            "lease" => {
                let Reply::Int(token) = field(&reply, "lease") else { panic!("a token") };
                let (value, token) = (load(), token.to_string());
                let words = ["HC.SET", key, &value, "LEASE", &token, "PX", "60000"];
                assert_eq!(text(&ask(connection, &words)), "OK");
                return value;
            }
            other => assert_eq!(other, "busy", "it waits for another"),
        }
    }
}

#[test]
fn many_clients_that_miss_ask_the_source_once() {
    let server = Server::start(&["--threads", "2"]);
    let (calls, start) = (AtomicUsize::new(0), Barrier::new(CLIENTS));
    let load = || {
        calls.fetch_add(1, SeqCst);
        std::thread::sleep(LOADING);
        "from the source".to_owned()
    };
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = server.connect();
                start.wait();
                assert_eq!(read_through(&mut connection, "k", &load), "from the source");
            });
        }
    });
    assert_eq!(calls.load(SeqCst), 1);
}

#[test]
fn when_the_one_who_loads_dies_another_one_does() {
    let server = Server::start(&["--threads", "2"]);
    let (calls, start) = (AtomicUsize::new(1), Barrier::new(CLIENTS / 3 + 1));
    let mut holder = server.connect();
    let reply = ask(&mut holder, &["HC.GET", "k", "LEASE", "60000"]);
    assert_eq!(text(field(&reply, "state")), "lease");
    let load = || {
        calls.fetch_add(1, SeqCst);
        std::thread::sleep(LOADING);
        "from the source".to_owned()
    };
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS / 3 {
            scope.spawn(|| {
                let mut connection = server.connect();
                start.wait();
                assert_eq!(read_through(&mut connection, "k", &load), "from the source");
            });
        }
        start.wait();
        let waiting = || server.info_number("blocked_clients") == CLIENTS as u64 / 3;
        wait_for("all wait", || waiting().then_some(()));
        drop(holder);
    });
    assert_eq!(calls.load(SeqCst), 2);
}

#[test]
fn keys_of_a_tag_are_gone_at_once_and_removed_soon() {
    const KEYS: usize = 20_000;
    let server = Server::start(&["--threads", "2"]);
    let mut connection = server.connect();
    for n in 0..KEYS {
        let key = format!("k{n}");
        ask(&mut connection, &["HC.SET", &key, "value", "TAGS", "t"]);
    }
    ask(&mut connection, &["SET", "other", "1"]);
    let reply = ask(&mut connection, &["HC.TAG.INVALIDATE", "t"]);
    assert_eq!(reply, Reply::Int(KEYS as i64));
    for n in (0..KEYS).step_by(97) {
        assert_eq!(ask(&mut connection, &["GET", &format!("k{n}")]), Reply::Null);
    }
    let is_alone = |connection: &mut _| ask(connection, &["DBSIZE"]) == Reply::Int(1);
    wait_for("they are removed", || is_alone(&mut connection).then_some(()));
}

/// What `redis-cli` prints with these arguments.
fn redis_cli(server: &Server, arguments: &[&str]) -> String {
    let port = server.port.to_string();
    let output = Command::new("redis-cli").args(["-p", &port]).args(arguments).output();
    let output = output.expect("redis-cli is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_tools_of_redis_cli_find_hot_and_big_keys() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lfu"]);
    let mut connection = server.connect();
    for n in 0..50 {
        ask(&mut connection, &["SET", &format!("cold:{n}"), "x"]);
    }
    ask(&mut connection, &["SET", "big", &"x".repeat(5000)]);
    ask(&mut connection, &["RPUSH", "list", "a", "b", "c"]);
    for _ in 0..2000 {
        ask(&mut connection, &["GET", "cold:7"]);
    }
    let hot = redis_cli(&server, &["--hotkeys"]);
    let summary = hot.split("-------- summary -------").nth(1).expect("a summary");
    let first = summary.lines().find(|line| line.contains("keyname")).expect("a key");
    assert!(first.contains("cold:7"), "{hot}");
    let big = redis_cli(&server, &["--bigkeys"]);
    assert!(big.contains("Biggest string found '\"big\"' has 5000 bytes"), "{big}");
    assert!(big.contains("Biggest   list found '\"list\"' has 3 items"), "{big}");
    let by_memory = redis_cli(&server, &["--memkeys"]);
    assert!(by_memory.contains("Biggest string found '\"big\"'"), "{by_memory}");
}
