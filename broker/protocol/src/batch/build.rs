//! Making batches, byte for byte as Kafka does: for clients, coordinators, and compaction's rewritten batches.
//!
//! Records are encoded as they are appended, behind room for the header; a batch without compression is never copied.
//! Base timestamp is the first record's (or the delete horizon), max timestamp the largest, the last offset that of
//! the last record unless compaction has to keep an older one.

use bytes::Bytes;

use super::header::{CODEC_MASK, CONTROL, CRC_FROM, DELETE_HORIZON, TIMESTAMP_TYPE, TRANSACTIONAL, crc32c};
use super::{BatchError, BatchHeader, BatchView, HEADER_LEN, Header, LOG_OVERHEAD, TimestampType};
use crate::compress::{CompressError, Compression, Encoder, Limits, compress_into};

/// Why a batch can't be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Offsets of a batch only go up.
    #[error("record at offset {offset} does not follow offset {after}")]
    Order {
        /// The record's offset.
        offset: i64,
        /// The offset it has to be above.
        after: i64,
    },
    /// A delta doesn't fit its field.
    #[error("{what} {value} is too far from the batch's base {base}")]
    Range {
        /// Offset or timestamp.
        what: &'static str,
        /// The value.
        value: i64,
        /// What it is relative to.
        base: i64,
    },
    /// No records, and no last offset to stand for them.
    #[error("batch has no records")]
    Empty,
    /// Key, value, headers or the batch as a whole pass 2 GiB.
    #[error("{0} is larger than the format can say")]
    TooLarge(&'static str),
    /// Producer id, epoch, sequence and flags contradict each other.
    #[error("batch {0}")]
    Producer(&'static str),
    /// The codec failed.
    #[error(transparent)]
    Compress(#[from] CompressError),
}

/// Collects records and turns them into a batch.
///
/// ```
/// use klamm_protocol::batch::{BatchBuilder, RecordBatch};
/// use klamm_protocol::compress::Compression;
///
/// let mut builder = BatchBuilder::new(100).compression(Compression::Lz4, None);
/// builder.push(1_700_000_000_000, Some(b"key"), Some(b"value"), &[])?;
/// let batch = RecordBatch::new(builder.build()?).unwrap();
/// assert_eq!(batch.header().next_offset(), 101);
/// # Ok::<(), klamm_protocol::batch::BuildError>(())
/// ```
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    /// Base offset, leader epoch, producer fields and flags; the rest is filled in at the end.
    header: BatchHeader,
    codec: Compression,
    level: Option<i32>,
    append_time: Option<i64>,
    delete_horizon: Option<i64>,
    last_offset: Option<i64>,
    /// Max timestamp that an emptied batch keeps.
    emptied_max_timestamp: i64,
    /// Room for the header, then the records.
    buffer: Vec<u8>,
    count: i32,
    /// Of the last record appended; -1 before that.
    last_delta: i32,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// A plain batch: uncompressed, `CreateTime`, no producer, no leader epoch.
    pub fn new(base_offset: i64) -> BatchBuilder {
        BatchBuilder {
            header: BatchHeader { base_offset, ..BatchHeader::default() },
            codec: Compression::None,
            level: None,
            append_time: None,
            delete_horizon: None,
            last_offset: None,
            emptied_max_timestamp: -1,
            buffer: vec![0; HEADER_LEN],
            count: 0,
            last_delta: -1,
            base_timestamp: None,
            max_timestamp: -1,
        }
    }

    /// For what compaction leaves of a batch: its offsets, producer fields, flags, codec, timestamp type and delete
    /// horizon. Appending nothing gives the empty batch that keeps a producer's last sequence.
    pub fn rewriting(batch: &BatchHeader) -> Result<BatchBuilder, BatchError> {
        let mut builder = BatchBuilder::new(batch.base_offset);
        builder.header.partition_leader_epoch = batch.partition_leader_epoch;
        builder.header.producer_id = batch.producer_id;
        builder.header.producer_epoch = batch.producer_epoch;
        builder.header.base_sequence = batch.base_sequence;
        builder.header.attributes = batch.attributes & (TRANSACTIONAL | CONTROL);
        builder.codec = batch.compression()?;
        builder.last_offset = Some(batch.last_offset());
        builder.delete_horizon = batch.delete_horizon_ms();
        builder.emptied_max_timestamp = batch.max_timestamp;
        if batch.timestamp_type() == TimestampType::LogAppendTime {
            builder.append_time = Some(batch.max_timestamp);
        }
        Ok(builder)
    }

    /// Compresses with `codec` at `level`, or its default level.
    #[must_use]
    pub fn compression(mut self, codec: Compression, level: Option<i32>) -> Self {
        self.codec = codec;
        self.level = level;
        self
    }

    /// The epoch of the leader that appends the batch.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: i32) -> Self {
        self.header.partition_leader_epoch = epoch;
        self
    }

    /// The idempotent producer the batch comes from.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Marks the batch as part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.attributes |= TRANSACTIONAL;
        self
    }

    /// Marks the batch as a control batch.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.header.attributes |= CONTROL;
        self
    }

    /// Gives all records the broker's time of append.
    #[must_use]
    pub fn log_append_time(mut self, now_ms: i64) -> Self {
        self.append_time = Some(now_ms);
        self
    }

    /// When compaction may drop the tombstones of this batch.
    #[must_use]
    pub fn delete_horizon_ms(mut self, horizon_ms: i64) -> Self {
        self.delete_horizon = Some(horizon_ms);
        self
    }

    /// The last offset that the batch stands for, at least that of its last record.
    #[must_use]
    pub fn last_offset(mut self, offset: i64) -> Self {
        self.last_offset = Some(offset);
        self
    }

    /// Records so far.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Bytes of the batch so far, header included, before compression.
    pub fn uncompressed_len(&self) -> usize {
        self.buffer.len()
    }

    /// Appends a record at the next offset.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<(), BuildError> {
        let offset = self.header.base_offset.saturating_add(i64::from(self.last_delta) + 1);
        self.append(offset, timestamp, key, value, headers)
    }

    /// Appends a record at `offset`, which must be above the last one's. After an error nothing has been appended.
    pub fn append(
        &mut self,
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<(), BuildError> {
        let base = self.header.base_offset;
        let range = BuildError::Range { what: "offset", value: offset, base };
        let offset_delta = offset.checked_sub(base).and_then(|d| i32::try_from(d).ok()).ok_or(range)?;
        if offset_delta <= self.last_delta {
            return Err(BuildError::Order { offset, after: base.saturating_add(i64::from(self.last_delta)) });
        }
        let base_timestamp = self.base_timestamp.or(self.delete_horizon).unwrap_or(timestamp);
        let timestamp_delta = timestamp.checked_sub(base_timestamp).ok_or(BuildError::Range {
            what: "timestamp",
            value: timestamp,
            base: base_timestamp,
        })?;
        let count = self.count.checked_add(1).ok_or(BuildError::TooLarge("number of records"))?;
        let header_count = i32::try_from(headers.len()).map_err(|_| BuildError::TooLarge("number of headers"))?;

        let mut len = 1 + varlong_len(timestamp_delta) + varint_len(offset_delta) + varint_len(header_count);
        len += nullable_len(key)? + nullable_len(value)?;
        for (key, value) in headers {
            len += nullable_len(Some(key))? + nullable_len(value.as_deref())?;
        }
        let len = i32::try_from(len).map_err(|_| BuildError::TooLarge("record"))?;
        if self.buffer.len() + varint_len(len) + len as usize > i32::MAX as usize {
            return Err(BuildError::TooLarge("batch"));
        }

        let out = &mut self.buffer;
        out.reserve(varint_len(len) + len as usize);
        put_varint(out, len);
        out.push(0);
        put_varlong(out, timestamp_delta);
        put_varint(out, offset_delta);
        put_nullable(out, key);
        put_nullable(out, value);
        put_varint(out, header_count);
        for (key, value) in headers {
            put_nullable(out, Some(key));
            put_nullable(out, value.as_deref());
        }
        self.base_timestamp = Some(base_timestamp);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.last_delta = offset_delta;
        self.count = count;
        Ok(())
    }

    /// The batch.
    pub fn build(mut self) -> Result<Bytes, BuildError> {
        self.check_producer()?;
        let mut header = self.header;
        let last_offset = match self.last_offset {
            Some(offset) => offset,
            None if self.count == 0 => return Err(BuildError::Empty),
            None => header.base_offset + i64::from(self.last_delta),
        };
        header.last_offset_delta = last_offset
            .checked_sub(header.base_offset)
            .and_then(|delta| i32::try_from(delta).ok())
            .filter(|delta| *delta >= self.last_delta.max(0))
            .ok_or(BuildError::Range { what: "last offset", value: last_offset, base: header.base_offset })?;
        header.records_count = self.count;
        if self.append_time.is_some() {
            header.attributes |= TIMESTAMP_TYPE;
        }
        if self.count == 0 {
            // Kafka writes emptied batches without codec, base timestamp and horizon.
            header.max_timestamp = self.append_time.unwrap_or(self.emptied_max_timestamp);
        } else {
            header.attributes |= i16::from(self.codec.id());
            header.base_timestamp = self.base_timestamp.unwrap_or(-1);
            header.max_timestamp = self.append_time.unwrap_or(self.max_timestamp);
            if self.delete_horizon.is_some() {
                header.attributes |= DELETE_HORIZON;
            }
            if self.codec != Compression::None {
                let mut packed = vec![0; HEADER_LEN];
                compress_into(self.codec, self.level, &self.buffer[HEADER_LEN..], &mut packed)?;
                self.buffer = packed;
            }
        }
        seal(&mut header, &mut self.buffer)?;
        Ok(self.buffer.into())
    }

    fn check_producer(&self) -> Result<(), BuildError> {
        let header = &self.header;
        if !header.has_producer_id() {
            return match header.is_transactional() {
                true => Err(BuildError::Producer("is transactional, but has no producer id")),
                false => Ok(()),
            };
        }
        if header.producer_epoch < 0 {
            return Err(BuildError::Producer("has a producer id, but no epoch"));
        }
        if header.base_sequence < 0 && !header.is_control() {
            return Err(BuildError::Producer("has a producer id, but no sequence number"));
        }
        Ok(())
    }
}

/// Completes `header` with length and CRC, and writes it over the first bytes of `batch`.
fn seal(header: &mut BatchHeader, batch: &mut [u8]) -> Result<(), BuildError> {
    header.batch_length = i32::try_from(batch.len() - LOG_OVERHEAD).map_err(|_| BuildError::TooLarge("batch"))?;
    batch[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    header.crc = crc32c(&batch[CRC_FROM..]);
    batch[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    Ok(())
}

/// The same batch with another codec, for topics whose `compression.type` isn't `producer`.
///
/// The records' encoding doesn't depend on the codec, so they aren't parsed. `records_bytes` is how many bytes they have
/// unpacked, as [`super::check_records`] says. They go from decoder to encoder through a window.
///
/// # Errors
/// The batch can't be unpacked, or has more than `max` bytes afterwards.
pub fn recompress(
    batch: &BatchView<'_>,
    codec: Compression,
    level: Option<i32>,
    records_bytes: usize,
    limits: Limits,
    max: usize,
) -> Result<Bytes, BatchError> {
    let mut header = *batch.header();
    header.attributes &= !CODEC_MASK;
    let out = vec![0; HEADER_LEN];
    let mut out = if records_bytes == 0 {
        out
    } else {
        header.attributes |= i16::from(codec.id());
        let mut encoder = Encoder::new(codec, level, records_bytes, out)?;
        // A batch past 2 GiB has no length field that fits.
        let max = max.min(i32::MAX as usize);
        let too_large = || BatchError::Compress(CompressError::TooLarge { codec, cap: max });
        match batch.decoder(limits)? {
            None => encoder.write(batch.payload())?,
            Some(mut decoder) => {
                while decoder.advance()? {
                    encoder.write(decoder.chunk())?;
                    if encoder.len() > max {
                        return Err(too_large());
                    }
                }
            }
        }
        let out = encoder.finish()?;
        if out.len() > max {
            return Err(too_large());
        }
        out
    };
    // Only a batch past 2 GiB can't be sealed.
    seal(&mut header, &mut out).map_err(|_| CompressError::TooLarge { codec, cap: i32::MAX as usize })?;
    Ok(out.into())
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

fn varlong_len(n: i64) -> usize {
    (64 - (zigzag(n) | 1).leading_zeros()).div_ceil(7) as usize
}

/// A zigzag of 32 bits is the same number of bytes when made from 64.
fn varint_len(n: i32) -> usize {
    varlong_len(i64::from(n))
}

fn put_varlong(out: &mut Vec<u8>, n: i64) {
    let mut n = zigzag(n);
    while n > 0x7f {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn put_varint(out: &mut Vec<u8>, n: i32) {
    put_varlong(out, i64::from(n));
}

fn nullable_len(bytes: Option<&[u8]>) -> Result<usize, BuildError> {
    let len = bytes.map_or(0, <[u8]>::len);
    let len = i32::try_from(len).map_err(|_| BuildError::TooLarge("key, value or header"))?;
    Ok(varint_len(if bytes.is_some() { len } else { -1 }) + len as usize)
}

/// The caller has called [`nullable_len`], so the length fits.
fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}
