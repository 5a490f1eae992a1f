//! What consensus says and keeps, as bytes. Hostile until checked, as all that comes from outside.

use super::{Entry, LogId, Membership, Proposal, StoredMembership, Types, Vote};
use hypercache_cluster::frame::FrameError;
use hypercache_cluster::meta::Command;
use hypercache_cluster::wire::{Read, Reader, Writer};
use openraft::EntryPayload;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Runs a reader over all of some bytes.
pub(super) fn read<T>(
    bytes: &[u8],
    f: impl FnOnce(&mut Reader<'_>) -> Read<T>,
) -> Result<T, FrameError> {
    let mut reader = Reader(bytes);
    let value = f(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// What a writer wrote.
pub(super) fn written(f: impl FnOnce(&mut Writer<'_>)) -> Arc<[u8]> {
    let mut bytes = Vec::new();
    f(&mut Writer(&mut bytes));
    Arc::from(bytes)
}

pub(super) fn put_vote(w: &mut Writer<'_>, vote: &Vote) {
    w.u64(vote.leader_id.term);
    w.u64(vote.leader_id.node_id);
    w.u8(vote.committed.into());
}

pub(super) fn get_vote(r: &mut Reader<'_>) -> Read<Vote> {
    let leader_id = LeaderId { term: r.u64()?, node_id: r.u64()? };
    Ok(Vote { leader_id, committed: r.flag()? })
}

fn put_log_id(w: &mut Writer<'_>, id: &LogId) {
    w.u64(id.leader_id.term);
    w.u64(id.leader_id.node_id);
    w.u64(id.index);
}

fn get_log_id(r: &mut Reader<'_>) -> Read<LogId> {
    let leader_id = LeaderId { term: r.u64()?, node_id: r.u64()? };
    Ok(LogId { leader_id, index: r.u64()? })
}

pub(super) fn put_maybe_id(w: &mut Writer<'_>, id: Option<&LogId>) {
    w.u8(id.is_some().into());
    id.into_iter().for_each(|id| put_log_id(w, id));
}

pub(super) fn get_maybe_id(r: &mut Reader<'_>) -> Read<Option<LogId>> {
    if r.flag()? { Ok(Some(get_log_id(r)?)) } else { Ok(None) }
}

fn put_membership(w: &mut Writer<'_>, membership: &Membership) {
    let configs = membership.get_joint_config();
    w.u8(configs.len() as u8);
    for voters in configs {
        w.u16(voters.len() as u16);
        voters.iter().for_each(|node| w.u64(*node));
    }
    w.u16(membership.nodes().count() as u16);
    membership.nodes().for_each(|(node, ())| w.u64(*node));
}

fn get_membership(r: &mut Reader<'_>) -> Read<Membership> {
    let mut configs = Vec::new();
    for _ in 0..r.u8()? {
        let count = r.u16()?;
        configs.push((0..count).map(|_| r.u64()).collect::<Read<BTreeSet<u64>>>()?);
    }
    let count = r.u16()?;
    let nodes = (0..count).map(|_| Ok((r.u64()?, ()))).collect::<Read<BTreeMap<u64, ()>>>()?;
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| FrameError::Malformed)
}

pub(super) fn put_stored_membership(w: &mut Writer<'_>, stored: &StoredMembership) {
    put_maybe_id(w, stored.log_id().as_ref());
    put_membership(w, stored.membership());
}

pub(super) fn get_stored_membership(r: &mut Reader<'_>) -> Read<StoredMembership> {
    let id = get_maybe_id(r)?;
    Ok(StoredMembership::new(id, get_membership(r)?))
}

pub(super) fn put_entry(w: &mut Writer<'_>, entry: &Entry) {
    put_log_id(w, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => w.u8(0),
        EntryPayload::Normal(Proposal(command)) => {
            w.u8(1);
            w.bytes(&command.encode());
        }
        EntryPayload::Membership(membership) => {
            w.u8(2);
            put_membership(w, membership);
        }
    }
}

pub(super) fn get_entry(r: &mut Reader<'_>) -> Read<Entry> {
    let log_id = get_log_id(r)?;
    let payload = match r.u8()? {
        0 => EntryPayload::Blank,
        1 => EntryPayload::Normal(Proposal(Command::decode(&r.bytes()?)?)),
        2 => EntryPayload::Membership(get_membership(r)?),
        _ => return Err(FrameError::Malformed),
    };
    Ok(Entry { log_id, payload })
}

pub(super) fn put_append(w: &mut Writer<'_>, call: &AppendEntriesRequest<Types>) {
    put_vote(w, &call.vote);
    put_maybe_id(w, call.prev_log_id.as_ref());
    put_maybe_id(w, call.leader_commit.as_ref());
    w.u32(call.entries.len() as u32);
    call.entries.iter().for_each(|entry| put_entry(w, entry));
}

pub(super) fn get_append(r: &mut Reader<'_>) -> Read<AppendEntriesRequest<Types>> {
    let (vote, prev_log_id, leader_commit) = (get_vote(r)?, get_maybe_id(r)?, get_maybe_id(r)?);
    let count = r.u32()?;
    let entries = (0..count).map(|_| get_entry(r)).collect::<Read<Vec<Entry>>>()?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

pub(super) fn put_append_reply(w: &mut Writer<'_>, reply: &AppendEntriesResponse<Types>) {
    match reply {
        AppendEntriesResponse::Success => w.u8(0),
        AppendEntriesResponse::PartialSuccess(id) => {
            w.u8(1);
            put_maybe_id(w, id.as_ref());
        }
        AppendEntriesResponse::Conflict => w.u8(2),
        AppendEntriesResponse::HigherVote(vote) => {
            w.u8(3);
            put_vote(w, vote);
        }
    }
}

pub(super) fn get_append_reply(r: &mut Reader<'_>) -> Read<AppendEntriesResponse<Types>> {
    Ok(match r.u8()? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(get_maybe_id(r)?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(get_vote(r)?),
        _ => return Err(FrameError::Malformed),
    })
}

pub(super) fn put_vote_call(w: &mut Writer<'_>, call: &VoteRequest<Types>) {
    put_vote(w, &call.vote);
    put_maybe_id(w, call.last_log_id.as_ref());
    w.u8(call.leadership_transfer.into());
}

pub(super) fn get_vote_call(r: &mut Reader<'_>) -> Read<VoteRequest<Types>> {
    let (vote, last_log_id) = (get_vote(r)?, get_maybe_id(r)?);
    Ok(VoteRequest { vote, last_log_id, leadership_transfer: r.flag()? })
}

pub(super) fn put_vote_reply(w: &mut Writer<'_>, reply: &VoteResponse<Types>) {
    put_vote(w, &reply.vote);
    w.u8(reply.vote_granted.into());
    put_maybe_id(w, reply.last_log_id.as_ref());
}

pub(super) fn get_vote_reply(r: &mut Reader<'_>) -> Read<VoteResponse<Types>> {
    let (vote, vote_granted) = (get_vote(r)?, r.flag()?);
    Ok(VoteResponse { vote, vote_granted, last_log_id: get_maybe_id(r)? })
}

pub(super) fn put_transfer(w: &mut Writer<'_>, call: &TransferLeaderRequest<Types>) {
    put_vote(w, call.from_leader());
    w.u64(*call.to_node_id());
    put_maybe_id(w, call.last_log_id());
}

pub(super) fn get_transfer(r: &mut Reader<'_>) -> Read<TransferLeaderRequest<Types>> {
    let (from, to) = (get_vote(r)?, r.u64()?);
    Ok(TransferLeaderRequest::new(from, to, get_maybe_id(r)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercache_cluster::ids::NodeId;
    use proptest::prelude::*;

    fn any_id() -> impl Strategy<Value = LogId> {
        any::<(u64, u64, u64)>().prop_map(|(term, node_id, index)| {
            let leader_id = LeaderId { term, node_id };
            LogId { leader_id, index }
        })
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        let nodes = proptest::collection::btree_set(any::<u64>(), 1..6);
        let payload = prop_oneof![
            Just(EntryPayload::Blank),
            any::<u64>().prop_map(|n| EntryPayload::Normal(Proposal(Command::JoinNode(NodeId(n))))),
            nodes.prop_map(|nodes| {
                let all = nodes.iter().map(|node| (*node, ())).collect::<BTreeMap<_, _>>();
                EntryPayload::Membership(Membership::new(vec![nodes], all).expect("all are there"))
            }),
        ];
        (any_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
    }

    proptest! {
        #[test]
        fn an_append_is_read_as_it_was_written(
            entries in proptest::collection::vec(any_entry(), 0..5),
            prev_log_id in proptest::option::of(any_id()),
            leader_commit in proptest::option::of(any_id()),
            (term, node_id, committed) in any::<(u64, u64, bool)>(),
        ) {
            let vote = Vote { leader_id: LeaderId { term, node_id }, committed };
            let call = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit };
            let bytes = written(|w| put_append(w, &call));
            let again = read(&bytes, get_append).expect("it was written here");
            prop_assert_eq!(format!("{again:?}"), format!("{call:?}"));
            prop_assert!(read(&bytes[..bytes.len() - 1], get_append).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _any = read(&bytes, get_append);
            let _any = read(&bytes, get_append_reply);
            let _any = read(&bytes, get_vote_call);
            let _any = read(&bytes, get_vote_reply);
            let _any = read(&bytes, get_transfer);
            let _any = read(&bytes, get_stored_membership);
        }
    }
}
