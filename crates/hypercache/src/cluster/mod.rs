//! `hypercache cluster`: what operators ask of a cluster, and a cluster to try.
//!
//! All but `demo` and `join-token` talk to one node, any of them, with the commands HC.CLUSTER.

mod demo;
mod load;
mod local;
mod report;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use hypercache_client::{Address, Connection, Endpoint, Reply};
use hypercache_stdx::rng;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// How long a node may take to accept a connection, and to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  hypercache cluster status -h cache.example && echo well
  hypercache cluster drain 3f2a91c0
  hypercache cluster demo --nodes 3 --seconds 60

`status` exits with 1 when anything is wrong, `demo` when an acknowledged write was lost.
A node is named by its id or the beginning of it, as `nodes` shows it.";

/// Look after a cluster, or try one.
#[derive(Debug, Parser)]
#[command(name = "hypercache cluster", version, after_help = EXAMPLES)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say whether the cluster is well, and what is wrong
    Status(Target),
    /// List the nodes
    Nodes(Target),
    /// Say what the cluster would move next, and why
    Plan(Target),
    /// Have a node emptied, so that it can be removed
    Drain(Named),
    /// Let a node have copies again that was to be emptied
    Undrain(Named),
    /// Take a node out for good; refused if it has the last copy of something
    Remove(Named),
    /// Draw a secret for `cluster-secret`, which all nodes of a cluster share
    JoinToken,
    /// Start a cluster on this machine, load it, kill its nodes, and count what was lost
    Demo(demo::Options),
}

/// The node to talk to.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
struct Target {
    /// Host name or IP address of any node
    #[arg(short = 'h', long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Its port
    #[arg(short, long, value_name = "PORT", default_value_t = 6379)]
    port: u16,
    /// Its URL, instead: redis://user:password@host:port
    #[arg(short, long, value_name = "URL")]
    url: Option<String>,
    /// User to authenticate as
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Password (or set REDISCLI_AUTH)
    #[arg(short = 'a', long = "pass", value_name = "PASSWORD", allow_hyphen_values = true)]
    password: Option<String>,
    /// Print what the node says as JSON
    #[arg(long)]
    json: bool,
    /// Print this help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// A node to do something with.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
struct Named {
    /// Id of the node, or the beginning of it
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    target: Target,
}

/// Runs `hypercache cluster` with the arguments that follow `cluster`.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    let words = std::iter::once("hypercache cluster").chain(args.iter().map(String::as_str));
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)));
        }
    };
    match options.what {
        What::Status(target) => status(&target),
        What::Nodes(target) => show(&target, "NODES", |reply| report::nodes(&reply)),
        What::Plan(target) => show(&target, "PLAN", |reply| report::plan(&reply)),
        What::Drain(named) => change(&named, "DRAIN"),
        What::Undrain(named) => change(&named, "UNDRAIN"),
        What::Remove(named) => change(&named, "REMOVE"),
        What::JoinToken => {
            let words: Vec<String> = (0..4).map(|_| format!("{:016x}", rng::entropy())).collect();
            print(&format!("{}\n", words.concat()))?;
            Ok(ExitCode::SUCCESS)
        }
        What::Demo(options) => demo::run(&options),
    }
}

impl Target {
    fn connect(&self) -> anyhow::Result<Connection> {
        let environment = std::env::var("REDISCLI_AUTH").ok();
        let endpoint = match &self.url {
            Some(url) => url.parse().context("The URL after -u cannot be used")?,
            None => Endpoint {
                address: Address::tcp(self.host.clone(), self.port),
                user: None,
                password: environment,
                database: None,
            },
        };
        let mut connection = Connection::connect(&endpoint.address, TIMEOUT)?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        let user = self.user.as_deref().or(endpoint.user.as_deref());
        if let Some(password) = self.password.as_deref().or(endpoint.password.as_deref()) {
            connection.auth(user, password)?;
        }
        connection.hello(3)?;
        Ok(connection)
    }

    fn ask(&self, words: &[&str]) -> anyhow::Result<Reply> {
        let words = [&["HC.CLUSTER"], words].concat();
        Ok(self.connect()?.command(&words)?.into_result()?)
    }
}

fn status(target: &Target) -> anyhow::Result<ExitCode> {
    let reply = target.ask(&["STATUS"])?;
    let is_well = report::field(&reply, "state").and_then(Reply::as_text) == Some("ok".into());
    print(&if target.json { report::json_text(&reply) } else { report::status(&reply) })?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(
    target: &Target,
    what: &str,
    text: impl FnOnce(Reply) -> String,
) -> anyhow::Result<ExitCode> {
    let reply = target.ask(&[what])?;
    print(&if target.json { report::json_text(&reply) } else { text(reply) })?;
    Ok(ExitCode::SUCCESS)
}

fn change(named: &Named, what: &str) -> anyhow::Result<ExitCode> {
    named.target.ask(&[what, &named.node])?;
    print(if named.target.json { "\"OK\"\n" } else { "OK\n" })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints to the standard output; whoever reads it may be gone.
fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn a_node_and_where_to_ask_are_taken() {
        let words = "cluster drain 3f2a -h cache -p 7001 --json".split(' ');
        let What::Drain(named) = Options::try_parse_from(words).expect("valid").what else {
            panic!("it is a drain");
        };
        assert_eq!((named.node.as_str(), named.target.host.as_str()), ("3f2a", "cache"));
        assert!(named.target.port == 7001 && named.target.json);
    }
}
