//! Streams: adding, reading and trimming. Consumer groups are in `stream_group.rs`, what XINFO tells in
//! `stream_info.rs`.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace::Editor;
use crate::stream_delete::{self, References};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_stdx::number;
use hypercache_store::types::stream::{BLOCK_ENTRIES, StreamEntry};
use hypercache_store::types::{Stream, StreamId, StreamOp};

pub(crate) const BASE: Command =
    Command { group: Group::Stream, since: "5.0.0", acl: Acl::STREAM, ..Command::DEFAULT };
const READ: Keys = Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS));
const UPDATE: Keys = Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE));
const DELETE: Keys = Keys::first(KeyFlags::RW.or(KeyFlags::DELETE));

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "XADD",
        tips: &["nondeterministic_output"],
        arity: -5,
        keys: UPDATE,
        flags: Flags::WRITE.or(Flags::DENY_OOM).or(Flags::FAST),
        run: xadd,
        summary: "Adds an entry; answers its id.",
        complexity: "O(1), and O(N) in the number of entries trimmed",
        syntax: "key [NOMKSTREAM] [KEEPREF | DELREF | ACKED] [<MAXLEN | MINID> [= | ~] threshold [LIMIT count]] <* | id> field value [field value ...]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XADD x 1-* a 2\n\"1-2\"\n> XADD x MAXLEN 1 2-0 a 3\n\"2-0\"\n\
                   > XRANGE x - +\n1) 1) \"2-0\"\n   2) 1) \"a\"\n      2) \"3\"",
        ..BASE
    },
    Command {
        name: "XLEN",
        arity: 2,
        keys: Keys::first(KeyFlags::RO),
        flags: Flags::READONLY.or(Flags::FAST),
        run: xlen,
        summary: "Number of entries.",
        syntax: "key",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XLEN x\n(integer) 1",
        ..BASE
    },
    Command {
        name: "XRANGE",
        arity: -4,
        keys: READ,
        flags: Flags::READONLY,
        run: |cx, args| range(cx, args, false),
        summary: "Entries from one id to another; `(` before an id leaves it out.",
        complexity: "O(N) in the number of entries answered",
        syntax: "key start end [COUNT count]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XADD x 2-1 a 2\n\"2-1\"\n> XRANGE x (1-1 + COUNT 5\n\
                   1) 1) \"2-1\"\n   2) 1) \"a\"\n      2) \"2\"",
        ..BASE
    },
    Command {
        name: "XREVRANGE",
        arity: -4,
        keys: READ,
        flags: Flags::READONLY,
        run: |cx, args| range(cx, args, true),
        summary: "Entries from one id down to another.",
        complexity: "O(N) in the number of entries answered",
        syntax: "key end start [COUNT count]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XADD x 2-1 a 2\n\"2-1\"\n> XREVRANGE x + - COUNT 1\n\
                   1) 1) \"2-1\"\n   2) 1) \"a\"\n      2) \"2\"",
        ..BASE
    },
    Command {
        name: "XDEL",
        arity: -3,
        keys: DELETE,
        flags: Flags::WRITE.or(Flags::FAST),
        run: xdel,
        summary: "Deletes entries; answers how many there were.",
        complexity: "O(1) for each entry",
        syntax: "key id [id ...]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XDEL x 1-1 2-2\n(integer) 1\n> XLEN x\n(integer) 0",
        ..BASE
    },
    Command {
        name: "XTRIM",
        tips: &["nondeterministic_output"],
        arity: -4,
        keys: DELETE,
        flags: Flags::WRITE,
        run: xtrim,
        summary: "Removes the first entries beyond a length or before an id; with `~` whole blocks only.",
        complexity: "O(N) in the number of entries removed",
        syntax: "key <MAXLEN | MINID> [= | ~] threshold [LIMIT count] [KEEPREF | DELREF | ACKED]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XADD x 2-1 a 2\n\"2-1\"\n> XTRIM x MINID 2\n(integer) 1",
        ..BASE
    },
    Command {
        name: "XSETID",
        arity: -3,
        keys: UPDATE,
        flags: Flags::WRITE.or(Flags::DENY_OOM).or(Flags::FAST),
        run: xsetid,
        summary: "Sets the last id, for those who copy streams.",
        syntax: "key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XSETID x 5-5\nOK\n> XADD x 5-* a 1\n\"5-6\"",
        ..BASE
    },
];

const INVALID_ID: ReplyError =
    ReplyError::Text("ERR Invalid stream ID specified as stream command argument");

/// An id as it is given: `ms-seq`, `ms`, or `ms-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GivenId {
    Whole(StreamId),
    /// The number within this millisecond is to be chosen.
    Ms(u64),
}

/// Reads a part of an id as C's `strtoull` does, in full: blanks and a sign before it, and a minus
/// negates modulo 2^64 unless the number is in the usual notation.
fn parse_part(text: &[u8]) -> Option<u64> {
    if let Some(n) = number::parse_i64(text) {
        return u64::try_from(n).ok();
    }
    let digits = text.trim_ascii_start();
    let (is_negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if is_negative { n.wrapping_neg() } else { n })
}

/// Longest id that is read.
const ID_LEN_MAX: usize = 127;

fn parse_given(text: &[u8], missing_seq: u64) -> Option<GivenId> {
    if text.len() > ID_LEN_MAX {
        return None;
    }
    let Some(dash) = text.iter().position(|&b| b == b'-') else {
        return Some(GivenId::Whole(StreamId { ms: parse_part(text)?, seq: missing_seq }));
    };
    let ms = parse_part(&text[..dash])?;
    match &text[dash + 1..] {
        b"*" => Some(GivenId::Ms(ms)),
        seq => Some(GivenId::Whole(StreamId { ms, seq: parse_part(seq)? })),
    }
}

/// An id in full; `missing_seq` where only milliseconds are given.
pub(crate) fn parse_id(text: &[u8], missing_seq: u64) -> Result<StreamId, ReplyError> {
    match parse_given(text, missing_seq) {
        Some(GivenId::Whole(id)) => Ok(id),
        Some(GivenId::Ms(_)) | None => Err(INVALID_ID),
    }
}

/// An end of an interval: an id, `-` or `+`, or an id that is left out behind `(`.
fn parse_end(text: &[u8], missing_seq: u64) -> Result<(StreamId, bool), ReplyError> {
    match text {
        b"-" => Ok((StreamId::MIN, false)),
        b"+" => Ok((StreamId::MAX, false)),
        [b'(', id @ ..] if !id.is_empty() => Ok((parse_id(id, missing_seq)?, true)),
        id => Ok((parse_id(id, missing_seq)?, false)),
    }
}

pub(crate) fn parse_start(text: &[u8]) -> Result<StreamId, ReplyError> {
    match parse_end(text, 0)? {
        (id, false) => Ok(id),
        (id, true) => id.next().ok_or(ReplyError::Text("ERR invalid start ID for the interval")),
    }
}

pub(crate) fn parse_stop(text: &[u8]) -> Result<StreamId, ReplyError> {
    match parse_end(text, u64::MAX)? {
        (id, false) => Ok(id),
        (id, true) => id.prev().ok_or(ReplyError::Text("ERR invalid end ID for the interval")),
    }
}

pub(crate) fn int(text: &[u8]) -> Result<i64, ReplyError> {
    number::parse_i64(text).ok_or(ReplyError::NotAnInteger)
}

/// Most bytes of an id.
const ID_MAX: usize = 41;

pub(crate) fn reply_id(reply: &mut Reply<'_>, id: StreamId) {
    let (mut ms, mut seq) = (itoa::Buffer::new(), itoa::Buffer::new());
    let (ms, seq) = (ms.format(id.ms).as_bytes(), seq.format(id.seq).as_bytes());
    let (mut text, len) = ([b'-'; ID_MAX], ms.len() + 1 + seq.len());
    text[..ms.len()].copy_from_slice(ms);
    text[ms.len() + 1..len].copy_from_slice(seq);
    reply.bulk(&text[..len]);
}

/// Writes an entry: its id, and its fields and values.
pub(crate) fn reply_entry(reply: &mut Reply<'_>, entry: StreamEntry<'_>) {
    reply.array(2);
    reply_id(reply, entry.id);
    reply.array(entry.fields.len());
    entry.fields.for_each(|item| reply.bulk(item));
}

/// Writes entries, up to `count` of them.
pub(crate) fn reply_entries<'a>(
    reply: &mut Reply<'_>,
    entries: impl Iterator<Item = StreamEntry<'a>>,
    count: usize,
) {
    let entries: Vec<_> = entries.take(count).collect();
    reply.array(entries.len());
    entries.into_iter().for_each(|entry| reply_entry(reply, entry));
}

/// Down to where a stream is trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Threshold {
    MaxLen(u64),
    MinId(StreamId),
}

/// How XADD and XTRIM trim.
#[derive(Clone, Copy, Debug)]
struct Trim {
    threshold: Threshold,
    /// Only whole blocks go.
    is_approximate: bool,
    /// Most entries that go; 0 for any number.
    limit: u64,
    /// What groups that still wait for an entry have to do with it.
    references: References,
}

/// What stands before an entry's fields.
#[derive(Debug)]
struct Options {
    makes: bool,
    trim: Option<Trim>,
    /// `None`: the server chooses.
    id: Option<GivenId>,
    /// Number of the argument after the id.
    next: usize,
}

/// Most entries that an approximate trimming removes at once, if it is not told.
const LIMIT_DEFAULT: u64 = 100 * BLOCK_ENTRIES as u64;

fn parse_options(args: Args<'_>, is_xadd: bool) -> Result<Options, ReplyError> {
    let mut options = Options { makes: true, trim: None, id: None, next: args.len() };
    let (mut threshold, mut is_approximate, mut limit) = (None, false, None);
    let mut references = None;
    let mut i = 2;
    while i < args.len() {
        let (word, more) = (args.get(i), args.len() - 1 - i);
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is_xadd && word == b"*" {
            options.next = i + 1;
            break;
        } else if (is("MAXLEN") || is("MINID")) && more > 0 {
            if threshold.is_some() {
                return Err(ReplyError::Text(
                    "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
                ));
            }
            is_approximate = more >= 2 && args.get(i + 1) == b"~";
            if more >= 2 && matches!(args.get(i + 1), b"~" | b"=") {
                i += 1;
            }
            i += 1;
            threshold = Some(parse_threshold(args.get(i), is("MAXLEN"))?);
        } else if is("LIMIT") && more > 0 {
            i += 1;
            let n = u64::try_from(int(args.get(i))?);
            limit = Some(n.map_err(|_| ReplyError::Text("ERR The LIMIT argument must be >= 0."))?);
        } else if is_xadd && is("NOMKSTREAM") {
            options.makes = false;
        } else if let Some(said) = References::parse(word).filter(|_| references.is_none()) {
            references = Some(said);
        } else if is_xadd {
            options.id = Some(parse_given(word, 0).ok_or(INVALID_ID)?);
            options.next = i + 1;
            break;
        } else {
            return Err(ReplyError::Syntax);
        }
        i += 1;
    }
    let trim = trim_of(threshold, is_approximate, limit, is_xadd)?;
    let references = references.unwrap_or_default();
    options.trim = trim.map(|trim| Trim { references, ..trim });
    Ok(options)
}

fn parse_threshold(text: &[u8], is_maxlen: bool) -> Result<Threshold, ReplyError> {
    if !is_maxlen {
        return Ok(Threshold::MinId(parse_id(text, 0)?));
    }
    let len = u64::try_from(int(text)?);
    let len = len.map_err(|_| ReplyError::Text("ERR The MAXLEN argument must be >= 0."))?;
    Ok(Threshold::MaxLen(len))
}

fn trim_of(
    threshold: Option<Threshold>,
    is_approximate: bool,
    limit: Option<u64>,
    is_xadd: bool,
) -> Result<Option<Trim>, ReplyError> {
    let Some(threshold) = threshold else {
        return match limit {
            Some(1..) => Err(ReplyError::Text(
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            )),
            _ if !is_xadd => Err(ReplyError::Text(
                "ERR syntax error, XTRIM must be called with a trimming strategy",
            )),
            Some(_) => Err(LIMIT_WITHOUT_TILDE),
            None => Ok(None),
        };
    };
    let limit = match limit {
        Some(_) if !is_approximate => return Err(LIMIT_WITHOUT_TILDE),
        Some(limit) => limit,
        None if is_approximate => LIMIT_DEFAULT,
        None => 0,
    };
    let references = References::Keep;
    Ok(Some(Trim { threshold, is_approximate, limit, references }))
}

const LIMIT_WITHOUT_TILDE: ReplyError =
    ReplyError::Text("ERR syntax error, LIMIT cannot be used without the special ~ option");

/// How many entries a trimming removes.
fn count_trimmed(stream: &Stream, trim: Trim) -> u64 {
    let (len, mut gone) = (stream.len(), 0);
    for (live, last) in stream.block_lens() {
        if matches!(trim.threshold, Threshold::MaxLen(max) if len - gone <= max)
            || trim.limit > 0 && gone + live > trim.limit
        {
            return gone;
        }
        let goes_whole = match trim.threshold {
            Threshold::MaxLen(max) => len - gone - live >= max,
            Threshold::MinId(id) => last().is_some_and(|last| last < id),
        };
        if !goes_whole {
            return gone + if trim.is_approximate { 0 } else { within(stream, trim, gone) };
        }
        gone += live;
    }
    gone
}

/// How many more entries go from the block that stays in part, after `gone` went.
fn within(stream: &Stream, trim: Trim, gone: u64) -> u64 {
    match trim.threshold {
        Threshold::MaxLen(max) => (stream.len() - gone).saturating_sub(max),
        Threshold::MinId(id) => {
            let before = stream.range(StreamId::MIN, StreamId::MAX).skip(gone as usize);
            before.take_while(|entry| entry.id < id).count() as u64
        }
    }
}

/// Trims a stream; returns how many entries went.
fn trim_stream(stream: &mut Editor<'_, Stream>, trim: Trim) -> u64 {
    let count = match trim.references {
        References::Acknowledged if stream.groups().len() > 0 => trim_done(stream, trim),
        References::Acknowledged | References::Keep => {
            let count = count_trimmed(stream, trim);
            stream.apply(StreamOp::RemoveFirst(count));
            count
        }
        References::Delete => {
            let count = count_trimmed(stream, trim);
            let first = stream.range(StreamId::MIN, StreamId::MAX).take(count as usize);
            let ids: Vec<StreamId> = first.map(|entry| entry.id).collect();
            stream.apply(StreamOp::RemoveFirst(count));
            ids.into_iter().for_each(|id| stream_delete::forget(stream, id));
            count
        }
    };
    if count > 0 {
        stream.event(Event::XTrim);
    }
    count
}

/// A trimming ends after this many entries that some group waits for: while a consumer is stuck every
/// XADD would look at the whole stream otherwise.
const SPARED_MAX: usize = 10_000;

/// Removes the first entries that all groups have dealt with, and leaves those between them.
fn trim_done(stream: &mut Editor<'_, Stream>, trim: Trim) -> u64 {
    let limit = if trim.limit > 0 { trim.limit } else { u64::MAX };
    let most = match trim.threshold {
        // Whole blocks only: no entries but those that would go otherwise.
        _ if trim.is_approximate => count_trimmed(stream, trim),
        Threshold::MaxLen(max) => stream.len().saturating_sub(max),
        Threshold::MinId(_) => u64::MAX,
    };
    let looked_at = if trim.is_approximate { most as usize } else { usize::MAX };
    let is_old = |id| match trim.threshold {
        Threshold::MaxLen(_) => true,
        Threshold::MinId(min) => id < min,
    };
    let ids = stream.range(StreamId::MIN, StreamId::MAX).map(|entry| entry.id);
    let old = ids.take(looked_at).take_while(|id| is_old(*id));
    let mut spared = 0;
    let judged =
        old.map(|id| (id, stream_delete::is_done(stream, id))).take_while(|(_, is_done)| {
            spared += usize::from(!is_done);
            spared <= SPARED_MAX
        });
    let done = judged.filter_map(|(id, is_done)| is_done.then_some(id));
    let done: Vec<StreamId> = done.take(most.min(limit) as usize).collect();
    // Trimming is no deletion that XINFO tells of.
    let max_deleted_id = stream.max_deleted_id();
    for id in &done {
        stream.apply(StreamOp::Delete(*id));
    }
    if !done.is_empty() {
        let (last_id, added) = (stream.last_id(), stream.entries_added());
        stream.apply(StreamOp::SetId(last_id, added, max_deleted_id));
    }
    done.len() as u64
}

fn xadd(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let options = parse_options(args, true)?;
    let (key, first) = (args.get(1), options.next);
    let items = args.len().saturating_sub(first);
    if items < 2 || !items.is_multiple_of(2) {
        return Err(ReplyError::Text("ERR wrong number of arguments for 'xadd' command"));
    }
    if options.id == Some(GivenId::Whole(StreamId::MIN)) {
        return Err(ReplyError::Text("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let (items, now_ms) = (StreamOp::items(args.iter_from(first)), cx.keys.now_ms);
    let add = |stream: &mut Editor<'_, Stream>| {
        let id = choose_id(options.id, stream.last_id(), now_ms)?;
        stream.apply(StreamOp::Add(id, &items));
        stream.event(Event::XAdd);
        options.trim.map(|trim| trim_stream(stream, trim));
        Ok::<StreamId, ReplyError>(id)
    };
    let added = match options.makes {
        true => Some(cx.keys.edit::<Stream, _>(key, add)?),
        false => cx.keys.edit_if_there::<Stream, _>(key, add)?,
    };
    match added {
        Some(id) => reply_id(&mut cx.reply, id?),
        None => cx.reply.null(),
    }
    Ok(())
}

/// The id of the next entry after `last`.
fn choose_id(given: Option<GivenId>, last: StreamId, now_ms: u64) -> Result<StreamId, ReplyError> {
    if last == StreamId::MAX {
        return Err(ReplyError::Text(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    let id = match given {
        None if now_ms > last.ms => Some(StreamId { ms: now_ms, seq: 0 }),
        None => last.next(),
        Some(GivenId::Ms(ms)) if ms == last.ms => {
            last.seq.checked_add(1).map(|seq| StreamId { ms, seq })
        }
        Some(GivenId::Ms(ms)) => Some(StreamId { ms, seq: 0 }),
        Some(GivenId::Whole(id)) => Some(id),
    };
    id.filter(|id| *id > last).ok_or(ReplyError::Text(
        "ERR The ID specified in XADD is equal or smaller than the target stream top item",
    ))
}

fn xlen(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let len = cx.keys.read::<Stream>(args.get(1))?.map_or(0, Stream::len);
    cx.reply.int(len as i64);
    Ok(())
}

fn range(cx: &mut Cx<'_>, args: Args<'_>, is_reverse: bool) -> Outcome {
    let (start, stop) = if is_reverse { (3, 2) } else { (2, 3) };
    let start = parse_start(args.get(start))?;
    let stop = parse_stop(args.get(stop))?;
    let mut count = None;
    for i in (4..args.len()).step_by(2) {
        if !args.get(i).eq_ignore_ascii_case(b"COUNT") || i + 1 >= args.len() {
            return Err(ReplyError::Syntax);
        }
        count = Some(int(args.get(i + 1))?.max(0) as usize);
    }
    let Some(stream) = cx.keys.read::<Stream>(args.get(1))? else {
        cx.reply.array(0);
        return Ok(());
    };
    let reply = &mut cx.reply;
    match count {
        Some(0) => reply.null_array(),
        _ if is_reverse => {
            reply_entries(reply, stream.range_rev(start, stop), count.unwrap_or(usize::MAX));
        }
        _ => reply_entries(reply, stream.range(start, stop), count.unwrap_or(usize::MAX)),
    }
    Ok(())
}

fn xdel(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let key = args.get(1);
    if cx.keys.read_uncounted::<Stream>(key)?.is_none() {
        cx.reply.int(0);
        return Ok(());
    }
    let ids: Result<Vec<_>, _> = args.iter_from(2).map(|id| parse_id(id, 0)).collect();
    let ids = ids?;
    let deleted = cx.keys.edit::<Stream, _>(key, |stream| {
        let deleted = ids.iter().filter(|id| stream.apply(StreamOp::Delete(**id))).count();
        if deleted > 0 {
            stream.event(Event::XDel);
        }
        deleted
    })?;
    cx.reply.int(deleted as i64);
    Ok(())
}

fn xtrim(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let trim = parse_options(args, false)?.trim.ok_or(ReplyError::Syntax)?;
    let key = args.get(1);
    let count = match cx.keys.read_uncounted::<Stream>(key)? {
        Some(_) => cx.keys.edit::<Stream, _>(key, |stream| trim_stream(stream, trim))?,
        None => 0,
    };
    cx.reply.int(count as i64);
    Ok(())
}

fn xsetid(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let id = parse_id(args.get(2), 0)?;
    let (mut added, mut deleted) = (None, StreamId::MIN);
    for i in (3..args.len()).step_by(2) {
        let is = |name: &str| args.get(i).eq_ignore_ascii_case(name.as_bytes());
        if i + 1 >= args.len() {
            return Err(ReplyError::Syntax);
        }
        if is("ENTRIESADDED") {
            let n = u64::try_from(int(args.get(i + 1))?);
            added = Some(n.map_err(|_| ReplyError::Text("ERR entries_added must be positive"))?);
        } else if is("MAXDELETEDID") {
            deleted = parse_id(args.get(i + 1), 0)?;
            if id < deleted {
                return Err(ReplyError::Text(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
        } else {
            return Err(ReplyError::Syntax);
        }
    }
    let key = args.get(1);
    let stream = cx.keys.read_uncounted::<Stream>(key)?.ok_or(ReplyError::NoSuchKey)?;
    check_last_id(stream, id, added)?;
    let added = added.unwrap_or(stream.entries_added());
    let deleted = if deleted == StreamId::MIN { stream.max_deleted_id() } else { deleted };
    cx.keys.edit::<Stream, _>(key, |stream| {
        stream.apply(StreamOp::SetId(id, added, deleted));
        stream.event(Event::XSetId);
    })?;
    cx.reply.ok();
    Ok(())
}

/// Whether a stream may take `id` for its last.
fn check_last_id(stream: &Stream, id: StreamId, added: Option<u64>) -> Outcome {
    if id < stream.max_deleted_id() {
        return Err(ReplyError::Text(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        ));
    }
    let Some(top) = last_entry_id(stream) else { return Ok(()) };
    if id < top {
        return Err(ReplyError::Text(
            "ERR The ID specified in XSETID is smaller than the target stream top item",
        ));
    }
    if added.is_some_and(|added| stream.len() > added) {
        return Err(ReplyError::Text(
            "ERR The entries_added specified in XSETID is smaller than the target stream length",
        ));
    }
    Ok(())
}

/// The id of the last entry that is there.
pub(crate) fn last_entry_id(stream: &Stream) -> Option<StreamId> {
    stream.range_rev(StreamId::MIN, StreamId::MAX).next().map(|entry| entry.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_redis_reads_them() {
        let id = |ms, seq| Some(GivenId::Whole(StreamId { ms, seq }));
        let cases: [(&[u8], Option<GivenId>); 9] = [
            (b"5", id(5, 7)),
            (b"5-6", id(5, 6)),
            (b"5-*", Some(GivenId::Ms(5))),
            (b"+5-01", id(5, 1)),
            (b"18446744073709551615-0", id(u64::MAX, 0)),
            (b"18446744073709551616-0", None),
            (b"-5", None),
            (b"", None),
            (b"5-", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_given(text, 7), expected, "{}", String::from_utf8_lossy(text));
        }
    }
}
