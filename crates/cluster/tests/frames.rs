//! Frames between nodes: what is encoded is decoded to the same, and nothing else is accepted.

use hypercache_cluster::frame::{FrameError, HEADER_BYTES, check_round_trip, decode, encode};
use hypercache_cluster::ids::{Epoch, Generation, Lsn, Member, NodeId, PartitionId, RecordId};
use hypercache_cluster::log::{Point, Record};
use hypercache_cluster::message::{Ack, Append, Copy, CopyAck, CopyPart, Message, Seal, SealAck};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

fn any_member() -> impl Strategy<Value = Member> {
    let member =
        |(node, generation)| Member { node: NodeId(node), generation: Generation(generation) };
    any::<(u64, u32)>().prop_map(member)
}

fn any_id() -> impl Strategy<Value = RecordId> {
    any::<(u64, u64)>().prop_map(|(epoch, lsn)| RecordId { epoch: Epoch(epoch), lsn: Lsn(lsn) })
}

fn any_point() -> impl Strategy<Value = Point> {
    (any_id(), any::<u32>()).prop_map(|(id, chain)| Point { id, chain })
}

fn any_bytes() -> impl Strategy<Value = Arc<[u8]>> {
    proptest::collection::vec(any::<u8>(), 0..60).prop_map(Arc::from)
}

fn any_records() -> impl Strategy<Value = Vec<Record>> {
    let record = (any_point(), any_bytes()).prop_map(|(point, body)| Record {
        id: point.id,
        chain: point.chain,
        body,
    });
    proptest::collection::vec(record, 0..5)
}

fn any_part() -> impl Strategy<Value = CopyPart> {
    prop_oneof![
        any_bytes().prop_map(CopyPart::Chunk),
        any_bytes().prop_map(CopyPart::Record),
        (any_point(), any::<u64>())
            .prop_map(|(tail, commit)| CopyPart::End { tail, commit: Lsn(commit) }),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let at = || (any::<u16>().prop_map(PartitionId), any_member(), any::<u64>().prop_map(Epoch));
    prop_oneof![
        (at(), any::<(u64, u32, u64)>(), any_point(), any::<Option<u64>>(), any_records())
            .prop_map(
                |(
                    (partition, from, epoch),
                    (term, lineage, commit),
                    prev,
                    read_stamp_us,
                    records,
                )| {
                    let (term, commit) = (Epoch(term), Lsn(commit));
                    Message::Append(Append {
                        partition,
                        from,
                        epoch,
                        term,
                        lineage,
                        prev,
                        commit,
                        read_stamp_us,
                        records,
                    })
                }
            ),
        (at(), any::<(u64, Option<u64>, bool, u64)>(), any_point()).prop_map(
            |((partition, from, epoch), (term, verified, wants_copy, stamp_us), tail)| {
                let (term, verified) = (Epoch(term), verified.map(Lsn));
                Message::Ack(Ack {
                    partition,
                    from,
                    epoch,
                    term,
                    verified,
                    tail,
                    wants_copy,
                    stamp_us,
                })
            }
        ),
        (at(), any::<(u64, u32, u64, u32)>(), any_part()).prop_map(
            |((partition, from, epoch), (term, lineage, session, seq), part)| {
                let term = Epoch(term);
                Message::Copy(Copy { partition, from, epoch, term, lineage, session, seq, part })
            }
        ),
        (at(), any::<(u64, u32)>()).prop_map(|((partition, from, _), (session, next_seq))| {
            Message::CopyAck(CopyAck { partition, from, session, next_seq })
        }),
        at().prop_map(|(partition, _, epoch)| Message::Seal(Seal { partition, epoch })),
        (at(), any_id()).prop_map(|((partition, from, epoch), tail)| {
            Message::SealAck(SealAck { partition, from, epoch, tail })
        }),
    ]
}

fn frame_of(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(message in any_message(), rest in any_bytes()) {
        let frame = frame_of(&message);
        let stream = [&frame[..], &rest].concat();
        prop_assert_eq!(decode(&stream), Ok(Some((message, frame.len()))));
        check_round_trip(&stream);
    }

    #[test]
    fn a_frame_in_pieces_waits_for_the_rest(message in any_message(), cut in 0.0..1.0f64) {
        let frame = frame_of(&message);
        let cut = (frame.len() as f64 * cut) as usize;
        prop_assert_eq!(decode(&frame[..cut]), Ok(None));
    }

    #[test]
    fn a_flipped_bit_is_noticed(message in any_message(), at in 4usize..400, bit in 0u8..8) {
        let mut frame = frame_of(&message);
        let at = 4 + at % (frame.len() - 4);
        frame[at] ^= 1 << bit;
        prop_assert_eq!(decode(&frame), Err(FrameError::Damaged));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check_round_trip(&bytes);
    }
}

#[test]
fn the_corpus_breaks_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/cluster_frames");
    let files: Vec<_> = std::fs::read_dir(folder).expect("a corpus").flatten().collect();
    assert!(files.len() >= 20, "only {} files", files.len());
    for file in files {
        check_round_trip(&std::fs::read(file.path()).expect("readable"));
    }
}

#[test]
fn a_length_that_claims_too_much_is_refused() {
    let mut frame = frame_of(&Message::Seal(Seal { partition: PartitionId(3), epoch: Epoch(9) }));
    frame[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(&frame), Err(FrameError::TooLong));
}

/// The bytes of version 1. A change of them is a change of the protocol: raise the version.
#[test]
fn golden_frame_of_a_seal() {
    let frame = frame_of(&Message::Seal(Seal { partition: PartitionId(3), epoch: Epoch(9) }));
    assert_eq!(frame.len(), HEADER_BYTES + 10);
    assert_eq!(&frame[..8], [10, 0, 0, 0, 5, 1, 0, 0]);
    assert_eq!(&frame[12..], [3, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
}
