//! The command table: the shape of a row, the list of families, and the lookup by name.
//!
//! From these rows come dispatch, arity and key checks, COMMAND and its subcommands, the command
//! reference, completion in the shell, the fuzz dictionary, per-command statistics and the example
//! tests. A name that is absent here does not exist.

mod group;

pub use group::Group;

use crate::context::Cx;
use crate::error::Outcome;
use hypercache_protocol::parse::Args;
use hypercache_stdx::hash::load_short;
use hypercache_stdx::number;
use std::sync::OnceLock;

/// A command's function: arguments in, reply written.
pub type Run = fn(&mut Cx<'_>, Args<'_>) -> Outcome;

macro_rules! bits {
    ($(#[$doc:meta])* $type:ident { $($name:ident $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub struct $type(pub u32);

        impl $type {
            bits!(@ 0, $($name $text,)+);
            /// Names of all bits, in COMMAND's order.
            pub const NAMES: &[($type, &'static str)] = &[$(($type::$name, $text)),+];
            /// No bit.
            pub const NONE: $type = $type(0);

            /// Whether all bits of `other` are set.
            #[inline]
            #[must_use]
            pub const fn has(self, other: $type) -> bool {
                self.0 & other.0 == other.0
            }

            /// The bits of both.
            #[must_use]
            pub const fn or(self, other: $type) -> $type {
                $type(self.0 | other.0)
            }

            /// The names of the bits that are set.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                Self::NAMES.iter().filter(move |(bit, _)| self.has(*bit)).map(|(_, name)| *name)
            }
        }

        impl std::ops::BitOr for $type {
            type Output = $type;
            fn bitor(self, other: $type) -> $type {
                self.or(other)
            }
        }
    };
    (@ $n:expr, $name:ident $text:literal, $($rest:tt)*) => {
        #[doc = concat!("`", $text, "`")]
        pub const $name: Self = Self(1 << $n);
        bits!(@ $n + 1, $($rest)*);
    };
    (@ $n:expr,) => {};
}

bits! {
    /// What dispatch must know of a command.
    Flags {
        WRITE "write",
        READONLY "readonly",
        DENY_OOM "denyoom",
        MODULE "module",
        ADMIN "admin",
        PUBSUB "pubsub",
        NO_SCRIPT "noscript",
        BLOCKING "blocking",
        LOADING "loading",
        STALE "stale",
        SKIP_MONITOR "skip_monitor",
        SKIP_SLOWLOG "skip_slowlog",
        ASKING "asking",
        FAST "fast",
        NO_AUTH "no_auth",
        MAY_REPLICATE "may_replicate",
        NO_MANDATORY_KEYS "no_mandatory_keys",
        NO_ASYNC_LOADING "no_async_loading",
        NO_MULTI "no_multi",
        MOVABLE_KEYS "movablekeys",
        ALLOW_BUSY "allow_busy",
    }
}

bits! {
    /// ACL categories. `write`, `read`, `admin`, `dangerous`, `fast`, `slow`, `pubsub` and
    /// `blocking` follow from the flags (see [`Command::acl_all`]); rows name only the others.
    Acl {
        KEYSPACE "keyspace",
        READ "read",
        WRITE "write",
        SET "set",
        SORTED_SET "sortedset",
        LIST "list",
        HASH "hash",
        STRING "string",
        BITMAP "bitmap",
        HYPERLOGLOG "hyperloglog",
        GEO "geo",
        STREAM "stream",
        PUBSUB "pubsub",
        ADMIN "admin",
        FAST "fast",
        SLOW "slow",
        BLOCKING "blocking",
        DANGEROUS "dangerous",
        CONNECTION "connection",
        TRANSACTION "transaction",
        SCRIPTING "scripting",
    }
}

bits! {
    /// What a command does with the keys of a specification, as COMMAND INFO shows it.
    KeyFlags {
        RO "RO",
        RW "RW",
        OW "OW",
        RM "RM",
        ACCESS "access",
        UPDATE "update",
        INSERT "insert",
        DELETE "delete",
        NOT_KEY "not_key",
        INCOMPLETE "incomplete",
        VARIABLE_FLAGS "variable_flags",
    }
}

/// Where the keys of a command are among its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// There are none.
    None,
    /// Every `step`th argument from `first` to `last` (negative: from the end, -1 the last one).
    Range {
        /// Number of the first key; the command's name is number 0.
        first: usize,
        /// Number of the last key.
        last: isize,
        /// Distance between keys.
        step: usize,
        /// What is done with them.
        flags: KeyFlags,
    },
    /// Argument `count` says how many keys there are; they are what follows it.
    Counted {
        /// Number of the argument that holds the count.
        count: usize,
        /// What is done with the keys.
        flags: KeyFlags,
    },
    /// Argument `count` says how many keys there are; each has a value behind it.
    CountedPairs {
        /// Number of the argument that holds the count.
        count: usize,
        /// What is done with the keys.
        flags: KeyFlags,
    },
    /// The first half of what follows the word STREAMS, which is looked for as XREAD's options are read.
    Streams {
        /// Number of the first argument that may be the word, as COMMAND INFO shows it.
        from: usize,
        /// What is done with the keys.
        flags: KeyFlags,
    },
    /// The argument behind one of these words; the last one, if there are several.
    Behind {
        /// The words, in upper case; each is a specification of its own.
        words: &'static [&'static str],
        /// Number of the first argument that may be a word.
        from: usize,
        /// What is done with the key.
        flags: KeyFlags,
    },
    /// Those of SORT: the first argument, what BY and GET name, and where the result goes.
    Sort {
        /// Whether it may be stored.
        stores: bool,
    },
    /// Those of MIGRATE: the third argument, or all behind KEYS.
    Migrate,
    /// All behind a word, which is looked for from an argument on, counted from the end when negative:
    /// a specification, as COMMAND INFO shows it.
    Rest {
        /// The word, in upper case.
        word: &'static str,
        /// Number of the first argument that may be the word.
        from: isize,
        /// What is done with them.
        flags: KeyFlags,
    },
    /// A specification of keys that no rule finds, as COMMAND INFO shows it.
    Unknown {
        /// What is done with the keys.
        flags: KeyFlags,
        /// How they are found.
        note: &'static str,
    },
    /// Two specifications with different flags, as source and target of COPY.
    Two(&'static Keys, &'static Keys),
    /// The command works on whole databases: all partitions are locked.
    All,
    /// The command visits partitions one at a time by itself (KEYS, SCAN, DBSIZE): no lock is
    /// taken for it, except within a transaction, where all are.
    Each,
}

impl Keys {
    /// One key, the first argument.
    #[must_use]
    pub const fn first(flags: KeyFlags) -> Keys {
        Keys::Range { first: 1, last: 1, step: 1, flags }
    }

    /// The specifications one by one, none of them [`Keys::Two`].
    #[must_use]
    pub fn specs(&self) -> Vec<Keys> {
        match *self {
            Keys::Range { .. } | Keys::Counted { .. } | Keys::Streams { .. } => vec![*self],
            Keys::Unknown { .. } | Keys::CountedPairs { .. } | Keys::Rest { .. } => vec![*self],
            Keys::Migrate => crate::migrate::SPECS.to_vec(),
            Keys::Sort { stores } => crate::sort::specs(stores),
            Keys::Behind { words, from, flags } => {
                let spec = |word| Keys::Behind { words: std::slice::from_ref(word), from, flags };
                words.iter().map(spec).collect()
            }
            Keys::Two(a, b) => [a.specs(), b.specs()].concat(),
            Keys::None | Keys::All | Keys::Each => Vec::new(),
        }
    }

    /// What is done with the keys of one specification.
    #[must_use]
    pub fn flags(&self) -> KeyFlags {
        match *self {
            Keys::Range { flags, .. }
            | Keys::Counted { flags, .. }
            | Keys::CountedPairs { flags, .. }
            | Keys::Streams { flags, .. }
            | Keys::Unknown { flags, .. }
            | Keys::Rest { flags, .. }
            | Keys::Behind { flags, .. } => flags,
            _ => KeyFlags::NONE,
        }
    }

    /// Whether there are keys of the keyspace: the channels of shard pub/sub are placed like keys
    /// but are none.
    #[must_use]
    pub fn are_keys(&self) -> bool {
        self.specs().iter().all(|spec| !spec.flags().has(KeyFlags::NOT_KEY))
    }

    /// Calls `f` with the number of every argument that is a key. A count that is no number, or
    /// larger than what follows it, stands for no keys: the command will refuse it.
    pub fn for_each(&self, args: Args<'_>, f: &mut dyn FnMut(usize, KeyFlags)) {
        let len = args.len();
        match *self {
            Keys::None | Keys::All | Keys::Each | Keys::Unknown { .. } | Keys::Rest { .. } => {}
            Keys::Migrate => crate::migrate::each_key(args, f),
            Keys::Sort { stores } => crate::sort::each_key(args, stores, f),
            Keys::Two(a, b) => {
                a.for_each(args, f);
                b.for_each(args, f);
            }
            Keys::Counted { count, flags } => {
                let keys = counted(args, count).unwrap_or(0);
                (count + 1..=count + keys).for_each(|i| f(i, flags));
            }
            Keys::CountedPairs { count, flags } => {
                let keys = counted(args, count).filter(|keys| 2 * keys < len - count);
                (0..keys.unwrap_or(0)).for_each(|i| f(count + 1 + 2 * i, flags));
            }
            Keys::Streams { flags, .. } => {
                let Some(first) = streams(args) else { return };
                (first..first + (len - first) / 2).for_each(|i| f(i, flags));
            }
            Keys::Behind { words, from, flags } => {
                if let Some(i) = behind(args, words, from) {
                    f(i, flags);
                }
            }
            Keys::Range { first, last, step, flags } => {
                let last = if last < 0 { len as isize + last } else { last };
                let mut i = first;
                while i as isize <= last && i < len {
                    f(i, flags);
                    i += step;
                }
            }
        }
    }
}

/// The number of the last argument behind a word; what is behind a word is none itself.
fn behind(args: Args<'_>, words: &[&str], from: usize) -> Option<usize> {
    let (mut found, mut i) = (None, from);
    while i + 1 < args.len() {
        let is_word = words.iter().any(|word| args.get(i).eq_ignore_ascii_case(word.as_bytes()));
        if is_word {
            i += 1;
            found = Some(i);
        }
        i += 1;
    }
    found
}

/// How many keys follow argument `at`, which counts them; `None` when it does not say so.
#[must_use]
pub fn counted(args: Args<'_>, at: usize) -> Option<usize> {
    if at >= args.len() {
        return None;
    }
    let keys = usize::try_from(number::parse_i64(args.get(at))?).ok()?;
    (keys < args.len() - at).then_some(keys)
}

/// Where the keys of XREAD and XREADGROUP begin: behind the word STREAMS, which is no option's value.
#[must_use]
pub fn streams(args: Args<'_>) -> Option<usize> {
    let mut i = 1;
    while i + 1 < args.len() {
        i += match args.get(i).to_ascii_uppercase().as_slice() {
            b"STREAMS" => return Some(i + 1),
            b"BLOCK" | b"COUNT" => 2,
            b"GROUP" => 3,
            b"NOACK" => 1,
            _ => return None,
        };
    }
    None
}

/// One row: all there is to know of a command.
#[derive(Debug)]
pub struct Command {
    /// The name in upper case; of a subcommand, the second word only.
    pub name: &'static str,
    /// Where the documentation lists it.
    pub group: Group,
    /// The version of Redis that brought it.
    pub since: &'static str,
    /// Number of arguments with the name: exactly `n`, or at least `-n` when negative. Of a
    /// subcommand both words count.
    pub arity: i32,
    /// Where its keys are.
    pub keys: Keys,
    /// What dispatch must know.
    pub flags: Flags,
    /// ACL categories beyond those that follow from the flags.
    pub acl: Acl,
    /// Its function. A container's runs when no subcommand is named (see [`subcommand_needed`]).
    pub run: Run,
    /// One line for the reference.
    pub summary: &'static str,
    /// Cost, for the reference.
    pub complexity: &'static str,
    /// Arguments in the notation of the reference: `key value [NX | XX] [GET]`.
    pub syntax: &'static str,
    /// Transcript that is run as a test: lines of `> COMMAND` and the replies as the shell shows
    /// them.
    pub examples: &'static str,
    /// Hints for proxies and libraries, as COMMAND INFO shows them.
    pub tips: &'static [&'static str],
    /// The second words, of a container.
    pub subcommands: &'static [Command],
}

impl Command {
    /// The values that most rows share, for `..Command::DEFAULT`.
    pub const DEFAULT: Command = Command {
        name: "",
        group: Group::Generic,
        since: "1.0.0",
        arity: 1,
        keys: Keys::None,
        flags: Flags::NONE,
        acl: Acl::NONE,
        run: subcommand_needed,
        summary: "",
        complexity: "O(1)",
        syntax: "",
        examples: "",
        tips: &[],
        subcommands: &[],
    };

    /// Whether `len` arguments, the name included, are acceptable.
    #[inline]
    #[must_use]
    pub fn accepts(&self, len: usize) -> bool {
        let len = len as i32;
        if self.arity >= 0 { len == self.arity } else { len >= -self.arity }
    }

    /// Whether its flags say nothing beyond that it reads or writes.
    fn only_reads_or_writes(&self) -> bool {
        let known = Flags::WRITE | Flags::READONLY | Flags::DENY_OOM | Flags::FAST;
        known.has(self.flags)
    }

    /// All ACL categories, those that follow from the flags included.
    #[must_use]
    pub fn acl_all(&self) -> Acl {
        let mut acl = self.acl;
        let mut imply = |flag, category| {
            if self.flags.has(flag) {
                acl = acl | category;
            }
        };
        imply(Flags::WRITE, Acl::WRITE);
        // Redis: scripting commands are readonly by flag but not of the category.
        if self.group != Group::Scripting {
            imply(Flags::READONLY, Acl::READ);
        }
        imply(Flags::ADMIN, Acl::ADMIN | Acl::DANGEROUS);
        imply(Flags::PUBSUB, Acl::PUBSUB);
        imply(Flags::FAST, Acl::FAST);
        imply(Flags::BLOCKING, Acl::BLOCKING);
        if acl.has(Acl::FAST) { acl } else { acl | Acl::SLOW }
    }
}

/// What a container does without a subcommand; the arity check answers before it is reached.
pub fn subcommand_needed(_: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    Err(crate::ReplyError::Syntax)
}

/// The families, one file each.
pub const FAMILIES: &[&[Command]] = &[
    crate::string::COMMANDS,
    crate::counter::COMMANDS,
    crate::increx::COMMANDS,
    crate::compare::COMMANDS,
    crate::load::COMMANDS,
    crate::lcs::COMMANDS,
    crate::bitmap::COMMANDS,
    crate::bitfield::COMMANDS,
    crate::list::COMMANDS,
    crate::list_pop::COMMANDS,
    crate::set::COMMANDS,
    crate::set_algebra::COMMANDS,
    crate::zset::COMMANDS,
    crate::zset_range::COMMANDS,
    crate::zset_pop::COMMANDS,
    crate::zset_algebra::COMMANDS,
    crate::geo::COMMANDS,
    crate::geo_search::COMMANDS,
    crate::hash::COMMANDS,
    crate::hash_expire::COMMANDS,
    crate::hyperloglog::COMMANDS,
    crate::stream::COMMANDS,
    crate::stream_delete::COMMANDS,
    crate::stream_read::COMMANDS,
    crate::stream_group::COMMANDS,
    crate::stream_info::COMMANDS,
    crate::generic::COMMANDS,
    crate::dump::COMMANDS,
    crate::migrate::COMMANDS,
    crate::sort::COMMANDS,
    crate::expire::COMMANDS,
    crate::database::COMMANDS,
    crate::tag::COMMANDS,
    crate::connection::COMMANDS,
    crate::clients::COMMANDS,
    crate::pubsub::COMMANDS,
    crate::transaction::COMMANDS,
    crate::script::COMMANDS,
    crate::function::COMMANDS,
    crate::server::COMMANDS,
    crate::cluster_command::COMMANDS,
    crate::cluster_admin::COMMANDS,
    crate::acl_command::COMMANDS,
    crate::config_command::COMMANDS,
    crate::slowlog::COMMANDS,
    crate::commandlog::COMMANDS,
    crate::monitor::COMMANDS,
    crate::info::COMMANDS,
    crate::introspect::COMMANDS,
    crate::memory::COMMANDS,
    crate::miss_ratio::COMMANDS,
    crate::advice::COMMANDS,
    crate::hot_keys_command::COMMANDS,
    crate::latency::COMMANDS,
    crate::debug::COMMANDS,
];

/// A row with its number (for statistics) and full name.
#[derive(Debug)]
pub struct Entry {
    /// Consecutive number, below [`Table::len`].
    pub id: usize,
    /// The row.
    pub row: &'static Command,
    /// The lower-case name; of a subcommand `config|get`.
    pub full_name: String,
    /// The second words.
    pub subcommands: Vec<&'static Entry>,
    /// Whether it only reads or writes the one key that is its first argument: no state but the
    /// key's matters to it, and it changes none.
    pub is_plain: bool,
    /// Whether its first argument is its one key.
    pub has_one_key: bool,
    /// Whether what its keys hold are collections.
    pub holds_object: bool,
    /// Whether the partitions of its keys are locked for it; not if they are channels.
    pub locks_keys: bool,
    /// Whether it is so quick that it is not timed by itself.
    pub is_quick: bool,
    /// The numbers of arguments with which it is plain and quick: the least, and how many more.
    plain_args: (u32, u32),
    /// Whether its name has letters only, so that eight of them are known by their folded word.
    is_letters: bool,
    /// Whether it runs a script, so that it takes the turn before its partitions.
    pub runs_scripts: bool,
}

/// The row that was found last: most commands of a batch have the same name.
#[derive(Debug)]
pub struct Recent {
    /// The letters of its name in upper case.
    word: u64,
    /// Takes a word that begins with the name to those.
    mask: u64,
    /// Length of the name, which no name has before the first one is found.
    len: u32,
    entry: &'static Entry,
    /// The one with a longer name that was found last, and how that was spelt.
    long: Option<(Spelling, &'static Entry)>,
}

/// The first eight and the last eight bytes of a name, and its length: all of a name up to 16.
type Spelling = (u64, u64, usize);

impl Default for Recent {
    fn default() -> Self {
        Recent { word: 0, mask: 0, len: u32::MAX, entry: unknown(), long: None }
    }
}

impl Recent {
    /// The entry of a command's name in any case; see [`Table::get`].
    #[inline(always)]
    pub fn get(&mut self, args: Args<'_>) -> Option<&'static Entry> {
        match args.name_word() {
            Some((word, len)) if len == self.len && word & self.mask == self.word => {
                Some(self.entry)
            }
            _ => self.get_another(args.get(0)),
        }
    }

    #[inline(never)]
    fn get_another(&mut self, name: &[u8]) -> Option<&'static Entry> {
        if (9..=16).contains(&name.len()) {
            return self.get_long(name);
        }
        let entry = table().get(name)?;
        if name.len() <= size_of::<u64>() && entry.is_letters {
            let mask = UPPER_CASE.unbounded_shr(u64::BITS - 8 * name.len() as u32);
            (self.word, self.mask) = (folded_word(name), mask);
            (self.len, self.entry) = (name.len() as u32, entry);
        }
        Some(entry)
    }

    fn get_long(&mut self, name: &[u8]) -> Option<&'static Entry> {
        let (start, end) = (&name[..8], &name[name.len() - 8..]);
        let spelling = (load_short(start), load_short(end), name.len());
        match self.long {
            Some((recent, entry)) if recent == spelling => Some(entry),
            _ => {
                let entry = table().get(name)?;
                self.long = Some((spelling, entry));
                Some(entry)
            }
        }
    }
}

const BUCKETS: usize = 1024;

/// All rows with a lookup by name: one probe of a hash over the letters without case.
#[derive(Debug)]
pub struct Table {
    entries: Vec<&'static Entry>,
    /// Each with the folded first word of its name, so that a short name is one comparison.
    buckets: Box<[(u64, Option<&'static Entry>); BUCKETS]>,
}

/// The table, built on first use.
#[inline]
pub fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(Table::build)
}

impl Table {
    fn build() -> Table {
        let mut table = Table { entries: Vec::new(), buckets: Box::new([(0, None); BUCKETS]) };
        let mut next_id = 0;
        for row in FAMILIES.iter().copied().flatten() {
            let entry = table.add(row, None, &mut next_id);
            let mut at = bucket_of(entry.row.name.as_bytes());
            while let Some(other) = table.buckets[at].1 {
                assert_ne!(other.row.name, row.name, "a command has two rows");
                at = (at + 1) % BUCKETS;
            }
            table.buckets[at] = (folded_word(row.name.as_bytes()), Some(entry));
        }
        table.entries.sort_by_key(|entry| entry.id);
        table
    }

    /// Entries live as long as the process: there is one table.
    fn add(
        &mut self,
        row: &'static Command,
        parent: Option<&str>,
        next_id: &mut usize,
    ) -> &'static Entry {
        let name = row.name.to_ascii_lowercase();
        let full_name = parent.map_or_else(|| name.clone(), |p| format!("{p}|{name}"));
        let id = *next_id;
        *next_id += 1;
        let add_sub = |sub| self.add(sub, Some(&name), next_id);
        let subcommands = row.subcommands.iter().map(add_sub).collect();
        let locks_keys = row.keys.are_keys();
        let has_one_key = locks_keys && matches!(row.keys, Keys::Range { first: 1, last: 1, .. });
        let is_plain = has_one_key && row.only_reads_or_writes();
        let is_quick = row.flags.has(Flags::FAST) || is_plain && row.complexity == "O(1)";
        let plain_args = match u32::try_from(row.arity) {
            // None: no command has as many arguments.
            _ if !is_plain || !is_quick => (u32::MAX, 0),
            Ok(exactly) => (exactly, 0),
            Err(_) => (row.arity.unsigned_abs(), i32::MAX as u32),
        };
        let runs_scripts = row.group == Group::Scripting && row.keys != Keys::None;
        let entry = Entry {
            id,
            row,
            full_name,
            subcommands,
            is_plain,
            has_one_key,
            holds_object: row.group.is_of_objects(),
            locks_keys,
            is_quick,
            plain_args,
            is_letters: row.name.bytes().all(|b| b.is_ascii_uppercase()),
            runs_scripts,
        };
        let entry: &'static Entry = Box::leak(Box::new(entry));
        self.entries.push(entry);
        entry
    }

    /// The entry of a name in any case.
    #[inline]
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&'static Entry> {
        let word = folded_word(name);
        let mut at = bucket_of(name);
        while let (other, Some(entry)) = self.buckets[at] {
            let is_whole = name.len() == entry.row.name.len() && name.len() <= 8;
            let is_short = is_whole && entry.is_letters;
            if other == word && (is_short || entry.row.name.as_bytes().eq_ignore_ascii_case(name)) {
                return Some(entry);
            }
            at = (at + 1) % BUCKETS;
        }
        None
    }

    /// The entry of `config|get` or `get`.
    #[must_use]
    pub fn get_full(&self, name: &[u8]) -> Option<&'static Entry> {
        match name.iter().position(|&b| b == b'|') {
            None => self.get(name),
            Some(at) => self.get(&name[..at])?.subcommand(&name[at + 1..]),
        }
    }

    /// All entries, subcommands included; an entry's place is its `id`.
    #[must_use]
    pub fn entries(&self) -> &[&'static Entry] {
        &self.entries
    }

    /// Entries that are no subcommands.
    pub fn commands(&self) -> impl Iterator<Item = &'static Entry> {
        self.entries.iter().copied().filter(|entry| !entry.full_name.contains('|'))
    }
}

/// The number by which a client's last command is known if it was row `row` of the memcached
/// commands: they follow those of the table.
#[must_use]
pub fn memcached_command(row: usize) -> u16 {
    (table().entries().len() + row + 1) as u16
}

/// An entry that stands for no command, before the first one ran.
#[must_use]
pub fn unknown() -> &'static Entry {
    static UNKNOWN: Entry = Entry {
        id: 0,
        row: &Command::DEFAULT,
        full_name: String::new(),
        subcommands: Vec::new(),
        is_plain: false,
        has_one_key: false,
        holds_object: false,
        locks_keys: false,
        is_quick: false,
        plain_args: (u32::MAX, 0),
        is_letters: false,
        runs_scripts: false,
    };
    &UNKNOWN
}

impl Entry {
    /// Whether it is plain and quick and takes as many arguments, its name included.
    #[inline]
    #[must_use]
    pub fn is_plain_with(&self, args: usize) -> bool {
        let (least, more) = self.plain_args;
        (args as u32).wrapping_sub(least) <= more
    }

    /// The subcommand of that name in any case.
    #[must_use]
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Entry> {
        let same = |e: &&&'static Entry| e.row.name.as_bytes().eq_ignore_ascii_case(name);
        self.subcommands.iter().find(same).copied()
    }
}

/// Takes the letters in a word to upper case.
const UPPER_CASE: u64 = 0xdfdf_dfdf_dfdf_dfdf;

/// The first eight bytes with letters in upper case. For a name of letters this is one-to-one:
/// only a letter folds onto a letter.
#[inline]
fn folded_word(name: &[u8]) -> u64 {
    load_short(&name[..name.len().min(8)]) & UPPER_CASE
}

/// A multiplicative hash of the first eight letters without case, the last one, and the length.
#[inline]
fn bucket_of(name: &[u8]) -> usize {
    let tail = u64::from(*name.last().unwrap_or(&0) & 0xdf);
    let mixed = (folded_word(name) ^ (name.len() as u64) << 59 ^ tail << 31)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 54) as usize
}

#[cfg(test)]
mod tests;
