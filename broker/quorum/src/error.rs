//! What can go wrong in the quorum, told so that the broker can decide between retry and exit.

use std::path::PathBuf;

/// Errors of the metadata quorum.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    /// Reading or writing the quorum's files failed. The quorum is unusable afterwards.
    #[error("metadata log, {what} {}: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file or folder it was done to.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file holds bytes that were durable once and are no longer what was written.
    #[error(
        "metadata log, {} is damaged at byte {position}: {reason}. Nothing was changed. With other voters, move the \
         folder of the metadata log away and start again: the node joins as a new voter and takes the metadata from \
         them. A node that is alone needs a copy of that folder from before",
        path.display()
    )]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// Where the first bad frame begins.
        position: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The folder belongs to another node or another cluster, or a running process holds it.
    #[error("metadata log in {}: {reason}", dir.display())]
    Foreign {
        /// The quorum's folder.
        dir: PathBuf,
        /// Whose it is.
        reason: String,
    },
    /// There is no room for the proposed records; nothing was written and the quorum goes on.
    #[error("metadata log: no space left in {}", dir.display())]
    NoSpace {
        /// The quorum's folder.
        dir: PathBuf,
    },
    /// This node isn't the leader; the leader is named when known.
    #[error("not the metadata leader{}", match leader { Some(id) => format!(" (node {id} is)"), None => String::new() })]
    NotLeader {
        /// Node id of the leader.
        leader: Option<i32>,
    },
    /// This node lost its leadership, or contact to a majority, while the records were under way: they may or may
    /// not take effect.
    #[error("it isn't known whether the metadata records were committed")]
    Undecided,
    /// The voters can't be changed like that, or not now; nothing changed, or a part that does no harm.
    #[error("voters of the metadata quorum: {0}")]
    Change(String),
    /// A node that was to get a vote didn't come near the end of the log in time; it was taken out again.
    #[error("node {id} has not caught up in time")]
    Behind {
        /// Its node id.
        id: i32,
    },
    /// The state machine refused committed records.
    #[error("metadata records at offset {offset} can't be applied: {reason}")]
    Machine {
        /// Offset of the refused records.
        offset: u64,
        /// The machine's reason.
        reason: String,
    },
    /// A proposal was larger than a metadata entry may be.
    #[error("{size} bytes of metadata records in one proposal; at most {max} are allowed")]
    TooLarge {
        /// Encoded size of the proposal.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// The quorum has stopped, with the reason of the first failure or because it was shut down.
    #[error("metadata quorum stopped: {0}")]
    Stopped(String),
}

impl QuorumError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { what, path: path.into(), source }
    }
}
