//! Which connections CLIENT LIST shows and CLIENT KILL closes: the filters of Redis 7.2 and those that
//! Valkey 8 and 9 added. A client must match all of them; what begins with `NOT-` must not be so.

use super::{fail, flag_letters, is, user_name};
use crate::client::{Client, ClientFlags};
use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::keyspace::DATABASES;
use crate::session::Session;
use hypercache_protocol::parse::Args;
use hypercache_stdx::number::parse_i64;
use std::sync::atomic::Ordering::Relaxed;

/// The classes of clients that filters name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Normal,
    Pubsub,
    /// Masters and replicas: there are none.
    Replication,
}

impl Class {
    fn of(client: &Client) -> Class {
        if client.has(ClientFlags::PUBSUB) { Class::Pubsub } else { Class::Normal }
    }

    fn parse(cx: &mut Cx<'_>, word: &[u8]) -> Result<Class, ReplyError> {
        let names = [
            ("NORMAL", Class::Normal),
            ("PUBSUB", Class::Pubsub),
            ("MASTER", Class::Replication),
            ("PRIMARY", Class::Replication),
            ("SLAVE", Class::Replication),
            ("REPLICA", Class::Replication),
        ];
        match names.iter().find(|(name, _)| is(word, name)) {
            Some((_, class)) => Ok(*class),
            None => Err(fail(cx, &[b"ERR Unknown client type '", word, b"'"])),
        }
    }
}

/// What a filter looks at, as it is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aspect {
    Id,
    Type,
    Address,
    LocalAddress,
    Ip,
    User,
    Name,
    LibraryName,
    LibraryVersion,
    Flags,
    Capabilities,
    Database,
    Age,
    Idle,
}

/// Names of aspects, and whether `NOT-` may stand before.
const ASPECTS: &[(&str, Aspect, bool)] = &[
    ("ID", Aspect::Id, true),
    ("TYPE", Aspect::Type, true),
    ("ADDR", Aspect::Address, true),
    ("LADDR", Aspect::LocalAddress, true),
    ("IP", Aspect::Ip, true),
    ("USER", Aspect::User, true),
    ("NAME", Aspect::Name, true),
    ("LIB-NAME", Aspect::LibraryName, true),
    ("LIB-VER", Aspect::LibraryVersion, true),
    ("FLAGS", Aspect::Flags, true),
    ("CAPA", Aspect::Capabilities, true),
    ("DB", Aspect::Database, true),
    ("MAXAGE", Aspect::Age, false),
    ("IDLE", Aspect::Idle, false),
];

/// What a filter compares with.
#[derive(Debug)]
enum Wanted<'a> {
    /// In ascending order.
    Ids(Vec<u64>),
    Class(Class),
    Text(&'a [u8]),
    Number(u64),
}

/// One filter.
#[derive(Debug)]
struct Test<'a> {
    aspect: Aspect,
    is_negated: bool,
    wanted: Wanted<'a>,
}

/// All that is asked of a client.
#[derive(Debug, Default)]
pub(super) struct Filter<'a> {
    tests: Vec<Test<'a>>,
    spares_caller: bool,
}

/// The aspect that a word names, and whether it is negated.
fn aspect_of(word: &[u8]) -> Option<(Aspect, bool)> {
    let (rest, is_negated) = match word {
        [b'N' | b'n', b'O' | b'o', b'T' | b't', b'-', rest @ ..] => (rest, true),
        rest => (rest, false),
    };
    let known =
        ASPECTS.iter().find(|(name, _, may_negate)| is(rest, name) && (*may_negate || !is_negated));
    known.map(|(_, aspect, _)| (*aspect, is_negated))
}

/// Whether a word begins a filter.
pub(super) fn is_filter(word: &[u8]) -> bool {
    aspect_of(word).is_some() || is(word, "SKIPME")
}

impl<'a> Filter<'a> {
    /// A filter by the address alone.
    pub(super) fn by_address(address: &'a [u8]) -> Self {
        let wanted = Wanted::Text(address);
        let test = Test { aspect: Aspect::Address, is_negated: false, wanted };
        Filter { tests: vec![test], spares_caller: false }
    }

    /// The filters from argument 2 on.
    pub(super) fn parse(
        cx: &mut Cx<'_>,
        args: Args<'a>,
        spares_caller: bool,
    ) -> Result<Self, ReplyError> {
        let mut filter = Filter { tests: Vec::new(), spares_caller };
        let mut i = 2;
        while i < args.len() {
            if i + 1 == args.len() {
                return Err(ReplyError::Syntax);
            }
            i = filter.parse_one(cx, args, i)?;
        }
        Ok(filter)
    }

    /// Reads the filter that begins with argument `i`; returns the number of what follows it.
    fn parse_one(
        &mut self,
        cx: &mut Cx<'_>,
        args: Args<'a>,
        i: usize,
    ) -> Result<usize, ReplyError> {
        let (word, value) = (args.get(i), args.get(i + 1));
        if is(word, "SKIPME") {
            self.spares_caller = parse_yes_no(value)?;
            return Ok(i + 2);
        }
        let (aspect, is_negated) = aspect_of(word).ok_or(ReplyError::Syntax)?;
        let mut next = i + 2;
        let wanted = match aspect {
            Aspect::Id => {
                let mut ids = vec![parse_client_id(value)?];
                while next < args.len() && parse_i64(args.get(next)).is_some() {
                    ids.push(parse_client_id(args.get(next))?);
                    next += 1;
                }
                ids.sort_unstable();
                Wanted::Ids(ids)
            }
            Aspect::Type => Wanted::Class(Class::parse(cx, value)?),
            Aspect::Age => Wanted::Number(parse_seconds(value, AGE_ERRORS)?),
            Aspect::Idle => Wanted::Number(parse_seconds(value, IDLE_ERRORS)?),
            Aspect::Database => Wanted::Number(parse_database(value)?),
            _ => {
                check_text(cx, aspect, value)?;
                Wanted::Text(value)
            }
        };
        // What is said again counts.
        self.tests.retain(|test| test.aspect != aspect || test.is_negated != is_negated);
        self.tests.push(Test { aspect, is_negated, wanted });
        Ok(next)
    }

    /// Whether a client matches, as the caller sees it.
    pub(super) fn matches(&self, client: &Client, caller: &Session, now_s: u64) -> bool {
        let is_spared = self.spares_caller && client.id == caller.client.id;
        let mut tests = self.tests.iter();
        !is_spared && tests.all(|test| test.is_true(client, caller, now_s) != test.is_negated)
    }
}

impl Test<'_> {
    fn is_true(&self, client: &Client, caller: &Session, now_s: u64) -> bool {
        let seconds_since = |then_s: u32| now_s.saturating_sub(u64::from(then_s));
        match &self.wanted {
            Wanted::Ids(ids) => ids.binary_search(&client.id).is_ok(),
            Wanted::Class(class) => *class == Class::of(client),
            Wanted::Number(n) => match self.aspect {
                Aspect::Age => seconds_since(client.created_s) >= *n,
                Aspect::Idle => seconds_since(client.active_s.load(Relaxed)) >= *n,
                _ => u64::from(client.db()) == *n,
            },
            Wanted::Text(text) => self.has_text(client, caller, text),
        }
    }

    fn has_text(&self, client: &Client, caller: &Session, text: &[u8]) -> bool {
        let names = client.names();
        match self.aspect {
            Aspect::Address => client.peer().to_string().as_bytes() == text,
            Aspect::LocalAddress => client.local().to_string().as_bytes() == text,
            Aspect::Ip => host_of(&client.peer().to_string()).as_bytes() == text,
            Aspect::User => user_name(names.account.as_deref()) == text,
            Aspect::Name => &names.name[..] == text,
            Aspect::LibraryName => &names.lib_name[..] == text,
            Aspect::LibraryVersion => &names.lib_version[..] == text,
            Aspect::Capabilities => {
                let has = capabilities(client);
                text.iter().all(|letter| has.as_bytes().contains(letter))
            }
            _ => {
                let has = flag_letters(client, caller);
                text.iter().all(|letter| has.as_bytes().contains(letter))
            }
        }
    }
}

/// The letters of what a client says it can do, as CLIENT LIST shows them.
pub(super) fn capabilities(client: &Client) -> &'static str {
    if client.has(ClientFlags::REDIRECT_CAPABLE) { "r" } else { "" }
}

/// An address without its port; brackets around one of version 6 go, too.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn parse_yes_no(word: &[u8]) -> Result<bool, ReplyError> {
    match word {
        _ if is(word, "YES") => Ok(true),
        _ if is(word, "NO") => Ok(false),
        _ => Err(ReplyError::Syntax),
    }
}

fn parse_client_id(text: &[u8]) -> Result<u64, ReplyError> {
    let id = parse_i64(text).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
    id.ok_or(ReplyError::Text("ERR client-id should be greater than 0"))
}

/// What is said of a time that is no number, and of one that is not positive.
type TimeErrors = (&'static str, &'static str);
const AGE_ERRORS: TimeErrors =
    ("ERR maxage is not an integer or out of range", "ERR maxage should be greater than 0");
const IDLE_ERRORS: TimeErrors =
    ("ERR idle is not an integer or out of range", "ERR idle should be greater than 0");

fn parse_seconds(text: &[u8], (no_number, too_small): TimeErrors) -> Result<u64, ReplyError> {
    let seconds = parse_i64(text).ok_or(ReplyError::Text(no_number))?;
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    seconds.ok_or(ReplyError::Text(too_small))
}

fn parse_database(db: &[u8]) -> Result<u64, ReplyError> {
    let text = "ERR DB is not an integer or out of range";
    let db = parse_i64(db).ok_or(ReplyError::Text(text))?;
    let db = u64::try_from(db).ok().filter(|db| *db < DATABASES as u64);
    db.ok_or(ReplyError::Text("ERR DB number should be between 0 and 15"))
}

/// Checks a text that must be one of those that can be.
fn check_text(cx: &mut Cx<'_>, aspect: Aspect, text: &[u8]) -> Outcome {
    let knows = |letters: &str| text.iter().all(|letter| letters.as_bytes().contains(letter));
    match aspect {
        Aspect::User if cx.shared.acl.get(text).is_none() => {
            Err(fail(cx, &[b"ERR No such user '", text, b"'"]))
        }
        Aspect::Flags if !knows(FLAG_LETTERS) => {
            Err(fail(cx, &[b"ERR Unknown flags found in the provided filter: ", text]))
        }
        Aspect::Capabilities if !knows("r") => {
            Err(fail(cx, &[b"ERR Unknown capa found in the provided filter: ", text]))
        }
        _ => Ok(()),
    }
}

/// Letters that CLIENT LIST may show, here or elsewhere.
const FLAG_LETTERS: &str = "NOPxbtRBdcuAUeTrSMI";
