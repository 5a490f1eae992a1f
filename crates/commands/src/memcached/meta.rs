//! The meta commands: `mg`, `ms`, `md`, `ma`, `mn` and `me`.

mod base64;
mod flags;

use super::classic::{NOT_NUMBER, count_cas, count_delete, count_numbers, forget};
use super::store::{Counted, Mode, Store, Stored, count, set_time, store};
use super::{Call, Held, ttl_of};
use crate::keyspace::Keys;
use crate::load::stale_for_ms;
use flags::Flags;
use hypercache_journal::Event;
use hypercache_protocol::memcached::{KEY_MAX, Refusal, reply};
use hypercache_protocol::reply::Output;
use hypercache_store::{EntryRef, Mark, Payload, Ttl};
use smallvec::SmallVec;
use std::borrow::Cow;

/// Most words of a line.
const WORDS_MAX: usize = 19;
const BAD_FLAG: &str = "CLIENT_ERROR invalid or duplicate flag";
const NO_MEMORY: &str = "SERVER_ERROR out of memory storing object";

/// A meta command's key and flags, understood.
struct Meta<'c> {
    /// The key, decoded.
    key: Cow<'c, [u8]>,
    flags: Flags,
    /// Number of the word of the first flag.
    first: usize,
}

impl<'c> Call<'c, '_> {
    /// Reads key and flags, or says what is wrong with them.
    fn meta(&mut self, first: usize, too_many: &'static str) -> Result<Meta<'c>, &'static str> {
        self.cx.worker.stats.memcached_meta.add(1);
        if self.word(1).len() > KEY_MAX {
            return Err(Refusal::Line.text());
        }
        if self.words > WORDS_MAX {
            return Err(too_many);
        }
        let words = (first..self.words).map(|i| self.args.get(i));
        let (flags, key) = Flags::parse(self.word(1), words)?;
        let key = match key {
            Some(decoded) => {
                // It is another key than the one that was located.
                self.first_key = None;
                Cow::Owned(decoded)
            }
            None => Cow::Borrowed(self.word(1)),
        };
        self.is_quiet = flags.is_quiet;
        Ok(Meta { key, flags, first })
    }

    /// The words of the flags.
    fn flag_words(&self, meta: &Meta<'_>) -> impl Iterator<Item = &'c [u8]> + use<'c> {
        let (args, first, last) = (self.args, meta.first, self.words);
        (first..last).map(move |i| args.get(i))
    }

    /// Ends a reply of a code: with the flags that only repeat what was asked, `k` and `O`, and in
    /// answer to `c` the CAS unique, if there is one to tell.
    fn finish(&mut self, code: &str, meta: &Meta<'_>, cas: Option<u64>) {
        if self.is_quiet {
            return;
        }
        let words = self.flag_words(meta);
        let out = self.cx.reply.output();
        out.bytes.extend_from_slice(code.as_bytes());
        for word in words {
            match (word[0], cas) {
                (b'O', _) => reply::flag(out, b'O', &word[1..]),
                (b'k', _) => write_key(out, &meta.key, meta.flags.is_binary),
                (b'c', Some(cas)) => reply::flag_number(out, b'c', cas),
                _ => {}
            }
        }
        reply::line(out, b"");
    }
}

/// The key as `k` shows it: in base64, and marked so, if it was given in it or must be.
fn write_key(out: &mut Output, key: &[u8], is_binary: bool) {
    if is_binary || !is_text(key) {
        reply::flag(out, b'k', &base64::encode(key));
        reply::flag(out, b'b', b"");
    } else {
        reply::flag(out, b'k', key);
    }
}

/// Whether a key can stand in a line.
fn is_text(key: &[u8]) -> bool {
    key.iter().all(|&b| b > b' ' && b != 0x7f)
}

/// Whole seconds from now to a deadline, begun ones included.
fn seconds_left(deadline: u64, now_ms: u64) -> u64 {
    deadline.saturating_sub(now_ms).div_ceil(1000)
}

pub(super) fn no_op(call: &mut Call<'_, '_>) {
    call.answer("MN");
}

pub(super) fn get(call: &mut Call<'_, '_>) {
    let meta = match call.meta(2, "CLIENT_ERROR options flags are too long") {
        Ok(meta) => meta,
        Err(text) => return call.loud_error(text),
    };
    if meta.flags.vivifies.is_some() && !call.has_room() {
        return call.loud_error(NO_MEMORY);
    }
    let (key, mut own) = (&meta.key[..], None);
    let at = call.place(key, &mut own);
    let words: Words<'_> = call.flag_words(&meta).collect();
    let mut held = call.hold(at);
    let keys = &mut held.keys;
    let is_hit = keys.item(key).is_some();
    // A key of another type is no item, but it is there.
    let is_made = !is_hit && meta.flags.vivifies.is_some() && !keys.exists(key);
    if is_made {
        keys.set_item(key, Payload::Slice(b""), Ttl::Clear, Mark::NONE, Event::Set);
    }
    let stats = held.stats;
    stats.count_lookup(is_hit);
    let (hits, misses) = (&stats.memcached_get_hits, &stats.memcached_get_misses);
    if is_hit {
        hits.add(1)
    } else {
        misses.add(1)
    }
    if is_hit || is_made {
        hit(&mut held, &meta, &words, is_made);
    } else {
        drop(held);
        call.finish("EN", &meta, None);
    }
}

/// The words of the flags of one command.
type Words<'c> = SmallVec<[&'c [u8]; WORDS_MAX]>;

/// Answers `mg` of an item that is there, flag by flag; some of these change it.
fn hit(held: &mut Held<'_>, meta: &Meta<'_>, words: &[&[u8]], is_made: bool) {
    let key = &meta.key[..];
    let Held { keys, out, .. } = held;
    let now_ms = keys.now_ms;
    let Some(before) = keys.fetch(key, !meta.flags.keeps_use) else { return };
    let Some(entry) = keys.item(key) else { return };
    let (mark, len) = (known_state(entry, now_ms), entry.value().len());
    let mut deadline = entry.deadline();
    let (mut is_won, mut new_time) = (false, None);
    begin(out, meta.flags.wants_value, len);
    for word in words {
        match word[0] {
            b's' => reply::flag_number(out, b's', len as u64),
            b'f' => reply::flag_number(out, b'f', u64::from(mark.client_flags)),
            b'h' => reply::flag_number(out, b'h', u64::from(before.is_fetched)),
            b'l' => {
                let idle_s = keys.idle_s(before);
                reply::flag_number(out, b'l', u64::from(idle_s));
            }
            b't' => write_time(out, deadline, now_ms),
            b'O' => reply::flag(out, b'O', &word[1..]),
            b'k' => write_key(out, key, mark.is(Mark::BINARY)),
            b'c' => reply::flag_number(out, b'c', keys.cas_of(key)),
            b'T' => {
                new_time = meta.flags.exptime;
                deadline = deadline_of(new_time, now_ms);
            }
            b'N' if is_made => {
                new_time = meta.flags.vivifies;
                deadline = deadline_of(new_time, now_ms);
                is_won = true;
            }
            b'R' if !is_made && !mark.is(Mark::WON) => {
                is_won |= is_due_soon(deadline, meta.flags.recache, now_ms);
            }
            _ => {}
        }
    }
    is_won |= mark.is(Mark::STALE) && !mark.is(Mark::WON);
    // A client of HC.GET may be making the new value.
    let is_leased = keys.lease(key).is_some();
    let (is_won, mark) = match is_leased {
        true => (false, Mark { state: mark.state | Mark::WON, ..mark }),
        false => (is_won, mark),
    };
    end_hit(held, meta, mark, is_won);
    if let Some(exptime) = new_time {
        set_time(&mut held.keys, key, exptime);
    }
}

/// The mark of an item, stale also when HC.SET said so of its time.
fn known_state(entry: EntryRef<'_>, now_ms: u64) -> Mark {
    let mark = entry.mark();
    let stale = if stale_for_ms(entry, now_ms).is_some() { Mark::STALE } else { 0 };
    Mark { state: mark.state | stale, ..mark }
}

/// Says whether the value is stale and whether this client shall make a new one; then the value.
fn end_hit(held: &mut Held<'_>, meta: &Meta<'_>, mark: Mark, is_won: bool) {
    let key = &meta.key[..];
    let Held { keys, out, .. } = held;
    let (was_won, is_stale) = (mark.is(Mark::WON), mark.is(Mark::STALE));
    for (flag, is_set) in [(b'Z', was_won), (b'X', is_stale), (b'W', is_won)] {
        if is_set {
            reply::flag(out, flag, b"");
        }
    }
    reply::line(out, b"");
    let Some(entry) = keys.item(key) else { return };
    if meta.flags.wants_value {
        reply::data(out, entry.value(), entry.blob());
    }
    if is_won {
        let mark = entry.mark();
        keys.set_mark(key, Mark { state: mark.state | Mark::WON, ..mark });
    }
}

/// The code of a hit, with the length of the value if that follows.
fn begin(out: &mut Output, with_value: bool, len: usize) {
    if !with_value {
        return out.bytes.extend_from_slice(b"HD");
    }
    out.bytes.extend_from_slice(b"VA ");
    reply::number(out, len as u64);
}

fn write_time(out: &mut Output, deadline: Option<u64>, now_ms: u64) {
    match deadline {
        None => reply::flag(out, b't', b"-1"),
        Some(at) => reply::flag_number(out, b't', seconds_left(at, now_ms)),
    }
}

fn deadline_of(exptime: Option<i64>, now_ms: u64) -> Option<u64> {
    match ttl_of(exptime?, now_ms) {
        Ttl::At(at) => Some(at),
        Ttl::Clear | Ttl::Keep => None,
    }
}

/// Whether less time is left than a client wants for making a new value.
fn is_due_soon(deadline: Option<u64>, recache: Option<i64>, now_ms: u64) -> bool {
    match (deadline, deadline_of(recache, now_ms)) {
        (Some(ours), Some(theirs)) => seconds_left(ours, now_ms) < seconds_left(theirs, now_ms),
        _ => false,
    }
}

pub(super) fn set(call: &mut Call<'_, '_>) {
    if matches!(call.refusal, Some(Refusal::Line | Refusal::Flags)) {
        let text = call.refusal.map_or("", Refusal::text);
        return call.loud_error(text);
    }
    let meta = match call.meta(3, Refusal::Flags.text()) {
        Ok(meta) => meta,
        Err(text) => return call.loud_error(text),
    };
    let Some(mode) = mode_of(meta.flags.mode) else {
        return call.loud_error("CLIENT_ERROR invalid mode for ms M token");
    };
    if let Some(refusal) = call.refusal {
        if refusal == Refusal::TooLarge {
            forget(call, &meta.key, Mode::Set);
        }
        return call.loud_error(refusal.text());
    }
    call.cx.worker.stats.memcached_sets.add(1);
    if !call.has_room() {
        forget(call, &meta.key, Mode::Set);
        return call.loud_error(NO_MEMORY);
    }
    store_meta(call, &meta, mode);
}

fn mode_of(token: u8) -> Option<Mode> {
    match token {
        0 | b'S' => Some(Mode::Set),
        b'E' => Some(Mode::Add),
        b'A' => Some(Mode::Append),
        b'P' => Some(Mode::Prepend),
        b'R' => Some(Mode::Replace),
        _ => None,
    }
}

fn store_meta(call: &mut Call<'_, '_>, meta: &Meta<'_>, mode: Mode) {
    let flags = &meta.flags;
    // A CAS unique makes a set or a replace a compare-and-set.
    let compares = flags.cas.is_some() && matches!(mode, Mode::Set | Mode::Replace);
    let mode = if compares { Mode::Cas } else { mode };
    let state = if flags.is_binary { Mark::BINARY } else { 0 };
    let wanted = Store {
        mode,
        mark: Mark { client_flags: flags.client_flags, state, cas: 0 },
        ttl: call.ttl_of(flags.exptime.unwrap_or_default()),
        cas: flags.cas.unwrap_or_default(),
        invalidates: flags.invalidates,
        value_max: call.value_max(),
        vivifies: flags.vivifies.map(|exptime| call.ttl_of(exptime)),
    };
    let (key, block, mut own) = (&meta.key[..], call.block(), None);
    let asks_cas = call.flag_words(meta).any(|word| word[0] == b'c');
    let at = call.place(key, &mut own);
    let mut held = call.hold(at);
    let keys = &mut held.keys;
    let stored = store(keys, key, block, &wanted);
    let is_stored = stored == Stored::Yes;
    let mut cas = 0;
    if is_stored {
        give_cas(keys, key, flags.new_cas);
        if asks_cas {
            cas = keys.cas_of(key);
        }
    }
    drop(held);
    if mode == Mode::Cas {
        count_cas(call, stored);
    }
    // A client that wants to hear of failures only says so.
    call.is_quiet &= is_stored;
    match stored {
        Stored::Yes => call.finish("HD", meta, Some(cas)),
        Stored::No => call.finish("NS", meta, Some(cas)),
        Stored::Exists => call.finish("EX", meta, Some(cas)),
        Stored::NotFound => call.finish("NF", meta, Some(cas)),
        Stored::TooLarge => call.loud_error(Refusal::TooLarge.text()),
    }
}

/// Gives an item the CAS unique that a client chose, if it did.
fn give_cas(keys: &mut Keys<'_>, key: &[u8], cas: Option<u64>) {
    if let Some(cas) = cas
        && let Some(mark) = keys.item(key).map(|entry| entry.mark())
    {
        keys.set_mark(key, Mark { cas, ..mark });
    }
}

pub(super) fn delete(call: &mut Call<'_, '_>) {
    let meta = match call.meta(2, Refusal::Flags.text()) {
        Ok(meta) => meta,
        Err(text) => return call.loud_error(of_md_and_ma(text)),
    };
    let (key, mut own) = (&meta.key[..], None);
    let at = call.place(key, &mut own);
    let mut held = call.hold(at);
    let found = held.keys.item(key).map(|entry| entry.mark());
    let code = match found {
        None => {
            // What is being loaded may be old.
            held.keys.end_lease(key, None);
            "NF"
        }
        Some(mark) if meta.flags.cas.is_some_and(|cas| cas != mark.cas || cas == 0) => "EX",
        Some(mark) => {
            delete_found(&mut held.keys, &meta, mark);
            "HD"
        }
    };
    drop(held);
    count_delete(call, code == "HD");
    call.is_quiet &= code == "HD";
    call.finish(code, &meta, None);
}

/// Deletes an item, or its value, or marks it as stale.
fn delete_found(keys: &mut Keys<'_>, meta: &Meta<'_>, mark: Mark) {
    let (key, flags) = (&meta.key[..], &meta.flags);
    let mut mark = mark;
    if flags.removes_value {
        mark = Mark { client_flags: 0, ..mark };
        keys.set_item(key, Payload::Slice(b""), Ttl::Keep, mark, Event::Set);
    } else if !flags.invalidates {
        keys.delete(key, Event::Del);
        return;
    }
    if flags.invalidates {
        // It may be stale already, and a new value on its way that was loaded before this.
        keys.end_lease(key, None);
        mark.state = mark.state & !Mark::WON | Mark::STALE;
        if let Some(exptime) = flags.exptime {
            set_time(keys, key, exptime);
        }
    }
    // It changed, so it has another CAS unique than before.
    keys.set_mark(key, Mark { cas: flags.new_cas.unwrap_or(0), ..mark });
}

/// `md` and `ma` have one text for most that can be wrong with flags.
fn of_md_and_ma(text: &'static str) -> &'static str {
    let own = [Refusal::Flags.text(), Refusal::Line.text(), flags::OPAQUE_TOO_LONG];
    if own.contains(&text) { text } else { BAD_FLAG }
}

pub(super) fn arithmetic(call: &mut Call<'_, '_>) {
    let meta = match call.meta(2, Refusal::Flags.text()) {
        Ok(meta) => meta,
        Err(text) => return call.loud_error(of_md_and_ma(text)),
    };
    let adds = match meta.flags.mode {
        0 | b'I' | b'+' => true,
        b'D' | b'-' => false,
        _ => return call.loud_error("CLIENT_ERROR invalid mode for ma M token"),
    };
    if !call.has_room() {
        return call.loud_error("SERVER_ERROR out of memory");
    }
    let (key, flags, mut own) = (&meta.key[..], &meta.flags, None);
    let words: Words<'_> = call.flag_words(&meta).collect();
    let at = call.place(key, &mut own);
    let mut held = call.hold(at);
    let keys = &mut held.keys;
    let counted = count(keys, key, adds, flags.delta, flags.cas.unwrap_or_default());
    let is_missing = counted == Counted::NotFound;
    let is_made = is_missing && flags.vivifies.is_some() && !keys.exists(key);
    if is_made {
        let mut digits = itoa::Buffer::new();
        let value = Payload::Slice(digits.format(flags.initial).as_bytes());
        keys.set_item(key, value, Ttl::Clear, Mark::NONE, Event::Set);
    }
    match counted {
        Counted::Is(n) => answer_number(&mut held, &meta, &words, n, false),
        Counted::NotFound if is_made => {
            answer_number(&mut held, &meta, &words, flags.initial, true);
        }
        _ => {}
    }
    drop(held);
    count_numbers(call, adds, counted);
    call.is_quiet = false;
    match counted {
        Counted::NotFound if !is_made => call.finish("NF", &meta, None),
        Counted::Exists => call.finish("EX", &meta, None),
        Counted::NotNumber => call.loud_error(NOT_NUMBER),
        Counted::Is(_) | Counted::NotFound => {}
    }
}

/// Answers `ma` flag by flag; some of these change the item.
fn answer_number(held: &mut Held<'_>, meta: &Meta<'_>, words: &[&[u8]], n: u64, is_made: bool) {
    let key = &meta.key[..];
    let Held { keys, out, .. } = held;
    give_cas(keys, key, meta.flags.new_cas);
    let start = out.mark();
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(n).as_bytes();
    let mut deadline = keys.item(key).and_then(|entry| entry.deadline());
    let mut new_time = None;
    begin(out, meta.flags.wants_value, digits.len());
    for word in words {
        match word[0] {
            b'O' => reply::flag(out, b'O', &word[1..]),
            b'k' => write_key(out, key, meta.flags.is_binary),
            b'c' => reply::flag_number(out, b'c', keys.cas_of(key)),
            b't' => write_time(out, deadline, keys.now_ms),
            b'T' => {
                new_time = meta.flags.exptime;
                deadline = deadline_of(new_time, keys.now_ms);
            }
            b'N' if is_made => {
                new_time = meta.flags.vivifies;
                deadline = deadline_of(new_time, keys.now_ms);
            }
            _ => {}
        }
    }
    if let Some(exptime) = new_time {
        set_time(keys, key, exptime);
    }
    reply::line(out, b"");
    if meta.flags.wants_value {
        reply::line(out, digits);
    }
    if meta.flags.is_quiet && !is_made {
        out.truncate(start);
    }
}

pub(super) fn debug(call: &mut Call<'_, '_>) {
    if call.words < 2 {
        return call.loud_error(Refusal::Line.text());
    }
    let meta = match call.meta(2, Refusal::Flags.text()) {
        Ok(meta) => meta,
        Err(text) => return call.loud_error(text),
    };
    let (key, mut own) = (&meta.key[..], None);
    let at = call.place(key, &mut own);
    let mut held = call.hold(at);
    let Held { keys, out, .. } = &mut held;
    let is_there = keys.item(key).is_some();
    let used = if is_there { keys.fetch(key, false) } else { None };
    let text = used.and_then(|used| {
        let cas = keys.cas_of(key);
        let now_ms = keys.now_ms;
        let idle_s = keys.idle_s(used);
        let entry = keys.item(key)?;
        let time = entry.deadline().map_or(1, |at| seconds_left(at, now_ms));
        let fetched = if used.is_fetched { "yes" } else { "no" };
        let (size, is_binary) = (entry.bytes_used(), entry.mark().is(Mark::BINARY));
        let text = format!("exp=-{time} la={idle_s} cas={cas} fetch={fetched} cls=0 size={size}");
        Some((text, is_binary || !is_text(key)))
    });
    match text {
        None => reply::line(out, b"EN"),
        Some((text, is_binary)) => {
            let shown = if is_binary { base64::encode(key) } else { key.to_vec() };
            out.bytes.extend_from_slice(b"ME ");
            out.bytes.extend_from_slice(&shown);
            out.bytes.push(b' ');
            reply::line(out, text.as_bytes());
        }
    }
}
