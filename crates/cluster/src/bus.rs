//! Everything that one node says to another, as bytes: greetings, the control plane, and the messages about
//! partitions ([`crate::frame`], whose header all frames have).
//!
//! A connection carries frames in one direction; the node that opened it sends. Only the greeting goes both
//! ways:
//!
//! ```text
//! who connects                     who listens
//! Hello (who, of which cluster)  ->
//!                                <-  Welcome (who, its proof that it knows the secret)
//! Proof                          ->
//!                                <-  Ready (where the others are), or Refused at any point
//! ```
//! A proof is a keyed hash over both greetings, so each side shows that it knows the secret of the
//! cluster without saying it, and what was seen on one connection is of no use on another.

use crate::control::Heartbeat;
use crate::frame::{FrameError, HEADER_BYTES, framed, put, split};
use crate::ids::{Member, NodeId, PartitionId};
use crate::lease::Grant;
use crate::message::Message;
use crate::meta::{Command, MetaState, NodeAddress};
use crate::wire::{Read, Reader, Writer};
use std::sync::Arc;

/// What a greeting begins with.
pub const MAGIC: u64 = u64::from_le_bytes(*b"hcbus\r\n\0");
/// The oldest version of the protocol between nodes that this build speaks.
pub const PROTOCOL_MIN: u8 = 1;
/// The newest.
pub const PROTOCOL_MAX: u8 = 1;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// A look at who is there.
    Probe,
    /// Messages about partitions.
    Data,
    /// Everything else.
    Control,
}

/// The greeting of who connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Versions that it speaks: from and to.
    pub protocol: (u8, u8),
    /// What the connection is for.
    pub lane: Lane,
    /// Its cluster; 0 for a node that wants to join one.
    pub cluster: u64,
    /// Who it is.
    pub from: NodeId,
    /// Whom it wants to reach; 0 for whoever is there.
    pub to: NodeId,
    /// Which start of its process it is.
    pub boot: u64,
    /// Where it is reached.
    pub address: NodeAddress,
    /// Never the same twice.
    pub nonce: [u8; 16],
}

/// The greeting of who listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version to speak.
    pub protocol: u8,
    /// Its cluster.
    pub cluster: u64,
    /// Who it is.
    pub from: NodeId,
    /// Which start of its process it is.
    pub boot: u64,
    /// Never the same twice.
    pub nonce: [u8; 16],
    /// That it knows the secret.
    pub proof: [u8; 32],
}

/// A call of the consensus log, or the answer to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftCall {
    /// Number of the call, of the caller's choice.
    pub id: u64,
    /// Which call.
    pub kind: u8,
    /// Opaque here.
    pub body: Arc<[u8]>,
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// About a partition.
    Message(Message),
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Welcome`].
    Welcome(Welcome),
    /// That who connects knows the secret.
    Proof([u8; 32]),
    /// The connection is open. Where others are.
    Ready(Vec<(NodeId, NodeAddress)>),
    /// It is not, and why.
    Refused(String),
    /// A sign of life.
    Ping,
    /// A node asks the leader for its lease.
    Heartbeat(Heartbeat),
    /// The leader's answer.
    Grant(Grant),
    /// For the leader of the metadata log.
    Propose {
        /// What is proposed.
        command: Command,
        /// It was passed on once and is not passed on again.
        is_forwarded: bool,
    },
    /// The leader wants another primary for a partition.
    HandOver {
        /// The partition.
        partition: PartitionId,
        /// Its primary to be.
        to: Member,
    },
    /// See [`RaftCall`].
    RaftCall(RaftCall),
    /// The answer to one.
    RaftReply(RaftCall),
}

const HELLO: u8 = 32;
const WELCOME: u8 = 33;
const PROOF: u8 = 34;
const READY: u8 = 35;
const REFUSED: u8 = 36;
const PING: u8 = 37;
const HEARTBEAT: u8 = 40;
const GRANT: u8 = 41;
const PROPOSE: u8 = 42;
const HAND_OVER: u8 = 43;
const RAFT_CALL: u8 = 48;
const RAFT_REPLY: u8 = 49;

impl Frame {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put(out, |writer| writer.frame(self));
    }

    /// Reads the frame that `bytes` begin with. Returns it and its length; `None` when more bytes are
    /// needed.
    ///
    /// # Errors
    /// When the bytes are no frame.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Frame, usize)>, FrameError> {
        let Some((kind, body)) = split(bytes)? else { return Ok(None) };
        let mut reader = Reader(body);
        let frame = reader.frame(kind)?;
        reader.end()?;
        Ok(Some((frame, HEADER_BYTES + body.len())))
    }
}

impl Writer<'_> {
    fn frame(&mut self, frame: &Frame) -> u8 {
        match frame {
            Frame::Message(message) => return self.message(message),
            Frame::Hello(hello) => return self.hello(hello),
            Frame::Welcome(welcome) => return self.welcome(welcome),
            Frame::Proof(proof) => {
                self.0.extend_from_slice(proof);
                return PROOF;
            }
            Frame::Ready(others) => {
                self.u16(others.len() as u16);
                for (node, address) in others {
                    self.u64(node.0);
                    self.address(address);
                }
                return READY;
            }
            Frame::Refused(why) => {
                self.text(why);
                return REFUSED;
            }
            Frame::Ping => return PING,
            _ => {}
        }
        self.control_frame(frame)
    }

    fn control_frame(&mut self, frame: &Frame) -> u8 {
        match frame {
            Frame::Heartbeat(heartbeat) => {
                self.member(heartbeat.from);
                self.u64(heartbeat.stamp_us);
                self.u64(heartbeat.meta_index);
                self.u8(heartbeat.is_leaving.into());
                HEARTBEAT
            }
            Frame::Grant(grant) => {
                self.member(grant.to);
                self.u64(grant.asked_us);
                self.u64(grant.length_us);
                self.u64(grant.meta_index);
                GRANT
            }
            Frame::Propose { command, is_forwarded } => {
                self.u8((*is_forwarded).into());
                self.command(command);
                PROPOSE
            }
            Frame::HandOver { partition, to } => {
                self.partition(*partition);
                self.member(*to);
                HAND_OVER
            }
            Frame::RaftCall(call) => self.raft(call, RAFT_CALL),
            Frame::RaftReply(call) => self.raft(call, RAFT_REPLY),
            _ => PING,
        }
    }

    fn hello(&mut self, hello: &Hello) -> u8 {
        self.u64(MAGIC);
        self.u8(hello.protocol.0);
        self.u8(hello.protocol.1);
        self.u8(match hello.lane {
            Lane::Probe => 0,
            Lane::Data => 1,
            Lane::Control => 2,
        });
        self.u64(hello.cluster);
        self.u64(hello.from.0);
        self.u64(hello.to.0);
        self.u64(hello.boot);
        self.address(&hello.address);
        self.0.extend_from_slice(&hello.nonce);
        HELLO
    }

    fn welcome(&mut self, welcome: &Welcome) -> u8 {
        self.u64(MAGIC);
        self.u8(welcome.protocol);
        self.u64(welcome.cluster);
        self.u64(welcome.from.0);
        self.u64(welcome.boot);
        self.0.extend_from_slice(&welcome.nonce);
        self.0.extend_from_slice(&welcome.proof);
        WELCOME
    }

    fn raft(&mut self, call: &RaftCall, kind: u8) -> u8 {
        self.u64(call.id);
        self.u8(call.kind);
        self.bytes(&call.body);
        kind
    }
}

impl Reader<'_> {
    fn frame(&mut self, kind: u8) -> Read<Frame> {
        match kind {
            HELLO => self.hello(),
            WELCOME => self.welcome(),
            PROOF => Ok(Frame::Proof(self.array()?)),
            READY => {
                let count = self.u16()?;
                let mut one = || Ok((self.node()?, self.address()?));
                Ok(Frame::Ready((0..count).map(|_| one()).collect::<Read<_>>()?))
            }
            REFUSED => Ok(Frame::Refused(self.text()?)),
            PING => Ok(Frame::Ping),
            HEARTBEAT => {
                let (from, stamp_us, meta_index) = (self.member()?, self.u64()?, self.u64()?);
                let is_leaving = self.flag()?;
                Ok(Frame::Heartbeat(Heartbeat { from, stamp_us, meta_index, is_leaving }))
            }
            GRANT => {
                let (to, asked_us, length_us) = (self.member()?, self.u64()?, self.u64()?);
                Ok(Frame::Grant(Grant { to, asked_us, length_us, meta_index: self.u64()? }))
            }
            PROPOSE => {
                let is_forwarded = self.flag()?;
                Ok(Frame::Propose { command: self.command()?, is_forwarded })
            }
            HAND_OVER => Ok(Frame::HandOver { partition: self.partition()?, to: self.member()? }),
            RAFT_CALL => Ok(Frame::RaftCall(self.raft()?)),
            RAFT_REPLY => Ok(Frame::RaftReply(self.raft()?)),
            _ => Ok(Frame::Message(self.message(kind)?)),
        }
    }

    fn magic(&mut self) -> Read<()> {
        if self.u64()? == MAGIC { Ok(()) } else { Err(FrameError::Unknown) }
    }

    fn hello(&mut self) -> Read<Frame> {
        self.magic()?;
        let protocol = (self.u8()?, self.u8()?);
        let lane = match self.u8()? {
            0 => Lane::Probe,
            1 => Lane::Data,
            2 => Lane::Control,
            _ => return Err(FrameError::Malformed),
        };
        let (cluster, from, to) = (self.u64()?, self.node()?, self.node()?);
        let (boot, address, nonce) = (self.u64()?, self.address()?, self.array()?);
        Ok(Frame::Hello(Hello { protocol, lane, cluster, from, to, boot, address, nonce }))
    }

    fn welcome(&mut self) -> Read<Frame> {
        self.magic()?;
        let (protocol, cluster, from) = (self.u8()?, self.u64()?, self.node()?);
        let (boot, nonce, proof) = (self.u64()?, self.array()?, self.array()?);
        Ok(Frame::Welcome(Welcome { protocol, cluster, from, boot, nonce, proof }))
    }

    fn raft(&mut self) -> Read<RaftCall> {
        Ok(RaftCall { id: self.u64()?, kind: self.u8()?, body: self.bytes()? })
    }
}

/// What the fuzz target runs: what decodes, encodes to the same bytes. The input is tried as a frame, as the
/// type and body of one, as a command and as a state of the metadata.
///
/// # Panics
/// When it does not.
pub fn check_round_trip(input: &[u8]) {
    check_frame(input);
    if let Some(frame) = framed(input) {
        check_frame(&frame);
    }
    if let Ok(command) = Command::decode(input) {
        assert_eq!(command.encode(), input, "{command:?}");
    }
    if let Ok(state) = MetaState::decode(input) {
        assert_eq!(state.encode(), input, "{state:?}");
    }
}

fn check_frame(bytes: &[u8]) {
    let Ok(Some((frame, length))) = Frame::decode(bytes) else { return };
    let mut again = Vec::new();
    frame.encode(&mut again);
    assert_eq!(again, &bytes[..length], "{frame:?}");
}
