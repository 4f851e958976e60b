//! The replicated state machine: what the caller implements, and its adapter to openraft.
//!
//! The machine lives in memory; on disk it exists as the newest snapshot plus the journal behind it. A machine
//! that refuses a committed record stops the quorum, since going on would let this node's state differ.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, RaftSnapshotBuilder};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::codec;
use crate::error::QuorumError;
use crate::log_store::Failure;
use crate::snapshots::{self, Contents, Snapshots};
use crate::types::{
    Entry, LogId, Snapshot, SnapshotFile, SnapshotMeta, StorageError, StoredMembership, Types, Written, term_of,
};

/// Why a machine can't apply a record; it stops the process.
pub type MachineError = Box<dyn std::error::Error + Send + Sync>;

/// Produces the records of a frozen state; called on a blocking thread.
pub type Freeze = Box<dyn FnOnce() -> Vec<Bytes> + Send + Sync>;

/// What committed records act on. All voters make the same calls in the same order.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies the records committed together at `offset`. Offsets rise, and some are left out.
    fn apply(&mut self, offset: u64, records: &[Bytes]) -> Result<(), MachineError>;

    /// Freezes the present state cheaply; the result is turned into records later.
    fn snapshot(&self) -> Freeze;

    /// Replaces the state by the one that a snapshot at `offset` holds.
    fn restore(&mut self, offset: u64, records: &[Bytes]) -> Result<(), MachineError>;
}

/// Asks for a snapshot when enough has been applied since the last one.
pub struct SnapshotTrigger {
    bytes_max: u64,
    records_max: u64,
    bytes: AtomicU64,
    records: AtomicU64,
    pub due: Notify,
}

impl SnapshotTrigger {
    pub fn new(bytes_max: u64, records_max: u64) -> Self {
        Self { bytes_max, records_max, bytes: AtomicU64::new(0), records: AtomicU64::new(0), due: Notify::new() }
    }

    fn applied(&self, records: &[Bytes]) {
        let size = codec::records_size(records) as u64;
        let bytes = self.bytes.fetch_add(size, Ordering::Relaxed) + size;
        let count = self.records.fetch_add(records.len() as u64, Ordering::Relaxed) + records.len() as u64;
        if bytes >= self.bytes_max || count >= self.records_max {
            self.due.notify_one();
        }
    }

    fn taken(&self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.records.store(0, Ordering::Relaxed);
    }
}

/// openraft's view of a [`StateMachine`].
pub struct Machine {
    inner: Box<dyn StateMachine>,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: Arc<Mutex<Snapshots>>,
    trigger: Arc<SnapshotTrigger>,
    failure: Failure,
}

impl Machine {
    pub fn new(
        inner: Box<dyn StateMachine>,
        snapshots: Snapshots,
        trigger: Arc<SnapshotTrigger>,
        failure: Failure,
    ) -> Self {
        let membership = StoredMembership::default();
        let snapshots = Arc::new(Mutex::new(snapshots));
        Self { inner, applied: None, membership, snapshots, trigger, failure }
    }

    /// Takes over the state of a snapshot.
    pub fn snapshots(&self) -> Arc<Mutex<Snapshots>> {
        self.snapshots.clone()
    }

    pub fn restore(&mut self, contents: Contents) -> Result<(), QuorumError> {
        let offset = contents.meta.last_log_id.as_ref().map_or(0, |id| id.index);
        let restored = self.inner.restore(offset, &contents.records);
        restored.map_err(|e| QuorumError::Machine { offset, reason: e.to_string() })?;
        self.applied = contents.meta.last_log_id;
        self.membership = contents.meta.last_membership;
        Ok(())
    }

    fn apply_one(&mut self, entry: Entry) -> Result<Written, QuorumError> {
        let offset = entry.log_id.index;
        let mut done = true;
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(batch) if batch.term.is_some_and(|t| t != term_of(&entry.log_id)) => done = false,
            EntryPayload::Normal(batch) => {
                let applied = self.inner.apply(offset, &batch.records);
                applied.map_err(|e| QuorumError::Machine { offset, reason: e.to_string() })?;
                self.trigger.applied(&batch.records);
            }
        }
        self.applied = Some(entry.log_id);
        Ok(Written { offset, applied: done })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Written>, StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let applied: Result<Vec<Written>, QuorumError> = entries.into_iter().map(|e| self.apply_one(e)).collect();
        applied.map_err(|e| self.failure.storage(e))
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            freeze: Some(self.inner.snapshot()),
            applied: self.applied,
            membership: self.membership.clone(),
            snapshots: self.snapshots.clone(),
            trigger: self.trigger.clone(),
            failure: self.failure.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<SnapshotFile>) -> Result<(), StorageError> {
        let path = std::path::PathBuf::from("received snapshot");
        let contents = snapshots::decode(&snapshot.0).map_err(|e| {
            self.failure.storage(QuorumError::Damaged { path, position: 0, reason: format!("malformed {}", e.0) })
        })?;
        let (snapshots, meta) = (self.snapshots.clone(), meta.clone());
        self.failure.blocking(move || snapshots.lock().install(meta, &snapshot.0)).await?;
        self.restore(contents).map_err(|e| self.failure.storage(e))?;
        self.trigger.taken();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let snapshots = self.snapshots.clone();
        let newest = self.failure.blocking(move || snapshots.lock().newest()).await?;
        Ok(newest.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(SnapshotFile(bytes)) }))
    }
}

/// A frozen state on its way to a snapshot file.
pub struct Builder {
    freeze: Option<Freeze>,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: Arc<Mutex<Snapshots>>,
    trigger: Arc<SnapshotTrigger>,
    failure: Failure,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let snapshot_id =
            self.applied.map_or_else(|| "empty".into(), |id| format!("{}-{}", id.leader_id.term, id.index));
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone(), snapshot_id };
        let Some(freeze) = self.freeze.take() else {
            return Err(self.failure.storage(QuorumError::Stopped("a snapshot was built twice".into())));
        };
        let (snapshots, kept) = (self.snapshots.clone(), meta.clone());
        let file = self.failure.blocking(move || {
            let file = snapshots::encode(&kept, &freeze());
            match snapshots.lock().install(kept, &file) {
                Err(QuorumError::Io { source, path, .. }) if source.kind() == io::ErrorKind::StorageFull => {
                    tracing::warn!(path = %path.display(), "no space for a snapshot of the metadata; the log stays");
                    Ok(None)
                }
                other => other.map(|()| Some(Bytes::from(file))),
            }
        });
        let Some(file) = file.await? else {
            // openraft ignores a snapshot that is no newer than the one it has, and an empty one never is.
            self.trigger.taken();
            return Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: Box::default() });
        };
        self.trigger.taken();
        Ok(Snapshot { meta, snapshot: Box::new(SnapshotFile(file)) })
    }
}
