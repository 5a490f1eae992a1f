//! What goes wrong, drawn from a seed.
//!
//! What is promised is that nothing is lost as long as fewer memories are lost between two re-syncs than a
//! write needs copies. So nobody is killed before all copies are there again; whatever keeps its memory
//! may happen at any time.

use crate::cluster::Nodes;
use crate::mono_ms;
use hypercache_stdx::rng::Rng;
use std::collections::BTreeMap;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node is killed, and starts again a while later, empty.
    Kill,
    /// A node is killed, and starts again at once, empty.
    Bounce,
    /// A node stands still for a while.
    Pause,
    /// A node hears nobody and is heard by nobody.
    Isolate,
    /// One node does not hear another, who does hear it.
    OneWay,
    /// A node is heard by nobody, and hears all.
    Mute,
    /// All that a node says is late.
    Slow,
    /// Connections of a node break.
    Close,
}

impl Kind {
    /// All of them; most need [`crate::links::Links`].
    pub const ALL: [Kind; 8] = [
        Kind::Kill,
        Kind::Bounce,
        Kind::Pause,
        Kind::Isolate,
        Kind::OneWay,
        Kind::Mute,
        Kind::Slow,
        Kind::Close,
    ];

    fn name(self) -> &'static str {
        match self {
            Kind::Kill => "killed",
            Kind::Bounce => "restarted at once",
            Kind::Pause => "stopped",
            Kind::Isolate => "isolated",
            Kind::OneWay => "deaf to one",
            Kind::Mute => "mute",
            Kind::Slow => "slow",
            Kind::Close => "connections broken",
        }
    }

    fn loses_memory(self) -> bool {
        matches!(self, Kind::Kill | Kind::Bounce)
    }

    /// How long it may last, in ms.
    fn span_ms(self) -> (u64, u64) {
        match self {
            Kind::Bounce | Kind::Close => (0, 1),
            Kind::Kill => (300, 2500),
            _ => (200, 2500),
        }
    }
}

#[derive(Debug)]
enum Now {
    /// Until then all is well.
    Waiting(u64),
    /// This lasts until then.
    Fault(Kind, usize, u64),
}

/// See the module's text.
#[derive(Debug)]
pub struct Nemesis {
    rng: Rng,
    kinds: Vec<Kind>,
    pause_ms: (u64, u64),
    now: Now,
    counts: BTreeMap<&'static str, u32>,
}

impl Nemesis {
    /// One that does these things.
    pub fn new(seed: u64, kinds: Vec<Kind>, pause_ms: (u64, u64)) -> Nemesis {
        let now = Now::Waiting(mono_ms() + pause_ms.0);
        Nemesis { rng: Rng::new(seed), kinds, pause_ms, now, counts: BTreeMap::new() }
    }

    /// How often what happened.
    pub fn counts(&self) -> BTreeMap<&'static str, u32> {
        self.counts.clone()
    }

    fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.rng.below(most - least + 1)
    }

    /// Does what is due.
    pub fn step(&mut self, nodes: &mut Nodes) {
        let now_ms = mono_ms();
        match self.now {
            Now::Waiting(until_ms) | Now::Fault(_, _, until_ms) if now_ms < until_ms => {}
            Now::Waiting(_) => self.begin(nodes),
            Now::Fault(kind, node, _) => {
                end(kind, node, nodes);
                self.now = Now::Waiting(now_ms + self.between(self.pause_ms));
            }
        }
    }

    fn begin(&mut self, nodes: &mut Nodes) {
        let (kind, node) =
            (self.kinds[self.rng.below(self.kinds.len() as u64) as usize], nodes.len());
        let node = self.rng.below(node as u64) as usize;
        if kind.loses_memory() && !nodes.is_well() {
            // Something else, or the same later.
            self.now = Now::Waiting(mono_ms() + 50);
            return;
        }
        let span_ms = self.between(kind.span_ms());
        let other = (node + 1 + self.rng.below(nodes.len() as u64 - 1) as usize) % nodes.len();
        let delay_ms = 5 + self.rng.below(80);
        *self.counts.entry(kind.name()).or_default() += 1;
        start(kind, (node, other), delay_ms, nodes);
        self.now = Now::Fault(kind, node, mono_ms() + span_ms);
    }

    /// Ends whatever goes on.
    pub fn heal(&mut self, nodes: &mut Nodes) {
        if let Now::Fault(kind, node, _) = self.now {
            end(kind, node, nodes);
        }
        self.now = Now::Waiting(u64::MAX);
    }
}

fn start(kind: Kind, (node, other): (usize, usize), delay_ms: u64, nodes: &mut Nodes) {
    match kind {
        Kind::Kill => return nodes.kill(node),
        Kind::Pause => return nodes.pause(node),
        Kind::Bounce => {
            nodes.kill(node);
            return nodes.start_node(node);
        }
        _ => {}
    }
    let links = nodes.links().expect("this kind of fault needs links");
    for i in (0..nodes.len()).filter(|i| *i != node) {
        match kind {
            Kind::Isolate => {
                links.cut(node, i);
                links.cut(i, node);
            }
            Kind::Mute => links.cut(node, i),
            Kind::Slow => links.delay(node, i, delay_ms),
            Kind::Close => {
                links.close(node, i);
                links.close(i, node);
            }
            _ => {}
        }
    }
    if kind == Kind::OneWay {
        links.cut(node, other);
    }
}

fn end(kind: Kind, node: usize, nodes: &mut Nodes) {
    match kind {
        Kind::Kill => nodes.start_node(node),
        Kind::Pause => nodes.resume(node),
        Kind::Bounce => {}
        _ => nodes.links().expect("this kind of fault needs links").mend(),
    }
}
