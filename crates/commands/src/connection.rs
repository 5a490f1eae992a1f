//! Commands about the connection itself.

use crate::acl;
use crate::client::ClientFlags;
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace::DATABASES;
use crate::session::{ReplyMode, Session};
use crate::table::{Acl, Command, Flags, Group};
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::Version;
use hypercache_stdx::number::parse_i64;
use std::sync::Arc;

const BASE: Command =
    Command { group: Group::Connection, acl: Acl::CONNECTION, ..Command::DEFAULT };

/// Flags of commands that must work before AUTH and beside a script that runs long.
const ALWAYS: Flags = Flags::NO_SCRIPT
    .or(Flags::LOADING)
    .or(Flags::STALE)
    .or(Flags::FAST)
    .or(Flags::NO_AUTH)
    .or(Flags::ALLOW_BUSY);

const QUICK: Flags = Flags::LOADING.or(Flags::STALE).or(Flags::FAST);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "AUTH",
        arity: -2,
        flags: ALWAYS,
        run: auth,
        summary: "Gives the password that the server asks for.",
        syntax: "[username] password",
        examples: "> AUTH default secret\nOK\n> AUTH alice secret\n(error) WRONGPASS invalid \
                   username-password pair or user is disabled.",
        ..BASE
    },
    Command {
        name: "ECHO",
        arity: 2,
        flags: QUICK,
        run: echo,
        summary: "Answers with its argument.",
        syntax: "message",
        examples: "> ECHO hello\n\"hello\"",
        ..BASE
    },
    Command {
        name: "HELLO",
        since: "6.0.0",
        arity: -1,
        flags: ALWAYS,
        run: hello,
        summary: "Chooses the protocol version, and tells about server and connection.",
        syntax: "[protover [AUTH username password] [SETNAME clientname]]",
        examples: "> HELLO 2 SETNAME worker-1\n…\"proto\"…(integer) 2…\n> HELLO 4\n(error) NOPROTO unsupported protocol version",
        ..BASE
    },
    Command {
        name: "PING",
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        arity: -1,
        flags: Flags::FAST,
        run: ping,
        summary: "Answers PONG, or the message.",
        syntax: "[message]",
        examples: "> PING\nPONG\n> PING hello\n\"hello\"",
        ..BASE
    },
    Command {
        name: "QUIT",
        arity: -1,
        flags: ALWAYS,
        run: quit,
        summary: "Closes the connection.",
        examples: "> QUIT\nOK",
        ..BASE
    },
    Command {
        name: "RESET",
        since: "6.2.0",
        arity: 1,
        flags: ALWAYS,
        run: reset,
        summary: "Brings the connection back to the state of a new one.",
        examples: "> RESET\nRESET",
        ..BASE
    },
    Command {
        name: "SELECT",
        arity: 2,
        flags: QUICK,
        run: select,
        summary: "Chooses the database of the commands that follow.",
        syntax: "index",
        examples: "> SELECT 1\nOK\n> SELECT 16\n(error) ERR DB index is out of range",
        ..BASE
    },
];

fn set_authenticated(session: &mut Session, on: bool) {
    session.is_authenticated = on;
    session.client.set_flag(ClientFlags::AUTHENTICATED, on);
}

/// Authenticates the connection. Failing leaves it as it was, authenticated or not.
fn authenticate(cx: &mut Cx<'_>, user: &[u8], password: &[u8], command: &[u8]) -> Outcome {
    let Some(account) = cx.shared.acl.authenticate(user, password) else {
        acl::note_failed_login(cx, user, command);
        return Err(ReplyError::WrongPass);
    };
    let is_in = acl::log_in(cx.shared, cx.session, account);
    set_authenticated(cx.session, is_in);
    if is_in { Ok(()) } else { Err(ReplyError::WrongPass) }
}

fn auth(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (user, password) = match args.len() {
        2 => (acl::DEFAULT_USER, args.get(1)),
        3 => (args.get(1), args.get(2)),
        _ => return Err(ReplyError::Syntax),
    };
    if args.len() == 2 && cx.shared.acl.default_account().user().has_no_pass() {
        return Err(ReplyError::NoPasswordSet);
    }
    authenticate(cx, user, password, args.get(0))?;
    cx.reply.ok();
    Ok(())
}

fn echo(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    cx.reply.bulk(args.get(1));
    Ok(())
}

fn ping(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let message = match args.len() {
        1 => None,
        2 => Some(args.get(1)),
        _ => return Err(ReplyError::Text("ERR wrong number of arguments for 'ping' command")),
    };
    let is_in_subscribe_mode = cx.session.is_subscribed() && cx.session.version == Version::V2;
    if is_in_subscribe_mode {
        cx.reply.array(2);
        cx.reply.bulk(b"pong");
        cx.reply.bulk(message.unwrap_or_default());
        return Ok(());
    }
    match message {
        Some(message) => cx.reply.bulk(message),
        None => cx.reply.simple("PONG"),
    }
    Ok(())
}

fn quit(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    cx.session.is_closing = true;
    cx.reply.ok();
    Ok(())
}

fn use_db(cx: &mut Cx<'_>, db: u8) {
    cx.session.select(db);
    cx.keys.db = db;
}

fn use_version(cx: &mut Cx<'_>, version: Version) {
    cx.session.set_version(version);
    cx.reply.set_version(version);
}

fn select(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let index = parse_i64(args.get(1)).ok_or(ReplyError::NotAnInteger)?;
    let Ok(index) = i32::try_from(index) else {
        return Err(ReplyError::Text(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ));
    };
    let known = u8::try_from(index).ok().filter(|&db| usize::from(db) < DATABASES);
    use_db(cx, known.ok_or(ReplyError::DbIndex)?);
    cx.reply.ok();
    Ok(())
}

fn reset(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let (shared, session) = (cx.shared, &mut *cx.session);
    crate::monitor::stop_monitoring(shared, session);
    session.discard_transaction(shared);
    crate::pubsub::unsubscribe_all(shared, session);
    crate::tracking::disable(shared, session);
    session.client.rename(|names| names.name = Box::default());
    session.client.set_flag(ClientFlags::NO_TOUCH, false);
    acl::log_in(shared, session, Arc::clone(shared.acl.default_account()));
    set_authenticated(session, shared.acl.lets_in());
    // After CLIENT REPLY SKIP it is this very reply that is skipped.
    if session.reply_mode != ReplyMode::Skip {
        session.reply_mode = ReplyMode::On;
    }
    use_db(cx, 0);
    use_version(cx, Version::V2);
    cx.reply.simple("RESET");
    Ok(())
}

const HELLO_NEEDS_AUTH: &str = "NOAUTH HELLO must be called with the client already \
     authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate \
     the client and select the RESP protocol version at the same time";

fn hello(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let version = if args.len() > 1 { Some(protocol_version(args.get(1))?) } else { None };
    hello_options(cx, args)?;
    if !cx.session.is_authenticated {
        return Err(ReplyError::Text(HELLO_NEEDS_AUTH));
    }
    if let Some(version) = version {
        use_version(cx, version);
    }
    describe_server(cx);
    Ok(())
}

fn protocol_version(text: &[u8]) -> Result<Version, ReplyError> {
    match parse_i64(text) {
        Some(2) => Ok(Version::V2),
        Some(3) => Ok(Version::V3),
        Some(_) => Err(ReplyError::NoProto),
        None => Err(ReplyError::Text("ERR Protocol version is not an integer or out of range")),
    }
}

/// Options count in the order they stand, up to the first that fails.
fn hello_options(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut i = 2;
    while i < args.len() {
        let option = args.get(i);
        let values = args.len() - i - 1;
        if option.eq_ignore_ascii_case(b"AUTH") && values >= 2 {
            authenticate(cx, args.get(i + 1), args.get(i + 2), args.get(0))?;
            i += 3;
        } else if option.eq_ignore_ascii_case(b"SETNAME") && values >= 1 {
            crate::clients::set_name(cx.session, args.get(i + 1))?;
            i += 2;
        } else {
            let text = [b"ERR Syntax error in HELLO option '", option, b"'"].concat();
            cx.reply.error(&text);
            return Err(ReplyError::Written);
        }
    }
    Ok(())
}

fn describe_server(cx: &mut Cx<'_>) {
    let reply = &mut cx.reply;
    let texts = |reply: &mut hypercache_protocol::reply::Reply<'_>, name: &str, value: &str| {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    };
    reply.map(7);
    texts(reply, "server", "redis");
    texts(reply, "version", crate::REDIS_VERSION);
    reply.bulk(b"proto");
    reply.int(if reply.version() == Version::V3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.int(cx.session.client.id as i64);
    texts(reply, "mode", cx.shared.cluster.mode());
    texts(reply, "role", "master");
    reply.bulk(b"modules");
    reply.array(0);
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::testing::Harness;

    fn with_password() -> Harness {
        let mut config = Config::default();
        config.set_at_start("requirepass", "secret").expect("a setting");
        Harness::new(config)
    }

    /// Runs lines; each reply must begin as told.
    fn check(h: &mut Harness, script: &[(&str, &str)]) {
        for (line, expected) in script {
            let reply = String::from_utf8_lossy(&h.run(line)).into_owned();
            assert!(reply.starts_with(expected), "{line}: {reply:?} for {expected:?}");
        }
    }

    #[test]
    fn a_password_is_asked_for() {
        check(
            &mut with_password(),
            &[
                ("PING", "-NOAUTH Authentication required.\r\n"),
                ("HELLO", "-NOAUTH HELLO must be called with"),
                ("HELLO 9", "-NOPROTO unsupported protocol version\r\n"),
                ("AUTH wrong", "-WRONGPASS "),
                ("AUTH alice secret", "-WRONGPASS "),
                ("AUTH default secret more", "-ERR syntax error\r\n"),
                ("AUTH secret", "+OK\r\n"),
                ("PING", "+PONG\r\n"),
                ("AUTH wrong", "-WRONGPASS "),
                ("PING", "+PONG\r\n"),
                ("RESET", "+RESET\r\n"),
                ("PING", "-NOAUTH "),
                ("HELLO 3 AUTH default secret SETNAME me", "%7\r\n"),
                ("CLIENT GETNAME", "$2\r\nme\r\n"),
            ],
        );
    }

    #[test]
    fn without_a_password_any_will_do_for_the_default_user() {
        check(
            &mut Harness::default(),
            &[
                ("AUTH x", "-ERR AUTH <password> called without any password"),
                ("AUTH default x", "+OK\r\n"),
                ("AUTH Default x", "-WRONGPASS "),
            ],
        );
    }

    #[test]
    fn hello_runs_its_options_in_order() {
        check(
            &mut Harness::default(),
            &[
                ("HELLO 3", "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n"),
                ("HELLO 2", "*14\r\n"),
                ("HELLO x", "-ERR Protocol version is not an integer or out of range\r\n"),
                ("HELLO 3 SETNAME me AUTH alice x", "-WRONGPASS "),
                ("CLIENT GETNAME", "$2\r\nme\r\n"),
                ("HELLO 3 AUTH default", "-ERR Syntax error in HELLO option 'AUTH'\r\n"),
                ("HELLO 3 SETNAME 'a b'", "-ERR Client names cannot contain spaces"),
                ("HELLO", "*14\r\n"),
            ],
        );
    }

    #[test]
    fn select_bounds() {
        check(
            &mut Harness::default(),
            &[
                ("SELECT 15", "+OK\r\n"),
                ("SELECT 16", "-ERR DB index is out of range\r\n"),
                ("SELECT -1", "-ERR DB index is out of range\r\n"),
                ("SELECT 3000000000", "-ERR value is out of range, value must between"),
                ("SELECT 1.0", "-ERR value is not an integer or out of range\r\n"),
            ],
        );
    }

    #[test]
    fn a_transaction_may_change_database_and_protocol() {
        let mut h = Harness::default();
        h.run("SET a zero");
        h.run("MULTI");
        h.run("SELECT 1");
        h.run("HELLO 3");
        h.run("GET a");
        assert!(h.run("EXEC").ends_with(b"modules\r\n*0\r\n_\r\n"));
        check(&mut h, &[("GET a", "_\r\n"), ("SELECT 0", "+OK"), ("GET a", "$4\r\nzero")]);
    }

    #[test]
    fn ping_in_subscribe_mode_is_an_array_in_resp2() {
        check(
            &mut Harness::default(),
            &[
                ("PING a b", "-ERR wrong number of arguments for 'ping' command\r\n"),
                ("SUBSCRIBE c", "*3\r\n"),
                ("PING", "*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
                ("PING x", "*2\r\n$4\r\npong\r\n$1\r\nx\r\n"),
                ("RESET", "+RESET\r\n"),
                ("PING", "+PONG\r\n"),
                ("HELLO 3", "%7"),
                ("SUBSCRIBE c", ">3\r\n"),
                ("PING", "+PONG\r\n"),
            ],
        );
    }

    #[test]
    fn reset_brings_back_the_first_state() {
        let mut h = Harness::default();
        for line in ["SELECT 3", "HELLO 3 SETNAME me", "SUBSCRIBE c", "WATCH a", "MULTI"] {
            h.run(line);
        }
        check(&mut h, &[("RESET", "+RESET\r\n"), ("EXEC", "-ERR EXEC without MULTI\r\n")]);
        check(&mut h, &[("PUBLISH c x", ":0\r\n")]);
        assert_eq!(h.session.db, 0);
        assert!(h.session.watch().is_none() && !h.session.is_subscribed());
    }

    #[test]
    fn quit_closes() {
        let mut h = Harness::default();
        assert_eq!(h.run("QUIT now"), b"+OK\r\n");
        assert!(h.session.is_closing);
    }
}
