//! Servers under test, and the one they are compared with.

use crate::program::new_root;
use crate::{Ended, PATIENCE, Program, Wire, binary, free_port, wait_for};
use hypercache_client::{Address, Connection, Reply};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// A server that answers, on a port of its own, in a folder of its own. It dies with this value.
#[derive(Debug)]
pub struct Server {
    program: Program,
    /// Its TCP port.
    pub port: u16,
}

/// Options of `redis-server` that keep it from writing to disk.
const REDIS_FLAGS: &[&str] = &[
    "--port",
    "{port}",
    "--save",
    "",
    "--appendonly",
    "no",
    "--enable-debug-command",
    "yes",
    "--loglevel",
    "warning",
];

/// Ports tried until one stays free.
const TRIES: usize = 20;

/// How to start a server. `{port}` in arguments, values and texts is the port it shall take.
#[derive(Debug, Clone)]
pub struct Setup {
    path: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    files: Vec<(String, String)>,
}

impl Setup {
    /// The binary under test with these arguments and no others.
    pub fn new(args: &[&str]) -> Setup {
        let args = args.iter().map(|word| (*word).to_owned()).collect();
        Setup { path: binary(), args, env: Vec::new(), files: Vec::new() }
    }

    /// With an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.env.push((name.into(), value.into()));
        self
    }

    /// With a file in its folder.
    pub fn file(mut self, name: &str, text: &str) -> Setup {
        self.files.push((name.into(), text.into()));
        self
    }

    /// Starts the server, or says what it said when it ended.
    ///
    /// # Errors
    /// The server's standard error.
    pub fn try_start(&self) -> Result<Server, String> {
        let mut said = String::new();
        for _ in 0..TRIES {
            match self.start_in(new_root(), free_port()) {
                Err(why) if why.contains("in use") => said = why,
                other => return other,
            }
        }
        Err(said)
    }

    /// Starts the server.
    pub fn start(&self) -> Server {
        self.try_start().unwrap_or_else(|why| panic!("{self:?} did not start: {why}"))
    }

    /// Runs the server until it ends by itself.
    pub fn run(&self) -> Ended {
        self.launch(new_root(), free_port()).wait()
    }

    fn launch(&self, root: TempDir, port: u16) -> Program {
        let fill = |text: &String| text.replace("{port}", &port.to_string());
        for (name, text) in &self.files {
            std::fs::write(root.path().join("work").join(name), fill(text)).expect("a file");
        }
        let args: Vec<String> = self.args.iter().map(fill).collect();
        let env: Vec<_> =
            self.env.iter().map(|(name, value)| (name.clone(), fill(value))).collect();
        Program::start_in(root, &self.path, &args, &env)
    }

    fn start_in(&self, root: TempDir, port: u16) -> Result<Server, String> {
        let mut program = self.launch(root, port);
        wait_for("an answer of a new server", || {
            if let Some(ended) = program.ended() {
                return Some(Err(ended.stderr));
            }
            let mut wire = Wire::try_connect(port)?;
            let is_answering = wire.try_send(b"PING\r\n") && wire.try_read().is_some();
            // Another process on this port would answer as well, but then ours has ended.
            (is_answering && program.ended().is_none()).then_some(Ok(()))
        })?;
        Ok(Server { program, port })
    }
}

impl Server {
    /// Starts the binary under test with `flags` beside a port.
    pub fn start(flags: &[&str]) -> Server {
        Setup::new(&[&["--port", "{port}"], flags].concat()).start()
    }

    /// Starts the binary under test as the only node of a cluster.
    pub fn cluster_of_one() -> Server {
        // Ten thousand above a port that is free may be no port.
        let bus_port = free_port().to_string();
        Server::start(&["--cluster-enabled", "yes", "--cluster-port", &bus_port])
    }

    /// Starts the server that behaviour is compared with.
    pub fn redis(flags: &[&str]) -> Server {
        let mut setup = Setup::new(&[REDIS_FLAGS, flags].concat());
        setup.path = "redis-server".into();
        setup.start()
    }

    /// Kills the server if it still runs, and starts one in its folder and on its port.
    pub fn restart(self, args: &[&str]) -> Server {
        let (port, root) = (self.port, self.program.into_root());
        let started = Setup::new(args).start_in(root, port);
        started.unwrap_or_else(|why| panic!("the server did not start again: {why}"))
    }

    /// A connection that shows the bytes of replies.
    pub fn wire(&self) -> Wire {
        Wire::connect(self.port)
    }

    /// A connection that shows replies as values.
    pub fn connect(&self) -> Connection {
        connect(&Address::tcp("127.0.0.1", self.port))
    }

    /// A connection to the Unix socket `path`.
    pub fn connect_unix(&self, path: impl Into<PathBuf>) -> Connection {
        connect(&Address::Unix(path.into()))
    }

    /// Sends one request on a new connection, and returns the text of its reply.
    pub fn ask(&self, words: &[&str]) -> String {
        text(&self.connect().command(words).expect("a reply"))
    }

    /// The value of a field of INFO.
    pub fn info(&self, field: &str) -> String {
        let all = self.ask(&["INFO", "everything"]);
        let line = all.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("INFO has no {field}:\n{all}")).to_owned()
    }

    /// A field of INFO that is a number.
    pub fn info_number(&self, field: &str) -> u64 {
        let value = self.info(field);
        value.parse().unwrap_or_else(|_| panic!("{field} is no number: {value}"))
    }
}

impl Deref for Server {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

fn connect(address: &Address) -> Connection {
    let connected = Connection::connect(address, Duration::from_secs(5));
    let mut connection = connected.unwrap_or_else(|error| panic!("{error}"));
    connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    connection
}

/// A reply as one would write it in a test.
fn text(reply: &Reply) -> String {
    match reply {
        Reply::Int(number) => number.to_string(),
        Reply::Null => "(null)".into(),
        other => match other.as_text() {
            Some(text) => text.into_owned(),
            None => format!("{other:?}"),
        },
    }
}
