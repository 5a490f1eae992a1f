//! Functions: FUNCTION, FCALL, and the libraries that all workers share.
//!
//! A library is a text that registers functions when it is run. FUNCTION LOAD runs it once to learn
//! which; the interpreter of each worker runs it again when one of them is first called there. So
//! what a library keeps in its own local variables is kept per worker.

mod payload;

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::script::{BASE as SCRIPT_BASE, fail, is_async, key_count};
use crate::scripts::{Call, Registered, ScriptFlags, with_vm};
use crate::table::{Command, Flags};
use crate::turn::Kind;
use hypercache_protocol::parse::Args;
use hypercache_stdx::clock;
use hypercache_stdx::glob::glob_match;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const BASE: Command = Command { since: "7.0.0", ..SCRIPT_BASE };
const CHANGES: Flags = Flags::WRITE.or(Flags::NO_SCRIPT);
const CALL_SYNTAX: &str = "function numkeys [key [key ...]] [arg [arg ...]]";
const ALL_SHARDS: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "FCALL",
        arity: -3,
        keys: crate::script::ANY_KEYS,
        flags: crate::script::RUNS,
        run: fcall,
        summary: "Calls a function of a library.",
        complexity: "That of the function",
        syntax: CALL_SYNTAX,
        examples: "> FUNCTION LOAD \"#!lua name=l \\n redis.register_function('f', function(keys, args) return {keys[1], args[1]} end)\"\n\"l\"\n> FCALL f 1 k a\n1) \"k\"\n2) \"a\"\n> FCALL nosuch 0\n(error) ERR Function not found",
        ..BASE
    },
    Command {
        name: "FCALL_RO",
        arity: -3,
        keys: crate::script::READ_KEYS,
        flags: crate::script::RUNS.or(Flags::READONLY),
        run: fcall_ro,
        summary: "Calls a function of a library that does not write.",
        complexity: "That of the function",
        syntax: CALL_SYNTAX,
        examples: "> FCALL_RO nosuch 0\n(error) ERR Function not found",
        ..BASE
    },
    Command {
        name: "FUNCTION",
        arity: -2,
        acl: crate::table::Acl::NONE,
        summary: "Manages libraries of functions.",
        complexity: "Depends on subcommand.",
        subcommands: FUNCTION,
        ..BASE
    },
];

const FUNCTION: &[Command] = &[
    Command {
        name: "DELETE",
        arity: 3,
        flags: CHANGES,
        run: delete,
        summary: "Deletes a library.",
        syntax: "library-name",
        examples: "> FUNCTION DELETE nosuch\n(error) ERR Library not found",
        tips: ALL_SHARDS,
        ..BASE
    },
    Command {
        name: "DUMP",
        arity: 2,
        flags: Flags::NO_SCRIPT,
        run: dump,
        summary: "All libraries as a payload for FUNCTION RESTORE.",
        complexity: "O(N) in the bytes of all libraries",
        examples: "> FUNCTION DUMP\n\"\\n\\x00]\\x9b\\\\@\\x0f\\x7f\\xa2\\xda\"",
        ..BASE
    },
    Command {
        name: "FLUSH",
        arity: -2,
        flags: CHANGES,
        run: flush,
        summary: "Deletes all libraries.",
        complexity: "O(N) in the number of functions",
        syntax: "[ASYNC | SYNC]",
        examples: "> FUNCTION FLUSH\nOK",
        tips: ALL_SHARDS,
        ..BASE
    },
    Command {
        name: "HELP",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        run: crate::help::help,
        summary: "Lists the subcommands.",
        examples: "> FUNCTION HELP\n…FUNCTION <subcommand> …",
        ..BASE
    },
    Command {
        name: "KILL",
        arity: 2,
        flags: Flags::NO_SCRIPT.or(Flags::ALLOW_BUSY),
        run: kill,
        summary: "Ends the function that runs, if it has not written.",
        examples: "> FUNCTION KILL\n(error) NOTBUSY No scripts in execution right now.",
        tips: &["request_policy:all_shards", "response_policy:one_succeeded"],
        ..BASE
    },
    Command {
        name: "LIST",
        arity: -2,
        flags: Flags::NO_SCRIPT,
        run: list,
        summary: "The libraries and their functions.",
        complexity: "O(N) in the number of functions",
        syntax: "[LIBRARYNAME library-name-pattern] [WITHCODE]",
        examples: "> FUNCTION LIST\n(empty array)",
        tips: &["nondeterministic_output_order"],
        ..BASE
    },
    Command {
        name: "LOAD",
        arity: -3,
        flags: CHANGES.or(Flags::DENY_OOM),
        run: load,
        summary: "Takes a library.",
        complexity: "That of running the library's text",
        syntax: "[REPLACE] function-code",
        examples: "> FUNCTION LOAD \"x\"\n(error) ERR Missing library metadata",
        tips: ALL_SHARDS,
        ..BASE
    },
    Command {
        name: "RESTORE",
        arity: -3,
        flags: CHANGES.or(Flags::DENY_OOM),
        run: restore,
        summary: "Takes the libraries of a payload of FUNCTION DUMP.",
        complexity: "O(N) in the number of functions",
        syntax: "serialized-value [FLUSH | APPEND | REPLACE]",
        examples: "> FUNCTION RESTORE x\n(error) ERR DUMP payload version or checksum are wrong",
        tips: ALL_SHARDS,
        ..BASE
    },
    Command {
        name: "STATS",
        arity: 2,
        flags: Flags::NO_SCRIPT.or(Flags::ALLOW_BUSY),
        run: stats,
        summary: "The function that runs, and how many there are.",
        tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
        examples: "> FUNCTION STATS\n1) \"running_script\"\n2) (nil)\n3) \"engines\"…",
        ..BASE
    },
];

/// A library that is there.
#[derive(Debug)]
pub struct Library {
    /// Its name.
    pub name: Vec<u8>,
    /// Its text, with the first line that names it.
    pub code: Vec<u8>,
    /// The functions that it registers.
    pub functions: Vec<Registered>,
}

/// Libraries by name, and functions by name.
#[derive(Clone, Debug, Default)]
struct Known {
    libraries: BTreeMap<Vec<u8>, Arc<Library>>,
    /// With their flags.
    functions: HashMap<Vec<u8>, (Arc<Library>, ScriptFlags)>,
}

impl Known {
    /// Adds a library whose functions are no other's.
    fn add(&mut self, library: Library) -> Result<(), Vec<u8>> {
        for function in &library.functions {
            if self.functions.contains_key(&function.name) {
                return Err([b"ERR Function ", &function.name[..], b" already exists"].concat());
            }
        }
        let library = Arc::new(library);
        for function in &library.functions {
            let known = (Arc::clone(&library), function.flags);
            self.functions.insert(function.name.clone(), known);
        }
        self.libraries.insert(library.name.clone(), library);
        Ok(())
    }

    fn remove(&mut self, name: &[u8]) -> bool {
        let Some(library) = self.libraries.remove(name) else { return false };
        for function in &library.functions {
            self.functions.remove(&function.name);
        }
        true
    }
}

/// The libraries of the server.
#[derive(Debug, Default)]
pub struct Libraries {
    known: RwLock<Known>,
    /// Rises when they change.
    generation: AtomicU64,
}

impl Libraries {
    /// Changes whenever a library comes or goes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// The library of a function, with the function's flags.
    #[must_use]
    pub fn find(&self, function: &[u8]) -> Option<(Arc<Library>, ScriptFlags)> {
        self.known.read().functions.get(function).cloned()
    }

    /// Whether a library is still there as it was.
    #[must_use]
    pub fn has(&self, library: &Arc<Library>) -> bool {
        let known = self.known.read();
        known.libraries.get(&library.name).is_some_and(|other| Arc::ptr_eq(other, library))
    }

    /// Number of libraries, of functions, and bytes that they take.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let known = self.known.read();
        let bytes = known.libraries.values().map(|l| l.code.len() + size_of::<Library>()).sum();
        (known.libraries.len(), known.functions.len(), bytes)
    }

    fn change<R>(&self, f: impl FnOnce(&mut Known) -> R) -> R {
        let mut known = self.known.write();
        let result = f(&mut known);
        self.generation.fetch_add(1, Relaxed);
        result
    }
}

fn fcall(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    call(cx, args, false)
}

fn fcall_ro(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    call(cx, args, true)
}

fn call(cx: &mut Cx<'_>, args: Args<'_>, is_readonly: bool) -> Outcome {
    let not_found = ReplyError::Text("ERR Function not found");
    let (_, flags) = cx.shared.scripts.libraries.find(args.get(1)).ok_or(not_found)?;
    let keys = key_count(args, ReplyError::Text("ERR Bad number of keys provided"))?;
    crate::script::check_flags(cx, flags, is_readonly)?;
    let is_out_of_memory = cx.worker.lacks_room;
    cx.worker.script_slot = crate::cluster::slot_of_script(cx.shared, args, keys);
    let call = Call { args, keys, flags, is_readonly, is_out_of_memory };
    with_vm(cx, |cx, vm| vm.run_function(cx, args.get(1), &call))?
}

/// Name of the library and where the text proper begins, from the first line.
fn read_shebang(code: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    if !code.starts_with(b"#!") {
        return Err(b"ERR Missing library metadata".to_vec());
    }
    let end = memchr::memchr(b'\n', code).ok_or(b"ERR Invalid library metadata".to_vec())?;
    let mut words = code[2..end].split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
    let engine = words.next().unwrap_or_default();
    let mut name: Option<&[u8]> = None;
    for word in words {
        let Some(given) = word.strip_prefix(b"name=") else {
            return Err([b"ERR Invalid metadata value given: ", word].concat());
        };
        if name.replace(given).is_some() {
            let text = b"ERR Invalid metadata value, name argument was given multiple times";
            return Err(text.to_vec());
        }
    }
    let name = name.ok_or(b"ERR Library name was not given".to_vec())?;
    if !is_name(name) {
        return Err([b"ERR ", NAME_RULE.as_bytes()].concat());
    }
    if !engine.eq_ignore_ascii_case(b"lua") {
        return Err([b"ERR Engine '", engine, b"' not found"].concat());
    }
    Ok(name.to_vec())
}

/// What names of libraries and functions are made of.
pub const NAME_RULE: &str = "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long";

/// Whether a library or function may have that name.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// Runs the text of a library to see what it registers.
fn read_library(cx: &mut Cx<'_>, code: &[u8]) -> Result<Library, Vec<u8>> {
    let name = read_shebang(code)?;
    let tried = with_vm(cx, |cx, vm| vm.try_library(cx, code));
    let functions = tried.map_err(|error| error.text().as_bytes().to_vec())??;
    if functions.is_empty() {
        return Err(b"ERR No functions registered".to_vec());
    }
    Ok(Library { name, code: code.to_vec(), functions })
}

fn exists_already(name: &[u8]) -> Vec<u8> {
    [b"ERR Library '", name, b"' already exists"].concat()
}

fn load(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let mut replaces = false;
    for i in 2..args.len() - 1 {
        if !args.get(i).eq_ignore_ascii_case(b"replace") {
            let text = [b"ERR Unknown option given: ", args.get(i)].concat();
            return Err(fail(cx, &text));
        }
        replaces = true;
    }
    let code = args.get(args.len() - 1);
    let name = match take(cx, code, replaces) {
        Ok(name) => name,
        Err(text) => return Err(fail(cx, &text)),
    };
    cx.reply.bulk(&name);
    Ok(())
}

fn take(cx: &mut Cx<'_>, code: &[u8], replaces: bool) -> Result<Vec<u8>, Vec<u8>> {
    let name = read_shebang(code)?;
    let is_there = cx.shared.scripts.libraries.known.read().libraries.contains_key(&name);
    if is_there && !replaces {
        return Err(exists_already(&name));
    }
    let library = read_library(cx, code)?;
    cx.shared.scripts.libraries.change(|known| {
        let old = known.libraries.get(&name).map(Arc::clone);
        if old.is_some() && !replaces {
            return Err(exists_already(&name));
        }
        known.remove(&name);
        known.add(library).inspect_err(|_| {
            let restored = old.map(|old| Known::put_back(known, &old));
            debug_assert!(restored.is_none_or(|is_whole| is_whole));
        })
    })?;
    Ok(name)
}

impl Known {
    /// Puts a library back that was just removed.
    fn put_back(&mut self, library: &Library) -> bool {
        let Library { name, code, functions } = library;
        let (name, code, functions) = (name.clone(), code.clone(), functions.clone());
        self.add(Library { name, code, functions }).is_ok()
    }
}

fn delete(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if !cx.shared.scripts.libraries.change(|known| known.remove(args.get(2))) {
        return Err(ReplyError::Text("ERR Library not found"));
    }
    cx.reply.ok();
    Ok(())
}

fn flush(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let wrong = ReplyError::Text("ERR FUNCTION FLUSH only supports SYNC|ASYNC option");
    let is_async = is_async(args, wrong)?;
    let flushed = cx.shared.scripts.libraries.change(std::mem::take);
    if is_async {
        crate::shared::free_in_background(Box::new(flushed));
    }
    cx.reply.ok();
    Ok(())
}

fn kill(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    crate::script::kill_running(cx, Kind::Function)
}

fn list(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let (mut pattern, mut with_code) = (None, false);
    let mut i = 2;
    while i < args.len() {
        let word = args.get(i).to_ascii_lowercase();
        match word.as_slice() {
            b"withcode" if !with_code => with_code = true,
            b"libraryname" if pattern.is_none() => {
                i += 1;
                if i == args.len() {
                    return Err(ReplyError::Text("ERR library name argument was not given"));
                }
                pattern = Some(args.get(i));
            }
            _ => {
                let text = [b"ERR Unknown argument ", args.get(i)].concat();
                return Err(fail(cx, &text));
            }
        }
        i += 1;
    }
    let known = cx.shared.scripts.libraries.known.read().clone();
    let is_wanted = |name: &[u8]| pattern.is_none_or(|pattern| glob_match(pattern, name, true));
    let wanted = known.libraries.values().filter(|library| is_wanted(&library.name));
    let wanted: Vec<_> = wanted.collect();
    cx.reply.array(wanted.len());
    wanted.iter().for_each(|library| write_library(cx, library, with_code));
    Ok(())
}

fn write_library(cx: &mut Cx<'_>, library: &Library, with_code: bool) {
    let reply = &mut cx.reply;
    reply.map(3 + usize::from(with_code));
    reply.bulk(b"library_name");
    reply.bulk(&library.name);
    reply.bulk(b"engine");
    reply.bulk(b"LUA");
    reply.bulk(b"functions");
    reply.array(library.functions.len());
    for function in &library.functions {
        reply.map(3);
        reply.bulk(b"name");
        reply.bulk(&function.name);
        reply.bulk(b"description");
        match &function.description {
            Some(text) => reply.bulk(text),
            None => reply.null(),
        }
        reply.bulk(b"flags");
        let flags = ScriptFlags::NAMES.iter().filter(|(flag, _)| function.flags.has(*flag));
        let flags: Vec<_> = flags.map(|(_, name)| name).collect();
        reply.set(flags.len());
        flags.iter().for_each(|name| reply.simple(name));
    }
    if with_code {
        reply.bulk(b"library_code");
        reply.bulk(&library.code);
    }
}

fn stats(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let turn = &cx.shared.keyspace.turn;
    if turn.is_busy() && turn.running() == Some(Kind::Script) {
        let text = turn.busy_text();
        return Err(ReplyError::Text(text));
    }
    cx.reply.map(2);
    cx.reply.bulk(b"running_script");
    match turn.about() {
        None => cx.reply.null(),
        Some(about) => {
            cx.reply.map(3);
            cx.reply.bulk(b"name");
            cx.reply.bulk(&about.name);
            cx.reply.bulk(b"command");
            cx.reply.array(about.command.len());
            about.command.iter().for_each(|word| cx.reply.bulk(word));
            cx.reply.bulk(b"duration_ms");
            cx.reply.int((clock::mono_ms() - turn.started_ms()) as i64);
        }
    }
    cx.reply.bulk(b"engines");
    cx.reply.map(1);
    cx.reply.bulk(b"LUA");
    cx.reply.map(2);
    let (libraries, functions, _) = cx.shared.scripts.libraries.counts();
    cx.reply.bulk(b"libraries_count");
    cx.reply.int(libraries as i64);
    cx.reply.bulk(b"functions_count");
    cx.reply.int(functions as i64);
    Ok(())
}

fn dump(cx: &mut Cx<'_>, _: Args<'_>) -> Outcome {
    let known = cx.shared.scripts.libraries.known.read().clone();
    let codes = known.libraries.values().map(|library| library.code.as_slice());
    cx.reply.bulk(&payload::write(codes));
    Ok(())
}

/// What RESTORE does with libraries that are there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Flush,
    Append,
    Replace,
}

fn restore(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    if args.len() > 4 {
        return Err(cx.subcommand_syntax(args));
    }
    let word = if args.len() == 4 { args.get(3) } else { b"append" };
    let policy = match word.to_ascii_lowercase().as_slice() {
        b"flush" => Policy::Flush,
        b"append" => Policy::Append,
        b"replace" => Policy::Replace,
        _ => {
            let text =
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.";
            return Err(ReplyError::Text(text));
        }
    };
    let codes = payload::read(args.get(2)).map_err(ReplyError::Text)?;
    match take_all(cx, &codes, policy) {
        Ok(()) => cx.reply.ok(),
        Err(text) => return Err(fail(cx, &text)),
    }
    Ok(())
}

/// Takes all libraries or none.
fn take_all(cx: &mut Cx<'_>, codes: &[Vec<u8>], policy: Policy) -> Result<(), Vec<u8>> {
    let read = codes.iter().map(|code| read_library(cx, code));
    let libraries = read.collect::<Result<Vec<_>, _>>()?;
    cx.shared.scripts.libraries.change(|known| {
        let mut next = if policy == Policy::Flush { Known::default() } else { known.clone() };
        for library in libraries {
            let is_there = next.libraries.contains_key(&library.name);
            if is_there && policy != Policy::Replace {
                return Err([b"ERR Library ", &library.name[..], b" already exists"].concat());
            }
            next.remove(&library.name);
            next.add(library)?;
        }
        *known = next;
        Ok(())
    })
}
