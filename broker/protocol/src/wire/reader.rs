//! The bounded reader: bytes in, values out.
//!
//! Every length is checked against the bytes that remain, and every allocation is charged to a budget before it is
//! made, so a hostile body costs at most the budget. `bytes` and `records` fields are slices of the input that share
//! its reference count.

use bytes::Bytes;

use super::error::{DecodeError, DecodeErrorKind};

/// Reads values from a frame, front to back.
#[derive(Debug)]
pub struct Reader {
    buf: Bytes,
    pos: usize,
    /// Reading stops here; inside a tagged field this is the field's end.
    end: usize,
    budget: usize,
}

/// A position inside a section of tagged fields.
#[derive(Debug)]
pub struct Tags {
    left: u32,
    seen: u64,
    outer_end: usize,
}

/// Honest frames stay far below this many bytes of memory for each byte on the wire.
const MEMORY_PER_BYTE: usize = 32;
const MEMORY_MIN: usize = 64 * 1024;
/// Kafka refuses longer strings in every version.
const STRING_MAX: usize = i16::MAX as usize;

macro_rules! fixed {
    ($($name:ident $ty:ty),*) => {$(
        #[doc = concat!("Reads a big-endian `", stringify!($ty), "`.")]
        #[inline]
        pub fn $name(&mut self, field: &'static str) -> Result<$ty, DecodeError> {
            let bytes = self.array_of(field)?;
            Ok(<$ty>::from_be_bytes(bytes))
        }
    )*};
}

impl Reader {
    /// A reader whose memory budget grows with the frame: generous to honest frames, and never more than
    /// `MEMORY_PER_BYTE` times what the sender paid.
    pub fn new(buf: Bytes) -> Self {
        let budget = buf.len().saturating_mul(MEMORY_PER_BYTE).saturating_add(MEMORY_MIN);
        Self::with_budget(buf, budget)
    }

    /// A reader that lets decoding allocate at most `budget` bytes.
    pub fn with_budget(buf: Bytes, budget: usize) -> Self {
        let end = buf.len();
        Self { buf, pos: 0, end, budget }
    }

    /// Bytes not read yet.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.end - self.pos
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// What is left of the memory budget.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// The bytes not read yet, sharing the input's memory.
    pub fn rest(&self) -> Bytes {
        self.buf.slice(self.pos..self.end)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn fail(&self, kind: DecodeErrorKind, field: &'static str) -> DecodeError {
        DecodeError::new(kind, field, self.pos)
    }

    /// Takes `n` bytes from the budget before the caller allocates them.
    #[inline]
    pub fn charge(&mut self, n: usize, field: &'static str) -> Result<(), DecodeError> {
        match self.budget.checked_sub(n) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(self.fail(DecodeErrorKind::Budget { needed: n, left: self.budget }, field)),
        }
    }

    #[inline]
    fn take(&mut self, n: usize, field: &'static str) -> Result<&[u8], DecodeError> {
        let left = self.remaining();
        if n > left {
            return Err(self.fail(DecodeErrorKind::Truncated { needed: n, left }, field));
        }
        let from = self.pos;
        self.pos += n;
        Ok(&self.buf[from..from + n])
    }

    #[inline]
    pub(crate) fn array_of<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, field)?);
        Ok(out)
    }

    fixed!(i8 i8, u8 u8, i16 i16, u16 u16, i32 i32, u32 u32, i64 i64, f64 f64);

    /// Reads a byte as a boolean; as in Kafka, everything but zero is true.
    #[inline]
    pub fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        Ok(self.u8(field)? != 0)
    }

    /// Reads an unsigned variable-length number of at most 32 bits.
    #[inline]
    pub fn uvarint(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let first = self.u8(field)?;
        if first < 0x80 {
            return Ok(u32::from(first));
        }
        let value = self.uvarint_tail(first, 5, field)?;
        u32::try_from(value).map_err(|_| self.fail(DecodeErrorKind::Varint, field))
    }

    /// Reads an unsigned variable-length number of at most 64 bits.
    pub fn uvarlong(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let first = self.u8(field)?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        self.uvarint_tail(first, 10, field)
    }

    fn uvarint_tail(&mut self, first: u8, max_len: u32, field: &'static str) -> Result<u64, DecodeError> {
        let mut value = u64::from(first & 0x7f);
        for i in 1..max_len {
            let byte = self.u8(field)?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds one bit only.
            if i == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * i);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.fail(DecodeErrorKind::Varint, field))
    }

    /// Reads a zigzag number of at most 32 bits.
    pub fn varint(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        let raw = self.uvarint(field)?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// Reads a zigzag number of at most 64 bits.
    pub fn varlong(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        let raw = self.uvarlong(field)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// Reads a length that is `None` for null: compact (one more than the length) or a 16-bit number.
    #[inline]
    pub(crate) fn short_length(&mut self, flexible: bool, field: &'static str) -> Result<Option<usize>, DecodeError> {
        let len = if flexible { i64::from(self.uvarint(field)?) - 1 } else { i64::from(self.i16(field)?) };
        self.checked_length(len, field)
    }

    /// Reads a length that is `None` for null: compact (one more than the length) or a 32-bit number.
    #[inline]
    pub(crate) fn long_length(&mut self, flexible: bool, field: &'static str) -> Result<Option<usize>, DecodeError> {
        let len = if flexible { i64::from(self.uvarint(field)?) - 1 } else { i64::from(self.i32(field)?) };
        self.checked_length(len, field)
    }

    #[inline]
    fn checked_length(&self, len: i64, field: &'static str) -> Result<Option<usize>, DecodeError> {
        match len {
            -1 => Ok(None),
            0..=0x7fff_ffff => Ok(Some(len as usize)),
            _ => Err(self.fail(DecodeErrorKind::Length(len), field)),
        }
    }

    /// Reads a string or null.
    pub fn string(&mut self, flexible: bool, field: &'static str) -> Result<Option<String>, DecodeError> {
        let Some(len) = self.short_length(flexible, field)? else {
            return Ok(None);
        };
        if len > STRING_MAX {
            return Err(self.fail(DecodeErrorKind::Length(len as i64), field));
        }
        let from = self.pos;
        self.take(len, field)?;
        self.charge(len, field)?;
        match std::str::from_utf8(&self.buf[from..from + len]) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(self.fail(DecodeErrorKind::Utf8, field)),
        }
    }

    /// Reads a byte string or null, sharing the input's memory.
    pub fn bytes(&mut self, flexible: bool, field: &'static str) -> Result<Option<Bytes>, DecodeError> {
        let Some(len) = self.long_length(flexible, field)? else {
            return Ok(None);
        };
        let from = self.pos;
        self.take(len, field)?;
        Ok(Some(self.buf.slice(from..from + len)))
    }

    /// Reads an array's count, `None` for null. The count is bounded by the bytes that remain, each element taking at
    /// least `min_size` of them, and the memory for `n` elements of `size` bytes is charged.
    pub fn count(
        &mut self,
        flexible: bool,
        min_size: usize,
        size: usize,
        field: &'static str,
    ) -> Result<Option<usize>, DecodeError> {
        let Some(count) = self.long_length(flexible, field)? else {
            return Ok(None);
        };
        let left = self.remaining();
        if count > left / min_size.max(1) {
            return Err(self.fail(DecodeErrorKind::Count { count, left }, field));
        }
        self.charge(count.saturating_mul(size), field)?;
        Ok(Some(count))
    }

    /// Opens a section of tagged fields.
    pub fn tags(&mut self) -> Result<Tags, DecodeError> {
        let left = self.uvarint("tags")?;
        // A tagged field takes two bytes at least: tag and size.
        if left as usize > self.remaining() / 2 {
            return Err(self.fail(DecodeErrorKind::Count { count: left as usize, left: self.remaining() }, "tags"));
        }
        Ok(Tags { left, seen: 0, outer_end: self.end })
    }

    /// Steps into the next tagged field: until [`Reader::end_tag`] nothing beyond it can be read.
    pub fn next_tag(&mut self, tags: &mut Tags) -> Result<Option<u32>, DecodeError> {
        if tags.left == 0 {
            return Ok(None);
        }
        tags.left -= 1;
        let tag = self.uvarint("tags")?;
        let size = self.uvarint("tags")? as usize;
        let left = self.remaining();
        if size > left {
            return Err(self.fail(DecodeErrorKind::Truncated { needed: size, left }, "tags"));
        }
        self.end = self.pos + size;
        Ok(Some(tag))
    }

    /// Notes that a known tag is being read; each may appear once.
    pub fn known_tag(&self, tags: &mut Tags, tag: u32) -> Result<(), DecodeError> {
        let bit = 1u64.checked_shl(tag).unwrap_or(0);
        if tags.seen & bit != 0 {
            return Err(self.fail(DecodeErrorKind::DuplicateTag(tag), "tags"));
        }
        tags.seen |= bit;
        Ok(())
    }

    /// Skips the content of a tagged field nobody here knows.
    pub fn skip_tag(&mut self) {
        self.pos = self.end;
    }

    /// Steps out of a tagged field, which must have been read to its end.
    pub fn end_tag(&mut self, tags: &Tags) -> Result<(), DecodeError> {
        let left = self.remaining();
        if left != 0 {
            return Err(self.fail(DecodeErrorKind::TagSize { left }, "tags"));
        }
        self.end = tags.outer_end;
        Ok(())
    }

    /// Skips a whole section of tagged fields.
    pub fn skip_tags(&mut self) -> Result<(), DecodeError> {
        let mut tags = self.tags()?;
        while self.next_tag(&mut tags)?.is_some() {
            self.skip_tag();
            self.end_tag(&tags)?;
        }
        Ok(())
    }
}
