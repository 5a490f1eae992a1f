//! The server as a whole: its time, role and end.

use crate::cluster::face_of;
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Acl, Command, Flags, Group};
use hypercache_protocol::parse::Args;
use hypercache_stdx::{clock, number};
use std::fmt::Write;

const BASE: Command = Command { group: Group::Server, ..Command::DEFAULT };

const QUICK: Flags = Flags::LOADING.or(Flags::STALE).or(Flags::FAST);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "LASTSAVE",
        arity: 1,
        flags: QUICK,
        acl: Acl::ADMIN.or(Acl::DANGEROUS),
        run: last_save,
        summary: "When the last snapshot was taken; before the first, when the server started.",
        tips: &["nondeterministic_output"],
        examples: "> LASTSAVE\n(integer) …",
        ..BASE
    },
    Command {
        name: "LOLWUT",
        since: "5.0.0",
        arity: -1,
        flags: Flags::READONLY.or(Flags::FAST),
        run: lolwut,
        summary: "A drawing and the version.",
        complexity: "O(N) in the number of rows",
        syntax: "[VERSION version] [rows]",
        examples: "> LOLWUT\n\"…\\n\"",
        ..BASE
    },
    Command {
        name: "ROLE",
        since: "2.8.12",
        arity: 1,
        flags: QUICK.or(Flags::NO_SCRIPT),
        acl: Acl::ADMIN.or(Acl::DANGEROUS),
        run: role,
        summary: "The place of the server in replication: a primary, and who has copies of its keys.",
        complexity: "O(N) in the number of partitions",
        examples: "> ROLE\n1) \"master\"\n2) (integer) 0\n3) (empty array)",
        ..BASE
    },
    Command {
        name: "SHUTDOWN",
        arity: -1,
        flags: Flags::ADMIN
            .or(Flags::NO_SCRIPT)
            .or(Flags::LOADING)
            .or(Flags::STALE)
            .or(Flags::NO_MULTI)
            .or(Flags::ALLOW_BUSY),
        run: shutdown,
        summary: "Ends the server. There is no reply: the connection closes.",
        syntax: "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
        examples: "> SHUTDOWN ABORT\n(error) ERR No shutdown in progress.",
        ..BASE
    },
    Command {
        name: "TIME",
        since: "2.6.0",
        arity: 1,
        flags: QUICK,
        run: time,
        summary: "The server's time: seconds since the epoch, and microseconds.",
        tips: &["nondeterministic_output"],
        examples: "> TIME\n1) \"…\"\n2) \"…\"",
        ..BASE
    },
];

fn time(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let now_us = clock::now_us();
    cx.reply.array(2);
    cx.reply.bulk_int((now_us / 1_000_000) as i64);
    cx.reply.bulk_int((now_us % 1_000_000) as i64);
    Ok(())
}

fn last_save(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    cx.reply.int((cx.shared.started_ms / 1000) as i64);
    Ok(())
}

fn role(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let view = cx.shared.cluster.view();
    let face = face_of(cx, &view);
    let replicas = face.replicas_of(face.me().node);
    cx.reply.array(3);
    cx.reply.bulk(b"master");
    // Positions are kept per partition: there is no one number for a node.
    cx.reply.int(0);
    cx.reply.array(replicas.len());
    for address in replicas.into_iter().map(|node| face.address(node)) {
        cx.reply.array(3);
        cx.reply.bulk(address.host.as_bytes());
        cx.reply.bulk_int(i64::from(address.port));
        cx.reply.bulk_int(0);
    }
    Ok(())
}

/// Rows of the drawing when nothing is said, and at most.
const ROWS: (i64, i64) = (16, 64);

fn lolwut(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let has_version = args.len() >= 3 && args.get(1).eq_ignore_ascii_case(b"version");
    if has_version {
        number::parse_i64(args.get(2)).ok_or(ReplyError::NotAnInteger)?;
    }
    let rows_at = if has_version { 3 } else { 1 };
    let rows = match args.iter_from(rows_at).next() {
        None => ROWS.0,
        // As Redis: only with VERSION are further arguments looked at.
        Some(_) if !has_version => ROWS.0,
        Some(rows) => number::parse_i64(rows).ok_or(ReplyError::NotAnInteger)?,
    };
    let mut text = triangle(rows.clamp(1, ROWS.1) as usize);
    let _infallible = write!(text, "\nhypercache ver. {}\n", env!("CARGO_PKG_VERSION"));
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

/// The triangle of triangles: a cell is set where the bits of row and column do not meet.
fn triangle(rows: usize) -> String {
    let mut text = String::new();
    for row in (0..rows).rev() {
        text.push_str(&" ".repeat(row));
        let cells = (0..rows - row).map(|column| if row & column == 0 { "* " } else { "  " });
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

fn shutdown(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (mut nosave, mut save, mut now, mut force, mut abort) = Default::default();
    for arg in args.iter_from(1) {
        let option: &mut bool = match arg.to_ascii_uppercase().as_slice() {
            b"NOSAVE" => &mut nosave,
            b"SAVE" => &mut save,
            b"NOW" => &mut now,
            b"FORCE" => &mut force,
            b"ABORT" => &mut abort,
            _ => return Err(ReplyError::Syntax),
        };
        *option = true;
    }
    if (abort && (nosave || save || now || force)) || (nosave && save) {
        return Err(ReplyError::Syntax);
    }
    if abort {
        return Err(ReplyError::Text("ERR No shutdown in progress."));
    }
    if save && !force {
        let text =
            "ERR Errors trying to SHUTDOWN. There are no snapshots yet; use NOSAVE or FORCE.";
        return Err(ReplyError::Text(text));
    }
    cx.session.is_closing = true;
    cx.shared.stop();
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::shared::Mailbox;
    use crate::testing::Harness;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[test]
    fn shutdown_refuses_what_contradicts_itself() {
        let mut h = Harness::default();
        for line in ["SHUTDOWN x", "SHUTDOWN SAVE NOSAVE", "SHUTDOWN ABORT NOW", "SHUTDOWN NOW x"] {
            assert_eq!(h.run(line), b"-ERR syntax error\r\n", "{line}");
        }
        assert_eq!(h.run("SHUTDOWN abort"), b"-ERR No shutdown in progress.\r\n");
        assert!(h.run("SHUTDOWN SAVE").starts_with(b"-ERR Errors trying to SHUTDOWN."));
        assert!(!h.shared.is_stopping.load(Relaxed) && !h.session.is_closing);
    }

    #[test]
    fn shutdown_wakes_all_workers_and_answers_nothing() {
        let mut h = Harness::default();
        let woken = Arc::new(AtomicUsize::new(0));
        let mailbox = || {
            let woken = Arc::clone(&woken);
            Mailbox::new(Box::new(move || {
                woken.fetch_add(1, Relaxed);
            }))
        };
        // Of the worker and the standby.
        assert!(h.shared.mailboxes.set(vec![mailbox(), mailbox()]).is_ok());
        h.shared.has_standby.store(true, Relaxed);
        assert_eq!(h.run("shutdown nosave now"), b"");
        assert!(h.shared.is_stopping.load(Relaxed) && h.session.is_closing);
        assert_eq!(woken.load(Relaxed), 2);
    }

    #[test]
    fn the_drawing_has_the_rows_asked_for() {
        let mut h = Harness::default();
        let reply = String::from_utf8(h.run("LOLWUT VERSION 5 4")).expect("text");
        let drawing = "   *\n  * *\n *   *\n* * * *\n";
        assert!(reply.contains(&format!("\r\n{drawing}\nhypercache ver. ")), "{reply}");
        let wrong = b"-ERR value is not an integer or out of range\r\n";
        assert_eq!(h.run("LOLWUT VERSION x"), wrong);
        assert_eq!(h.run("LOLWUT VERSION 5 x"), wrong);
        assert!(h.run("LOLWUT x y").starts_with(b"$"));
    }
}
