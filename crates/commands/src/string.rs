//! Strings.

use crate::context::Cx;
use crate::error::Outcome;
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_store::{Payload, Ttl};

const BASE: Command = Command { group: Group::String, acl: Acl::STRING, ..Command::DEFAULT };

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "GET",
        arity: 2,
        keys: Keys::first(KeyFlags::RO.or(KeyFlags::ACCESS)),
        flags: Flags::READONLY.or(Flags::FAST),
        run: get,
        summary: "The value of a key.",
        syntax: "key",
        examples: "> GET a\n(nil)\n> SET a 1\nOK\n> GET a\n\"1\"",
        ..BASE
    },
    Command {
        name: "SET",
        arity: -3,
        keys: Keys::first(KeyFlags::OW.or(KeyFlags::UPDATE)),
        flags: Flags::WRITE.or(Flags::DENY_OOM),
        run: set,
        summary: "Sets a key to a value.",
        syntax: "key value",
        examples: "> SET a 1\nOK",
        ..BASE
    },
];

fn get(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    match cx.keys.get(args.get(1)) {
        None => cx.reply.null(),
        Some(entry) => match entry.blob() {
            None => cx.reply.bulk(entry.value()),
            Some(blob) => cx.reply.shared(blob),
        },
    }
    Ok(())
}

/// The payload of an argument: adopted when it arrived in a buffer of its own, else copied.
pub(crate) fn payload_of<'a>(args: Args<'a>, i: usize) -> Payload<'a> {
    match args.shared(i) {
        Some(shared) => Payload::Blob(std::sync::Arc::clone(shared)),
        None => Payload::Slice(args.get(i)),
    }
}

fn set(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    cx.keys.set(args.get(1), payload_of(args, 2), Ttl::Clear, Event::Set);
    cx.reply.ok();
    Ok(())
}
