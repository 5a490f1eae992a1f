//! `--pipe`: requests from standard input to the server as fast as it takes them.
//!
//! One thread copies input to the socket, another reads replies and only counts them, so neither
//! side can stall the other and memory stays bounded by one chunk and one reply. The end is found
//! by a last request of our own, an `ECHO` of random bytes: when they come back, every reply to
//! the input has come back before them, whatever the input was.

use super::shell::write_out;
use anyhow::{Context, bail};
use hypercache_client::{Connection, Error, Reply, Stream, encode_command};
use hypercache_stdx::clock;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Bytes copied at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// How often the reader looks whether it has waited too long.
const TICK: Duration = Duration::from_millis(200);

/// What the reader counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    replies: u64,
    errors: u64,
}

/// Copies standard input to the server; `timeout` of zero waits for the last replies for ever.
pub(crate) fn run(connection: Connection, timeout: Duration) -> anyhow::Result<()> {
    let stream = connection.into_stream();
    let counts = transfer(stream, io::stdin().lock(), timeout, || {
        write_out(b"All data transferred. Waiting for the last reply...\n")
    })?;
    write_out(b"Last reply received from server.\n")?;
    write_out(format!("errors: {}, replies: {}\n", counts.errors, counts.replies).as_bytes())?;
    if counts.errors > 0 {
        bail!("The server refused {} of the requests", counts.errors);
    }
    Ok(())
}

fn transfer(
    mut stream: Stream,
    input: impl Read,
    timeout: Duration,
    on_transferred: impl FnOnce() -> io::Result<()>,
) -> anyhow::Result<Counts> {
    let marker = random_marker();
    let all_sent = AtomicBool::new(false);
    let replies = stream.try_clone().context("The connection cannot be shared")?;
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let result = count_replies(&replies, &marker, &all_sent, timeout);
            if result.is_err() {
                // Wakes the writer, which may be blocked on a server that stopped reading.
                let _ = replies.shutdown();
            }
            result
        });
        let written = send_all(&mut stream, input, &marker);
        if written.is_ok() {
            all_sent.store(true, Ordering::Release);
            on_transferred()?;
        } else {
            let _ = stream.shutdown();
        }
        let counts = reader.join().unwrap_or_else(|_| bail!("The reader of replies failed"));
        // When both failed, the reader knows better why than the writer's broken pipe.
        counts.and_then(|counts| written.map(|()| counts))
    })
}

fn send_all(stream: &mut Stream, mut input: impl Read, marker: &[u8]) -> anyhow::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let len = match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("Standard input cannot be read"),
        };
        stream.write_all(&chunk[..len]).context("The server stopped taking requests")?;
    }
    // The line end completes an inline request that lacks its own; otherwise it is ignored.
    let mut last = b"\r\n".to_vec();
    encode_command(&[b"ECHO", marker], &mut last);
    stream.write_all(&last).context("The server stopped taking requests")
}

/// Counts replies until the marker comes back.
fn count_replies(
    stream: &Stream,
    marker: &[u8],
    all_sent: &AtomicBool,
    timeout: Duration,
) -> anyhow::Result<Counts> {
    stream.set_read_timeout(Some(TICK)).context("The read timeout cannot be set")?;
    let mut connection = Connection::from_stream(stream.try_clone()?);
    let mut counts = Counts::default();
    let mut last_reply = clock::instant();
    loop {
        match connection.read_reply() {
            Ok(Reply::Bulk(bytes)) if bytes == marker => return Ok(counts),
            Ok(Reply::Push(_)) => continue,
            Ok(reply) => count(&reply, &mut counts)?,
            Err(Error::TimedOut) => {
                let waiting = all_sent.load(Ordering::Acquire) && !timeout.is_zero();
                if waiting && last_reply.elapsed() >= timeout {
                    bail!("No replies for {} seconds: exiting.", timeout.as_secs());
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        last_reply = clock::instant();
    }
}

fn count(reply: &Reply, counts: &mut Counts) -> io::Result<()> {
    counts.replies += 1;
    if let Reply::Error(message) = reply {
        counts.errors += 1;
        writeln!(io::stderr(), "{}", String::from_utf8_lossy(message))?;
    }
    Ok(())
}

/// Twenty bytes that no reply to the input is going to be.
fn random_marker() -> Vec<u8> {
    // Every `RandomState` has keys of its own, which makes the hash of anything random.
    let words = [0_u8, 1].map(|word| RandomState::new().hash_one(word));
    format!("{:016x}{:016x}", words[0], words[1]).into_bytes()[..20].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    /// Runs a transfer against a server that writes `answers` and then, if `echo`, the marker.
    fn against(answers: &'static [u8], input: &[u8], echo: bool) -> anyhow::Result<Counts> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let lines = BufReader::new(theirs.try_clone().unwrap()).lines();
            let marker = lines.map_while(Result::ok).skip_while(|line| line != "ECHO").nth(2);
            // The client may hang up on nonsense before it has read all of it.
            let _ = (&theirs).write_all(answers);
            if let (Some(marker), true) = (marker, echo) {
                let _ = (&theirs).write_all(format!("$20\r\n{marker}\r\n").as_bytes());
            }
            thread::sleep(Duration::from_millis(700));
        });
        let result = transfer(Stream::Unix(ours), input, Duration::from_millis(300), || Ok(()));
        server.join().unwrap();
        result
    }

    #[test]
    fn replies_and_errors_are_counted_up_to_the_marker() {
        let counts =
            against(b"+OK\r\n-ERR x\r\n$2\r\nab\r\n", b"PING\r\nX\r\nGET k", true).unwrap();
        assert_eq!(counts, Counts { replies: 3, errors: 1 });
    }

    #[test]
    fn silence_after_the_input_is_an_error() {
        let error = against(b"+OK\r\n", b"PING\r\n", false).unwrap_err();
        assert!(error.to_string().starts_with("No replies for"), "{error}");
    }

    #[test]
    fn nonsense_from_the_server_is_an_error() {
        assert!(against(b"nonsense\r\n", b"PING\r\n", true).is_err());
    }

    #[test]
    fn markers_differ() {
        assert_eq!(random_marker().len(), 20);
        assert_ne!(random_marker(), random_marker());
    }
}
