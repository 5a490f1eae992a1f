//! Tags: names that keys are given by HC.SET and by which they are invalidated, however many they are.

use crate::context::Cx;
use crate::error::Outcome;
use crate::table::{Acl, Command, Flags, Group, Keys};
use hypercache_protocol::parse::Args;
use hypercache_store::tag_number;

const BASE: Command =
    Command { group: Group::Generic, acl: Acl::KEYSPACE, since: "0.1.0", ..Command::DEFAULT };

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "HC.TAG.INVALIDATE",
        tips: &["request_policy:all_shards", "response_policy:agg_sum"],
        arity: 2,
        keys: Keys::All,
        flags: Flags::WRITE,
        run: invalidate,
        summary: "Makes all keys of the selected database with a tag gone at once; answers how many had it, at most.",
        complexity: "O(1); freeing is O(N), in the background",
        syntax: "tag",
        examples: "> HC.SET a 1 TAGS user:7\nOK\n> HC.SET b 2 TAGS user:7 lists\nOK\n> HC.TAG.INVALIDATE user:7\n(integer) 2\n> GET b\n(nil)\n> HC.TAG.INVALIDATE user:7\n(integer) 0",
        ..BASE
    },
    Command {
        name: "HC.TAG.COUNT",
        tips: &["request_policy:all_shards", "response_policy:agg_sum"],
        arity: 2,
        keys: Keys::Each,
        flags: Flags::READONLY,
        run: count,
        summary: "How many keys of the selected database have a tag, at most: some of them may be gone.",
        syntax: "tag",
        examples: "> HC.SET a 1 TAGS user:7\nOK\n> HC.TAG.COUNT user:7\n(integer) 1\n> HC.TAG.COUNT lists\n(integer) 0",
        ..BASE
    },
];

fn invalidate(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let keys = cx.keys.invalidate_tag(tag_number(args.get(1)));
    cx.reply.int(keys as i64);
    Ok(())
}

fn count(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (number, tag, mut keys) = (cx.keys.db, tag_number(args.get(1)), 0);
    cx.keys.each_shard(|_, shard| {
        keys += shard.db(number).map_or(0, |db| db.keys_of_tag(tag));
        true
    });
    cx.reply.int(keys as i64);
    Ok(())
}
