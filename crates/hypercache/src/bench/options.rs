//! The options of `hypercache bench`.

use super::keys::Distribution;
use super::measure::Shape;
use super::request::ValueSize;
use super::workload::{Recipe, Workload};
use anyhow::Context;
use clap::{ArgAction, CommandFactory, Parser, error::ErrorKind};
use hypercache_client::{Address, Endpoint};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  hypercache bench --workload get --clients 50 --seconds 10
  hypercache bench --workload mix:9:1 --distribution zipf --keys 1000000 --value-size 100-2000
  hypercache bench --workload set --rate 20000 --seconds 30
  hypercache bench --workload custom 'HSET __key__ field __value__' --pipeline 16
  hypercache bench --workload custom 'LPUSH __key__ __value__' 'LPOP __key__' --keys 1000
  hypercache bench -p 7001 --against 127.0.0.1:7002 --rounds 20 --window-ms 500 --json

Without --rate every client sends its next batch when the last one is answered. With --rate the
requests are due at fixed times, and latency counts from the time they were due.
Exit status: 0, or 1 if anything failed or any reply was an error, or 2 for wrong usage.";

/// The most a client may have to hold for one batch.
const MAX_BATCH_BYTES: u64 = 1 << 30;

/// Put load on a server and measure throughput, latency and processor time.
#[derive(Debug, Parser)]
#[command(name = "hypercache bench", version, after_help = EXAMPLES, disable_help_flag = true)]
#[command(args_override_self = true)]
pub(crate) struct Options {
    /// Server host name or IP address
    #[arg(short = 'h', long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Server port
    #[arg(short, long, value_name = "PORT", default_value_t = 6379)]
    port: u16,
    /// Unix socket of the server (overrides host and port)
    #[arg(short, long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// User to authenticate as
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Password (or set REDISCLI_AUTH)
    #[arg(short = 'a', long = "pass", value_name = "PASSWORD", allow_hyphen_values = true)]
    password: Option<String>,
    /// Database number
    #[arg(short = 'n', long = "db", value_name = "DB")]
    database: Option<u32>,

    /// What to send: get, set, mix, mix:9:1 (reads to writes), incr, ping, or custom 'COMMAND' ...
    /// in which __key__, __value__ and __member__ (a number at random) are replaced
    #[arg(long, value_name = "KIND", num_args = 1..=9, default_value = "get")]
    workload: Vec<String>,
    /// Connections in all
    #[arg(short, long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000))]
    clients: u64,
    /// Threads that generate load
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: u64,
    /// Requests a client sends at once
    #[arg(short = 'P', long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pipeline: u64,
    /// Stop after this many requests
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Stop after this time [default: 10]
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    seconds: Option<Duration>,
    /// Run this long before measuring [default: 1, or 0 with --requests]
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    warmup: Option<Duration>,
    /// Send this many requests per second, whatever the server does
    #[arg(long, value_name = "OPS", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rate: Option<u64>,

    /// Number of keys
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    keys: u64,
    /// Number of different members
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    members: u64,
    /// What keys begin with [default: "key:", or "counter:" for incr]
    #[arg(long, value_name = "TEXT")]
    key_prefix: Option<String>,
    /// How keys are chosen: uniform, zipf, or zipf:SKEW
    #[arg(long, value_name = "KIND", default_value = "uniform")]
    distribution: Distribution,
    /// Bytes in a value, or a range such as 100-2000
    #[arg(long, value_name = "BYTES", default_value = "100")]
    value_size: ValueSize,
    /// Do not set all keys first (get, set and mix do)
    #[arg(long)]
    pub(crate) no_load: bool,
    /// Set all keys first, for custom commands that read them
    #[arg(long, conflicts_with = "no_load")]
    load: bool,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Compare with this server in alternating windows (the ratios are first / this)
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["requests", "seconds"])]
    against: Option<Address>,
    /// Length of a window of --against
    #[arg(long, value_name = "MS", default_value_t = 500, requires = "against")]
    #[arg(value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    window_ms: u64,
    /// Pairs of windows of --against
    #[arg(long, value_name = "N", default_value_t = 10, requires = "against")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) rounds: u64,

    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Run the threads that generate load on this core only
    #[arg(long, value_name = "CORE", value_parser = parse_core)]
    pin_core: Option<usize>,
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e7).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a number of seconds, such as 1 or 0.5".into()),
    }
}

fn parse_core(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(core) if core < rustix::thread::CpuSet::MAX_CPU => Ok(core),
        _ => Err("expected the number of a core, from 0".into()),
    }
}

impl Options {
    /// Checks what the option parser cannot.
    pub(crate) fn validate(&self) -> Result<Workload, clap::Error> {
        let wrong = |text: String| Options::command().error(ErrorKind::ValueValidation, text);
        if self.threads > self.clients {
            return Err(wrong("there cannot be more threads than clients".into()));
        }
        if self.seconds.is_some_and(|seconds| seconds.is_zero()) {
            return Err(wrong("--seconds must be above zero".into()));
        }
        let batch_bytes = self.pipeline.saturating_mul(self.value_size.max as u64);
        if batch_bytes > MAX_BATCH_BYTES {
            return Err(wrong("--pipeline times --value-size must be 1 GB at most".into()));
        }
        Workload::parse(&self.workload).map_err(|text| wrong(format!("--workload: {text}")))
    }

    /// The servers: the one to measure, and the one to compare with.
    pub(crate) fn endpoints(&self) -> (Endpoint, Option<Endpoint>) {
        let tcp = Address::tcp(self.host.clone(), self.port);
        let address = self.socket.clone().map_or(tcp, Address::Unix);
        let password = self.password.clone().or_else(|| std::env::var("REDISCLI_AUTH").ok());
        let first =
            Endpoint { address, user: self.user.clone(), password, database: self.database };
        let second = self.against.clone().map(|address| Endpoint { address, ..first.clone() });
        (first, second)
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape {
            clients: self.clients,
            threads: self.threads,
            pipeline: self.pipeline,
            rate: self.rate,
            pin_core: self.pin_core,
        }
    }

    pub(crate) fn recipe(&self, workload: Workload) -> anyhow::Result<Recipe> {
        let prefix = self.key_prefix.clone();
        let prefix = prefix.unwrap_or_else(|| workload.default_prefix().to_owned());
        u32::try_from(prefix.len()).context("The key prefix is too long")?;
        Ok(Recipe::new(
            workload,
            (self.keys, self.members),
            prefix,
            self.distribution.clone(),
            self.value_size,
            self.seed,
        ))
    }

    /// Whether the keys are to be set first.
    pub(crate) fn loads(&self, workload: &Workload) -> bool {
        self.load || (workload.wants_loaded_keys() && !self.no_load)
    }

    /// The requests to stop after, if that is how the run ends.
    pub(crate) fn request_limit(&self) -> Option<u64> {
        self.requests
    }

    pub(crate) fn duration(&self) -> Duration {
        self.seconds.unwrap_or(Duration::from_secs(10))
    }

    pub(crate) fn warmup(&self) -> Duration {
        let default = Duration::from_secs(if self.requests.is_some() { 0 } else { 1 });
        self.warmup.unwrap_or(default)
    }

    pub(crate) fn window(&self) -> Duration {
        Duration::from_millis(self.window_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("bench").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn custom_takes_a_second_word() {
        let words = ["bench", "--workload", "custom", "SET __key__ 1", "--keys", "5"];
        let options = Options::try_parse_from(words).unwrap();
        assert!(matches!(options.validate(), Ok(Workload::Custom(words)) if words[0].len() == 3));
        assert_eq!(options.keys, 5);
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        for line in [
            "--clients 0",
            "--requests 1 --seconds 1",
            "--against x:1 --seconds 1",
            "--rounds 3",
            "--distribution x",
            "--value-size 9-1",
            "--against host:port",
            "--seconds x",
            "extra",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        for line in [
            "--workload x",
            "--threads 9 --clients 3",
            "--seconds 0",
            "--pipeline 9999 --value-size 999999",
        ] {
            assert_eq!(parse(line).unwrap().validate().unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn defaults_depend_on_the_rest() {
        assert_eq!(parse("--requests 5").unwrap().warmup(), Duration::ZERO);
        assert_eq!(parse("").unwrap().warmup(), Duration::from_secs(1));
        assert!(parse("").unwrap().loads(&Workload::Get));
        assert!(!parse("--no-load").unwrap().loads(&Workload::Get));
        assert!(!parse("").unwrap().loads(&Workload::Incr));
        assert!(parse("--load").unwrap().loads(&Workload::Custom(vec![])));
    }

    #[test]
    fn the_second_server_shares_the_login() {
        let options = parse("-a x --against h:1").unwrap();
        let (first, second) = options.endpoints();
        let second = second.unwrap();
        assert_eq!(second.address, Address::tcp("h", 1));
        assert_eq!(first.password, second.password);
    }
}
