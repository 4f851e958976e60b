//! Where and as whom a quorum node runs, and the times it keeps.
//!
//! All times follow from the heartbeat, so a test can run slower or faster without changing their order.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use crate::journal::Owner;
use crate::message::Identity;
use crate::transport::{NoTransport, Transport};
use crate::types::Voter;

/// Openraft's limit for one call; the limits that matter are those of [`crate::network`].
const CALL_MAX: Duration = Duration::from_secs(60);

/// How a node whose folder is empty gets its metadata log. Read only then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// It forms a quorum of one.
    Alone,
    /// It forms a quorum with these nodes (id, host, port), itself among them, once all of them have answered
    /// that they are empty and mean the same list. When one has a log already, this node joins instead.
    Voters(Vec<(i32, String, u16)>),
    /// It joins the quorum that is known at these addresses.
    Join(Vec<(String, u16)>),
}

/// Where and as whom to run.
#[derive(Clone)]
pub struct QuorumConfig {
    /// Folder of the journal and the snapshots; created when missing.
    pub dir: PathBuf,
    /// This node's id.
    pub node_id: i32,
    /// The cluster's id; a folder written under another one is refused.
    pub cluster_id: String,
    /// Where this node can be reached by the others, and the id of the directory that holds its log: a node with
    /// another directory is another voter, because it doesn't know what that one promised.
    pub me: Voter,
    /// What an empty node does.
    pub bootstrap: Bootstrap,
    /// The way to other nodes.
    pub transport: Arc<dyn Transport>,
    /// How many voters there may be; a joining node gets a free seat when its id is among the lowest.
    pub seats: usize,
    /// A snapshot is taken after this many bytes of records.
    pub snapshot_bytes: u64,
    /// A snapshot is taken after this many records.
    pub snapshot_records: u64,
    /// Entries that stay in the journal after a snapshot, so that peers a little behind need no snapshot.
    pub entries_kept: u64,
    /// A journal file is closed at this size.
    pub segment_bytes: u64,
    /// Time between a leader's heartbeats. A follower stands for election after six of them without one.
    pub heartbeat: Duration,
}

impl fmt::Debug for QuorumConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, cluster) = (self.node_id, &self.cluster_id);
        let mut out = f.debug_struct("QuorumConfig");
        out.field("dir", &self.dir).field("node_id", &id).field("cluster_id", cluster).field("me", &self.me);
        out.field("bootstrap", &self.bootstrap).field("seats", &self.seats).finish_non_exhaustive()
    }
}

impl QuorumConfig {
    /// A node alone with the usual limits.
    pub fn new(dir: impl Into<PathBuf>, node_id: i32, cluster_id: impl Into<String>) -> Self {
        Self {
            dir: dir.into(),
            node_id,
            cluster_id: cluster_id.into(),
            me: Voter::default(),
            bootstrap: Bootstrap::Alone,
            transport: Arc::new(NoTransport),
            seats: 3,
            snapshot_bytes: 8 << 20,
            snapshot_records: 50_000,
            entries_kept: 1_000,
            segment_bytes: 4 << 20,
            heartbeat: Duration::from_millis(75),
        }
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner { cluster_id: self.cluster_id.clone(), node_id: self.node_id }
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity { id: self.node_id, directory_id: self.me.directory_id }
    }

    /// Silence after which the voter of `rank` (0 is the lowest id) asks for votes. Far enough apart that two
    /// hardly ever ask at once, and above what a stalled machine keeps a healthy leader silent.
    pub(crate) fn election_timeout(&self, rank: u32) -> Duration {
        self.heartbeat * 6 + self.rank_step() * rank
    }

    /// Wait before the voter of `rank` asks again.
    pub(crate) fn election_retry(&self, rank: u32) -> Duration {
        self.heartbeat * 3 + self.rank_step() * rank
    }

    fn rank_step(&self) -> Duration {
        self.heartbeat * 4 / 3
    }

    /// A node that heard its leader within this time helps nobody else to become it.
    pub(crate) fn lease(&self) -> Duration {
        self.heartbeat * 14 / 3
    }

    /// How long a vote may take, disk included. Below [`Self::lease`], because openraft denies votes for a little
    /// more than this after a leader's message.
    pub(crate) fn vote_timeout(&self) -> Duration {
        self.heartbeat * 4
    }

    /// A leader that has no answer from a majority for this long no longer decides.
    pub(crate) fn contact_max(&self) -> Duration {
        self.heartbeat * 12
    }

    /// Openraft keeps no timer of its own: [`crate::election`] sends heartbeats and starts elections, with a
    /// window for each voter and a question before each election, both of which openraft 0.9 lacks.
    pub(crate) fn raft(&self) -> Config {
        let vote = self.vote_timeout().as_millis().max(1) as u64;
        Config {
            cluster_name: self.cluster_id.clone(),
            heartbeat_interval: CALL_MAX.as_millis() as u64,
            election_timeout_min: vote,
            election_timeout_max: vote + 1,
            install_snapshot_timeout: CALL_MAX.as_millis() as u64,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.entries_kept,
            enable_tick: false,
            ..Config::default()
        }
    }
}
