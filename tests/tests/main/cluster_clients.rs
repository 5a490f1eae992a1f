//! Public cluster clients and tools, against three nodes of which one is killed.

use crate::clients::{folder, ioredis};
use hypercache_tests::cluster::{Nodes, Plan};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

fn ports(nodes: &Nodes) -> Vec<OsString> {
    (0..nodes.len()).map(|i| nodes.port(i).to_string().into()).collect()
}

/// Runs a client that writes until its input ends; meanwhile a node is killed and comes back.
fn survives(mut command: Command, nodes: &mut Nodes) {
    command.args(ports(nodes));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let first = lines.next().expect("a line").expect("text");
    assert_eq!(first, "writing");
    nodes.kill(1);
    std::thread::sleep(Duration::from_secs(3));
    nodes.start_node(1);
    nodes.wait_until_well();
    std::thread::sleep(Duration::from_millis(500));
    drop(child.stdin.take());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let status = child.wait().expect("it ends");
    let mut stderr = String::new();
    let mut pipe = child.stderr.take().expect("a pipe");
    pipe.read_to_string(&mut stderr).expect("text");
    assert!(status.success(), "{command:?}: {rest:?}\n{stderr}");
    assert!(rest.last().is_some_and(|line| line.contains("3 nodes known")), "{rest:?}");
}

#[test]
fn redis_py_through_a_failover() {
    let mut nodes = Nodes::start(Plan::default());
    let mut command = Command::new("python3");
    command.arg(folder("redis_py_failover.py"));
    survives(command, &mut nodes);
}

#[test]
fn ioredis_through_a_failover() {
    let Some(folder) = ioredis() else { return };
    let mut nodes = Nodes::start(Plan::default());
    let mut command = Command::new("node");
    command.arg(folder.join("failover.js"));
    survives(command, &mut nodes);
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}\n{stderr}");
    text
}

#[test]
fn redis_tools_before_and_after_a_failover() {
    let mut nodes = Nodes::start(Plan::default());
    let port = nodes.port(0).to_string();
    let round = |value: &str| {
        for n in 0..30 {
            let key = format!("cli:{n}");
            let set = output("redis-cli", &["-c", "-p", &port, "SET", &key, value]);
            assert_eq!(set.trim(), "OK");
            let get = output("redis-cli", &["-c", "-p", &port, "GET", &key]);
            assert_eq!(get.trim(), value);
        }
        let args = ["--cluster", "-p", &port, "-t", "set,get", "-n", "20000", "-c", "20", "-q"];
        let bench = output("redis-benchmark", &args);
        assert!(bench.contains("requests per second"), "{bench}");
    };
    round("before");
    let check = output("redis-cli", &["--cluster", "check", &format!("127.0.0.1:{port}")]);
    assert!(check.contains("[OK] All 16384 slots covered"), "{check}");
    nodes.kill(2);
    std::thread::sleep(Duration::from_secs(3));
    round("after");
    nodes.start_node(2);
    nodes.wait_until_well();
    round("again");
}
