//! Values of each type there and back, values in each encoding that is only read, and damage.

use super::*;
use hypercache_store::types::stream::{StreamId, StreamOp};
use hypercache_store::types::{
    Collection, Hash, HashOp, Held, List, ListOp, Object, Record, Set, SetOp, SortedSet,
    SortedSetOp, Stream,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Reads a type and a value, and all of it.
fn read(content: &[u8]) -> Result<Value, Refused> {
    read_in(content, VERSION_DEADLINES)
}

fn read_in(content: &[u8], version: u16) -> Result<Value, Refused> {
    let mut reader = Reader::new(content);
    let kind = reader.u8().ok_or(Refused::Damaged)?;
    let value = read_value(kind, &mut reader, version)?;
    if reader.is_empty() { Ok(value) } else { Err(Refused::Damaged) }
}

fn written(object: &Object) -> Vec<u8> {
    let mut out = Vec::new();
    put_object(&mut out, object);
    out
}

fn object_of(content: &[u8]) -> Object {
    match read(content) {
        Ok(Value::Object(object)) => object,
        other => panic!("{}: {other:?}", content.escape_ascii()),
    }
}

fn is_there_and_back(object: &Object) {
    let back = object_of(&written(object));
    assert_eq!(back.canonical(), object.canonical());
    assert_eq!(back.encoding(), object.encoding());
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    let edges = [0, 63, 64, 4095, 4096, 16383, 16384].map(|len| vec![b'x'; len]);
    prop_oneof![
        6 => vec(any::<u8>(), 0..40),
        3 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        3 => (-5000i64..5000).prop_map(|n| n.to_string().into_bytes()),
        1 => proptest::sample::select(edges.to_vec()),
    ]
}

fn scores() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("a number", |score| !score.is_nan()),
        (-9i32..9).prop_map(f64::from),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
    ]
}

fn list_of<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T>) -> Object {
    let mut list = List::default();
    items.into_iter().for_each(|item| list.apply(ListOp::PushBack(item.as_ref())));
    list.into_object()
}

fn set_of<T: AsRef<[u8]>>(members: impl IntoIterator<Item = T>) -> Object {
    let mut set = Set::default();
    for member in members {
        set.apply(SetOp::Add(member.as_ref()));
    }
    set.into_object()
}

fn hash_of<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8], Option<u64>)>) -> Object {
    let mut hash = Hash::default();
    for (key, value, deadline) in fields {
        hash.apply(HashOp::Put(Record { key, value, deadline }));
    }
    hash.into_object()
}

fn sorted_set_of<'a>(members: impl IntoIterator<Item = (f64, &'a [u8])>) -> Object {
    let mut set = SortedSet::default();
    members.into_iter().for_each(|(score, member)| {
        set.apply(SortedSetOp::Put(score, member));
    });
    set.into_object()
}

/// Steps of a stream: adds an entry, deletes one, or has a consumer take or acknowledge one.
fn stream_of(steps: &[(u8, u8, Vec<Vec<u8>>)]) -> Object {
    let mut stream = Stream::default();
    stream.apply(StreamOp::CreateGroup(b"group", StreamId::MIN, None));
    stream.apply(StreamOp::CreateGroup(b"7", StreamId { ms: 1, seq: 2 }, Some(3)));
    for (n, (what, which, texts)) in steps.iter().enumerate() {
        let id = StreamId { ms: 1 << (n % 40), seq: u64::from(*which) };
        let name = [b'c', which % 3];
        match what % 8 {
            0 => stream.apply(StreamOp::Delete(id)),
            1 => stream.apply(StreamOp::CreateConsumer(b"group", &name, 77)),
            2 => stream.apply(StreamOp::Assign(b"group", &name, id, 99, 2)),
            _ => {
                let fields = if *what < 200 { vec![&b"field"[..]] } else { vec![&b"a"[..], b"b"] };
                let value = |i: usize| texts.get(i).map_or(&b"v"[..], |text| text);
                let items = fields.iter().enumerate().flat_map(|(i, name)| [*name, value(i)]);
                stream.apply(StreamOp::Add(id, &StreamOp::items(items)))
            }
        };
    }
    stream.into_object()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn strings_are_read_as_they_were_written(text in texts()) {
        let mut out = Vec::new();
        put_string_value(&mut out, &text);
        prop_assert!(matches!(read(&out), Ok(Value::String(back)) if back == text));
    }

    #[test]
    fn lists_are_read_as_they_were_written(items in vec(texts(), 1..300)) {
        is_there_and_back(&list_of(items));
    }

    #[test]
    fn sets_are_read_as_they_were_written(members in vec(texts(), 1..300)) {
        is_there_and_back(&set_of(members));
    }

    #[test]
    fn sets_of_integers_are_read_as_they_were_written(members in vec(any::<i64>(), 1..700)) {
        is_there_and_back(&set_of(members.iter().map(i64::to_string)));
    }

    #[test]
    fn sorted_sets_are_read_as_they_were_written(
        members in vec((scores(), texts()), 1..300),
    ) {
        is_there_and_back(&sorted_set_of(members.iter().map(|(s, m)| (*s, &m[..]))));
    }

    #[test]
    fn hashes_are_read_as_they_were_written(
        fields in vec((texts(), texts(), proptest::option::of(1u64..1 << 45)), 1..200),
        has_deadlines in any::<bool>(),
    ) {
        let deadline = |at: Option<u64>| at.filter(|_| has_deadlines);
        is_there_and_back(&hash_of(fields.iter().map(|(f, v, at)| (&f[..], &v[..], deadline(*at)))));
    }

    #[test]
    fn streams_are_read_as_they_were_written(
        steps in vec((any::<u8>(), any::<u8>(), vec(texts(), 0..2)), 0..250),
    ) {
        is_there_and_back(&stream_of(&steps));
    }

    #[test]
    fn any_bytes_are_read_or_refused(content in vec(any::<u8>(), 0..200)) {
        let _either = read(&content).is_ok();
    }
}

/// A string of less than 64 bytes.
fn short(bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 64);
    [&[bytes.len() as u8], bytes].concat()
}

/// A longer string.
fn long(bytes: &[u8]) -> Vec<u8> {
    [&[0x80][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// A ziplist of elements that are encoded already: head and payload.
fn ziplist(elements: &[&[u8]]) -> Vec<u8> {
    let (mut body, mut before, mut tail) = (Vec::new(), 0, 10);
    for element in elements {
        tail = 10 + body.len();
        if before < 254 {
            body.push(before as u8);
        } else {
            body.push(254);
            body.extend_from_slice(&(before as u32).to_le_bytes());
        }
        body.extend_from_slice(element);
        before = 10 + body.len() - tail;
    }
    let head = [(body.len() + 11) as u32, tail as u32].map(u32::to_le_bytes).concat();
    [&head[..], &(elements.len() as u16).to_le_bytes(), &body, &[0xff]].concat()
}

/// One element of each encoding of a ziplist, and what it stands for.
fn ziplist_elements() -> Vec<(Vec<u8>, Vec<u8>)> {
    let text = |head: &[u8], len| [head, &vec![b'z'; len]].concat();
    let number = |head: &[u8], n: i64, len| [head, &n.to_le_bytes()[..len]].concat();
    let z = |len| vec![b'z'; len];
    vec![
        (text(&[0], 0), z(0)),
        (text(&[0x3f], 63), z(63)),
        (text(&[0x41, 0x2c], 300), z(300)),
        (text(&[0x80, 0, 0, 0x40, 1], 16385), z(16385)),
        (number(&[0xc0], -300, 2), b"-300".to_vec()),
        (number(&[0xd0], 1 << 30, 4), b"1073741824".to_vec()),
        (number(&[0xe0], i64::MIN, 8), i64::MIN.to_string().into_bytes()),
        (number(&[0xf0], -8_388_608, 3), b"-8388608".to_vec()),
        (number(&[0xfe], -128, 1), b"-128".to_vec()),
        (vec![0xf1], b"0".to_vec()),
        (vec![0xfd], b"12".to_vec()),
    ]
}

fn all_elements() -> (Vec<u8>, Vec<Vec<u8>>) {
    let elements = ziplist_elements();
    let raw: Vec<&[u8]> = elements.iter().map(|(raw, _)| &raw[..]).collect();
    (ziplist(&raw), elements.into_iter().map(|(_, text)| text).collect())
}

/// A content and the object that it stands for, for each encoding that is only read.
fn old_encodings() -> Vec<(Vec<u8>, Object)> {
    let with = |kind: u8, rest: &[u8]| [&[kind], rest].concat();
    let (all, items) = all_elements();
    let pairs = ziplist(&[b"\x01a", b"\xf2", b"\x01b", b"\x031.5", b"\x01c", b"\x04-inf"]);
    let scored = || sorted_set_of([(1.0, &b"a"[..]), (1.5, b"b"), (f64::NEG_INFINITY, b"c")]);
    let fields =
        || hash_of([(&b"a"[..], &b"1"[..], None), (b"b", b"1.5", None), (b"c", b"-inf", None)]);
    let zipmap =
        [&b"\x02\x01a\x03\x02one.."[..], b"\xfe\x02\0\0\0bb\xfe\x03\0\0\0\0two\xff"].concat();
    let intset = b"\x02\0\0\0\x03\0\0\0\xfe\xff\x01\0\x2c\x01";
    let listpack = |elements: &[&str]| {
        let mut builder = listpack::Builder::new();
        elements.iter().for_each(|e| builder.push(hypercache_store::types::Item::of(e.as_bytes())));
        builder.finish()
    };
    let scored_text = b"\x03\x01a\x011\x01b\x031.5\x01c\xff";
    let timed = hash_of([(&b"f"[..], &b"1"[..], Some(5000)), (b"g", b"2", None)]);
    let first = 5000i64.to_le_bytes();
    vec![
        (with(kind::LIST, b"\x02\x01a\xc0\x05"), list_of(["a", "5"])),
        (with(kind::LIST_ZIPLIST, &long(&all)), list_of(&items)),
        (with(kind::LIST_QUICKLIST, &[&[1][..], &long(&all)].concat()), list_of(&items)),
        (
            with(
                kind::LIST_QUICKLIST_2,
                &[&b"\x02\x01\x02aa\x02"[..], &short(&listpack(&["1", "b"]))].concat(),
            ),
            list_of(["aa", "1", "b"]),
        ),
        (with(kind::SET_INTSET, &short(intset)), set_of(["-2", "1", "300"])),
        (with(kind::SET_LISTPACK, &short(&listpack(&["x", "7"]))), set_of(["7", "x"])),
        (with(kind::ZSET, scored_text), scored()),
        (with(kind::ZSET_ZIPLIST, &short(&pairs)), scored()),
        (
            with(kind::ZSET_LISTPACK, &short(&listpack(&["a", "1", "b", "1.5", "c", "-inf"]))),
            scored(),
        ),
        (
            with(kind::HASH_ZIPMAP, &short(&zipmap)),
            hash_of([(&b"a"[..], &b"one"[..], None), (b"bb", b"two", None)]),
        ),
        (with(kind::HASH_ZIPLIST, &short(&pairs)), fields()),
        (
            with(kind::HASH_LISTPACK, &short(&listpack(&["a", "1", "b", "1.5", "c", "-inf"]))),
            fields(),
        ),
        (
            with(kind::HASH_METADATA, &[&first[..], b"\x02\x01\x01f\x011\x00\x01g\x012"].concat()),
            timed.clone(),
        ),
        (
            with(
                kind::HASH_LISTPACK_EX,
                &[&first[..], &short(&listpack(&["f", "1", "5000", "g", "2", "0"]))].concat(),
            ),
            timed,
        ),
    ]
}

#[test]
fn old_encodings_are_read() {
    for (content, object) in old_encodings() {
        let found = object_of(&content);
        assert_eq!(found.canonical(), object.canonical(), "{}", content.escape_ascii());
    }
}

#[test]
fn what_is_cut_off_is_refused_and_what_is_changed_breaks_nothing() {
    let step = (3, 1, vec![b"value".to_vec()]);
    let stream = stream_of(&vec![step; 20]);
    let set = set_of(["a", "b", "3"]);
    let new = [written(&stream), written(&set)];
    for content in old_encodings().into_iter().map(|(content, _)| content).chain(new) {
        for len in 0..content.len() {
            assert!(read(&content[..len]).is_err(), "{} bytes of {}", len, content.escape_ascii());
        }
        for i in 0..content.len().min(400) {
            for byte in [0, 1, 0x7f, 0x80, 0xfe, 0xff, content[i].wrapping_add(1)] {
                let mut broken = content.clone();
                broken[i] = byte;
                if let Ok(Value::Object(object)) = read(&broken) {
                    is_there_and_back(&object);
                }
            }
        }
    }
}

#[test]
fn claims_beyond_what_is_there_take_no_memory() {
    let endless = b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff";
    for kind in 0..=25 {
        assert!(read(&[&[kind][..], endless].concat()).is_err(), "{kind}");
        assert!(read(&[&[kind][..], b"\x80\xff\xff\xff\xff"].concat()).is_err(), "{kind}");
    }
    // A packed string that says that it is four gigabytes.
    assert!(read(b"\x00\xc3\x04\x80\xff\xff\xff\xff\x00a\x20\x00").is_err());
}

#[test]
fn values_that_contradict_themselves_are_refused() {
    let refused: &[&[u8]] = &[
        b"\x02\x00",                                 // a set of nothing
        b"\x02\x02\x01a\x01a",                       // a member twice
        b"\x04\x02\x01a\x011\x01a\x012",             // a field twice
        b"\x03\x01\x01a\xfd",                        // a score that is no number
        b"\x03\x01\x01a\x01x",                       // a score that is none
        b"\x0b\x0c\x02\0\0\0\x02\0\0\0\x02\0\x01\0", // an intset that descends
        b"\x0b\x0c\x02\0\0\0\x02\0\0\0\x01\0\x01\0", // a number twice
        b"\x0b\x09\x01\0\0\0\x01\0\0\0\x01",         // numbers of one byte
        b"\x0b\x08\x02\0\0\0\0\0\0\0",               // an intset of nothing
        b"\x12\x01\x03\x01a",                        // a node of an unknown kind
    ];
    for content in refused {
        assert_eq!(read(content).err(), Some(Refused::Damaged), "{}", content.escape_ascii());
    }
    assert_eq!(read(b"\x07\x00").err(), Some(Refused::Module));
    assert_eq!(read(b"\x1a\x00").err(), Some(Refused::UnknownType));
}

/// A payload of a few bytes whose entries share a long field name, deleted ones first.
fn shared_name(name: &[u8], deleted: usize, entries: usize) -> Vec<u8> {
    use hypercache_store::types::Item;
    let mut node = listpack::Builder::new();
    [entries as i64, deleted as i64, 1].into_iter().for_each(|n| node.push(Item::Int(n)));
    node.push(Item::Bytes(name));
    node.push(Item::Int(0));
    for _ in 0..deleted {
        [3, 0, 0, 7, 4].into_iter().for_each(|n| node.push(Item::Int(n)));
    }
    for n in 0..entries {
        [2, 0, n as i64, 7, 4].into_iter().for_each(|n| node.push(Item::Int(n)));
    }
    let mut out = vec![kind::STREAM_LISTPACKS, 1];
    out.extend_from_slice(&short(&[&1u64.to_be_bytes()[..], &0u64.to_be_bytes()].concat()));
    out.extend_from_slice(&long(&node.finish()));
    out.extend_from_slice(&(entries as u16 | 0x4000).to_be_bytes());
    out.push(1);
    out.extend_from_slice(&((entries as u16 - 1) | 0x4000).to_be_bytes());
    out.push(0);
    out
}

#[test]
fn a_stream_takes_no_more_than_a_small_multiple_of_its_bytes() {
    let small = object_of(&shared_name(b"a name", 0, 2000));
    let Object::Stream(small) = small else { panic!("{small:?}") };
    assert_eq!((small.len(), small.last_id()), (2000, StreamId { ms: 1, seq: 1999 }));
    // Here a block holds it for the few entries after it only, so it would be kept a thousand times.
    let content = shared_name(&vec![b'n'; 100_000], 0, 2000);
    assert_eq!(read(&content).err(), Some(Refused::Damaged));
}

#[test]
fn names_that_entries_share_are_copied_within_bounds() {
    // A node that Redis makes if it is not told otherwise, with the longest name for all its entries.
    let longest = shared_name(&[b'n'; 3000], 0, 100);
    assert!(read(&longest).is_ok());
    // Memory would not tell: a block has the name once.
    let content = shared_name(&[b'n'; 600], 0, 10_000);
    assert_eq!(read(&content).err(), Some(Refused::Damaged));
    // Nothing is copied for what is deleted: it would be terabytes.
    let name = vec![b'n'; 10_000_000];
    let Object::Stream(stream) = object_of(&shared_name(&name, 400_000, 1)) else { panic!() };
    assert_eq!(stream.len(), 1);
}

#[test]
fn hashes_of_valkey_are_read_in_its_version_only() {
    let content = b"\x16\x01\x01f\x01v\x88\x13\0\0\0\0\0\0";
    let Ok(Value::Object(hash)) = read_in(content, VERSION_VALKEY) else { panic!() };
    assert_eq!(hash.canonical(), hash_of([(&b"f"[..], &b"v"[..], Some(5000))]).canonical());
    assert!(read(content).is_err());
}
