//! LCS: the longest common subsequence of two values, by the usual table of prefix lengths.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Acl, Command, Flags, Group, KeyFlags, Keys};
use hypercache_protocol::parse::Args;
use hypercache_stdx::number;
use std::sync::atomic::Ordering::Relaxed;

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "LCS",
    group: Group::String,
    acl: Acl::STRING,
    since: "7.0.0",
    arity: -3,
    keys: Keys::Range { first: 1, last: 2, step: 1, flags: KeyFlags::RO.or(KeyFlags::ACCESS) },
    flags: Flags::READONLY,
    run: lcs,
    summary: "The longest common subsequence of two values, its length, or where it is.",
    complexity: "O(N*M) in the lengths of the values, also in memory",
    syntax: "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
    examples: "> MSET a ohmytext b mynewtext\nOK\n> LCS a b\n\"mytext\"\n> LCS a b LEN\n(integer) 6",
    ..Command::DEFAULT
}];

#[derive(Debug, Default)]
struct Options {
    len: bool,
    idx: bool,
    with_match_len: bool,
    min_match_len: i64,
}

fn parse_options(args: Args<'_>) -> Result<Options, ReplyError> {
    let mut o = Options::default();
    let mut i = 3;
    while i < args.len() {
        match args.get(i).to_ascii_uppercase().as_slice() {
            b"IDX" => o.idx = true,
            b"LEN" => o.len = true,
            b"WITHMATCHLEN" => o.with_match_len = true,
            b"MINMATCHLEN" if i + 1 < args.len() => {
                i += 1;
                let n = number::parse_i64(args.get(i)).ok_or(ReplyError::NotAnInteger)?;
                o.min_match_len = n.max(0);
            }
            _ => return Err(ReplyError::Syntax),
        }
        i += 1;
    }
    if o.idx && o.len {
        return Err(ReplyError::Text(
            "ERR If you want both the length and indexes, please just use IDX.",
        ));
    }
    Ok(o)
}

/// A run of equal bytes: where it ends in each value (exclusive), and its length.
struct Match {
    end_a: usize,
    end_b: usize,
    len: usize,
}

/// Lengths of the longest common subsequences of all pairs of prefixes.
struct Lengths {
    cells: Vec<u32>,
    width: usize,
}

impl Lengths {
    fn new(a: &[u8], b: &[u8]) -> Self {
        let width = b.len() + 1;
        let mut cells = vec![0; (a.len() + 1) * width];
        for (i, x) in a.iter().enumerate() {
            let (above, below) = cells[i * width..].split_at_mut(width);
            for (j, y) in b.iter().enumerate() {
                below[j + 1] = if x == y { above[j] + 1 } else { above[j + 1].max(below[j]) };
            }
        }
        Lengths { cells, width }
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.width + j]
    }

    /// The runs from the end to the start. A run ends where either value has a byte between.
    fn matches(&self, a: &[u8], b: &[u8]) -> Vec<Match> {
        let mut found: Vec<Match> = Vec::new();
        let (mut i, mut j) = (a.len(), b.len());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                match found.last_mut() {
                    Some(m) if m.end_a - m.len == i && m.end_b - m.len == j => m.len += 1,
                    _ => found.push(Match { end_a: i, end_b: j, len: 1 }),
                }
                (i, j) = (i - 1, j - 1);
            } else if self.at(i - 1, j) > self.at(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        found
    }
}

fn lcs(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    // Both values are copied: two borrows of the keyspace at once there are not.
    let mut value = |i: usize| match cx.keys.string(args.get(i)) {
        Ok(entry) => Ok(entry.map_or_else(Vec::new, |entry| entry.value().to_vec())),
        Err(_) => Err(ReplyError::Text("ERR The specified keys must contain string values")),
    };
    let (a, b) = (value(1)?, value(2)?);
    let options = parse_options(args)?;
    let cells = (a.len() as u64 + 1).saturating_mul(b.len() as u64 + 1);
    if cells.saturating_mul(4) > cx.shared.config.hot.bulk_bytes_max.load(Relaxed) {
        return Err(ReplyError::Text(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }
    let lengths = Lengths::new(&a, &b);
    let total = i64::from(lengths.at(a.len(), b.len()));
    if options.len {
        cx.reply.int(total);
        return Ok(());
    }
    let matches = lengths.matches(&a, &b);
    if options.idx {
        reply_matches(cx, &options, &matches, total);
    } else {
        let runs = matches.iter().rev().map(|m| &a[m.end_a - m.len..m.end_a]);
        cx.reply.bulk(&runs.collect::<Vec<_>>().concat());
    }
    Ok(())
}

fn reply_matches(cx: &mut Cx<'_>, options: &Options, matches: &[Match], total: i64) {
    let is_shown = |m: &&Match| m.len as i64 >= options.min_match_len;
    let reply = &mut cx.reply;
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(matches.iter().filter(is_shown).count());
    for m in matches.iter().filter(is_shown) {
        reply.array(if options.with_match_len { 3 } else { 2 });
        for end in [m.end_a, m.end_b] {
            reply.array(2);
            reply.int((end - m.len) as i64);
            reply.int(end as i64 - 1);
        }
        if options.with_match_len {
            reply.int(m.len as i64);
        }
    }
    reply.bulk(b"len");
    reply.int(total);
}
