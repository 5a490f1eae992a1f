//! ACL LOG: what was denied, newest first. Bounded by `acllog-max-len`; an entry keeps at most
//! [`TEXT_MAX`] bytes of each name that a client chose.

use parking_lot::Mutex;
use std::collections::VecDeque;

/// Bytes kept of an object or a user's name.
pub(super) const TEXT_MAX: usize = 1024;
/// An entry that is like one of the newest so many, and not much later, counts there.
const LOOKED_AT: usize = 10;
const TOGETHER_MS: u64 = 60_000;

/// What a denial was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The command.
    Command,
    /// A key.
    Key,
    /// A channel.
    Channel,
    /// Name or password.
    Auth,
}

impl Reason {
    /// The word that ACL LOG shows.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Reason::Command => "command",
            Reason::Key => "key",
            Reason::Channel => "channel",
            Reason::Auth => "auth",
        }
    }
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Denial {
    /// How often.
    pub count: u64,
    /// What it was about.
    pub reason: Reason,
    /// `toplevel` or `multi`.
    pub context: &'static str,
    /// The command, key or channel; of a failed login the command that asked for it.
    pub object: Vec<u8>,
    /// Who was denied.
    pub username: Vec<u8>,
    /// When it was last, in ms since the epoch.
    pub at_ms: u64,
    /// The line of CLIENT LIST of the client.
    pub client: Vec<u8>,
}

impl Denial {
    fn is_like(&self, other: &Denial) -> bool {
        self.reason == other.reason
            && self.context == other.context
            && self.at_ms.abs_diff(other.at_ms) <= TOGETHER_MS
            && self.object == other.object
            && self.username == other.username
    }
}

/// The log.
#[derive(Debug, Default)]
pub struct AclLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    denials: VecDeque<Denial>,
    len_max: usize,
}

impl AclLog {
    /// Adds an entry, or counts it with one that is like it.
    pub fn add(&self, mut denial: Denial) {
        denial.object.truncate(TEXT_MAX);
        denial.username.truncate(TEXT_MAX);
        let mut state = self.state.lock();
        let like = state.denials.iter().take(LOOKED_AT).position(|other| other.is_like(&denial));
        if let Some(other) = like.and_then(|at| state.denials.remove(at)) {
            denial.count += other.count;
        }
        state.denials.push_front(denial);
        let len_max = state.len_max;
        state.denials.truncate(len_max);
    }

    /// `acllog-max-len`. What is beyond goes with the next entry.
    pub fn set_max(&self, len_max: usize) {
        self.state.lock().len_max = len_max;
    }

    /// The newest entries, at most so many.
    #[must_use]
    pub fn newest(&self, count: usize) -> Vec<Denial> {
        self.state.lock().denials.iter().take(count).cloned().collect()
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.state.lock().denials.clear();
    }
}
