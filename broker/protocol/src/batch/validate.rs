//! What a broker checks before it appends a producer's batch.
//!
//! [`validate`] reads header and CRC only, which is enough for most topics. [`check_records`] walks the records where
//! a topic's rules are about them: keys under compaction, timestamps within bounds. Both say what to answer.

use std::ops::RangeInclusive;

use super::record::RecordTime;
use super::stream::Seen;
use super::{BatchError, BatchHeader, BatchView, HEADER_LEN, TimestampType, header, record, verify_crc};
use crate::compress::{Compression, Limits};
use crate::error::ErrorCode;

/// What depends on request and topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProduceRules {
    /// Produce version 7 and later may carry zstd.
    pub zstd_allowed: bool,
    /// The topic's `max.message.bytes`, for the whole batch as sent.
    pub batch_bytes_max: usize,
}

/// Why a producer's records are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No bytes at all.
    #[error("there is no record batch")]
    NoBatch,
    /// A produce request carries one batch per partition.
    #[error("{0} bytes follow the record batch, there must be exactly one batch per partition")]
    MoreThanOne(usize),
    /// Not a batch, or a damaged one.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Larger than the topic allows.
    #[error("record batch has {size} bytes, the topic allows {max}")]
    TooLarge {
        /// Bytes of the batch.
        size: usize,
        /// `max.message.bytes`.
        max: usize,
    },
    /// The producer doesn't know which offset it will be, so it has to say 0.
    #[error("record batch has base offset {0}, a producer's has to be 0")]
    BaseOffset(i64),
    /// The request's version predates zstd.
    #[error("zstd needs produce version 7 or later")]
    ZstdTooOld,
    /// Offsets and count contradict each other.
    #[error("record batch counts {count} records, its last offset delta is {last_offset_delta}")]
    Count {
        /// Count in the header.
        count: i32,
        /// Last offset delta in the header.
        last_offset_delta: i32,
    },
    /// Only brokers write control batches.
    #[error("clients can't write control batches")]
    Control,
    /// Only brokers set the append time.
    #[error("clients can't write batches with the timestamp type LogAppendTime")]
    AppendTime,
    /// Only compaction sets a delete horizon.
    #[error("clients can't write batches with a delete horizon")]
    DeleteHorizon,
    /// Producer id, epoch and sequence have to come together.
    #[error("record batch of producer {id} (epoch {epoch}, sequence {sequence}) {what}")]
    Producer {
        /// Producer id.
        id: i64,
        /// Producer epoch.
        epoch: i16,
        /// Base sequence.
        sequence: i32,
        /// What is missing.
        what: &'static str,
    },
    /// Records break rules of the topic.
    #[error("{}", summary(.0))]
    Records(Vec<RefusedRecord>),
}

impl Refused {
    /// What to answer.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Refused::Batch(error) => error.error_code(),
            Refused::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Refused::ZstdTooOld => ErrorCode::UnsupportedCompressionType,
            Refused::AppendTime => ErrorCode::InvalidTimestamp,
            Refused::Records(records) if records.iter().any(|r| matches!(r.fault, RecordFault::Timestamp { .. })) => {
                ErrorCode::InvalidTimestamp
            }
            _ => ErrorCode::InvalidRecord,
        }
    }
}

/// Checks that `records`, as a produce request carries them for a partition, are one batch that may be appended.
/// Of the records only their number is checked.
///
/// The CRC comes before what it covers: fields damaged on the way must not pass for a client's mistake, which clients
/// don't retry.
pub fn validate(records: &[u8], rules: &ProduceRules) -> Result<BatchHeader, Refused> {
    if records.is_empty() {
        return Err(Refused::NoBatch);
    }
    let (header, batch) = header::split(records)?;
    if batch.len() > rules.batch_bytes_max {
        return Err(Refused::TooLarge { size: batch.len(), max: rules.batch_bytes_max });
    }
    if batch.len() < records.len() {
        return Err(Refused::MoreThanOne(records.len() - batch.len()));
    }
    verify_crc(batch)?;
    if header.base_offset != 0 {
        return Err(Refused::BaseOffset(header.base_offset));
    }
    let codec = header.compression().map_err(BatchError::from)?;
    if codec == Compression::Zstd && !rules.zstd_allowed {
        return Err(Refused::ZstdTooOld);
    }
    if header.records_count <= 0 || i64::from(header.records_count) != i64::from(header.last_offset_delta) + 1 {
        return Err(Refused::Count { count: header.records_count, last_offset_delta: header.last_offset_delta });
    }
    check_count(&header, codec, &batch[HEADER_LEN..])?;
    if header.is_control() {
        return Err(Refused::Control);
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(Refused::AppendTime);
    }
    if header.delete_horizon_ms().is_some() {
        return Err(Refused::DeleteHorizon);
    }
    match producer_fault(&header) {
        Some(what) => Err(Refused::Producer {
            id: header.producer_id,
            epoch: header.producer_epoch,
            sequence: header.base_sequence,
            what,
        }),
        None => Ok(header),
    }
}

/// Length of the smallest record: its own length, attributes, two deltas, two lengths, a count, one byte each.
const RECORD_LEN_MIN: usize = 7;

/// Holds the header's count against the payload, without reading records: a count above what is there would take
/// offsets that no record has. Uncompressed, the records' length prefixes give it exactly. Compressed, it is bounded by
/// what the codec can make of so many bytes, so that one request can't jump the log by billions of offsets.
fn check_count(header: &BatchHeader, codec: Compression, payload: &[u8]) -> Result<(), Refused> {
    let declared = usize::try_from(header.records_count).unwrap_or(0);
    let ratio_max = match codec {
        Compression::None => return count_lengths(header, payload),
        Compression::Snappy => 64,
        Compression::Lz4 => 256,
        Compression::Gzip => 1_040,
        // A block of 128 KiB may take four bytes.
        Compression::Zstd => 32_768,
    };
    let most = payload.len().saturating_mul(ratio_max) / RECORD_LEN_MIN;
    if declared > most {
        let (base_offset, found) = (header.base_offset, i32::try_from(most).unwrap_or(i32::MAX));
        return Err(BatchError::Missing { base_offset, declared: header.records_count, found }.into());
    }
    Ok(())
}

/// Steps from length prefix to length prefix.
fn count_lengths(header: &BatchHeader, payload: &[u8]) -> Result<(), Refused> {
    let base_offset = header.base_offset;
    let mut rest = payload;
    for index in 0..header.records_count {
        if rest.is_empty() {
            return Err(BatchError::Missing { base_offset, declared: header.records_count, found: index }.into());
        }
        let bad = BatchError::BadRecord { base_offset, index, what: "is longer than the batch" };
        rest = record::after(rest).ok_or(bad)?;
    }
    match rest.len() {
        0 => Ok(()),
        bytes => Err(BatchError::Trailing { base_offset, count: header.records_count, bytes }.into()),
    }
}

fn producer_fault(header: &BatchHeader) -> Option<&'static str> {
    if !header.has_producer_id() {
        return header.is_transactional().then_some("is transactional, but has no producer id");
    }
    if header.producer_epoch < 0 {
        return Some("has no producer epoch");
    }
    (header.base_sequence < 0).then_some("has no sequence number")
}

/// What a topic demands of each record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordRules {
    /// Compacted topics need keys.
    pub keys_required: bool,
    /// Where `CreateTime` timestamps have to lie: from now less `message.timestamp.before.max.ms` to now plus
    /// `message.timestamp.after.max.ms`. -1, no timestamp, always passes.
    pub timestamps: Option<RangeInclusive<i64>>,
}

/// A record that broke a rule, for the `RecordErrors` of a produce response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Which record of the batch, from 0.
    pub index: i32,
    /// What it did.
    pub fault: RecordFault,
}

fn summary(refused: &[RefusedRecord]) -> String {
    match refused {
        [] => "records refused".into(),
        [first, ..] => {
            let (n, index) = (refused.len(), first.index);
            format!("{n} records of the batch refused; record {index} {}", first.fault)
        }
    }
}

/// How a record broke a rule. As text, it continues "the record".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// No key, in a compacted topic.
    #[error("has no key, which a compacted topic needs")]
    NoKey,
    /// Too old or too far ahead.
    #[error("has the timestamp {timestamp}, the topic takes {from} to {to}")]
    Timestamp {
        /// The record's.
        timestamp: i64,
        /// Earliest allowed.
        from: i64,
        /// Latest allowed.
        to: i64,
    },
}

/// What a walk over good records found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Largest timestamp, -1 if no record has one: what the header's has to be.
    pub max_timestamp: i64,
    /// Whether the records' offsets are 0, 1, 2… as the header's count says.
    pub consecutive: bool,
    /// Bytes of the records, decompressed.
    pub records_bytes: usize,
}

/// Refused records listed at most; a response needn't repeat a whole batch.
const LISTED_MAX: usize = 100;

/// Walks the records of a batch that [`validate`] took, holding no more than a window of what it unpacks. Without
/// [`RecordRules::keys_required`] it reads only offsets and timestamps.
pub fn check_records(batch: &BatchView<'_>, rules: &RecordRules, limits: Limits) -> Result<Walked, Refused> {
    let mut glance = batch.glance(limits)?;
    let mut walked = Walked { max_timestamp: -1, consecutive: true, records_bytes: 0 };
    let mut refused = Vec::new();
    let mut refuse = |index, fault| {
        if refused.len() < LISTED_MAX {
            refused.push(RefusedRecord { index, fault });
        }
    };
    for index in 0.. {
        let Some(seen) = glance.next(rules.keys_required) else { break };
        let Seen { time: RecordTime { offset_delta, timestamp, size, .. }, has_key } = seen?;
        walked.max_timestamp = walked.max_timestamp.max(timestamp);
        walked.consecutive &= offset_delta == index;
        walked.records_bytes += size;
        if has_key == Some(false) {
            refuse(index, RecordFault::NoKey);
        } else if let Some(range) = &rules.timestamps
            && timestamp != -1
            && !range.contains(&timestamp)
        {
            refuse(index, RecordFault::Timestamp { timestamp, from: *range.start(), to: *range.end() });
        }
    }
    if refused.is_empty() { Ok(walked) } else { Err(Refused::Records(refused)) }
}
