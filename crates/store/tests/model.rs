//! The database against a simple model: a map from keys to values with deadlines.

use hypercache_stdx::hash::KeyHasher;
use hypercache_stdx::rng::Rng;
use hypercache_store::evict::{Mode, Order, Pool, Uses};
use hypercache_store::types::{Collection, Hash, HashOp, Held, List, ListOp, Object, Record};
use hypercache_store::{Choice, Db, Due, EntryRef, Gain, Key, Mark, Payload, Sparse, Ttl, Was};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const START_MS: u64 = 1_000_000;

#[derive(Debug, Clone)]
enum Step {
    Set { key: u16, len: usize, shared: bool, ttl: Option<Option<u64>> },
    SetTtl { key: u16, ttl: Option<u64> },
    Edit { key: u16, len: usize, at: usize },
    SetMark { key: u16, mark: Mark },
    Push { key: u16, count: usize },
    SetList { key: u16, count: usize, ttl: Option<u64> },
    Field { key: u16, field: u8, ttl: Option<u64> },
    Remove { key: u16 },
    Get { key: u16 },
    Expire { after_ms: u64, max: usize },
    Random { n: u64 },
    Evict { n: u64, is_volatile: bool },
    SetMode { mode: Mode },
    Move { gain: Gain },
}

/// Few keys, so that they meet; some long ones, whose lengths are kept apart.
fn key_bytes(key: u16) -> Vec<u8> {
    let mut bytes = format!("k{key}").into_bytes();
    if key.is_multiple_of(7) {
        bytes.resize(bytes.len() + 250 + usize::from(key % 20), b'x');
    }
    bytes
}

fn any_len() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0usize..100, 2 => 100usize..3000, 1 => 16_380usize..16_390, 1 => 60_000usize..70_000]
}

fn any_mark() -> impl Strategy<Value = Mark> {
    let cas = prop_oneof![Just(0), any::<u64>()];
    (0u32..3, 0u8..8, cas).prop_map(|(client_flags, state, cas)| Mark { client_flags, state, cas })
}

fn any_step() -> impl Strategy<Value = Step> {
    let key = || 0u16..400;
    let after = || 1u64..5000;
    prop_oneof![
        6 => (key(), any_len(), any::<bool>(), proptest::option::of(proptest::option::of(after())))
            .prop_map(|(key, len, shared, ttl)| Step::Set { key, len, shared, ttl }),
        2 => (key(), proptest::option::of(after())).prop_map(|(key, ttl)| Step::SetTtl { key, ttl }),
        2 => (key(), any_len(), any::<usize>()).prop_map(|(key, len, at)| Step::Edit { key, len, at }),
        2 => (key(), 1usize..3000).prop_map(|(key, count)| Step::Push { key, count }),
        2 => (key(), 1usize..50, proptest::option::of(after()))
            .prop_map(|(key, count, ttl)| Step::SetList { key, count, ttl }),
        2 => (key(), any_mark()).prop_map(|(key, mark)| Step::SetMark { key, mark }),
        4 => (key(), any::<u8>(), proptest::option::of(after()))
            .prop_map(|(key, field, ttl)| Step::Field { key: key % 40, field, ttl }),
        2 => key().prop_map(|key| Step::Remove { key }),
        2 => key().prop_map(|key| Step::Get { key }),
        1 => (1u64..3000, 1usize..200).prop_map(|(after_ms, max)| Step::Expire { after_ms, max }),
        1 => any::<u64>().prop_map(|n| Step::Random { n }),
        2 => (any::<u64>(), any::<bool>()).prop_map(|(n, is_volatile)| Step::Evict { n, is_volatile }),
        1 => prop_oneof![Just(Mode::Time), Just(Mode::Frequency), Just(Mode::Learned)]
            .prop_map(|mode| Step::SetMode { mode }),
        2 => prop_oneof![Just(Gain::Pages), Just(Gain::Run), Just(Gain::Region)]
            .prop_map(|gain| Step::Move { gain }),
    ]
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    String(Vec<u8>),
    List(Vec<Vec<u8>>),
    Hash(BTreeMap<u8, Option<u64>>),
}

impl Value {
    fn of(entry: EntryRef<'_>) -> Value {
        match entry.object() {
            None => Value::String(entry.value().to_vec()),
            Some(Object::List(list)) => {
                Value::List(list.iter().map(|item| item.to_vec()).collect())
            }
            Some(object) => {
                let hash = Hash::of(object).expect("there are lists and hashes");
                let field = |record: Record<'_>| (record.key[0], record.deadline);
                Value::Hash(hash.iter_live(0).map(field).collect())
            }
        }
    }
}

#[derive(Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, (Value, Option<u64>)>,
    /// Of keys that have one.
    marks: BTreeMap<Vec<u8>, Mark>,
}

struct Pair {
    db: Db,
    uses: Arc<Uses>,
    model: Model,
    hasher: KeyHasher,
    now_ms: u64,
    fill: u8,
}

impl Pair {
    fn new() -> Self {
        let hasher = KeyHasher::new((1, 2));
        let (uses, model) = (Arc::<Uses>::default(), Model::default());
        let db = Db::with_uses(hasher, START_MS, Arc::clone(&uses), 7);
        Pair { db, uses, model, hasher, now_ms: START_MS, fill: 0 }
    }

    fn key<'a>(&self, bytes: &'a [u8]) -> Key<'a> {
        Key::new(bytes, self.hasher.hash(bytes))
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Set { key, len, shared, ttl } => self.set(&key_bytes(key), len, shared, ttl),
            Step::SetTtl { key, ttl } => self.set_ttl(&key_bytes(key), ttl),
            Step::Edit { key, len, at } => self.edit(&key_bytes(key), len, at),
            Step::Push { key, count } => self.push(&key_bytes(key), count),
            Step::Field { key, field, ttl } => self.put_field(&key_bytes(key), field, ttl),
            Step::SetList { key, count, ttl } => self.set_list(&key_bytes(key), count, ttl),
            Step::SetMark { key, mark } => {
                let bytes = key_bytes(key);
                if self.db.set_mark(self.key(&bytes), mark) {
                    self.model.marks.insert(bytes.clone(), mark);
                }
                self.check_key(&bytes);
            }
            Step::Remove { key } => {
                let bytes = key_bytes(key);
                let removed = self.db.remove(self.key(&bytes));
                let expected = self.model.keys.remove(&bytes);
                self.model.marks.remove(&bytes);
                assert_eq!(removed.is_some(), expected.is_some());
                if let (Some(removed), Some((_, deadline))) = (removed, expected) {
                    assert_eq!((removed.key(), removed.deadline()), (&bytes[..], deadline));
                }
            }
            Step::Get { key } => self.check_key(&key_bytes(key)),
            Step::Expire { after_ms, max } => self.expire(after_ms, max),
            Step::Evict { n, is_volatile } => self.evict(n, is_volatile),
            Step::SetMode { mode } => {
                self.uses.set_mode(mode);
                self.db.set_mode(mode, (self.now_ms / 1000) as u32);
                assert_eq!(self.db.mode(), mode);
            }
            Step::Move { gain } => self.move_entries(gain),
            Step::Random { n } => {
                let mut rng = Rng::new(n);
                let random = self.db.random(|bound| rng.below(bound));
                let random = random.map(|entry| entry.key().to_vec());
                assert_eq!(random.is_some(), !self.model.keys.is_empty());
                assert!(random.is_none_or(|key| self.model.keys.contains_key(&key)));
            }
        }
        assert_eq!(self.db.len(), self.model.keys.len());
        let expires = self.model.keys.values().filter(|(_, deadline)| deadline.is_some()).count();
        assert_eq!(self.db.expires(), expires);
    }

    /// Moves entries out of sparse slabs, which hold those of other tests too.
    fn move_entries(&mut self, gain: Gain) {
        let Some(mut sparse) = Sparse::close(gain) else { return };
        let Pair { db, hasher, model, .. } = self;
        let mut take = |key: &[u8], address: u64| {
            let is_moved = db.relocate(hasher.hash(key), address);
            assert!(!is_moved || model.keys.contains_key(key), "what is moved is there");
            assert!(!db.relocate(hasher.hash(key), address), "it is elsewhere now");
        };
        while sparse.next(16, |guess| take(guess.key, guess.address)) {}
    }

    fn set(&mut self, bytes: &[u8], len: usize, shared: bool, ttl: Option<Option<u64>>) {
        self.fill = self.fill.wrapping_add(1);
        let value = vec![self.fill; len];
        let payload =
            if shared { Payload::Blob(Arc::new(value.clone())) } else { Payload::Slice(&value) };
        let old = self.model.keys.get(bytes);
        let (ttl, deadline) = match ttl {
            None => (Ttl::Keep, old.and_then(|(_, deadline)| *deadline)),
            Some(None) => (Ttl::Clear, None),
            Some(Some(after)) => (Ttl::At(self.now_ms + after), Some(self.now_ms + after)),
        };
        let existed = old.is_some();
        let key = self.key(bytes);
        let was = self.db.set(key, payload, ttl, 7);
        assert_eq!(!matches!(was, Was::Missing), existed);
        self.model.keys.insert(bytes.to_vec(), (Value::String(value), deadline));
        self.model.marks.remove(bytes);
        self.check_key(bytes);
    }

    fn items(&mut self, count: usize) -> Vec<Vec<u8>> {
        self.fill = self.fill.wrapping_add(1);
        (0..count).map(|n| format!("item {n} {}", self.fill).into_bytes()).collect()
    }

    fn set_list(&mut self, bytes: &[u8], count: usize, ttl: Option<u64>) {
        let items = self.items(count);
        let mut list = List::default();
        items.iter().for_each(|item| list.apply(ListOp::PushBack(item)));
        let deadline = ttl.map(|after| self.now_ms + after);
        let key = self.key(bytes);
        let object = Box::new(list.into_object());
        self.db.set_object(key, object, deadline.map_or(Ttl::Clear, Ttl::At), 3);
        self.model.keys.insert(bytes.to_vec(), (Value::List(items), deadline));
        self.model.marks.remove(bytes);
        self.check_key(bytes);
    }

    fn push(&mut self, bytes: &[u8], count: usize) {
        let items = self.items(count);
        let key = self.key(bytes);
        let push = self.db.edit_object(key, Some(4), |object| {
            List::of_mut(object).map(|list| {
                items.iter().for_each(|item| list.apply(ListOp::PushBack(item)));
            })
        });
        let model = self.model.keys.get_mut(bytes);
        assert_eq!(push.flatten().is_some(), matches!(model, Some((Value::List(_), _))));
        if let Some((Value::List(list), _)) = model {
            list.extend(items);
        }
        self.check_key(bytes);
    }

    fn put_field(&mut self, bytes: &[u8], field: u8, ttl: Option<u64>) {
        let deadline = ttl.map(|after| self.now_ms + after);
        let key = self.key(bytes);
        let op = HashOp::Put(Record { key: &[field], value: b"v", deadline });
        if !self.model.keys.contains_key(bytes) {
            let mut hash = Hash::default();
            hash.apply(op);
            self.db.set_object(key, Box::new(hash.into_object()), Ttl::Clear, 5);
            self.model.keys.insert(bytes.to_vec(), (Value::Hash(BTreeMap::new()), None));
        }
        self.db.edit_object(key, Some(5), |object| Hash::of_mut(object).map(|hash| hash.apply(op)));
        if let Some((Value::Hash(fields), _)) = self.model.keys.get_mut(bytes) {
            fields.insert(field, deadline);
        }
        self.check_key(bytes);
    }

    /// Removes what is due in a hash, as whoever is told of it does.
    fn expire_fields(&mut self, bytes: &[u8]) {
        let now_ms = self.now_ms;
        let Some((Value::Hash(fields), _)) = self.model.keys.get_mut(bytes) else {
            panic!("only hashes have something within")
        };
        let before = fields.len();
        fields.retain(|_, deadline| deadline.is_none_or(|at| at >= now_ms));
        let gone = before - fields.len();
        let key = self.key(bytes);
        let removed = self.db.edit_object(key, Some(5), |object| {
            let hash = Hash::of_mut(object).expect("as above");
            let mut due = Vec::new();
            hash.fields().each_expired(now_ms, |record| {
                due.push(record.key.to_vec());
                true
            });
            for field in &due {
                hash.apply(HashOp::Remove(field));
            }
            hash.settle();
            due.len()
        });
        assert_eq!(removed, Some(gone));
        self.check_key(bytes);
    }

    fn set_ttl(&mut self, bytes: &[u8], ttl: Option<u64>) {
        let deadline = ttl.map(|after| self.now_ms + after);
        let key = self.key(bytes);
        let was_there = self.db.set_ttl(key, deadline.map_or(Ttl::Clear, Ttl::At));
        assert_eq!(was_there, self.model.keys.contains_key(bytes));
        if let Some((_, old)) = self.model.keys.get_mut(bytes) {
            *old = deadline;
        }
        self.check_key(bytes);
    }

    fn edit(&mut self, bytes: &[u8], len: usize, at: usize) {
        self.fill = self.fill.wrapping_add(1);
        let (key, fill) = (self.key(bytes), self.fill);
        let write = |value: &mut [u8]| {
            if !value.is_empty() {
                let at = at % value.len();
                value[at] = fill;
            }
        };
        let old = self.model.keys.entry(bytes.to_vec());
        let (value, _) = old.or_insert((Value::String(Vec::new()), None));
        // Whoever edits a string looked at the type first.
        if let Value::String(value) = value {
            self.db.edit(key, len, 9, write);
            let is_same_len = value.len() == len;
            value.resize(len, 0);
            write(value);
            if let Some(mark) = self.model.marks.get_mut(bytes) {
                *mark = if is_same_len { Mark { cas: 0, ..*mark } } else { mark.of_next_value() };
            }
        }
        self.check_key(bytes);
    }

    fn check_key(&self, bytes: &[u8]) {
        let entry = self.db.get(self.key(bytes));
        let expected = self.model.keys.get(bytes);
        assert_eq!(entry.is_some(), expected.is_some());
        if let (Some(entry), Some((value, deadline))) = (entry, expected) {
            assert_eq!(entry.key(), bytes);
            assert!(Value::of(entry) == *value, "the value differs");
            assert_eq!(entry.deadline(), *deadline);
            assert_eq!(entry.mark(), self.model.marks.get(bytes).copied().unwrap_or_default());
        }
    }

    /// Who is drawn is there and may go; who goes is one of them.
    fn evict(&mut self, n: u64, is_volatile: bool) {
        let mut rng = Rng::new(n);
        let order = [Order::Use, Order::Deadline, Order::Random][(n % 3) as usize];
        let choice = Choice { is_volatile, order };
        let mut pool = Pool::default();
        let batch = self.db.draw(choice, self.now_ms, &mut rng, &mut pool);
        let is_candidate =
            |(_, deadline): &&(Value, Option<u64>)| !is_volatile || deadline.is_some();
        let candidates = self.model.keys.values().filter(is_candidate).count();
        assert_eq!(self.db.candidates(choice), candidates);
        assert_eq!(batch > 0, candidates > 0);
        let Some((score, at)) = pool.take(1).next() else { return assert_eq!(candidates, 0) };
        assert_eq!(at.place(), 7);
        let gone = self.db.give_up(at, (choice, score), self.now_ms);
        let (removed, is_expired) = gone.expect("nothing happened since it was drawn");
        let model = self.model.keys.remove(removed.key()).expect("it was there");
        self.model.marks.remove(removed.key());
        assert!(!is_volatile || model.1.is_some());
        assert_eq!(is_expired, model.1.is_some_and(|at| at < self.now_ms));
    }

    /// Whatever is removed was due; what is due for a tick or more is removed when there is room.
    fn expire(&mut self, after_ms: u64, max: usize) {
        self.now_ms += after_ms;
        let (mut gone, mut within) = (Vec::new(), Vec::new());
        let looked = self.db.expire_due(self.now_ms, max, &mut |due| match due {
            Due::Key(removed) => gone.push(removed.key().to_vec()),
            Due::Within(key) => within.push(key.to_vec()),
        });
        for key in gone {
            let (_, deadline) = self.model.keys.remove(&key).expect("it was there");
            self.model.marks.remove(&key);
            assert!(deadline.is_some_and(|at| at < self.now_ms), "it was not due");
        }
        for key in within {
            self.expire_fields(&key);
        }
        const TICK_MS: u64 = 256;
        if looked < max {
            let late = |at: &Option<u64>| at.is_some_and(|at| at + TICK_MS < self.now_ms);
            let is_late = |(value, deadline): &(Value, Option<u64>)| match value {
                Value::Hash(fields) => late(deadline) || fields.values().any(late),
                _ => late(deadline),
            };
            assert!(!self.model.keys.values().any(is_late), "left behind");
        }
    }

    fn check_all(&self) {
        self.model.keys.keys().for_each(|key| self.check_key(key));
        let mut seen = BTreeSet::new();
        let mut cursor = 0;
        loop {
            cursor = self.db.scan(cursor, |entry| {
                seen.insert(entry.key().to_vec());
            });
            if cursor == 0 {
                break;
            }
        }
        assert!(seen.iter().eq(self.model.keys.keys()), "a walk sees every key");
        let mut bytes = 0;
        self.db.for_each(|entry| bytes += entry.bytes_used());
        assert_eq!(self.db.bytes() - self.db.overhead_bytes(), bytes, "accounting is exact");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_database_is_its_model(steps in proptest::collection::vec(any_step(), 1..600)) {
        let mut pair = Pair::new();
        steps.iter().for_each(|step| pair.step(step));
        pair.check_all();
    }

    /// A key that is there from first to last is seen by a walk, whatever comes and goes meanwhile.
    #[test]
    fn a_walk_misses_no_key_while_the_table_changes(
        changes in proptest::collection::vec((0u32..20_000, any::<bool>()), 1..4000),
    ) {
        let hasher = KeyHasher::new((3, 4));
        let mut db = Db::new(hasher, START_MS);
        let put = |db: &mut Db, bytes: &[u8]| {
            let key = Key::new(bytes, hasher.hash(bytes));
            db.set(key, Payload::Slice(b"v"), Ttl::Clear, 1);
        };
        let stays: BTreeSet<Vec<u8>> = (0..200).map(|n| format!("stay{n}").into_bytes()).collect();
        stays.iter().for_each(|key| put(&mut db, key));
        let mut seen = BTreeSet::new();
        let (mut cursor, mut changes) = (0, changes.chunks(16));
        loop {
            cursor = db.scan(cursor, |entry| {
                seen.insert(entry.key().to_vec());
            });
            if cursor == 0 {
                break;
            }
            for (n, is_put) in changes.next().unwrap_or_default() {
                let bytes = format!("other{n}").into_bytes();
                if *is_put {
                    put(&mut db, &bytes);
                } else {
                    db.remove(Key::new(&bytes, hasher.hash(&bytes)));
                }
            }
        }
        prop_assert!(stays.is_subset(&seen));
    }
}
