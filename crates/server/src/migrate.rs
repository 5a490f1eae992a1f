//! The sockets of MIGRATE: payloads to another server, on a thread for each command under way.
//!
//! How many there are is bounded by [`hypercache_commands::migrate::MIGRATIONS_MAX`]. What became of each
//! key is told to the worker of the client, which does the rest.

use hypercache_commands::Shared;
use hypercache_commands::migrate::{Errand, Migration, Parcel, Target, UNREACHABLE};
use hypercache_commands::shared::Message;
use hypercache_stdx::clock;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};

/// Keys that are sent before their replies are read, so that neither side waits for the other to read.
const WINDOW: usize = 128;
/// No line of a reply is longer.
const LINE_MAX: u64 = 64 * 1024;

/// Sends the keys on a thread of its own, which tells the worker when it is done.
pub(crate) fn start(shared: &Arc<Shared>, migration: Box<Migration>) {
    let (sender, receiver) = mpsc::sync_channel(1);
    let done = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("hc-migrate".into());
    let spawned = thread.spawn(move || {
        if let Ok(migration) = receiver.recv() {
            finish(&done, migration);
        }
    });
    match spawned {
        // The thread waits for it; it ends when it was sent.
        Ok(_) => drop(sender.send(migration)),
        Err(_) => fail(shared, migration, UNREACHABLE),
    }
}

fn fail(shared: &Shared, mut migration: Box<Migration>, text: &str) {
    migration.error.get_or_insert_with(|| text.as_bytes().to_vec());
    shared.send(migration.worker(), Message::Migrated(migration));
}

fn finish(shared: &Shared, mut migration: Box<Migration>) {
    let sent = send_all(&migration.target, &mut migration.parcels);
    match sent {
        Ok(None) => shared.send(migration.worker(), Message::Migrated(migration)),
        Ok(Some(said)) => {
            let text = format!("ERR Target instance replied with error: {said}");
            fail(shared, migration, &text);
        }
        Err(text) => fail(shared, migration, text),
    }
}

const WRITING: &str = "IOERR error or timeout writing to target instance";
const READING: &str = "IOERR error or timeout reading to target instance";

/// Sends the parcels and notes which arrived. Returns the first error that the other server replied.
fn send_all(target: &Target, parcels: &mut [Parcel]) -> Result<Option<String>, &'static str> {
    let stream = connect(target)?;
    let mut replies = BufReader::new(&stream);
    // What is longer than its buffer goes out as it is, without a copy.
    let mut requests = BufWriter::new(&stream);
    let preface = put_preface(target, &mut requests).map_err(|_| WRITING)?;
    requests.flush().map_err(|_| WRITING)?;
    for _ in 0..preface {
        // Without the password or in another database the keys would be lost.
        if let Some(error) = read_reply(&mut replies)? {
            return Ok(Some(error));
        }
    }
    let mut said = None;
    for window in parcels.chunks_mut(WINDOW) {
        let mut sent = Vec::new();
        for parcel in window {
            if put_parcel(&mut requests, parcel).map_err(|_| WRITING)? {
                sent.push(parcel);
            }
        }
        requests.flush().map_err(|_| WRITING)?;
        for parcel in sent {
            match read_reply(&mut replies)? {
                None => parcel.has_arrived = true,
                error => said = said.or(error),
            }
        }
    }
    Ok(said)
}

fn connect(target: &Target) -> Result<TcpStream, &'static str> {
    let addresses = (target.host.as_str(), target.port).to_socket_addrs();
    let mut outcome = Err(UNREACHABLE);
    for address in addresses.map_err(|_| UNREACHABLE)? {
        match TcpStream::connect_timeout(&address, target.timeout) {
            Ok(stream) => {
                prepare(&stream, target).map_err(|_| UNREACHABLE)?;
                return Ok(stream);
            }
            // Redis notices it when it writes.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => outcome = Err(WRITING),
            Err(_) => outcome = Err(UNREACHABLE),
        }
    }
    outcome
}

fn prepare(stream: &TcpStream, target: &Target) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(target.timeout))?;
    stream.set_write_timeout(Some(target.timeout))
}

/// Writes what comes before the keys; returns how many replies there will be.
fn put_preface(target: &Target, requests: &mut impl Write) -> io::Result<usize> {
    let mut count = 1;
    if !target.auth.is_empty() {
        let words = target.auth.iter().map(|word| &word[..]);
        let words: Vec<&[u8]> = std::iter::once(&b"AUTH"[..]).chain(words).collect();
        put_command(requests, &words)?;
        count += 1;
    }
    put_command(requests, &[b"SELECT", target.db.to_string().as_bytes()])?;
    Ok(count)
}

/// Writes the command for a parcel; returns whether there is one.
fn put_parcel(requests: &mut impl Write, parcel: &Parcel) -> io::Result<bool> {
    match parcel.errand(clock::now_ms()) {
        Errand::Nothing => return Ok(false),
        Errand::Delete => put_command(requests, &[b"DEL", &parcel.key])?,
        Errand::Restore(payload, ttl_ms) => {
            let ttl = ttl_ms.to_string();
            let words = [&b"RESTORE"[..], &parcel.key, ttl.as_bytes(), payload, b"REPLACE"];
            put_command(requests, &words[..if parcel.replaces { 5 } else { 4 }])?;
        }
    }
    Ok(true)
}

fn put_command(requests: &mut impl Write, words: &[&[u8]]) -> io::Result<()> {
    write!(requests, "*{}\r\n", words.len())?;
    for word in words {
        write!(requests, "${}\r\n", word.len())?;
        requests.write_all(word)?;
        requests.write_all(b"\r\n")?;
    }
    Ok(())
}

/// Reads the reply to one command, a single line; answers the error, if it is one.
fn read_reply(replies: &mut impl BufRead) -> Result<Option<String>, &'static str> {
    let mut line = Vec::new();
    replies.take(LINE_MAX).read_until(b'\n', &mut line).map_err(|_| READING)?;
    let line = line.strip_suffix(b"\r\n").ok_or(READING)?;
    let error = line.strip_prefix(b"-");
    Ok(error.map(|text| String::from_utf8_lossy(text).into_owned()))
}
