//! Deleting entries of streams with an eye on the consumer groups that still refer to them: XDELEX and
//! XACKDEL, and what XADD and XTRIM do when they trim.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace::Editor;
use crate::stream::{BASE, parse_id};
use crate::table::{Command, Flags, KeyFlags, Keys};
use hypercache_journal::Event;
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;
use hypercache_store::types::{Stream, StreamId, StreamOp};

const DELETE: KeyFlags = KeyFlags::RW.or(KeyFlags::DELETE);
const CHANGE_FAST: Flags = Flags::WRITE.or(Flags::FAST);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "XDELEX",
        since: "8.2.0",
        arity: -5,
        keys: Keys::first(DELETE),
        flags: CHANGE_FAST,
        run: xdelex,
        summary: "Deletes entries, and what groups know of them, or only those that all groups dealt with.",
        complexity: "O(1) for each entry and group",
        syntax: "key [KEEPREF | DELREF | ACKED] IDS numids id [id ...]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XGROUP CREATE x g 0\nOK\n\
                   > XDELEX x ACKED IDS 1 1-1\n1) (integer) 2\n\
                   > XDELEX x DELREF IDS 1 1-1\n1) (integer) 1",
        ..BASE
    },
    Command {
        name: "XACKDEL",
        since: "8.2.0",
        arity: -6,
        keys: Keys::first(DELETE.or(KeyFlags::UPDATE)),
        flags: CHANGE_FAST,
        run: xackdel,
        summary: "Notes that entries were dealt with, and deletes them: all, or those that no group waits for.",
        complexity: "O(1) for each entry and group",
        syntax: "key group [KEEPREF | DELREF | ACKED] IDS numids id [id ...]",
        examples: "> XADD x 1-1 a 1\n\"1-1\"\n> XGROUP CREATE x g 0\nOK\n\
                   > XREADGROUP GROUP g me STREAMS x >\n1) 1) \"x\"\n   2) 1) 1) \"1-1\"\n…\n\
                   > XACKDEL x g ACKED IDS 2 1-1 2-1\n1) (integer) 1\n2) (integer) -1\n\
                   > XLEN x\n(integer) 0",
        ..BASE
    },
];

/// What happens to what consumer groups know of an entry that is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum References {
    /// They keep it as not acknowledged.
    #[default]
    Keep,
    /// They forget it.
    Delete,
    /// Only entries that all groups read and acknowledged are deleted.
    Acknowledged,
}

impl References {
    /// What a word asks for.
    pub(crate) fn parse(word: &[u8]) -> Option<References> {
        match word.to_ascii_uppercase().as_slice() {
            b"KEEPREF" => Some(References::Keep),
            b"DELREF" => Some(References::Delete),
            b"ACKED" => Some(References::Acknowledged),
            _ => None,
        }
    }
}

/// Whether every group has read an entry and no consumer has yet to acknowledge it.
pub(crate) fn is_done(stream: &Stream, id: StreamId) -> bool {
    stream.groups().all(|(_, group)| id <= group.last_id && !group.pending().contains_key(&id))
}

/// Has all groups forget an entry.
pub(crate) fn forget(stream: &mut Editor<'_, Stream>, id: StreamId) {
    let refers = |(name, group): (&[u8], &hypercache_store::types::stream::Group)| {
        group.pending().contains_key(&id).then(|| name.to_vec())
    };
    let groups: Vec<Vec<u8>> = stream.groups().filter_map(refers).collect();
    for group in &groups {
        stream.apply(StreamOp::Acknowledge(group, id));
    }
}

/// What became of an entry, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Missing = -1,
    Deleted = 1,
    Kept = 2,
}

/// Deletes an entry, unless a group is to see it yet: whether it is there or not, as Redis has it.
fn delete(stream: &mut Editor<'_, Stream>, id: StreamId, references: References) -> Fate {
    match references {
        References::Keep => {}
        References::Delete => forget(stream, id),
        References::Acknowledged if !is_done(stream, id) => return Fate::Kept,
        References::Acknowledged => {}
    }
    if stream.apply(StreamOp::Delete(id)) { Fate::Deleted } else { Fate::Missing }
}

/// What follows the key or the group.
struct Options<'a> {
    references: References,
    ids: Vec<&'a [u8]>,
}

impl Options<'_> {
    /// The ids. They are looked at only where there is something to delete, as Redis has it.
    fn ids(&self) -> Result<Vec<StreamId>, ReplyError> {
        self.ids.iter().map(|id| parse_id(id, 0)).collect()
    }
}

fn parse_options(args: Args<'_>, first: usize) -> Result<Options<'_>, ReplyError> {
    let (mut references, mut ids, mut i) = (None, None, first);
    while i < args.len() {
        if let Some(word) = References::parse(args.get(i)).filter(|_| references.is_none()) {
            references = Some(word);
            i += 1;
        } else if args.get(i).eq_ignore_ascii_case(b"IDS") && i + 1 < args.len() {
            let count = number::parse_i64(args.get(i + 1)).and_then(|n| usize::try_from(n).ok());
            let count = count
                .filter(|count| *count > 0)
                .ok_or(ReplyError::Text("ERR Number of IDs must be a positive integer"))?;
            if count > args.len() - (i + 2) {
                return Err(ReplyError::Text(
                    "ERR The `numids` parameter must match the number of arguments",
                ));
            }
            ids = Some(args.iter_from(i + 2).take(count).collect());
            i += 2 + count;
        } else {
            return Err(ReplyError::Syntax);
        }
    }
    let ids = ids.ok_or(ReplyError::Syntax)?;
    Ok(Options { references: references.unwrap_or_default(), ids })
}

fn reply_fates(cx: &mut Cx<'_>, fates: &[Fate]) {
    cx.reply.array(fates.len());
    fates.iter().for_each(|fate| cx.reply.int(*fate as i64));
}

/// Deletes entries by a function that tells what became of each.
fn delete_all(
    cx: &mut Cx<'_>,
    key: &[u8],
    ids: &[StreamId],
    mut delete: impl FnMut(&mut Editor<'_, Stream>, StreamId) -> Fate,
) -> Outcome {
    let fates = cx.keys.edit::<Stream, _>(key, |stream| {
        let fates: Vec<Fate> = ids.iter().map(|id| delete(stream, *id)).collect();
        if fates.contains(&Fate::Deleted) {
            stream.event(Event::XDel);
        }
        fates
    })?;
    reply_fates(cx, &fates);
    Ok(())
}

fn xdelex(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let key = args.get(1);
    let is_there = cx.keys.read_uncounted::<Stream>(key)?.is_some();
    let options = parse_options(args, 2)?;
    if !is_there {
        reply_fates(cx, &vec![Fate::Missing; options.ids.len()]);
        return Ok(());
    }
    delete_all(cx, key, &options.ids()?, |stream, id| delete(stream, id, options.references))
}

fn xackdel(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (key, group) = (args.get(1), args.get(2));
    let stream = cx.keys.read_uncounted::<Stream>(key)?;
    let is_there = stream.is_some_and(|stream| stream.group(group).is_some());
    let options = parse_options(args, 3)?;
    if !is_there {
        reply_fates(cx, &vec![Fate::Missing; options.ids.len()]);
        return Ok(());
    }
    delete_all(cx, key, &options.ids()?, |stream, id| {
        if !stream.apply(StreamOp::Acknowledge(group, id)) {
            return Fate::Missing;
        }
        // It was dealt with, whether or not somebody else deleted it before.
        match delete(stream, id, options.references) {
            Fate::Kept => Fate::Kept,
            Fate::Deleted | Fate::Missing => Fate::Deleted,
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    /// Runs lines whose replies are written with blanks for line ends.
    fn check(h: &mut Harness, steps: &[(&str, &str)]) {
        for (line, expected) in steps {
            let reply = String::from_utf8(h.run(line)).expect("text");
            assert_eq!(reply.trim_end().replace("\r\n", " "), *expected, "{line}");
        }
    }

    /// A stream of four entries and two groups: g read three, of which it acknowledged the first; h two,
    /// all acknowledged.
    fn shared_stream() -> Harness {
        let mut h = Harness::default();
        for line in [
            "XADD x 1-0 a 1",
            "XADD x 2-0 a 1",
            "XADD x 3-0 a 1",
            "XADD x 4-0 a 1",
            "XGROUP CREATE x g 0",
            "XGROUP CREATE x h 0",
            "XREADGROUP GROUP g c COUNT 3 STREAMS x >",
            "XREADGROUP GROUP h c COUNT 2 STREAMS x >",
            "XACK x g 1-0",
            "XACK x h 1-0 2-0",
        ] {
            h.run(line);
        }
        h
    }

    #[test]
    fn only_what_all_groups_dealt_with_is_deleted() {
        check(
            &mut shared_stream(),
            &[
                ("XDELEX x ACKED IDS 6 1-0 1-0 2-0 3-0 4-0 9-0", "*6 :1 :-1 :2 :2 :2 :2"),
                ("XACKDEL x g ACKED IDS 3 1-0 2-0 3-0", "*3 :-1 :1 :2"),
                ("XLEN x", ":2"),
                ("XPENDING x g", "*4 :0 $-1 $-1 *-1"),
            ],
        );
    }

    #[test]
    fn groups_forget_what_is_deleted_if_told_to() {
        check(
            &mut shared_stream(),
            &[
                ("XDELEX x IDS 1 2-0", "*1 :1"),
                ("XPENDING x g", "*4 :2 $3 2-0 $3 3-0 *1 *2 $1 c $1 2"),
                ("XDELEX x IDS 2 2-0 3-0 delref", "*2 :-1 :1"),
                ("XPENDING x g", "*4 :0 $-1 $-1 *-1"),
                ("XACKDEL none g IDS 1 1-0", "*1 :-1"),
                ("XACKDEL x none IDS 1 1-0", "*1 :-1"),
                ("XDELEX none KEEPREF IDS 2 1-0 x", "*2 :-1 :-1"),
            ],
        );
    }

    #[test]
    fn trimming_may_spare_what_groups_wait_for() {
        check(
            &mut shared_stream(),
            &[
                ("XTRIM x MAXLEN 1 ACKED", ":1"),
                ("XLEN x", ":3"),
                ("XACK x g 2-0", ":1"),
                ("XADD x ACKED MAXLEN = 1 5-0 a 1", "$3 5-0"),
                ("XLEN x", ":3"),
                ("XTRIM x DELREF MAXLEN 1", ":2"),
                ("XPENDING x g", "*4 :0 $-1 $-1 *-1"),
            ],
        );
        let mut h = shared_stream();
        // Trimming is no deletion that XINFO tells of.
        h.run("XTRIM x MAXLEN 0 ACKED");
        let info = String::from_utf8(h.run("XINFO STREAM x")).expect("text");
        assert!(info.contains("max-deleted-entry-id\r\n$3\r\n0-0\r\n"), "{info}");
        check(
            &mut h,
            &[
                ("XTRIM x MINID 3 DELREF", ":1"),
                ("XPENDING x g", "*4 :1 $3 3-0 $3 3-0 *1 *2 $1 c $1 1"),
            ],
        );
    }

    #[test]
    fn trimming_does_not_look_past_many_that_groups_wait_for() {
        let mut h = Harness::default();
        (1..=10_002).for_each(|n| drop(h.run(&format!("XADD x {n}-0 a 1"))));
        h.run("XGROUP CREATE x g 0");
        h.run("XREADGROUP GROUP g c STREAMS x >");
        check(
            &mut h,
            &[
                ("XACK x g 10002-0", ":1"),
                ("XTRIM x MAXLEN 0 ACKED", ":0"),
                ("XACK x g 1-0", ":1"),
                ("XTRIM x MAXLEN 0 ACKED", ":2"),
                ("XLEN x", ":10000"),
            ],
        );
    }

    #[test]
    fn counts_are_checked() {
        check(
            &mut shared_stream(),
            &[
                ("XDELEX x IDS 0 1-0", "-ERR Number of IDs must be a positive integer"),
                ("XDELEX x IDS a 1-0", "-ERR Number of IDs must be a positive integer"),
                (
                    "XDELEX x IDS 2 1-0",
                    "-ERR The `numids` parameter must match the number of arguments",
                ),
                ("XDELEX x IDS 1 1-0 2-0", "-ERR syntax error"),
                ("XDELEX x ACKED DELREF 1 1-0", "-ERR syntax error"),
                ("XDELEX x IDS 1 x", "-ERR Invalid stream ID specified as stream command argument"),
                ("XTRIM x MAXLEN 1 ACKED DELREF", "-ERR syntax error"),
            ],
        );
    }
}
