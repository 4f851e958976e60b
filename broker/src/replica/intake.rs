//! What a producer's batch must be before it is appended, and what the topic's configuration makes of it.
//!
//! On the plain path (CreateTime, `compression.type=producer`, not compacted) this reads the header and
//! the CRC, and the batch goes on as the very bytes that arrived. See docs/decisions/003.

use bytes::{Bytes, BytesMut};
use klamm_protocol::ErrorCode;
use klamm_protocol::batch::{
    self, BatchHeader, ProduceRules, RecordBatch, RecordRules, TimestampType, check_records, recompress, validate,
};
use klamm_protocol::compress::{Compression, Limits};

use crate::config::{TopicCompression, TopicConfig};

/// Produce versions that may carry zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;

/// A batch may unpack to so many times the topic's `max.message.bytes`, and to [`TOTAL_MIN`] in any case.
const RATIO_MAX: usize = 64;
const TOTAL_MIN: usize = 64 << 20;

/// What may be held at once for a batch that can't be unpacked in pieces.
const WINDOW_MIN: usize = 5 << 20;

/// A batch that may be appended.
#[derive(Debug)]
pub struct Taken {
    /// The batch; what arrived, unless the topic's configuration rewrote it.
    pub records: Bytes,
    /// Records in it.
    pub count: u64,
}

/// Why a batch is refused.
#[derive(Debug)]
pub struct Refused {
    /// For the client's program.
    pub code: ErrorCode,
    /// For its user.
    pub message: Option<String>,
    /// Which records are at fault, and why.
    pub records: Vec<(i32, String)>,
}

impl Refused {
    /// A refusal that the code explains.
    pub fn new(code: ErrorCode) -> Self {
        Self { code, message: None, records: Vec::new() }
    }

    /// A refusal with words.
    pub fn because(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()), records: Vec::new() }
    }
}

impl From<batch::Refused> for Refused {
    fn from(refused: batch::Refused) -> Self {
        let records = match &refused {
            batch::Refused::Records(records) => {
                records.iter().map(|r| (r.index, format!("record {}", r.fault))).collect()
            }
            _ => Vec::new(),
        };
        Self { code: refused.error_code(), message: Some(refused.to_string()), records }
    }
}

impl From<batch::BatchError> for Refused {
    fn from(error: batch::BatchError) -> Self {
        batch::Refused::from(error).into()
    }
}

/// Checks a batch against the topic's rules and rewrites it where they ask for it.
///
/// # Errors
/// What the client did wrong. Nothing was appended.
pub fn check(records: Bytes, topic: &TopicConfig, produce_version: i16, now_ms: i64) -> Result<Taken, Refused> {
    let rules = ProduceRules {
        zstd_allowed: produce_version >= ZSTD_SINCE,
        batch_bytes_max: usize::try_from(topic.max_message_bytes).unwrap_or(0),
    };
    let header = validate(&records, &rules)?;
    let count = u64::try_from(header.records_count).unwrap_or(0);
    let mut records = look_inside(records, &header, topic, now_ms)?;
    if topic.log_append_time {
        records = rewritten(records, TimestampType::LogAppendTime, now_ms)?;
    }
    Ok(Taken { records, count })
}

/// Walks and recompresses where the topic's rules, or an implausible header, call for it.
fn look_inside(records: Bytes, header: &BatchHeader, topic: &TopicConfig, now_ms: i64) -> Result<Bytes, Refused> {
    let timestamps =
        now_ms.saturating_sub(topic.timestamp_before_max_ms)..=now_ms.saturating_add(topic.timestamp_after_max_ms);
    let bounded_below = topic.timestamp_before_max_ms < now_ms;
    // What the header alone can't prove: that no timestamp is too small, or which ones are too large.
    let doubtful = !topic.log_append_time
        && (bounded_below
            || header.max_timestamp < header.base_timestamp
            || !timestamps.contains(&header.max_timestamp));
    let codec = header.compression().map_err(batch::BatchError::from)?;
    let (wanted, level) = target(topic.compression, codec);
    if !topic.log.compact && !doubtful && wanted == codec {
        return Ok(records);
    }
    let limits = limits(topic);
    let parsed = RecordBatch::new(records)?;
    let rules =
        RecordRules { keys_required: topic.log.compact, timestamps: (!topic.log_append_time).then_some(timestamps) };
    let walked = check_records(&parsed.view(), &rules, limits)?;
    if !walked.consecutive {
        return Err(Refused::because(ErrorCode::InvalidRecord, "the records' offsets are not 0, 1, 2 and so on"));
    }
    let mut records = parsed.bytes().clone();
    if wanted != codec {
        let max = usize::try_from(topic.max_message_bytes).unwrap_or(0);
        records = recompress(&parsed.view(), wanted, level, walked.records_bytes, limits, max)?;
    }
    if !topic.log_append_time && walked.max_timestamp != header.max_timestamp {
        records = rewritten(records, TimestampType::CreateTime, walked.max_timestamp)?;
    }
    Ok(records)
}

/// What looking inside may cost. The records are unpacked through a window, so their size costs time alone: the bound
/// leaves an honest producer all the room it needs and ends a bomb. What has to be held whole to be unpacked is bounded
/// by a few MiB, so that no connection makes the broker hold more; a topic that takes larger batches gives more room.
/// A producer whose batch passes a bound is told that it is too large, and splits it.
fn limits(topic: &TopicConfig) -> Limits {
    let size = |n: i32| usize::try_from(n).unwrap_or(0);
    let (allowed, batch) = (size(topic.max_decompressed_message_bytes), size(topic.max_message_bytes));
    Limits {
        total: allowed.min(unpacked_bytes_max(topic)),
        window: allowed.min(batch.saturating_mul(4).max(WINDOW_MIN)),
    }
}

/// Most bytes that a batch of this topic may unpack to, whatever `max.decompressed.message.bytes` allows. Who reads
/// batches back must be able to take as much.
pub fn unpacked_bytes_max(topic: &TopicConfig) -> usize {
    usize::try_from(topic.max_message_bytes).unwrap_or(0).saturating_mul(RATIO_MAX).max(TOTAL_MIN)
}

fn target(topic: TopicCompression, sent: Compression) -> (Compression, Option<i32>) {
    match topic {
        TopicCompression::Producer => (sent, None),
        TopicCompression::Uncompressed => (Compression::None, None),
        TopicCompression::Gzip(level) => (Compression::Gzip, Some(level)),
        TopicCompression::Snappy => (Compression::Snappy, None),
        TopicCompression::Lz4(level) => (Compression::Lz4, Some(level)),
        TopicCompression::Zstd(level) => (Compression::Zstd, Some(level)),
    }
}

/// The batch with another timestamp type or maximum; its CRC is made anew.
fn rewritten(records: Bytes, kind: TimestampType, max_timestamp: i64) -> Result<Bytes, Refused> {
    let mut copy = BytesMut::from(records);
    batch::set_max_timestamp(&mut copy, kind, max_timestamp)?;
    Ok(copy.freeze())
}
