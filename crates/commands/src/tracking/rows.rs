//! CLIENT TRACKING, CACHING, TRACKINGINFO and GETREDIR: rows of the CLIENT command.

use super::{disable, enable};
use crate::client::{Client, ClientFlags};
use crate::clients::{fail, is, on_off};
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Acl, Command, Flags, Group, Keys};
use hypercache_protocol::parse::Args;
use hypercache_stdx::number::parse_i64;
use std::collections::BTreeSet;
use std::sync::Arc;

const BASE: Command = Command {
    group: Group::Connection,
    acl: Acl::CONNECTION,
    flags: Flags::NO_SCRIPT.or(Flags::LOADING).or(Flags::STALE),
    ..Command::DEFAULT
};

pub(crate) const CACHING: Command = Command {
    name: "CACHING",
    since: "6.0.0",
    arity: 3,
    run: caching,
    summary: "Whether the keys that the next command reads are tracked.",
    syntax: "<YES | NO>",
    examples: "> CLIENT TRACKING ON OPTIN\nOK\n> CLIENT CACHING YES\nOK\n> CLIENT CACHING NO\n\
               (error) ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
    ..BASE
};

pub(crate) const GETREDIR: Command = Command {
    name: "GETREDIR",
    since: "6.0.0",
    arity: 2,
    run: getredir,
    summary: "The connection that is told of stale keys in this one's stead; 0 none, -1 no tracking.",
    examples: "> CLIENT GETREDIR\n(integer) -1\n> CLIENT TRACKING ON\nOK\n> CLIENT GETREDIR\n\
               (integer) 0",
    ..BASE
};

pub(crate) const TRACKING: Command = Command {
    name: "TRACKING",
    since: "6.0.0",
    arity: -3,
    keys: Keys::Each,
    run: tracking,
    summary: "Whether this connection is told when keys that it read, or with a prefix, change.",
    complexity: "O(1), some options O(N) in the number of prefixes",
    syntax: "<ON | OFF> [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] \
             [OPTOUT] [NOLOOP]",
    examples: "> CLIENT TRACKING ON PREFIX a\n(error) ERR PREFIX option requires BCAST mode to be \
               enabled\n> CLIENT TRACKING ON BCAST PREFIX a PREFIX b\nOK\n> CLIENT TRACKING OFF\nOK",
    ..BASE
};

pub(crate) const TRACKINGINFO: Command = Command {
    name: "TRACKINGINFO",
    since: "6.2.0",
    arity: 2,
    run: trackinginfo,
    summary: "How this connection tracks keys.",
    examples: "> CLIENT TRACKINGINFO\n1) \"flags\"\n2) 1) \"off\"\n3) \"redirect\"\n4) (integer) -1\n\
               5) \"prefixes\"\n6) (empty array)",
    ..BASE
};

/// What CLIENT TRACKING says beside ON or OFF.
#[derive(Default)]
struct Options<'a> {
    redirect: Option<Arc<Client>>,
    /// Flags of the client.
    flags: u32,
    prefixes: Vec<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(cx: &Cx<'_>, args: Args<'a>) -> Result<Self, ReplyError> {
        let mut options = Options::default();
        let mut i = 3;
        while i < args.len() {
            let (word, has_more) = (args.get(i), i + 1 < args.len());
            match word {
                _ if is(word, "REDIRECT") && has_more => {
                    i += 1;
                    options.parse_redirect(cx, args.get(i))?;
                }
                _ if is(word, "BCAST") => options.flags |= ClientFlags::BROADCAST,
                _ if is(word, "OPTIN") => options.flags |= ClientFlags::OPT_IN,
                _ if is(word, "OPTOUT") => options.flags |= ClientFlags::OPT_OUT,
                _ if is(word, "NOLOOP") => options.flags |= ClientFlags::NO_LOOP,
                _ if is(word, "PREFIX") && has_more => {
                    i += 1;
                    options.prefixes.push(args.get(i));
                }
                _ => return Err(ReplyError::Syntax),
            }
            i += 1;
        }
        Ok(options)
    }

    fn parse_redirect(&mut self, cx: &Cx<'_>, id: &[u8]) -> Outcome {
        if self.redirect.is_some() {
            let text = "ERR A client can only redirect to a single other client";
            return Err(ReplyError::Text(text));
        }
        let id = parse_i64(id).ok_or(ReplyError::NotAnInteger)?;
        let text = "ERR The client ID you want redirect to does not exist";
        self.redirect = Some(cx.shared.clients.get(id as u64).ok_or(ReplyError::Text(text))?);
        Ok(())
    }

    /// Checks whether the options go together, and with what the client does already.
    fn check(&self, client: &Client, is_tracking: bool) -> Outcome {
        const OPT_IN: u32 = ClientFlags::OPT_IN;
        const OPT_OUT: u32 = ClientFlags::OPT_OUT;
        let (new, had) = (|flag| self.flags & flag != 0, |flag| client.has(flag));
        let is_broadcast = new(ClientFlags::BROADCAST);
        let text = if !is_broadcast && !self.prefixes.is_empty() {
            "ERR PREFIX option requires BCAST mode to be enabled"
        } else if is_tracking && is_broadcast != had(ClientFlags::BROADCAST) {
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and \
             then re-enabling it with a different mode."
        } else if is_broadcast && new(OPT_IN | OPT_OUT) {
            "ERR OPTIN and OPTOUT are not compatible with BCAST"
        } else if new(OPT_IN) && new(OPT_OUT) {
            "ERR You can't specify both OPTIN mode and OPTOUT mode"
        } else if new(OPT_IN) && had(OPT_OUT) || new(OPT_OUT) && had(OPT_IN) {
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and \
             then re-enabling it with a different mode."
        } else {
            return Ok(());
        };
        Err(ReplyError::Text(text))
    }
}

fn tracking(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let options = Options::parse(cx, args)?;
    if on_off(args.get(2))? {
        options.check(&cx.session.client, cx.session.is_tracking())?;
        if options.flags & ClientFlags::BROADCAST != 0 {
            check_prefixes(cx, &options.prefixes)?;
        }
        let Options { redirect, flags, prefixes } = options;
        enable(cx.shared, cx.session, redirect.as_ref(), flags, &prefixes);
        if flags & ClientFlags::BROADCAST != 0 {
            // Also if others want some: their word may be on its way to the partitions yet.
            let tracked = &cx.shared.keyspace.tracked;
            cx.keys.each_shard(|_, shard| {
                shard.history.set_broadcast(true, tracked);
                true
            });
        }
    } else {
        disable(cx.shared, cx.session);
    }
    cx.reply.ok();
    Ok(())
}

/// No prefix of a client may begin with another, or the client would be told twice of a key.
fn check_prefixes(cx: &mut Cx<'_>, prefixes: &[&[u8]]) -> Outcome {
    let overlaps = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let had: BTreeSet<Box<[u8]>> =
        cx.session.cold().and_then(|cold| cold.tracking.clone()).unwrap_or_default();
    for (i, prefix) in prefixes.iter().enumerate() {
        let existing = had.iter().find(|other| overlaps(other, prefix));
        let (other, which) = match existing {
            Some(other) => (&**other, &b"an existing prefix"[..]),
            None => match prefixes[i + 1..].iter().find(|other| overlaps(other, prefix)) {
                Some(other) => (*other, &b"another provided prefix"[..]),
                None => continue,
            },
        };
        let end = b"'. Prefixes for a single client must not overlap.";
        return Err(fail(
            cx,
            &[b"ERR Prefix '", prefix, b"' overlaps with ", which, b" '", other, end],
        ));
    }
    Ok(())
}

fn caching(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let client = &cx.session.client;
    if !cx.session.is_tracking() {
        return Err(ReplyError::Text(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN \
             or OPTOUT mode enabled",
        ));
    }
    let (mode, error) = match args.get(2) {
        word if is(word, "YES") => (
            ClientFlags::OPT_IN,
            "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
        ),
        word if is(word, "NO") => (
            ClientFlags::OPT_OUT,
            "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
        ),
        _ => return Err(ReplyError::Syntax),
    };
    if !client.has(mode) {
        return Err(ReplyError::Text(error));
    }
    client.set_flag(ClientFlags::CACHING, true);
    cx.reply.ok();
    Ok(())
}

/// Number of the client that is told in the stead of one: 0 none, -1 it does not track.
pub(crate) fn redirect_id(client: &Client) -> i64 {
    if !client.has(ClientFlags::TRACKING) {
        return -1;
    }
    client.redirect().map_or(0, |(id, _)| id as i64)
}

fn getredir(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    cx.reply.int(redirect_id(&cx.session.client));
    Ok(())
}

fn trackinginfo(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let client = &cx.session.client;
    let has = |flag| client.has(flag);
    let (is_tracking, is_caching) = (cx.session.is_tracking(), has(ClientFlags::CACHING));
    let words = [
        (if is_tracking { "on" } else { "off" }, true),
        ("bcast", has(ClientFlags::BROADCAST)),
        ("optin", has(ClientFlags::OPT_IN)),
        ("caching-yes", has(ClientFlags::OPT_IN) && is_caching),
        ("optout", has(ClientFlags::OPT_OUT)),
        ("caching-no", has(ClientFlags::OPT_OUT) && is_caching),
        ("noloop", has(ClientFlags::NO_LOOP)),
        ("broken_redirect", has(ClientFlags::BROKEN_REDIRECT)),
    ];
    let set: Vec<_> = words.iter().filter(|(_, is_set)| *is_set).collect();
    cx.reply.map(3);
    cx.reply.bulk(b"flags");
    cx.reply.set(set.len());
    set.iter().for_each(|(word, _)| cx.reply.bulk(word.as_bytes()));
    cx.reply.bulk(b"redirect");
    cx.reply.int(redirect_id(client));
    cx.reply.bulk(b"prefixes");
    let prefixes = cx.session.cold().and_then(|cold| cold.tracking.as_ref());
    cx.reply.array(prefixes.map_or(0, BTreeSet::len));
    prefixes.into_iter().flatten().for_each(|prefix| cx.reply.bulk(prefix));
    Ok(())
}
