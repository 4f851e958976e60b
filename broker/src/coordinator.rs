//! Runs the group coordinators on the partitions of `__consumer_offsets`.
//!
//! Each partition has one [`Coordinator`] behind a lock that is held from the decision until its
//! records are in the log, so the order of the log is the order of the decisions. Answers go out when
//! the records are where the topic's configuration wants them. Timers are one task over all partitions.

pub mod guard;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use klamm_group::{Answer, Config, Coordinator, CoordinatorRecord, Step, Ticket, TopicFacts, Topics, partition_for};
use klamm_log::{Damage, LogError, ReadResult};
use klamm_metadata::Image;
use klamm_protocol::batch::{BatchBuilder, RecordBatch};
use klamm_protocol::{ErrorCode, Uuid};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};

use crate::api::error;
use crate::broker::{Broker, Stop};
use crate::replica::partition::{Acks, Append, Flush, Isolation, NotAppended, Origin, Partition};
use crate::replica::repair;
use crate::replica::waiting::Reached;

/// The topic that groups and committed offsets live in.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Topics that only brokers write to.
pub fn is_internal(topic: &str) -> bool {
    klamm_metadata::names::is_internal(topic)
}

/// Records of one step are split into batches of about this size.
const BATCH_BYTES: usize = 1 << 20;

/// How long answers wait for the replicas of the offsets topic: the default of Kafka's `offsets.commit.timeout.ms`.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of the log is read at once while loading.
const LOAD_BYTES: usize = 1 << 20;

/// How often a range is read again because it had to be checked, or has changed meanwhile.
const CHECKS_MAX: usize = 8;

/// Most bytes a batch of the offsets topic may decompress to: only brokers write there.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// The coordinator of one partition of the offsets topic.
#[derive(Debug)]
struct Shard {
    partition: Arc<Partition>,
    /// The leader epoch it was taken over in. Another leader may have written since an earlier one.
    epoch: i32,
    /// `None` until the partition has been read.
    coordinator: Mutex<Option<Coordinator>>,
    /// When its next timer is due, in steady wall milliseconds; `i64::MAX` for never.
    deadline_ms: AtomicI64,
}

/// All group coordinators of this broker.
#[derive(Debug)]
pub struct Groups {
    config: Config,
    /// By partition of the offsets topic, as many as the topic has; `None` where it is not here, or its
    /// log could not be opened. The length decides which partition a group belongs to.
    shards: RwLock<Vec<Option<Arc<Shard>>>>,
    /// The metadata that this broker has come in line with last.
    image: Mutex<Option<Arc<Image>>>,
    waiting: Mutex<HashMap<Ticket, oneshot::Sender<Answer>>>,
    next_ticket: AtomicU64,
    /// What the timer task sleeps until.
    sleeping_until_ms: AtomicI64,
    wake: Notify,
}

/// The topics as the coordinator asks about them.
pub struct Known(pub Arc<Image>);

impl Topics for Known {
    fn topic(&self, name: &str) -> Option<TopicFacts> {
        let topic = self.0.topic(name)?;
        Some(TopicFacts { id: topic.id, partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX) })
    }

    fn name(&self, id: Uuid) -> Option<String> {
        Some(self.0.topic_by_id(id)?.name.to_string())
    }

    fn guarded(&self, group: &str) -> bool {
        guard::is_guarded(&self.0, group)
    }
}

impl Groups {
    /// Coordinators of nothing.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            shards: RwLock::default(),
            image: Mutex::default(),
            waiting: Mutex::default(),
            next_ticket: AtomicU64::new(1),
            sleeping_until_ms: AtomicI64::new(i64::MAX),
            wake: Notify::new(),
        }
    }

    /// The metadata is this now.
    pub fn set_image(&self, image: &Arc<Image>) {
        *self.image.lock() = Some(image.clone());
    }

    /// The offsets topic has this many partitions now. Groups are spread over all of them, whether or not
    /// this broker could open each.
    pub fn set_partitions(&self, count: usize) {
        let mut shards = self.shards.write();
        if shards.len() < count {
            shards.resize(count, None);
        }
    }

    /// The offsets topic was deleted: everything that waits is told so, and nothing is left.
    pub fn release(&self) {
        let shards = std::mem::take(&mut *self.shards.write());
        for shard in shards.into_iter().flatten() {
            let unloaded = shard.coordinator.lock().take().map(|mut coordinator| coordinator.unload());
            self.hand_out(unloaded.unwrap_or_default());
        }
    }

    /// Takes over partitions of the offsets topic that this broker has come to lead. They answer
    /// `CoordinatorLoadInProgress` until they are read, on a blocking thread. Reading waits until all that earlier
    /// leaders may have acknowledged is known to be committed.
    pub fn take_over(&self, broker: &Arc<Broker>, partitions: Vec<Arc<Partition>>) {
        let mut now = Vec::new();
        for partition in partitions {
            let Ok(at) = usize::try_from(partition.index) else { continue };
            let Some((epoch, epoch_start)) = partition.leads_since() else { continue };
            self.unload(partition.index);
            let shard = Arc::new(Shard {
                partition,
                epoch,
                coordinator: Mutex::new(None),
                deadline_ms: AtomicI64::new(i64::MAX),
            });
            {
                let mut shards = self.shards.write();
                if shards.len() <= at {
                    shards.resize(at + 1, None);
                }
                shards[at] = Some(shard.clone());
            }
            match shard.partition.when_committed(epoch_start) {
                Ok(None) => now.push(shard),
                Ok(Some(committed)) => {
                    let broker = broker.clone();
                    tokio::spawn(async move {
                        // Otherwise the leadership is lost, and this shard with it.
                        if let Ok(Ok(())) = committed.await {
                            read(&broker, vec![shard]);
                        }
                    });
                }
                Err(_) => {}
            }
        }
        if !now.is_empty() {
            read(broker, now);
        }
    }

    /// Another broker coordinates this partition's groups now: whoever waits is told so.
    pub fn unload(&self, index: i32) {
        let Ok(at) = usize::try_from(index) else { return };
        let shard = self.shards.write().get_mut(at).and_then(Option::take);
        let Some(shard) = shard else { return };
        shard.deadline_ms.store(i64::MAX, Ordering::SeqCst);
        let unloaded = shard.coordinator.lock().take().map(|mut coordinator| coordinator.unload());
        self.hand_out(unloaded.unwrap_or_default());
    }

    fn loaded(&self, broker: &Arc<Broker>, shard: &Arc<Shard>, mut coordinator: Coordinator) {
        let mut slot = shard.coordinator.lock();
        // Under the lock: whoever unloads it first takes it off the list.
        let current = usize::try_from(shard.partition.index).ok().and_then(|at| self.shards.read().get(at).cloned()?);
        if shard.partition.is_deleted() || current.is_none_or(|current| !Arc::ptr_eq(&current, shard)) {
            return;
        }
        let step = coordinator.loaded(broker.clock.steady_wall_ms());
        let coordinator = slot.insert(coordinator);
        self.carry_out(broker, shard, coordinator, step);
        self.guard_loaded(broker, shard, coordinator);
    }

    /// Runs `look` on the coordinator of `group`, and gives what it saw once that is certain: it is committed, so that no
    /// other coordinator can take it back, and no other one had taken over when this was called, so that nobody was told
    /// of anything newer before. See [`Partition::when_confirmed`].
    ///
    /// # Errors
    /// `NotCoordinator`, also when that takes too long: another broker may be it by then, and all clients ask who it is
    /// when they hear this. `CoordinatorLoadInProgress`.
    pub async fn read<T>(
        &self,
        broker: &Broker,
        group: &str,
        look: impl FnOnce(&mut Coordinator) -> T,
    ) -> Result<T, ErrorCode> {
        let shard = self.serving(broker, group)?;
        let partition = &shard.partition;
        let (seen, committed) = {
            let mut slot = shard.coordinator.lock();
            let coordinator = slot.as_mut().ok_or(ErrorCode::CoordinatorLoadInProgress)?;
            // What a coordinator knows is in the log: its records are appended under this lock.
            (look(coordinator), partition.when_committed(partition.offsets().log_end))
        };
        let not_here = |_| ErrorCode::NotCoordinator;
        let certain = [committed.map_err(not_here)?, partition.when_confirmed().map_err(not_here)?];
        let all = async {
            for each in certain.into_iter().flatten() {
                each.await.map_err(|_| ())?.map_err(|_| ())?;
            }
            Ok::<_, ()>(())
        };
        match tokio::time::timeout(COMMIT_TIMEOUT, all).await {
            Ok(Ok(())) => Ok(seen),
            _ => Err(ErrorCode::NotCoordinator),
        }
    }

    /// Runs `decide` on the coordinator of `group` and waits for the answer to its ticket.
    ///
    /// # Errors
    /// `NotCoordinator`, `CoordinatorNotAvailable` when the records did not reach enough replicas or the broker stops,
    /// `CoordinatorLoadInProgress`.
    pub async fn call(
        &self,
        broker: &Arc<Broker>,
        group: &str,
        decide: impl FnOnce(&mut Coordinator, Ticket, i64) -> Step,
    ) -> Result<Answer, ErrorCode> {
        let shard = self.serving(broker, group)?;
        let (sender, answer) = oneshot::channel();
        {
            let mut slot = shard.coordinator.lock();
            let coordinator = slot.as_mut().ok_or(ErrorCode::CoordinatorLoadInProgress)?;
            let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
            self.waiting.lock().insert(ticket, sender);
            let step = decide(coordinator, ticket, broker.clock.steady_wall_ms());
            self.carry_out(broker, &shard, coordinator, step);
        }
        tokio::select! {
            answer = answer => answer.map_err(|_| ErrorCode::CoordinatorNotAvailable),
            _ = broker.stopping() => Err(ErrorCode::CoordinatorNotAvailable),
        }
    }

    /// Runs `look` on the coordinator of `group`.
    ///
    /// # Errors
    /// `NotCoordinator` or `CoordinatorLoadInProgress`.
    pub fn with<T>(
        &self,
        broker: &Broker,
        group: &str,
        look: impl FnOnce(&mut Coordinator) -> T,
    ) -> Result<T, ErrorCode> {
        let shard = self.serving(broker, group)?;
        let mut slot = shard.coordinator.lock();
        slot.as_mut().map(look).ok_or(ErrorCode::CoordinatorLoadInProgress)
    }

    /// Runs `look` on every coordinator; those that are still loading are left out.
    ///
    /// # Errors
    /// `CoordinatorLoadInProgress` when at least one was left out.
    pub fn each(&self, mut look: impl FnMut(&Coordinator)) -> Result<(), ErrorCode> {
        let mut result = Ok(());
        for shard in self.all() {
            match shard.coordinator.lock().as_ref() {
                Some(coordinator) => look(coordinator),
                None => result = Err(ErrorCode::CoordinatorLoadInProgress),
            }
        }
        result
    }

    /// The partition of the offsets topic that `group` lives in.
    ///
    /// # Errors
    /// `NotCoordinator` when the offsets topic does not exist.
    pub fn partition_of(&self, group: &str) -> Result<i32, ErrorCode> {
        match i32::try_from(self.shards.read().len()) {
            Ok(0) | Err(_) => Err(ErrorCode::NotCoordinator),
            Ok(n) => Ok(partition_for(group, n)),
        }
    }

    /// The shard of a group, unless this broker is cut off while others could coordinate it: it can write nothing down,
    /// and a member that went on with it would not hear of the coordinator that has taken over.
    fn serving(&self, broker: &Broker, group: &str) -> Result<Arc<Shard>, ErrorCode> {
        let shard = self.shard_of(group)?;
        if broker.is_cut_off() && shard.partition.may_be_replaced() {
            return Err(ErrorCode::NotCoordinator);
        }
        Ok(shard)
    }

    fn shard_of(&self, group: &str) -> Result<Arc<Shard>, ErrorCode> {
        let at = usize::try_from(self.partition_of(group)?).map_err(|_| ErrorCode::NotCoordinator)?;
        self.shards.read().get(at).cloned().flatten().ok_or(ErrorCode::NotCoordinator)
    }

    fn all(&self) -> Vec<Arc<Shard>> {
        self.shards.read().iter().flatten().cloned().collect()
    }

    /// Topics were deleted: their committed offsets go.
    pub fn on_topics_deleted(&self, broker: &Arc<Broker>, topics: &[(String, Uuid)]) {
        for shard in self.all() {
            if let Some(coordinator) = shard.coordinator.lock().as_mut() {
                let step = coordinator.on_topics_deleted(topics);
                self.carry_out(broker, &shard, coordinator, step);
            }
        }
    }

    /// Appends the step's records, commits or fails it, and hands the answers out.
    fn carry_out(&self, broker: &Arc<Broker>, shard: &Arc<Shard>, coordinator: &mut Coordinator, step: Step) {
        let (now_ms, wall_ms) = (broker.clock.steady_wall_ms(), broker.clock.settled_ms());
        let Carried { answers, flush, commit, failure } =
            carry_out(&shard.partition, shard.epoch, coordinator, step, now_ms, wall_ms);
        if let Some(error) = failure {
            let partition = &shard.partition;
            tracing::error!(partition = %partition.dir_name(), %error, "coordinator records not appended");
            broker.append_failed(partition, &error);
        }
        let deadline_ms = coordinator.next_deadline().unwrap_or(i64::MAX);
        shard.deadline_ms.store(deadline_ms, Ordering::SeqCst);
        if deadline_ms < self.sleeping_until_ms.load(Ordering::SeqCst) {
            self.wake.notify_one();
        }
        if let Some(commit) = commit {
            if flush != Flush::No {
                broker.replicas.flusher.flush_later(&shard.partition);
            }
            if !answers.is_empty() {
                let broker = broker.clone();
                tokio::spawn(async move {
                    match tokio::time::timeout(COMMIT_TIMEOUT, commit).await {
                        Ok(Ok(Ok(()))) => broker.groups.hand_out(answers),
                        // It may come to be or not: whoever waits asks again, here or elsewhere.
                        _ => broker.groups.withhold(&answers),
                    }
                });
            }
            return;
        }
        match flush {
            Flush::No => {}
            Flush::Later => broker.replicas.flusher.flush_later(&shard.partition),
            Flush::BeforeAnswer => {
                let flushed = broker.replicas.flusher.flush(&shard.partition);
                let broker = broker.clone();
                tokio::spawn(async move {
                    // Without the fsync nothing may be acknowledged; the broker is about to stop, and
                    // whoever waits is told so.
                    if flushed.await.is_ok() {
                        broker.groups.hand_out(answers);
                    }
                });
                return;
            }
        }
        self.hand_out(answers);
    }

    fn hand_out(&self, answers: Vec<(Ticket, Answer)>) {
        if answers.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock();
        for (ticket, answer) in answers {
            if let Some(sender) = waiting.remove(&ticket) {
                // The connection may have gone; the coordinator finds out by its timers.
                let _ = sender.send(answer);
            }
        }
    }

    /// Lets those who wait for these answers know that there are none.
    fn withhold(&self, answers: &[(Ticket, Answer)]) {
        let mut waiting = self.waiting.lock();
        for (ticket, _) in answers {
            waiting.remove(ticket);
        }
    }

    /// Runs the timers until the broker stops.
    pub async fn run_timers(&self, broker: &Arc<Broker>) {
        loop {
            let shards = self.all();
            // While the next deadline is looked for, any that comes up wakes this task again.
            self.sleeping_until_ms.store(i64::MAX, Ordering::SeqCst);
            let due_ms = shards.iter().map(|s| s.deadline_ms.load(Ordering::SeqCst)).min().unwrap_or(i64::MAX);
            self.sleeping_until_ms.store(due_ms, Ordering::SeqCst);
            let wait_ms = due_ms.saturating_sub(broker.clock.steady_wall_ms());
            // An hour at most: a later deadline is simply looked at again.
            let wait = Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)).min(Duration::from_secs(3600));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.wake.notified() => continue,
                _ = broker.stopping() => return,
            }
            let now_ms = broker.clock.steady_wall_ms();
            for shard in shards.iter().filter(|s| s.deadline_ms.load(Ordering::Acquire) <= now_ms) {
                if let Some(coordinator) = shard.coordinator.lock().as_mut() {
                    let step = coordinator.tick(now_ms);
                    self.carry_out(broker, shard, coordinator, step);
                }
            }
        }
    }
}

/// Reads shards on a blocking thread.
fn read(broker: &Arc<Broker>, shards: Vec<Arc<Shard>>) {
    let broker = broker.clone();
    tokio::task::spawn_blocking(move || {
        for shard in shards {
            match load(&shard.partition, broker.groups.config.clone()) {
                Ok(coordinator) => broker.groups.loaded(&broker, &shard, coordinator),
                Err(NotLoaded::Damaged(damage, is_news)) => {
                    if is_news {
                        repair::tell(&broker, &shard.partition, &damage);
                    }
                    // Its groups wait until another replica leads, as it will if one is in sync.
                    tracing::error!(
                        partition = %shard.partition.dir_name(), %damage,
                        "damaged: the groups in this partition are not served from here"
                    );
                }
                Err(NotLoaded::Failed(reason)) if shard.partition.is_led_here() && !shard.partition.is_deleted() => {
                    let what = format!("{} cannot be read: {reason}", shard.partition.dir_name());
                    tracing::error!("{what}");
                    broker.stop(Stop::Storage(what));
                }
                // Truncated or removed under our hands, and somebody else's by now.
                Err(NotLoaded::Failed(_)) => {}
            }
        }
    });
}

/// Why a coordinator has not come to be.
#[derive(Debug)]
pub enum NotLoaded {
    /// Records are not what was written; whether that is news.
    Damaged(Box<Damage>, bool),
    /// Anything else.
    Failed(String),
}

impl std::fmt::Display for NotLoaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged(damage, _) => damage.fmt(f),
            Self::Failed(reason) => reason.fmt(f),
        }
    }
}

impl From<LogError> for NotLoaded {
    fn from(error: LogError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What became of a step.
#[derive(Debug)]
pub struct Carried {
    /// To hand out, when the two below have come to be.
    pub answers: Vec<(Ticket, Answer)>,
    /// Whether and when an fsync is due.
    pub flush: Flush,
    /// Resolves when all that the answers tell is committed; `None` when it is.
    pub commit: Option<Reached>,
    /// Why the log did not take the records.
    pub failure: Option<LogError>,
}

/// Appends a step's records, and commits or fails it. The coordinator was loaded under this leader epoch.
///
/// Also what a step without records answers must wait for the replicas, since it may tell of what an earlier step has
/// written: a member that asks for its assignment a moment after it was written would otherwise be told of a generation
/// that another coordinator may never hear of.
pub fn carry_out(
    partition: &Partition,
    epoch: i32,
    coordinator: &mut Coordinator,
    step: Step,
    now_ms: i64,
    wall_ms: i64,
) -> Carried {
    let settled = || match step.is_empty() {
        true => Ok(None),
        false => partition.when_committed(partition.offsets().log_end),
    };
    let appended = match append_records(partition, epoch, &step.records, wall_ms) {
        Ok(Some(append)) => Ok((append.flush, append.commit)),
        Ok(None) => settled().map(|commit| (Flush::No, commit)).map_err(NotAppended::Refused),
        Err(refused) => Err(refused),
    };
    let (code, failure) = match appended {
        Ok((flush, commit)) => {
            let answers = coordinator.commit(step, now_ms);
            return Carried { answers, flush, commit, failure: None };
        }
        Err(NotAppended::Refused(code)) => (code, None),
        Err(NotAppended::Log(error)) => (error::of_log(&error), Some(error)),
    };
    Carried { answers: coordinator.fail(step, code, now_ms), flush: Flush::No, commit: None, failure }
}

/// Appends records as one or more batches: all of them, or none. `None` when there are none. The coordinator was loaded
/// under this leader epoch.
///
/// # Errors
/// The partition's.
fn append_records(
    partition: &Partition,
    epoch: i32,
    records: &[CoordinatorRecord],
    now_ms: i64,
) -> Result<Option<Append>, NotAppended> {
    if records.is_empty() {
        return Ok(None);
    }
    let unwritable = |error| {
        tracing::error!(%error, "a coordinator record cannot be written");
        NotAppended::Refused(ErrorCode::UnknownServerError)
    };
    let mut batches = Vec::new();
    let mut rest = records.iter().peekable();
    while rest.peek().is_some() {
        let mut builder = BatchBuilder::new(0);
        while let Some(record) = rest.next_if(|_| builder.uncompressed_len() < BATCH_BYTES) {
            builder.push(now_ms, Some(&record.key), record.value.as_deref(), &[]).map_err(unwritable)?;
        }
        batches.push(builder.build().map_err(unwritable)?);
    }
    let bytes = match <[Bytes; 1]>::try_from(batches) {
        Ok([only]) => only,
        Err(many) => many.concat().into(),
    };
    partition.append(&bytes, Origin::Coordinator(epoch), Acks::All, now_ms).map(Some)
}

/// Reads a whole partition into a new coordinator. Blocks. What was found on disk is checked first: a coordinator that
/// took damaged records for what was written would give them away, and write down what follows from them.
///
/// # Errors
/// It cannot be read, and why.
pub fn load(partition: &Partition, config: Config) -> Result<Coordinator, NotLoaded> {
    let mut coordinator = Coordinator::new(config);
    let mut offset = partition.offsets().log_start;
    loop {
        let read = read_checked(partition, offset)?;
        if read.is_empty() {
            return Ok(coordinator);
        }
        let failed = |e: &dyn std::fmt::Display| NotLoaded::Failed(e.to_string());
        for batch in RecordBatch::all(read.bytes().map_err(|e| failed(&e))?) {
            let batch = batch.map_err(|e| failed(&e))?;
            if batch.header().is_control() {
                continue;
            }
            for record in batch.records(DECOMPRESSED_BYTES_MAX) {
                let record = record.map_err(|e| failed(&e))?;
                let Some(key) = &record.key else { continue };
                if let Err(error) = coordinator.replay(key, record.value.as_ref()) {
                    tracing::warn!(partition = %partition.dir_name(), offset = record.offset, %error, "record skipped");
                }
            }
        }
        offset = read.next_offset;
    }
}

/// Reads what this process knows to be sound, or has just checked.
fn read_checked(partition: &Partition, offset: i64) -> Result<ReadResult, NotLoaded> {
    for _ in 0..CHECKS_MAX {
        let read = match partition.read(offset, LOAD_BYTES, Isolation::ReadUncommitted, true) {
            Err(LogError::Corrupt(damage)) => {
                let is_news = partition.with_log(|log| log.note_damage(&damage));
                return Err(NotLoaded::Damaged(damage, is_news));
            }
            read => read?,
        };
        let Some(unchecked) = read.unchecked else { return Ok(read) };
        let checked = unchecked.check()?;
        if let Some(damage) = partition.with_log(|log| log.checked(&checked)) {
            return Err(NotLoaded::Damaged(Box::new(damage), true));
        }
    }
    Err(NotLoaded::Failed("it changes all the time".into()))
}

#[cfg(test)]
#[path = "coordinator_test.rs"]
mod tests;
