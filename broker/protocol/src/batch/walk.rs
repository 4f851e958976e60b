//! Reading records without owning them: for validation, offsets by timestamp, compaction.
//!
//! Walks that give records borrow a scratch buffer for decompression that the caller keeps, so nothing is allocated per
//! record, and in the long run nothing per batch. Uncompressed batches aren't copied at all. The walks over timestamps
//! read three numbers of each record, skip the rest by its length, and unpack through a window.

use super::record::Cursor;
use super::stream::Glance;
use super::{BatchError, BatchHeader, HEADER_LEN, RecordView, TimestampType, header};
use crate::compress::{Compression, Decoder, Limits, decompress_into};

/// A whole batch over borrowed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

/// A point in the log and in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Offset of a record with that timestamp.
    pub offset: i64,
}

impl<'a> BatchView<'a> {
    /// The batch at the start of `bytes`, which must hold all of it. The CRC isn't checked.
    pub fn parse(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        let (header, bytes) = header::split(bytes)?;
        Ok(BatchView { header, bytes })
    }

    /// For a header and bytes that belong together.
    pub(super) fn of(header: BatchHeader, bytes: &'a [u8]) -> BatchView<'a> {
        BatchView { header, bytes }
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All bytes of the batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes after the header, compressed or not.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// The records decompressed, in place or in `scratch`.
    pub(super) fn decompressed<'s>(&self, scratch: &'s mut Vec<u8>, cap: usize) -> Result<&'s [u8], BatchError>
    where
        'a: 's,
    {
        match self.header.compression()? {
            Compression::None => Ok(self.payload()),
            // Compaction leaves empty batches without a payload; no codec makes nothing of nothing.
            _ if self.payload().is_empty() && self.header.records_count == 0 => Ok(&[]),
            codec => {
                decompress_into(codec, self.payload(), cap, scratch)?;
                Ok(scratch)
            }
        }
    }

    /// Walks the records, decompressing to at most `cap` bytes of `scratch` first. Each record is parsed completely.
    pub fn walk<'s>(&self, scratch: &'s mut Vec<u8>, cap: usize) -> Result<Walk<'s>, BatchError>
    where
        'a: 's,
    {
        Ok(Walk(Cursor::new(self.header, self.decompressed(scratch, cap)?)))
    }

    /// Walks the records without keeping any.
    pub(super) fn glance(&self, limits: Limits) -> Result<Glance<'a>, BatchError> {
        Ok(match self.decoder(limits)? {
            Some(decoder) => Glance::packed(self.header, decoder),
            None => Glance::Plain(Cursor::new(self.header, self.payload())),
        })
    }

    /// What unpacks the records; `None` if they aren't packed.
    pub(super) fn decoder(&self, limits: Limits) -> Result<Option<Decoder<'a>>, BatchError> {
        match self.header.compression()? {
            Compression::None => Ok(None),
            // As in `decompressed`.
            _ if self.payload().is_empty() && self.header.records_count == 0 => Ok(None),
            codec => Ok(Some(Decoder::new(codec, self.payload(), limits)?)),
        }
    }

    /// The largest timestamp of the records and the first offset that has it; `None` for an empty batch.
    ///
    /// For `CreateTime` the header's own value is the producer's claim; this is what the records say.
    pub fn max_timestamp(&self, limits: Limits) -> Result<Option<TimestampOffset>, BatchError> {
        let mut glance = self.glance(limits)?;
        let mut max: Option<TimestampOffset> = None;
        while let Some(seen) = glance.next(false) {
            let time = seen?.time;
            if max.is_none_or(|max| time.timestamp > max.timestamp) {
                max = Some(TimestampOffset { timestamp: time.timestamp, offset: time.offset });
            }
        }
        Ok(max)
    }

    /// What the header's max timestamp has to be: from the records for `CreateTime`, as it is for `LogAppendTime`.
    /// -1 if no record has a timestamp.
    pub fn recompute_max_timestamp(&self, limits: Limits) -> Result<i64, BatchError> {
        if self.header.timestamp_type() == TimestampType::LogAppendTime {
            return Ok(self.header.max_timestamp);
        }
        Ok(self.max_timestamp(limits)?.map_or(-1, |max| max.timestamp))
    }

    /// The first record with an offset from `min_offset` on and a timestamp of `timestamp` or later.
    ///
    /// A batch whose header says that all its records are earlier isn't opened.
    pub fn find_timestamp(
        &self,
        timestamp: i64,
        min_offset: i64,
        limits: Limits,
    ) -> Result<Option<TimestampOffset>, BatchError> {
        if self.header.max_timestamp < timestamp || self.header.last_offset() < min_offset {
            return Ok(None);
        }
        let mut glance = self.glance(limits)?;
        while let Some(seen) = glance.next(false) {
            let time = seen?.time;
            if time.timestamp >= timestamp && time.offset >= min_offset {
                return Ok(Some(TimestampOffset { timestamp: time.timestamp, offset: time.offset }));
            }
        }
        Ok(None)
    }
}

/// Iterator of [`BatchView::walk`]. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Walk<'a>(Cursor<'a>);

impl<'a> Iterator for Walk<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.record()
    }
}
