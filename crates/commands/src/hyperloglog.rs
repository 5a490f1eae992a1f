//! HyperLogLog: how many different elements a key was given, to about 0.8 %, in 12 KiB at most.
//! The value is a string with Redis' layout, which `hyperloglog/sketch.rs` reads and writes.

mod sketch;

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_store::{Payload, Ttl};
use sketch::{Corrupted, REGISTERS, Sketch};
use std::sync::atomic::Ordering::Relaxed;

const BASE: Command = Command {
    group: Group::HyperLogLog,
    since: "2.8.9",
    acl: Acl::HYPERLOGLOG,
    ..Command::DEFAULT
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "PFADD",
        arity: -2,
        keys: Keys::first(KeyFlags::RW.or(KeyFlags::INSERT)),
        flags: Flags::WRITE.or(Flags::DENY_OOM).or(Flags::FAST),
        run: pfadd,
        summary: "Counts elements; answers whether the estimate may have changed.",
        complexity: "O(1) for each element",
        syntax: "key [element [element ...]]",
        examples: "> PFADD p a b\n(integer) 1\n> PFADD p a\n(integer) 0\n> PFCOUNT p\n(integer) 2",
        ..BASE
    },
    Command {
        name: "PFCOUNT",
        arity: -2,
        keys: Keys::Range { first: 1, last: -1, step: 1, flags: KeyFlags::RW.or(KeyFlags::ACCESS) },
        flags: Flags::READONLY.or(Flags::MAY_REPLICATE),
        run: pfcount,
        summary: "Estimates how many different elements the keys were given together.",
        complexity: "O(1) for one key, which keeps its estimate; O(N) for several",
        syntax: "key [key ...]",
        examples: "> PFADD p a b\n(integer) 1\n> PFADD q b c\n(integer) 1\n> PFCOUNT p q\n(integer) 3",
        ..BASE
    },
    Command {
        name: "PFMERGE",
        arity: -2,
        keys: Keys::Two(
            &Keys::first(KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::INSERT)),
            &Keys::Range { first: 2, last: -1, step: 1, flags: KeyFlags::RO.or(KeyFlags::ACCESS) },
        ),
        flags: Flags::WRITE.or(Flags::DENY_OOM),
        run: pfmerge,
        summary: "Has a key count what others counted, too.",
        complexity: "O(N) in the number of keys",
        syntax: "destkey [sourcekey [sourcekey ...]]",
        examples: "> PFADD p a b\n(integer) 1\n> PFMERGE q p\nOK\n> PFCOUNT q\n(integer) 2",
        ..BASE
    },
    Command {
        name: "PFDEBUG",
        arity: 3,
        keys: Keys::Range { first: 2, last: 2, step: 1, flags: KeyFlags::RW.or(KeyFlags::ACCESS) },
        flags: Flags::WRITE.or(Flags::DENY_OOM).or(Flags::ADMIN),
        run: pfdebug,
        summary: "Shows or converts the inside of a key, for tests: GETREG, DECODE, ENCODING, TODENSE.",
        complexity: "O(1)",
        syntax: "subcommand key",
        examples: "> PFADD p a\n(integer) 1\n> PFDEBUG ENCODING p\nsparse",
        ..BASE
    },
    Command {
        name: "PFSELFTEST",
        arity: 1,
        flags: Flags::ADMIN,
        run: pfselftest,
        summary: "Counts a hundred thousand elements in both representations and compares.",
        complexity: "O(1)",
        examples: "> PFSELFTEST\nOK",
        ..BASE
    },
];

const NOT_VALID: ReplyError =
    ReplyError::Text("WRONGTYPE Key is not a valid HyperLogLog string value.");

impl From<Corrupted> for ReplyError {
    fn from(_: Corrupted) -> Self {
        ReplyError::Text("INVALIDOBJ Corrupted HLL object detected")
    }
}

/// The sketch that a key holds.
fn lookup(cx: &mut Cx<'_>, key: &[u8]) -> Result<Option<Sketch>, ReplyError> {
    match cx.keys.string(key)? {
        None => Ok(None),
        Some(entry) => Sketch::read(entry.value()).map(Some).ok_or(NOT_VALID),
    }
}

/// Stores a sketch. What is as long as before is told as the bytes that differ.
fn store(cx: &mut Cx<'_>, key: &[u8], sketch: &Sketch, event: Event) {
    let new = sketch.bytes();
    let old = cx.keys.peek(key).map(|entry| entry.value());
    let same = old.filter(|old| old.len() == new.len());
    if let Some(old) = same {
        let differs = |(a, b): (&u8, &u8)| a != b;
        let first = old.iter().zip(new).position(differs).unwrap_or(0);
        let after = old.iter().zip(new).rposition(differs).map_or(first, |last| last + 1);
        return cx.keys.splice(key, new.len(), first, &new[first..after], event);
    }
    // Redis keeps these as `raw`, which `put_string` notes.
    let ttl = if old.is_some() { Ttl::Keep } else { Ttl::Clear };
    cx.keys.put_string(key, Payload::Slice(new), ttl, true, event);
}

fn sparse_bytes_max(cx: &Cx<'_>) -> usize {
    cx.shared.config.hot.hll_sparse_bytes_max.load(Relaxed) as usize
}

fn pfadd(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let key = args.get(1);
    let found = lookup(cx, key)?;
    let mut is_changed = found.is_none();
    let mut sketch = found.unwrap_or_default();
    let max = sparse_bytes_max(cx);
    for element in args.iter_from(2) {
        is_changed |= sketch.add(element, max)?;
    }
    if is_changed {
        sketch.forget_estimate();
        store(cx, key, &sketch, Event::PfAdd);
    }
    cx.reply.int(i64::from(is_changed));
    Ok(())
}

fn pfcount(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if args.len() > 2 {
        let mut registers = [0; REGISTERS];
        for key in args.iter_from(1) {
            if let Some(sketch) = lookup(cx, key)? {
                sketch.merge_into(&mut registers)?;
            }
        }
        cx.reply.int(sketch::estimate(&registers) as i64);
        return Ok(());
    }
    let Some(mut sketch) = lookup(cx, args.get(1))? else {
        cx.reply.int(0);
        return Ok(());
    };
    let estimate = match sketch.known_estimate() {
        Some(estimate) => estimate,
        None => {
            let estimate = sketch.keep_estimate()?;
            store(cx, args.get(1), &sketch, Event::Silent);
            estimate
        }
    };
    cx.reply.int(estimate as i64);
    Ok(())
}

fn pfmerge(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (mut registers, mut is_dense, mut target) = ([0; REGISTERS], false, None);
    for (i, key) in args.iter_from(1).enumerate() {
        let Some(sketch) = lookup(cx, key)? else { continue };
        is_dense |= sketch.is_dense();
        sketch.merge_into(&mut registers)?;
        if i == 0 {
            target = Some(sketch);
        }
    }
    let mut target = target.unwrap_or_default();
    if is_dense {
        target.make_dense()?;
    }
    let max = sparse_bytes_max(cx);
    for (i, count) in registers.iter().enumerate().filter(|(_, count)| **count > 0) {
        target.raise(i, *count, max)?;
    }
    target.forget_estimate();
    store(cx, args.get(1), &target, Event::PfAdd);
    cx.reply.ok();
    Ok(())
}

fn pfdebug(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let key = args.get(2);
    let missing = ReplyError::Text("ERR The specified key does not exist");
    let mut sketch = lookup(cx, key)?.ok_or(missing)?;
    match args.get(1).to_ascii_uppercase().as_slice() {
        b"GETREG" => {
            if sketch.make_dense()? {
                store(cx, key, &sketch, Event::Silent);
            }
            let mut registers = [0; REGISTERS];
            sketch.merge_into(&mut registers)?;
            cx.reply.array(REGISTERS);
            registers.iter().for_each(|count| cx.reply.int(i64::from(*count)));
        }
        b"DECODE" => {
            let text = sketch.decode_sparse();
            let text = text.ok_or(ReplyError::Text("ERR HLL encoding is not sparse"))?;
            cx.reply.bulk(text.as_bytes());
        }
        b"ENCODING" => cx.reply.simple(if sketch.is_dense() { "dense" } else { "sparse" }),
        b"TODENSE" => {
            let converts = sketch.make_dense()?;
            if converts {
                store(cx, key, &sketch, Event::Silent);
            }
            cx.reply.int(i64::from(converts));
        }
        _ => {
            let mut text = b"ERR Unknown PFDEBUG subcommand '".to_vec();
            let shown = args.get(1).split(|byte| *byte == 0).next();
            text.extend_from_slice(shown.unwrap_or_default());
            text.push(b'\'');
            cx.reply.error(&text);
            return Err(ReplyError::Written);
        }
    }
    Ok(())
}

fn pfselftest(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let (mut sparse, mut dense) = (Sketch::default(), Sketch::default());
    dense.make_dense()?;
    let max = sparse_bytes_max(cx);
    for n in 1..=100_000u64 {
        let element = n.to_le_bytes();
        sparse.add(&element, max)?;
        dense.add(&element, max)?;
        if n.is_power_of_two() || n == 100_000 {
            let estimates = (sparse.keep_estimate()?, dense.keep_estimate()?);
            let off = estimates.0.abs_diff(n);
            if estimates.0 != estimates.1 || off as f64 > 5.0 + n as f64 * 0.05 {
                return Err(ReplyError::Text("ERR TESTFAILED estimates are off"));
            }
        }
    }
    cx.reply.ok();
    Ok(())
}
