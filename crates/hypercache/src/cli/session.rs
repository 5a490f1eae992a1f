//! A session: a connection that is made when first needed, made again when lost, and the state
//! the prompt shows.
//!
//! A command whose connection turns out to be lost is sent once more over a new one, as
//! `redis-cli` does. The server may have executed it the first time; for commands typed by a
//! person that is the lesser evil than failing after every restart of the server.

use hypercache_client::{Address, Connection, Endpoint, Error, Reply};
use std::time::Duration;

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Redirections followed for one command before giving up.
const MAX_REDIRECTIONS: usize = 16;

/// A conversation with one server (or, when following redirections, one cluster).
#[derive(Debug)]
pub(crate) struct Session {
    endpoint: Endpoint,
    protocol: Option<u8>,
    follow_redirections: bool,
    connection: Option<Connection>,
    in_transaction: bool,
    notices: Vec<String>,
}

/// Where a cluster sends a command instead.
#[derive(Debug, PartialEq, Eq)]
struct Redirection {
    slot: u16,
    address: Address,
    /// Whether the slot is only being moved, so that the target must be asked with `ASKING`.
    ask: bool,
}

impl Session {
    /// A session that will connect to `endpoint` and ask for RESP `protocol` if one is given.
    pub(crate) fn new(endpoint: Endpoint, protocol: Option<u8>, follow_redirections: bool) -> Self {
        Session {
            endpoint,
            protocol,
            follow_redirections,
            connection: None,
            in_transaction: false,
            notices: Vec::new(),
        }
    }

    /// The prompt of the interactive mode.
    pub(crate) fn prompt(&self) -> String {
        if self.connection.is_none() {
            return "not connected> ".into();
        }
        let database = match self.endpoint.database {
            Some(number) if number != 0 => format!("[{number}]"),
            _ => String::new(),
        };
        let transaction = if self.in_transaction { "(TX)" } else { "" };
        format!("{}{database}{transaction}> ", self.endpoint.address)
    }

    /// The connection, made first if there is none.
    pub(crate) fn connected(&mut self) -> Result<&mut Connection, Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Whether a command of the tool's own would go unnoticed: there is a connection, and no
    /// transaction that would queue the command.
    pub(crate) fn is_idle(&self) -> bool {
        self.connection.is_some() && !self.in_transaction
    }

    /// Gives the connection away, made first if there is none.
    pub(crate) fn take_connection(&mut self) -> Result<Connection, Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.connect(),
        }
    }

    /// Closes the connection, so that the next command makes a new one.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
        self.in_transaction = false;
    }

    /// Makes `address` the server to talk to from now on.
    pub(crate) fn move_to(&mut self, address: Address) {
        self.disconnect();
        self.endpoint.address = address;
    }

    /// What happened besides replies since the last call: failed logins, redirections.
    pub(crate) fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Takes the push messages that arrived while waiting for replies.
    pub(crate) fn take_pushes(&mut self) -> Vec<Reply> {
        self.connection.as_mut().map(|it| it.take_pushes().collect()).unwrap_or_default()
    }

    fn connect(&mut self) -> Result<Connection, Error> {
        let mut connection = Connection::connect(&self.endpoint.address, CONNECT_TIMEOUT)?;
        if let Some(password) = &self.endpoint.password {
            let result = connection.auth(self.endpoint.user.as_deref(), password);
            note_refusal(&mut self.notices, "AUTH", result)?;
        }
        if let Some(version) = self.protocol {
            let result = connection.hello(version).map(drop);
            note_refusal(&mut self.notices, &format!("HELLO {version}"), result)?;
        }
        if let Some(number) = self.endpoint.database.filter(|&number| number != 0) {
            let result = connection.select(number);
            note_refusal(&mut self.notices, &format!("SELECT {number}"), result)?;
        }
        Ok(connection)
    }

    /// Sends one command and returns the reply, connecting again and following redirections as
    /// needed.
    pub(crate) fn execute(&mut self, arguments: &[Vec<u8>]) -> Result<Reply, Error> {
        let mut asking = false;
        for _ in 0..MAX_REDIRECTIONS {
            let reply = self.execute_here(arguments, asking)?;
            let Some(redirection) = self.redirection(&reply) else {
                self.follow_state(arguments, &reply);
                return Ok(reply);
            };
            let Redirection { slot, address, ask } = redirection;
            self.notices.push(format!("-> Redirected to slot [{slot}] located at {address}"));
            self.move_to(address);
            asking = ask;
        }
        Err(Error::Server(format!("Gave up after {MAX_REDIRECTIONS} redirections")))
    }

    /// Sends one command to the current server, once more if the connection was found lost.
    fn execute_here(&mut self, arguments: &[Vec<u8>], asking: bool) -> Result<Reply, Error> {
        let was_connected = self.connection.is_some();
        let first = self.attempt(arguments, asking);
        match first {
            Err(error) if error.is_connection_lost() => {
                self.disconnect();
                let may_repeat = was_connected && !is_shutdown(arguments);
                if may_repeat { self.attempt(arguments, asking) } else { Err(error) }
            }
            other => other,
        }
    }

    fn attempt(&mut self, arguments: &[Vec<u8>], asking: bool) -> Result<Reply, Error> {
        let connection = self.connected()?;
        if asking {
            connection.command(&["ASKING"])?.into_result()?;
        }
        connection.command(arguments)
    }

    fn redirection(&self, reply: &Reply) -> Option<Redirection> {
        if !self.follow_redirections {
            return None;
        }
        let Reply::Error(message) = reply else { return None };
        parse_redirection(std::str::from_utf8(message).ok()?, &self.endpoint.address)
    }

    /// Keeps what the prompt and a later reconnection need to know.
    fn follow_state(&mut self, arguments: &[Vec<u8>], reply: &Reply) {
        let text = |index: usize| {
            arguments.get(index).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let Some(name) = text(0) else { return };
        let ok = matches!(reply, Reply::Simple(status) if status == b"OK");
        match name.to_ascii_lowercase().as_str() {
            "exec" | "discard" => self.in_transaction = false,
            "multi" if ok => self.in_transaction = true,
            "select" if ok => self.endpoint.database = text(1).and_then(|it| it.parse().ok()),
            "auth" if ok && arguments.len() == 2 => {
                (self.endpoint.user, self.endpoint.password) = (None, text(1));
            }
            "auth" if ok => {
                (self.endpoint.user, self.endpoint.password) = (text(1), text(2));
            }
            "hello" if !reply.is_error() => {
                self.protocol = text(1).and_then(|it| it.parse().ok()).or(self.protocol);
            }
            "reset" if !reply.is_error() => {
                (self.in_transaction, self.endpoint.database) = (false, None);
                self.protocol = None;
            }
            _ => {}
        }
    }

    /// Reads the further replies of a command that has several.
    pub(crate) fn read_more(&mut self) -> Result<Reply, Error> {
        self.connected()?.read_reply()
    }

    /// Sends one command and hands every message that follows to `each`, until the connection
    /// ends or the server refuses the command.
    pub(crate) fn stream(
        &mut self,
        arguments: &[Vec<u8>],
        mut each: impl FnMut(&Reply) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        let connection = self.connected()?;
        connection.send(arguments)?;
        connection.flush()?;
        let mut first = true;
        loop {
            let reply = connection.read_reply()?;
            each(&reply)?;
            if first && reply.is_error() {
                return Ok(());
            }
            first = false;
        }
    }
}

/// Whether a command is answered by the end of the connection.
pub(crate) fn is_shutdown(arguments: &[Vec<u8>]) -> bool {
    arguments.first().is_some_and(|name| name.eq_ignore_ascii_case(b"shutdown"))
}

/// Turns a refusal by the server into a notice; the session goes on, as with `redis-cli`.
fn note_refusal(
    notices: &mut Vec<String>,
    what: &str,
    result: Result<(), Error>,
) -> Result<(), Error> {
    if let Err(Error::Server(message)) = &result {
        notices.push(format!("{what} failed: {message}"));
        return Ok(());
    }
    result
}

/// Reads `MOVED slot host:port` and `ASK slot host:port`; without a host, the current one is
/// meant.
fn parse_redirection(message: &str, current: &Address) -> Option<Redirection> {
    let mut words = message.split(' ');
    let ask = match words.next()? {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    let slot = words.next()?.parse().ok()?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = match (host, current) {
        ("", Address::Tcp { host, .. }) => host.clone(),
        ("", Address::Unix(_)) => return None,
        (host, _) => host.trim_matches(['[', ']']).to_owned(),
    };
    Some(Redirection { slot, address: Address::tcp(host, port), ask })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    fn arguments(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    /// A server that accepts one connection per script and answers its requests in turn; the
    /// names of the requests received are the result.
    fn scripted(scripts: Vec<Vec<String>>) -> (Address, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::tcp("127.0.0.1", listener.local_addr().unwrap().port());
        let handle = thread::spawn(move || {
            let mut names = Vec::new();
            for script in scripts {
                let (socket, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
                for answer in script {
                    let header = lines.next().unwrap().unwrap();
                    let count: usize = header[1..].parse().unwrap();
                    let words: Vec<String> = lines.by_ref().take(2 * count).flatten().collect();
                    names.push(words[1].clone());
                    (&socket).write_all(answer.as_bytes()).unwrap();
                }
            }
            names
        });
        (address, handle)
    }

    fn session(address: Address, follow: bool) -> Session {
        let endpoint = Endpoint { address, user: None, password: None, database: None };
        Session::new(endpoint, None, follow)
    }

    #[test]
    fn the_prompt_follows_the_state() {
        let answers = ["+OK\r\n", "+OK\r\n", "*0\r\n", "+RESET\r\n"].map(String::from).to_vec();
        let (address, server) = scripted(vec![answers]);
        let mut session = session(address.clone(), false);
        assert_eq!(session.prompt(), "not connected> ");
        session.execute(&arguments("SELECT 3")).unwrap();
        assert_eq!(session.prompt(), format!("{address}[3]> "));
        session.execute(&arguments("multi")).unwrap();
        assert_eq!(session.prompt(), format!("{address}[3](TX)> "));
        session.execute(&arguments("EXEC")).unwrap();
        assert_eq!(session.prompt(), format!("{address}[3]> "));
        session.execute(&arguments("reset")).unwrap();
        assert_eq!(session.prompt(), format!("{address}> "));
        server.join().unwrap();
    }

    #[test]
    fn a_lost_connection_is_made_again_in_the_same_database() {
        let first = vec!["+OK\r\n".to_string()];
        let second = vec!["+OK\r\n".to_string(), "+PONG\r\n".to_string()];
        let (address, server) = scripted(vec![first, second]);
        let mut session = session(address, false);
        session.execute(&arguments("SELECT 2")).unwrap();
        let reply = session.execute(&arguments("PING")).unwrap();
        assert_eq!(reply, Reply::Simple(b"PONG".to_vec()));
        assert_eq!(server.join().unwrap(), ["SELECT", "SELECT", "PING"]);
    }

    #[test]
    fn shutdown_is_never_sent_to_the_next_server() {
        let (address, server) = scripted(vec![vec!["+PONG\r\n".to_string()], vec![]]);
        let mut session = session(address, false);
        session.execute(&arguments("PING")).unwrap();
        assert!(session.execute(&arguments("Shutdown NOSAVE")).is_err());
        assert_eq!(session.prompt(), "not connected> ");
        drop(session.connected());
        assert_eq!(server.join().unwrap(), ["PING"]);
    }

    #[test]
    fn redirections_are_followed_when_asked_to() {
        let ask_target = vec!["+OK\r\n".to_string(), ":7\r\n".to_string()];
        let (third, third_server) = scripted(vec![ask_target]);
        let (second, second_server) = scripted(vec![vec![format!("-ASK 5 {third}\r\n")]]);
        let (first, first_server) = scripted(vec![vec![format!("-MOVED 5 {second}\r\n")]]);
        let mut session = session(first, true);
        assert_eq!(session.execute(&arguments("INCR k")).unwrap(), Reply::Int(7));
        assert_eq!(session.take_notices().len(), 2);
        assert_eq!(first_server.join().unwrap(), ["INCR"]);
        assert_eq!(second_server.join().unwrap(), ["INCR"]);
        assert_eq!(third_server.join().unwrap(), ["ASKING", "INCR"]);
    }

    #[test]
    fn redirections_are_replies_otherwise() {
        let (address, server) = scripted(vec![vec!["-MOVED 5 127.0.0.1:1\r\n".to_string()]]);
        assert!(session(address, false).execute(&arguments("GET k")).unwrap().is_error());
        server.join().unwrap();
    }

    #[test]
    fn redirections_are_read_in_every_form() {
        let here = Address::tcp("here", 1);
        let parse = |text| parse_redirection(text, &here);
        let moved = parse("MOVED 3999 127.0.0.1:6381").unwrap();
        assert_eq!((moved.slot, moved.ask), (3999, false));
        assert_eq!(parse("MOVED 1 :7000").unwrap().address, Address::tcp("here", 7000));
        assert_eq!(parse("ASK 1 ::1:7000").unwrap().address, Address::tcp("::1", 7000));
        for bad in ["ERR x", "MOVED", "MOVED 1", "MOVED x h:1", "MOVED 1 h", "MOVED 1 h:x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
