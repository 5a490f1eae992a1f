//! Consumer groups of streams: XGROUP, and what became of delivered entries.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace::Editor;
use crate::stream::{BASE, int, parse_id, parse_start, parse_stop, reply_entry, reply_id};
use crate::table::{Acl, Command, Flags, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Reply;
use hypercache_stdx::number;
use hypercache_store::types::stream::{Group, Pending};
use hypercache_store::types::{Stream, StreamId, StreamOp};

const UPDATE: Keys = Keys::first(KeyFlags::RW.or(KeyFlags::UPDATE));
const CHANGE_FAST: Flags = Flags::WRITE.or(Flags::FAST);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "XGROUP",
        arity: -2,
        acl: Acl::NONE,
        summary: "Makes and removes consumer groups and their consumers.",
        complexity: "That of the subcommand",
        subcommands: XGROUP,
        ..BASE
    },
    Command {
        name: "XACK",
        arity: -4,
        keys: UPDATE,
        flags: CHANGE_FAST,
        run: xack,
        summary: "Notes that entries were dealt with; answers how many were pending.",
        complexity: "O(1) for each entry",
        syntax: "key group id [id ...]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XGROUP CREATE x g 0\nOK\n> XACK x g 1-1\n(integer) 0",
        ..BASE
    },
    Command {
        name: "XPENDING",
        tips: &["nondeterministic_output"],
        arity: -3,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: Flags::READONLY,
        run: xpending,
        summary: "What was delivered and not acknowledged: a summary, or the entries of a range.",
        complexity: "O(N) in the number of entries looked at",
        syntax: "key group [[IDLE min-idle-time] start end count [consumer]]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XGROUP CREATE x g 0\nOK\n> XPENDING x g - + 10\n(empty array)",
        ..BASE
    },
    Command {
        name: "XCLAIM",
        tips: &["nondeterministic_output"],
        arity: -6,
        keys: UPDATE,
        flags: CHANGE_FAST,
        run: xclaim,
        summary: "Takes over entries that another consumer has not acknowledged for some time.",
        complexity: "O(log N) for each entry",
        syntax: "key group consumer min-idle-time id [id ...] [IDLE ms] [TIME unix-time-milliseconds] [RETRYCOUNT count] [FORCE] [JUSTID] [LASTID lastid]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XGROUP CREATE x g 0\nOK\n> XCLAIM x g me 0 1-1 FORCE JUSTID\n1) \"1-1\"",
        ..BASE
    },
    Command {
        name: "XAUTOCLAIM",
        tips: &["nondeterministic_output"],
        since: "6.2.0",
        arity: -6,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::DELETE)),
        flags: CHANGE_FAST,
        run: xautoclaim,
        summary: "Takes over what was not acknowledged for some time, from an id on; answers where to go on.",
        complexity: "O(1) for a small count",
        syntax: "key group consumer min-idle-time start [COUNT count] [JUSTID]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XGROUP CREATE x g 0\nOK\n> XAUTOCLAIM x g me 0 0\n\
                   1) \"0-0\"\n2) (empty array)\n3) (empty array)",
        ..BASE
    },
];

const fn key(flags: KeyFlags) -> Keys {
    Keys::Range { first: 2, last: 2, step: 1, flags }
}

const XGROUP: &[Command] = &[
    Command {
        name: "CREATE",
        arity: -5,
        keys: key(KeyFlags::RW.or(KeyFlags::INSERT)),
        flags: Flags::WRITE.or(Flags::DENY_OOM),
        run: create,
        summary: "Makes a group that reads on after an id.",
        syntax: "key group <id | $> [MKSTREAM] [ENTRIESREAD entries-read]",
        examples: "> XGROUP CREATE x g $ MKSTREAM\nOK\n\
                   > XGROUP CREATE x g $\n(error) BUSYGROUP Consumer Group name already exists",
        ..BASE
    },
    Command {
        name: "CREATECONSUMER",
        since: "6.2.0",
        arity: 5,
        keys: key(KeyFlags::RW.or(KeyFlags::INSERT)),
        flags: Flags::WRITE.or(Flags::DENY_OOM),
        run: create_consumer,
        summary: "Makes a consumer; answers whether it is new.",
        syntax: "key group consumer",
        examples: "> XGROUP CREATE x g $ MKSTREAM\nOK\n> XGROUP CREATECONSUMER x g me\n(integer) 1\n\
                   > XGROUP CREATECONSUMER x g me\n(integer) 0",
        ..BASE
    },
    Command {
        name: "DELCONSUMER",
        arity: 5,
        keys: key(KeyFlags::RW.or(KeyFlags::DELETE)),
        flags: Flags::WRITE,
        run: delete_consumer,
        summary: "Removes a consumer; answers how many entries it had not acknowledged.",
        syntax: "key group consumer",
        examples: "> XGROUP CREATE x g $ MKSTREAM\nOK\n> XGROUP DELCONSUMER x g me\n(integer) 0",
        ..BASE
    },
    Command {
        name: "DESTROY",
        arity: 4,
        keys: key(KeyFlags::RW.or(KeyFlags::DELETE)),
        flags: Flags::WRITE,
        run: destroy,
        summary: "Removes a group; answers whether there was one.",
        complexity: "O(N) in the number of entries that were not acknowledged",
        syntax: "key group",
        examples: "> XGROUP CREATE x g $ MKSTREAM\nOK\n> XGROUP DESTROY x g\n(integer) 1",
        ..BASE
    },
    Command {
        name: "HELP",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "The subcommands.",
        examples: "> XGROUP HELP\n…XGROUP <subcommand> …",
        ..BASE
    },
    Command {
        name: "SETID",
        arity: -5,
        keys: key(KeyFlags::RW.or(KeyFlags::UPDATE)),
        flags: Flags::WRITE,
        run: set_id,
        summary: "Has a group read on after another id.",
        syntax: "key group <id | $> [ENTRIESREAD entries-read]",
        examples: "> XGROUP CREATE x g $ MKSTREAM\nOK\n> XGROUP SETID x g 0\nOK",
        ..BASE
    },
];

/// Writes an error whose text holds names: up to their first zero byte, as Redis shows them.
#[cold]
pub(crate) fn no_group(cx: &mut Cx<'_>, parts: &[&[u8]]) -> ReplyError {
    let shown = |part: &&[u8]| part.split(|b| *b == 0).next().unwrap_or_default().to_vec();
    cx.reply.error(&parts.iter().map(shown).collect::<Vec<_>>().concat());
    ReplyError::Written
}

fn no_key_or_group(cx: &mut Cx<'_>, key: &[u8], group: &[u8]) -> ReplyError {
    no_group(cx, &[b"NOGROUP No such key '", key, b"' or consumer group '", group, b"'"])
}

/// The group of a stream.
fn find_group<'a>(cx: &'a mut Cx<'_>, args: Args<'_>) -> Result<Option<&'a Group>, ReplyError> {
    let stream = cx.keys.read::<Stream>(args.get(1))?;
    Ok(stream.and_then(|stream| stream.group(args.get(2))))
}

/// Makes the consumer of a group that a command names, or notes that it was seen.
pub(crate) fn ensure_consumer(
    stream: &mut Editor<'_, Stream>,
    group: &[u8],
    consumer: &[u8],
    now_ms: u64,
) {
    if stream.apply(StreamOp::CreateConsumer(group, consumer, now_ms)) {
        stream.event(Event::XGroupCreateConsumer);
    } else {
        stream.apply(StreamOp::SeeConsumer(group, consumer, now_ms));
    }
}

/// What follows the group of XGROUP CREATE and SETID.
struct GroupOptions {
    makes_stream: bool,
    entries_read: Option<u64>,
}

fn parse_group_options(
    cx: &mut Cx<'_>,
    args: Args<'_>,
    is_create: bool,
) -> Result<GroupOptions, ReplyError> {
    let mut options = GroupOptions { makes_stream: false, entries_read: None };
    let mut i = 5;
    while i < args.len() {
        let is = |name: &str| args.get(i).eq_ignore_ascii_case(name.as_bytes());
        if is_create && is("MKSTREAM") {
            options.makes_stream = true;
            i += 1;
        } else if is("ENTRIESREAD") && i + 1 < args.len() {
            options.entries_read = match int(args.get(i + 1))? {
                -1 => None,
                n => Some(u64::try_from(n).map_err(|_| {
                    ReplyError::Text("ERR value for ENTRIESREAD must be positive or -1")
                })?),
            };
            i += 2;
        } else {
            return Err(cx.subcommand_syntax(args));
        }
    }
    Ok(options)
}

const NEEDS_KEY: ReplyError = ReplyError::Text(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
);

/// Checks that the stream of an XGROUP subcommand is there, and the group, if it must be.
fn check_group(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, group) = (args.get(2), args.get(3));
    let stream = cx.keys.read_uncounted::<Stream>(key)?.ok_or(NEEDS_KEY)?;
    if stream.group(group).is_some() {
        return Ok(());
    }
    Err(no_group(cx, &[b"NOGROUP No such consumer group '", group, b"' for key name '", key, b"'"]))
}

fn parse_last(text: &[u8], stream: Option<&Stream>) -> Result<StreamId, ReplyError> {
    if text == b"$" {
        return Ok(stream.map_or(StreamId::MIN, Stream::last_id));
    }
    parse_id(text, 0)
}

/// Most arguments of XGROUP CREATE: further ones are options given twice.
const CREATE_ARGS_MAX: usize = 8;

fn create(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let options = parse_group_options(cx, args, true)?;
    let (key, group) = (args.get(2), args.get(3));
    let stream = cx.keys.read_uncounted::<Stream>(key)?;
    if stream.is_none() && !options.makes_stream {
        return Err(NEEDS_KEY);
    }
    if args.len() > CREATE_ARGS_MAX {
        return Err(cx.subcommand_syntax(args));
    }
    let id = parse_last(args.get(4), stream)?;
    let is_made = cx.keys.edit::<Stream, _>(key, |stream| {
        let is_made = stream.apply(StreamOp::CreateGroup(group, id, options.entries_read));
        if is_made {
            stream.event(Event::XGroupCreate);
        }
        is_made
    })?;
    if !is_made {
        return Err(ReplyError::Text("BUSYGROUP Consumer Group name already exists"));
    }
    cx.reply.ok();
    Ok(())
}

fn set_id(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let options = parse_group_options(cx, args, false)?;
    let (key, group) = (args.get(2), args.get(3));
    check_group(cx, args)?;
    if args.len() > 7 {
        return Err(cx.subcommand_syntax(args));
    }
    // Unlike elsewhere, `-` and `+` are ids here.
    let id = match args.get(4) {
        b"-" => StreamId::MIN,
        b"+" => StreamId::MAX,
        id => parse_last(id, cx.keys.read_uncounted::<Stream>(key)?)?,
    };
    cx.keys.edit::<Stream, _>(key, |stream| {
        stream.apply(StreamOp::SetGroup(group, id, options.entries_read));
        stream.event(Event::XGroupSetId);
    })?;
    cx.reply.ok();
    Ok(())
}

fn destroy(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let key = args.get(2);
    cx.keys.read_uncounted::<Stream>(key)?.ok_or(NEEDS_KEY)?;
    let is_gone = cx.keys.edit::<Stream, _>(key, |stream| {
        let is_gone = stream.apply(StreamOp::DestroyGroup(args.get(3)));
        if is_gone {
            stream.event(Event::XGroupDestroy);
        }
        is_gone
    })?;
    cx.reply.int(i64::from(is_gone));
    Ok(())
}

fn create_consumer(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_group(cx, args)?;
    let now_ms = cx.keys.now_ms;
    let is_made = cx.keys.edit::<Stream, _>(args.get(2), |stream| {
        let op = StreamOp::CreateConsumer(args.get(3), args.get(4), now_ms);
        let is_made = stream.apply(op);
        if is_made {
            stream.event(Event::XGroupCreateConsumer);
        }
        is_made
    })?;
    cx.reply.int(i64::from(is_made));
    Ok(())
}

fn delete_consumer(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    check_group(cx, args)?;
    let (group, name) = (args.get(3), args.get(4));
    let pending = cx.keys.edit::<Stream, _>(args.get(2), |stream| {
        let consumer = stream.group(group).and_then(|group| group.consumer(name));
        let pending = consumer.map_or(0, |consumer| consumer.pending().len());
        if stream.apply(StreamOp::DeleteConsumer(group, name)) {
            stream.event(Event::XGroupDelConsumer);
        }
        pending
    })?;
    cx.reply.int(pending as i64);
    Ok(())
}

fn xack(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if find_group(cx, args)?.is_none() {
        cx.reply.int(0);
        return Ok(());
    }
    let ids: Result<Vec<_>, _> = args.iter_from(3).map(|id| parse_id(id, 0)).collect();
    let (ids, group) = (ids?, args.get(2));
    let acknowledged = cx.keys.edit::<Stream, _>(args.get(1), |stream| {
        ids.iter().filter(|id| stream.apply(StreamOp::Acknowledge(group, **id))).count()
    })?;
    cx.reply.int(acknowledged as i64);
    Ok(())
}

/// The range that XPENDING lists.
struct PendingRange<'a> {
    idle_ms: i64,
    start: StreamId,
    stop: StreamId,
    count: usize,
    consumer: Option<&'a [u8]>,
}

fn parse_pending(args: Args<'_>) -> Result<Option<PendingRange<'_>>, ReplyError> {
    match args.len() {
        3 => return Ok(None),
        6..=9 => {}
        _ => return Err(ReplyError::Syntax),
    }
    let (mut at, mut idle_ms) = (3, 0);
    if args.get(3).eq_ignore_ascii_case(b"IDLE") {
        idle_ms = int(args.get(4))?;
        if args.len() < 8 {
            return Err(ReplyError::Syntax);
        }
        at = 5;
    }
    let count = int(args.get(at + 2))?.max(0) as usize;
    let start = parse_start(args.get(at))?;
    let stop = parse_stop(args.get(at + 1))?;
    let consumer = (at + 3 < args.len()).then(|| args.get(at + 3));
    Ok(Some(PendingRange { idle_ms, start, stop, count, consumer }))
}

fn xpending(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let range = parse_pending(args)?;
    let now_ms = cx.keys.now_ms;
    let stream = cx.keys.read::<Stream>(args.get(1))?;
    let Some(group) = stream.and_then(|stream| stream.group(args.get(2))) else {
        return Err(no_key_or_group(cx, args.get(1), args.get(2)));
    };
    match range {
        None => reply_summary(&mut cx.reply, group),
        Some(range) => reply_pending(&mut cx.reply, group, &range, now_ms),
    }
    Ok(())
}

fn reply_summary(reply: &mut Reply<'_>, group: &Group) {
    reply.array(4);
    reply.int(group.pending().len() as i64);
    let ids = group.pending().first_key_value().zip(group.pending().last_key_value());
    let Some(((first, _), (last, _))) = ids else {
        reply.null();
        reply.null();
        return reply.null_array();
    };
    reply_id(reply, *first);
    reply_id(reply, *last);
    let busy: Vec<_> = group.consumers().filter(|c| !c.pending().is_empty()).collect();
    reply.array(busy.len());
    for consumer in busy {
        reply.array(2);
        reply.bulk(consumer.name());
        reply.bulk(consumer.pending().len().to_string().as_bytes());
    }
}

/// How long ago a pending entry was delivered, in ms.
fn idle_ms(pending: &Pending, now_ms: u64) -> i64 {
    now_ms as i64 - pending.delivered_ms as i64
}

fn reply_pending(reply: &mut Reply<'_>, group: &Group, range: &PendingRange<'_>, now_ms: u64) {
    let mut found: Vec<(StreamId, &Pending)> = Vec::new();
    let is_idle =
        |pending: &Pending| range.idle_ms == 0 || idle_ms(pending, now_ms) >= range.idle_ms;
    if range.start <= range.stop {
        let ids = range.start..=range.stop;
        match range.consumer.map(|name| group.consumer(name)) {
            None => {
                let all = group.pending().range(ids).map(|(id, pending)| (*id, pending));
                found.extend(all.filter(|(_, p)| is_idle(p)).take(range.count));
            }
            Some(Some(consumer)) => {
                let all = consumer.pending().range(ids);
                let all = all.filter_map(|id| Some((*id, group.pending().get(id)?)));
                found.extend(all.filter(|(_, p)| is_idle(p)).take(range.count));
            }
            Some(None) => {}
        }
    }
    reply.array(found.len());
    for (id, pending) in found {
        reply.array(4);
        reply_id(reply, id);
        reply.bulk(&pending.consumer);
        reply.int(idle_ms(pending, now_ms).max(0));
        reply.int(pending.deliveries as i64);
    }
}

/// The options of XCLAIM behind the ids.
#[derive(Debug)]
struct Claim {
    min_idle_ms: i64,
    ids: Vec<StreamId>,
    delivered_ms: u64,
    deliveries: Option<u64>,
    forces: bool,
    only_ids: bool,
    last_id: StreamId,
}

/// An integer, with an error of its own.
fn int_or(text: &[u8], error: &'static str) -> Result<i64, ReplyError> {
    int(text).map_err(|_| ReplyError::Text(error))
}

fn parse_claim(cx: &mut Cx<'_>, args: Args<'_>, now_ms: u64) -> Result<Claim, ReplyError> {
    let min_idle_ms = int_or(args.get(4), "ERR Invalid min-idle-time argument for XCLAIM")?.max(0);
    let ids: Vec<_> = args.iter_from(5).map_while(|id| parse_id(id, 0).ok()).collect();
    let mut i = 5 + ids.len();
    let last_id = StreamId::MIN;
    let mut claim = Claim {
        min_idle_ms,
        ids,
        delivered_ms: now_ms,
        deliveries: None,
        forces: false,
        only_ids: false,
        last_id,
    };
    // A time that cannot be is now: clients reckon with clocks of their own.
    let sane = |ms: i64| u64::try_from(ms).ok().filter(|ms| *ms <= now_ms).unwrap_or(now_ms);
    while i < args.len() {
        let more = args.len() - 1 - i;
        let word = args.get(i).to_ascii_uppercase();
        let value = if more > 0 { args.get(i + 1) } else { b"" };
        i += 2;
        match word.as_slice() {
            b"FORCE" => (claim.forces, i) = (true, i - 1),
            b"JUSTID" => (claim.only_ids, i) = (true, i - 1),
            b"IDLE" if more > 0 => {
                let idle = int_or(value, "ERR Invalid IDLE option argument for XCLAIM")?;
                claim.delivered_ms = sane((now_ms as i64).wrapping_sub(idle));
            }
            b"TIME" if more > 0 => {
                claim.delivered_ms =
                    sane(int_or(value, "ERR Invalid TIME option argument for XCLAIM")?);
            }
            b"RETRYCOUNT" if more > 0 => {
                let n = int_or(value, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
                claim.deliveries = u64::try_from(n).ok();
            }
            b"LASTID" if more > 0 => claim.last_id = parse_id(value, 0)?,
            _ => {
                let option = args.get(i - 2);
                return Err(no_group(cx, &[b"ERR Unrecognized XCLAIM option '", option, b"'"]));
            }
        }
    }
    Ok(claim)
}

fn xclaim(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, group, consumer) = (args.get(1), args.get(2), args.get(3));
    let now_ms = cx.keys.now_ms;
    if find_group(cx, args)?.is_none() {
        return Err(no_key_or_group(cx, key, group));
    }
    let claim = parse_claim(cx, args, now_ms)?;
    let (taken, reply) = (&mut Vec::new(), &mut cx.reply);
    cx.keys.edit::<Stream, _>(key, |stream| {
        let known = stream.group(group).map(|g| (g.last_id, g.entries_read));
        if let Some((last_id, entries_read)) = known
            && claim.last_id > last_id
        {
            stream.apply(StreamOp::SetGroup(group, claim.last_id, entries_read));
        }
        for id in &claim.ids {
            if claim_one(stream, (group, consumer), *id, &claim, now_ms) {
                taken.push(*id);
            }
        }
        reply_claimed(reply, stream, taken, claim.only_ids);
    })
}

/// Gives one entry to a consumer, if it may have it. One that is no longer there is forgotten.
fn claim_one(
    stream: &mut Editor<'_, Stream>,
    (group, consumer): (&[u8], &[u8]),
    id: StreamId,
    claim: &Claim,
    now_ms: u64,
) -> bool {
    if stream.get(id).is_none() {
        stream.apply(StreamOp::Acknowledge(group, id));
        return false;
    }
    let pending = stream.group(group).and_then(|g| g.pending().get(&id));
    let before = match pending {
        Some(pending) if claim.min_idle_ms > 0 && idle_ms(pending, now_ms) < claim.min_idle_ms => {
            return false;
        }
        Some(pending) => pending.deliveries,
        None if claim.forces => 1,
        None => return false,
    };
    let deliveries = match claim.deliveries {
        Some(n) => n,
        None => before + u64::from(!claim.only_ids),
    };
    ensure_consumer(stream, group, consumer, now_ms);
    stream.apply(StreamOp::Assign(group, consumer, id, claim.delivered_ms, deliveries));
    true
}

fn reply_claimed(reply: &mut Reply<'_>, stream: &Stream, ids: &[StreamId], only_ids: bool) {
    reply.array(ids.len());
    for id in ids {
        match stream.get(*id) {
            Some(entry) if !only_ids => reply_entry(reply, entry),
            _ => reply_id(reply, *id),
        }
    }
}

/// Entries that XAUTOCLAIM looks at for each that it may claim.
const LOOKS_PER_CLAIM: usize = 10;
/// Most entries that XAUTOCLAIM may be asked for, as Redis has it.
const AUTOCLAIM_MAX: i64 = i64::MAX / 16;

fn xautoclaim(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, group, consumer) = (args.get(1), args.get(2), args.get(3));
    let now_ms = cx.keys.now_ms;
    let min_idle_ms =
        int_or(args.get(4), "ERR Invalid min-idle-time argument for XAUTOCLAIM")?.max(0);
    let start = parse_start(args.get(5))?;
    let (mut count, mut only_ids, mut i) = (100, false, 6);
    while i < args.len() {
        if args.get(i).eq_ignore_ascii_case(b"COUNT") && i + 1 < args.len() {
            let n = number::parse_i64(args.get(i + 1));
            let n = n.filter(|n| (1..=AUTOCLAIM_MAX).contains(n));
            count = n.ok_or(ReplyError::Text("ERR COUNT must be > 0"))? as usize;
            i += 2;
        } else if args.get(i).eq_ignore_ascii_case(b"JUSTID") {
            only_ids = true;
            i += 1;
        } else {
            return Err(ReplyError::Syntax);
        }
    }
    if find_group(cx, args)?.is_none() {
        return Err(no_key_or_group(cx, key, group));
    }
    let reply = &mut cx.reply;
    let claim = Claim {
        min_idle_ms,
        ids: Vec::new(),
        delivered_ms: now_ms,
        deliveries: None,
        forces: false,
        only_ids,
        last_id: StreamId::MIN,
    };
    cx.keys.edit::<Stream, _>(key, |stream| {
        let (mut taken, mut gone, mut left) = (Vec::new(), Vec::new(), count);
        let mut next = Some(start);
        for _ in 0..count.saturating_mul(LOOKS_PER_CLAIM) {
            let Some(id) = next.and_then(|from| first_pending(stream, group, from)) else { break };
            if left == 0 {
                break;
            }
            next = id.next();
            if stream.get(id).is_none() {
                gone.push(id);
                left -= 1;
            }
            if claim_one(stream, (group, consumer), id, &claim, now_ms) {
                taken.push(id);
                left -= 1;
            }
        }
        let cursor = next.and_then(|from| first_pending(stream, group, from));
        reply.array(3);
        reply_id(reply, cursor.unwrap_or(StreamId::MIN));
        reply_claimed(reply, stream, &taken, only_ids);
        reply.array(gone.len());
        gone.into_iter().for_each(|id| reply_id(reply, id));
    })
}

fn first_pending(stream: &Stream, group: &[u8], from: StreamId) -> Option<StreamId> {
    stream.group(group)?.pending().range(from..).next().map(|(id, _)| *id)
}
