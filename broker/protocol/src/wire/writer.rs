//! The writer: values in, a list of pieces out.
//!
//! Small values go into one growing buffer. Large record batches and file ranges are kept beside it with the place
//! where they belong, so a batch is never copied and a file range goes from the page cache to the socket.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::EncodeError;
use crate::types::{FileRange, Records};

/// Record batches from this size on are passed on by reference count instead of being copied.
const SHARE_FROM: usize = 4 * 1024;
const STRING_MAX: usize = i16::MAX as usize;

/// Writes values, front to back.
#[derive(Debug, Default)]
pub struct Writer {
    buf: BytesMut,
    /// What belongs between the bytes of `buf`, with the position in it, ascending.
    inserts: Vec<(usize, Piece)>,
    inserted: usize,
}

/// One part of an encoded message.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes in a file.
    File(FileRange),
}

impl Piece {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(range) => range.len as usize,
        }
    }

    /// True when it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An encoded message: the pieces in the order they go to the socket.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Encoded {
    /// The pieces, none of them empty.
    pub pieces: Vec<Piece>,
}

impl From<Bytes> for Encoded {
    /// What has been encoded elsewhere.
    fn from(bytes: Bytes) -> Self {
        Self { pieces: vec![Piece::Bytes(bytes)] }
    }
}

impl Encoded {
    /// Bytes in all pieces together.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum()
    }

    /// True when there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Everything in one buffer; an error when a piece lies in a file.
    pub fn into_bytes(mut self) -> Result<Bytes, EncodeError> {
        if let [Piece::Bytes(_)] = self.pieces.as_slice()
            && let Some(Piece::Bytes(only)) = self.pieces.pop()
        {
            return Ok(only);
        }
        let mut out = BytesMut::with_capacity(self.len());
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => out.put_slice(bytes),
                Piece::File(_) => {
                    return Err(EncodeError::FileRange { message: "", field: "records" });
                }
            }
        }
        Ok(out.freeze())
    }
}

/// A length to be filled in later, see [`Writer::begin_tag`].
#[derive(Debug)]
#[must_use]
pub struct TagMark {
    at: usize,
    inserted: usize,
}

macro_rules! fixed {
    ($($name:ident $ty:ty),*) => {$(
        #[doc = concat!("Writes a big-endian `", stringify!($ty), "`.")]
        #[inline]
        pub fn $name(&mut self, value: $ty) {
            self.buf.extend_from_slice(&value.to_be_bytes());
        }
    )*};
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty writer with room for `n` bytes.
    pub fn with_capacity(n: usize) -> Self {
        Self { buf: BytesMut::with_capacity(n), ..Self::default() }
    }

    /// Bytes written so far, file ranges included.
    pub fn len(&self) -> usize {
        self.buf.len() + self.inserted
    }

    /// True before the first byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fixed!(i8 i8, u8 u8, i16 i16, u16 u16, i32 i32, u32 u32, i64 i64, f64 f64);

    /// Writes a boolean as one byte.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// Writes bytes as they are.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Writes an unsigned variable-length number.
    #[inline]
    pub fn uvarint(&mut self, value: u32) {
        if value < 0x80 {
            self.u8(value as u8);
        } else {
            self.uvarlong(u64::from(value));
        }
    }

    /// Writes an unsigned variable-length number.
    pub fn uvarlong(&mut self, value: u64) {
        let (bytes, len) = uvarint_bytes(value);
        self.raw(&bytes[..len]);
    }

    /// Writes a zigzag number.
    pub fn varint(&mut self, value: i32) {
        self.uvarint(((value << 1) ^ (value >> 31)) as u32);
    }

    /// Writes a zigzag number.
    pub fn varlong(&mut self, value: i64) {
        self.uvarlong(((value << 1) ^ (value >> 63)) as u64);
    }

    #[inline]
    fn short_length(&mut self, len: Option<usize>, flexible: bool) {
        match (len, flexible) {
            (Some(len), true) => self.uvarint(len as u32 + 1),
            (None, true) => self.uvarint(0),
            (Some(len), false) => self.i16(len as i16),
            (None, false) => self.i16(-1),
        }
    }

    /// Writes a length or count; `None` is null.
    #[inline]
    pub fn long_length(&mut self, len: Option<usize>, flexible: bool, field: &'static str) -> Result<(), EncodeError> {
        if let Some(len) = len
            && len >= i32::MAX as usize
        {
            return Err(too_long(field, len));
        }
        match (len, flexible) {
            (Some(len), true) => self.uvarint(len as u32 + 1),
            (None, true) => self.uvarint(0),
            (Some(len), false) => self.i32(len as i32),
            (None, false) => self.i32(-1),
        }
        Ok(())
    }

    /// Writes a string or null.
    pub fn string(&mut self, value: Option<&str>, flexible: bool, field: &'static str) -> Result<(), EncodeError> {
        let len = value.map(str::len);
        if let Some(len) = len
            && len > STRING_MAX
        {
            return Err(too_long(field, len));
        }
        self.short_length(len, flexible);
        if let Some(text) = value {
            self.raw(text.as_bytes());
        }
        Ok(())
    }

    /// Writes a byte string or null.
    pub fn bytes(&mut self, value: Option<&Bytes>, flexible: bool, field: &'static str) -> Result<(), EncodeError> {
        self.long_length(value.map(Bytes::len), flexible, field)?;
        if let Some(bytes) = value {
            self.share(bytes);
        }
        Ok(())
    }

    /// Writes record batches or null.
    pub fn records(&mut self, value: Option<&Records>, flexible: bool, field: &'static str) -> Result<(), EncodeError> {
        match value {
            Some(Records::File(range)) => {
                self.long_length(Some(range.len as usize), flexible, field)?;
                if range.len > 0 {
                    self.insert(Piece::File(range.clone()));
                }
                Ok(())
            }
            Some(Records::Bytes(bytes)) => self.bytes(Some(bytes), flexible, field),
            None => self.bytes(None, flexible, field),
        }
    }

    /// Adds bytes by reference when they are many, by copy when they are few.
    fn share(&mut self, bytes: &Bytes) {
        if bytes.len() >= SHARE_FROM {
            self.insert(Piece::Bytes(bytes.clone()));
        } else {
            self.raw(bytes);
        }
    }

    fn insert(&mut self, piece: Piece) {
        self.inserted += piece.len();
        self.inserts.push((self.buf.len(), piece));
    }

    /// Begins a tagged field; its content follows, then [`Writer::end_tag`].
    pub fn begin_tag(&mut self, tag: u32) -> TagMark {
        self.uvarint(tag);
        // One byte for the size: most tagged fields are small.
        self.u8(0);
        TagMark { at: self.buf.len(), inserted: self.inserted }
    }

    /// Ends a tagged field by filling in its size.
    pub fn end_tag(&mut self, mark: TagMark, field: &'static str) -> Result<(), EncodeError> {
        let size = self.buf.len() - mark.at + (self.inserted - mark.inserted);
        if size > i32::MAX as usize {
            return Err(too_long(field, size));
        }
        let (bytes, len) = uvarint_bytes(size as u64);
        let extra = len - 1;
        if extra > 0 {
            let end = self.buf.len();
            self.buf.resize(end + extra, 0);
            self.buf.copy_within(mark.at..end, mark.at + extra);
            for (at, _) in self.inserts.iter_mut().rev().take_while(|(at, _)| *at >= mark.at) {
                *at += extra;
            }
        }
        self.buf[mark.at - 1..mark.at + extra].copy_from_slice(&bytes[..len]);
        Ok(())
    }

    /// Puts the number of bytes that follow it into the four bytes at `at`.
    pub(crate) fn patch_size(&mut self, at: usize) -> Result<(), EncodeError> {
        let size = self.len() - at - 4;
        let size = i32::try_from(size).map_err(|_| too_long("frame", size))?;
        self.buf[at..at + 4].copy_from_slice(&size.to_be_bytes());
        Ok(())
    }

    /// What was written, in pieces.
    pub fn finish(mut self) -> Encoded {
        let mut pieces = Vec::with_capacity(2 * self.inserts.len() + 1);
        let mut done = 0;
        for (at, piece) in self.inserts {
            if at > done {
                pieces.push(Piece::Bytes(self.buf.split_to(at - done).freeze()));
                done = at;
            }
            pieces.push(piece);
        }
        if !self.buf.is_empty() {
            pieces.push(Piece::Bytes(self.buf.freeze()));
        }
        Encoded { pieces }
    }
}

#[cold]
fn too_long(field: &'static str, len: usize) -> EncodeError {
    EncodeError::TooLong { message: "", field, len }
}

fn uvarint_bytes(mut value: u64) -> ([u8; 10], usize) {
    let mut out = [0; 10];
    let mut len = 0;
    while value >= 0x80 {
        out[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    out[len] = value as u8;
    (out, len + 1)
}
