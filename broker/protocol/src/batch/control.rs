//! Control records: what a broker writes between the users' records, above all the end of a transaction.
//!
//! The key is a version and a type, both i16; the value depends on the type. Consumers skip all of them.

use bytes::Bytes;

use super::{BatchBuilder, BuildError, RecordView};

/// What a control record says, from its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ControlType {
    /// The producer's transaction was aborted.
    Abort,
    /// The producer's transaction was committed.
    Commit,
    /// A new quorum leader.
    LeaderChange,
    /// Begin of a metadata snapshot.
    SnapshotHeader,
    /// End of a metadata snapshot.
    SnapshotFooter,
    /// The quorum's protocol level.
    KRaftVersion,
    /// The quorum's voters.
    KRaftVoters,
    /// One of a later version; to be skipped.
    Unknown(i16),
}

impl ControlType {
    /// The number in the key.
    pub fn id(self) -> i16 {
        match self {
            ControlType::Abort => 0,
            ControlType::Commit => 1,
            ControlType::LeaderChange => 2,
            ControlType::SnapshotHeader => 3,
            ControlType::SnapshotFooter => 4,
            ControlType::KRaftVersion => 5,
            ControlType::KRaftVoters => 6,
            ControlType::Unknown(id) => id,
        }
    }

    /// The type of this number.
    pub fn from_id(id: i16) -> ControlType {
        match id {
            0 => ControlType::Abort,
            1 => ControlType::Commit,
            2 => ControlType::LeaderChange,
            3 => ControlType::SnapshotHeader,
            4 => ControlType::SnapshotFooter,
            5 => ControlType::KRaftVersion,
            6 => ControlType::KRaftVoters,
            id => ControlType::Unknown(id),
        }
    }

    /// The record key: version 0 and the number.
    pub fn key(self) -> [u8; 4] {
        let [high, low] = self.id().to_be_bytes();
        [0, 0, high, low]
    }

    /// Reads a record key. `None` if it is none of a control record.
    pub fn from_key(key: &[u8]) -> Option<ControlType> {
        let [v0, v1, t0, t1, ..] = *key else { return None };
        (i16::from_be_bytes([v0, v1]) >= 0).then(|| ControlType::from_id(i16::from_be_bytes([t0, t1])))
    }
}

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTxnMarker {
    /// Committed, or else aborted.
    pub commit: bool,
    /// Epoch of the transaction coordinator that decided so.
    pub coordinator_epoch: i32,
}

impl EndTxnMarker {
    /// Reads key and value of a control record. `None` if it is no such marker.
    pub fn parse(key: &[u8], value: &[u8]) -> Option<EndTxnMarker> {
        let commit = match ControlType::from_key(key)? {
            ControlType::Commit => true,
            ControlType::Abort => false,
            _ => return None,
        };
        let [v0, v1, a, b, c, d, ..] = *value else { return None };
        (i16::from_be_bytes([v0, v1]) >= 0)
            .then_some(EndTxnMarker { commit, coordinator_epoch: i32::from_be_bytes([a, b, c, d]) })
    }

    /// As [`parse`](Self::parse), of a record of a control batch.
    pub fn of(record: &RecordView<'_>) -> Option<EndTxnMarker> {
        EndTxnMarker::parse(record.key?, record.value?)
    }
}

/// The control batch of one record that ends the transaction of `producer` (id and epoch).
pub fn end_txn_marker(
    base_offset: i64,
    leader_epoch: i32,
    timestamp: i64,
    producer: (i64, i16),
    marker: EndTxnMarker,
) -> Result<Bytes, BuildError> {
    let kind = if marker.commit { ControlType::Commit } else { ControlType::Abort };
    let mut value = [0; 6];
    value[2..].copy_from_slice(&marker.coordinator_epoch.to_be_bytes());
    let mut builder = BatchBuilder::new(base_offset)
        .leader_epoch(leader_epoch)
        .producer(producer.0, producer.1, -1)
        .transactional()
        .control();
    builder.push(timestamp, Some(&kind.key()), Some(&value), &[])?;
    builder.build()
}
