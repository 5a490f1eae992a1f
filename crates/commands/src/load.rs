//! Values that are loaded from elsewhere: HC.GET, HC.SET and HC.DEL, by which one client loads what is
//! missing while the others wait or get what was there before. `docs/stampede.md` is the contract.

use crate::blocking::Late;
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::expire::{self, TimeUnit};
use crate::string::payload_of;
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::{Args, OwnedArgs};
use hypercache_protocol::reply::Reply;
use hypercache_stdx::number;
use hypercache_stdx::rng::Rng;
use hypercache_store::care::TAGS_MAX;
use hypercache_store::types::Kind;
use hypercache_store::{Care, EntryRef, Mark, Ttl, tag_number};
use std::sync::atomic::Ordering::Relaxed;

const BASE: Command =
    Command { group: Group::String, acl: Acl::STRING, since: "0.1.0", ..Command::DEFAULT };

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "HC.GET",
        arity: -2,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: Flags::READONLY.or(Flags::BLOCKING),
        run: get,
        summary: "The value of a key, or the right to load it: one client gets a lease, others wait for what it stores or get the stale value.",
        syntax: "key [LEASE milliseconds] [WAIT milliseconds] [STALE milliseconds]",
        examples: "> HC.GET a LEASE 5000\n1) \"state\"\n2) \"lease\"\n3) \"value\"\n4) (nil)\n\
                   5) \"lease\"\n6) (integer) …\n7) \"ttl\"\n8) (integer) -2\n\
                   > HC.SET a 1 EX 60\nOK\n> HC.GET a\n1) \"state\"\n2) \"hit\"\n3) \"value\"\n4) \"1\"\n\
                   5) \"lease\"\n6) (nil)\n7) \"ttl\"\n8) (integer) …",
        ..BASE
    },
    Command {
        name: "HC.SET",
        arity: -3,
        keys: Keys::first(KeyFlags::OW.or(KeyFlags::UPDATE)),
        flags: Flags::WRITE.or(Flags::DENY_OOM),
        run: set,
        summary: "Sets a key to a value that was loaded; REFUSED if the key or a tag was invalidated since the lease was given.",
        complexity: "O(N) in the number of tags",
        syntax: "key value [LEASE token] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds] [STALE milliseconds] [JITTER percent] [COST microseconds] [NEGATIVE] [TAGS tag [tag ...]]",
        examples: "> HC.SET a 1 PX 60000 STALE 30000 TAGS user:7 lists\nOK\n\
                   > HC.TAG.INVALIDATE lists\n(integer) 1\n> GET a\n(nil)\n\
                   > HC.SET a 1 LEASE 12\nREFUSED\n> HC.SET a \"\" NEGATIVE EX 10\nOK\n\
                   > HC.GET a\n1) \"state\"\n2) \"absent\"\n3) \"value\"\n4) (nil)\n\
                   5) \"lease\"\n6) (nil)\n7) \"ttl\"\n8) (integer) …",
        ..BASE
    },
    Command {
        name: "HC.DEL",
        arity: -2,
        keys: Keys::first(KeyFlags::RM.or(KeyFlags::DELETE)),
        flags: Flags::WRITE,
        run: del,
        summary: "Invalidates a key: deletes it, or with STALE has HC.GET serve its value as stale for so long.",
        syntax: "key [STALE milliseconds]",
        examples: "> SET a 1\nOK\n> HC.DEL a STALE 5000\n(integer) 1\n> HC.GET a\n\
                   1) \"state\"\n2) \"stale\"\n3) \"value\"\n4) \"1\"\n\
                   5) \"lease\"\n6) (nil)\n7) \"ttl\"\n8) (integer) 0\n\
                   > HC.DEL a\n(integer) 1\n> HC.DEL a\n(integer) 0",
        ..BASE
    },
];

/// Longest time of a lease or of a wait for one, in ms.
const LEASE_MAX_MS: u64 = 600_000;

/// What HC.GET answers, as `state` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The value.
    Hit,
    /// A value that should be loaded anew.
    Stale,
    /// There is nothing, as the source said.
    Absent,
    /// No value; the client shall load it.
    Lease,
    /// No value; another client is loading it.
    Busy,
    /// No value, and nobody was asked to load it.
    Miss,
}

impl State {
    fn name(self) -> &'static [u8] {
        match self {
            State::Hit => b"hit",
            State::Stale => b"stale",
            State::Absent => b"absent",
            State::Lease => b"lease",
            State::Busy => b"busy",
            State::Miss => b"miss",
        }
    }
}

/// `ttl` of a key that is not there, and of one without a deadline, as PTTL answers.
const TTL_MISSING: i64 = -2;
const TTL_NEVER: i64 = -1;

fn write_head(reply: &mut Reply<'_>, state: State) {
    reply.map(4);
    reply.bulk(b"state");
    reply.bulk(state.name());
    reply.bulk(b"value");
}

fn write_tail(reply: &mut Reply<'_>, token: Option<u64>, ttl_ms: i64) {
    reply.bulk(b"lease");
    match token {
        Some(token) => reply.int(token as i64),
        None => reply.null(),
    }
    reply.bulk(b"ttl");
    reply.int(ttl_ms);
}

fn write_none(reply: &mut Reply<'_>, state: State, token: Option<u64>, ttl_ms: i64) {
    write_head(reply, state);
    reply.null();
    write_tail(reply, token, ttl_ms);
}

fn write_busy(reply: &mut Reply<'_>) {
    write_none(reply, State::Busy, None, TTL_MISSING);
}

/// The options of HC.GET.
#[derive(Clone, Copy, Debug, Default)]
struct GetOptions {
    lease_ms: Option<u64>,
    wait_ms: Option<u64>,
    stale_ms: Option<u64>,
}

/// A whole number of milliseconds from `least` to `most`.
fn millis(text: &[u8], least: u64, most: u64) -> Result<u64, ReplyError> {
    let ms = number::parse_i64(text).ok_or(ReplyError::NotAnInteger)?;
    let ms = u64::try_from(ms).ok().filter(|ms| (least..=most).contains(ms));
    ms.ok_or(ReplyError::Text("ERR time is out of range"))
}

fn parse_get(args: Args<'_>) -> Result<GetOptions, ReplyError> {
    let mut options = GetOptions::default();
    for i in (2..args.len()).step_by(2) {
        if i + 1 == args.len() {
            return Err(ReplyError::Syntax);
        }
        let text = args.get(i + 1);
        match args.get(i).to_ascii_uppercase().as_slice() {
            b"LEASE" => options.lease_ms = Some(millis(text, 1, LEASE_MAX_MS)?),
            b"WAIT" => options.wait_ms = Some(millis(text, 0, LEASE_MAX_MS)?),
            b"STALE" => options.stale_ms = Some(millis(text, 0, u64::from(u32::MAX))?),
            _ => return Err(ReplyError::Syntax),
        }
    }
    Ok(options)
}

/// What is known of a value before it is answered.
#[derive(Clone, Copy, Debug)]
struct Found {
    is_negative: bool,
    /// For how long it is stale already, in ms, if it is.
    stale_for_ms: Option<u64>,
    /// For how long it is fresh still, in ms; `None`: for ever.
    fresh_for_ms: Option<u64>,
    cost_us: u32,
}

/// For how long an entry is stale at a time, in ms, if it is: see [`Care`] and [`Mark::STALE`].
pub(crate) fn stale_for_ms(entry: EntryRef<'_>, now_ms: u64) -> Option<u64> {
    let stale_ms = u64::from(entry.care_head().stale_ms);
    let since = entry.deadline().filter(|_| stale_ms > 0).map(|at| at.saturating_sub(stale_ms));
    let by_time = since.filter(|since| now_ms >= *since).map(|since| now_ms - since);
    by_time.or_else(|| entry.mark().is(Mark::STALE).then_some(0))
}

impl Found {
    fn of(entry: EntryRef<'_>, now_ms: u64) -> Found {
        let head = entry.care_head();
        let fresh_until = entry.deadline().map(|at| at.saturating_sub(u64::from(head.stale_ms)));
        Found {
            is_negative: head.is_negative,
            stale_for_ms: stale_for_ms(entry, now_ms),
            fresh_for_ms: fresh_until.map(|at| at.saturating_sub(now_ms)),
            cost_us: head.cost_us,
        }
    }

    fn state(&self) -> State {
        match (self.is_negative, self.stale_for_ms) {
            (true, _) => State::Absent,
            (false, Some(_)) => State::Stale,
            (false, None) => State::Hit,
        }
    }

    /// Whether the value, though it is fresh, should be loaded anew now, so that it is there before the
    /// old one is stale: the nearer that is and the longer loading takes, the likelier (XFetch, Vattani et
    /// al., "Optimal probabilistic cache stampede prevention", VLDB 2015).
    fn is_due_early(&self, rng: &mut Rng, percent: u64) -> bool {
        let Some(left_ms) = self.fresh_for_ms.filter(|_| self.cost_us > 0) else { return false };
        let ahead_us = f64::from(self.cost_us) * percent as f64 / 100.0;
        // A number of (0, 1].
        ahead_us * -(1.0 - rng.unit()).ln() >= left_ms as f64 * 1000.0
    }
}

fn get(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let options = parse_get(args)?;
    let (key, now_ms) = (args.get(1), cx.keys.now_ms);
    let found = match cx.keys.loaded(key) {
        Some(entry) if entry.kind() != Kind::String => return Err(ReplyError::WrongType),
        entry => entry.map(|entry| Found::of(entry, now_ms)),
    };
    if !cx.is_serving() {
        cx.keys.count_loaded(found.is_some());
    }
    let is_too_stale = |stale_for_ms| options.stale_ms.is_some_and(|max| stale_for_ms > max);
    match found.filter(|found| !found.stale_for_ms.is_some_and(is_too_stale)) {
        Some(found) => answer_found(cx, key, found, options),
        None => answer_missing(cx, args, options),
    }
}

/// Answers with what there is; one client gets a lease if it should be loaded anew.
fn answer_found(cx: &mut Cx<'_>, key: &[u8], found: Found, options: GetOptions) -> Outcome {
    let percent = cx.shared.config.hot.refresh_ahead_percent.load(Relaxed);
    let is_due = found.stale_for_ms.is_some()
        || options.lease_ms.is_some() && found.is_due_early(&mut cx.worker.rng, percent);
    let token = match options.lease_ms.filter(|_| is_due) {
        Some(ms) if cx.keys.lease(key).is_none() => grant(cx, key, ms),
        _ => None,
    };
    write_head(&mut cx.reply, found.state());
    if found.is_negative {
        cx.reply.null();
    } else {
        let entry = cx.keys.loaded(key);
        crate::string::reply_value(&mut cx.reply, entry);
    }
    let ttl_ms = found.fresh_for_ms.map_or(TTL_NEVER, |ms| ms as i64);
    write_tail(&mut cx.reply, token, ttl_ms);
    Ok(())
}

/// Gives the client the lease of a key, if there are not too many.
fn grant(cx: &mut Cx<'_>, key: &[u8], ms: u64) -> Option<u64> {
    let max = cx.shared.config.hot.leases_max.load(Relaxed) as usize;
    cx.keys.grant(key, cx.session.client.id, ms, max)
}

/// There is no value, or none that will do: the client gets the lease, or waits for whoever has it.
fn answer_missing(cx: &mut Cx<'_>, args: Args<'_>, options: GetOptions) -> Outcome {
    let key = args.get(1);
    let Some(lease_ms) = options.lease_ms else {
        write_none(&mut cx.reply, State::Miss, None, TTL_MISSING);
        return Ok(());
    };
    let Some(holder) = cx.keys.lease(key).map(|lease| lease.client) else {
        let token = grant(cx, key, lease_ms);
        let state = if token.is_some() { State::Lease } else { State::Miss };
        write_none(&mut cx.reply, state, token, TTL_MISSING);
        return Ok(());
    };
    let wait_ms = options.wait_ms.unwrap_or(lease_ms);
    let waiters_max = cx.shared.config.hot.lease_waiters_max.load(Relaxed) as usize;
    // A connection that many callers share must not wait for itself.
    let may_wait = cx.is_serving()
        || wait_ms > 0 && holder != cx.session.client.id && cx.keys.waiting_for(key) < waiters_max;
    if !may_wait {
        write_busy(&mut cx.reply);
        return Ok(());
    }
    let how = (wait_ms, OwnedArgs::copy_of(args));
    cx.wait_or([key].into_iter(), how, write_busy, Late::Reply(write_busy))
}

/// The options of HC.SET.
#[derive(Clone, Debug, Default)]
struct SetOptions {
    token: Option<u64>,
    /// Unit, and the number of the argument with the time.
    expiry: Option<(TimeUnit, usize)>,
    jitter_percent: u64,
    care: Care,
}

fn parse_set(args: Args<'_>) -> Result<SetOptions, ReplyError> {
    let mut options = SetOptions::default();
    let mut i = 3;
    while i < args.len() {
        let word = args.get(i);
        if word.eq_ignore_ascii_case(b"NEGATIVE") {
            options.care.is_negative = true;
            i += 1;
            continue;
        }
        if i + 1 == args.len() {
            return Err(ReplyError::Syntax);
        }
        if word.eq_ignore_ascii_case(b"TAGS") {
            parse_tags(args, i + 1, &mut options.care)?;
            break;
        }
        parse_pair(args, i, &mut options)?;
        i += 2;
    }
    Ok(options)
}

/// An option with its value.
fn parse_pair(args: Args<'_>, i: usize, options: &mut SetOptions) -> Outcome {
    let (word, text) = (args.get(i), args.get(i + 1));
    let within = |most: i64| {
        let n = number::parse_i64(text).ok_or(ReplyError::NotAnInteger)?;
        let is_within = (0..=most).contains(&n);
        if is_within { Ok(n as u64) } else { Err(ReplyError::Text("ERR value is out of range")) }
    };
    if let Some(unit) = TimeUnit::of_option(word) {
        if options.expiry.is_some() {
            return Err(ReplyError::Syntax);
        }
        options.expiry = Some((unit, i + 1));
        return Ok(());
    }
    match word.to_ascii_uppercase().as_slice() {
        b"LEASE" => options.token = Some(within(i64::MAX)?),
        b"STALE" => options.care.stale_ms = within(i64::from(u32::MAX))? as u32,
        b"COST" => options.care.cost_us = within(i64::from(u32::MAX))? as u32,
        b"JITTER" => options.jitter_percent = within(100)?,
        _ => return Err(ReplyError::Syntax),
    }
    Ok(())
}

/// All arguments from `first` on are tags.
fn parse_tags(args: Args<'_>, first: usize, care: &mut Care) -> Outcome {
    const { assert!(TAGS_MAX == 64, "as the text says") };
    for tag in args.iter_from(first) {
        if !care.add_tag(tag_number(tag)) {
            return Err(ReplyError::Text("ERR a key has 64 tags at most"));
        }
    }
    Ok(())
}

/// When the value is stale, in ms since the epoch: the time that was given, or with jitter some time
/// before.
fn stale_at(cx: &mut Cx<'_>, args: Args<'_>, o: &SetOptions) -> Result<Option<u64>, ReplyError> {
    let Some((unit, i)) = o.expiry else { return Ok(None) };
    let at = expire::deadline(cx, args.get(i), unit)?;
    let span = at.saturating_sub(cx.keys.now_ms) as f64 * o.jitter_percent as f64 / 100.0;
    Ok(Some(at - (span * cx.worker.rng.unit()) as u64))
}

fn set(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut options = parse_set(args)?;
    let stale_at = stale_at(cx, args, &options)?;
    let care = &mut options.care;
    let needs_time = care.stale_ms > 0 || care.is_negative || options.jitter_percent > 0;
    if needs_time && stale_at.is_none() {
        return Err(ReplyError::Text("ERR STALE, JITTER and NEGATIVE need an expiry"));
    }
    let key = args.get(1);
    if care.is_negative && !args.get(2).is_empty() {
        return Err(ReplyError::Text("ERR NEGATIVE goes with an empty value"));
    }
    if let Some(token) = options.token {
        let Some(took_us) = cx.keys.redeem(key, token, &care.tags) else {
            // It may be this lease, and of no more use: who waits shall not wait for it.
            cx.keys.end_lease(key, Some(token));
            cx.reply.simple("REFUSED");
            return Ok(());
        };
        if care.cost_us == 0 && stale_at.is_some() {
            care.cost_us = took_us.min(u64::from(u32::MAX)) as u32;
        }
    }
    let deadline = stale_at.map(|at| at.saturating_add(u64::from(care.stale_ms)));
    // One whose time is past goes first, and that is told.
    cx.keys.exists(key);
    let ttl = deadline.map_or(Ttl::Clear, Ttl::At);
    cx.keys.set_loaded(key, payload_of(args, 2), ttl, &options.care);
    cx.reply.ok();
    Ok(())
}

fn del(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let key = args.get(1);
    let stale_ms = match args.len() {
        2 => 0,
        4 if args.get(2).eq_ignore_ascii_case(b"STALE") => {
            millis(args.get(3), 0, u64::from(u32::MAX))?
        }
        _ => return Err(ReplyError::Syntax),
    };
    let string = cx.keys.peek(key).filter(|entry| entry.kind() == Kind::String);
    let old = string.map(|entry| entry.deadline());
    let is_there = match old {
        Some(old) if stale_ms > 0 => {
            let at = cx.keys.now_ms.saturating_add(stale_ms);
            let care = cx.keys.care(key).unwrap_or_default();
            cx.keys.set_ttl(key, Some(old.map_or(at, |old| old.min(at))), Event::Expire);
            cx.keys.set_care(key, &Care { stale_ms: stale_ms as u32, ..care });
            cx.keys.end_lease(key, None);
            true
        }
        _ => cx.keys.delete(key, Event::Del),
    };
    cx.reply.int(i64::from(is_there));
    Ok(())
}

#[cfg(test)]
mod tests;
