//! The processor time a local server uses, from the scheduler's own books.
//!
//! `/proc/PID/task/TID/schedstat` begins with the nanoseconds a thread has run, far finer than
//! the clock ticks of `/proc/PID/stat`. Threads that end between two readings take their time
//! with them, which servers of this kind do not do.

use super::generator;
use hypercache_client::Endpoint;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A server process on this machine.
#[derive(Clone, Debug)]
pub(crate) struct ServerCpu {
    tasks: PathBuf,
}

impl ServerCpu {
    /// Finds the process behind `endpoint`; `None` if it is elsewhere or cannot be looked at.
    pub(crate) fn find(endpoint: &Endpoint) -> Option<ServerCpu> {
        if !endpoint.address.is_local() {
            return None;
        }
        let mut connection = generator::connect(endpoint).ok()?;
        let info = connection.command(&["INFO", "server"]).ok()?;
        let pid = process_id(&info.as_text()?)?;
        let server = ServerCpu { tasks: PathBuf::from(format!("/proc/{pid}/task")) };
        server.run_time().map(|_| server)
    }

    /// The time all threads of the process have run so far.
    pub(crate) fn run_time(&self) -> Option<Duration> {
        let mut total = 0_u64;
        for task in fs::read_dir(&self.tasks).ok()?.flatten() {
            // A thread may have ended since the directory was read.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            total += run_nanoseconds(&text)?;
        }
        (total > 0).then(|| Duration::from_nanos(total))
    }
}

fn process_id(info: &str) -> Option<u32> {
    info.lines().find_map(|line| line.strip_prefix("process_id:"))?.trim().parse().ok()
}

fn run_nanoseconds(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        assert_eq!(process_id("# Server\r\nprocess_id:123\r\n"), Some(123));
        assert_eq!(process_id("tcp_port:1\r\n"), None);
        assert_eq!(run_nanoseconds("1234 5 6\n"), Some(1234));
        assert_eq!(run_nanoseconds(""), None);
    }

    #[test]
    fn our_own_time_passes() {
        let own = ServerCpu { tasks: "/proc/self/task".into() };
        let Some(mut before) = own.run_time() else { return };
        // Time of the other tests' threads is no longer counted when they end.
        let mut sum = 0_u64;
        loop {
            sum = std::hint::black_box(sum.wrapping_add(1));
            let now = own.run_time().expect("it could be read before");
            if now > before {
                return;
            }
            before = before.min(now);
        }
    }
}
