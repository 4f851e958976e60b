//! The records inside a batch: one bounded parser, borrowed views of what it finds, and owned records.
//!
//! A record is its length, attributes (unused), timestamp and offset as deltas, key, value, and headers; all numbers
//! are zigzag varints. A header key may occur more than once, and order counts. Nothing is reserved on the word of a
//! count or length that the bytes at hand don't bear out.

use bytes::Bytes;

use super::{BatchError, BatchHeader, RecordBatch, TimestampType};

/// A record header: key, and value or null. Keys are UTF-8 by convention only.
pub type Header = (Bytes, Option<Bytes>);

/// A record that owns its bytes, or rather shares those of the decompressed batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Offset in the log.
    pub offset: i64,
    /// Milliseconds since 1970, by the clock that the batch's timestamp type names; -1 is none.
    pub timestamp: i64,
    /// Key, or null.
    pub key: Option<Bytes>,
    /// Value, or null (a tombstone in compacted topics).
    pub value: Option<Bytes>,
    /// Headers in order, duplicates included.
    pub headers: Vec<Header>,
}

/// A record that borrows from the batch's decompressed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Offset in the log.
    pub offset: i64,
    /// Offset as the batch has it, relative to its base offset.
    pub offset_delta: i32,
    /// As [`Record::timestamp`].
    pub timestamp: i64,
    /// Key, or null.
    pub key: Option<&'a [u8]>,
    /// Value, or null.
    pub value: Option<&'a [u8]>,
    /// Headers, not yet split.
    pub headers: Headers<'a>,
    /// Bytes that the record takes up, its length field included.
    pub size: usize,
}

/// The headers of a record: an iterator over key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    count: usize,
    /// Holds exactly `count` headers, which the record's parser has seen to.
    bytes: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        header(&mut self.bytes).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// What is wrong with a record, without saying which.
pub(super) type Fault = &'static str;

/// Reads an unsigned varint of at most `bits` bits.
#[inline]
fn unsigned(rest: &mut &[u8], bits: u32) -> Result<u64, Fault> {
    // Nearly all numbers in a record take one byte or two.
    match **rest {
        [a, ref tail @ ..] if a < 0x80 => {
            *rest = tail;
            Ok(u64::from(a))
        }
        [a, b, ref tail @ ..] if b < 0x80 => {
            *rest = tail;
            Ok(u64::from(a & 0x7f) | u64::from(b) << 7)
        }
        _ => long_unsigned(rest, bits),
    }
}

#[cold]
fn long_unsigned(rest: &mut &[u8], bits: u32) -> Result<u64, Fault> {
    let mut value = 0u64;
    let mut shift = 0;
    for (i, &byte) in rest.iter().enumerate() {
        let part = u64::from(byte & 0x7f);
        if shift >= bits || (bits - shift < 7 && part >> (bits - shift) != 0) {
            return Err("has a number that is too long");
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            *rest = &rest[i + 1..];
            return Ok(value);
        }
        shift += 7;
    }
    Err("ends inside a number")
}

#[inline]
/// What follows the record at the start of `rest`; `None` when its length is malformed or reaches past the end.
pub(super) fn after(mut rest: &[u8]) -> Option<&[u8]> {
    let len = usize::try_from(varint(&mut rest).ok()?).ok()?;
    rest.get(len..)
}

fn varint(rest: &mut &[u8]) -> Result<i32, Fault> {
    let n = unsigned(rest, 32)? as u32;
    Ok((n >> 1) as i32 ^ -((n & 1) as i32))
}

#[inline]
fn varlong(rest: &mut &[u8]) -> Result<i64, Fault> {
    let n = unsigned(rest, 64)?;
    Ok((n >> 1) as i64 ^ -((n & 1) as i64))
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], len: usize, fault: Fault) -> Result<&'a [u8], Fault> {
    let (head, tail) = rest.split_at_checked(len).ok_or(fault)?;
    *rest = tail;
    Ok(head)
}

/// Length and bytes; any negative length is null, as Kafka reads it.
#[inline]
fn nullable<'a>(rest: &mut &'a [u8], fault: Fault) -> Result<Option<&'a [u8]>, Fault> {
    match usize::try_from(varint(rest)?) {
        Ok(len) => take(rest, len, fault).map(Some),
        Err(_) => Ok(None),
    }
}

fn header<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), Fault> {
    let key = nullable(rest, "has a header key that runs past its end")?.ok_or("has a header without a key")?;
    let value = nullable(rest, "has a header value that runs past its end")?;
    Ok((key, value))
}

/// The beginning of a record: its two deltas, the rest of its body, and its size.
struct Start<'a> {
    timestamp_delta: i64,
    offset_delta: i32,
    body: &'a [u8],
    size: usize,
}

/// Takes a record off `rest`, reading no further than the deltas.
fn start<'a>(rest: &mut &'a [u8]) -> Result<Start<'a>, Fault> {
    let before = rest.len();
    let len = usize::try_from(varint(rest)?).map_err(|_| "has a negative length")?;
    let mut body = take(rest, len, "runs past the end of the batch")?;
    let size = before - rest.len();
    take(&mut body, 1, "has no attributes")?;
    let timestamp_delta = varlong(&mut body)?;
    let offset_delta = varint(&mut body)?;
    Ok(Start { timestamp_delta, offset_delta, body, size })
}

/// Walks the records of a batch over its decompressed bytes.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    header: BatchHeader,
    rest: &'a [u8],
    /// Records read so far.
    index: i32,
    failed: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(header: BatchHeader, records: &'a [u8]) -> Cursor<'a> {
        Cursor { header, rest: records, index: 0, failed: false }
    }

    /// Runs `read` on the next record. `None` after the last one, and after an error.
    fn step<T>(
        &mut self,
        read: impl FnOnce(&BatchHeader, &mut &'a [u8]) -> Result<T, Fault>,
    ) -> Option<Result<T, BatchError>> {
        if self.failed {
            return None;
        }
        let base_offset = self.header.base_offset;
        let error = if self.index == self.header.records_count {
            if self.rest.is_empty() {
                return None;
            }
            BatchError::Trailing { base_offset, count: self.index, bytes: self.rest.len() }
        } else if self.rest.is_empty() {
            BatchError::Missing { base_offset, declared: self.header.records_count, found: self.index }
        } else {
            match read(&self.header, &mut self.rest) {
                Ok(record) => {
                    self.index += 1;
                    return Some(Ok(record));
                }
                Err(what) => BatchError::BadRecord { base_offset, index: self.index, what },
            }
        };
        self.failed = true;
        Some(Err(error))
    }

    /// The next record in full.
    pub(super) fn record(&mut self) -> Option<Result<RecordView<'a>, BatchError>> {
        self.step(|batch, rest| {
            let Start { timestamp_delta, offset_delta, mut body, size } = start(rest)?;
            let (offset, timestamp) = place(batch, offset_delta, timestamp_delta)?;
            let key = nullable(&mut body, "has a key that runs past its end")?;
            let value = nullable(&mut body, "has a value that runs past its end")?;
            let count = usize::try_from(varint(&mut body)?).map_err(|_| "has a negative number of headers")?;
            let bytes = body;
            for _ in 0..count {
                header(&mut body)?;
            }
            if !body.is_empty() {
                return Err("has bytes left over at its end");
            }
            let headers = Headers { count, bytes };
            Ok(RecordView { offset, offset_delta, timestamp, key, value, headers, size })
        })
    }

    /// Offset and timestamp of the next record, without looking at the rest of it.
    pub(super) fn time(&mut self) -> Option<Result<RecordTime, BatchError>> {
        self.step(|batch, rest| {
            let Start { timestamp_delta, offset_delta, size, .. } = start(rest)?;
            let (offset, timestamp) = place(batch, offset_delta, timestamp_delta)?;
            Ok(RecordTime { offset, offset_delta, timestamp, size })
        })
    }
}

/// Where a record is in the log and in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordTime {
    pub(super) offset: i64,
    pub(super) offset_delta: i32,
    pub(super) timestamp: i64,
    pub(super) size: usize,
}

pub(super) fn place(batch: &BatchHeader, offset_delta: i32, timestamp_delta: i64) -> Result<(i64, i64), Fault> {
    if !(0..=batch.last_offset_delta).contains(&offset_delta) {
        return Err("has an offset outside of the batch");
    }
    let offset = batch.base_offset.checked_add(i64::from(offset_delta)).ok_or("has an offset too large")?;
    let timestamp = match batch.timestamp_type() {
        TimestampType::CreateTime => {
            batch.base_timestamp.checked_add(timestamp_delta).ok_or("has a timestamp too large")?
        }
        TimestampType::LogAppendTime => batch.max_timestamp,
    };
    Ok((offset, timestamp))
}

/// Iterator of [`RecordBatch::records`]. Ends after the first error.
#[derive(Debug)]
pub struct RecordIter {
    batch: RecordBatch,
    cap: usize,
    /// Decompressed records, once asked for.
    records: Option<Bytes>,
    position: usize,
    index: i32,
    failed: bool,
}

impl RecordIter {
    pub(super) fn new(batch: RecordBatch, cap: usize) -> RecordIter {
        RecordIter { batch, cap, records: None, position: 0, index: 0, failed: false }
    }

    fn step(&mut self) -> Option<Result<Record, BatchError>> {
        let records = match &self.records {
            Some(records) => records.clone(),
            None => match self.batch.decompressed(self.cap) {
                Ok(records) => self.records.insert(records).clone(),
                Err(error) => return Some(Err(error)),
            },
        };
        let rest = &records[self.position..];
        let mut cursor = Cursor { header: *self.batch.header(), rest, index: self.index, failed: false };
        let view = match cursor.record()? {
            Ok(view) => view,
            Err(error) => return Some(Err(error)),
        };
        self.position += view.size;
        self.index += 1;
        Some(Ok(view.to_record(&records)))
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.step();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

impl RecordView<'_> {
    /// The record with bytes shared from `records`, the buffer this view is of.
    fn to_record(self, records: &Bytes) -> Record {
        let share = |bytes| records.slice_ref(bytes);
        // Not with_capacity: pushing grows with headers that are really there.
        let mut headers = Vec::new();
        for (key, value) in self.headers {
            headers.push((share(key), value.map(share)));
        }
        Record {
            offset: self.offset,
            timestamp: self.timestamp,
            key: self.key.map(share),
            value: self.value.map(share),
            headers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(mut bytes: &[u8]) -> Result<i32, Fault> {
        let n = varint(&mut bytes)?;
        assert!(bytes.is_empty());
        Ok(n)
    }

    fn long(mut bytes: &[u8]) -> Result<i64, Fault> {
        let n = varlong(&mut bytes)?;
        assert!(bytes.is_empty());
        Ok(n)
    }

    #[test]
    fn varints_at_their_limits() {
        assert_eq!(int(&[0]), Ok(0));
        assert_eq!(int(&[1]), Ok(-1));
        assert_eq!(int(&[0x80, 1]), Ok(64));
        assert_eq!(int(&[0xfe, 0xff, 0xff, 0xff, 0x0f]), Ok(i32::MAX));
        assert_eq!(int(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(i32::MIN));
        assert_eq!(int(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err("has a number that is too long"));
        assert_eq!(int(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]), Err("has a number that is too long"));
        assert_eq!(int(&[0x80]), Err("ends inside a number"));
        assert_eq!(int(&[]), Err("ends inside a number"));
        let max = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(long(&max), Ok(i64::MAX));
        let min = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(long(&min), Ok(i64::MIN));
        let over = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert_eq!(long(&over), Err("has a number that is too long"));
    }
}
