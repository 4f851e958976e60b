//! The types openraft is instantiated with. Node ids are Kafka's broker ids; a term has one leader at most
//! (feature `single-term-leader`), so a term can be shown as Kafka's leader epoch.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::transport::Peer;

/// Records of one log entry: they are applied together or not at all.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The records.
    pub records: Arc<[Bytes]>,
    /// The only term in which they may take effect. In an entry of another term they are void, on every node
    /// alike: openraft can't be asked to append under a condition.
    pub term: Option<u64>,
}

impl Batch {
    /// Records that count in any term.
    pub fn new(records: impl Into<Arc<[Bytes]>>) -> Self {
        Self { records: records.into(), term: None }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} records)", self.records.len())
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its index.
    pub offset: u64,
    /// False when its records were void.
    pub applied: bool,
}

/// Longest host name that is taken from another node: DNS has none that is longer.
pub const HOST_BYTES_MAX: usize = 255;

/// A member of the quorum and where it can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub struct Voter {
    /// Host name or address of the node's controller listener; empty for a node that runs alone.
    pub host: String,
    /// Port of that listener.
    pub port: u16,
    /// Id of the log directory that holds the node's metadata log, all zeros when unknown.
    pub directory_id: [u8; 16],
}

impl Voter {
    /// The voter as the transport calls it.
    pub fn peer(&self, id: i32) -> Peer {
        Peer { id, host: self.host.clone(), port: self.port }
    }
}

/// Contents of a snapshot in its file form (see [`crate::snapshots`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFile(pub Bytes);

openraft::declare_raft_types!(
    /// openraft's type parameters for the metadata quorum.
    pub Types:
        D = Batch,
        R = Written,
        NodeId = i32,
        Node = Voter,
        SnapshotData = SnapshotFile,
);

pub type Entry = openraft::Entry<Types>;
pub type LogId = openraft::LogId<i32>;
pub type Vote = openraft::Vote<i32>;
pub type Membership = openraft::Membership<i32, Voter>;
pub type StoredMembership = openraft::StoredMembership<i32, Voter>;
pub type StorageError = openraft::StorageError<i32>;
pub type SnapshotMeta = openraft::SnapshotMeta<i32, Voter>;
pub type Snapshot = openraft::Snapshot<Types>;
pub type Raft = openraft::Raft<Types>;

/// A log id without the leader's node id, which one leader per term makes needless.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(openraft::CommittedLeaderId::new(term, 0), index)
}

/// Term of a log id.
pub fn term_of(id: &LogId) -> u64 {
    id.leader_id.term
}
