//! `cargo xtask soak`: a server at its memory limit for minutes, under writes whose sizes shift from 64
//! bytes to 4 KiB and back, with deadlines and with clients that do not take their replies. Shows how much
//! of `maxmemory` was resident at most, how much of it is keys and values in the end, and how long one
//! write at a time took meanwhile.

use crate::process::cargo;
use anyhow::{Context, Result, bail};
use hypercache_stdx::clock;
use hypercache_stdx::rng::Rng;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Commands that a writer sends at a time.
const PIPELINE: u64 = 32;
const SLOW_READERS: usize = 200;
/// Keys written, far more than there is room for.
const KEYS: u64 = 5_000_000;
/// Median length of a value at the least and at the most.
const VALUE_BYTES: (f64, f64) = (64.0, 4096.0);

/// What is asked for.
struct Options<'a> {
    minutes: f64,
    maxmemory: &'a str,
    /// A server that is built already.
    binary: Option<&'a str>,
    port: u16,
    /// Further flags of the server.
    flags: Vec<&'a str>,
}

impl<'a> Options<'a> {
    fn parse(words: &[&'a str]) -> Result<Options<'a>> {
        let mut options = Options {
            minutes: 5.0,
            maxmemory: "256mb",
            binary: None,
            port: 7105,
            flags: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word {
                "--minutes" => options.minutes = value()?.parse()?,
                "--maxmemory" => options.maxmemory = value()?,
                "--binary" => options.binary = Some(value()?),
                "--port" => options.port = value()?.parse()?,
                "--" => options.flags = words.by_ref().copied().collect(),
                other => bail!("no such option: {other}"),
            }
        }
        Ok(options)
    }
}

/// A server that ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It is being thrown away: whether it still ran does not matter.
        let _ended_already = self.0.kill();
        let _ended_already = self.0.wait();
    }
}

/// A connection, and what was read ahead of it.
struct Wire(BufReader<TcpStream>);

impl Wire {
    fn connect(port: u16) -> Result<Wire> {
        for _ in 0..200 {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                stream.set_nodelay(true)?;
                return Ok(Wire(BufReader::new(stream)));
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("the server does not answer on port {port}")
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.0.get_mut().write_all(bytes)?)
    }

    /// A reply: its text, or the items of an array one after the other.
    fn read(&mut self, items: &mut Vec<Vec<u8>>) -> Result<()> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let text = line.trim_end();
        let (Some(kind), number) = (text.chars().next(), text.get(1..).unwrap_or_default()) else {
            bail!("the server closed the connection");
        };
        match kind {
            '$' if number.starts_with('-') => {}
            '$' => {
                let mut bytes = vec![0; number.parse::<usize>()? + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                items.push(bytes);
            }
            '*' => (0..number.parse::<usize>()?).try_for_each(|_| self.read(items))?,
            _ => items.push(text.as_bytes().to_vec()),
        }
        Ok(())
    }

    fn ask(&mut self, command: &str) -> Result<Vec<Vec<u8>>> {
        self.send(format!("{command}\r\n").as_bytes())?;
        let mut items = Vec::new();
        self.read(&mut items)?;
        Ok(items)
    }
}

/// What all threads share.
#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    /// Median length of values now.
    value_bytes: AtomicU64,
    writes: AtomicU64,
    refused: AtomicU64,
}

/// Runs the soak.
pub(crate) fn soak(words: &[&str]) -> Result<()> {
    let options = Options::parse(words)?;
    if options.binary.is_none() {
        cargo(&["build", "--release", "--package", "hypercache"])?;
    }
    let program = options.binary.unwrap_or("target/release/hypercache");
    let port = options.port.to_string();
    let mut command = Command::new(program);
    command.args(["--port", &port, "--maxmemory", options.maxmemory]);
    command.args(["--maxmemory-policy", "adaptive", "--maxmemory-clients", "3%"]);
    command.args(&options.flags).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Server(command.spawn().with_context(|| format!("cannot start {program}"))?);
    let mut control = Wire::connect(options.port)?;
    let reply = control.ask("CONFIG GET maxmemory")?;
    let limit: u64 = String::from_utf8_lossy(reply.last().context("no reply")?).parse()?;
    let shared = Shared::default();
    thread::scope(|scope| {
        let (port, shared) = (options.port, &shared);
        for n in 0..2 {
            scope.spawn(move || write(port, shared, n));
        }
        scope.spawn(move || read_slowly(port, shared));
        let result = watch(&options, shared, server.0.id(), limit);
        shared.is_over.store(true, Relaxed);
        result
    })?;
    report(&mut control, server.0.id(), limit)?;
    let most = from_status(server.0.id(), "VmHWM:")? as f64 / limit as f64;
    println!("resident at most, as the kernel has it: {most:.4} of maxmemory");
    Ok(())
}

/// Watches what is resident, and writes one key at a time.
fn watch(options: &Options<'_>, shared: &Shared, process: u32, limit: u64) -> Result<()> {
    let seconds = options.minutes * 60.0;
    let (started_us, mut most, mut times) = (clock::mono_us(), 0, Vec::new());
    let elapsed_s = || (clock::mono_us() - started_us) as f64 / 1e6;
    let mut wire = Wire::connect(options.port)?;
    let mut told = 0;
    println!("of {} MiB:", limit >> 20);
    println!("   s  value  resident    used      evicted  slowest write, ms");
    let (mut most_now, mut slowest) = (0, 0.0_f64);
    while elapsed_s() < seconds {
        let part = elapsed_s() / seconds;
        let up = 1.0 - (2.0 * part - 1.0).abs();
        let median = VALUE_BYTES.0 * (VALUE_BYTES.1 / VALUE_BYTES.0).powf(up);
        shared.value_bytes.store(median as u64, Relaxed);
        thread::sleep(Duration::from_millis(10));
        let resident = resident(process)?;
        most_now = most_now.max(resident);
        let before_us = clock::mono_us();
        wire.ask("SET one-at-a-time value")?;
        let took = (clock::mono_us() - before_us) as f64 / 1000.0;
        times.push(took);
        slowest = slowest.max(took);
        if (part * 20.0) as u32 > told {
            told += 1;
            let share = |bytes: u64| bytes as f64 / limit as f64;
            let used = share(info(&mut wire, "used_memory")?);
            let (evicted, most_now_share) = (info(&mut wire, "evicted_keys")?, share(most_now));
            println!(
                "{:4.0} {median:6.0}  {most_now_share:8.4} {used:7.4} {evicted:12} {slowest:10.1}",
                part * seconds,
            );
            most = most.max(most_now);
            (most_now, slowest) = (0, 0.0);
        }
    }
    most = most.max(most_now);
    times.sort_by(f64::total_cmp);
    let share = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let writes = shared.writes.load(Relaxed);
    println!(
        "{writes} writes ({:.0} a second), {} refused; one at a time: median {:.2} ms, p99 {:.2} ms, \
         p99.9 {:.2} ms",
        writes as f64 / seconds,
        shared.refused.load(Relaxed),
        share(0.5),
        share(0.99),
        share(0.999)
    );
    println!("resident at most: {:.4} of maxmemory", most as f64 / limit as f64);
    Ok(())
}

/// A client that writes as fast as it can; every fourth key has a deadline.
fn write(port: u16, shared: &Shared, number: u64) -> Result<()> {
    let (mut wire, mut rng) = (Wire::connect(port)?, Rng::new(number));
    let value = vec![b'v'; 16 << 10];
    let mut replies = Vec::new();
    while !shared.is_over.load(Relaxed) {
        let mut requests = Vec::new();
        for i in 0..PIPELINE {
            let median = shared.value_bytes.load(Relaxed);
            let len = median / 2 + rng.below(median + 1);
            let (key, value) = (rng.below(KEYS), &value[..len as usize]);
            let deadline = if i % 4 == 0 { rng.below(60_000) + 1000 } else { 0 };
            let words = if deadline == 0 { 3 } else { 5 };
            write!(requests, "*{words}\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${len}\r\n")?;
            requests.extend_from_slice(value);
            requests.extend_from_slice(b"\r\n");
            if deadline > 0 {
                write!(requests, "$2\r\nPX\r\n${}\r\n{deadline}\r\n", deadline.to_string().len())?;
            }
        }
        wire.send(&requests)?;
        replies.clear();
        (0..PIPELINE).try_for_each(|_| wire.read(&mut replies))?;
        let refused = replies.iter().filter(|reply| reply[0] == b'-').count() as u64;
        shared.refused.fetch_add(refused, Relaxed);
        shared.writes.fetch_add(PIPELINE - refused, Relaxed);
    }
    Ok(())
}

/// Clients that ask for much and read little of it. Those that are closed come again.
fn read_slowly(port: u16, shared: &Shared) -> Result<()> {
    let mut rng = Rng::new(7);
    let mut clients = Vec::new();
    while !shared.is_over.load(Relaxed) {
        if clients.len() < SLOW_READERS {
            clients.push(TcpStream::connect(("127.0.0.1", port))?);
        }
        let mut buffer = [0; 1024];
        clients.retain_mut(|client: &mut TcpStream| {
            let mut requests = Vec::new();
            // Once a second.
            let count = if rng.below(50) == 0 { PIPELINE } else { 0 };
            for _ in 0..count {
                let key = rng.below(KEYS);
                requests.extend(format!("GET key:{key:012}\r\n").into_bytes());
            }
            let is_open = client.set_nonblocking(true).is_ok();
            // What the socket does not take is as good as not asked.
            let _asked = client.write(&requests);
            is_open && !matches!(client.read(&mut buffer), Ok(0))
        });
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Says how much of what is resident is keys and values.
fn report(control: &mut Wire, process: u32, limit: u64) -> Result<()> {
    let (mut cursor, mut keys, mut payload) = ("0".to_owned(), 0, 0);
    loop {
        let mut found = control.ask(&format!("SCAN {cursor} COUNT 500"))?.into_iter();
        cursor = String::from_utf8(found.next().context("no cursor")?)?;
        let found: Vec<Vec<u8>> = found.collect();
        let mut requests = Vec::new();
        for key in &found {
            requests.extend([b"STRLEN ", &key[..], b"\r\n"].concat());
        }
        control.send(&requests)?;
        let mut lengths = Vec::new();
        found.iter().try_for_each(|_| control.read(&mut lengths))?;
        keys += found.len();
        payload += found.iter().map(Vec::len).sum::<usize>();
        for length in lengths {
            payload += String::from_utf8_lossy(&length).trim_start_matches(':').parse::<usize>()?;
        }
        if cursor == "0" {
            break;
        }
    }
    let share = |bytes: u64| bytes as f64 / limit as f64;
    println!(
        "at the end: {keys} keys, {:.4} of maxmemory is keys and values, {:.4} is resident",
        share(payload as u64),
        share(resident(process)?)
    );
    let text = control.ask("INFO memory")?;
    let text = String::from_utf8_lossy(text.first().context("no reply")?).into_owned();
    for line in text
        .lines()
        .filter(|line| line.starts_with("resident_") || line.starts_with("used_memory:"))
    {
        println!("  {line}");
    }
    Ok(())
}

fn info(wire: &mut Wire, name: &str) -> Result<u64> {
    let text = wire.ask("INFO everything")?;
    let text = String::from_utf8_lossy(text.first().context("no reply")?).into_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.context("no such field")?.parse()?)
}

fn resident(process: u32) -> Result<u64> {
    from_status(process, "VmRSS:")
}

fn from_status(process: u32, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
