//! The interpreter of one worker: what is compiled, and a run from the arguments of EVAL or FCALL to
//! the reply.
//!
//! A script is compiled as the body of a function of `KEYS` and `ARGV`, so that these are local
//! variables. `redis.call` reaches the command's context by a function that exists only as long as
//! the run ([`mlua::Lua::scope`]): there is no other way into it, and nothing is kept of it.

use crate::bridge;
use crate::native;
use crate::straight;
use crate::texts::{ByDigest, Texts};
use hypercache_commands::client::{Address, Client};
use hypercache_commands::function::Library;
use hypercache_commands::scripts::{Call, Registered, Script, ScriptFlags, Vm};
use hypercache_commands::turn::{About, Kind, Turn};
use hypercache_commands::{Cx, Outcome, ReplyError, Session, Shared, script_call};
use hypercache_protocol::parse::OwnedArgs;
use hypercache_protocol::reply::{Output, Version};
use hypercache_stdx::clock;
use hypercache_stdx::sha1::{self, Digest};
use mlua::{
    ChunkMode, Compiler, Either, Function, IntoLua, Lua, LuaOptions, MultiValue, StdLib, Table,
    Value, Variadic, VmState,
};
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const PRELUDE: &str = include_str!("prelude.luau");
/// Stands before a script, on its first line.
const HEAD: &[u8] = b"local KEYS,ARGV=... ";
const SCRIPT_NAME: &str = "@user_script";
const FUNCTION_NAME: &str = "@user_function";
/// The interpreter asks whether to go on at every call and every turn of a loop; the clock is read
/// at each so manyth time.
const TICKS: u32 = 1024;
/// See [`Guard::grace`].
const GRACE: u32 = 5000;
/// How long the text of a library may run, in ms.
const LOAD_MS: u64 = 500;
/// After a run the interpreter cleans up at once when it holds more than this part of its limit.
const CLEAN_ABOVE: usize = 4;

/// What the interpreter asks while something runs.
#[derive(Debug)]
struct Guard {
    turn: Arc<Turn>,
    worker: Cell<usize>,
    ticks: Cell<u32>,
    /// When others are told that a script takes long; 0 when nobody is.
    busy_at_ms: Cell<u64>,
    /// When what runs ends without being asked; 0 for never.
    ends_at_ms: Cell<u64>,
    /// Questions that a script which was told to end may still ask, once it was told.
    grace: Cell<Option<u32>>,
}

impl Guard {
    fn go_on(&self) -> mlua::Result<VmState> {
        let ticks = self.ticks.get().wrapping_add(1);
        self.ticks.set(ticks);
        if ticks.is_multiple_of(TICKS) {
            self.look()?;
        }
        if self.turn.is_killed() && self.ends_at_ms.get() == 0 || self.turn.is_stopping() {
            self.stop()?;
        }
        Ok(VmState::Continue)
    }

    /// Raises an error, again and again should the script catch it. After the first one there is
    /// time to find out which line it met.
    #[cold]
    fn stop(&self) -> mlua::Result<()> {
        match self.grace.get() {
            None => self.grace.set(Some(GRACE)),
            Some(0) => {}
            Some(left) => {
                self.grace.set(Some(left - 1));
                return Ok(());
            }
        }
        Err(mlua::Error::runtime(KILLED))
    }

    #[cold]
    fn look(&self) -> mlua::Result<()> {
        let now_ms = clock::mono_ms();
        if self.ends_at_ms.get() != 0 && now_ms > self.ends_at_ms.get() {
            return Err(mlua::Error::runtime("FUNCTION LOAD timeout"));
        }
        if self.busy_at_ms.get() != 0 && now_ms >= self.busy_at_ms.get() {
            self.turn.note_busy(self.worker.get(), now_ms);
        }
        Ok(())
    }
}

const KILLED: &str = "Script killed by user with SCRIPT KILL...";

/// A script that is ready to run.
struct Compiled {
    script: Arc<Script>,
    function: Function,
    /// See [`straight`].
    is_straight: bool,
}

/// What runs.
#[derive(Clone, Copy)]
enum What<'a> {
    Script(&'a Digest),
    Function(&'a [u8]),
}

impl What<'_> {
    /// The name that errors show.
    fn name(self) -> Vec<u8> {
        match self {
            What::Script(digest) => sha1::to_hex(digest).to_vec(),
            What::Function(name) => name.to_vec(),
        }
    }
}

/// The ways into a script.
struct Entries {
    run: Function,
    run_few: Function,
}

/// Keys and arguments that are given one by one.
const FEW: usize = 16;

impl Entries {
    /// Calls a script with its bridge to the commands and its keys and arguments.
    fn enter(
        &self,
        lua: &Lua,
        memory_max: usize,
        (bridge, f): (Function, &Function),
        call: &Call<'_>,
    ) -> mlua::Result<(bool, Value)> {
        let texts = || call.args.iter_from(3);
        let bytes_max = texts().map(|text| text.len() + VALUE_BYTES).sum();
        let has_room = lua.used_memory().saturating_add(bytes_max) <= memory_max;
        let count = call.args.len() - 3;
        if count <= FEW && has_room {
            lua.set_memory_limit(0)?;
            let texts = texts().map(|text| Either::Left(bridge::text(text)));
            let all = texts.chain([Either::Right(Limit(memory_max))]);
            let result = self.run_few.call((bridge, f, call.keys, all.collect::<Variadic<_>>()));
            // If it did not come to that.
            lua.set_memory_limit(memory_max)?;
            return result;
        }
        let (keys, arguments) = with_room(lua, memory_max, bytes_max, || {
            let keys = texts().take(call.keys).map(bridge::text);
            let arguments = texts().skip(call.keys).map(bridge::text);
            Ok((lua.create_sequence_from(keys)?, lua.create_sequence_from(arguments)?))
        })?;
        self.run.call((bridge, f, keys, arguments))
    }
}

/// The last of the values on their way into a script: the interpreter's limit of memory holds again
/// before the script begins. It becomes nil.
struct Limit(usize);

impl IntoLua for Limit {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        lua.set_memory_limit(self.0)?;
        Ok(Value::Nil)
    }
}

/// Calls `f`, which makes values of at most `bytes_max` bytes. While the interpreter has a limit of
/// memory, each value is made in a call that catches the error of one that does not fit: five times
/// the work. So the limit is lifted while what is made surely fits.
fn with_room<R>(
    lua: &Lua,
    memory_max: usize,
    bytes_max: usize,
    f: impl FnOnce() -> mlua::Result<R>,
) -> mlua::Result<R> {
    if lua.used_memory().saturating_add(bytes_max) > memory_max {
        return f();
    }
    lua.set_memory_limit(0)?;
    let result = f();
    lua.set_memory_limit(memory_max)?;
    result
}

/// Bytes that a value takes beyond its text, and the function of a run with all that belongs to it.
const VALUE_BYTES: usize = 64;
const BRIDGE_BYTES: usize = 1024;
/// Bytes of values that one byte of a reply becomes at most: a status of a letter is a table.
const BYTES_PER_REPLY_BYTE: usize = 64;

/// See the module's text.
pub(crate) struct LuaVm {
    lua: Lua,
    guard: Rc<Guard>,
    env: Table,
    function_env: Table,
    entries: Entries,
    load_library: Function,
    /// Whether the interpreter asks the guard.
    is_asking: bool,
    /// Compiled scripts, as long as `generation` is the cache's.
    scripts: HashMap<Digest, Compiled, ByDigest>,
    /// Texts of scripts that were evaluated.
    texts: Texts,
    generation: u64,
    /// Compiled last and not yet known to be cached.
    fresh: Option<Function>,
    functions: HashMap<Vec<u8>, (Arc<Library>, Function)>,
    library_generation: u64,
    /// What commands of scripts see as their client.
    session: Session,
    out: Output,
    args: OwnedArgs,
    /// The protocol that `redis.setresp` chose.
    resp: Rc<Cell<i64>>,
    memory_max: usize,
}

impl std::fmt::Debug for LuaVm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LuaVm({} scripts)", self.scripts.len())
    }
}

/// The text of an error of the interpreter, without the trace that follows it.
fn message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. } => message(cause),
        mlua::Error::RuntimeError(text) => text.clone(),
        other => {
            let text = other.to_string();
            text.lines().next().unwrap_or_default().to_owned()
        }
    }
}

/// The text of an error of the compiler.
pub(crate) fn syntax_message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        other => message(other),
    }
}

fn compiler() -> Compiler {
    // These are ours, so the compiler must not put its own in their place.
    let own = ["tostring", "pcall", "string.format"];
    Compiler::new().set_optimization_level(1).set_debug_level(1).set_disabled_builtins(own)
}

impl LuaVm {
    pub(crate) fn new(shared: &Shared) -> LuaVm {
        let made = LuaVm::make(shared);
        made.expect("the prelude is the same for all, so what a test found right is")
    }

    fn make(shared: &Shared) -> mlua::Result<LuaVm> {
        let libraries = StdLib::ALL_SAFE;
        // A panic ends the process, so nothing needs to be done that it is not caught.
        let lua = Lua::new_with(libraries, LuaOptions::new())?;
        lua.set_compiler(compiler());
        let resp = Rc::new(Cell::new(2));
        let native = native::table(&lua, &resp)?;
        let globals = Rc::new(Cell::new(None));
        native::add_load(&lua, &native, Rc::clone(&globals))?;
        let made: Table =
            lua.load(PRELUDE).set_name("=prelude").set_mode(ChunkMode::Text).call(native)?;
        let (env, function_env): (Table, Table) = (made.get("env")?, made.get("function_env")?);
        env.set_safeenv(true);
        function_env.set_safeenv(true);
        globals.set(Some(env.clone()));
        let guard = Rc::new(Guard {
            turn: Arc::clone(&shared.keyspace.turn),
            worker: Cell::new(0),
            ticks: Cell::new(0),
            busy_at_ms: Cell::new(0),
            ends_at_ms: Cell::new(0),
            grace: Cell::new(None),
        });
        let memory_max =
            hypercache_stdx::size::parse_bytes(shared.config.get("lua-memory-limit").as_bytes());
        let memory_max = memory_max.unwrap_or(256 << 20) as usize;
        lua.set_memory_limit(memory_max)?;
        Ok(LuaVm {
            entries: Entries { run: made.get("run")?, run_few: made.get("run_few")? },
            load_library: made.get("load_library")?,
            lua,
            guard,
            is_asking: false,
            env,
            function_env,
            scripts: HashMap::default(),
            texts: Texts::default(),
            generation: 0,
            fresh: None,
            functions: HashMap::new(),
            library_generation: 0,
            session: script_session(),
            out: Output::default(),
            args: OwnedArgs::default(),
            resp,
            memory_max,
        })
    }

    /// Has the interpreter ask the guard or not.
    fn set_asking(&mut self, asks: bool) {
        if asks == self.is_asking {
            return;
        }
        self.is_asking = asks;
        if asks {
            let guard = Rc::clone(&self.guard);
            self.lua.set_interrupt(move |_| guard.go_on());
        } else {
            self.lua.remove_interrupt();
        }
    }

    /// Forgets what was compiled when a script left the cache since.
    fn catch_up(&mut self, cx: &Cx<'_>) {
        let generation = cx.shared.scripts.generation();
        if generation != self.generation {
            self.generation = generation;
            self.texts.clear();
            self.scripts.retain(|digest, compiled| {
                let there = cx.shared.scripts.get(digest);
                there.is_some_and(|there| Arc::ptr_eq(&there, &compiled.script))
            });
        }
    }

    fn run(&mut self, cx: &mut Cx<'_>, f: &Function, what: What<'_>, call: &Call<'_>) -> Outcome {
        self.begin(cx, what, call);
        let result = self.call(cx, f, call);
        let turn = &cx.shared.keyspace.turn;
        let is_killed = turn.is_killed();
        turn.end();
        let version = if self.resp.get() == 3 { Version::V3 } else { Version::V2 };
        let outcome = finish(cx, result, what, version, is_killed);
        if self.lua.used_memory() > self.memory_max / CLEAN_ABOVE {
            let _cleans_later = self.lua.gc_collect();
        }
        outcome
    }

    fn begin(&self, cx: &Cx<'_>, what: What<'_>, call: &Call<'_>) {
        let now_ms = clock::mono_ms();
        let busy_ms = cx.shared.config.hot.busy_ms.load(Relaxed);
        self.guard.busy_at_ms.set(if busy_ms == 0 { 0 } else { now_ms + busy_ms });
        self.guard.ends_at_ms.set(0);
        self.guard.grace.set(None);
        self.guard.worker.set(cx.worker.id);
        self.resp.set(2);
        let (kind, about) = match what {
            What::Script(_) => (Kind::Script, None),
            What::Function(name) => {
                let command = call.args.iter().map(<[u8]>::to_vec).collect();
                (Kind::Function, Some(About { name: name.to_vec(), command }))
            }
        };
        cx.shared.keyspace.turn.begin(kind, now_ms, about);
    }

    /// Calls the function with the context of scripts in place of the client's: another session,
    /// an output of its own, and the protocol that scripts read.
    fn call(
        &mut self,
        cx: &mut Cx<'_>,
        f: &Function,
        call: &Call<'_>,
    ) -> mlua::Result<(bool, Value)> {
        let client_version = cx.reply.version();
        let (entry, db) = (cx.entry, cx.keys.db);
        let account = cx.session.account().map(Arc::clone);
        std::mem::swap(cx.session, &mut self.session);
        std::mem::swap(cx.reply.output(), &mut self.out);
        cx.session.db = db;
        // What a script may do is what its caller may. The caller's session was swapped with ours.
        cx.session.make_cold().account = account;
        let LuaVm { lua, entries, args, resp, guard, memory_max, session: caller, .. } = self;
        let (shared_cx, memory_max) = (&mut *cx, *memory_max);
        let result = lua.scope(|scope| {
            let bridge = with_room(lua, memory_max, BRIDGE_BYTES, || {
                scope.create_function_mut(move |lua, values: MultiValue| {
                    guard.go_on()?;
                    let how = (resp.get(), memory_max);
                    command(shared_cx, caller, call, args, how, lua, &values)
                })
            })?;
            entries.enter(lua, memory_max, (bridge, f), call)
        });
        std::mem::swap(cx.session, &mut self.session);
        std::mem::swap(cx.reply.output(), &mut self.out);
        self.out.truncate((0, 0));
        cx.reply.set_version(client_version);
        cx.entry = entry;
        cx.keys.db = db;
        result
    }

    /// The function of a library, which is run if it was not yet.
    fn function(&mut self, cx: &Cx<'_>, name: &[u8]) -> Option<Function> {
        let libraries = &cx.shared.scripts.libraries;
        let generation = libraries.generation();
        if generation != self.library_generation {
            self.library_generation = generation;
            self.functions.retain(|_, (library, _)| libraries.has(library));
        }
        if !self.functions.contains_key(name) {
            let (library, _) = libraries.find(name)?;
            for (function, callback) in self.read_library(&library.code).ok()? {
                self.functions.insert(function.name, (Arc::clone(&library), callback));
            }
        }
        self.functions.get(name).map(|(_, function)| function.clone())
    }

    fn read_library(&mut self, code: &[u8]) -> Result<Vec<(Registered, Function)>, Vec<u8>> {
        let line = memchr_newline(code);
        let chunk = self.lua.load(&code[line..]).set_name(FUNCTION_NAME).set_mode(ChunkMode::Text);
        let chunk = chunk.set_environment(self.function_env.clone()).into_function();
        let chunk = chunk.map_err(|error| {
            format!("ERR Error compiling function: {}", syntax_message(&error)).into_bytes()
        })?;
        self.set_asking(true);
        self.guard.ends_at_ms.set(clock::mono_ms() + LOAD_MS);
        let result = self.load_library.call::<(bool, Table)>(chunk);
        self.guard.ends_at_ms.set(0);
        let failed = |text: &[u8]| [b"ERR Error registering functions: ", text].concat();
        match result {
            Ok((true, registered)) => {
                let read = registered.sequence_values::<Table>().map(|entry| read_entry(&entry?));
                let read = read.collect::<mlua::Result<Vec<_>>>();
                read.map_err(|error| failed(message(&error).as_bytes()))
            }
            Ok((false, error)) => Err(failed(&text_of(&error).0)),
            Err(error) => Err(failed(message(&error).as_bytes())),
        }
    }
}

/// The first line says what the text is; its end stays, so that lines keep their numbers.
fn memchr_newline(code: &[u8]) -> usize {
    code.iter().position(|b| *b == b'\n').unwrap_or(code.len())
}

fn read_entry(entry: &Table) -> mlua::Result<(Registered, Function)> {
    let text = |name: &str| -> mlua::Result<Option<Vec<u8>>> {
        let text: Option<mlua::String> = entry.raw_get(name)?;
        Ok(text.map(|text| text.as_bytes().to_vec()))
    };
    let names: Table = entry.raw_get("flags")?;
    let mut flags = ScriptFlags::default();
    for name in names.sequence_values::<mlua::String>() {
        flags = ScriptFlags::by_name(&name?.as_bytes()).map_or(flags, |flag| flags.with(flag));
    }
    let (name, description) = (text("name")?.unwrap_or_default(), text("description")?);
    Ok((Registered { name, description, flags }, entry.raw_get("callback")?))
}

fn script_session() -> Session {
    let client = Client::new(0, u16::MAX, -1, (Address::Script, Address::default()), 0);
    Session::new(Arc::new(client), true)
}

/// `redis.call` and `redis.pcall`: whether it went well, and the reply.
fn command(
    cx: &mut Cx<'_>,
    caller: &Session,
    call: &Call<'_>,
    args: &mut OwnedArgs,
    (resp, memory_max): (i64, usize),
    lua: &Lua,
    values: &MultiValue,
) -> mlua::Result<(bool, Value)> {
    let refuse = |text: &str| Ok((false, Value::Table(bridge::error_table(lua, text.as_bytes())?)));
    if let Some(Value::LightUserData(mark)) = values.front()
        && !mark.0.is_null()
    {
        return Ok((true, may_run(cx, caller, args, values)));
    }
    if values.is_empty() {
        return refuse("ERR Please specify at least one argument for this redis lib call");
    }
    if bridge::read_args(values, args).is_none() {
        return refuse("ERR Lua redis lib command arguments must be strings or integers");
    }
    cx.reply.set_version(if resp == 3 { Version::V3 } else { Version::V2 });
    cx.reply.output().truncate((0, 0));
    match script_call::call(cx, caller, call, args.as_args()) {
        Ok(()) => {
            let out = cx.reply.output();
            let bytes_max = out.len() * BYTES_PER_REPLY_BYTE;
            with_room(lua, memory_max, bytes_max, || bridge::read_reply(lua, out))
        }
        Err(text) => refuse(text),
    }
}

/// `redis.acl_check_cmd`, whose arguments follow the mark; nil when they are no command.
fn may_run(cx: &mut Cx<'_>, caller: &Session, args: &mut OwnedArgs, values: &MultiValue) -> Value {
    let mut rest = values.clone();
    rest.pop_front();
    let may_run = bridge::read_args(&rest, args)
        .and_then(|()| script_call::may_run(cx, caller, args.as_args()));
    may_run.map_or(Value::Nil, Value::Boolean)
}

/// Text and place of an error that nobody caught, and whether it is counted already.
fn text_of(error: &Table) -> (Vec<u8>, Option<(String, i64)>, bool) {
    let text: Option<mlua::String> = error.raw_get("err").unwrap_or_default();
    let text = text.map_or(b"ERR unknown error".to_vec(), |text| text.as_bytes().to_vec());
    let source: Option<String> = error.raw_get("source").unwrap_or_default();
    let line: Option<i64> = error.raw_get("line").unwrap_or_default();
    let is_counted = error.raw_get("ignore_error_stats_update").unwrap_or(false);
    // Lua shows the first line of what Rust raised; the trace below it is of no use to a client.
    let end = text.iter().position(|b| *b == b'\n').filter(|_| text.ends_with(b"]: in ?"));
    let text = text[..end.unwrap_or(text.len())].to_vec();
    (text, source.zip(line), is_counted)
}

/// Writes the reply of a run.
fn finish(
    cx: &mut Cx<'_>,
    result: mlua::Result<(bool, Value)>,
    what: What<'_>,
    version: Version,
    is_killed: bool,
) -> Outcome {
    let (mut text, place, is_counted) = match result {
        Ok((true, value)) if !is_killed => {
            let mark = cx.reply.output().bytes.len();
            let written = bridge::write_reply(&mut cx.reply, &value, version);
            if written.is_err() {
                cx.reply.output().bytes.truncate(mark);
                cx.reply.error(b"ERR not enough memory");
            }
            let is_error = cx.reply.output().bytes.get(mark) == Some(&b'-');
            return if is_error && !is_counted_error(&value) {
                Err(ReplyError::Written)
            } else {
                Ok(())
            };
        }
        Ok((_, Value::Table(error))) => text_of(&error),
        Ok(_) => (b"ERR unknown error".to_vec(), None, false),
        Err(error) => (format!("ERR {}", message(&error)).into_bytes(), None, false),
    };
    if is_killed {
        text = format!("ERR {KILLED}").into_bytes();
    }
    if let Some((source, line)) = place {
        text.extend_from_slice(b" script: ");
        text.extend_from_slice(&what.name());
        text.extend_from_slice(format!(", on @{source}:{line}.").as_bytes());
    }
    cx.reply.error(&text);
    if is_counted { Ok(()) } else { Err(ReplyError::Written) }
}

/// Whether a value that was returned is the error of a command, which was counted when that ran.
fn is_counted_error(value: &Value) -> bool {
    let Value::Table(table) = value else { return false };
    table.raw_get("ignore_error_stats_update").unwrap_or(false)
}

impl Vm for LuaVm {
    fn compile(&mut self, _: &Cx<'_>, script: &Script) -> Result<(), Vec<u8>> {
        let text = [HEAD, &script.body[script.shebang_len..]].concat();
        let chunk = self.lua.load(text).set_name(SCRIPT_NAME).set_mode(ChunkMode::Text);
        let compiled = chunk.set_environment(self.env.clone()).into_function();
        let compiled = compiled.map_err(|error| {
            let message = syntax_message(&error);
            format!("ERR Error compiling script (new function): {message}").into_bytes()
        })?;
        self.fresh = Some(compiled);
        Ok(())
    }

    fn digest_of(&self, text: &[u8]) -> Option<Digest> {
        self.texts.digest_of(text)
    }

    fn remember(&mut self, script: &Arc<Script>) {
        self.texts.remember(script);
    }

    fn compiled(&mut self, cx: &Cx<'_>, digest: &Digest) -> Option<Arc<Script>> {
        self.catch_up(cx);
        self.scripts.get(digest).map(|compiled| Arc::clone(&compiled.script))
    }

    fn keep(&mut self, script: &Arc<Script>) {
        if let Some(function) = self.fresh.take() {
            let text = &script.body[script.shebang_len..];
            let is_straight = straight::is_straight(text, |name| {
                !matches!(self.env.raw_get(bridge::text(name)), Ok(Value::Nil))
            });
            let compiled = Compiled { script: Arc::clone(script), function, is_straight };
            self.scripts.insert(script.digest, compiled);
        }
    }

    fn run_script(&mut self, cx: &mut Cx<'_>, digest: &Digest, call: &Call<'_>) -> Outcome {
        let no_script = ReplyError::Text("NOSCRIPT No matching script. Please use EVAL.");
        let compiled = self.scripts.get(digest).ok_or(no_script)?;
        let (function, is_straight) = (compiled.function.clone(), compiled.is_straight);
        self.set_asking(!is_straight);
        self.run(cx, &function, What::Script(digest), call)
    }

    fn try_library(&mut self, _: &Cx<'_>, code: &[u8]) -> Result<Vec<Registered>, Vec<u8>> {
        Ok(self.read_library(code)?.into_iter().map(|(registered, _)| registered).collect())
    }

    fn run_function(&mut self, cx: &mut Cx<'_>, name: &[u8], call: &Call<'_>) -> Outcome {
        let Some(function) = self.function(cx, name) else {
            return Err(ReplyError::Text("ERR Function not found"));
        };
        self.set_asking(true);
        self.run(cx, &function, What::Function(name), call)
    }

    fn bytes(&self) -> usize {
        self.lua.used_memory()
    }
}
