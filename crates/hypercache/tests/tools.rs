//! The command-line tools as processes, against a server of a few lines: what they print, where,
//! and with which status they exit.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread;

/// Runs the binary with `args` and `input`.
fn hypercache(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hypercache"))
        .args(args)
        .env_remove("REDISCLI_AUTH")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A tool that refuses its options does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Starts a server and returns its port.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || serve(&socket));
        }
    });
    port.to_string()
}

/// Answers PING, ECHO, SET, and GET; everything else is an error.
fn serve(mut socket: &TcpStream) {
    let mut input = BufReader::new(socket.try_clone().unwrap());
    while let Some(words) = read_request(&mut input) {
        let answer = match words[0].to_ascii_uppercase().as_str() {
            "PING" => "+PONG\r\n".to_string(),
            "ECHO" => format!("${}\r\n{}\r\n", words[1].len(), words[1]),
            "SET" => "+OK\r\n".to_string(),
            "GET" => "*2\r\n$3\r\na\nb\r\n:7\r\n".to_string(),
            _ => "-ERR unknown\r\n".to_string(),
        };
        if socket.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(input: &mut impl BufRead) -> Option<Vec<String>> {
    let count = loop {
        let line = read_line(input)?;
        match line.strip_prefix('*') {
            Some(count) => break count.parse::<usize>().ok()?,
            None if line.is_empty() => continue,
            None => return Some(line.split(' ').map(String::from).collect()),
        }
    };
    (0..count).map(|_| read_bulk(input)).collect()
}

fn read_bulk(input: &mut impl BufRead) -> Option<String> {
    let len: usize = read_line(input)?.strip_prefix('$')?.parse().ok()?;
    let mut bytes = vec![0; len + 2];
    input.read_exact(&mut bytes).ok()?;
    String::from_utf8(bytes[..len].to_vec()).ok()
}

fn read_line(input: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    (input.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_string())
}

#[test]
fn one_command_prints_raw_into_a_pipe_and_marked_when_asked() {
    let port = server();
    let raw = hypercache(&["cli", "-p", &port, "GET", "k"], "");
    assert_eq!(text(&raw.stdout), "a\nb\n7\n");
    let marked = hypercache(&["cli", "-p", &port, "--no-raw", "GET", "k"], "");
    assert_eq!(text(&marked.stdout), "1) \"a\\nb\"\n2) (integer) 7\n");
    assert!(marked.status.success());
}

#[test]
fn errors_decide_the_exit_status_only_when_asked() {
    let port = server();
    let plain = hypercache(&["cli", "-p", &port, "NOPE"], "");
    assert_eq!((plain.status.code(), text(&plain.stdout)), (Some(0), "ERR unknown\n\n".into()));
    let strict = hypercache(&["cli", "-p", &port, "-e", "NOPE"], "");
    assert_eq!((strict.status.code(), text(&strict.stdout)), (Some(1), String::new()));
    assert_eq!(text(&strict.stderr), "ERR unknown\n");
}

#[test]
fn scripts_run_line_by_line() {
    let port = server();
    let script = "ping\n\n2 set 'a b' \"\\x41\"\nget \"x\nquit\nping\n";
    let output = hypercache(&["cli", "-p", &port], script);
    assert_eq!(text(&output.stdout), "PONG\nOK\nOK\nInvalid argument(s)\n");
}

#[test]
fn the_last_argument_can_come_from_standard_input() {
    let port = server();
    let output = hypercache(&["cli", "-p", &port, "-x", "ECHO"], "from\nstdin");
    assert_eq!(text(&output.stdout), "from\nstdin\n");
}

#[test]
fn pipes_count_replies_and_errors() {
    let port = server();
    let clean = hypercache(&["cli", "-p", &port, "--pipe"], "PING\r\nSET a b\r\n");
    assert!(clean.status.success());
    assert!(text(&clean.stdout).ends_with("errors: 0, replies: 2\n"), "{clean:?}");
    let failing = hypercache(&["cli", "-p", &port, "--pipe"], "PING\r\nNOPE");
    assert_eq!(failing.status.code(), Some(1));
    assert!(text(&failing.stdout).ends_with("errors: 1, replies: 2\n"), "{failing:?}");
}

#[test]
fn a_refused_connection_is_one_sentence() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    for args in [&["cli", "-p", &port, "ping"][..], &["bench", "-p", &port]] {
        let output = hypercache(args, "");
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.starts_with("Could not connect to 127.0.0.1:"), "{message}");
    }
}

#[test]
fn wrong_usage_exits_with_two() {
    for args in [&["cli", "--nope"][..], &["bench", "--nope"], &["bench", "--workload", "x"]] {
        assert_eq!(hypercache(args, "").status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_bench_run_reports_json() {
    let port = server();
    let args = ["bench", "-p", &port, "--workload", "set", "--keys", "50", "--requests", "200"];
    let output = hypercache(&[&args[..], &["-c", "4", "-P", "5", "--json"]].concat(), "");
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["replies"], 200);
    assert_eq!(report["errors"], 0);
}

#[test]
fn error_replies_fail_a_bench_run() {
    let port = server();
    let args = ["bench", "-p", &port, "--workload", "incr", "--requests", "10", "-c", "1"];
    let output = hypercache(&args, "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("errors       10, the first: ERR unknown"), "{output:?}");
}

#[test]
fn a_comparison_gives_paired_ratios() {
    let (first, second) = (server(), format!("127.0.0.1:{}", server()));
    let args = ["bench", "-p", &first, "--against", &second, "--workload", "ping", "-c", "2"];
    let rest = ["--rounds", "3", "--window-ms", "20", "--warmup", "0", "--json"];
    let output = hypercache(&[&args[..], &rest[..]].concat(), "");
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let ratio = &report["comparison"]["throughput_ops"]["ratio"];
    assert!(ratio["p25"].as_f64() <= ratio["median"].as_f64(), "{ratio}");
    assert!(ratio["median"].as_f64().unwrap() > 0.0);
    // A server that does not tell its process has no processor time to compare.
    assert!(report["comparison"]["cpu_us_per_op"].is_null());
}
