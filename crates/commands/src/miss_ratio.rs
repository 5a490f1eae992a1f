//! HC.MRC: what more or less memory would do.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Acl, Command, Flags, Group, Keys};
use hypercache_protocol::parse::Args;
use hypercache_store::evict::Mode;

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "HC.MRC",
    group: Group::Server,
    acl: Acl::KEYSPACE,
    since: "0.1.0",
    arity: 1,
    keys: Keys::Each,
    flags: Flags::READONLY,
    run: miss_ratio,
    summary: "Hit ratios that the selected database would have with 0.25 to 8 times its memory.",
    complexity: "O(1)",
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    syntax: "",
    examples: "> HC.MRC\n(error) ERR the miss-ratio curve is kept under maxmemory-policy adaptive\n\
               > CONFIG SET maxmemory-policy adaptive\nOK\n> HC.MRC\n(empty array)",
    ..Command::DEFAULT
}];

/// Multiples of the present memory that are told.
const MULTIPLES: [f64; 6] = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0];

/// A row per multiple: the multiple, its bytes and its hit ratio. Memory is taken to hold as many keys per
/// byte as it does now. Of the uses of keys that there were: reads that found one, and writes.
fn miss_ratio(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let uses = &cx.shared.keyspace.uses;
    if uses.mode() != Mode::Learned {
        let text = "ERR the miss-ratio curve is kept under maxmemory-policy adaptive";
        return Err(ReplyError::Text(text));
    }
    let number = cx.keys.db;
    let (keys, bytes) = cx.keys.size();
    let sizes = MULTIPLES.map(|multiple| multiple * keys as f64);
    let Some((_, ratios)) = uses.hit_ratios(number, &sizes) else {
        cx.reply.array(0);
        return Ok(());
    };
    cx.reply.array(MULTIPLES.len());
    for (multiple, ratio) in MULTIPLES.iter().zip(ratios) {
        cx.reply.array(3);
        cx.reply.bulk(format!("{multiple}").as_bytes());
        cx.reply.int((multiple * bytes as f64) as i64);
        cx.reply.bulk(format!("{ratio:.4}").as_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Harness;

    #[test]
    fn a_loop_needs_memory_for_all_of_it() {
        let mut h = Harness::default();
        h.run("CONFIG SET maxmemory-policy adaptive");
        for _ in 0..20 {
            (0..500).for_each(|n| drop(h.run(&format!("SET {{a}}{n} v"))));
        }
        let reply = String::from_utf8(h.run("HC.MRC")).unwrap();
        let ratios: Vec<f64> = reply
            .split("\r\n")
            .filter(|line| line.starts_with("0.") && line.len() == 6)
            .map(|line| line.parse().unwrap())
            .collect();
        assert_eq!(ratios.len(), 6, "{reply}");
        assert!(ratios[0] < 0.01 && ratios[1] < 0.01, "{ratios:?}");
        assert!(ratios[3] > 0.94 && ratios[5] > 0.94, "{ratios:?}");
    }
}
