//! What all workers share of Lua: the scripts that are cached and the engine that runs them.
//!
//! The engine is a crate above this one, which installs itself here ([`Scripts::install`]); the
//! commands call it by the traits below. Each worker has an interpreter ([`Vm`]) of its own, made
//! when it runs its first script. What is compiled lives there; what all must agree on (which
//! scripts exist, by which digest, with which flags; which libraries) lives here.
//!
//! As in Redis since 7.4, a script that came by EVAL alone leaves the cache when [`EVALUATED_MAX`]
//! others ran since; one that came by SCRIPT LOAD stays until SCRIPT FLUSH.

use crate::context::Cx;
use crate::function::Libraries;
use crate::shared::Shared;
use crate::table::Entry;
use hypercache_protocol::parse::Args;
use hypercache_stdx::sha1::{self, Digest};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Scripts kept that only EVAL brought.
pub const EVALUATED_MAX: usize = 500;

/// What a script says of itself in its first line, and how it may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScriptFlags(pub u8);

impl ScriptFlags {
    /// `no-writes`
    pub const NO_WRITES: ScriptFlags = ScriptFlags(1);
    /// `allow-oom`
    pub const ALLOW_OOM: ScriptFlags = ScriptFlags(2);
    /// `allow-stale`
    pub const ALLOW_STALE: ScriptFlags = ScriptFlags(4);
    /// `no-cluster`
    pub const NO_CLUSTER: ScriptFlags = ScriptFlags(8);
    /// `allow-cross-slot-keys`
    pub const CROSS_SLOT: ScriptFlags = ScriptFlags(16);
    /// It has no such line: what it may do is found out when it does it.
    pub const UNDECLARED: ScriptFlags = ScriptFlags(32);

    /// The words that scripts and functions use, in the order FUNCTION LIST shows them.
    pub const NAMES: &[(ScriptFlags, &'static str)] = &[
        (Self::NO_WRITES, "no-writes"),
        (Self::ALLOW_OOM, "allow-oom"),
        (Self::ALLOW_STALE, "allow-stale"),
        (Self::NO_CLUSTER, "no-cluster"),
        (Self::CROSS_SLOT, "allow-cross-slot-keys"),
    ];

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn has(self, other: ScriptFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flag of that name.
    #[must_use]
    pub fn by_name(name: &[u8]) -> Option<ScriptFlags> {
        let known = Self::NAMES.iter().find(|(_, known)| known.as_bytes() == name);
        known.map(|(flag, _)| *flag)
    }

    /// These and those of `other`.
    #[must_use]
    pub fn with(self, other: ScriptFlags) -> ScriptFlags {
        ScriptFlags(self.0 | other.0)
    }
}

/// A script in the cache.
#[derive(Debug)]
pub struct Script {
    /// SHA1 of the body.
    pub digest: Digest,
    /// The text as it was sent.
    pub body: Vec<u8>,
    /// Length of the first line when it is not Lua but says how to run the script.
    pub shebang_len: usize,
    /// What that line says.
    pub flags: ScriptFlags,
    /// SCRIPT LOAD brought it too, so it does not make room for others.
    is_loaded: AtomicBool,
    /// When it last ran, as a count of runs.
    used: AtomicU64,
}

impl Script {
    /// Takes the text apart.
    ///
    /// # Errors
    /// The reply's text, when its first line says what is not known.
    pub fn new(digest: Digest, body: &[u8]) -> Result<Script, Vec<u8>> {
        let (shebang_len, flags) = read_shebang(body)?;
        let (is_loaded, used) = Default::default();
        Ok(Script { digest, body: body.to_vec(), shebang_len, flags, is_loaded, used })
    }

    /// Bytes that it takes.
    fn bytes(&self) -> usize {
        self.body.capacity() + size_of::<Script>()
    }
}

/// Length of the first line if it begins with `#!`, and the flags that it gives.
fn read_shebang(body: &[u8]) -> Result<(usize, ScriptFlags), Vec<u8>> {
    if !body.starts_with(b"#!") {
        return Ok((0, ScriptFlags::UNDECLARED));
    }
    let Some(end) = memchr::memchr(b'\n', body) else {
        return Err(b"ERR Invalid script shebang".to_vec());
    };
    let mut words = body[..end].split(|b| *b == b' ' || *b == b'\r').filter(|w| !w.is_empty());
    let engine = words.next().unwrap_or_default();
    if engine != b"#!lua" {
        return Err([b"ERR Unexpected engine in script shebang: ", engine].concat());
    }
    let mut flags = ScriptFlags::default();
    for word in words {
        let Some(list) = word.strip_prefix(b"flags=") else {
            return Err([b"ERR Unknown lua shebang option: ", word].concat());
        };
        for name in list.split(|b| *b == b',').filter(|name| !name.is_empty()) {
            let Some(flag) = ScriptFlags::by_name(name) else {
                return Err([b"ERR Unexpected flag in script shebang: ", name].concat());
            };
            flags = flags.with(flag);
        }
    }
    Ok((end, flags))
}

/// The scripts that are known, by digest.
#[derive(Debug, Default)]
struct Cache {
    scripts: HashMap<Digest, Arc<Script>>,
    bytes: usize,
    /// How many of them only EVAL brought.
    evaluated: usize,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Scripts {
    engine: OnceLock<Box<dyn Engine>>,
    cache: Mutex<Cache>,
    /// The function libraries.
    pub libraries: Libraries,
    /// Rises when a script leaves the cache: interpreters forget what they compiled.
    generation: AtomicU64,
    runs: AtomicU64,
}

impl Scripts {
    /// Installs the engine, once, at start.
    pub fn install(&self, engine: Box<dyn Engine>) {
        let is_first = self.engine.set(engine).is_ok();
        assert!(is_first, "the engine is installed once");
    }

    /// A new interpreter; `None` when no engine was installed, as in tests that need none.
    pub(crate) fn new_vm(&self, shared: &Shared) -> Option<Box<dyn Vm>> {
        self.engine.get().map(|engine| engine.new_vm(shared))
    }

    /// Changes whenever a script leaves the cache.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// The script of that digest.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<Arc<Script>> {
        self.cache.lock().scripts.get(digest).map(Arc::clone)
    }

    /// Notes that a script runs.
    pub fn note_run(&self, script: &Script) {
        script.used.store(self.runs.fetch_add(1, Relaxed), Relaxed);
    }

    /// Adds a script that compiles. Unless it `is_loaded` by SCRIPT LOAD it may make another one
    /// leave, and leave itself later.
    pub fn add(&self, script: Script, is_loaded: bool) -> Arc<Script> {
        let mut cache = self.cache.lock();
        let Cache { scripts, bytes, evaluated } = &mut *cache;
        let script = scripts.entry(script.digest).or_insert_with(|| {
            *bytes += script.bytes();
            *evaluated += 1;
            self.note_run(&script);
            Arc::new(script)
        });
        let script = Arc::clone(script);
        if is_loaded && !script.is_loaded.swap(true, Relaxed) {
            *evaluated -= 1;
        }
        if *evaluated > EVALUATED_MAX {
            cache.remove_oldest();
            self.generation.fetch_add(1, Relaxed);
        }
        script
    }

    /// SCRIPT FLUSH. Returns what is to be dropped.
    #[must_use]
    pub(crate) fn flush(&self) -> impl Send + use<> {
        let cache = std::mem::take(&mut *self.cache.lock());
        self.generation.fetch_add(1, Relaxed);
        cache.scripts
    }

    /// Number of scripts in the cache and bytes that they take.
    pub(crate) fn cached(&self) -> (usize, usize) {
        let cache = self.cache.lock();
        (cache.scripts.len(), cache.bytes)
    }
}

impl Cache {
    /// Removes the script that has not run for longest of those that only EVAL brought.
    fn remove_oldest(&mut self) {
        let evaluated = self.scripts.values().filter(|script| !script.is_loaded.load(Relaxed));
        let oldest = evaluated.min_by_key(|script| script.used.load(Relaxed));
        if let Some(digest) = oldest.map(|script| script.digest)
            && let Some(script) = self.scripts.remove(&digest)
        {
            self.bytes -= script.bytes();
            self.evaluated -= 1;
        }
    }
}

/// Makes interpreters.
pub trait Engine: Debug + Send + Sync {
    /// An interpreter for one worker.
    fn new_vm(&self, shared: &Shared) -> Box<dyn Vm>;
}

/// What EVAL and FCALL ask of an interpreter.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The arguments of the command; keys begin at number 3.
    pub args: Args<'a>,
    /// How many of them are keys.
    pub keys: usize,
    /// The flags of the script or function.
    pub flags: ScriptFlags,
    /// EVAL_RO and the like: nothing may be written.
    pub is_readonly: bool,
    /// Memory was above `maxmemory` when it began, and could not be brought below.
    pub is_out_of_memory: bool,
}

/// A function that a library registered while it was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// Its name.
    pub name: Vec<u8>,
    /// What it is for.
    pub description: Option<Vec<u8>>,
    /// How it may run.
    pub flags: ScriptFlags,
}

/// An interpreter. Errors are texts of replies, code first.
pub trait Vm: Debug {
    /// Compiles a script, and keeps the result as long as the script is cached.
    ///
    /// # Errors
    /// What is wrong with the text.
    fn compile(&mut self, cx: &Cx<'_>, script: &Script) -> Result<(), Vec<u8>>;

    /// The digest of a text, if it is known without being computed.
    fn digest_of(&self, text: &[u8]) -> Option<Digest>;

    /// Remembers the text of a script, for [`Self::digest_of`].
    fn remember(&mut self, script: &Arc<Script>);

    /// The script of that digest, if it was compiled here and is still cached.
    fn compiled(&mut self, cx: &Cx<'_>, digest: &Digest) -> Option<Arc<Script>>;

    /// Keeps a script that [`Self::compile`] found good.
    fn keep(&mut self, script: &Arc<Script>);

    /// Runs a script that was compiled and writes its reply.
    fn run_script(&mut self, cx: &mut Cx<'_>, digest: &Digest, call: &Call<'_>) -> crate::Outcome;

    /// Runs the text of a library and tells which functions it registers; nothing stays of it.
    ///
    /// # Errors
    /// What is wrong with the text.
    fn try_library(&mut self, cx: &Cx<'_>, code: &[u8]) -> Result<Vec<Registered>, Vec<u8>>;

    /// Runs a function of a library and writes its reply.
    fn run_function(&mut self, cx: &mut Cx<'_>, name: &[u8], call: &Call<'_>) -> crate::Outcome;

    /// Bytes that it takes.
    fn bytes(&self) -> usize;
}

/// The digest that forty hexadecimal digits stand for.
#[must_use]
pub fn digest_of_hex(hex: &[u8]) -> Option<Digest> {
    sha1::from_hex(hex)
}

/// Calls `f` with the worker's interpreter, made when there is none.
///
/// # Errors
/// When there is no engine, as in tests that need none; and when an interpreter runs already.
pub(crate) fn with_vm<R>(
    cx: &mut Cx<'_>,
    f: impl FnOnce(&mut Cx<'_>, &mut dyn Vm) -> R,
) -> Result<R, crate::ReplyError> {
    let none = crate::ReplyError::Text("ERR There is no script engine");
    let made = |cx: &Cx<'_>| cx.shared.scripts.new_vm(cx.shared);
    let mut vm = cx.worker.vm.take().or_else(|| made(cx)).ok_or(none)?;
    let result = f(cx, &mut *vm);
    cx.worker.stats.set_vm_bytes(vm.bytes());
    cx.worker.vm = Some(vm);
    Ok(result)
}

/// Whether a row's command runs scripts: it takes the turn before its partitions.
#[must_use]
pub fn runs_scripts(entry: &Entry) -> bool {
    entry.runs_scripts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(n: usize) -> Script {
        let body = format!("return {n}").into_bytes();
        Script::new(sha1::digest(&body), &body).expect("no shebang")
    }

    #[test]
    fn what_only_eval_brought_makes_room() {
        let scripts = Scripts::default();
        let loaded = scripts.add(script(0), true).digest;
        let first = scripts.add(script(1), false);
        for n in 2..=EVALUATED_MAX {
            scripts.add(script(n), false);
        }
        assert_eq!(scripts.cached().0, EVALUATED_MAX + 1);
        scripts.note_run(&first);
        let generation = scripts.generation();
        scripts.add(script(EVALUATED_MAX + 1), false);
        assert_eq!(scripts.cached().0, EVALUATED_MAX + 1);
        assert!(scripts.generation() > generation);
        assert!(scripts.get(&loaded).is_some() && scripts.get(&first.digest).is_some());
        assert!(scripts.get(&script(2).digest).is_none(), "the one that ran longest ago");
        drop(scripts.flush());
        assert_eq!(scripts.cached(), (0, 0));
    }

    #[test]
    fn the_first_line_may_give_flags() {
        let flags = |body: &str| read_shebang(body.as_bytes());
        assert_eq!(flags("return 1"), Ok((0, ScriptFlags::UNDECLARED)));
        assert_eq!(flags("#!lua\nreturn 1"), Ok((5, ScriptFlags::default())));
        let both = ScriptFlags::NO_WRITES.with(ScriptFlags::ALLOW_OOM);
        assert_eq!(flags("#!lua  flags=no-writes,allow-oom\n"), Ok((32, both)));
        assert_eq!(flags("#!lua"), Err(b"ERR Invalid script shebang".to_vec()));
        for line in ["#!js\n", "#!lua x=1\n", "#!lua flags=x\n"] {
            assert!(flags(line).is_err(), "{line}");
        }
    }
}
