//! Public clients and tools as their users run them.

use hypercache_tests::{Server, binary, is_installed, request, skipped, wait_for};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder of this package.
pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// Runs a program with `input`, and returns what it printed. It must end well.
fn run<A: AsRef<OsStr>>(program: &Path, args: &[A], input: &[u8]) -> String {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    // It need not read all of it.
    let _closed = writer.join().expect("no panic");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn redis_py() {
    let server = Server::start(&["--unixsocket", "h.sock"]);
    let socket = server.folder().join("h.sock");
    let script = folder("redis_py.py");
    let args = [script.as_os_str(), server.port.to_string().as_ref(), socket.as_os_str()]
        .map(OsStr::to_owned);
    run(Path::new("python3"), &args, b"");
}

/// Installs ioredis beside the build, once. `None`, with a reason printed, where that cannot be.
pub(crate) fn ioredis() -> Option<PathBuf> {
    if !is_installed("node") || !is_installed("npm") {
        skipped("ioredis needs node and npm");
        return None;
    }
    let target = std::env::current_exe().ok()?.ancestors().nth(3)?.join("ioredis");
    std::fs::create_dir_all(&target).expect("a folder");
    for name in ["package.json", "package-lock.json", "smoke.js", "cluster.js", "failover.js"] {
        std::fs::copy(folder("ioredis").join(name), target.join(name)).expect("a copy");
    }
    if !target.join("node_modules/ioredis").is_dir() {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(&target);
        let output = npm.stdin(Stdio::null()).output().expect("npm was there");
        if !output.status.success() {
            skipped("ioredis cannot be downloaded here");
            return None;
        }
    }
    Some(target)
}

#[test]
fn ioredis_smoke() {
    let Some(folder) = ioredis() else { return };
    let (plain, cluster) = (Server::start(&[]), Server::cluster_of_one());
    for (script, server) in [("smoke.js", plain), ("cluster.js", cluster)] {
        let script = folder.join(script);
        run(Path::new("node"), &[script.as_os_str(), server.port.to_string().as_ref()], b"");
    }
}

#[test]
fn redis_py_cluster() {
    let server = Server::cluster_of_one();
    let script = folder("redis_py_cluster.py");
    let args = [script.as_os_str(), server.port.to_string().as_ref()].map(OsStr::to_owned);
    run(Path::new("python3"), &args, b"");
}

/// A command-line client: the program and the words before its options.
struct Tool {
    program: PathBuf,
    words: Vec<String>,
}

impl Tool {
    /// Redis' own, and this project's.
    fn both(server: &Server) -> [Tool; 2] {
        let port = server.port.to_string();
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
        [
            Tool { program: "redis-cli".into(), words: words(&["-p", &port]) },
            Tool { program: binary(), words: words(&["cli", "-p", &port]) },
        ]
    }

    fn args(&self, options: &[&str]) -> Vec<String> {
        self.words.iter().cloned().chain(options.iter().map(|w| (*w).to_owned())).collect()
    }

    fn run(&self, options: &[&str], input: &[u8]) -> String {
        run(&self.program, &self.args(options), input)
    }

    /// Runs a tool that never ends by itself until it has printed `count` lines.
    fn first_lines(&self, options: &[&str], count: usize) -> Vec<String> {
        let mut command = Command::new(&self.program);
        command.args(self.args(options)).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let lines = lines.take(count).collect::<Result<_, _>>().expect("text");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        lines
    }
}

/// A server with 100 keys, of which one is the longest.
fn filled_server() -> Server {
    let server = Server::start(&[]);
    let mut wire = server.wire();
    for i in 0..99 {
        wire.call(&["SET", &format!("key:{i}"), "v"]);
    }
    wire.call(&["SET", "longest", &"v".repeat(5000)]);
    server
}

#[test]
fn command_line_tools_run_commands() {
    let server = filled_server();
    for tool in Tool::both(&server) {
        assert_eq!(tool.run(&["PING"], b"").trim(), "PONG");
        assert_eq!(tool.run(&["-3", "GET", "key:1"], b"").trim(), "v");
        assert_eq!(tool.run(&["-n", "3", "DBSIZE"], b"").trim(), "0");
        assert_eq!(tool.run(&["-x", "SET", "stdin"], b"from a pipe").trim(), "OK");
        assert_eq!(tool.run(&["--no-raw", "GET", "stdin"], b"").trim(), "\"from a pipe\"");
        assert_eq!(tool.run(&[], b"SET two 2\nINCR two\n").split_whitespace().last(), Some("3"));
        assert!(tool.run(&["INFO", "server"], b"").contains("tcp_port:"));
        assert_eq!(tool.run(&["DEL", "stdin", "two"], b"").trim(), "2");
    }
}

#[test]
fn command_line_tools_walk_the_keys() {
    let server = filled_server();
    for tool in Tool::both(&server) {
        let all = tool.run(&["--scan"], b"");
        assert_eq!(all.lines().count(), 100, "{all}");
        let some = tool.run(&["--scan", "--pattern", "key:1?"], b"");
        assert_eq!(some.lines().count(), 10, "{some}");
        for walk in ["--bigkeys", "--memkeys"] {
            let found = tool.run(&[walk], b"");
            assert!(found.contains("longest"), "{walk}: {found}");
            assert!(found.contains("100"), "{walk}: {found}");
        }
    }
}

#[test]
fn command_line_tools_watch_the_server() {
    let server = filled_server();
    for tool in Tool::both(&server) {
        // A heading of up to two lines, then one for each tenth of a second.
        let stat = tool.first_lines(&["--stat", "-i", "0.1"], 5);
        assert!(stat.iter().skip(2).all(|line| line.contains("100")), "{stat:?}");
    }
    let [redis, _] = Tool::both(&server);
    let latency = redis.run(&["--latency", "-i", "1"], b"");
    assert_eq!(latency.split_whitespace().count(), 4, "{latency}");
}

#[test]
fn command_line_tools_pipe() {
    let server = Server::start(&[]);
    for tool in Tool::both(&server) {
        server.ask(&["FLUSHALL"]);
        let requests: Vec<u8> =
            (0..20_000).flat_map(|i| request(&["SET", &format!("key:{i}"), "v"])).collect();
        let said = tool.run(&["--pipe"], &requests);
        assert!(said.contains("errors: 0, replies: 20000"), "{said}");
        wait_for("all keys", || (server.ask(&["DBSIZE"]) == "20000").then_some(()));
    }
}
