//! Finding a cluster: `--join` names nodes of it by their clients' address.

use crate::bus::Bus;
use crate::control::Event;
use hypercache_cluster::meta::NodeAddress;
use hypercache_stdx::clock::mono_ms;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// What is added to the clients' port when a node does not say where other nodes reach it.
pub const BUS_PORT_OFFSET: u16 = 10_000;

const PAUSE: Duration = Duration::from_millis(300);
/// How often a failure is told again.
const TELL_EVERY_MS: u64 = 10_000;

/// A node to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seed {
    text: String,
    host: String,
    bus_port: u16,
}

impl Seed {
    /// Reads `HOST:PORT` or `HOST:PORT@BUSPORT`.
    pub(crate) fn parse(text: &str) -> Result<Seed, String> {
        let wrong = || format!("join: {text:?} is not HOST:PORT or HOST:PORT@BUSPORT");
        let (address, bus_port) = match text.split_once('@') {
            Some((address, bus_port)) => (address, Some(bus_port)),
            None => (text, None),
        };
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let bus_port = match bus_port {
            Some(bus_port) => bus_port.parse().map_err(|_| wrong())?,
            None => port.checked_add(BUS_PORT_OFFSET).ok_or_else(|| {
                format!("join: {text:?} needs the port of other nodes: HOST:PORT@BUSPORT")
            })?,
        };
        if host.is_empty() || port == 0 {
            return Err(wrong());
        }
        Ok(Seed { text: text.to_owned(), host: host.to_owned(), bus_port })
    }
}

/// Asks the seeds until one answers, or the cluster was found without them.
pub(crate) fn find(
    bus: &Arc<Bus>,
    seeds: &[Seed],
    events: &SyncSender<Event>,
    is_over: &AtomicBool,
) {
    let mut told_ms = None;
    while !is_over.load(Ordering::Relaxed) {
        let mut failures = Vec::new();
        for seed in seeds {
            match bus.probe(&seed.host, seed.bus_port) {
                Ok(met) => {
                    if bus.cluster() == 0 {
                        tracing::info!("joining cluster {:016x} by {}", met.cluster, seed.text);
                        bus.set_cluster(met.cluster);
                        if events.send(Event::Joined(met.cluster)).is_err() {
                            return;
                        }
                    }
                    let at = met.ready.iter().find(|(node, _)| *node == met.node);
                    let port = at.map_or(0, |(_, at)| at.port);
                    let host = seed.host.clone();
                    let at = NodeAddress { host, port, bus_port: seed.bus_port };
                    // It was met there: what is remembered of it may be older.
                    bus.learn_greeting(met.node, at);
                    met.ready.into_iter().for_each(|(node, at)| bus.learn_hint(node, at));
                    return;
                }
                Err(why) => failures.push(format!("{}: {why}", seed.text)),
            }
        }
        if bus.cluster() != 0 && bus.nodes().into_iter().any(|node| bus.is_up(node)) {
            return;
        }
        let now_ms = mono_ms();
        if told_ms.is_none_or(|told| now_ms >= told + TELL_EVERY_MS) {
            told_ms = Some(now_ms);
            tracing::warn!("cannot join yet, trying again: {}", failures.join("; "));
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read() {
        let seed = |text: &str| Seed::parse(text).map(|seed| (seed.host, seed.bus_port));
        assert_eq!(seed("a:7300"), Ok(("a".to_owned(), 17300)));
        assert_eq!(seed("a.b:7300@9"), Ok(("a.b".to_owned(), 9)));
        assert_eq!(seed("[::1]:7300"), Ok(("::1".to_owned(), 17300)));
        for wrong in ["", "a", ":1", "a:x", "a:1@x", "a:60000", "a:0"] {
            assert!(seed(wrong).is_err(), "{wrong}");
        }
    }
}
