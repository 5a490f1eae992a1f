//! Instructions of a GET and of a SET, counted by valgrind's callgrind.
//!
//! A count says the same on any machine and however busy it is, so a change of a percent shows in
//! one run. What it leaves out: the kernel, and waiting for memory. It is the difference of two runs
//! that differ only in how many commands they get, so what starting, loading and stopping cost
//! cancels; what a turn of the event loop costs is shared by the commands of one pipeline.

use crate::process::{cargo, works};
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const KEYS: u64 = 20_000;
const VALUE_BYTES: usize = 64;
const PIPELINE: usize = 16;
const COMMANDS: usize = 160_000;
const PORT: u16 = 7101;

/// What is counted.
#[derive(Clone, Copy)]
struct Workload {
    name: &'static str,
    request: fn(u64) -> Vec<u8>,
    reply_bytes: usize,
}

const WORKLOADS: [Workload; 2] = [
    Workload { name: "GET", request: get, reply_bytes: VALUE_BYTES + "$64\r\n\r\n".len() },
    Workload { name: "SET", request: set, reply_bytes: "+OK\r\n".len() },
];

fn get(key: u64) -> Vec<u8> {
    format!("*2\r\n$3\r\nGET\r\n$16\r\nkey:{key:012}\r\n").into_bytes()
}

fn set(key: u64) -> Vec<u8> {
    let value = "v".repeat(VALUE_BYTES);
    format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${VALUE_BYTES}\r\n{value}\r\n").into_bytes()
}

/// Counts with the back ends named, or with both, and prints a line of each.
pub(crate) fn instructions(back_ends: &[&str]) -> Result<()> {
    if !works("valgrind", &["--version"]) {
        bail!("valgrind is not installed");
    }
    cargo(&["build", "--release", "--package", "hypercache"])?;
    let back_ends = if back_ends.is_empty() { &["epoll", "uring"][..] } else { back_ends };
    println!("instructions in user space per command, pipeline {PIPELINE}, {KEYS} keys");
    for io in back_ends {
        // The kernel or valgrind may not have io_uring: the other back end's figures stand.
        if let Err(error) = count(io) {
            println!("{io:6} could not be measured: {error:#}");
        }
    }
    Ok(())
}

fn count(io: &str) -> Result<()> {
    let base = total(io, WORKLOADS[0], 0)?;
    for workload in WORKLOADS {
        let with = total(io, workload, COMMANDS)?;
        let each = with.saturating_sub(base) as f64 / COMMANDS as f64;
        println!("{io:6} {} {each:7.1}", workload.name);
    }
    Ok(())
}

/// A server under callgrind. Ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // After a measurement it has ended; after an error it is being thrown away.
        let _ended_already = self.0.kill();
        let _ended_already = self.0.wait();
    }
}

/// Instructions of a server's life in which it is loaded and then gets `commands` of a workload.
/// The profile is kept for `callgrind_annotate`.
fn total(io: &str, workload: Workload, commands: usize) -> Result<u64> {
    let profile = format!("target/callgrind.{io}.{}.{commands}", workload.name);
    let child = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--callgrind-out-file={profile}")])
        .args(["target/release/hypercache", "--port", &PORT.to_string(), "--threads", "1"])
        .args(["--io", io, "--enable-debug-command", "local"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut server = Server(child);
    let mut client = connect()?;
    // The timers' work goes by the clock and not by the command.
    exchange(&mut client, b"DEBUG SET-ACTIVE-EXPIRE 0\r\n", "+OK\r\n".len())?;
    let keys: Vec<u64> = (0..KEYS).collect();
    send_all(&mut client, WORKLOADS[1], &keys)?;
    let mut state = 1;
    let keys: Vec<u64> = (0..commands).map(|_| random(&mut state) % KEYS).collect();
    send_all(&mut client, workload, &keys)?;
    client.write_all(b"SHUTDOWN NOSAVE\r\n")?;
    server.0.wait()?;
    let profile = std::fs::read_to_string(&profile).context("callgrind wrote no profile")?;
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.context("the profile has no total")?.trim().parse()?)
}

fn connect() -> Result<TcpStream> {
    for _ in 0..600 {
        if let Ok(client) = TcpStream::connect(("127.0.0.1", PORT)) {
            client.set_nodelay(true)?;
            client.set_read_timeout(Some(Duration::from_secs(60)))?;
            return Ok(client);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("the server does not answer on port {PORT}")
}

/// Sends a request for each key, and the next ones when the replies to those of a pipeline are here.
fn send_all(client: &mut TcpStream, workload: Workload, keys: &[u64]) -> Result<()> {
    for keys in keys.chunks(PIPELINE) {
        let requests: Vec<u8> = keys.iter().flat_map(|key| (workload.request)(*key)).collect();
        exchange(client, &requests, keys.len() * workload.reply_bytes)?;
    }
    Ok(())
}

/// Sends requests and takes as many bytes of replies; an error reply is shorter and ends in time.
fn exchange(client: &mut TcpStream, requests: &[u8], reply_bytes: usize) -> Result<()> {
    client.write_all(requests)?;
    let mut replies = vec![0; reply_bytes];
    client.read_exact(&mut replies)?;
    if replies[0] == b'-' {
        bail!("the server answered {:?}", String::from_utf8_lossy(&replies));
    }
    Ok(())
}

/// Xorshift (Marsaglia 2003): the keys of all runs are the same.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
