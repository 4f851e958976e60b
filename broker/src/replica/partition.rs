//! One partition led by this broker: its log behind one lock, and the offsets others look at.
//!
//! The lock is held for the append or the lookup alone, never across an await or an fsync. Offsets
//! that readers poll are atomics, published after the log has changed. With one replica the high
//! watermark is the log end, except while an append that asked for an fsync waits for it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};

use bytes::Bytes;
use klamm_log::{Appended, Log, LogError, ReadResult};
use klamm_protocol::{ErrorCode, Uuid};
use parking_lot::Mutex;

use crate::config::TopicConfig;
use crate::metrics::TopicMetrics;
use crate::replica::waiting::FetchWaiters;

/// What all partitions of a topic share.
#[derive(Debug)]
pub struct Topic {
    /// The name.
    pub name: Arc<str>,
    /// Stable for the topic's life, never zero.
    pub id: Uuid,
    /// Counters of this topic.
    pub metrics: TopicMetrics,
    /// The configuration in force; replaced as a whole when it changes.
    config: Mutex<Arc<TopicConfig>>,
}

impl Topic {
    /// A topic with its configuration.
    pub fn new(name: Arc<str>, id: Uuid, metrics: TopicMetrics, config: Arc<TopicConfig>) -> Self {
        Self { name, id, metrics, config: Mutex::new(config) }
    }

    /// Whether only the broker itself may write to it.
    pub fn is_internal(&self) -> bool {
        crate::coordinator::is_internal(&self.name)
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.lock().clone()
    }

    /// Replaces the configuration.
    pub fn set_config(&self, config: Arc<TopicConfig>) {
        *self.config.lock() = config;
    }
}

/// A partition this broker leads.
#[derive(Debug)]
pub struct Partition {
    /// Its topic.
    pub topic: Arc<Topic>,
    /// Its number within the topic.
    pub index: i32,
    log: Mutex<Log>,
    leader_epoch: AtomicI32,
    log_start: AtomicI64,
    high_watermark: AtomicI64,
    log_end: AtomicI64,
    size_bytes: AtomicI64,
    deleted: AtomicBool,
    waiters: FetchWaiters,
}

/// What an append leaves for its caller to do.
#[derive(Debug)]
pub struct Append {
    /// Offsets, and whether the batch was there already.
    pub appended: Appended,
    /// Whether and when an fsync is due.
    pub flush: Flush,
}

/// Whether an append asks for an fsync; see [`super::flush`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// It does not.
    No,
    /// `flush.ms` is over, or a segment is finished: soon, and nobody waits.
    Later,
    /// `flush.messages` is reached: before the append is acknowledged or seen.
    BeforeAnswer,
}

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A producer.
    Client,
    /// A coordinator of this broker: its control batches are welcome.
    Coordinator,
}

/// Which records a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
}

impl Isolation {
    /// From the wire: 0 is read_uncommitted, anything else read_committed (as Kafka reads it).
    pub fn from_wire(level: i8) -> Self {
        if level == 0 { Self::ReadUncommitted } else { Self::ReadCommitted }
    }
}

/// Offsets of a partition at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// First offset that may be read.
    pub log_start: i64,
    /// End of what read_committed consumers see.
    pub last_stable: i64,
    /// End of what consumers see.
    pub high_watermark: i64,
    /// Offset of the next record.
    pub log_end: i64,
}

impl Partition {
    /// Wraps an opened log.
    pub fn new(topic: Arc<Topic>, index: i32, log: Log, leader_epoch: i32) -> Self {
        let (start, end, size) = (log.log_start_offset(), log.log_end_offset(), log.size());
        Self {
            topic,
            index,
            log: Mutex::new(log),
            leader_epoch: AtomicI32::new(leader_epoch),
            log_start: AtomicI64::new(start),
            high_watermark: AtomicI64::new(end),
            log_end: AtomicI64::new(end),
            size_bytes: AtomicI64::new(i64::try_from(size).unwrap_or(i64::MAX)),
            deleted: AtomicBool::new(false),
            waiters: FetchWaiters::default(),
        }
    }

    /// The leader epoch in force.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch.load(Ordering::Acquire)
    }

    /// The controller has given the partition a new leader epoch.
    pub fn set_leader_epoch(&self, epoch: i32) {
        self.leader_epoch.fetch_max(epoch, Ordering::AcqRel);
    }

    /// Everything below this offset is on disk.
    pub fn recovery_point(&self) -> i64 {
        self.log.lock().recovery_point()
    }

    /// Checks the epoch that a client believes in; −1 means that it has none.
    ///
    /// # Errors
    /// `FencedLeaderEpoch` when it is old, `UnknownLeaderEpoch` when we have not heard of it.
    pub fn check_leader_epoch(&self, current: i32) -> Result<(), ErrorCode> {
        let ours = self.leader_epoch();
        match current {
            -1 => Ok(()),
            old if old < ours => Err(ErrorCode::FencedLeaderEpoch),
            new if new > ours => Err(ErrorCode::UnknownLeaderEpoch),
            _ => Ok(()),
        }
    }

    /// Whether the topic has been deleted; whoever still holds the partition must look it up again.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// The offsets as last published.
    pub fn offsets(&self) -> Offsets {
        let high_watermark = self.high_watermark.load(Ordering::Acquire);
        Offsets {
            log_start: self.log_start.load(Ordering::Acquire),
            last_stable: high_watermark,
            high_watermark,
            log_end: self.log_end.load(Ordering::Acquire),
        }
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> i64 {
        self.size_bytes.load(Ordering::Relaxed)
    }

    /// Those who wait for data of this partition.
    pub fn waiters(&self) -> &FetchWaiters {
        &self.waiters
    }

    /// Appends validated batches and assigns their offsets. Readers see them at once, unless the
    /// topic's `flush.messages` asks for an fsync first.
    ///
    /// # Errors
    /// The log's error; nothing was appended then.
    pub fn append(&self, records: &Bytes, origin: Origin, now_ms: i64) -> Result<Append, LogError> {
        let mut log = self.log.lock();
        let epoch = self.leader_epoch();
        let appended = match origin {
            Origin::Client => log.append_as_leader(records, epoch, now_ms)?,
            Origin::Coordinator => log.append_as_coordinator(records, epoch, now_ms)?,
        };
        if appended.duplicate {
            // The original may still wait for its fsync: this answer must wait with it.
            let seen = self.high_watermark.load(Ordering::Acquire) > appended.last_offset;
            return Ok(Append { appended, flush: if seen { Flush::No } else { Flush::BeforeAnswer } });
        }
        let flush = if log.unflushed() >= log.config().flush_messages {
            Flush::BeforeAnswer
        } else if log.flush_due(now_ms) {
            Flush::Later
        } else {
            Flush::No
        };
        // An append behind one that waits for its fsync must not be seen before it.
        let held = flush == Flush::BeforeAnswer || self.is_held();
        self.publish(log.log_start_offset(), log.log_end_offset(), held);
        drop(log);
        let bytes = i64::try_from(records.len()).unwrap_or(i64::MAX);
        self.size_bytes.fetch_add(bytes, Ordering::Relaxed);
        if !held {
            self.waiters.offer(bytes);
        }
        Ok(Append { appended, flush })
    }

    /// Whether appended records wait for an fsync before they may be seen.
    fn is_held(&self) -> bool {
        self.high_watermark.load(Ordering::Acquire) < self.log_end.load(Ordering::Acquire)
    }

    /// Publishes the log's offsets after a change; the high watermark follows unless held back.
    fn publish(&self, log_start: i64, log_end: i64, hold_high_watermark: bool) {
        self.log_end.store(log_end, Ordering::Release);
        self.log_start.store(log_start, Ordering::Release);
        if hold_high_watermark {
            self.high_watermark.fetch_min(log_end, Ordering::AcqRel);
        } else {
            self.high_watermark.store(log_end, Ordering::Release);
        }
    }

    /// Where to read from `offset` on, up to what `isolation` shows.
    ///
    /// # Errors
    /// The log's error; `OffsetOutOfRange` when the offset is outside the log.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        isolation: Isolation,
        min_one: bool,
    ) -> Result<ReadResult, LogError> {
        let offsets = self.offsets();
        let bound = match isolation {
            Isolation::ReadUncommitted => offsets.high_watermark,
            Isolation::ReadCommitted => offsets.last_stable,
        };
        self.log.lock().read(offset, max_bytes, bound, min_one)
    }

    /// Runs `look` on the log under its lock: for lookups and the rarer changes. The offsets are
    /// published again afterwards.
    pub fn with_log<T>(&self, look: impl FnOnce(&mut Log) -> T) -> T {
        let mut log = self.log.lock();
        let held = self.is_held();
        let result = look(&mut log);
        self.publish(log.log_start_offset(), log.log_end_offset(), held);
        self.size_bytes.store(i64::try_from(log.size()).unwrap_or(i64::MAX), Ordering::Relaxed);
        result
    }

    /// Syncs everything appended so far, on the calling thread, and lets readers see it.
    ///
    /// # Errors
    /// The fsync's; the log is offline then.
    pub fn flush(&self, now_ms: i64) -> Result<(), LogError> {
        let Some(handle) = self.log.lock().flush_handle() else { return Ok(()) };
        handle.sync()?;
        let mut log = self.log.lock();
        log.flushed(&handle, now_ms);
        // Unless another append waits for its own fsync, everything appended meanwhile may be seen too.
        let waiting = log.unflushed() >= log.config().flush_messages;
        let visible = if waiting { handle.up_to() } else { log.log_end_offset() };
        let before = self.high_watermark.fetch_max(visible, Ordering::AcqRel);
        drop(log);
        if before < visible {
            self.waiters.wake_all();
        }
        Ok(())
    }

    /// Flushes and closes the log, for the stop. Nobody may append afterwards.
    ///
    /// # Errors
    /// The log's, when its last state could not be written.
    pub fn close(&self) -> Result<(), LogError> {
        self.log.lock().close(true)
    }

    /// Marks the partition as gone and wakes whoever waits for it.
    pub fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        self.waiters.wake_all();
    }

    /// The name of the partition's directory: `topic-index`.
    pub fn dir_name(&self) -> String {
        format!("{}-{}", self.topic.name, self.index)
    }

    /// The directory below `log_dir`.
    pub fn dir(&self, log_dir: &Path) -> std::path::PathBuf {
        log_dir.join(self.dir_name())
    }
}
