//! MONITOR: clients that see every command.

use crate::client::{Address, Client, ClientFlags};
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::redact;
use crate::session::Session;
use crate::shared::{Message, Shared};
use crate::table::{Command, Entry, Flags, Group};
use hypercache_protocol::parse::Args;
use hypercache_stdx::clock;
use hypercache_stdx::quote::append_quoted;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "MONITOR",
    group: Group::Server,
    arity: 1,
    flags: Flags::ADMIN.or(Flags::NO_SCRIPT).or(Flags::LOADING).or(Flags::STALE),
    run: monitor,
    summary: "Shows every command that any client runs, as it happens.",
    complexity: "O(1), and O(N) in the number of monitors for every command of any client",
    examples: "> MONITOR\nOK",
    ..Command::DEFAULT
}];

/// What a line takes on its way beyond its text.
const LINE_OVERHEAD: usize = 64;

fn monitor(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let client = &cx.session.client;
    // A transaction that runs shows as one until its end.
    if client.has(ClientFlags::MULTI) {
        return Err(ReplyError::Text("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    if client.has(ClientFlags::MONITOR) {
        // As Redis: a second MONITOR goes unanswered.
        return Ok(());
    }
    client.set_flag(ClientFlags::MONITOR, true);
    let mut monitors = cx.shared.monitors.lock();
    monitors.push(Arc::clone(client));
    cx.shared.monitor_count.store(monitors.len(), Relaxed);
    cx.reply.ok();
    Ok(())
}

/// Stops feeding a session's client, as when it closes or is reset.
pub fn stop_monitoring(shared: &Shared, session: &Session) {
    let client = &session.client;
    if !client.has(ClientFlags::MONITOR) {
        return;
    }
    client.set_flag(ClientFlags::MONITOR, false);
    let mut monitors = shared.monitors.lock();
    monitors.retain(|monitor| monitor.id != client.id);
    shared.monitor_count.store(monitors.len(), Relaxed);
}

/// Whether a client that monitors may run a command: none that reads or writes keys.
pub(crate) fn may_run(client: &Client, entry: &Entry) -> bool {
    let touches_keys = [Flags::READONLY, Flags::WRITE, Flags::MAY_REPLICATE];
    !client.has(ClientFlags::MONITOR) || !touches_keys.iter().any(|f| entry.row.flags.has(*f))
}

/// Shows monitors a command that ran. Administrative ones are not shown.
#[cold]
pub(crate) fn feed_monitors(shared: &Shared, session: &Session, entry: &Entry, args: Args<'_>) {
    let flags = entry.row.flags;
    if flags.has(Flags::SKIP_MONITOR) || flags.has(Flags::ADMIN) {
        return;
    }
    feed_memcached(shared, session, args);
}

/// Shows monitors a request of a memcached client that ran.
#[cold]
pub(crate) fn feed_memcached(shared: &Shared, session: &Session, args: Args<'_>) {
    let line: Arc<[u8]> = Arc::from(line_of(session, args, clock::now_us()));
    let limits = *shared.config.hot.output_limits.read();
    // As for ordinary clients; where those have no limit, a monitor has that of a subscriber.
    let hard = if limits.normal.hard > 0 { limits.normal.hard } else { limits.pubsub.hard };
    let monitors = shared.monitors.lock();
    for monitor in monitors.iter() {
        deliver(shared, monitor, &line, hard);
    }
}

/// Hands a line to the worker of a monitor, or closes one that does not keep up.
fn deliver(shared: &Shared, monitor: &Arc<Client>, line: &Arc<[u8]>, hard: u64) {
    let bytes = (line.len() + LINE_OVERHEAD) as u64;
    let waiting = monitor.output_bytes.fetch_add(bytes, Relaxed) + bytes;
    if hard > 0 && waiting > hard {
        return shared.kill_for_output(monitor);
    }
    let (client, line) = (Arc::clone(monitor), Arc::clone(line));
    shared.send(client.worker, Message::Monitor { client, line });
}

/// The line that shows a command: time, database, client, arguments.
fn line_of(session: &Session, args: Args<'_>, now_us: u64) -> Vec<u8> {
    let client = &session.client;
    let address = match client.peer() {
        Address::Unix(path) => format!("unix:{path}"),
        address => address.to_string(),
    };
    let (seconds, micros) = (now_us / 1_000_000, now_us % 1_000_000);
    let mut line = format!("{seconds}.{micros:06} [{} {address}]", session.db).into_bytes();
    for i in 0..args.len() {
        line.push(b' ');
        append_quoted(redact::shown(args, i), &mut line);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Mailbox;
    use crate::testing::Harness;
    use hypercache_protocol::parse::OwnedArgs;

    fn with_monitor() -> (Harness, Session) {
        let mut h = Harness::default();
        assert!(h.shared.mailboxes.set(vec![Mailbox::new(Box::new(|| {}))]).is_ok());
        assert_eq!(h.run("MONITOR"), b"+OK\r\n");
        let other = Harness::connect(&h.shared);
        let monitor = std::mem::replace(&mut h.session, other);
        (h, monitor)
    }

    /// The lines on their way, from the database on.
    fn lines(h: &Harness) -> Vec<String> {
        let mailboxes = h.shared.mailboxes.get().expect("set");
        let messages = mailboxes[0].take().into_iter();
        let lines = messages.map(|message| match message {
            Message::Monitor { line, .. } => String::from_utf8_lossy(&line).into_owned(),
            other => panic!("{other:?}"),
        });
        lines.map(|line| line.split_once(' ').expect("a time").1.to_owned()).collect()
    }

    #[test]
    fn a_line_has_time_database_address_and_quoted_arguments() {
        let h = Harness::default();
        let args = OwnedArgs::from_pieces([&b"set"[..], b"a\"\\", b"\n\r\t\x07\x08\x00\xff~"]);
        let line = line_of(&h.session, args.as_args(), 1_339_518_083_007_412);
        let text = r#"1339518083.007412 [0 ?:0] "set" "a\"\\" "\n\r\t\a\b\x00\xff~""#;
        assert_eq!(String::from_utf8_lossy(&line), text);
    }

    #[test]
    fn clients_of_a_unix_socket_show_its_path() {
        let mut h = Harness::default();
        let ends = (Address::Unix("/run/h.sock".into()), Address::Unknown);
        h.session.client = Arc::new(Client::new(1, 0, -1, ends, 0));
        let args = OwnedArgs::from_pieces(["ping"]);
        let line = line_of(&h.session, args.as_args(), 0);
        assert_eq!(line, b"0.000000 [0 unix:/run/h.sock] \"ping\"");
    }

    #[test]
    fn monitors_see_what_ran_in_order() {
        let (mut h, _monitor) = with_monitor();
        h.run("SET a 1");
        h.run("nonsense");
        h.run("GET");
        h.run("SLOWLOG LEN");
        h.run("MULTI");
        h.run("GET a");
        assert_eq!(lines(&h), [r#"[0 ?:0] "SET" "a" "1""#, r#"[0 ?:0] "MULTI""#]);
        h.run("EXEC");
        assert_eq!(lines(&h), [r#"[0 ?:0] "GET" "a""#, r#"[0 ?:0] "EXEC""#]);
    }

    #[test]
    fn a_monitor_must_not_touch_keys_and_stops_with_its_session() {
        let (mut h, monitor) = with_monitor();
        let mut other = std::mem::replace(&mut h.session, monitor);
        assert_eq!(h.run("GET a"), b"-ERR Replica can't interact with the keyspace\r\n");
        assert_eq!(h.run("MONITOR"), b"");
        std::mem::swap(&mut h.session, &mut other);
        other.close(&h.shared);
        assert_eq!(h.shared.monitor_count.load(Relaxed), 0);
        h.run("GET a");
        assert!(lines(&h).is_empty());
    }

    #[test]
    fn monitor_is_refused_inside_a_transaction() {
        let mut h = Harness::default();
        h.run("MULTI");
        h.run("MONITOR");
        let refused = "-ERR MONITOR isn't allowed for DENY BLOCKING client";
        assert_eq!(h.run("EXEC"), format!("*1\r\n{refused}\r\n").as_bytes());
    }

    #[test]
    fn a_monitor_that_does_not_keep_up_is_closed() {
        let (mut h, monitor) = with_monitor();
        h.shared.config.hot.output_limits.write().normal.hard = 200;
        h.run("GET a");
        assert!(!monitor.client.is_killed());
        h.run(&format!("GET {}", "a".repeat(100)));
        assert!(monitor.client.is_killed());
        assert_eq!(h.shared.sum(|s| s.output_limit_closed.get()), 1);
    }
}
