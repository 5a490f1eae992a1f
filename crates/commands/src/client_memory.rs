//! `maxmemory-clients`: what the buffers of all clients may take together.
//!
//! With a budget of their own they are no reason to evict data ([`crate::limit`] leaves the budget free),
//! and what data takes is no reason to close a client. A worker that finds them beyond it at the end of a
//! turn closes the clients whose buffers are the largest, until the others fit. Those of CLIENT NO-EVICT
//! are left alone.

use crate::client::{Client, ClientFlags};
use crate::context::Worker;
use crate::shared::Shared;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

impl Client {
    /// Bytes of its buffers.
    #[must_use]
    pub fn buffer_bytes(&self) -> u64 {
        self.output_bytes.load(Relaxed) + u64::from(self.query_bytes.load(Relaxed))
    }
}

/// Closes clients while the buffers of all take more than they may.
#[inline]
pub fn close_largest(shared: &Shared, worker: &Worker) {
    let bytes_max = shared.config.hot.clients_bytes_max();
    if bytes_max > 0 && shared.sum(|stats| stats.client_bytes()) > bytes_max {
        close_beyond(shared, worker, bytes_max);
    }
}

#[cold]
fn close_beyond(shared: &Shared, worker: &Worker, bytes_max: u64) {
    let mut clients = shared.clients.all();
    // What closes just now is as good as gone.
    clients.retain(|client| !client.is_killed());
    let mut bytes: u64 = clients.iter().map(|client| client.buffer_bytes()).sum();
    let may_go = |client: &Arc<Client>| !client.has(ClientFlags::NO_EVICT);
    let mut sizes: Vec<(u64, Arc<Client>)> =
        clients.into_iter().filter(may_go).map(|client| (client.buffer_bytes(), client)).collect();
    sizes.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    for (size, client) in sizes {
        if bytes <= bytes_max || size == 0 {
            break;
        }
        bytes -= size;
        worker.stats.evicted_clients.add(1);
        shared.kill(&client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;

    #[test]
    fn the_largest_go_until_the_others_fit() {
        let mut h = Harness::default();
        let sessions: Vec<_> = [100, 5000, 3000, 9000]
            .map(|bytes| {
                let session = Harness::connect(&h.shared);
                session.client.output_bytes.store(bytes, Relaxed);
                session
            })
            .into();
        sessions[3].client.set_flag(ClientFlags::NO_EVICT, true);
        h.worker.stats.add_client_bytes(17_100);
        let killed = || sessions.iter().map(|s| s.client.is_killed()).collect::<Vec<_>>();
        close_largest(&h.shared, &h.worker);
        assert_eq!(killed(), [false; 4], "there is no budget");
        h.run("CONFIG SET maxmemory-clients 12200");
        close_largest(&h.shared, &h.worker);
        assert_eq!(killed(), [false, true, false, false]);
        close_largest(&h.shared, &h.worker);
        assert_eq!(killed(), [false, true, false, false], "the others fit");
        assert_eq!(h.shared.sum(|stats| stats.evicted_clients.get()), 1);
        h.run("CONFIG SET maxmemory-clients 50% maxmemory 100");
        close_largest(&h.shared, &h.worker);
        assert_eq!(killed(), [true, true, true, false]);
    }
}
