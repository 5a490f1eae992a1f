//! The submission and completion queues of a worker.

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io::{Error, Result};
use std::time::Duration;

const SUBMISSIONS: u32 = 1024;
const COMPLETIONS: u32 = 4096;

/// See the module's text.
pub(super) struct Ring {
    pub(super) uring: IoUring,
    /// Requests that found no room in the submission queue.
    backlog: VecDeque<squeue::Entry>,
    /// Requests whose last completion did not come yet.
    in_flight: usize,
    flags: EnterFlags,
}

impl Ring {
    /// A ring for the calling thread only.
    pub(super) fn new() -> Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // A worker that waits for requests is idle, not busy with a disk.
        flags.set(EnterFlags::NO_IOWAIT, uring.params().is_feature_no_iowait());
        Ok(Ring { uring, backlog: VecDeque::new(), in_flight: 0, flags })
    }

    /// Queues a request.
    ///
    /// # Safety
    /// Memory that the request names must stay valid, where it is, and untouched until the last
    /// completion of the request has come; descriptors that it names must stay open as long.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        self.in_flight += 1;
        self.backlog.push_back(entry);
        self.move_backlog();
        if !self.backlog.is_empty() {
            // Where this fails, the requests wait for the next turn.
            let _tried_again_later = self.uring.submit();
            self.move_backlog();
        }
    }

    fn move_backlog(&mut self) {
        let mut queue = self.uring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the caller of `Ring::push` keeps what the request names.
            if unsafe { queue.push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// Submits what is queued, and waits for at least `wanted` completions, at most `timeout`.
    pub(super) fn enter(&mut self, wanted: u32, timeout: Duration) -> Result<()> {
        self.move_backlog();
        let queued = self.uring.submission().len() as u32;
        let timeout = Timespec::from(timeout);
        let arguments = SubmitArgs::new().timespec(&timeout);
        let submitter = self.uring.submitter();
        // SAFETY: the flags say that the argument is of the extended kind, which `SubmitArgs` is,
        // and the timeout that it refers to lives until the call returns.
        let result =
            unsafe { submitter.enter(queued, wanted, self.flags.bits(), Some(&arguments)) };
        match result.as_ref().map_err(Errno::from_io_error) {
            Ok(_) => Ok(()),
            // The last two: completions must be taken first.
            Err(Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN)) => Ok(()),
            Err(_) => result.map(drop),
        }
    }

    /// Submits what is queued without waiting.
    pub(super) fn submit(&mut self) {
        if !self.uring.submission().is_empty() {
            // What fails here is submitted, or fails again and is reported, in the next turn.
            let _tried_again_later = self.uring.submit();
        }
    }

    /// Appends the completions that have come.
    pub(super) fn take_completions(&mut self, completions: &mut Vec<cqueue::Entry>) {
        let first = completions.len();
        completions.extend(self.uring.completion());
        let is_last = |entry: &&cqueue::Entry| !cqueue::more(entry.flags());
        self.in_flight -= completions[first..].iter().filter(is_last).count();
    }

    /// Requests whose last completion did not come yet.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// The error number of a completion's result that is below zero.
pub(super) fn errno(result: i32) -> Errno {
    let error = Error::from_raw_os_error(-result);
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
