//! SORT: what a list, a set or a sorted set holds, in an order of one's choice.
//!
//! BY and GET name further keys by patterns, each element put in the place of the `*`. Which keys
//! these are is known only when the elements are, so a command with such a pattern holds all
//! partitions ([`reads_others`]); one without holds those of its key and of STORE's.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace;
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;
use hypercache_store::types::{Collection, Hash, Held, Item, Kind, List, ListOp, Object};
use hypercache_store::{EntryRef, Ttl};
use std::cmp::Ordering;
use std::ops::Range;

const READ: KeyFlags = KeyFlags::RO.or(KeyFlags::ACCESS);
const STORED: KeyFlags = KeyFlags::OW.or(KeyFlags::UPDATE);

const BASE: Command = Command {
    group: Group::Generic,
    acl: Acl::SET.or(Acl::SORTED_SET).or(Acl::LIST).or(Acl::DANGEROUS),
    complexity: "O(N+M*log(M)): of N elements M are sorted; with a pattern of BY or GET, all locks of the keyspace are taken",
    ..Command::DEFAULT
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "SORT",
        arity: -2,
        keys: Keys::Sort { stores: true },
        flags: Flags::WRITE.or(Flags::DENY_OOM).or(Flags::MOVABLE_KEYS),
        run: |cx, args| sort(cx, args, true),
        summary: "Sorts what a list, set or sorted set holds, by itself or by other keys; stores it or answers it.",
        syntax: "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC | DESC] [ALPHA] [STORE destination]",
        examples: "> RPUSH l 10 9 -1\n(integer) 3\n> SORT l\n1) \"-1\"\n2) \"9\"\n3) \"10\"\n> MSET w-9 1 w-10 2 name-10 ten\nOK\n> HSET h-9 name nine\n(integer) 1\n> SORT l BY w-* DESC LIMIT 0 2 GET # GET name-* GET h-*->name\n1) \"10\"\n2) \"ten\"\n3) (nil)\n4) \"9\"\n5) (nil)\n6) \"nine\"\n> SORT l BY none LIMIT 1 2 STORE s\n(integer) 2\n> LRANGE s 0 -1\n1) \"9\"\n2) \"-1\"\n> SORT l LIMIT 5 1 STORE s\n(integer) 0\n> EXISTS s\n(integer) 0\n> RPUSH l x\n(integer) 4\n> SORT l\n(error) ERR One or more scores can't be converted into double\n> SORT l ALPHA DESC LIMIT 0 2\n1) \"x\"\n2) \"9\"",
        ..BASE
    },
    Command {
        name: "SORT_RO",
        since: "7.0.0",
        arity: -2,
        keys: Keys::Sort { stores: false },
        flags: Flags::READONLY.or(Flags::MOVABLE_KEYS),
        run: |cx, args| sort(cx, args, false),
        summary: "SORT that never writes.",
        syntax: "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC | DESC] [ALPHA]",
        examples: "> SADD s 3 1 2\n(integer) 3\n> SORT_RO s DESC\n1) \"3\"\n2) \"2\"\n3) \"1\"\n> ZADD z 1 b 2 a\n(integer) 2\n> SORT_RO z BY none DESC\n1) \"a\"\n2) \"b\"\n> SORT_RO s STORE t\n(error) ERR syntax error",
        ..BASE
    },
];

/// The specifications of the keys, as COMMAND INFO shows them.
pub(crate) fn specs(stores: bool) -> Vec<Keys> {
    let named = "BY and GET name keys by what the sorted key holds";
    let stored = "the argument behind STORE, which may stand anywhere among the options";
    let all = [
        Keys::first(READ),
        Keys::Unknown { flags: READ, note: named },
        Keys::Unknown { flags: STORED, note: stored },
    ];
    all[..if stores { 3 } else { 2 }].to_vec()
}

/// Calls `f` with the number of each argument that is a key, as far as the arguments tell.
pub(crate) fn each_key(args: Args<'_>, stores: bool, f: &mut dyn FnMut(usize, KeyFlags)) {
    if args.len() > 1 {
        f(1, READ);
    }
    let mut target = None;
    each_value(args, |word, at| {
        if word == b"STORE" {
            target = Some(at);
        }
    });
    if let Some(at) = target.filter(|_| stores) {
        f(at, STORED);
    }
}

/// Whether a pattern of BY or GET may name any key.
pub(crate) fn reads_others(args: Args<'_>) -> bool {
    let mut reads = false;
    each_value(args, |word, at| {
        let is_pattern = word == b"BY" || word == b"GET";
        reads |= is_pattern && matches!(Pattern::of(args.get(at)), Pattern::Key { .. });
    });
    reads
}

/// Calls `f` with each option that has a value, in upper case, and the number of the value. Reads
/// arguments that [`Query::parse`] takes as that does, and others somehow.
fn each_value(args: Args<'_>, mut f: impl FnMut(&[u8], usize)) {
    let mut at = 2;
    while at + 1 < args.len() {
        at += match &args.get(at).to_ascii_uppercase()[..] {
            b"LIMIT" => 3,
            word @ (b"BY" | b"GET" | b"STORE") => {
                f(word, at + 1);
                2
            }
            _ => 1,
        };
    }
}

/// A pattern of BY or GET, taken apart.
#[derive(Clone, Copy, Debug)]
enum Pattern<'a> {
    /// `#`: the element itself.
    Element,
    /// Without a `*` it names nothing.
    Nothing,
    /// A string, or a field of a hash.
    Key { before: &'a [u8], behind: &'a [u8], field: Option<&'a [u8]> },
}

impl<'a> Pattern<'a> {
    /// Redis looks for `*` and `->` as C does, up to the first zero byte.
    fn of(text: &'a [u8]) -> Self {
        let seen = &text[..memchr::memchr(0, text).unwrap_or(text.len())];
        if seen == b"#" {
            return Pattern::Element;
        }
        let Some(star) = memchr::memchr(b'*', seen) else { return Pattern::Nothing };
        let before = &text[..star];
        let arrow = memchr::memmem::find(&seen[star + 1..], b"->").map(|at| star + 1 + at);
        match arrow.filter(|at| at + 2 < seen.len()) {
            None => Pattern::Key { before, behind: &text[star + 1..], field: None },
            Some(at) => {
                let (behind, field) = (&text[star + 1..at], Some(&text[at + 2..]));
                Pattern::Key { before, behind, field }
            }
        }
    }

    /// Calls `f` with what it names for an element, if that is there and of the right type.
    fn find<R>(
        &self,
        keys: &mut keyspace::Keys<'_>,
        element: &[u8],
        f: impl FnOnce(Option<&[u8]>) -> R,
    ) -> R {
        let Pattern::Key { before, behind, field } = *self else {
            return f(matches!(self, Pattern::Element).then_some(element));
        };
        let now_ms = keys.now_ms;
        let key = [before, element, behind].concat();
        let Some(entry) = keys.get(&key) else { return f(None) };
        let Some(field) = field else {
            return f((entry.kind() == Kind::String).then(|| entry.value()));
        };
        let hash = entry.object().and_then(Hash::of);
        f(hash.and_then(|hash| hash.get_live(field, now_ms)).map(|record| record.value))
    }
}

const BY_DENIED: ReplyError =
    ReplyError::Text("ERR BY option of SORT denied due to insufficient ACL permissions.");
const GET_DENIED: ReplyError =
    ReplyError::Text("ERR GET option of SORT denied due to insufficient ACL permissions.");

/// What the command's name and its user leave it.
#[derive(Clone, Copy, Debug)]
struct Permission {
    store: bool,
    reads_any_key: bool,
    /// Keys that patterns name may be of any slot.
    is_cluster: bool,
}

/// The command's options, read.
#[derive(Debug)]
struct Query<'a> {
    by: Option<Pattern<'a>>,
    gets: Vec<Pattern<'a>>,
    /// Whether the elements stay in the order they are in, as a BY without a `*` wants it.
    is_unsorted: bool,
    is_descending: bool,
    /// Whether texts are compared, not numbers.
    is_text: bool,
    offset: i64,
    /// How many are wanted; all if negative.
    count: i64,
    target: Option<&'a [u8]>,
}

impl<'a> Query<'a> {
    const ALL: Query<'static> = Query {
        by: None,
        gets: Vec::new(),
        is_unsorted: false,
        is_descending: false,
        is_text: false,
        offset: 0,
        count: -1,
        target: None,
    };

    fn parse(args: Args<'a>, may: Permission) -> Result<Self, ReplyError> {
        let mut query = Query::ALL;
        let number = |i| number::parse_i64(args.get(i)).ok_or(ReplyError::NotAnInteger);
        let mut at = 2;
        while at < args.len() {
            let left = args.len() - at - 1;
            match &args.get(at).to_ascii_uppercase()[..] {
                b"ASC" => query.is_descending = false,
                b"DESC" => query.is_descending = true,
                b"ALPHA" => query.is_text = true,
                b"LIMIT" if left >= 2 => {
                    (query.offset, query.count) = (number(at + 1)?, number(at + 2)?);
                    at += 2;
                }
                word @ (b"BY" | b"GET" | b"STORE") if left >= 1 => {
                    at += 1;
                    query.set(word, args.get(at), may)?;
                }
                _ => return Err(ReplyError::Syntax),
            }
            at += 1;
        }
        if query.gets.is_empty() {
            query.gets.push(Pattern::Element);
        }
        Ok(query)
    }

    /// Takes an option with a value.
    fn set(&mut self, word: &[u8], value: &'a [u8], may: Permission) -> Outcome {
        match word {
            b"BY" => {
                let pattern = Pattern::of(value);
                if may.is_cluster && matches!(pattern, Pattern::Key { .. }) {
                    return Err(ReplyError::Text("ERR BY option of SORT denied in cluster mode."));
                }
                if !may.reads_any_key && matches!(pattern, Pattern::Key { .. }) {
                    return Err(BY_DENIED);
                }
                self.by = Some(pattern);
                self.is_unsorted |= !matches!(pattern, Pattern::Key { .. });
            }
            b"GET" if may.is_cluster && !matches!(Pattern::of(value), Pattern::Element) => {
                return Err(ReplyError::Text("ERR GET option of SORT denied in cluster mode."));
            }
            b"GET" if !may.reads_any_key => return Err(GET_DENIED),
            b"GET" => self.gets.push(Pattern::of(value)),
            b"STORE" if may.store => self.target = Some(value),
            _ => return Err(ReplyError::Syntax),
        }
        Ok(())
    }

    /// What LIMIT leaves of so many elements.
    fn window(&self, len: usize) -> Range<usize> {
        let start = usize::try_from(self.offset).unwrap_or(0).min(len);
        let end = usize::try_from(self.count).map_or(len, |count| start.saturating_add(count));
        start..end.min(len)
    }

    /// The elements of a key: all of them, or if they are not to be sorted those that are wanted.
    fn gather(&self, entry: EntryRef<'_>) -> Result<Vec<Vec<u8>>, ReplyError> {
        let to_vec = |(member, _): (&[u8], f64)| member.to_vec();
        Ok(match entry.object() {
            Some(Object::List(list)) if self.is_unsorted => {
                let Range { start, end } = self.window(list.len());
                let forward = list.iter_from(start).take(end - start);
                match self.is_descending {
                    true => list.iter().rev().skip(start).take(end - start).map(owned).collect(),
                    false => forward.map(owned).collect(),
                }
            }
            Some(Object::List(list)) => list.iter().map(owned).collect(),
            Some(Object::SortedSet(set)) if self.is_unsorted => {
                let Range { start, end } = self.window(set.len());
                let last = set.len() - 1;
                let rank = if self.is_descending { last.saturating_sub(start) } else { start };
                set.range(rank, end - start, self.is_descending).map(to_vec).collect()
            }
            Some(Object::SortedSet(set)) => set.iter().map(to_vec).collect(),
            Some(Object::Set(set)) => {
                let mut members = Vec::with_capacity(set.len());
                set.each(|member| members.push(member.to_vec()));
                if self.is_unsorted { self.cut(members) } else { members }
            }
            _ => return Err(ReplyError::WrongType),
        })
    }

    fn cut(&self, mut elements: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let window = self.window(elements.len());
        elements.truncate(window.end);
        elements.drain(..window.start);
        elements
    }

    /// Sorts by what each element weighs. Elements that weigh the same stay in order, unless
    /// `order` knows better.
    fn sort_by<W>(
        &self,
        mut weighed: Vec<(W, Vec<u8>)>,
        order: impl Fn(&(W, Vec<u8>), &(W, Vec<u8>)) -> Ordering,
    ) -> Vec<Vec<u8>> {
        match self.is_descending {
            true => weighed.sort_by(|a, b| order(b, a)),
            false => weighed.sort_by(order),
        }
        weighed.into_iter().map(|(_, element)| element).collect()
    }

    /// The elements in the order asked for.
    fn sorted(
        &self,
        keys: &mut keyspace::Keys<'_>,
        elements: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, ReplyError> {
        let by = self.by.unwrap_or(Pattern::Element);
        let elements = elements.into_iter();
        Ok(match (self.is_text, self.by) {
            (true, None) => {
                let alone = elements.map(|element| ((), element)).collect();
                self.sort_by(alone, |a, b| a.1.cmp(&b.1))
            }
            (true, Some(_)) => {
                let weigh = |element: Vec<u8>| {
                    (by.find(keys, &element, |text| text.map(<[u8]>::to_vec)), element)
                };
                // One that names nothing comes before all others.
                self.sort_by(elements.map(weigh).collect(), |a, b| a.0.cmp(&b.0))
            }
            (false, _) => {
                let mut weighed = Vec::with_capacity(elements.len());
                for element in elements {
                    let weight = by.find(keys, &element, |text| text.map_or(Some(0.0), parse));
                    weighed.push((weight.ok_or(NO_NUMBER)?, element));
                }
                self.sort_by(weighed, |a, b| {
                    let by_weight = a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal);
                    by_weight.then_with(|| a.1.cmp(&b.1))
                })
            }
        })
    }
}

const NO_NUMBER: ReplyError =
    ReplyError::Text("ERR One or more scores can't be converted into double");

fn owned(item: Item<'_>) -> Vec<u8> {
    item.to_vec()
}

/// Reads a number as C's `strtod` does: after spaces, up to a zero byte, and nothing is zero.
fn parse(text: &[u8]) -> Option<f64> {
    let text = &text[..memchr::memchr(0, text).unwrap_or(text.len())];
    if text.is_empty() {
        return Some(0.0);
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    number::parse_f64(&text[text.iter().take_while(|byte| is_space(byte)).count()..])
}

fn sort(cx: &mut Cx<'_>, args: Args<'_>, may_store: bool) -> Outcome {
    let reads_any_key = args.len() == 2 || crate::acl::may_read_any_key(cx, args);
    let is_cluster = cx.shared.cluster.is_enabled();
    let may = Permission { store: may_store, reads_any_key, is_cluster };
    let mut query = Query::parse(args, may)?;
    let must_be_stable = query.target.is_some() || cx.keys.has_turn();
    let mut elements = Vec::new();
    if let Some(entry) = cx.keys.get(args.get(1)) {
        if query.is_unsorted && must_be_stable && entry.kind() == Kind::Set {
            // What is stored or seen by a script must not depend on the order a set happens to be in.
            (query.is_unsorted, query.is_text, query.by) = (false, true, None);
        }
        elements = query.gather(entry)?;
    }
    if !query.is_unsorted {
        elements = query.cut(query.sorted(&mut cx.keys, elements)?);
    }
    match query.target {
        Some(target) => store(cx, &query, &elements, target),
        None => answer(cx, &query, &elements),
    }
    Ok(())
}

fn answer(cx: &mut Cx<'_>, query: &Query<'_>, elements: &[Vec<u8>]) {
    let Cx { keys, reply, .. } = cx;
    reply.array(elements.len() * query.gets.len());
    for element in elements {
        for pattern in &query.gets {
            pattern.find(keys, element, |found| match found {
                Some(bytes) => reply.bulk(bytes),
                None => reply.null(),
            });
        }
    }
}

/// Stores the result as a list; what GET does not find is an empty item.
fn store(cx: &mut Cx<'_>, query: &Query<'_>, elements: &[Vec<u8>], target: &[u8]) {
    let mut list = List::default();
    for element in elements {
        for pattern in &query.gets {
            pattern.find(&mut cx.keys, element, |found| {
                list.apply(ListOp::PushBack(found.unwrap_or_default()));
            });
        }
    }
    let len = list.len();
    // The target may be past its time; then its end comes first.
    cx.keys.exists(target);
    cx.keys.put_object(target, list.into_object(), Ttl::Clear, Event::SortStore);
    cx.reply.int(len as i64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercache_protocol::parse::OwnedArgs;

    fn keys(words: &[&str]) -> (Vec<usize>, bool) {
        let args = OwnedArgs::from_pieces(words);
        let mut found = Vec::new();
        each_key(args.as_args(), true, &mut |i, _| found.push(i));
        (found, reads_others(args.as_args()))
    }

    #[test]
    fn keys_are_found_among_the_options() {
        assert_eq!(keys(&["SORT", "k"]), (vec![1], false));
        assert_eq!(keys(&["SORT", "k", "store", "a", "STORE", "b"]), (vec![1, 5], false));
        assert_eq!(keys(&["SORT", "k", "BY", "STORE", "GET", "#"]), (vec![1], false));
        assert_eq!(keys(&["SORT", "k", "STORE", "by", "GET", "a*"]), (vec![1, 3], true));
        assert_eq!(keys(&["SORT", "k", "LIMIT", "STORE", "1", "BY", "w*"]), (vec![1], true));
        assert_eq!(keys(&["SORT", "k", "GET", "a\0*"]), (vec![1], false));
        assert_eq!(keys(&["SORT"]), (vec![], false));
    }

    #[test]
    fn patterns_are_taken_apart_as_redis_does() {
        let parts = |text: &'static str| match Pattern::of(text.as_bytes()) {
            Pattern::Key { before, behind, field } => [before, behind, field.unwrap_or(b"none")],
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(parts("a*b"), [&b"a"[..], b"b", b"none"]);
        assert_eq!(parts("a->*b->c->d"), [&b"a->"[..], b"b", b"c->d"]);
        assert_eq!(parts("*->"), [&b""[..], b"->", b"none"]);
        assert_eq!(parts("**->f"), [&b""[..], b"*", b"f"]);
        assert_eq!(parts("*->\0f"), [&b""[..], b"->\0f", b"none"]);
    }

    #[test]
    fn numbers_are_read_as_c_does() {
        for (text, number) in
            [("", 0.0), ("\0x", 0.0), (" \x0b7", 7.0), ("1\0x", 1.0), ("0x10", 16.0)]
        {
            assert_eq!(parse(text.as_bytes()), Some(number), "{text:?}");
        }
        for text in [" ", "1 ", "x", "nan", "1e400", "1e-400"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
