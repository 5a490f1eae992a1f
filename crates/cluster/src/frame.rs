//! Messages between nodes as bytes.
//!
//! ```text
//! length u32 | type u8 | version u8 | flags u16 | crc32c u32 | body
//! ```
//! Little-endian. `length` is that of the body, at most [`BODY_BYTES_MAX`]; the checksum is over
//! everything else. What comes in is hostile until checked: a length that claims more than what is there
//! takes no memory, and a frame of an unknown type or version is refused, never guessed at.

use crate::ids::{Epoch, Lsn, PartitionId};
use crate::log::Record;
use crate::message::{Ack, Append, Copy, CopyAck, CopyPart, Message, Seal, SealAck};
use crate::wire::{Read, Reader, Writer};
use hypercache_stdx::crc32c::crc32c;
use std::fmt;

/// Bytes before the body.
pub const HEADER_BYTES: usize = 12;
/// The largest body: a record is the effects of a command as a whole, and its value may be as long as
/// `proto-max-bulk-len` allows.
pub const BODY_BYTES_MAX: usize = 1 << 30;
/// The version that this build writes.
pub const VERSION: u8 = 1;

const APPEND: u8 = 1;
const ACK: u8 = 2;
const COPY: u8 = 3;
const COPY_ACK: u8 = 4;
const SEAL: u8 = 5;
const SEAL_ACK: u8 = 6;

/// Why bytes are no frame. The connection they came on is closed: what follows cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The body is longer than allowed.
    TooLong,
    /// The checksum differs.
    Damaged,
    /// Another type or version than this build knows.
    Unknown,
    /// The body is not that of its type.
    Malformed,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrameError::TooLong => "frame of another node is longer than 1 GiB",
            FrameError::Damaged => "frame of another node is damaged: its checksum differs",
            FrameError::Unknown => "frame of a type or version that this build does not know",
            FrameError::Malformed => "frame of another node has a malformed body",
        })
    }
}

impl std::error::Error for FrameError {}

/// Appends the frame of a message.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    put(out, |writer| writer.message(message));
}

/// Appends a frame whose body `write` writes; it returns the type.
pub(crate) fn put(out: &mut Vec<u8>, write: impl FnOnce(&mut Writer<'_>) -> u8) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let kind = write(&mut Writer(out));
    let length = (out.len() - start - HEADER_BYTES) as u32;
    let frame = &mut out[start..];
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..8].copy_from_slice(&[kind, VERSION, 0, 0]);
    let crc = checksum(frame);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(frame: &[u8]) -> u32 {
    crc32c(crc32c(0, &frame[..8]), &frame[HEADER_BYTES..])
}

/// Reads the frame that `bytes` begin with. Returns it and its length; `None` when more bytes are needed.
///
/// # Errors
/// When the bytes are no frame.
pub fn decode(bytes: &[u8]) -> Result<Option<(Message, usize)>, FrameError> {
    let Some((kind, body)) = split(bytes)? else { return Ok(None) };
    let mut reader = Reader(body);
    let message = reader.message(kind)?;
    reader.end()?;
    Ok(Some((message, HEADER_BYTES + body.len())))
}

/// Type and body of the frame that `bytes` begin with.
pub(crate) fn split(bytes: &[u8]) -> Result<Option<(u8, &[u8])>, FrameError> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let length = word(0) as usize;
    if length > BODY_BYTES_MAX {
        return Err(FrameError::TooLong);
    }
    let Some(frame) = bytes.get(..HEADER_BYTES + length) else { return Ok(None) };
    if checksum(frame) != word(8) {
        return Err(FrameError::Damaged);
    }
    if header[5] != VERSION || header[6..8] != [0, 0] {
        return Err(FrameError::Unknown);
    }
    Ok(Some((header[4], &frame[HEADER_BYTES..])))
}

impl Writer<'_> {
    /// Writes the body and returns the type.
    pub(crate) fn message(&mut self, message: &Message) -> u8 {
        self.u16(message.partition().0);
        match message {
            Message::Append(m) => self.append(m),
            Message::Ack(m) => self.ack(m),
            Message::Copy(m) => self.copy(m),
            Message::CopyAck(m) => {
                self.member(m.from);
                self.u64(m.session);
                self.u32(m.next_seq);
                COPY_ACK
            }
            Message::Seal(m) => {
                self.u64(m.epoch.0);
                SEAL
            }
            Message::SealAck(m) => {
                self.member(m.from);
                self.u64(m.epoch.0);
                self.id(m.tail);
                SEAL_ACK
            }
        }
    }

    fn append(&mut self, m: &Append) -> u8 {
        self.member(m.from);
        self.u64(m.epoch.0);
        self.u64(m.term.0);
        self.u32(m.lineage);
        self.point(m.prev);
        self.u64(m.commit.0);
        self.optional(m.read_stamp_us);
        self.u32(m.records.len() as u32);
        for record in &m.records {
            self.id(record.id);
            self.u32(record.chain);
            self.bytes(&record.body);
        }
        APPEND
    }

    fn ack(&mut self, m: &Ack) -> u8 {
        self.member(m.from);
        self.u64(m.epoch.0);
        self.u64(m.term.0);
        self.optional(m.verified.map(|lsn| lsn.0));
        self.point(m.tail);
        self.u8(m.wants_copy.into());
        self.u64(m.stamp_us);
        ACK
    }

    fn copy(&mut self, m: &Copy) -> u8 {
        self.member(m.from);
        self.u64(m.epoch.0);
        self.u64(m.term.0);
        self.u32(m.lineage);
        self.u64(m.session);
        self.u32(m.seq);
        match &m.part {
            CopyPart::Chunk(bytes) => {
                self.u8(0);
                self.bytes(bytes);
            }
            CopyPart::Record(bytes) => {
                self.u8(1);
                self.bytes(bytes);
            }
            CopyPart::End { tail, commit } => {
                self.u8(2);
                self.point(*tail);
                self.u64(commit.0);
            }
        }
        COPY
    }
}

impl Reader<'_> {
    pub(crate) fn message(&mut self, kind: u8) -> Read<Message> {
        let partition = PartitionId(self.u16()?);
        match kind {
            APPEND => self.append(partition),
            ACK => self.ack(partition),
            COPY => self.copy(partition),
            COPY_ACK => {
                let (from, session) = (self.member()?, self.u64()?);
                let next_seq = self.u32()?;
                Ok(Message::CopyAck(CopyAck { partition, from, session, next_seq }))
            }
            SEAL => Ok(Message::Seal(Seal { partition, epoch: Epoch(self.u64()?) })),
            SEAL_ACK => {
                let (from, epoch) = (self.member()?, Epoch(self.u64()?));
                Ok(Message::SealAck(SealAck { partition, from, epoch, tail: self.id()? }))
            }
            _ => Err(FrameError::Unknown),
        }
    }

    fn append(&mut self, partition: PartitionId) -> Read<Message> {
        let from = self.member()?;
        let (epoch, term, lineage) = (Epoch(self.u64()?), Epoch(self.u64()?), self.u32()?);
        let (prev, commit) = (self.point()?, Lsn(self.u64()?));
        let read_stamp_us = self.optional()?;
        let count = self.u32()?;
        let mut records = Vec::new();
        for _ in 0..count {
            let (id, chain) = (self.id()?, self.u32()?);
            records.push(Record { id, chain, body: self.bytes()? });
        }
        Ok(Message::Append(Append {
            partition,
            from,
            epoch,
            term,
            lineage,
            prev,
            commit,
            read_stamp_us,
            records,
        }))
    }

    fn ack(&mut self, partition: PartitionId) -> Read<Message> {
        let from = self.member()?;
        let (epoch, term) = (Epoch(self.u64()?), Epoch(self.u64()?));
        let verified = self.optional()?.map(Lsn);
        let (tail, wants_copy) = (self.point()?, self.flag()?);
        let stamp_us = self.u64()?;
        Ok(Message::Ack(Ack { partition, from, epoch, term, verified, tail, wants_copy, stamp_us }))
    }

    fn copy(&mut self, partition: PartitionId) -> Read<Message> {
        let from = self.member()?;
        let (epoch, term, lineage) = (Epoch(self.u64()?), Epoch(self.u64()?), self.u32()?);
        let (session, seq) = (self.u64()?, self.u32()?);
        let part = match self.u8()? {
            0 => CopyPart::Chunk(self.bytes()?),
            1 => CopyPart::Record(self.bytes()?),
            2 => CopyPart::End { tail: self.point()?, commit: Lsn(self.u64()?) },
            _ => return Err(FrameError::Malformed),
        };
        Ok(Message::Copy(Copy { partition, from, epoch, term, lineage, session, seq, part }))
    }
}

/// What the fuzz target runs: what decodes, encodes to the same bytes. The input is tried as a frame, and,
/// since hardly any has the right checksum, as the type and body of one.
///
/// # Panics
/// When it does not.
pub fn check_round_trip(input: &[u8]) {
    check_frame(input);
    if let Some(frame) = framed(input) {
        check_frame(&frame);
    }
}

/// The input's first byte as the type of a frame, and the rest as its body.
pub(crate) fn framed(input: &[u8]) -> Option<Vec<u8>> {
    let (kind, body) = input.split_first()?;
    let mut frame = Vec::new();
    put(&mut frame, |writer| {
        writer.0.extend_from_slice(body);
        *kind
    });
    Some(frame)
}

fn check_frame(bytes: &[u8]) {
    let Ok(Some((message, length))) = decode(bytes) else { return };
    let mut again = Vec::new();
    encode(&message, &mut again);
    assert_eq!(again, &bytes[..length], "{message:?}");
}
