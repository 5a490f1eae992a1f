//! Publish and subscribe, and keyspace notifications.

use crate::client::{Client, ClientFlags};
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::session::{Session, Subscriptions};
use crate::shared::{Message, Push, Shared};
use crate::table::{Command, Entry, Flags, Group, KeyFlags, Keys};
use hypercache_journal::{Class, Effect};
use hypercache_protocol::parse::Args;
use hypercache_protocol::reply::{Output, Reply, Version};
use hypercache_stdx::glob::glob_match;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const BASE: Command = Command {
    group: Group::Pubsub,
    flags: Flags::PUBSUB.or(Flags::NO_SCRIPT).or(Flags::LOADING).or(Flags::STALE),
    complexity: "O(N) in the number of channels",
    ..Command::DEFAULT
};

const CHANNELS: Keys = Keys::Range { first: 1, last: -1, step: 1, flags: KeyFlags::NOT_KEY };
const ONE_CHANNEL: Keys = Keys::first(KeyFlags::NOT_KEY);
const INFO_FLAGS: Flags = Flags::PUBSUB.or(Flags::LOADING).or(Flags::STALE);
const PUBLISH_FLAGS: Flags =
    Flags::PUBSUB.or(Flags::LOADING).or(Flags::STALE).or(Flags::FAST).or(Flags::MAY_REPLICATE);

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "SUBSCRIBE",
        since: "2.0.0",
        arity: -2,
        run: subscribe,
        summary: "Listens to channels.",
        syntax: "channel [channel ...]",
        examples: "> SUBSCRIBE news\n1) \"subscribe\"\n2) \"news\"\n3) (integer) 1",
        ..BASE
    },
    Command {
        name: "UNSUBSCRIBE",
        since: "2.0.0",
        arity: -1,
        run: unsubscribe,
        summary: "Stops listening to channels, or to all of them.",
        syntax: "[channel [channel ...]]",
        examples: "> UNSUBSCRIBE news\n1) \"unsubscribe\"\n2) \"news\"\n3) (integer) 0",
        ..BASE
    },
    Command {
        name: "PSUBSCRIBE",
        since: "2.0.0",
        arity: -2,
        run: psubscribe,
        summary: "Listens to all channels that match a pattern.",
        complexity: "O(N) in the number of patterns",
        syntax: "pattern [pattern ...]",
        examples: "> PSUBSCRIBE n*\n1) \"psubscribe\"\n2) \"n*\"\n3) (integer) 1",
        ..BASE
    },
    Command {
        name: "PUNSUBSCRIBE",
        since: "2.0.0",
        arity: -1,
        run: punsubscribe,
        summary: "Stops listening to patterns, or to all of them.",
        complexity: "O(N) in the number of patterns",
        syntax: "[pattern [pattern ...]]",
        examples: "> PUNSUBSCRIBE\n1) \"punsubscribe\"\n2) (nil)\n3) (integer) 0",
        ..BASE
    },
    Command {
        name: "SSUBSCRIBE",
        since: "7.0.0",
        arity: -2,
        run: ssubscribe,
        summary: "Listens to shard channels.",
        syntax: "shardchannel [shardchannel ...]",
        examples: "> SSUBSCRIBE s\n1) \"ssubscribe\"\n2) \"s\"\n3) (integer) 1",
        keys: CHANNELS,
        ..BASE
    },
    Command {
        name: "SUNSUBSCRIBE",
        since: "7.0.0",
        arity: -1,
        run: sunsubscribe,
        summary: "Stops listening to shard channels, or to all of them.",
        syntax: "[shardchannel [shardchannel ...]]",
        examples: "> SUNSUBSCRIBE s\n1) \"sunsubscribe\"\n2) \"s\"\n3) (integer) 0",
        keys: CHANNELS,
        ..BASE
    },
    Command {
        name: "PUBLISH",
        since: "2.0.0",
        arity: 3,
        flags: PUBLISH_FLAGS,
        run: publish_command,
        summary: "Sends a message to a channel; answers how many clients get it.",
        complexity: "O(N+M) in the subscribers of the channel and all patterns",
        syntax: "channel message",
        examples: "> PUBLISH news hello\n(integer) 0",
        ..BASE
    },
    Command {
        name: "SPUBLISH",
        since: "7.0.0",
        arity: 3,
        flags: PUBLISH_FLAGS,
        run: spublish,
        summary: "Sends a message to a shard channel; answers how many clients get it.",
        complexity: "O(N) in the subscribers of the channel",
        syntax: "shardchannel message",
        examples: "> SPUBLISH s hello\n(integer) 0",
        keys: ONE_CHANNEL,
        ..BASE
    },
    Command {
        name: "PUBSUB",
        since: "2.8.0",
        arity: -2,
        flags: Flags::NONE,
        summary: "Tells about channels and subscriptions.",
        complexity: "That of the subcommand",
        subcommands: PUBSUB,
        ..BASE
    },
];

const PUBSUB: &[Command] = &[
    Command {
        name: "CHANNELS",
        since: "2.8.0",
        arity: -2,
        flags: INFO_FLAGS,
        run: pubsub_channels,
        summary: "Channels that have subscribers, all or those that match a pattern.",
        syntax: "[pattern]",
        examples: "> PUBSUB CHANNELS\n(empty array)",
        ..BASE
    },
    Command {
        name: "HELP",
        since: "6.2.0",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "Lists the subcommands.",
        examples: "> PUBSUB HELP\n…PUBSUB <subcommand> …",
        ..BASE
    },
    Command {
        name: "NUMPAT",
        since: "2.8.0",
        arity: 2,
        flags: INFO_FLAGS,
        run: pubsub_numpat,
        summary: "How many patterns are subscribed to.",
        examples: "> PUBSUB NUMPAT\n(integer) 0",
        ..BASE
    },
    Command {
        name: "NUMSUB",
        since: "2.8.0",
        arity: -2,
        flags: INFO_FLAGS,
        run: pubsub_numsub,
        summary: "How many subscribers each channel has.",
        syntax: "[channel [channel ...]]",
        examples: "> PUBSUB NUMSUB a\n1) \"a\"\n2) (integer) 0",
        ..BASE
    },
    Command {
        name: "SHARDCHANNELS",
        since: "7.0.0",
        arity: -2,
        flags: INFO_FLAGS,
        run: pubsub_shardchannels,
        summary: "Shard channels that have subscribers, all or those that match a pattern.",
        syntax: "[pattern]",
        examples: "> PUBSUB SHARDCHANNELS\n(empty array)",
        ..BASE
    },
    Command {
        name: "SHARDNUMSUB",
        since: "7.0.0",
        arity: -2,
        flags: INFO_FLAGS,
        run: pubsub_shardnumsub,
        summary: "How many subscribers each shard channel has.",
        syntax: "[shardchannel [shardchannel ...]]",
        examples: "> PUBSUB SHARDNUMSUB a\n1) \"a\"\n2) (integer) 0",
        ..BASE
    },
];

type Subscribers = RwLock<BTreeMap<Arc<[u8]>, Vec<Arc<Client>>>>;

/// Who listens to what, over all workers.
#[derive(Debug, Default)]
pub struct PubSub {
    channels: Subscribers,
    patterns: Subscribers,
    shard_channels: Subscribers,
}

/// One of the three kinds of subscription, with what differs between them.
#[derive(Clone, Copy)]
struct Kind {
    subscribe: &'static str,
    unsubscribe: &'static str,
    of_hub: fn(&PubSub) -> &Subscribers,
    of_session: fn(&mut Subscriptions) -> &mut std::collections::BTreeSet<Arc<[u8]>>,
}

const CHANNEL: Kind = Kind {
    subscribe: "subscribe",
    unsubscribe: "unsubscribe",
    of_hub: |hub| &hub.channels,
    of_session: |s| &mut s.channels,
};
const PATTERN: Kind = Kind {
    subscribe: "psubscribe",
    unsubscribe: "punsubscribe",
    of_hub: |hub| &hub.patterns,
    of_session: |s| &mut s.patterns,
};
const SHARD: Kind = Kind {
    subscribe: "ssubscribe",
    unsubscribe: "sunsubscribe",
    of_hub: |hub| &hub.shard_channels,
    of_session: |s| &mut s.shard_channels,
};

impl PubSub {
    /// Every subscription: what to, whether that is a pattern, and whose.
    #[must_use]
    pub(crate) fn subscribers(&self) -> Vec<(Arc<[u8]>, bool, Arc<Client>)> {
        let kinds =
            [(&self.channels, false), (&self.patterns, true), (&self.shard_channels, false)];
        let mut all = Vec::new();
        for (subscribers, is_pattern) in kinds {
            for (name, clients) in subscribers.read().iter() {
                let one = |client: &Arc<Client>| (Arc::clone(name), is_pattern, Arc::clone(client));
                all.extend(clients.iter().map(one));
            }
        }
        all
    }

    /// Channels, patterns and shard channels with subscribers.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let len = |s: &Subscribers| s.read().len();
        (len(&self.channels), len(&self.patterns), len(&self.shard_channels))
    }
}

/// Whether a client with subscriptions may run a command: in RESP2 only what manages them.
pub(crate) fn is_allowed(session: &Session, entry: &Entry) -> bool {
    session.version == Version::V3
        || matches!(
            entry.row.name,
            "SUBSCRIBE"
                | "UNSUBSCRIBE"
                | "PSUBSCRIBE"
                | "PUNSUBSCRIBE"
                | "SSUBSCRIBE"
                | "SUNSUBSCRIBE"
                | "PING"
                | "QUIT"
                | "RESET"
        )
}

/// Why another command is refused.
pub(crate) fn refusal(entry: &Entry) -> String {
    let name = &entry.full_name;
    format!(
        "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
         RESET are allowed in this context"
    )
}

/// Subscriptions as the reply counts them: channels and patterns together, shard channels apart.
fn count(session: &mut Session, kind: Kind) -> i64 {
    let Some(subscriptions) = session.subscriptions_mut() else { return 0 };
    if kind.subscribe == SHARD.subscribe {
        return subscriptions.shard_channels.len() as i64;
    }
    (subscriptions.channels.len() + subscriptions.patterns.len()) as i64
}

fn after_change(session: &mut Session) {
    let (channels, patterns, shards) = match session.subscriptions() {
        Some(s) => (s.channels.len(), s.patterns.len(), s.shard_channels.len()),
        None => (0, 0, 0),
    };
    let client = &session.client;
    let cold = client.make_cold();
    cold.channels.store(channels as u32, Relaxed);
    cold.patterns.store(patterns as u32, Relaxed);
    cold.shard_channels.store(shards as u32, Relaxed);
    client.set_flag(ClientFlags::PUBSUB, channels + patterns + shards > 0);
    if channels + patterns + shards == 0 {
        session.make_cold().subscriptions = None;
    }
}

fn add(cx: &mut Cx<'_>, args: Args<'_>, kind: Kind) -> Outcome {
    for name in args.iter_from(1) {
        let subscriptions = cx.session.make_cold().subscriptions.get_or_insert_default();
        let mine = (kind.of_session)(subscriptions);
        if !mine.contains(name) {
            let name: Arc<[u8]> = Arc::from(name);
            mine.insert(Arc::clone(&name));
            let mut hub = (kind.of_hub)(&cx.shared.pubsub).write();
            hub.entry(name).or_default().push(Arc::clone(&cx.session.client));
        }
        after_change(cx.session);
        confirm(cx, kind.subscribe, Some(name), kind);
    }
    if !crate::acl::still_may_subscribe(cx, args) {
        cx.session.is_closing = true;
    }
    Ok(())
}

fn confirm(cx: &mut Cx<'_>, verb: &str, name: Option<&[u8]>, kind: Kind) {
    cx.reply.push(3);
    cx.reply.bulk(verb.as_bytes());
    match name {
        Some(name) => cx.reply.bulk(name),
        None => cx.reply.null(),
    }
    cx.reply.int(count(cx.session, kind));
}

fn drop_from_hub(shared: &Shared, client: &Arc<Client>, name: &[u8], kind: Kind) {
    let mut hub = (kind.of_hub)(&shared.pubsub).write();
    let Some(clients) = hub.get_mut(name) else { return };
    clients.retain(|other| other.id != client.id);
    if clients.is_empty() {
        hub.remove(name);
    }
}

fn remove_one(shared: &Shared, session: &mut Session, name: &[u8], kind: Kind) {
    let Some(subscriptions) = session.subscriptions_mut() else { return };
    if (kind.of_session)(subscriptions).remove(name) {
        drop_from_hub(shared, &session.client, name, kind);
    }
    after_change(session);
}

fn names_of(session: &mut Session, kind: Kind) -> Vec<Arc<[u8]>> {
    let Some(subscriptions) = session.subscriptions_mut() else { return Vec::new() };
    (kind.of_session)(subscriptions).iter().cloned().collect()
}

fn remove(cx: &mut Cx<'_>, args: Args<'_>, kind: Kind) -> Outcome {
    let names: Vec<Arc<[u8]>> = match args.len() {
        1 => names_of(cx.session, kind),
        _ => args.iter_from(1).map(Arc::from).collect(),
    };
    if names.is_empty() {
        confirm(cx, kind.unsubscribe, None, kind);
    }
    for name in names {
        remove_one(cx.shared, cx.session, &name, kind);
        confirm(cx, kind.unsubscribe, Some(&name), kind);
    }
    Ok(())
}

/// Ends all subscriptions of a session without a word, as when it closes or is reset.
pub fn unsubscribe_all(shared: &Shared, session: &mut Session) {
    for kind in [CHANNEL, PATTERN, SHARD] {
        for name in names_of(session, kind) {
            remove_one(shared, session, &name, kind);
        }
    }
}

fn subscribe(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    add(cx, args, CHANNEL)
}

fn psubscribe(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    add(cx, args, PATTERN)
}

fn ssubscribe(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    add(cx, args, SHARD)
}

fn unsubscribe(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    remove(cx, args, CHANNEL)
}

fn punsubscribe(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    remove(cx, args, PATTERN)
}

fn sunsubscribe(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    remove(cx, args, SHARD)
}

/// Publishes to a channel and all patterns that match it. Returns how many clients get it.
pub fn publish(shared: &Shared, channel: &[u8], payload: &[u8]) -> usize {
    let mut push = Push {
        kind: "message",
        pattern: None,
        channel: Arc::from(channel),
        payload: Arc::from(payload),
    };
    let mut receivers = 0;
    if let Some(clients) = shared.pubsub.channels.read().get(channel) {
        receivers += clients.len();
        clients.iter().for_each(|client| deliver(shared, client, &push));
    }
    let patterns = shared.pubsub.patterns.read();
    push.kind = "pmessage";
    for (pattern, clients) in patterns.iter() {
        if glob_match(pattern, channel, false) {
            push.pattern = Some(Arc::clone(pattern));
            receivers += clients.len();
            clients.iter().for_each(|client| deliver(shared, client, &push));
        }
    }
    receivers
}

/// Hands a message to the worker of a subscriber, or closes one that does not keep up.
fn deliver(shared: &Shared, client: &Arc<Client>, push: &Push) {
    if has_room(shared, client, push.bytes()) {
        let (client, push) = (Arc::clone(client), push.clone());
        shared.send(client.worker, Message::Publish { client, push });
    }
}

/// Counts bytes that are about to be on their way to a client; closes it if these are too many.
pub(crate) fn has_room(shared: &Shared, client: &Arc<Client>, bytes: u64) -> bool {
    let waiting = client.output_bytes.fetch_add(bytes, Relaxed) + bytes;
    let limits = shared.config.hot.output_limits.read();
    let limit = if client.has(ClientFlags::PUBSUB) { limits.pubsub } else { limits.normal };
    let has_room = limit.hard == 0 || waiting <= limit.hard;
    if !has_room {
        shared.kill_for_output(client);
    }
    has_room
}

/// Writes a message as its subscriber's protocol version has it.
pub fn write_push(push: &Push, version: Version, out: &mut Output) {
    let mut reply = Reply::new(out, version);
    reply.push(if push.pattern.is_some() { 4 } else { 3 });
    reply.bulk(push.kind.as_bytes());
    if let Some(pattern) = &push.pattern {
        reply.bulk(pattern);
    }
    reply.bulk(&push.channel);
    reply.bulk(&push.payload);
}

fn publish_command(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    crate::dispatch::notify_so_far(cx);
    let receivers = publish(cx.shared, args.get(1), args.get(2));
    cx.reply.int(receivers as i64);
    Ok(())
}

fn spublish(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    crate::dispatch::notify_so_far(cx);
    let (kind, pattern) = ("smessage", None);
    let (channel, payload) = (Arc::from(args.get(1)), Arc::from(args.get(2)));
    let push = Push { kind, pattern, channel, payload };
    let hub = cx.shared.pubsub.shard_channels.read();
    let clients = hub.get(args.get(1)).map_or(&[][..], Vec::as_slice);
    clients.iter().for_each(|client| deliver(cx.shared, client, &push));
    cx.reply.int(clients.len() as i64);
    Ok(())
}

fn list_channels(cx: &mut Cx<'_>, args: Args<'_>, of_hub: fn(&PubSub) -> &Subscribers) -> Outcome {
    if args.len() > 3 {
        return Err(ReplyError::Syntax);
    }
    let pattern = if args.len() == 3 { args.get(2) } else { b"*" };
    let hub = of_hub(&cx.shared.pubsub).read();
    let names: Vec<_> = hub.keys().filter(|name| glob_match(pattern, name, false)).collect();
    cx.reply.array(names.len());
    names.iter().for_each(|name| cx.reply.bulk(name));
    Ok(())
}

fn count_subscribers(
    cx: &mut Cx<'_>,
    args: Args<'_>,
    of_hub: fn(&PubSub) -> &Subscribers,
) -> Outcome {
    let hub = of_hub(&cx.shared.pubsub).read();
    cx.reply.array(2 * (args.len() - 2));
    for name in args.iter_from(2) {
        cx.reply.bulk(name);
        cx.reply.int(hub.get(name).map_or(0, Vec::len) as i64);
    }
    Ok(())
}

fn pubsub_channels(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    list_channels(cx, args, CHANNEL.of_hub)
}

fn pubsub_shardchannels(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    list_channels(cx, args, SHARD.of_hub)
}

fn pubsub_numsub(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    count_subscribers(cx, args, CHANNEL.of_hub)
}

fn pubsub_shardnumsub(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    count_subscribers(cx, args, SHARD.of_hub)
}

fn pubsub_numpat(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let (_, patterns, _) = cx.shared.pubsub.counts();
    cx.reply.int(patterns as i64);
    Ok(())
}

/// `K`: events under `__keyspace@db__:key`.
const KEYSPACE: u32 = 1 << 30;
/// `E`: events under `__keyevent@db__:event`.
const KEYEVENT: u32 = 1 << 31;

/// Letters of `notify-keyspace-events` with their bits. That of modules' keys matches nothing.
const NOTIFY: &[(char, u32)] = &[
    ('g', Class::GENERIC.0),
    ('$', Class::STRING.0),
    ('l', Class::LIST.0),
    ('s', Class::SET.0),
    ('h', Class::HASH.0),
    ('z', Class::SORTED_SET.0),
    ('x', Class::EXPIRED.0),
    ('e', Class::EVICTED.0),
    ('t', Class::STREAM.0),
    ('d', 1 << 21),
];
const NOTIFY_OTHERS: &[(char, u32)] =
    &[('K', KEYSPACE), ('E', KEYEVENT), ('m', Class::MISS.0), ('n', Class::NEW.0)];

fn notify_all() -> u32 {
    NOTIFY.iter().fold(0, |all, (_, bit)| all | bit)
}

/// The bits of a value of `notify-keyspace-events`.
pub(crate) fn parse_notify_flags(text: &str) -> Option<u32> {
    text.chars().try_fold(0, |flags, letter| {
        let known = NOTIFY.iter().chain(NOTIFY_OTHERS).find(|(l, _)| *l == letter);
        match (letter, known) {
            ('A', _) => Some(flags | notify_all()),
            (_, Some((_, bit))) => Some(flags | bit),
            _ => None,
        }
    })
}

/// The usual spelling of the bits.
pub(crate) fn format_notify_flags(flags: u32) -> String {
    let mut text = String::new();
    if flags & notify_all() == notify_all() {
        text.push('A');
    } else {
        let set = NOTIFY.iter().filter(|(_, bit)| flags & bit != 0);
        text.extend(set.map(|(letter, _)| letter));
    }
    let others = NOTIFY_OTHERS.iter().filter(|(_, bit)| flags & bit != 0);
    text.extend(others.map(|(letter, _)| letter));
    text
}

/// A new value of `notify-keyspace-events`; the partitions' logs follow with
/// [`Hot::log_bytes`](crate::config::Hot::log_bytes).
pub(crate) fn apply_notify(shared: &Shared, value: &str) {
    let flags = parse_notify_flags(value).unwrap_or(0);
    shared.config.hot.notify.store(flags, Relaxed);
}

/// Publishes what an effect is called, if anybody asked for it.
pub fn notify(shared: &Shared, effect: &Effect<'_>) {
    if effect.is_new {
        notify_event(shared, effect.db, effect.key, "new", Class::NEW);
    }
    let event = effect.event;
    if !event.name().is_empty() {
        notify_event(shared, effect.db, effect.key, event.name(), event.class());
    }
}

/// Publishes one event of a key.
pub fn notify_event(shared: &Shared, db: u8, key: &[u8], event: &str, class: Class) {
    let flags = shared.config.hot.notify.load(Relaxed);
    if flags & class.0 == 0 {
        return;
    }
    if flags & KEYSPACE != 0 {
        let channel = [format!("__keyspace@{db}__:").as_bytes(), key].concat();
        publish(shared, &channel, event.as_bytes());
    }
    if flags & KEYEVENT != 0 {
        let channel = format!("__keyevent@{db}__:{event}");
        publish(shared, channel.as_bytes(), key);
    }
}
