//! Where frames of other nodes go, and what the server sends to them.

use crate::applier::{Call, Phase, asker};
use crate::bus::{Bus, Sink};
use crate::control::{Event, Published};
use crate::raft::{Log, Origin};
use hypercache_cluster::bus::{Frame, Lane};
use hypercache_cluster::host::{Host, Outside, PeerSeen, Seen};
use hypercache_cluster::ids::{Member, NodeId, PartitionId};
use hypercache_cluster::message::{Message, SealAck};
use hypercache_cluster::meta::Command;
use hypercache_cluster::plan::{Limits, plan};
use hypercache_stdx::clock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};

/// Takes what comes in. Calls of the bus' threads; none of them waits for another node.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) events: SyncSender<Event>,
    pub(crate) calls: SyncSender<Call>,
    pub(crate) phase: Arc<Phase>,
    pub(crate) asked_by: Arc<AtomicU64>,
    pub(crate) bus: OnceLock<Arc<Bus>>,
    pub(crate) log: OnceLock<Log>,
}

impl Router {
    /// What other nodes say is dropped when too much waits: they say it again.
    fn event(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            tracing::debug!("the control thread is busy or has ended: a message is dropped");
        }
    }

    fn call(&self, call: Call) {
        if self.calls.try_send(call).is_err() {
            tracing::debug!("the server is busy or has ended: a message is dropped");
        }
    }

    fn on_message(&self, from: NodeId, message: Message) {
        match message {
            Message::SealAck(ack) if ack.from.node == from => self.event(Event::SealAck(ack)),
            Message::SealAck(_) => {}
            message if self.phase.runs() => {
                if matches!(message, Message::Seal(_)) {
                    self.asked_by.store(from.0, Ordering::Relaxed);
                }
                self.host.receive(from, message);
            }
            _ => {}
        }
    }
}

impl Sink for Router {
    fn receive(&self, from: NodeId, frame: Frame) {
        match frame {
            Frame::Message(message) => self.on_message(from, message),
            Frame::Heartbeat(heartbeat) if heartbeat.from.node == from => {
                self.event(Event::Heartbeat(heartbeat));
            }
            Frame::Grant(grant) => self.call(Call::Grant(grant)),
            Frame::HandOver { partition, to } => self.call(Call::HandOver(partition, to)),
            Frame::Propose { command, is_forwarded } => {
                let origin = if is_forwarded { Origin::Passed } else { Origin::Node };
                self.event(Event::Propose { command, origin });
            }
            Frame::RaftCall(call) => {
                self.log.get().into_iter().for_each(|log| log.on_call(from, call.clone()));
            }
            Frame::RaftReply(reply) => {
                self.log.get().into_iter().for_each(|log| log.on_reply(from, reply.clone()));
            }
            // Signs of life, and greetings out of place.
            _ => {}
        }
    }

    fn end_of_turn(&self) {
        self.bus.get().into_iter().for_each(|bus| bus.flush());
    }

    fn link_changed(&self, node: NodeId, lane: Lane, is_up: bool) {
        let word = if is_up { "is up" } else { "is down" };
        tracing::debug!("link {lane:?} to node {:016x} {word}", node.0);
    }
}

/// What the server uses.
#[derive(Debug)]
pub(crate) struct Face {
    pub(crate) router: Arc<Router>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) log: Log,
    pub(crate) published: Published,
}

impl Outside for Face {
    fn send(&self, to: NodeId, message: &Message) {
        self.bus.send_data(to, message);
    }

    fn flush(&self) {
        self.bus.flush();
    }

    fn propose(&self, command: Command) {
        self.router.event(Event::Propose { command, origin: Origin::Here });
    }

    fn sealed(&self, ack: SealAck) {
        let asker = asker(&self.router.asked_by);
        if asker == self.bus.me {
            self.router.event(Event::SealAck(ack));
        } else {
            self.bus.send(asker, &Frame::Message(Message::SealAck(ack)));
        }
    }

    fn seen(&self) -> Seen {
        let (log, now_ms) = (self.log.status(), clock::mono_ms());
        let peers = self.bus.status().into_iter().map(|peer| PeerSeen {
            node: peer.node,
            is_connected: peer.data.is_up && peer.control.is_up,
            connected_ms: now_ms.saturating_sub(peer.data.since_ms),
            silent_ms: now_ms.saturating_sub(peer.heard_ms),
            queued_bytes: (peer.data.queued + peer.control.queued) as u64,
        });
        Seen { leader: log.leader, term: log.term, voters: log.voters, peers: peers.collect() }
    }

    fn plan(&self) -> Vec<String> {
        let meta = self.published.get();
        // Who does not lead has heard of nobody lately; it goes by who can be reached.
        let runs = |member: Member| member.node == self.bus.me || self.bus.is_up(member.node);
        plan(&meta, &runs, &|_| true, Limits::default()).iter().map(ToString::to_string).collect()
    }

    fn ask_hand_over(&self, partition: PartitionId, to: Member) {
        let meta = self.published.get();
        let primary = meta.partitions.get(&partition).map(|config| config.primary.node);
        match primary {
            Some(node) if node == self.bus.me => self.router.call(Call::HandOver(partition, to)),
            Some(node) => self.bus.send(node, &Frame::HandOver { partition, to }),
            None => {}
        }
    }
}
