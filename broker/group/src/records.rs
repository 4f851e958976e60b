//! The records of `__consumer_offsets` in Apache's bytes: what Kafka 4.3 writes, and every version it ever wrote for
//! reading. Keys carry their type in two bytes, values their version.
//!
//! Types this coordinator does not know (groups of newer protocols) are skipped, not refused.

use bytes::Bytes;
use klamm_protocol::Message;
use klamm_protocol::messages::{GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue};
use klamm_protocol::wire::{DecodeError, EncodeError, Writer};

use crate::offsets::OffsetEntry;
use crate::step::CoordinatorRecord;

/// Written for groups: version 3, the newest Kafka writes (4 is only read, so that a downgrade stays possible).
const GROUP_VALUE_VERSION: i16 = 3;
/// Written for offsets.
const OFFSET_VALUE_VERSION: i16 = 4;
/// Written for offsets whose client set a retention time of its own (OffsetCommit 2 to 4).
const OFFSET_VALUE_WITH_EXPIRY_VERSION: i16 = 1;

const OFFSET_KEY_OLD: i16 = 0;
const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;

/// Why a record of the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Shorter than the two bytes every key and value begins with.
    #[error("record too short: {0} bytes")]
    Short(usize),
    /// Fields that do not fit its type and version.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// A record of `__consumer_offsets`, read.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A committed offset, or its end.
    Offset(OffsetRecord),
    /// A classic group, or its end.
    Group {
        /// Group id.
        group: String,
        /// The group; none is a tombstone.
        value: Option<Box<GroupMetadataValue>>,
    },
    /// Of a type this coordinator does not know.
    Unknown(i16),
}

/// A committed offset in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct OffsetRecord {
    /// Group id.
    pub group: String,
    /// Topic.
    pub topic: String,
    /// Partition of the topic.
    pub partition: i32,
    /// The offset; none is a tombstone.
    pub value: Option<OffsetEntry>,
}

/// Reads one record.
pub fn decode_record(key: &Bytes, value: Option<&Bytes>) -> Result<Record, ReplayError> {
    let (kind, key) = split(key)?;
    match kind {
        OFFSET_KEY_OLD | OFFSET_KEY => {
            let key = OffsetCommitKey::from_bytes(key, 0)?;
            let value = match value {
                None => None,
                Some(value) => {
                    let (version, body) = split(value)?;
                    Some(OffsetEntry::from(OffsetCommitValue::from_bytes(body, version)?))
                }
            };
            Ok(Record::Offset(OffsetRecord { group: key.group, topic: key.topic, partition: key.partition, value }))
        }
        GROUP_KEY => {
            let key = GroupMetadataKey::from_bytes(key, 0)?;
            let value = match value {
                None => None,
                Some(value) => {
                    let (version, body) = split(value)?;
                    Some(Box::new(GroupMetadataValue::from_bytes(body, version)?))
                }
            };
            Ok(Record::Group { group: key.group, value })
        }
        other => Ok(Record::Unknown(other)),
    }
}

fn split(bytes: &Bytes) -> Result<(i16, Bytes), ReplayError> {
    match bytes.first_chunk::<2>() {
        Some(head) => Ok((i16::from_be_bytes(*head), bytes.slice(2..))),
        None => Err(ReplayError::Short(bytes.len())),
    }
}

fn join(head: i16, message: &impl Message, version: i16) -> Result<Bytes, EncodeError> {
    let mut w = Writer::new();
    w.i16(head);
    message.encode(&mut w, version)?;
    w.finish().into_bytes()
}

fn offset_key(group: &str, topic: &str, partition: i32) -> Result<Bytes, EncodeError> {
    join(OFFSET_KEY, &OffsetCommitKey { group: group.to_owned(), topic: topic.to_owned(), partition }, 0)
}

pub(crate) fn offset(
    group: &str,
    topic: &str,
    partition: i32,
    entry: &OffsetEntry,
) -> Result<CoordinatorRecord, EncodeError> {
    let version = if entry.expire_ms.is_some() { OFFSET_VALUE_WITH_EXPIRY_VERSION } else { OFFSET_VALUE_VERSION };
    let value = join(version, &OffsetCommitValue::from(entry), version)?;
    Ok(CoordinatorRecord { key: offset_key(group, topic, partition)?, value: Some(value) })
}

pub(crate) fn offset_tombstone(group: &str, topic: &str, partition: i32) -> Result<CoordinatorRecord, EncodeError> {
    Ok(CoordinatorRecord { key: offset_key(group, topic, partition)?, value: None })
}

fn group_key(group: &str) -> Result<Bytes, EncodeError> {
    join(GROUP_KEY, &GroupMetadataKey { group: group.to_owned() }, 0)
}

pub(crate) fn group(group: &str, value: &GroupMetadataValue) -> Result<CoordinatorRecord, EncodeError> {
    let value = join(GROUP_VALUE_VERSION, value, GROUP_VALUE_VERSION)?;
    Ok(CoordinatorRecord { key: group_key(group)?, value: Some(value) })
}

pub(crate) fn group_tombstone(group: &str) -> Result<CoordinatorRecord, EncodeError> {
    Ok(CoordinatorRecord { key: group_key(group)?, value: None })
}
