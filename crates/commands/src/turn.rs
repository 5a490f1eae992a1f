//! Whose turn it is to run a script, and what others may know of it and ask of it.
//!
//! Scripts run one at a time in the whole process. A script takes the turn first, then the
//! partitions of its declared keys. When it touches a key that it did not declare it takes that
//! partition as well, in any order, without danger of a deadlock: commands that wait for a partition
//! while they hold another give theirs back and begin anew ([`Turn::wants_more`]); all other holders
//! of a partition wait for nothing; and no other script holds one. So a script is never stopped half
//! way for a lock, and commands on other partitions run beside it.
//!
//! What was tried on paper: scripts in parallel under the locks of declared keys alone. Two that have
//! both written and then reach for each other's partition cannot both go on, so one of them would be
//! half applied; only undo would help, and it costs every script what few need.

use parking_lot::{Mutex, MutexGuard};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// How often one who waits looks whether to wait on.
const PATIENCE: Duration = Duration::from_millis(1);

/// What a client is told who asks for what a script holds beyond `busy-reply-threshold`.
const BUSY_SCRIPT: &str =
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
const BUSY_FUNCTION: &str =
    "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";
const NOT_BUSY: &str = "NOTBUSY No scripts in execution right now.";
const UNKILLABLE: &str = "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.";

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A script of EVAL.
    Script,
    /// A function of FCALL.
    Function,
}

const IDLE: u8 = 0;

/// Called with the number of a worker while its script takes long: the worker cannot look after its
/// connections, so this does, as far as needed.
pub type Watcher = Box<dyn Fn(usize) + Send + Sync>;

/// Answers to KILL that are kept; a further client is told that no script runs.
const OWED_MAX: usize = 64;

/// How often that is, in ms.
const WATCH_MS: u64 = 20;

/// See the module's text.
#[derive(Default)]
pub struct Turn {
    turn: Mutex<()>,
    /// [`IDLE`], or a [`Kind`] plus one.
    state: AtomicU8,
    /// When the script began, on the clock that never goes back.
    started_ms: AtomicU64,
    has_written: AtomicBool,
    /// It runs longer than `busy-reply-threshold`.
    is_busy: AtomicBool,
    /// The worker that runs it, if so.
    busy_worker: AtomicUsize,
    /// Answers to KILL that clients will get whose worker is the one that runs the script.
    owed: Mutex<Vec<(u64, Result<(), &'static str>)>>,
    is_killed: AtomicBool,
    /// The server stops: no script goes on.
    is_stopping: AtomicBool,
    wants_more: AtomicBool,
    watcher: OnceLock<Watcher>,
    watched_ms: AtomicU64,
    /// Name and command of a function that runs, for FUNCTION STATS.
    about: Mutex<Option<About>>,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Turn({:?})", self.running())
    }
}

/// What FUNCTION STATS tells of a function that runs.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The function's name.
    pub name: Vec<u8>,
    /// The command that called it.
    pub command: Vec<Vec<u8>>,
}

impl Turn {
    /// Waits for the turn; `None` when a script keeps it beyond `busy-reply-threshold`.
    #[inline]
    pub(crate) fn take(&self) -> Option<MutexGuard<'_, ()>> {
        self.turn.try_lock().or_else(|| self.take_slowly())
    }

    #[cold]
    fn take_slowly(&self) -> Option<MutexGuard<'_, ()>> {
        loop {
            if let Some(turn) = self.turn.try_lock_for(PATIENCE) {
                return Some(turn);
            }
            if self.is_busy() {
                return None;
            }
        }
    }

    /// Notes that a script begins, in whose turn.
    pub fn begin(&self, kind: Kind, now_ms: u64, about: Option<About>) {
        self.started_ms.store(now_ms, Relaxed);
        self.has_written.store(false, Relaxed);
        self.is_killed.store(false, Relaxed);
        if about.is_some() {
            *self.about.lock() = about;
        }
        self.state.store(kind as u8 + 1, Relaxed);
    }

    /// Notes that the script ended.
    pub fn end(&self) {
        if self.state.swap(IDLE, Relaxed) == Kind::Function as u8 + 1 {
            *self.about.lock() = None;
        }
        self.is_busy.store(false, Relaxed);
    }

    /// What runs now.
    #[must_use]
    pub fn running(&self) -> Option<Kind> {
        match self.state.load(Relaxed) {
            IDLE => None,
            1 => Some(Kind::Script),
            _ => Some(Kind::Function),
        }
    }

    /// What FUNCTION STATS tells of the function that runs.
    #[must_use]
    pub fn about(&self) -> Option<About> {
        self.about.lock().clone()
    }

    /// When the script began, on the clock that never goes back.
    #[must_use]
    pub fn started_ms(&self) -> u64 {
        self.started_ms.load(Relaxed)
    }

    /// Notes that the script ran a command that writes.
    pub fn note_write(&self) {
        self.has_written.store(true, Relaxed);
    }

    /// Whether the script ran a command that writes.
    #[must_use]
    pub fn has_written(&self) -> bool {
        self.has_written.load(Relaxed)
    }

    /// Notes that the script, which `worker` runs, takes longer than `busy-reply-threshold`. Called
    /// again and again while it does.
    pub fn note_busy(&self, worker: usize, now_ms: u64) {
        if !self.is_busy() {
            self.busy_worker.store(worker, Relaxed);
            self.owed.lock().clear();
            self.is_busy.store(true, Relaxed);
        }
        if let Some(watcher) = self.watcher.get()
            && now_ms >= self.watched_ms.load(Relaxed) + WATCH_MS
        {
            self.watched_ms.store(now_ms, Relaxed);
            watcher(worker);
        }
    }

    /// The worker whose script takes longer than `busy-reply-threshold`.
    #[must_use]
    pub fn busy_worker(&self) -> Option<usize> {
        self.is_busy().then(|| self.busy_worker.load(Relaxed))
    }

    /// KILL on behalf of a client of the very worker that runs the script: its request was seen but
    /// is read only when the script is over, and answered then.
    pub fn kill_for(&self, client: u64, kind: Kind) {
        let mut owed = self.owed.lock();
        let is_known = owed.iter().any(|(known, _)| *known == client);
        if !is_known && owed.len() < OWED_MAX {
            owed.push((client, self.kill(kind)));
        }
    }

    /// The answer that a client is owed for its KILL.
    pub(crate) fn take_owed(&self, client: u64) -> Option<Result<(), &'static str>> {
        let mut owed = self.owed.lock();
        let at = owed.iter().position(|(known, _)| *known == client)?;
        Some(owed.swap_remove(at).1)
    }

    /// Installs what is called every [`WATCH_MS`] by the worker whose script takes long.
    pub fn watch(&self, watcher: Watcher) {
        let is_first = self.watcher.set(watcher).is_ok();
        assert!(is_first, "there is one watcher");
    }

    /// Whether a script runs longer than `busy-reply-threshold`.
    #[inline]
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_busy.load(Relaxed)
    }

    /// Whether the script must stop.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.is_killed.load(Relaxed) || self.is_stopping.load(Relaxed)
    }

    /// Ends what runs, whatever it has written, and what would run: the server stops.
    pub fn stop(&self) {
        self.is_stopping.store(true, Relaxed);
    }

    /// Whether the server stops.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Relaxed)
    }

    /// What those are told who cannot wait.
    #[must_use]
    pub fn busy_text(&self) -> &'static str {
        if self.running() == Some(Kind::Function) { BUSY_FUNCTION } else { BUSY_SCRIPT }
    }

    /// SCRIPT KILL and FUNCTION KILL.
    ///
    /// # Errors
    /// Why the script goes on: there is none, it has written, or it is of the other kind.
    pub fn kill(&self, kind: Kind) -> Result<(), &'static str> {
        let Some(running) = self.running() else { return Err(NOT_BUSY) };
        if self.has_written() {
            return Err(UNKILLABLE);
        }
        if running != kind {
            return Err(self.busy_text());
        }
        self.is_killed.store(true, Relaxed);
        Ok(())
    }

    /// Whether the script waits for a further partition: those who hold one while they wait for
    /// another give theirs back.
    #[inline]
    pub(crate) fn wants_more(&self) -> bool {
        self.wants_more.load(Relaxed)
    }

    pub(crate) fn set_wants_more(&self, wants: bool) {
        self.wants_more.store(wants, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_killed_by_its_own_command_before_it_writes() {
        let turn = Turn::default();
        assert_eq!(turn.kill(Kind::Script), Err(NOT_BUSY));
        turn.begin(Kind::Script, 1, None);
        assert_eq!(turn.kill(Kind::Function), Err(BUSY_SCRIPT));
        assert!(!turn.is_killed());
        assert_eq!(turn.kill(Kind::Script), Ok(()));
        assert!(turn.is_killed());
        turn.end();
        turn.begin(Kind::Function, 1, Some(About::default()));
        assert!(!turn.is_killed() && turn.about().is_some());
        turn.note_write();
        assert_eq!(turn.kill(Kind::Function), Err(UNKILLABLE));
        turn.end();
        assert!(turn.about().is_none() && turn.running().is_none());
    }

    #[test]
    fn who_waits_for_a_busy_script_is_told() {
        let turn = Turn::default();
        let held = turn.take().expect("nobody has it");
        turn.begin(Kind::Script, 1, None);
        turn.note_busy(0, 1);
        assert!(turn.take().is_none());
        turn.end();
        drop(held);
        assert!(turn.take().is_some());
    }
}
