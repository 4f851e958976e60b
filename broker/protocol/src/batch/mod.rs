//! Record batches, format v2 ("magic 2"): the only record format a Kafka 4 broker stores or serves.
//!
//! `header` reads and rewrites the fixed 61 bytes without touching the payload, `record` and `walk` read records,
//! `validate` is what a broker checks of a producer's batch, `build` and `control` make batches. Every length and
//! count is checked against the bytes at hand before it is used; bad input is a [`BatchError`], never a panic.

mod build;
mod control;
mod header;
mod record;
mod stream;
#[cfg(test)]
mod tests;
mod validate;
mod walk;

use bytes::Bytes;

use crate::compress::{CompressError, Compression, decompress};
use crate::error::ErrorCode;

pub use build::{BatchBuilder, BuildError, recompress};
pub use control::{ControlType, EndTxnMarker, end_txn_marker};
pub use header::{
    BatchHeader, Batches, HEADER_LEN, LOG_OVERHEAD, MAGIC, PREFIX_LEN, TimestampType, batches, patch_prefix,
    set_max_timestamp, verify_crc,
};
pub use record::{Header, Headers, Record, RecordIter, RecordView};
pub use validate::{ProduceRules, RecordFault, RecordRules, Refused, RefusedRecord, Walked, check_records, validate};
pub use walk::{BatchView, TimestampOffset, Walk};

/// Why bytes are not a usable record batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("{what} needs {needed} bytes, but only {have} are there")]
    Truncated {
        /// Which part was being read.
        what: &'static str,
        /// Bytes that part takes.
        needed: usize,
        /// Bytes available.
        have: usize,
    },
    /// The length field is smaller than a batch header.
    #[error("batch length field is {0}, a batch has at least 49 bytes after it")]
    BadLength(i32),
    /// Message sets of format v0/v1, or no Kafka data at all.
    #[error("batch has magic {0}, only magic 2 is supported")]
    BadMagic(i8),
    /// A header field has a value no writer produces.
    #[error("batch header field {field} is {value}")]
    BadField {
        /// Field name.
        field: &'static str,
        /// The value found.
        value: i64,
    },
    /// The stored checksum is not that of the bytes.
    #[error("batch at offset {base_offset} has CRC {stored:#010x}, its bytes give {computed:#010x}")]
    BadCrc {
        /// Base offset from the header.
        base_offset: i64,
        /// CRC in the header.
        stored: u32,
        /// CRC of the bytes.
        computed: u32,
    },
    /// The records can't be decompressed, or only to more than the caller allows.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// A record is malformed.
    #[error("record {index} of the batch at offset {base_offset} {what}")]
    BadRecord {
        /// Base offset from the header.
        base_offset: i64,
        /// Which record, from 0.
        index: i32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Fewer records than the header counts.
    #[error("batch at offset {base_offset} counts {declared} records, but holds {found}")]
    Missing {
        /// Base offset from the header.
        base_offset: i64,
        /// Count in the header.
        declared: i32,
        /// Records found.
        found: i32,
    },
    /// Bytes after as many records as the header counts.
    #[error("batch at offset {base_offset} counts {count} records, but {bytes} bytes follow them")]
    Trailing {
        /// Base offset from the header.
        base_offset: i64,
        /// Count in the header.
        count: i32,
        /// Bytes left.
        bytes: usize,
    },
}

impl BatchError {
    /// What to answer a client whose batch this is. Damage that a second try may undo is `CorruptMessage`, which
    /// clients retry; what the client itself got wrong is not.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            BatchError::Truncated { .. } | BatchError::BadLength(_) | BatchError::BadCrc { .. } => {
                ErrorCode::CorruptMessage
            }
            // Producers split a batch that is too large and send the parts.
            BatchError::Compress(CompressError::TooLarge { .. }) => ErrorCode::MessageTooLarge,
            BatchError::Compress(CompressError::UnknownCodec(_)) => ErrorCode::UnsupportedCompressionType,
            BatchError::Compress(_)
            | BatchError::BadMagic(_)
            | BatchError::BadField { .. }
            | BatchError::BadRecord { .. }
            | BatchError::Missing { .. }
            | BatchError::Trailing { .. } => ErrorCode::InvalidRecord,
        }
    }
}

/// A whole batch that shares its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl RecordBatch {
    /// The batch at the start of `bytes`, which must hold all of it; what follows is let go. The CRC isn't checked.
    pub fn new(bytes: Bytes) -> Result<RecordBatch, BatchError> {
        let (header, batch) = header::split(&bytes)?;
        let len = batch.len();
        Ok(RecordBatch { header, bytes: bytes.slice(..len) })
    }

    /// The batches of `bytes` one after another. Stops after the first error; a batch cut off at the end is one.
    pub fn all(bytes: Bytes) -> impl Iterator<Item = Result<RecordBatch, BatchError>> {
        let mut rest = bytes;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let batch = RecordBatch::new(rest.clone());
            rest = match &batch {
                Ok(batch) => rest.slice(batch.bytes.len()..),
                Err(_) => Bytes::new(),
            };
            Some(batch)
        })
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All bytes of the batch.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The batch over borrowed bytes.
    pub fn view(&self) -> BatchView<'_> {
        BatchView::of(self.header, &self.bytes)
    }

    /// Checks the CRC.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        verify_crc(&self.bytes).map(|_| ())
    }

    /// The records, decompressed to at most `max_decompressed` bytes when the first is asked for.
    ///
    /// Keys, values and headers share the decompressed buffer (or the batch itself), and so keep all of it alive.
    pub fn records(&self, max_decompressed: usize) -> RecordIter {
        RecordIter::new(self.clone(), max_decompressed)
    }

    fn decompressed(&self, cap: usize) -> Result<Bytes, BatchError> {
        let payload = self.bytes.slice(HEADER_LEN..);
        match self.header.compression()? {
            Compression::None => Ok(payload),
            _ if payload.is_empty() && self.header.records_count == 0 => Ok(payload),
            codec => Ok(decompress(codec, &payload, cap)?.into()),
        }
    }
}
