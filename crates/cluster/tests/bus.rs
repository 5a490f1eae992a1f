//! What nodes say to each other besides messages about partitions, the commands of the metadata log and its
//! state: what is encoded is decoded to the same, and nothing else is accepted.

use hypercache_cluster::bus::{Frame, Hello, Lane, MAGIC, RaftCall, Welcome, check_round_trip};
use hypercache_cluster::control::Heartbeat;
use hypercache_cluster::frame::{FrameError, HEADER_BYTES};
use hypercache_cluster::ids::{Epoch, Generation, Member, NodeId, PartitionId};
use hypercache_cluster::lease::Grant;
use hypercache_cluster::meta::{
    Command, MetaState, NodeAddress, NodeEntry, NodeState, PartitionConfig,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

fn any_member() -> impl Strategy<Value = Member> {
    any::<(u64, u32)>().prop_map(|(node, generation)| Member {
        node: NodeId(node),
        generation: Generation(generation),
    })
}

fn any_address() -> impl Strategy<Value = NodeAddress> {
    ("[a-z0-9.:-]{0,40}", any::<(u16, u16)>()).prop_map(|(host, (port, bus_port))| NodeAddress {
        host,
        port,
        bus_port,
    })
}

fn any_command() -> impl Strategy<Value = Command> {
    let node = || any::<u64>().prop_map(NodeId);
    let at = || any::<(u16, u64)>().prop_map(|(p, epoch)| (PartitionId(p), Epoch(epoch)));
    prop_oneof![
        (node(), any::<(u32, u64, u16)>(), any_address()).prop_map(
            |(node, (after, boot, zone), address)| {
                let after = Generation(after);
                Command::RegisterNode { node, after, boot, zone, address }
            }
        ),
        node().prop_map(Command::JoinNode),
        node().prop_map(Command::DrainNode),
        node().prop_map(Command::RemoveNode),
        any::<(u16, u8, u8, bool)>().prop_map(|(count, copies, min_sync, replica_reads)| {
            Command::CreatePartitions { count, copies, min_sync, replica_reads }
        }),
        (at(), any_member(), 0..5).prop_map(|((partition, epoch), member, kind)| match kind {
            0 => Command::SetPrimary { partition, epoch, to: member },
            1 => Command::ShrinkIsr { partition, epoch, member },
            2 => Command::AddIsr { partition, epoch, member },
            3 => Command::Failover { partition, epoch, to: member },
            _ => Command::DeclareLoss { partition, epoch, to: member },
        }),
        (at(), node(), 0..3).prop_map(|((partition, epoch), node, kind)| match kind {
            0 => Command::AddLearner { partition, epoch, node },
            1 => Command::DropLearner { partition, epoch, node },
            _ => Command::Reaffirm { partition, epoch },
        }),
    ]
}

fn any_entry() -> impl Strategy<Value = NodeEntry> {
    let state = prop_oneof![
        Just(NodeState::Joining),
        Just(NodeState::Up),
        Just(NodeState::Draining),
        Just(NodeState::Removed),
    ];
    (any::<(u32, u64, u16)>(), state, any_address()).prop_map(
        |((generation, boot, zone), state, address)| {
            let generation = Generation(generation);
            NodeEntry { generation, boot, state, zone, address }
        },
    )
}

fn any_config() -> impl Strategy<Value = PartitionConfig> {
    let rest = any::<(u64, u8, u8, bool, u32, bool)>();
    (rest, any_member(), vec(any_member(), 0..4), vec(any::<u64>(), 0..3)).prop_map(
        |(
            (epoch, copies, min_sync, replica_reads, losses, is_handover),
            primary,
            isr,
            learners,
        )| {
            PartitionConfig {
                epoch: Epoch(epoch),
                primary,
                isr,
                learners: learners.into_iter().map(NodeId).collect(),
                copies,
                min_sync,
                replica_reads,
                losses,
                is_handover,
            }
        },
    )
}

fn any_state() -> impl Strategy<Value = MetaState> {
    let nodes = btree_map(any::<u64>().prop_map(NodeId), any_entry(), 0..6);
    let partitions = btree_map(any::<u16>().prop_map(PartitionId), any_config(), 0..6);
    (any::<u64>(), nodes, partitions).prop_map(|(index, nodes, partitions)| MetaState {
        index,
        nodes,
        partitions,
    })
}

fn any_greeting() -> impl Strategy<Value = Frame> {
    let lane = prop_oneof![Just(Lane::Probe), Just(Lane::Data), Just(Lane::Control)];
    let words = any::<(u64, u64, u64, u64)>();
    prop_oneof![
        (any::<(u8, u8)>(), lane, words, any_address(), any::<[u8; 16]>()).prop_map(
            |(protocol, lane, (cluster, from, to, boot), address, nonce)| {
                let (from, to) = (NodeId(from), NodeId(to));
                Frame::Hello(Hello { protocol, lane, cluster, from, to, boot, address, nonce })
            }
        ),
        (any::<u8>(), words, any::<[u8; 16]>(), any::<[u8; 32]>()).prop_map(
            |(protocol, (cluster, from, boot, _), nonce, proof)| {
                let from = NodeId(from);
                Frame::Welcome(Welcome { protocol, cluster, from, boot, nonce, proof })
            }
        ),
        any::<[u8; 32]>().prop_map(Frame::Proof),
        vec((any::<u64>().prop_map(NodeId), any_address()), 0..4).prop_map(Frame::Ready),
        "[ -~]{0,80}".prop_map(Frame::Refused),
        Just(Frame::Ping),
    ]
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let call = || {
        (any::<(u64, u8)>(), vec(any::<u8>(), 0..60)).prop_map(|((id, kind), body)| RaftCall {
            id,
            kind,
            body: Arc::from(body),
        })
    };
    prop_oneof![
        any_greeting(),
        (any_member(), any::<(u64, u64, bool)>()).prop_map(
            |(from, (stamp_us, meta_index, is_leaving))| {
                Frame::Heartbeat(Heartbeat { from, stamp_us, meta_index, is_leaving })
            }
        ),
        (any_member(), any::<(u64, u64, u64)>()).prop_map(
            |(to, (asked_us, length_us, meta_index))| {
                Frame::Grant(Grant { to, asked_us, length_us, meta_index })
            }
        ),
        (any_command(), any::<bool>())
            .prop_map(|(command, is_forwarded)| Frame::Propose { command, is_forwarded }),
        (any::<u16>(), any_member())
            .prop_map(|(p, to)| Frame::HandOver { partition: PartitionId(p), to }),
        call().prop_map(Frame::RaftCall),
        call().prop_map(Frame::RaftReply),
    ]
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn a_frame_decodes_to_the_same(frame in any_frame(), rest in vec(any::<u8>(), 0..40)) {
        let bytes = bytes_of(&frame);
        let stream = [&bytes[..], &rest].concat();
        check_round_trip(&stream);
        prop_assert_eq!(Frame::decode(&stream), Ok(Some((frame, bytes.len()))));
    }

    #[test]
    fn a_frame_in_pieces_waits_for_the_rest(frame in any_frame(), cut in 0.0..1.0f64) {
        let bytes = bytes_of(&frame);
        let cut = (bytes.len() as f64 * cut) as usize;
        prop_assert_eq!(Frame::decode(&bytes[..cut]), Ok(None));
    }

    #[test]
    fn a_flipped_bit_is_noticed(frame in any_frame(), at in 4usize..400, bit in 0u8..8) {
        let mut bytes = bytes_of(&frame);
        let at = 4 + at % (bytes.len() - 4);
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(Frame::decode(&bytes), Err(FrameError::Damaged));
    }

    #[test]
    fn a_command_decodes_to_the_same(command in any_command(), cut in 0.0..1.0f64) {
        let bytes = command.encode();
        prop_assert_eq!(Command::decode(&bytes), Ok(command));
        let cut = (bytes.len() as f64 * cut) as usize;
        prop_assert!(Command::decode(&bytes[..cut]).is_err());
    }

    #[test]
    fn a_state_decodes_to_the_same(state in any_state(), cut in 0.0..1.0f64) {
        let bytes = state.encode();
        prop_assert_eq!(MetaState::decode(&bytes), Ok(state));
        let cut = (bytes.len() as f64 * cut) as usize;
        prop_assert!(MetaState::decode(&bytes[..cut]).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        check_round_trip(&bytes);
    }
}

#[test]
fn the_corpus_breaks_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/cluster_bus");
    let files: Vec<_> = std::fs::read_dir(folder).expect("a corpus").flatten().collect();
    assert!(files.len() >= 20, "only {} files", files.len());
    for file in files {
        check_round_trip(&std::fs::read(file.path()).expect("readable"));
    }
}

#[test]
fn what_claims_too_much_is_refused() {
    let mut state = MetaState::default().encode();
    state[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(MetaState::decode(&state), Err(FrameError::Malformed));
    assert_eq!(Command::decode(&[2, 2, 0, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::Unknown));
}

/// The bytes of version 1. A change of them is a change of the protocol: raise the version.
#[test]
fn golden_bytes() {
    assert_eq!(Command::JoinNode(NodeId(7)).encode(), [1, 2, 7, 0, 0, 0, 0, 0, 0, 0]);
    let ping = bytes_of(&Frame::Ping);
    assert_eq!((ping.len(), &ping[..8]), (HEADER_BYTES, &[0, 0, 0, 0, 37, 1, 0, 0][..]));
    assert_eq!(MAGIC.to_le_bytes(), *b"hcbus\r\n\0");
    let empty = MetaState::default().encode();
    assert_eq!(empty, [&[1][..], &[0; 16]].concat());
}
