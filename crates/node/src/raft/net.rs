//! Calls between the voters, over the control lane of the bus. A call is one frame there and one back, on
//! the other node's own connection.

use super::store::{SnapshotData, get_snapshot_meta, put_snapshot_meta};
use super::{RaftNode, Snapshot, Types, Vote, wire};
use crate::bus::Bus;
use futures_util::future::{Either, select};
use hypercache_cluster::bus::{Frame, RaftCall};
use hypercache_cluster::frame::FrameError;
use hypercache_cluster::ids::NodeId;
use hypercache_cluster::wire::{Read, Reader};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, raft};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const PRE_VOTE: u8 = 3;
const SNAPSHOT: u8 = 4;
const TRANSFER: u8 = 5;

/// How long a peer that cannot be reached is left alone.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(30);
/// The state as a whole may take longer than a heartbeat to arrive.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);

type Waiting = BTreeMap<u64, (NodeId, oneshot::Sender<Arc<[u8]>>)>;

/// Calls that wait for their answers.
#[derive(Debug)]
pub(super) struct Calls {
    bus: Arc<Bus>,
    next: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// Forgets a call that is given up.
struct Pending<'a> {
    calls: &'a Calls,
    id: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.calls.waiting().remove(&self.id);
    }
}

impl Calls {
    pub(super) fn new(bus: Arc<Bus>) -> Arc<Self> {
        // Answers to an earlier start of this node are none to this one.
        let next = AtomicU64::new(hypercache_stdx::rng::entropy());
        Arc::new(Calls { bus, next, waiting: Mutex::default() })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer came.
    pub(super) fn on_reply(&self, from: NodeId, reply: RaftCall) {
        let mut waiting = self.waiting();
        let is_asked = waiting.get(&reply.id).is_some_and(|(node, _)| *node == from);
        if is_asked && let Some((_, answer)) = waiting.remove(&reply.id) {
            drop(waiting);
            let _given_up = answer.send(reply.body);
        }
    }

    async fn call<T>(
        &self,
        to: NodeId,
        (kind, body): (u8, Arc<[u8]>),
        within: Duration,
        read: fn(&mut Reader<'_>) -> Read<T>,
    ) -> Result<T, RPCError<Types>> {
        if !self.bus.is_up(to) {
            let why = format!("no connection to node {:016x}", to.0);
            return Err(RPCError::Unreachable(Unreachable::from_string(why)));
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting().insert(id, (to, answer));
        let _pending = Pending { calls: self, id };
        self.bus.send(to, &Frame::RaftCall(RaftCall { id, kind, body }));
        let failed = |why: String| RPCError::Network(NetworkError::from_string(why));
        match tokio::time::timeout(within, answered).await {
            Ok(Ok(bytes)) => wire::read(&bytes, read).map_err(|error| failed(error.to_string())),
            Ok(Err(_)) => Err(failed("the node stops".to_owned())),
            Err(_) => Err(failed(format!("no answer of node {:016x} in time", to.0))),
        }
    }
}

/// Makes a [`Link`] for each peer.
#[derive(Debug)]
pub(super) struct Links(pub(super) Arc<Calls>);

/// One peer.
#[derive(Debug)]
pub(super) struct Link {
    calls: Arc<Calls>,
    to: NodeId,
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, (): &()) -> Link {
        Link { calls: Arc::clone(&self.0), to: NodeId(target) }
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let body = wire::written(|w| wire::put_append(w, &rpc));
        let within = option.hard_ttl();
        self.calls.call(self.to, (APPEND, body), within, wire::get_append_reply).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let body = wire::written(|w| wire::put_vote_call(w, &rpc));
        self.calls.call(self.to, (VOTE, body), option.hard_ttl(), wire::get_vote_reply).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let body = wire::written(|w| wire::put_vote_call(w, &rpc));
        self.calls.call(self.to, (PRE_VOTE, body), option.hard_ttl(), wire::get_vote_reply).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let body = wire::written(|w| {
            wire::put_vote(w, &vote);
            put_snapshot_meta(w, &snapshot.meta);
            w.bytes(&snapshot.snapshot);
        });
        let call =
            pin!(self.calls.call(self.to, (SNAPSHOT, body), SNAPSHOT_TIMEOUT, wire::get_vote));
        match select(call, pin!(cancel)).await {
            Either::Left((answer, _)) => Ok(SnapshotResponse::new(answer?)),
            Either::Right((closed, _)) => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let body = wire::written(|w| wire::put_transfer(w, &req));
        self.calls.call(self.to, (TRANSFER, body), option.hard_ttl(), |_| Ok(Ok(()))).await
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE)))
    }
}

/// Why a call is not answered: the caller takes it for lost.
enum NoAnswer {
    Malformed,
    Stopped,
}

impl From<FrameError> for NoAnswer {
    fn from(_: FrameError) -> Self {
        NoAnswer::Malformed
    }
}

/// Answers a call.
pub(super) async fn answer(raft: RaftNode, bus: Arc<Bus>, from: NodeId, call: RaftCall) {
    match answer_to(&raft, call.kind, &call.body).await {
        Ok(body) => bus.send(from, &Frame::RaftReply(RaftCall { body, ..call })),
        Err(NoAnswer::Malformed) => {
            tracing::warn!("node {:016x} sent a call that cannot be read", from.0);
        }
        Err(NoAnswer::Stopped) => {}
    }
}

async fn answer_to(raft: &RaftNode, kind: u8, body: &[u8]) -> Result<Arc<[u8]>, NoAnswer> {
    match kind {
        APPEND => {
            let reply = raft.append_entries(wire::read(body, wire::get_append)?).await;
            let reply = reply.map_err(|_| NoAnswer::Stopped)?;
            Ok(wire::written(|w| wire::put_append_reply(w, &reply)))
        }
        VOTE | PRE_VOTE => {
            let call = wire::read(body, wire::get_vote_call)?;
            let reply =
                if kind == VOTE { raft.vote(call).await } else { raft.pre_vote(call).await };
            let reply = reply.map_err(|_| NoAnswer::Stopped)?;
            Ok(wire::written(|w| wire::put_vote_reply(w, &reply)))
        }
        SNAPSHOT => {
            let get = |r: &mut Reader<'_>| {
                let (vote, meta) = (wire::get_vote(r)?, get_snapshot_meta(r)?);
                Ok((vote, Snapshot { meta, snapshot: r.bytes()? }))
            };
            let (vote, snapshot) = wire::read(body, get)?;
            let reply: raft::SnapshotResponse<Types> =
                raft.install_full_snapshot(vote, snapshot).await.map_err(|_| NoAnswer::Stopped)?;
            Ok(wire::written(|w| wire::put_vote(w, &reply.vote)))
        }
        TRANSFER => {
            let call = wire::read(body, wire::get_transfer)?;
            let reply = raft.handle_transfer_leader(call).await.map_err(|_| NoAnswer::Stopped)?;
            reply.map_err(|_| NoAnswer::Stopped)?;
            Ok(Arc::default())
        }
        _ => Err(NoAnswer::Malformed),
    }
}
