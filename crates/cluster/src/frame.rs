//! Messages between nodes as bytes.
//!
//! ```text
//! length u32 | type u8 | version u8 | flags u16 | crc32c u32 | body
//! ```
//! Little-endian. `length` is that of the body, at most [`BODY_BYTES_MAX`]; the checksum is over
//! everything else. What comes in is hostile until checked: a length that claims more than what is there
//! takes no memory, and a frame of an unknown type or version is refused, never guessed at.

use crate::ids::{Epoch, Generation, Lsn, Member, NodeId, PartitionId, RecordId};
use crate::log::{Point, Record};
use crate::message::{Ack, Append, Copy, CopyAck, CopyPart, Message, Seal, SealAck};
use hypercache_stdx::crc32c::crc32c;
use std::fmt;
use std::sync::Arc;

/// Bytes before the body.
pub const HEADER_BYTES: usize = 12;
/// The largest body.
pub const BODY_BYTES_MAX: usize = 16 << 20;
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
            FrameError::TooLong => "frame of another node is longer than 16 MiB",
            FrameError::Damaged => "frame of another node is damaged: its checksum differs",
            FrameError::Unknown => "frame of a type or version that this build does not know",
            FrameError::Malformed => "frame of another node has a malformed body",
        })
    }
}

impl std::error::Error for FrameError {}

/// Appends the frame of a message.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let mut writer = Writer(out);
    let kind = writer.message(message);
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
    let mut reader = Reader(&frame[HEADER_BYTES..]);
    let message = reader.message(header[4])?;
    if !reader.0.is_empty() {
        return Err(FrameError::Malformed);
    }
    Ok(Some((message, frame.len())))
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn optional(&mut self, value: Option<u64>) {
        self.u8(value.is_some().into());
        self.u64(value.unwrap_or(0));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
    }

    fn member(&mut self, member: Member) {
        self.u64(member.node.0);
        self.u32(member.generation.0);
    }

    fn id(&mut self, id: RecordId) {
        self.u64(id.epoch.0);
        self.u64(id.lsn.0);
    }

    fn point(&mut self, point: Point) {
        self.id(point.id);
        self.u32(point.chain);
    }

    fn message(&mut self, message: &Message) -> u8 {
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

struct Reader<'a>(&'a [u8]);

type Read<T> = Result<T, FrameError>;

impl Reader<'_> {
    fn take(&mut self, n: usize) -> Read<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(FrameError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(FrameError::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Read<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn flag(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FrameError::Malformed),
        }
    }

    fn optional(&mut self) -> Read<Option<u64>> {
        let (is_there, value) = (self.flag()?, self.u64()?);
        match (is_there, value) {
            (true, value) => Ok(Some(value)),
            (false, 0) => Ok(None),
            (false, _) => Err(FrameError::Malformed),
        }
    }

    fn bytes(&mut self) -> Read<Arc<[u8]>> {
        let length = self.u32()? as usize;
        Ok(Arc::from(self.take(length)?))
    }

    fn member(&mut self) -> Read<Member> {
        Ok(Member { node: NodeId(self.u64()?), generation: Generation(self.u32()?) })
    }

    fn id(&mut self) -> Read<RecordId> {
        Ok(RecordId { epoch: Epoch(self.u64()?), lsn: Lsn(self.u64()?) })
    }

    fn point(&mut self) -> Read<Point> {
        Ok(Point { id: self.id()?, chain: self.u32()? })
    }

    fn message(&mut self, kind: u8) -> Read<Message> {
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
    if let Some((kind, body)) = input.split_first() {
        let mut frame = vec![0; HEADER_BYTES];
        frame[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
        frame[4..6].copy_from_slice(&[*kind, VERSION]);
        frame.extend_from_slice(body);
        let crc = checksum(&frame);
        frame[8..12].copy_from_slice(&crc.to_le_bytes());
        check_frame(&frame);
    }
}

fn check_frame(bytes: &[u8]) {
    let Ok(Some((message, length))) = decode(bytes) else { return };
    let mut again = Vec::new();
    encode(&message, &mut again);
    assert_eq!(again, &bytes[..length], "{message:?}");
}
