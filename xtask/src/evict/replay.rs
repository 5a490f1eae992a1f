//! `cargo xtask evict --replay`: traces played to running servers, beside the peers, at equal resident
//! memory.
//!
//! A client reads through the cache: it asks for each object in turn and sets it after a miss. What a
//! server may use is found by trying: its limit is moved until it has grown by what is asked for, as the
//! kernel counts it, since an empty start. Small traces are played as several copies under different
//! names at once, so that there is enough memory to measure.

use super::trace::Trace;
use crate::process::works;
use anyhow::{Context, Result, bail};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PORT: u16 = 7105;
/// Requests that are on their way together. Never two of the same object.
const BATCH: usize = 32;
/// Less memory than this is not measured: what a process needs beside its keys would matter.
const BYTES_MIN: u64 = 24 << 20;
/// How often a limit is moved at most.
const TRIES: usize = 5;
/// How near the memory must come to what is asked for, in thousandths.
const NEAR_PERMILLE: u64 = 20;

/// Who is compared.
struct Contestant {
    name: &'static str,
    program: String,
    speaks: Protocol,
    /// Words before and after the port and the limit.
    args: fn(port: u16, limit: u64) -> Vec<String>,
}

#[derive(Clone, Copy)]
enum Protocol {
    Redis,
    Memcached,
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn redis(port: u16, limit: u64, policy: &str) -> Vec<String> {
    let rest = format!("--port {port} --maxmemory {limit} --maxmemory-policy {policy}");
    [words(&rest), vec!["--save".into(), String::new()]].concat()
}

fn contestants() -> Result<Vec<Contestant>> {
    let peer = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
    let resp = |name, program: &str, args| Contestant {
        name,
        program: program.into(),
        speaks: Protocol::Redis,
        args,
    };
    let all = vec![
        resp("hypercache adaptive", "target/release/hypercache", |port, limit| {
            words(&format!(
                "--port {port} --threads 1 --maxmemory {limit} --maxmemory-policy adaptive"
            ))
        }),
        resp("redis allkeys-lru", &peer, |port, limit| redis(port, limit, "allkeys-lru")),
        resp("redis allkeys-lfu", &peer, |port, limit| redis(port, limit, "allkeys-lfu")),
        Contestant {
            name: "memcached",
            program: "memcached".into(),
            speaks: Protocol::Memcached,
            args: |port, limit| {
                // An item may take half of the memory at most.
                let mib = (limit >> 20).max(2);
                let item = (mib / 2).min(128);
                words(&format!("-p {port} -t 1 -m {mib} -I {item}m -u nobody -l 127.0.0.1"))
            },
        },
    ];
    for contestant in &all[1..] {
        if !works(&contestant.program, &["--version"]) {
            bail!("{} cannot be started: install it, or set REDIS_SERVER", contestant.program);
        }
    }
    Ok(all)
}

/// A server that ends when this does.
struct Running {
    child: Child,
    empty_bytes: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Running {
    fn start(contestant: &Contestant, limit: u64) -> Result<(Running, TcpStream)> {
        let args = (contestant.args)(PORT, limit);
        let mut command = Command::new(&contestant.program);
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running { child: command.spawn()?, empty_bytes: 0 };
        for _ in 0..400 {
            std::thread::sleep(Duration::from_millis(50));
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", PORT)) {
                std::thread::sleep(Duration::from_millis(200));
                running.empty_bytes = running.resident("VmRSS:")?;
                stream.set_nodelay(true)?;
                return Ok((running, stream));
            }
        }
        bail!("{} does not answer on port {PORT}", contestant.program)
    }

    /// A line of the kernel's account of the process, in bytes.
    fn resident(&self, line: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix(line)).context("no such line")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    /// By how much it has grown at most.
    fn growth(&self) -> Result<u64> {
        Ok(self.resident("VmHWM:")?.saturating_sub(self.empty_bytes))
    }
}

/// A client that reads through.
struct Client {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
    speaks: Protocol,
    value: Vec<u8>,
    out: Vec<u8>,
    line: Vec<u8>,
}

impl Client {
    fn new(stream: &TcpStream, speaks: Protocol, value_max: usize) -> Result<Client> {
        let reader = BufReader::with_capacity(1 << 18, stream.try_clone()?);
        let (value, writer) = (vec![b'v'; value_max], stream.try_clone()?);
        Ok(Client { writer, reader, speaks, value, out: Vec::new(), line: Vec::new() })
    }

    /// Asks for the objects, sets those that are missing, and returns how many those were.
    fn read_through(&mut self, batch: &[(String, usize)]) -> Result<usize> {
        for (key, _) in batch {
            match self.speaks {
                Protocol::Redis => {
                    write!(self.out, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len())?
                }
                Protocol::Memcached => write!(self.out, "get {key}\r\n")?,
            }
        }
        self.send()?;
        let mut missing = Vec::new();
        for object in batch {
            if !self.is_hit()? {
                missing.push(object);
            }
        }
        for (key, size) in &missing {
            match self.speaks {
                Protocol::Redis => {
                    let (key_len, out) = (key.len(), &mut self.out);
                    write!(out, "*3\r\n$3\r\nSET\r\n${key_len}\r\n{key}\r\n${size}\r\n")?;
                }
                Protocol::Memcached => write!(self.out, "set {key} 0 0 {size}\r\n")?,
            }
            self.out.extend_from_slice(&self.value[..*size]);
            self.out.extend_from_slice(b"\r\n");
        }
        self.send()?;
        for _ in &missing {
            // A refusal is a miss the next time.
            self.line()?;
        }
        Ok(missing.len())
    }

    fn send(&mut self) -> Result<()> {
        self.writer.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn line(&mut self) -> Result<&str> {
        self.line.clear();
        if self.reader.read_until(b'\n', &mut self.line)? == 0 {
            bail!("the server closed the connection");
        }
        Ok(std::str::from_utf8(&self.line)?.trim_end())
    }

    fn is_hit(&mut self) -> Result<bool> {
        let line = self.line()?;
        let length = match line.as_bytes().first() {
            Some(b'$') if line != "$-1" => line[1..].parse::<usize>()?,
            Some(b'V') => line.rsplit(' ').next().unwrap_or_default().parse()?,
            Some(b'$' | b'E') if line == "$-1" || line == "END" => return Ok(false),
            _ => bail!("unexpected reply: {line}"),
        };
        let end = if matches!(self.speaks, Protocol::Memcached) { "\r\nEND\r\n" } else { "\r\n" };
        let mut rest = (&mut self.reader).take((length + end.len()) as u64);
        std::io::copy(&mut rest, &mut std::io::sink())?;
        Ok(true)
    }
}

/// How a trace is played.
struct Play<'a> {
    trace: &'a Trace,
    copies: u64,
    object_bytes: Option<u32>,
}

impl Play<'_> {
    fn object(&self, id: u32) -> u64 {
        let size = self.trace.sizes[id as usize];
        let given = if self.trace.has_sizes { None } else { self.object_bytes };
        u64::from(given.unwrap_or(size))
    }

    fn footprint(&self) -> u64 {
        (0..self.trace.sizes.len()).map(|id| self.object(id as u32)).sum::<u64>() * self.copies
    }

    /// Plays all to a server under a limit: misses, and the memory it took.
    fn once(&self, contestant: &Contestant, limit: u64) -> Result<(u64, u64)> {
        let (running, stream) = Running::start(contestant, limit)?;
        let largest = (0..self.trace.sizes.len()).map(|id| self.object(id as u32)).max();
        let largest = largest.unwrap_or(0) as usize;
        let mut client = Client::new(&stream, contestant.speaks, largest)?;
        let (mut misses, mut batch, mut within) = (0, Vec::new(), HashSet::new());
        for &id in &self.trace.ids {
            for copy in 0..self.copies {
                if batch.len() == BATCH || !within.insert((copy, id)) {
                    misses += client.read_through(&batch)? as u64;
                    batch.clear();
                    within.clear();
                    within.insert((copy, id));
                }
                let key = format!("{copy}:{id:07}");
                let size = (self.object(id) as usize).saturating_sub(key.len()).max(1);
                batch.push((key, size));
            }
        }
        misses += client.read_through(&batch)? as u64;
        Ok((misses, running.growth()?))
    }

    /// The run whose memory came nearest to what is asked for, without being beyond it by much.
    fn at(&self, contestant: &Contestant, bytes: u64) -> Result<(u64, u64)> {
        let (mut limit, mut best) = (bytes + (1 << 20), None);
        for _ in 0..TRIES {
            let (misses, grown) = self.once(contestant, limit)?;
            let is_nearer =
                |&(_, other): &(u64, u64)| grown.abs_diff(bytes) < other.abs_diff(bytes);
            if best.as_ref().is_none_or(is_nearer) {
                best = Some((misses, grown));
            }
            if grown.abs_diff(bytes) * 1000 <= bytes * NEAR_PERMILLE {
                break;
            }
            limit = (limit + bytes).saturating_sub(grown).max(bytes / 8);
        }
        best.context("no run")
    }
}

/// Plays a trace to all servers and prints a line of the table.
fn play(
    contestants: &[Contestant],
    trace: &Trace,
    (share, object_bytes): (f64, Option<u32>),
) -> Result<()> {
    let mut play = Play { trace, copies: 1, object_bytes };
    let one = (play.footprint() as f64 * share) as u64;
    play.copies = BYTES_MIN.div_ceil(one.max(1)).clamp(1, 64);
    let bytes = one * play.copies;
    let requests = trace.ids.len() as u64 * play.copies;
    print!("| {} | {} | {:.1} |", trace.name, play.copies, bytes as f64 / 1e6);
    for contestant in contestants {
        let (misses, grown) = play.at(contestant, bytes)?;
        let ratio = misses as f64 / requests as f64;
        print!(" {ratio:.4} ({:.1}) |", grown as f64 / 1e6);
        std::io::stdout().flush()?;
    }
    println!();
    Ok(())
}

/// Plays traces at one share of the bytes of all their objects.
pub(super) fn replay(traces: &[Trace], share: f64, object_bytes: Option<u32>) -> Result<()> {
    let contestants = contestants()?;
    let names: Vec<_> = contestants.iter().map(|c| c.name).collect();
    println!("miss ratio (MB by which the process grew)\n");
    println!("| trace | copies | MB | {} |", names.join(" | "));
    println!("|---|---:|---:|{}", "---:|".repeat(names.len()));
    traces.iter().try_for_each(|trace| play(&contestants, trace, (share, object_bytes)))
}
