//! The log and the state that consensus works on, over [`crate::disk`].

use super::{
    Entry, Events, LogId, RaftEvent, Snapshot, SnapshotMeta, StoredMembership, Types, Vote, wire,
};
use crate::disk::{Change, Image, Writer};
use futures_util::{Stream, StreamExt};
use hypercache_cluster::meta::MetaState;
use hypercache_cluster::settings::Settings;
use hypercache_cluster::wire::Reader;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader, RaftSnapshotBuilder};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The encoded state is what a snapshot consists of.
pub(super) type SnapshotData = Arc<[u8]>;

#[derive(Debug, Default)]
struct Logs {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

/// The log: in memory, and on disk behind a thread.
#[derive(Clone, Debug)]
pub(super) struct LogStore {
    logs: Arc<Mutex<Logs>>,
    disk: Writer,
}

fn damaged(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the log of the cluster: {error}"))
}

/// Makes changes and waits until they are durable.
async fn durable(disk: &Writer, changes: Vec<Change>) -> io::Result<()> {
    let (done, is_done) = oneshot::channel();
    disk.ask(changes, Box::new(move |result| drop(done.send(result))));
    is_done.await.unwrap_or_else(|_| Err(io::Error::other("the disk has failed before")))
}

impl LogStore {
    pub(super) fn new(image: &Image, disk: Writer) -> io::Result<LogStore> {
        let vote = image.vote.as_ref().map(|bytes| wire::read(bytes, wire::get_vote));
        let purged = image.purged.as_ref().map(|(_, bytes)| wire::read(bytes, wire::get_maybe_id));
        let mut logs = Logs {
            vote: vote.transpose().map_err(damaged)?,
            purged: purged.transpose().map_err(damaged)?.flatten(),
            entries: BTreeMap::new(),
        };
        for (number, bytes) in &image.entries {
            let entry = wire::read(bytes, wire::get_entry).map_err(damaged)?;
            if entry.log_id.index != *number {
                return Err(damaged("an entry is at the place of another"));
            }
            logs.entries.insert(*number, entry);
        }
        Ok(LogStore { logs: Arc::new(Mutex::new(logs)), disk })
    }

    fn lock(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        Ok(self.lock().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.lock().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let logs = self.lock();
        let newest = logs.entries.last_key_value().map(|(_, entry)| entry.log_id());
        Ok(LogState { last_purged_log_id: logs.purged, last_log_id: newest.or(logs.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let bytes = wire::written(|w| wire::put_vote(w, vote));
        durable(&self.disk, vec![Change::Vote(bytes)]).await?;
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut changes = Vec::new();
        let mut logs = self.lock();
        for entry in entries {
            let bytes = wire::written(|w| wire::put_entry(w, &entry));
            changes.push(Change::Entry(entry.log_id.index, bytes));
            logs.entries.insert(entry.log_id.index, entry);
        }
        drop(logs);
        self.disk.ask(changes, Box::new(|result| flushed.io_completed(result)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let change = match last {
            Some(last) => {
                self.lock().entries.split_off(&(last.index + 1));
                Change::TruncateAfter(last.index)
            }
            None => {
                self.lock().entries.clear();
                Change::Clear
            }
        };
        durable(&self.disk, vec![change]).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut logs = self.lock();
        logs.entries = logs.entries.split_off(&(upto.index + 1));
        logs.purged = Some(upto);
        drop(logs);
        let bytes = wire::written(|w| wire::put_maybe_id(w, Some(&upto)));
        // What is not dropped in time is dropped again after a restart.
        self.disk.ask(vec![Change::Purge(upto.index, bytes)], Box::new(|_| ()));
        Ok(())
    }
}

/// The agreed state as far as it is known here.
#[derive(Debug)]
pub(super) struct Machine {
    meta: MetaState,
    applied: Option<LogId>,
    membership: StoredMembership,
    settings: Settings,
    disk: Writer,
    events: Events,
    newest: Arc<Mutex<Option<Snapshot>>>,
}

/// A state that is to become a snapshot.
#[derive(Debug)]
pub(super) struct Builder {
    meta: SnapshotMeta,
    data: SnapshotData,
    disk: Writer,
    newest: Arc<Mutex<Option<Snapshot>>>,
}

fn snapshot_file(meta: &SnapshotMeta, data: &[u8]) -> Arc<[u8]> {
    wire::written(|w| {
        put_snapshot_meta(w, meta);
        w.bytes(data);
    })
}

pub(super) fn put_snapshot_meta(w: &mut hypercache_cluster::wire::Writer<'_>, meta: &SnapshotMeta) {
    wire::put_maybe_id(w, meta.last_log_id.as_ref());
    wire::put_stored_membership(w, &meta.last_membership);
}

pub(super) fn get_snapshot_meta(
    r: &mut Reader<'_>,
) -> hypercache_cluster::wire::Read<SnapshotMeta> {
    let last_log_id = wire::get_maybe_id(r)?;
    Ok(SnapshotMeta { last_log_id, last_membership: wire::get_stored_membership(r)? })
}

impl Machine {
    /// The state of the snapshot on disk, or an empty one.
    pub(super) fn new(
        snapshot: Option<&[u8]>,
        settings: Settings,
        disk: Writer,
        events: Events,
    ) -> io::Result<Machine> {
        let mut machine = Machine {
            meta: MetaState::default(),
            applied: None,
            membership: StoredMembership::default(),
            settings,
            disk,
            events,
            newest: Arc::default(),
        };
        if let Some(bytes) = snapshot {
            let get = |r: &mut Reader<'_>| Ok((get_snapshot_meta(r)?, r.bytes()?));
            let (meta, data) = wire::read(bytes, get).map_err(damaged)?;
            machine.take(&meta, data)?;
        }
        Ok(machine)
    }

    fn take(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<()> {
        self.meta = MetaState::decode(&data).map_err(damaged)?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        *lock(&self.newest) = Some(Snapshot { meta: meta.clone(), snapshot: data });
        (self.events)(RaftEvent::Whole(Box::new(self.meta.clone())));
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let file = snapshot_file(&self.meta, &self.data);
        durable(&self.disk, vec![Change::Snapshot(file)]).await?;
        let snapshot = Snapshot { meta: self.meta.clone(), snapshot: Arc::clone(&self.data) };
        *lock(&self.newest) = Some(snapshot.clone());
        Ok(snapshot)
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            self.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(proposal) => {
                    let _no_op = self.meta.apply(&proposal.0, &self.settings);
                    (self.events)(RaftEvent::Committed(proposal.0));
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            responder.into_iter().for_each(|responder| responder.send(()));
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            data: Arc::from(self.meta.encode()),
            disk: self.disk.clone(),
            newest: Arc::clone(&self.newest),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> io::Result<()> {
        durable(&self.disk, vec![Change::Snapshot(snapshot_file(meta, &data))]).await?;
        self.take(meta, data)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(lock(&self.newest).clone())
    }
}
