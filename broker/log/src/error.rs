//! What can go wrong in a log, in the words an operator or the produce path needs.
//!
//! Three kinds matter to the caller: the request is at fault (the log is untouched), the disk is full (the log is
//! untouched and goes on when there is room), and the log can't be trusted any more (`Corrupt`, `Offline`).

use std::io;
use std::path::{Path, PathBuf};

use klamm_protocol::batch::BatchError;

/// Why a log operation failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The offset is not one the log holds.
    #[error("offset {offset} is outside of the log's {log_start}..={log_end}")]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: i64,
        /// First offset of the log.
        log_start: i64,
        /// Offset after the last record.
        log_end: i64,
    },
    /// An idempotent producer skipped or repeated a sequence number.
    #[error("producer {producer_id} epoch {epoch} sent sequence {sequence}, expected {expected}")]
    OutOfOrderSequence {
        /// Producer id.
        producer_id: i64,
        /// Epoch in the batch.
        epoch: i16,
        /// First sequence number in the batch.
        sequence: i32,
        /// The sequence number that would have been next.
        expected: i32,
    },
    /// A producer with an older epoch than one already seen.
    #[error("producer {producer_id} has epoch {epoch}, epoch {current} was already seen")]
    InvalidProducerEpoch {
        /// Producer id.
        producer_id: i64,
        /// Epoch in the batch.
        epoch: i16,
        /// Newest epoch known.
        current: i16,
    },
    /// A plain batch from a producer whose transaction is open.
    #[error("producer {producer_id} sent a non-transactional batch inside its transaction")]
    InvalidTxnState {
        /// Producer id.
        producer_id: i64,
    },
    /// A transaction marker from a coordinator that has been replaced.
    #[error("marker for producer {producer_id} has coordinator epoch {epoch}, epoch {current} was already seen")]
    CoordinatorFenced {
        /// Producer id.
        producer_id: i64,
        /// Coordinator epoch in the marker.
        epoch: i32,
        /// Newest coordinator epoch known.
        current: i32,
    },
    /// More bytes in one append than a segment may hold.
    #[error("{size} bytes in one append don't fit a segment of {segment_bytes}")]
    RecordListTooLarge {
        /// Bytes to be appended.
        size: usize,
        /// `segment.bytes`.
        segment_bytes: u32,
    },
    /// A follower was given batches that don't continue its log.
    #[error("batch begins at offset {first}, the log ends at {log_end}")]
    OffsetsOutOfOrder {
        /// Base offset of the batch.
        first: i64,
        /// Offset after the last record of the log.
        log_end: i64,
    },
    /// The bytes to append are not whole, sound batches.
    #[error("not a sound record batch: {0}")]
    BadBatch(#[from] BatchError),
    /// The directory belongs to another incarnation of the topic.
    #[error("{dir} holds topic id {found}, not {expected}")]
    TopicIdMismatch {
        /// The partition's directory.
        dir: PathBuf,
        /// Topic id in `partition.metadata`.
        found: String,
        /// Topic id the caller wanted.
        expected: String,
    },
    /// No room. Nothing was appended; the log goes on when there is room again.
    #[error("disk full: {action} {path}: {source}")]
    DiskFull {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Any other error of the file system.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Stored data that was promised to be safe is damaged.
    #[error("{0}")]
    Corrupt(Box<Damage>),
    /// The log was given up after a failed flush or a write that could not be undone.
    #[error("log {dir} is offline: {reason}")]
    Offline {
        /// The partition's directory.
        dir: PathBuf,
        /// What happened first.
        reason: String,
    },
}

/// Where a log is damaged, and what a person can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The damaged file.
    pub file: PathBuf,
    /// Byte position of the first bad batch.
    pub position: u64,
    /// Offset the bad batch should begin at, as far as known.
    pub offset: i64,
    /// What is wrong there.
    pub what: String,
    /// Position of the next sound batch, when one follows in the same file.
    pub next_sound: Option<u64>,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} is damaged at byte {} (offset {}): {}",
            self.file.display(),
            self.position,
            self.offset,
            self.what
        )?;
        if let Some(next) = self.next_sound {
            write!(f, "; sound batches follow from byte {next}")?;
        }
        write!(
            f,
            ". Nothing was changed. Restore this replica from another one (move its directory away and restart), or give \
             up what follows in this file: truncate -s {} {}",
            self.position,
            self.file.display()
        )
    }
}

impl LogError {
    /// Sorts a system error into "full" and "other".
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> LogError {
        let path = path.to_path_buf();
        if is_full(&source) {
            LogError::DiskFull { action, path, source }
        } else {
            LogError::Io { action, path, source }
        }
    }

    /// Whether the disk itself has failed: an error of the device, a file system that has gone read-only, or a log
    /// that was given up because of one. Nothing on that disk can be relied on any more.
    pub fn is_disk_failure(&self) -> bool {
        use rustix::io::Errno;
        let failed = |e: &io::Error| {
            let code = e.raw_os_error().map(Errno::from_raw_os_error);
            matches!(code, Some(Errno::IO | Errno::ROFS | Errno::NODEV | Errno::NXIO | Errno::UCLEAN))
        };
        match self {
            LogError::Offline { .. } => true,
            LogError::Io { source, .. } => failed(source),
            _ => false,
        }
    }

    /// Whether the log can go on after this error without any repair.
    pub fn is_retriable(&self) -> bool {
        !matches!(self, LogError::Corrupt(_) | LogError::Offline { .. })
    }
}

/// Out of space, over quota, or over the file size limit: all go away when somebody makes room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
