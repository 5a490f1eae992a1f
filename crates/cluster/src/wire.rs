//! The words that frames between nodes are made of, written and read.
//!
//! Little-endian, no padding, one way to write each value: what is read is written back to the same bytes.

use crate::frame::FrameError;
use crate::ids::{Epoch, Generation, Lsn, Member, NodeId, PartitionId, RecordId};
use crate::log::Point;
use std::sync::Arc;

/// Appends words.
#[derive(Debug)]
pub struct Writer<'a>(pub &'a mut Vec<u8>);

impl Writer<'_> {
    /// A byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A number that may not be there: as long in both cases.
    pub fn optional(&mut self, value: Option<u64>) {
        self.u8(value.is_some().into());
        self.u64(value.unwrap_or(0));
    }

    /// Bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
    }

    /// A member.
    pub fn member(&mut self, member: Member) {
        self.u64(member.node.0);
        self.u32(member.generation.0);
    }

    /// A record's identity.
    pub fn id(&mut self, id: RecordId) {
        self.u64(id.epoch.0);
        self.u64(id.lsn.0);
    }

    /// A position of a log.
    pub fn point(&mut self, point: Point) {
        self.id(point.id);
        self.u32(point.chain);
    }

    /// A partition.
    pub fn partition(&mut self, partition: PartitionId) {
        self.u16(partition.0);
    }

    /// A short text; what is beyond its bound is cut off.
    pub fn text(&mut self, text: &str) {
        let end = text.floor_char_boundary(TEXT_BYTES_MAX);
        self.u8(end as u8);
        self.0.extend_from_slice(&text.as_bytes()[..end]);
    }
}

/// The longest text: a host's name has at most 253 bytes.
const TEXT_BYTES_MAX: usize = 255;

/// Takes words off.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

/// What was read.
pub type Read<T> = Result<T, FrameError>;

impl<'a> Reader<'a> {
    /// So many bytes.
    ///
    /// # Errors
    /// When it is not there.
    pub fn take(&mut self, n: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(FrameError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// So many bytes, by value.
    ///
    /// # Errors
    /// When it is not there.
    pub fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(FrameError::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A byte.
    ///
    /// # Errors
    /// When it is not there.
    pub fn u8(&mut self) -> Read<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Two bytes.
    ///
    /// # Errors
    /// When it is not there.
    pub fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// When it is not there.
    pub fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// When it is not there.
    pub fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A byte that is 0 or 1.
    ///
    /// # Errors
    /// When it is not there.
    pub fn flag(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FrameError::Malformed),
        }
    }

    /// A number that may not be there.
    ///
    /// # Errors
    /// When it is not there.
    pub fn optional(&mut self) -> Read<Option<u64>> {
        let (is_there, value) = (self.flag()?, self.u64()?);
        match (is_there, value) {
            (true, value) => Ok(Some(value)),
            (false, 0) => Ok(None),
            (false, _) => Err(FrameError::Malformed),
        }
    }

    /// Bytes with their length.
    ///
    /// # Errors
    /// When it is not there.
    pub fn bytes(&mut self) -> Read<Arc<[u8]>> {
        let length = self.u32()? as usize;
        Ok(Arc::from(self.take(length)?))
    }

    /// A member.
    ///
    /// # Errors
    /// When it is not there.
    pub fn member(&mut self) -> Read<Member> {
        Ok(Member { node: NodeId(self.u64()?), generation: Generation(self.u32()?) })
    }

    /// A record's identity.
    ///
    /// # Errors
    /// When it is not there.
    pub fn id(&mut self) -> Read<RecordId> {
        Ok(RecordId { epoch: Epoch(self.u64()?), lsn: Lsn(self.u64()?) })
    }

    /// A position of a log.
    ///
    /// # Errors
    /// When it is not there.
    pub fn point(&mut self) -> Read<Point> {
        Ok(Point { id: self.id()?, chain: self.u32()? })
    }

    /// A node.
    ///
    /// # Errors
    /// When it is not there.
    pub fn node(&mut self) -> Read<NodeId> {
        Ok(NodeId(self.u64()?))
    }

    /// A partition.
    ///
    /// # Errors
    /// When it is not there.
    pub fn partition(&mut self) -> Read<PartitionId> {
        Ok(PartitionId(self.u16()?))
    }

    /// An epoch.
    ///
    /// # Errors
    /// When it is not there.
    pub fn epoch(&mut self) -> Read<Epoch> {
        Ok(Epoch(self.u64()?))
    }

    /// A short text.
    ///
    /// # Errors
    /// When it is not there.
    pub fn text(&mut self) -> Read<String> {
        let length = self.u8()?;
        let bytes = self.take(length.into())?;
        let text = std::str::from_utf8(bytes).map_err(|_| FrameError::Malformed)?;
        Ok(text.to_owned())
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// When something is.
    pub fn end(&self) -> Read<()> {
        if self.0.is_empty() { Ok(()) } else { Err(FrameError::Malformed) }
    }
}
