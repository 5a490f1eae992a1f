//! A queue from many threads to one, which asks for its content without a lock while it is empty.
//!
//! The owner sleeps in its event loop, so whoever makes the queue non-empty must wake it, once.
//! Bounds are the users': they know what may be refused.

#[cfg(loom)]
use loom::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};
#[cfg(not(loom))]
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

/// See the module's text.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Mutex<Vec<T>>,
    is_empty: AtomicBool,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Mailbox<T> {
    /// An empty mailbox.
    #[must_use]
    pub fn new() -> Self {
        Mailbox { queue: Mutex::new(Vec::new()), is_empty: AtomicBool::new(true) }
    }

    /// Appends a message. Returns whether the owner must be woken.
    pub fn push(&self, message: T) -> bool {
        self.locked(|queue| queue.push(message));
        self.is_empty.swap(false, Ordering::AcqRel)
    }

    /// Takes all messages in the order they came.
    #[inline]
    pub fn take(&self) -> Vec<T> {
        if self.is_empty.load(Ordering::Acquire) {
            return Vec::new();
        }
        // Before the queue is taken: a message that comes later then finds the mailbox empty and
        // wakes the owner again.
        self.is_empty.store(true, Ordering::Release);
        self.locked(std::mem::take)
    }

    fn locked<R>(&self, f: impl FnOnce(&mut Vec<T>) -> R) -> R {
        // A panic while it was held cannot have left the queue half changed.
        f(&mut self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Mailbox;

    #[test]
    fn the_owner_is_woken_once_per_fill() {
        let mailbox = Mailbox::new();
        assert!(mailbox.take().is_empty());
        assert!(mailbox.push(1), "it was empty");
        assert!(!mailbox.push(2), "the owner knows already");
        assert_eq!(mailbox.take(), [1, 2]);
        assert!(mailbox.push(3), "it was empty again");
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::Mailbox;
    use loom::sync::Arc;
    use loom::thread;

    /// In every interleaving of two senders and the owner: a message that the owner did not take
    /// while awake has a wake-up that comes after the owner looked last.
    #[test]
    fn loom_no_message_sleeps() {
        loom::model(|| {
            let mailbox = Arc::new(Mailbox::new());
            let senders: Vec<_> = (0..2)
                .map(|n| {
                    let mailbox = Arc::clone(&mailbox);
                    thread::spawn(move || mailbox.push(n))
                })
                .collect();
            let mut got = mailbox.take();
            let wakes = senders.into_iter().filter_map(|s| s.join().ok()).filter(|woken| *woken);
            let wakes = wakes.count();
            let late = mailbox.take();
            assert!(late.is_empty() || wakes > 0, "a message lies there and nobody woke the owner");
            got.extend(late);
            got.sort_unstable();
            assert_eq!(got, [0, 1], "every message comes once");
        });
    }
}
