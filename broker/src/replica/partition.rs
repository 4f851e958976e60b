//! One partition on this broker: its log and its role behind one lock, and the offsets others look at.
//!
//! The lock is held for the append or the lookup alone, never across an await or an fsync. Offsets
//! that readers poll are atomics, published after the log has changed. With one replica the high
//! watermark is the log end, except while an append that asked for an fsync waits for it. What has to
//! do with other replicas is in `roles.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use klamm_log::{Appended, Log, LogError, ReadResult};
use klamm_protocol::{ErrorCode, Uuid};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::leader::{Leader, LiveBrokers};
use super::refusals::Refusals;
use super::throttle::Throttles;
use super::waiting::{FetchWaiters, OffsetWaiters, Reached};
use crate::config::TopicConfig;
use crate::metrics::TopicMetrics;
use crate::planted::{Bug, planted};

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

/// What all partitions of a broker share.
#[derive(Debug)]
pub struct Around {
    /// This broker.
    pub node_id: i32,
    /// `replica.lag.time.max.ms`.
    pub lag_max_ms: i64,
    /// Brokers that may be in an ISR.
    pub live: RwLock<Arc<LiveBrokers>>,
    /// Partitions with a proposal for the controller.
    pub proposals: Mutex<BTreeSet<(Uuid, i32)>>,
    /// Tells of new proposals.
    pub proposed: Notify,
    /// Epoch of this broker's registration; −1 before it.
    pub broker_epoch: AtomicI64,
    /// When somebody fetched as a follower last.
    pub fetched_ms: AtomicI64,
    /// Moments, in the order in which they were asked about; see [`Partition::when_confirmed`]. Never 0.
    pub moment: AtomicU64,
    /// Bytes sent to followers.
    pub replication_bytes_out: AtomicU64,
    /// Bytes taken over from leaders.
    pub replication_bytes_in: AtomicU64,
    /// How fast replicas that are out of sync are filled.
    pub throttles: Throttles,
    /// ISRs that became smaller, and larger, since the start.
    pub isr_shrinks: AtomicU64,
    /// See `isr_shrinks`.
    pub isr_expands: AtomicU64,
    /// Changes of ISRs that the controller refused.
    pub isr_failed_updates: AtomicU64,
}

impl Around {
    /// For the partitions of this broker.
    pub fn new(node_id: i32, lag_max_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            node_id,
            lag_max_ms,
            live: RwLock::default(),
            proposals: Mutex::default(),
            proposed: Notify::new(),
            broker_epoch: AtomicI64::new(-1),
            fetched_ms: AtomicI64::new(0),
            moment: AtomicU64::new(1),
            replication_bytes_out: AtomicU64::default(),
            replication_bytes_in: AtomicU64::default(),
            throttles: Throttles::default(),
            isr_shrinks: AtomicU64::default(),
            isr_expands: AtomicU64::default(),
            isr_failed_updates: AtomicU64::default(),
        })
    }
}

/// A partition this broker has a replica of.
#[derive(Debug)]
pub struct Partition {
    /// Its topic.
    pub topic: Arc<Topic>,
    /// Its number within the topic.
    pub index: i32,
    pub(super) around: Arc<Around>,
    pub(super) state: Mutex<State>,
    pub(super) leader_epoch: AtomicI32,
    /// Who leads, negative for nobody.
    pub(super) leader: AtomicI32,
    pub(super) log_start: AtomicI64,
    pub(super) high_watermark: AtomicI64,
    pub(super) log_end: AtomicI64,
    pub(super) size_bytes: AtomicI64,
    /// As follower: records between the log's end and the leader's high watermark, at the last answer.
    pub(super) behind: AtomicI64,
    /// As follower: when it last had all that the leader had committed.
    pub(super) level_ms: AtomicI64,
    /// Whether the controller counts this replica as in sync.
    pub(super) in_sync: AtomicBool,
    /// Bytes of what a repair keeps until it is here again.
    pub(super) kept_bytes: AtomicU64,
    /// As follower under repair: where neither the leader nor what is kept has sound records; negative for nowhere.
    pub(super) bereft_at: AtomicI64,
    /// The log was cut for a repair, and recovery points on disk may be beyond its end.
    pub(super) cut_unmarked: AtomicBool,
    deleted: AtomicBool,
    /// Fetches that wait for the high watermark.
    pub(super) waiters: FetchWaiters,
    /// Fetches of followers, which wait for the log's end.
    pub(super) follower_waiters: FetchWaiters,
    /// Writes that wait for the high watermark.
    pub(super) commits: OffsetWaiters,
    /// Deletions that wait for the log starts of followers.
    pub(super) deletions: OffsetWaiters,
    /// Those who wait until it is known that this replica led at some moment.
    pub(super) confirmations: OffsetWaiters,
    /// The latest of those moments.
    pub(super) asked_at: AtomicU64,
}

/// What changes under the lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) log: Log,
    pub(super) role: Role,
    /// As leader: everything below counts as held here. Lags behind the log's end while an fsync is waited for.
    pub(super) counted: i64,
    /// As leader with followers: ends and bytes of what was appended and is not committed yet.
    pub(super) uncommitted: VecDeque<(i64, i64)>,
    /// As leader: from where followers were sent records last.
    pub(super) told: Told,
    /// As leader: to whom a first batch was refused.
    pub(super) refusals: Refusals,
}

/// From which offset each follower was sent records last.
#[derive(Debug, Default)]
pub(super) struct Told(Vec<(i32, i64)>);

impl Told {
    /// Whether records from this offset were the last that this follower was sent.
    pub(super) fn was_sent(&self, follower: i32, offset: i64) -> bool {
        self.0.contains(&(follower, offset))
    }

    /// A follower is sent records from this offset.
    pub(super) fn sent(&mut self, follower: i32, offset: i64) {
        self.0.retain(|(id, _)| *id != follower);
        self.0.push((follower, offset));
    }
}

/// What this replica is.
#[derive(Debug)]
pub(super) enum Role {
    /// Nothing yet, or the partition has no leader.
    Idle,
    /// It takes writes. Boxed, since most replicas are followers.
    Leader(Box<Leader>),
    /// It fetches from the leader.
    Follower,
}

/// What an append leaves for its caller to do.
#[derive(Debug)]
pub struct Append {
    /// Offsets, and whether the batch was there already.
    pub appended: Appended,
    /// Whether and when an fsync is due.
    pub flush: Flush,
    /// For [`Acks::All`], unless it is committed already: resolves when it is.
    pub commit: Option<Reached>,
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum NotAppended {
    /// The log's reason.
    #[error(transparent)]
    Log(#[from] LogError),
    /// This replica must not, or may not now.
    #[error("{}", .0.message())]
    Refused(ErrorCode),
}

/// Whom the writer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// The leader at most.
    Leader,
    /// All replicas in sync, of which there must be `min.insync.replicas`.
    All,
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
    /// A coordinator of this broker, loaded under this leader epoch: its control batches are welcome.
    Coordinator(i32),
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
    /// Wraps an opened log that was known to be committed up to `high_watermark`. It has no role yet.
    pub fn new(topic: Arc<Topic>, index: i32, log: Log, high_watermark: i64, around: Arc<Around>) -> Self {
        let (start, end, size) = (log.log_start_offset(), log.log_end_offset(), log.size());
        let kept = log.kept_bytes();
        Self {
            topic,
            index,
            around,
            leader_epoch: AtomicI32::new(-1),
            leader: AtomicI32::new(-1),
            log_start: AtomicI64::new(start),
            high_watermark: AtomicI64::new(high_watermark.clamp(start, end)),
            log_end: AtomicI64::new(end),
            size_bytes: AtomicI64::new(i64::try_from(size).unwrap_or(i64::MAX)),
            behind: AtomicI64::new(0),
            level_ms: AtomicI64::new(i64::MIN),
            in_sync: AtomicBool::new(false),
            kept_bytes: AtomicU64::new(kept),
            bereft_at: AtomicI64::new(-1),
            cut_unmarked: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            state: Mutex::new(State {
                log,
                role: Role::Idle,
                counted: end,
                uncommitted: VecDeque::new(),
                told: Told::default(),
                refusals: Refusals::default(),
            }),
            waiters: FetchWaiters::default(),
            follower_waiters: FetchWaiters::default(),
            commits: OffsetWaiters::default(),
            deletions: OffsetWaiters::default(),
            confirmations: OffsetWaiters::default(),
            asked_at: AtomicU64::new(0),
        }
    }

    /// The leader epoch in force.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch.load(Ordering::Acquire)
    }

    /// Who leads; negative when nobody does.
    pub fn leader(&self) -> i32 {
        self.leader.load(Ordering::Acquire)
    }

    /// Whether this replica is throttled as a leader's.
    pub fn is_throttled_leader(&self) -> bool {
        self.around.throttles.leader.is_set()
            && self.topic.config().leader_throttled.contains(self.index, self.around.node_id)
    }

    /// Whether this replica is throttled as a follower's.
    pub fn is_throttled_follower(&self) -> bool {
        self.around.throttles.follower.is_set()
            && self.topic.config().follower_throttled.contains(self.index, self.around.node_id)
    }

    /// Whether this replica, as a follower, has to wait before it fetches more. Not for long after it has had everything: its
    /// leader may wait for it since, until it is in sync.
    pub fn is_held_back(&self, now_ms: i64) -> bool {
        self.is_throttled_follower()
            && !self.in_sync.load(Ordering::Relaxed)
            && now_ms.saturating_sub(self.level_ms.load(Ordering::Relaxed)) > self.around.lag_max_ms
            && self.around.throttles.follower.is_exceeded(now_ms)
    }

    /// As a follower it has taken over an answer: notes if nothing is missing any more of what the leader had committed.
    pub fn note_level(&self, now_ms: i64) {
        if self.behind() == 0 {
            self.level_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Whether this broker leads it.
    pub fn is_led_here(&self) -> bool {
        self.leader() == self.around.node_id
    }

    /// Whether this broker follows another one.
    pub fn follows(&self) -> bool {
        self.leader() >= 0 && !self.is_led_here()
    }

    /// Whether this replica follows and counts as in sync: nothing is committed without it.
    pub fn is_waited_for(&self) -> bool {
        self.follows() && self.in_sync.load(Ordering::Relaxed)
    }

    /// Whether this broker leads it and could leave that to others without a loss: enough of them are in sync.
    pub fn is_better_led_elsewhere(&self) -> bool {
        matches!(&self.state.lock().role, Role::Leader(leader) if leader.is_dispensable())
    }

    /// What it shares with the broker's other partitions.
    pub fn around(&self) -> &Around {
        &self.around
    }

    /// Everything below this offset is on disk.
    pub fn recovery_point(&self) -> i64 {
        self.state.lock().log.recovery_point()
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

    /// As [`check_leader_epoch`](Self::check_leader_epoch), for what only the leader may answer.
    ///
    /// # Errors
    /// In addition `NotLeaderOrFollower`.
    pub fn check_leads(&self, current: i32) -> Result<(), ErrorCode> {
        self.check_leader_epoch(current)?;
        if self.is_led_here() { Ok(()) } else { Err(ErrorCode::NotLeaderOrFollower) }
    }

    /// Whether the partition was taken away; whoever still holds it must look it up again.
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

    /// As follower: records between the log's end and the leader's high watermark, at the last answer.
    pub fn behind(&self) -> i64 {
        self.behind.load(Ordering::Relaxed)
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> i64 {
        self.size_bytes.load(Ordering::Relaxed)
    }

    /// Those who wait for committed data of this partition.
    pub fn waiters(&self) -> &FetchWaiters {
        &self.waiters
    }

    /// Followers that wait for data of this partition.
    pub fn follower_waiters(&self) -> &FetchWaiters {
        &self.follower_waiters
    }

    /// Appends validated batches and assigns their offsets. Readers see them once they are committed:
    /// with one replica at once, unless the topic's `flush.messages` asks for an fsync first.
    ///
    /// # Errors
    /// The log's error, or this replica may not take it; nothing was appended then.
    pub fn append(&self, records: &Bytes, origin: Origin, acks: Acks, now_ms: i64) -> Result<Append, NotAppended> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Role::Leader(leader) = &mut state.role else {
            return Err(NotAppended::Refused(ErrorCode::NotLeaderOrFollower));
        };
        if acks == Acks::All && !leader.has_min_isr() {
            if origin == Origin::Client {
                state.refusals.refused(records, state.log.producers());
            }
            return Err(NotAppended::Refused(ErrorCode::NotEnoughReplicas));
        }
        let epoch = leader.epoch();
        let appended = match origin {
            Origin::Client => {
                if state.refusals.holds_back(records) {
                    return Err(NotAppended::Refused(ErrorCode::OutOfOrderSequenceNumber));
                }
                let appended = state.log.append_as_leader(records, epoch, now_ms);
                match &appended {
                    Err(LogError::DiskFull { .. }) => state.refusals.refused(records, state.log.producers()),
                    _ => state.refusals.taken(records),
                }
                appended?
            }
            Origin::Coordinator(loaded) if loaded == epoch => {
                state.log.append_as_coordinator(records, epoch, now_ms)?
            }
            Origin::Coordinator(_) => return Err(NotAppended::Refused(ErrorCode::NotLeaderOrFollower)),
        };
        if appended.duplicate {
            // The original may still wait for its fsync or its followers: this answer must wait with it.
            let flush = if state.counted > appended.last_offset { Flush::No } else { Flush::BeforeAnswer };
            return Ok(Append { appended, flush, commit: self.commit(leader, acks, &appended) });
        }
        let before = self.log_end.load(Ordering::Acquire);
        let end = state.log.log_end_offset();
        let flush = if state.log.unflushed() >= state.log.config().flush_messages {
            Flush::BeforeAnswer
        } else if state.log.flush_due(now_ms) {
            Flush::Later
        } else {
            Flush::No
        };
        let bytes = i64::try_from(records.len()).unwrap_or(i64::MAX);
        // An append behind one that waits for its fsync must not be seen before it.
        if flush != Flush::BeforeAnswer && state.counted >= before {
            state.counted = end;
        }
        let alone = leader.is_alone();
        let reached = if alone {
            leader.on_append(state.counted, &LiveBrokers::new())
        } else {
            note_uncommitted(&mut state.uncommitted, end, bytes);
            leader.on_append(state.counted, &self.around.live.read())
        };
        let commit = self.commit(leader, acks, &appended);
        self.log_end.store(end, Ordering::Release);
        self.log_start.store(appended.log_start_offset, Ordering::Release);
        let visible = self.publish_high_watermark(state, reached, bytes);
        drop(guard);
        self.size_bytes.fetch_add(bytes, Ordering::Relaxed);
        if !alone {
            self.follower_waiters.offer(bytes);
        }
        self.tell(visible);
        Ok(Append { appended, flush, commit })
    }

    /// What a writer has to wait for, if it wants to. Under the lock, so that neither the high watermark nor the
    /// leadership can pass it by. A single replica's only wait is that for the fsync.
    fn commit(&self, leader: &Leader, acks: Acks, appended: &Appended) -> Option<Reached> {
        let needed = appended.last_offset + 1;
        let waits = acks == Acks::All && !leader.is_alone() && leader.high_watermark() < needed;
        waits.then(|| self.commits.wait_for(needed))
    }

    /// Publishes the high watermark that the leader has come to. Returns it, with the bytes that readers can now see
    /// in addition, for [`tell`](Self::tell) after the lock. `appended_bytes` are those of this very append, or [`MANY`].
    pub(super) fn publish_high_watermark(&self, state: &mut State, reached: i64, appended_bytes: i64) -> Visible {
        let before = self.high_watermark.fetch_max(reached, Ordering::AcqRel);
        if reached <= before {
            return Visible { high_watermark: reached, bytes: 0 };
        }
        let mut bytes = 0;
        while let Some((_, size)) = state.uncommitted.pop_front_if(|(end, _)| *end <= reached) {
            bytes += size;
        }
        if bytes == 0 {
            bytes = appended_bytes;
        }
        Visible { high_watermark: reached, bytes }
    }

    /// Wakes those whom a new high watermark concerns.
    pub(super) fn tell(&self, visible: Visible) {
        if visible.bytes > 0 {
            self.waiters.offer(visible.bytes);
            self.commits.reached(visible.high_watermark);
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
        let mut state = self.state.lock();
        let offsets = self.offsets();
        let bound = match isolation {
            Isolation::ReadUncommitted => offsets.high_watermark,
            Isolation::ReadCommitted => offsets.last_stable,
        };
        state.log.read(offset, max_bytes, bound, min_one)
    }

    /// Runs `look` on the log under its lock: for lookups and the rarer changes, which must not move the
    /// log's end. The offsets are published again afterwards.
    pub fn with_log<T>(&self, look: impl FnOnce(&mut Log) -> T) -> T {
        let mut state = self.state.lock();
        let result = look(&mut state.log);
        self.publish_log(&mut state);
        result
    }

    /// Publishes start, end and size of the log after a change.
    pub(super) fn publish_log(&self, state: &mut State) {
        let (start, end) = (state.log.log_start_offset(), state.log.log_end_offset());
        state.counted = state.counted.min(end);
        self.log_end.store(end, Ordering::Release);
        self.log_start.store(start, Ordering::Release);
        self.size_bytes.store(i64::try_from(state.log.size()).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.kept_bytes.store(state.log.kept_bytes(), Ordering::Relaxed);
    }

    /// Syncs everything appended so far, on the calling thread, and lets it count.
    ///
    /// # Errors
    /// The fsync's; the log is offline then.
    pub fn flush(&self, now_ms: i64) -> Result<(), LogError> {
        let Some(handle) = self.state.lock().log.flush_handle() else { return Ok(()) };
        handle.sync()?;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.log.flushed(&handle, now_ms);
        let Role::Leader(leader) = &mut state.role else { return Ok(()) };
        // Unless another append waits for its own fsync, everything appended meanwhile counts too.
        let waiting = state.log.unflushed() >= state.log.config().flush_messages;
        let end = state.log.log_end_offset();
        let safe = if waiting { handle.up_to().min(end) } else { end };
        state.counted = state.counted.max(safe);
        let reached = leader.on_append(state.counted, &self.around.live.read());
        let visible = self.publish_high_watermark(state, reached, MANY);
        drop(guard);
        self.tell(visible);
        Ok(())
    }

    /// Flushes and closes the log, for the stop. Nobody may append afterwards.
    ///
    /// # Errors
    /// The log's, when its last state could not be written.
    pub fn close(&self) -> Result<(), LogError> {
        let mut state = self.state.lock();
        // Neither a writer nor the fetching from a leader gets past this.
        state.role = Role::Idle;
        state.log.close(!planted(Bug::CleanStopNotSynced))
    }

    /// Marks the partition as gone and wakes whoever waits for it.
    pub fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        self.wake_all(ErrorCode::UnknownTopicOrPartition);
    }

    /// Wakes all who wait; what they waited for will not come.
    pub(super) fn wake_all(&self, code: ErrorCode) {
        self.waiters.wake_all();
        self.follower_waiters.wake_all();
        self.commits.fail(code);
        self.deletions.fail(code);
        self.confirmations.fail(code);
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

/// A high watermark just published.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub(super) struct Visible {
    pub(super) high_watermark: i64,
    /// Bytes that readers can see in addition; 0 when it did not move.
    pub(super) bytes: i64,
}

/// Stands for bytes that nobody counted: enough to wake any fetch.
pub(super) const MANY: i64 = 1 << 40;

/// Appends whose bytes are remembered until they are committed; older ones are merged beyond that.
const UNCOMMITTED_MAX: usize = 256;

fn note_uncommitted(uncommitted: &mut VecDeque<(i64, i64)>, end: i64, bytes: i64) {
    let full = uncommitted.len() >= UNCOMMITTED_MAX;
    match uncommitted.back_mut() {
        Some(last) if full => *last = (end, last.1 + bytes),
        _ => uncommitted.push_back((end, bytes)),
    }
}
