//! Programs run by tests: where they are, and what became of them.

use crate::{mono_ms, wait_for};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The binary under test: `HYPERCACHE_TEST_BINARY`, else the one built beside this test.
pub fn binary() -> PathBuf {
    let beside = || {
        let here = std::env::current_exe().expect("a test knows its own path");
        // The test is target/debug/deps/main-*, the binary target/debug/hypercache.
        here.parent().and_then(Path::parent).map(|folder| folder.join("hypercache"))
    };
    let named = std::env::var_os("HYPERCACHE_TEST_BINARY").map(PathBuf::from);
    let path = named.or_else(beside).unwrap_or_default();
    assert!(
        path.is_file(),
        "no binary at {}: run `cargo xtask test`, which builds it first",
        path.display()
    );
    path
}

/// Whether `program --version` runs on this machine.
pub fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A port that is free now. Another process may take it, so be ready to ask again.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Lets this process, and those it starts from now on, open as many files as it may.
pub fn raise_open_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Where this is refused, the test that needs it says so.
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Ended {
    /// The exit status; `None` when a signal killed it.
    pub code: Option<i32>,
    /// All it wrote to its standard error.
    pub stderr: String,
}

/// A running program in a folder of its own, killed when it is dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    root: TempDir,
}

/// An empty folder for a program, and beside it a place for what it writes to standard error.
pub(crate) fn new_root() -> TempDir {
    let root = tempfile::Builder::new().prefix("hypercache-").tempdir().expect("a folder");
    std::fs::create_dir(root.path().join("work")).expect("a folder");
    root
}

impl Program {
    /// Starts `path` in an empty folder.
    pub fn start(path: &Path, args: &[&str]) -> Program {
        let args: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
        Program::start_in(new_root(), path, &args, &[])
    }

    pub(crate) fn start_in(
        root: TempDir,
        path: &Path,
        args: &[String],
        env: &[(String, String)],
    ) -> Program {
        let log = std::fs::File::create(root.path().join("stderr")).expect("a log");
        let child = Command::new(path)
            .args(args)
            .env_remove("HYPERCACHE_TEST_BINARY")
            .envs(env.iter().cloned())
            .current_dir(root.path().join("work"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot run {}: {error}", path.display()));
        Program { child, root }
    }

    /// The folder it runs in.
    pub fn folder(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// All it wrote to its standard error so far.
    pub fn stderr(&self) -> String {
        let bytes = std::fs::read(self.root.path().join("stderr")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended already.
        let _gone = kill_process(Pid::from_child(&self.child), signal);
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<Ended> {
        let status = self.child.try_wait().expect("a child can be waited for")?;
        Some(Ended { code: status.code(), stderr: self.stderr() })
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Ended {
        wait_for("the end of a program", || self.ended())
    }

    /// Waits for its end, but not longer than `patience`.
    pub fn wait_at_most(&mut self, patience: Duration) -> Option<Ended> {
        let deadline = mono_ms() + patience.as_millis() as u64;
        loop {
            match self.ended() {
                None if mono_ms() < deadline => std::thread::sleep(Duration::from_millis(5)),
                ended => return ended,
            }
        }
    }

    /// Kills it and gives its folder to a successor.
    pub(crate) fn into_root(mut self) -> TempDir {
        self.kill();
        std::mem::replace(&mut self.root, new_root())
    }

    fn kill(&mut self) {
        // Both fail only when it is gone.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }

    /// Bytes of resident memory.
    pub fn rss(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most bytes of resident memory it ever had.
    pub fn peak_rss(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).expect("the program runs");
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kb = line.and_then(|rest| rest.trim().strip_suffix("kB")).expect("a number of kB");
        kb.trim().parse::<u64>().expect("a number") * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
