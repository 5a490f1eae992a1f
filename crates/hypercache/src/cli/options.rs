//! The options of `hypercache cli`, named as users of `redis-cli` know them.

use super::format::Format;
use anyhow::Context;
use clap::{ArgAction, ArgGroup, Parser};
use hypercache_client::{Address, Endpoint};
use std::io::IsTerminal;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  hypercache cli SET greeting hello
  hypercache cli -h cache.example -p 6380 -n 2 GET greeting
  cat photo.jpg | hypercache cli -x SET photo
  hypercache cli -r 10 -i 1 INCR counter
  hypercache cli --pipe < commands.resp
  hypercache cli --scan --pattern 'session:*' --count 500

Without a command the tool reads commands from the terminal, or from standard input.
The password may also be given in the environment variable REDISCLI_AUTH.";

/// Talk to a server: one command, a session, or one of the tools below.
#[derive(Debug, Parser)]
#[command(name = "hypercache cli", version, after_help = EXAMPLES, disable_help_flag = true)]
#[command(args_override_self = true, group = ArgGroup::new("tool").multiple(false),
    group = ArgGroup::new("walk"))]
pub(crate) struct Options {
    /// Server host name or IP address
    #[arg(short = 'h', value_name = "HOST", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Server port
    #[arg(short = 'p', value_name = "PORT", default_value_t = 6379)]
    pub(crate) port: u16,
    /// Unix socket of the server (overrides host and port)
    #[arg(short = 's', value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Server URL: redis://user:password@host:port/database
    #[arg(short = 'u', value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Password
    #[arg(short = 'a', long = "pass", value_name = "PASSWORD", allow_hyphen_values = true)]
    pub(crate) password: Option<String>,
    /// User to authenticate as
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Do not warn that a password on the command line can be seen by others
    #[arg(long)]
    pub(crate) no_auth_warning: bool,
    /// Database number
    #[arg(short = 'n', value_name = "DB")]
    pub(crate) database: Option<u32>,
    /// Speak RESP2
    #[arg(short = '2', conflicts_with = "resp3")]
    pub(crate) resp2: bool,
    /// Speak RESP3
    #[arg(short = '3')]
    pub(crate) resp3: bool,
    /// Run the command this many times (-1: for ever)
    #[arg(short = 'r', value_name = "TIMES", allow_negative_numbers = true)]
    pub(crate) repeat: Option<i64>,
    /// Seconds between repetitions, samples or SCANs; may be a fraction
    #[arg(short = 'i', value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) interval: Option<f64>,
    /// Take the last argument of the command from standard input
    #[arg(short = 'x', requires = "command")]
    pub(crate) last_from_stdin: bool,
    /// Follow -MOVED and -ASK redirections of a cluster
    #[arg(short = 'c')]
    pub(crate) cluster: bool,
    /// What separates the elements of raw aggregates
    #[arg(short = 'd', value_name = "TEXT", default_value = "\n", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub(crate) delimiter: String,
    /// Exit with 1 when the server answers with an error
    #[arg(short = 'e')]
    pub(crate) fail_on_error: bool,
    /// Print raw replies (the default when the output is not a terminal)
    #[arg(long, group = "format")]
    pub(crate) raw: bool,
    /// Print replies for people even when the output is not a terminal
    #[arg(long, group = "format")]
    pub(crate) no_raw: bool,
    /// Print replies as comma-separated values
    #[arg(long, group = "format")]
    pub(crate) csv: bool,
    /// Print replies as JSON (asks for RESP3 unless -2 is given)
    #[arg(long, group = "format")]
    pub(crate) json: bool,
    /// List the keys, with SCAN
    #[arg(long, groups = ["tool", "walk"])]
    pub(crate) scan: bool,
    /// Find the keys with the most elements of each type
    #[arg(long, groups = ["tool", "walk"])]
    pub(crate) bigkeys: bool,
    /// Find the keys that take the most memory of each type
    #[arg(long, groups = ["tool", "walk"])]
    pub(crate) memkeys: bool,
    /// Keys that --scan, --bigkeys and --memkeys look at
    #[arg(long, value_name = "GLOB", allow_hyphen_values = true, requires = "walk")]
    pub(crate) pattern: Option<String>,
    /// COUNT of each SCAN
    #[arg(long, value_name = "N", requires = "walk")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: Option<u32>,
    /// Type of the keys that they look at
    #[arg(long = "type", value_name = "TYPE", requires = "walk")]
    pub(crate) key_type: Option<String>,
    /// Measure the round trip with PING
    #[arg(long, group = "tool")]
    pub(crate) latency: bool,
    /// The same, with a new line every -i seconds (15 unless given)
    #[arg(long, group = "tool")]
    pub(crate) latency_history: bool,
    /// Print a line about the server's load every -i seconds (1 unless given)
    #[arg(long, group = "tool")]
    pub(crate) stat: bool,
    /// Send requests from standard input as fast as the server takes them
    #[arg(long, group = "tool")]
    pub(crate) pipe: bool,
    /// Seconds --pipe waits for the last replies (0: for ever)
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "pipe")]
    pub(crate) pipe_timeout: u64,
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND", conflicts_with = "tool")]
    pub(crate) command: Vec<String>,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e9).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds, such as 1 or 0.1".into()),
    }
}

impl Options {
    /// Where to connect and as whom: each option wins over the URL, the URL over the environment.
    pub(crate) fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let url = match &self.url {
            Some(url) => url.parse().context("The URL after -u cannot be used")?,
            None => Endpoint {
                address: Address::tcp(self.host.clone(), self.port),
                user: None,
                password: std::env::var("REDISCLI_AUTH").ok(),
                database: None,
            },
        };
        Ok(Endpoint {
            address: self.socket.clone().map_or(url.address, Address::Unix),
            user: self.user.clone().or(url.user),
            password: self.password.clone().or(url.password),
            database: self.database.or(url.database),
        })
    }

    /// The form replies are printed in.
    pub(crate) fn format(&self) -> Format {
        match (self.raw, self.no_raw, self.csv, self.json) {
            (true, ..) => Format::Raw,
            (_, true, ..) => Format::Tty,
            (_, _, true, _) => Format::Csv,
            (.., true) => Format::Json,
            _ if std::io::stdout().is_terminal() => Format::Tty,
            _ => Format::Raw,
        }
    }

    /// Whether a password can be seen in the process list, and the user was not told yet.
    pub(crate) fn exposes_password(&self) -> bool {
        let in_url = self.url.as_ref().is_some_and(|url| url.contains('@'));
        (self.password.is_some() || in_url) && !self.no_auth_warning
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Options {
        Options::try_parse_from(std::iter::once("cli").chain(line.split_whitespace())).unwrap()
    }

    #[test]
    fn the_definition_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn options_end_where_the_command_starts() {
        let options = parse("-p 7000 -n 3 incrby -x -3 --raw");
        assert_eq!((options.port, options.database), (7000, Some(3)));
        assert_eq!(options.command, ["incrby", "-x", "-3", "--raw"]);
        assert!(!options.raw && !options.last_from_stdin);
    }

    #[test]
    fn h_is_the_host() {
        assert_eq!(parse("-h example ping").host, "example");
    }

    #[test]
    fn options_win_over_the_url() {
        let endpoint = parse("-u redis://ann:x@h:1/2 -n 5 -a y").endpoint().unwrap();
        assert_eq!(endpoint.address, Address::tcp("h", 1));
        assert_eq!(endpoint.database, Some(5));
        assert_eq!(endpoint.password.as_deref(), Some("y"));
        assert_eq!(endpoint.user.as_deref(), Some("ann"));
        let socket = parse("-s /tmp/s").endpoint().unwrap();
        assert_eq!(socket.address, Address::Unix("/tmp/s".into()));
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for line in [
            "--scan --pipe",
            "-2 -3",
            "--raw --csv",
            "--nonsense",
            "-i x",
            "--scan --count 0",
            "--pattern x",
            "--scan get k",
            "-x",
            "--pipe-timeout 3",
        ] {
            let words = std::iter::once("cli").chain(line.split_whitespace());
            let error = Options::try_parse_from(words).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn repeat_may_be_for_ever() {
        assert_eq!(parse("-r -1 ping").repeat, Some(-1));
    }
}
