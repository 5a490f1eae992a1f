//! The stream against a simple model.

use super::*;
use crate::types::{Kind, Object, Operation};
use proptest::prelude::*;

type Model = BTreeMap<StreamId, Vec<Vec<u8>>>;

#[derive(Clone, Debug)]
enum Step {
    Add { ms: u64, seq: u64, fields: Vec<Vec<u8>> },
    Delete(usize),
    Trim(u64),
    Assign { consumer: u8, nth: usize },
    Acknowledge(usize),
    DropConsumer(u8),
}

fn steps() -> impl Strategy<Value = Step> {
    let value = proptest::collection::vec(any::<u8>(), 0..40);
    let same = value.clone().prop_map(|v| vec![b"field".to_vec(), v]);
    let other = proptest::collection::vec(value, 2..6).prop_map(|mut all| {
        all.truncate(all.len() / 2 * 2);
        all
    });
    let fields = prop_oneof![3 => same, 1 => other];
    prop_oneof![
        12 => (0u64..3, 0u64..3, fields).prop_map(|(ms, seq, fields)| Step::Add { ms, seq, fields }),
        3 => any::<usize>().prop_map(Step::Delete),
        1 => (0u64..30).prop_map(Step::Trim),
        2 => (0u8..3, any::<usize>()).prop_map(|(consumer, nth)| Step::Assign { consumer, nth }),
        1 => any::<usize>().prop_map(Step::Acknowledge),
        1 => (0u8..3).prop_map(Step::DropConsumer),
    ]
}

/// Applies an operation by way of its form in the log.
fn apply(stream: &mut Stream, op: StreamOp<'_>) -> bool {
    let mut encoded = Vec::new();
    op.encode(&mut encoded);
    assert_eq!(StreamOp::decode(&encoded), Some(op));
    stream.apply(op)
}

fn nth(model: &Model, n: usize) -> Option<StreamId> {
    model.keys().nth(n % model.len().max(1)).copied()
}

fn run(stream: &mut Stream, model: &mut Model, owners: &mut BTreeMap<StreamId, u8>, step: &Step) {
    match step {
        Step::Add { ms, seq, fields } => {
            let last = stream.last_id();
            let id =
                StreamId { ms: last.ms + ms, seq: if *ms == 0 { last.seq + seq } else { *seq } };
            let items = StreamOp::items(fields.iter().map(|f| &f[..]));
            let added = apply(stream, StreamOp::Add(id, &items));
            assert_eq!(added, id > last);
            if added {
                model.insert(id, fields.clone());
            }
        }
        Step::Delete(n) => {
            let Some(id) = nth(model, *n) else { return };
            assert!(apply(stream, StreamOp::Delete(id)));
            assert!(!apply(stream, StreamOp::Delete(id)));
            model.remove(&id);
        }
        Step::Trim(count) => {
            apply(stream, StreamOp::RemoveFirst(*count));
            (0..*count).for_each(|_| drop(model.pop_first()));
        }
        Step::Assign { consumer, nth: n } => {
            let Some(id) = nth(model, *n) else { return };
            let name = [b'c', *consumer];
            apply(stream, StreamOp::CreateConsumer(b"g", &name, 1));
            assert!(apply(stream, StreamOp::Assign(b"g", &name, id, 5, 1)));
            owners.insert(id, *consumer);
        }
        Step::Acknowledge(n) => {
            let Some(id) = owners.keys().nth(n % owners.len().max(1)).copied() else { return };
            assert!(apply(stream, StreamOp::Acknowledge(b"g", id)));
            owners.remove(&id);
        }
        Step::DropConsumer(consumer) => {
            apply(stream, StreamOp::DeleteConsumer(b"g", &[b'c', *consumer]));
            owners.retain(|_, owner| owner != consumer);
        }
    }
}

fn flat<'a>(entries: impl Iterator<Item = StreamEntry<'a>>) -> Vec<(StreamId, Vec<Vec<u8>>)> {
    entries.map(|e| (e.id, e.fields.map(<[u8]>::to_vec).collect())).collect()
}

fn check(stream: &Stream, model: &Model, owners: &BTreeMap<StreamId, u8>) {
    let all: Vec<_> = model.iter().map(|(id, fields)| (*id, fields.clone())).collect();
    assert_eq!(stream.len(), all.len() as u64);
    assert_eq!(flat(stream.range(StreamId::MIN, StreamId::MAX)), all);
    let mut back = flat(stream.range_rev(StreamId::MIN, StreamId::MAX));
    back.reverse();
    assert_eq!(back, all);
    if let (Some(start), Some(end)) = (nth(model, 3), nth(model, model.len() * 2 / 3)) {
        let some: Vec<_> =
            all.iter().filter(|(id, _)| (start..=end).contains(id)).cloned().collect();
        assert_eq!(flat(stream.range(start, end)), some);
        assert_eq!(flat(stream.range_rev(start, end)).into_iter().rev().collect::<Vec<_>>(), some);
    }
    let group = stream.group(b"g").expect("it was made");
    let pending: BTreeMap<_, _> =
        group.pending().iter().map(|(id, pending)| (*id, pending.consumer[1])).collect();
    assert_eq!(&pending, owners);
    let by_consumer: usize = group.consumers().map(|c| c.pending().len()).sum();
    assert_eq!(by_consumer, owners.len());
    let blocks: usize = stream.0.blocks.iter().map(Block::heap_bytes).sum();
    assert_eq!(stream.0.block_bytes, blocks);
}

proptest! {
    #[test]
    fn a_stream_is_an_ordered_map_of_entries(steps in proptest::collection::vec(steps(), 1..400)) {
        let (mut stream, mut model, mut owners) = (Stream::default(), Model::new(), BTreeMap::new());
        stream.apply(StreamOp::CreateGroup(b"g", StreamId::MIN, None));
        for step in &steps {
            run(&mut stream, &mut model, &mut owners, step);
        }
        check(&stream, &model, &owners);
        check(&stream.clone(), &model, &owners);
        let mut copy = Vec::new();
        let object = Object::Stream(stream);
        object.encode(&mut copy);
        let built = Object::decode(Kind::Stream, &copy).expect("what was encoded");
        prop_assert_eq!(built.canonical(), object.canonical());
        let Object::Stream(built) = built else { panic!() };
        check(&built, &model, &owners);
    }
}

#[test]
fn an_entry_of_one_small_field_takes_few_bytes() {
    let mut stream = Stream::default();
    for n in 0..10_000u64 {
        let id = StreamId { ms: 1_700_000_000_000 + n, seq: 0 };
        let value = format!("{n:08}");
        let items = [&b"field"[..], value.as_bytes()];
        assert!(stream.apply(StreamOp::Add(id, &StreamOp::items(items.into_iter()))));
    }
    let beyond = stream.bytes() / 10_000 - 8;
    assert!(beyond <= 8, "{beyond} bytes beyond the text of an entry");
}
