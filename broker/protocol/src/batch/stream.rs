//! Walking compressed records without holding them: lengths, deltas and the presence of a key, nothing that would have
//! to be kept. What it accepts is what [`Cursor`] accepts over the unpacked bytes; a property test holds them together.

use super::record::{Cursor, Fault, RecordTime, place};
use super::{BatchError, BatchHeader};
use crate::compress::{CompressError, Decoder};

/// What a walk that keeps nothing says of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) time: RecordTime,
    /// Only known where records are read to their ends.
    pub(super) has_key: Option<bool>,
}

/// Walks records in place where they are plain, through a window where they are compressed.
pub(super) enum Glance<'a> {
    Plain(Cursor<'a>),
    Packed(Box<Packed<'a>>),
}

impl<'a> Glance<'a> {
    pub(super) fn packed(header: BatchHeader, decoder: Decoder<'a>) -> Glance<'a> {
        Glance::Packed(Box::new(Packed { header, source: Source { decoder, at: 0 }, index: 0, ended: false }))
    }

    /// The next record; read to its end, headers included, only if `whole`.
    pub(super) fn next(&mut self, whole: bool) -> Option<Result<Seen, BatchError>> {
        match self {
            Glance::Plain(cursor) if whole => cursor.record().map(|record| {
                let record = record?;
                let time = RecordTime {
                    offset: record.offset,
                    offset_delta: record.offset_delta,
                    timestamp: record.timestamp,
                    size: record.size,
                };
                Ok(Seen { time, has_key: Some(record.key.is_some()) })
            }),
            Glance::Plain(cursor) => cursor.time().map(|time| Ok(Seen { time: time?, has_key: None })),
            Glance::Packed(packed) => packed.next(whole),
        }
    }
}

/// A walk over compressed records.
pub(super) struct Packed<'a> {
    header: BatchHeader,
    source: Source<'a>,
    index: i32,
    ended: bool,
}

/// Why a record could not be read.
enum Bad {
    Record(Fault),
    Packing(CompressError),
}

impl From<Fault> for Bad {
    fn from(fault: Fault) -> Self {
        Bad::Record(fault)
    }
}

impl From<CompressError> for Bad {
    fn from(error: CompressError) -> Self {
        Bad::Packing(error)
    }
}

impl Packed<'_> {
    fn next(&mut self, whole: bool) -> Option<Result<Seen, BatchError>> {
        if self.ended {
            return None;
        }
        let step = self.step(whole).transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }

    fn step(&mut self, whole: bool) -> Result<Option<Seen>, BatchError> {
        let base_offset = self.header.base_offset;
        let at_end = self.source.at_end()?;
        if self.index == self.header.records_count {
            if at_end {
                return Ok(None);
            }
            let bytes = self.source.decoder.chunk().len() - self.source.at;
            return Err(BatchError::Trailing { base_offset, count: self.index, bytes });
        }
        if at_end {
            return Err(BatchError::Missing { base_offset, declared: self.header.records_count, found: self.index });
        }
        let seen = read(&self.header, &mut self.source, whole).map_err(|bad| match bad {
            Bad::Record(what) => BatchError::BadRecord { base_offset, index: self.index, what },
            Bad::Packing(error) => error.into(),
        })?;
        self.index += 1;
        Ok(Some(seen))
    }
}

fn read(header: &BatchHeader, source: &mut Source<'_>, whole: bool) -> Result<Seen, Bad> {
    let mut prefix = Body { source, left: usize::MAX };
    let length = usize::try_from(prefix.varint()?).map_err(|_| "has a negative length")?;
    let size = length + (usize::MAX - prefix.left);
    let mut body = Body { source, left: length };
    body.byte("has no attributes")?;
    let timestamp_delta = body.varlong()?;
    let offset_delta = body.varint()?;
    let (offset, timestamp) = place(header, offset_delta, timestamp_delta)?;
    let time = RecordTime { offset, offset_delta, timestamp, size };
    if !whole {
        body.skip(body.left, "")?;
        return Ok(Seen { time, has_key: None });
    }
    let has_key = body.nullable("has a key that runs past its end")?;
    body.nullable("has a value that runs past its end")?;
    let headers = u32::try_from(body.varint()?).map_err(|_| "has a negative number of headers")?;
    for _ in 0..headers {
        if !body.nullable("has a header key that runs past its end")? {
            return Err("has a header without a key".into());
        }
        body.nullable("has a header value that runs past its end")?;
    }
    match body.left {
        0 => Ok(Seen { time, has_key: Some(has_key) }),
        _ => Err("has bytes left over at its end".into()),
    }
}

/// Unpacked bytes, one chunk at hand.
struct Source<'a> {
    decoder: Decoder<'a>,
    /// Bytes of the chunk that have been read.
    at: usize,
}

impl Source<'_> {
    /// Whether nothing more comes; if not, a byte is at hand.
    #[inline]
    fn at_end(&mut self) -> Result<bool, CompressError> {
        while self.at == self.decoder.chunk().len() {
            if !self.decoder.advance()? {
                return Ok(true);
            }
            self.at = 0;
        }
        Ok(false)
    }
}

/// The rest of a record.
struct Body<'s, 'a> {
    source: &'s mut Source<'a>,
    left: usize,
}

impl Body<'_, '_> {
    #[inline]
    fn byte(&mut self, fault: Fault) -> Result<u8, Bad> {
        if self.left == 0 {
            return Err(fault.into());
        }
        if self.source.at_end()? {
            return Err("runs past the end of the batch".into());
        }
        let byte = self.source.decoder.chunk()[self.source.at];
        self.source.at += 1;
        self.left -= 1;
        Ok(byte)
    }

    fn unsigned(&mut self, bits: u32) -> Result<u64, Bad> {
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let byte = self.byte("ends inside a number")?;
            let part = u64::from(byte & 0x7f);
            if shift >= bits || (bits - shift < 7 && part >> (bits - shift) != 0) {
                return Err("has a number that is too long".into());
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    fn varint(&mut self) -> Result<i32, Bad> {
        let n = self.unsigned(32)? as u32;
        Ok((n >> 1) as i32 ^ -((n & 1) as i32))
    }

    fn varlong(&mut self) -> Result<i64, Bad> {
        let n = self.unsigned(64)?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    fn skip(&mut self, mut len: usize, fault: Fault) -> Result<(), Bad> {
        if len > self.left {
            return Err(fault.into());
        }
        self.left -= len;
        while len > 0 {
            if self.source.at_end()? {
                return Err("runs past the end of the batch".into());
            }
            let here = len.min(self.source.decoder.chunk().len() - self.source.at);
            self.source.at += here;
            len -= here;
        }
        Ok(())
    }

    /// Skips a length and its bytes; false for null.
    fn nullable(&mut self, fault: Fault) -> Result<bool, Bad> {
        match usize::try_from(self.varint()?) {
            Ok(len) => self.skip(len, fault).map(|()| true),
            Err(_) => Ok(false),
        }
    }
}
