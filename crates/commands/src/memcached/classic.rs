//! The classic commands.

use super::store::{Counted, Mode, Store, Stored, count, set_time, store};
use super::{Call, Held, KEYS_TOGETHER, MEMCACHED_VERSION, flush, locate_all};
use crate::keyspace::Located;
use hypercache_journal::Event;
use hypercache_protocol::memcached::number::{parse_i64, parse_u32, parse_u64};
use hypercache_protocol::memcached::{KEY_MAX, Refusal, reply};
use hypercache_store::{Mark, Ttl};
use smallvec::SmallVec;
use std::sync::atomic::Ordering::Relaxed;

const EXPTIME: &str = "CLIENT_ERROR invalid exptime argument";
const NO_MEMORY: &str = "SERVER_ERROR out of memory storing object";

/// How values are asked for.
#[derive(Clone, Copy)]
struct Asked {
    /// Whether the CAS unique is told, too.
    cas: bool,
    /// When they shall expire.
    exptime: Option<i64>,
}

pub(super) fn get(call: &mut Call<'_, '_>) {
    values(call, 1, Asked { cas: false, exptime: None });
}

pub(super) fn gets(call: &mut Call<'_, '_>) {
    values(call, 1, Asked { cas: true, exptime: None });
}

pub(super) fn gat(call: &mut Call<'_, '_>) {
    get_and_touch(call, false);
}

pub(super) fn gats(call: &mut Call<'_, '_>) {
    get_and_touch(call, true);
}

fn get_and_touch(call: &mut Call<'_, '_>, cas: bool) {
    match parse_i64(call.word(1)) {
        None => call.error(EXPTIME),
        exptime => values(call, 2, Asked { cas, exptime }),
    }
}

/// Answers the values of the keys from word `first` on.
#[inline]
fn values(call: &mut Call<'_, '_>, first: usize, asked: Asked) {
    if call.words == first + 1 && first == 1 && call.word(1).len() <= KEY_MAX {
        let (key, mut own) = (call.word(1), None);
        let at = call.place(key, &mut own);
        value(call, key, at, asked);
        return reply::line(call.out(), b"END");
    }
    many_values(call, first, asked);
}

fn many_values(call: &mut Call<'_, '_>, first: usize, asked: Asked) {
    let mark = call.out().mark();
    let mut next = first;
    while next < call.words {
        let end = call.words.min(next + KEYS_TOGETHER);
        let keys: SmallVec<[&[u8]; KEYS_TOGETHER]> = (next..end).map(|i| call.word(i)).collect();
        let fit = keys.iter().take_while(|key| key.len() <= KEY_MAX).count();
        for (key, at) in keys.iter().zip(&locate_all(call.cx.shared, &keys[..fit])) {
            value(call, key, at, asked);
        }
        if fit < keys.len() {
            // As memcached: what was found before is not told, but stays touched.
            call.out().truncate(mark);
            return call.error(Refusal::Line.text());
        }
        next = end;
    }
    reply::line(call.out(), b"END");
}

/// Answers one value, if there is one.
#[inline]
fn value(call: &mut Call<'_, '_>, key: &[u8], at: &Located, asked: Asked) {
    let mut held = call.hold(at);
    let Held { keys, out, stats, .. } = &mut held;
    let found = keys.read_item(key);
    let is_hit = found.is_some();
    if let Some(entry) = found {
        let client_flags = entry.mark().client_flags;
        if asked.cas {
            let cas = keys.cas_of(key);
            if let Some(entry) = keys.item(key) {
                reply::value_head(out, key, client_flags, entry.value().len(), Some(cas));
                reply::data(out, entry.value(), entry.blob());
            }
        } else {
            reply::value_head(out, key, client_flags, entry.value().len(), None);
            reply::data(out, entry.value(), entry.blob());
        }
    }
    stats.count_lookup(is_hit);
    let (hits, misses) = (&stats.memcached_get_hits, &stats.memcached_get_misses);
    if is_hit {
        hits.add(1)
    } else {
        misses.add(1)
    }
    if let Some(exptime) = asked.exptime {
        let (hits, misses) = (&stats.memcached_touch_hits, &stats.memcached_touch_misses);
        if is_hit {
            hits.add(1)
        } else {
            misses.add(1)
        }
        if is_hit {
            set_time(keys, key, exptime);
        }
    }
}

pub(super) fn set(call: &mut Call<'_, '_>) {
    storage(call, Mode::Set);
}

pub(super) fn add(call: &mut Call<'_, '_>) {
    storage(call, Mode::Add);
}

pub(super) fn replace(call: &mut Call<'_, '_>) {
    storage(call, Mode::Replace);
}

pub(super) fn append(call: &mut Call<'_, '_>) {
    storage(call, Mode::Append);
}

pub(super) fn prepend(call: &mut Call<'_, '_>) {
    storage(call, Mode::Prepend);
}

pub(super) fn cas(call: &mut Call<'_, '_>) {
    storage(call, Mode::Cas);
}

#[inline]
fn storage(call: &mut Call<'_, '_>, mode: Mode) {
    call.read_noreply();
    if let Some(refusal) = call.refusal {
        return refused(call, refusal, mode);
    }
    let key = call.word(1);
    call.cx.worker.stats.memcached_sets.add(1);
    if !call.has_room() {
        forget(call, key, mode);
        return call.error(NO_MEMORY);
    }
    // The parser has read these before; it found them valid.
    let client_flags = parse_u32(call.word(2)).unwrap_or_default();
    let exptime = parse_i64(call.word(3)).unwrap_or_default();
    let cas = if mode == Mode::Cas { parse_u64(call.word(5)).unwrap_or_default() } else { 0 };
    let ttl = call.ttl_of(exptime);
    let value_max = call.value_max();
    let mark = Mark::of_flags(client_flags);
    let wanted = Store { mode, mark, ttl, cas, invalidates: false, value_max, vivifies: None };
    let block = call.block();
    let mut own = None;
    let at = call.place(key, &mut own);
    let stored = store(&mut call.hold(at).keys, key, block, &wanted);
    if mode == Mode::Cas {
        count_cas(call, stored);
    }
    match stored {
        Stored::Yes => call.answer("STORED"),
        Stored::No => call.answer("NOT_STORED"),
        Stored::Exists => call.answer("EXISTS"),
        Stored::NotFound => call.answer("NOT_FOUND"),
        Stored::TooLarge => call.error(Refusal::TooLarge.text()),
    }
}

/// Counts what came of a CAS.
pub(super) fn count_cas(call: &Call<'_, '_>, stored: Stored) {
    let stats = &call.cx.worker.stats;
    match stored {
        Stored::Yes => stats.memcached_cas_hits.add(1),
        Stored::Exists => stats.memcached_cas_badval.add(1),
        _ => stats.memcached_cas_misses.add(1),
    }
}

#[cold]
fn refused(call: &mut Call<'_, '_>, refusal: Refusal, mode: Mode) {
    if refusal == Refusal::TooLarge {
        forget(call, call.word(1), mode);
    }
    call.error(refusal.text());
}

/// Deletes the old value of a key whose new one cannot be stored: it must not be read any more.
#[cold]
pub(super) fn forget(call: &mut Call<'_, '_>, key: &[u8], mode: Mode) {
    if mode == Mode::Set {
        let at = call.cx.shared.keyspace.locate(key, 0);
        call.hold(&at).keys.delete(key, Event::Del);
    }
}

pub(super) fn delete(call: &mut Call<'_, '_>) {
    if call.words > 2 {
        let is_zero = call.word(2) == b"0";
        call.read_noreply();
        let is_valid = match call.words {
            3 => is_zero || call.is_quiet,
            _ => is_zero && call.is_quiet,
        };
        if !is_valid {
            return call
                .error("CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]");
        }
    }
    let key = call.word(1);
    if key.len() > KEY_MAX {
        return call.error(Refusal::Line.text());
    }
    let mut own = None;
    let at = call.place(key, &mut own);
    let mut held = call.hold(at);
    let was_there = held.keys.item(key).is_some() && held.keys.delete(key, Event::Del);
    if !was_there {
        // What is being loaded may be old.
        held.keys.end_lease(key, None);
    }
    drop(held);
    count_delete(call, was_there);
    call.answer(if was_there { "DELETED" } else { "NOT_FOUND" });
}

/// Counts a delete.
pub(super) fn count_delete(call: &Call<'_, '_>, was_there: bool) {
    let stats = &call.cx.worker.stats;
    let (hits, misses) = (&stats.memcached_delete_hits, &stats.memcached_delete_misses);
    if was_there { hits.add(1) } else { misses.add(1) }
}

pub(super) fn incr(call: &mut Call<'_, '_>) {
    change_number(call, true);
}

pub(super) fn decr(call: &mut Call<'_, '_>) {
    change_number(call, false);
}

fn change_number(call: &mut Call<'_, '_>, adds: bool) {
    call.read_noreply();
    let key = call.word(1);
    if key.len() > KEY_MAX {
        return call.error(Refusal::Line.text());
    }
    let Some(delta) = parse_u64(call.word(2)) else {
        return call.error("CLIENT_ERROR invalid numeric delta argument");
    };
    if !call.has_room() {
        return call.error("SERVER_ERROR out of memory");
    }
    let mut own = None;
    let at = call.place(key, &mut own);
    let counted = count(&mut call.hold(at).keys, key, adds, delta, 0);
    count_numbers(call, adds, counted);
    match counted {
        Counted::Is(n) if !call.is_quiet => {
            reply::number(call.out(), n);
            reply::line(call.out(), b"");
        }
        Counted::Is(_) => {}
        Counted::NotNumber => call.error(NOT_NUMBER),
        Counted::NotFound | Counted::Exists => call.answer("NOT_FOUND"),
    }
}

pub(super) const NOT_NUMBER: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";

/// Counts an `incr`, `decr` or `ma`.
pub(super) fn count_numbers(call: &Call<'_, '_>, adds: bool, counted: Counted) {
    let stats = &call.cx.worker.stats;
    match (counted, adds) {
        (Counted::Is(_), true) => stats.memcached_incr_hits.add(1),
        (Counted::Is(_), false) => stats.memcached_decr_hits.add(1),
        (Counted::NotFound, true) => stats.memcached_incr_misses.add(1),
        (Counted::NotFound, false) => stats.memcached_decr_misses.add(1),
        (Counted::NotNumber | Counted::Exists, _) => {}
    }
}

pub(super) fn touch(call: &mut Call<'_, '_>) {
    call.read_noreply();
    let key = call.word(1);
    if key.len() > KEY_MAX {
        return call.error(Refusal::Line.text());
    }
    let Some(exptime) = parse_i64(call.word(2)) else { return call.error(EXPTIME) };
    let mut own = None;
    let at = call.place(key, &mut own);
    let mut held = call.hold(at);
    let is_there = held.keys.read_item(key).is_some();
    if is_there {
        set_time(&mut held.keys, key, exptime);
    }
    drop(held);
    let stats = &call.cx.worker.stats;
    let (hits, misses) = (&stats.memcached_touch_hits, &stats.memcached_touch_misses);
    if is_there {
        hits.add(1)
    } else {
        misses.add(1)
    }
    call.answer(if is_there { "TOUCHED" } else { "NOT_FOUND" });
}

pub(super) fn flush_all(call: &mut Call<'_, '_>) {
    call.read_noreply();
    let has_delay = call.words > 1 + usize::from(call.is_quiet);
    let Some(delay) = (if has_delay { parse_i64(call.word(1)) } else { Some(0) }) else {
        return call.error(EXPTIME);
    };
    let at = if delay > 0 { call.ttl_of(delay) } else { Ttl::Clear };
    let pending = &call.cx.shared.memcached_flush_ms;
    match at {
        Ttl::At(at) if at > call.cx.keys.now_ms => pending.store(at, Relaxed),
        _ => {
            pending.store(0, Relaxed);
            flush(call.cx.shared, &mut call.cx.keys);
        }
    }
    call.answer("OK");
}

pub(super) fn version(call: &mut Call<'_, '_>) {
    call.answer(&format!("VERSION {MEMCACHED_VERSION}"));
}

pub(super) fn verbosity(call: &mut Call<'_, '_>) {
    call.read_noreply();
    let Some(level) = parse_u32(call.word(1)) else {
        return call.error(Refusal::Line.text());
    };
    let word = match level {
        0 => "notice",
        1 => "verbose",
        _ => "debug",
    };
    let pair = [("loglevel".to_owned(), word.to_owned())];
    match crate::config::set_live(call.cx.shared, &pair) {
        Ok(()) => call.answer("OK"),
        Err((_, why)) => call.error(&format!("SERVER_ERROR {why}")),
    }
}

pub(super) fn shutdown(call: &mut Call<'_, '_>) {
    if !call.cx.shared.config.is_on("memcached-shutdown") {
        return call.error("ERROR: shutdown not enabled");
    }
    call.cx.session.is_closing = true;
    call.cx.shared.stop();
}

pub(super) fn quit(call: &mut Call<'_, '_>) {
    call.cx.session.is_closing = true;
}
