//! The journal as openraft's log storage. Disk writes run on blocking threads: the runtime that drives Raft also
//! drives heartbeats and timers, which a slow disk must not hold up.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, OnceLock};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};
use parking_lot::Mutex;

use crate::disk::{Bug, planted};
use crate::error::QuorumError;
use crate::journal::{Journal, Sync};
use crate::types::{Entry, LogId, StorageError, Types, Vote};
use crate::vote_copy;

/// Bytes of entries handed out in one read for replication.
const READ_BYTES_MAX: usize = 1 << 20;

/// The first failure of the storage or the machine, kept typed for the one who has to stop the process.
#[derive(Clone, Default)]
pub struct Failure(Arc<OnceLock<Arc<QuorumError>>>);

impl Failure {
    /// The first failure, if there was one.
    pub fn get(&self) -> Option<Arc<QuorumError>> {
        self.0.get().cloned()
    }

    /// Keeps the error when it is the first, and wraps it for openraft, which stops on it.
    pub fn storage(&self, error: QuorumError) -> StorageError {
        let text = error.to_string();
        if self.0.set(Arc::new(error)).is_ok() {
            tracing::error!(reason = %text, "the metadata quorum can't go on");
        }
        StorageError::from(StorageIOError::write(AnyError::error(text)))
    }

    /// Runs blocking work off the runtime.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, QuorumError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let done = match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(e) => Err(QuorumError::Stopped(format!("a storage task ended: {e}"))),
        };
        done.map_err(|e| self.storage(e))
    }
}

/// Shared handle to the journal; clones read, openraft's core alone writes.
#[derive(Clone)]
pub struct LogStore {
    pub journal: Arc<Mutex<Journal>>,
    pub failure: Failure,
}

impl LogStore {
    async fn write(
        &self,
        write: impl FnOnce(&mut Journal) -> Result<Sync, QuorumError> + Send + 'static,
    ) -> Result<(), StorageError> {
        let journal = self.journal.clone();
        let work = move || {
            let sync = write(&mut journal.lock())?;
            // The lock is free while the disk works, so that readers on the runtime never wait for it.
            let done = sync.run();
            let mut journal = journal.lock();
            match done {
                Ok(()) => journal.synced(&sync),
                Err(e) => return Err(journal.fail("syncing", e)),
            }
            Ok(())
        };
        self.failure.blocking(work).await
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(at) => at + 1,
            Bound::Excluded(at) => *at,
            Bound::Unbounded => u64::MAX,
        };
        self.journal.lock().read(start..end, usize::MAX).map_err(|e| self.failure.storage(e))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.journal.lock().read(start..end, READ_BYTES_MAX).map_err(|e| self.failure.storage(e))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let journal = self.journal.lock();
        Ok(LogState { last_purged_log_id: journal.purged(), last_log_id: journal.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        let dir = self.journal.lock().dir().to_path_buf();
        if planted(Bug::VoteNotSynced, &dir) || planted(Bug::VoteOnlyInCopy, &dir) {
            drop(self.journal.lock().set_vote(vote).map_err(|e| self.failure.storage(e))?);
        } else {
            self.write(move |journal| journal.set_vote(vote)).await?;
        }
        if planted(Bug::VoteNotSynced, &dir) {
            return Ok(());
        }
        self.failure.blocking(move || vote_copy::write(&dir, &vote)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.journal.lock().vote())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.write(move |journal| journal.append(&entries)).await?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.write(move |journal| journal.truncate(log_id.index)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let journal = self.journal.clone();
        self.failure.blocking(move || journal.lock().purge(log_id)).await
    }
}

#[cfg(test)]
#[path = "vote_power_test.rs"]
mod power;
