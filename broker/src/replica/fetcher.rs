//! Fetching from leaders: for each broker that leads what is followed here, `num.replica.fetchers` tasks with one
//! connection and one fetch session each.
//!
//! A task asks for all its partitions at once, appends what comes on its worker, and asks again; what it asks for
//! tells the leader what it has. With `flush.messages` reached the records are on disk before they are claimed. A
//! partition that fails is left out for a while and holds up no other. When a partition comes to a task whose fetch is
//! parked at the leader, the task begins a new connection rather than wait: after an election every millisecond counts.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use klamm_client::Connection;
use klamm_log::LogError;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use klamm_protocol::messages::fetch_response::PartitionData;
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use klamm_protocol::{ErrorCode, Uuid};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::flush::Flusher;
use super::follower::{Fetched, Outcome, Position, Unusable};
use super::partition::{Around, Partition};
use super::refill::Refilled;
use crate::clock::Clock;
use crate::config::ReplicationSettings;

/// A future in a box, for the two traits below.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The way to other brokers.
pub trait Peers: Send + Sync + 'static {
    /// Connects to a broker's inter-broker listener. The error is for the log.
    fn connect(&self, broker: i32) -> Boxed<'_, Result<Box<dyn Link>, String>>;
}

/// A connection to a leader.
pub trait Link: Send + Sync + 'static {
    /// Sends a fetch and waits for its answer. Dropping the future may leave the connection unusable.
    fn fetch<'a>(&'a self, request: &'a FetchRequest, limit: Duration) -> Boxed<'a, Result<FetchResponse, String>>;
}

impl Link for Connection {
    fn fetch<'a>(&'a self, request: &'a FetchRequest, limit: Duration) -> Boxed<'a, Result<FetchResponse, String>> {
        Box::pin(async move { self.call_within(request, limit).await.map_err(|e| e.to_string()) })
    }
}

/// Hears of a replica without room.
pub type Full = dyn Fn(&Partition, &LogError) + Send + Sync;

/// What the tasks need of the broker.
pub struct Surroundings {
    /// The way to leaders.
    pub peers: Arc<dyn Peers>,
    /// Time.
    pub clock: Clock,
    /// fsyncs of followers.
    pub flusher: Arc<Flusher>,
    /// Told when a log fails.
    pub offline: Box<dyn Fn(&LogError) + Send + Sync>,
    /// Told when there is no room for records that the leader waits for.
    pub full: Box<Full>,
    /// Told when logs were cut: the recovery points that stand on disk may be beyond the cut.
    pub truncated: Box<dyn Fn() + Send + Sync>,
    /// Where the tasks run.
    pub runtime: tokio::runtime::Handle,
    /// How long an answer may take at first: [`PATIENCE`].
    pub patience: Duration,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

/// A topic's id and a partition's number.
type Key = (Uuid, i32);

/// The partitions that one task fetches.
#[derive(Debug)]
struct Lane {
    leader: i32,
    partitions: Mutex<HashMap<Key, Arc<Partition>>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Lanes {
    lanes: HashMap<(i32, usize), Arc<Lane>>,
    of: HashMap<Key, (i32, usize)>,
}

/// All fetching of this broker.
#[derive(Debug)]
pub struct Fetchers {
    settings: ReplicationSettings,
    around: Arc<Around>,
    lanes: Mutex<Lanes>,
    surroundings: OnceLock<Surroundings>,
    failed: AtomicI64,
}

/// How long a partition that failed once is left out.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Pause after a new connection before another one may replace it.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Pause of a task whose leader knows another registration of this broker.
const STALE_PAUSE: Duration = Duration::from_millis(100);

/// How long an answer may take at first, beyond the wait that was asked for. A network that lost packets for a while
/// leaves connections behind on which TCP tries again ever more rarely: a new one is ready long before. Every answer
/// that did not come doubles it, up to `replica.socket.timeout.ms`, so that a slow leader is waited for.
pub const PATIENCE: Duration = Duration::from_secs(2);

impl Fetchers {
    /// Collects what is to be fetched; nothing is until [`start`](Self::start).
    pub fn new(settings: ReplicationSettings, around: Arc<Around>) -> Arc<Self> {
        Arc::new(Self {
            settings,
            around,
            lanes: Mutex::default(),
            surroundings: OnceLock::new(),
            failed: AtomicI64::new(0),
        })
    }

    /// Begins to fetch: the broker is registered.
    pub fn start(self: &Arc<Self>, surroundings: Surroundings) {
        let lanes = self.lanes.lock();
        if self.surroundings.set(surroundings).is_ok() {
            for (at, lane) in &lanes.lanes {
                self.spawn(*at, lane.clone());
            }
        }
    }

    fn spawn(self: &Arc<Self>, at: (i32, usize), lane: Arc<Lane>) {
        let Some(surroundings) = self.surroundings.get() else { return };
        let fetchers = self.clone();
        surroundings.runtime.spawn(async move {
            if let Some(surroundings) = fetchers.surroundings.get() {
                Task::new(&fetchers, surroundings, at, lane).run().await;
            }
        });
    }

    /// `partition` is to be fetched from `leader` from now on, or not at all.
    pub fn assign(self: &Arc<Self>, partition: &Arc<Partition>, leader: Option<i32>) {
        let key = (partition.topic.id, partition.index);
        let mut lanes = self.lanes.lock();
        let lanes = &mut *lanes;
        if let Some(lane) = lanes.of.remove(&key).and_then(|at| lanes.lanes.get(&at)) {
            let mut partitions = lane.partitions.lock();
            partitions.remove(&key);
            if partitions.is_empty() {
                lane.changed.notify_one();
            }
        }
        let Some(leader) = leader else { return };
        let spread = key.0.0.iter().fold(key.1.unsigned_abs() as usize, |sum, byte| sum + usize::from(*byte));
        let at = (leader, spread % self.settings.fetchers);
        lanes.of.insert(key, at);
        let mut fresh = false;
        let lane = lanes.lanes.entry(at).or_insert_with(|| {
            fresh = true;
            Arc::new(Lane { leader, partitions: Mutex::default(), changed: Notify::new() })
        });
        lane.partitions.lock().insert(key, partition.clone());
        lane.changed.notify_one();
        if fresh {
            let lane = lane.clone();
            self.spawn(at, lane);
        }
    }

    /// Takes a lane that has become empty off the list; its task ends.
    fn retire(&self, at: (i32, usize), lane: &Arc<Lane>) -> bool {
        let mut lanes = self.lanes.lock();
        let empty = lane.partitions.lock().is_empty();
        if empty {
            lanes.lanes.remove(&at);
        }
        empty
    }

    /// Largest distance of a follower here to its leader's high watermark, in records.
    pub fn lag_max(&self) -> i64 {
        let lanes: Vec<_> = self.lanes.lock().lanes.values().cloned().collect();
        let behind = |lane: &Arc<Lane>| lane.partitions.lock().values().map(|p| p.behind()).max().unwrap_or(0);
        lanes.iter().map(behind).max().unwrap_or(0)
    }

    /// Partitions that are left out for a while because they failed.
    pub fn failed(&self) -> i64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// What the leader was told last of a partition.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sent {
    epoch: i32,
    position: Position,
}

/// One task.
struct Task<'f> {
    fetchers: &'f Fetchers,
    around: &'f Surroundings,
    at: (i32, usize),
    lane: Arc<Lane>,
    link: Option<Box<dyn Link>>,
    connected_at: Instant,
    /// See [`PATIENCE`].
    patience: Duration,
    session_id: i32,
    session_epoch: i32,
    sent: HashMap<Key, Sent>,
    /// Until when a partition is left out, and the leader epoch in which it failed.
    paused: HashMap<Key, (Instant, i32)>,
    /// How often a partition has failed in a row.
    failures: HashMap<Key, u32>,
    /// When those that the last look left out are due, the first of them.
    due: Option<Instant>,
}

impl<'f> Task<'f> {
    fn new(fetchers: &'f Fetchers, around: &'f Surroundings, at: (i32, usize), lane: Arc<Lane>) -> Self {
        Self {
            fetchers,
            around,
            at,
            lane,
            link: None,
            connected_at: Instant::now(),
            patience: around.patience,
            session_id: 0,
            session_epoch: 0,
            sent: HashMap::new(),
            paused: HashMap::new(),
            failures: HashMap::new(),
            due: None,
        }
    }

    /// Leaves a partition out for a while: a moment at first, since a leader may just not have heard of its election
    /// yet, and longer each time.
    fn pause(&mut self, key: Key, epoch: i32) {
        let before = self.failures.get(&key).copied().unwrap_or(0);
        self.failures.insert(key, before.saturating_add(1));
        let pause = FIRST_PAUSE.saturating_mul(1 << before.min(16)).min(self.backoff());
        self.paused.insert(key, (Instant::now() + pause, epoch));
    }

    fn backoff(&self) -> Duration {
        Duration::from_millis(self.fetchers.settings.fetch_backoff_ms)
    }

    async fn run(mut self) {
        loop {
            // What was told so far is seen below.
            tokio::select! {
                biased;
                () = self.lane.changed.notified() => {}
                () = std::future::ready(()) => {}
            }
            let partitions: Vec<_> = self.lane.partitions.lock().values().cloned().collect();
            if partitions.is_empty() {
                if self.fetchers.retire(self.at, &self.lane) {
                    self.set_failed(0);
                    return;
                }
                continue;
            }
            let ready = self.ready(partitions);
            if ready.is_empty() {
                let next = self.due.unwrap_or_else(|| Instant::now() + self.backoff());
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.lane.changed.notified() => {}
                }
                continue;
            }
            if self.link.is_none() && !self.connect().await {
                // A broker that is gone stays gone for a moment. News may send its partitions elsewhere.
                let _ = timeout(self.backoff().min(Duration::from_millis(250)), self.lane.changed.notified()).await;
                continue;
            }
            self.round(&ready).await;
        }
    }

    /// Those partitions that are not paused, with where they are.
    fn ready(&mut self, partitions: Vec<Arc<Partition>>) -> HashMap<Key, (Arc<Partition>, Sent)> {
        let now = Instant::now();
        let now_ms = self.around.clock.now_ms();
        let mut ready = HashMap::new();
        let mut paused = HashMap::new();
        let mut held_back = false;
        for partition in partitions {
            let key = (partition.topic.id, partition.index);
            let Some((epoch, position)) = partition.position(self.lane.leader) else {
                // It has another leader by now, and is about to leave this lane.
                paused.insert(key, (now + RECONNECT_PAUSE, partition.leader_epoch()));
                continue;
            };
            match self.paused.remove(&key) {
                Some((until, failed_in)) if until > now && failed_in == epoch => {
                    paused.insert(key, (until, failed_in));
                }
                _ if partition.is_held_back(now_ms) => held_back = true,
                _ => {
                    ready.insert(key, (partition, Sent { epoch, position }));
                }
            }
        }
        self.set_failed(paused.len());
        // The rate may be changed before a debt of the present one is paid off.
        let throttled = held_back.then(|| now + self.fetchers.around.throttles.follower.wait().min(self.backoff()));
        self.due = paused.values().map(|(until, _)| *until).chain(throttled).min();
        self.paused = paused;
        ready
    }

    fn set_failed(&self, failed: usize) {
        self.fetchers.failed.store(i64::try_from(failed).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    async fn connect(&mut self) -> bool {
        self.reset_session();
        let limit = Duration::from_millis(self.fetchers.settings.socket_timeout_ms);
        let connected = tokio::select! {
            connected = timeout(limit, self.around.peers.connect(self.lane.leader)) => connected,
            () = self.lane.changed.notified() => return false,
        };
        match connected {
            Ok(Ok(link)) => {
                self.link = Some(link);
                self.connected_at = Instant::now();
                true
            }
            Ok(Err(why)) => {
                tracing::debug!(leader = self.lane.leader, why, "leader cannot be reached");
                false
            }
            Err(_) => false,
        }
    }

    fn reset_session(&mut self) {
        self.session_id = 0;
        self.session_epoch = 0;
        self.sent.clear();
    }

    /// One fetch and what follows from its answer.
    async fn round(&mut self, ready: &HashMap<Key, (Arc<Partition>, Sent)>) {
        if ready.values().filter(|(partition, _)| partition.take_cut()).count() > 0 {
            (self.around.truncated)();
        }
        let settings = &self.fetchers.settings;
        // Those that are left out wait no longer than they must, however little happens to the others.
        let left = self.due.map_or(i32::MAX, |due| {
            let left = due.saturating_duration_since(Instant::now()).as_millis();
            i32::try_from(left).unwrap_or(i32::MAX).saturating_add(1)
        });
        let parked_ms = settings.fetch_wait_max_ms.min(left);
        let parked = Duration::from_millis(u64::try_from(parked_ms).unwrap_or(0));
        let request = self.request(ready, parked_ms);
        let longest = Duration::from_millis(settings.socket_timeout_ms);
        let limit = self.patience.min(longest) + parked;
        let Some(link) = self.link.take() else { return };
        let may_replace = self.connected_at + RECONNECT_PAUSE;
        let interrupted = async {
            self.lane.changed.notified().await;
            sleep_until(may_replace).await;
        };
        let asked = Instant::now();
        let answer = tokio::select! {
            biased;
            answer = timeout(limit, link.fetch(&request, limit)) => answer.unwrap_or_else(|_| Err("no answer".into())),
            () = interrupted => return,
        };
        self.patience = match &answer {
            Ok(_) => self.around.patience,
            Err(_) if asked.elapsed() >= limit => (self.patience * 2).min(longest),
            Err(_) => self.patience,
        };
        match answer {
            Err(why) => {
                tracing::debug!(leader = self.lane.leader, why, "fetch failed");
                let _ = timeout(self.backoff().min(Duration::from_millis(100)), self.lane.changed.notified()).await;
            }
            Ok(response) => {
                self.link = Some(link);
                self.take(ready, response).await;
            }
        }
    }

    /// The next fetch: everything at first, then what is different from what was sent last.
    fn request(&mut self, ready: &HashMap<Key, (Arc<Partition>, Sent)>, max_wait_ms: i32) -> FetchRequest {
        let settings = &self.fetchers.settings;
        let mut topics: HashMap<Uuid, Vec<FetchPartition>> = HashMap::new();
        for (key, (_, now)) in ready {
            if self.session_epoch > 0 && self.sent.get(key) == Some(now) {
                continue;
            }
            topics.entry(key.0).or_default().push(FetchPartition {
                partition: key.1,
                current_leader_epoch: now.epoch,
                fetch_offset: now.position.fetch_offset,
                last_fetched_epoch: now.position.last_fetched_epoch,
                log_start_offset: now.position.log_start,
                partition_max_bytes: settings.fetch_max_bytes,
                ..Default::default()
            });
        }
        let mut forgotten: HashMap<Uuid, Vec<i32>> = HashMap::new();
        for (topic, partition) in self.sent.keys().filter(|key| !ready.contains_key(key)) {
            forgotten.entry(*topic).or_default().push(*partition);
        }
        self.sent = ready.iter().map(|(key, (_, now))| (*key, *now)).collect();
        let topic = |(topic_id, partitions)| FetchTopic { topic_id, partitions, ..Default::default() };
        let forget = |(topic_id, partitions)| ForgottenTopic { topic_id, partitions, ..Default::default() };
        FetchRequest {
            replica_state: ReplicaState {
                replica_id: self.fetchers.around.node_id,
                replica_epoch: self.fetchers.around.broker_epoch.load(Ordering::Acquire),
                ..Default::default()
            },
            max_wait_ms,
            min_bytes: settings.fetch_min_bytes,
            max_bytes: settings.fetch_response_max_bytes,
            session_id: self.session_id,
            session_epoch: self.session_epoch,
            topics: topics.into_iter().map(topic).collect(),
            forgotten_topics_data: forgotten.into_iter().map(forget).collect(),
            ..Default::default()
        }
    }

    async fn take(&mut self, ready: &HashMap<Key, (Arc<Partition>, Sent)>, response: FetchResponse) {
        let code = ErrorCode::from_code(response.error_code);
        if code != ErrorCode::None {
            self.reset_session();
            let lost = matches!(code, ErrorCode::FetchSessionIdNotFound | ErrorCode::InvalidFetchSessionEpoch);
            if code == ErrorCode::StaleBrokerEpoch {
                // One of the two has not heard of a new registration yet.
                tracing::debug!(leader = self.lane.leader, "the leader knows another registration");
                let _ = timeout(self.backoff().min(STALE_PAUSE), self.lane.changed.notified()).await;
            } else if !lost {
                tracing::warn!(leader = self.lane.leader, code = code.name(), "the leader refuses to be fetched from");
                let _ = timeout(self.backoff(), self.lane.changed.notified()).await;
            }
            return;
        }
        // Without a session every fetch names everything.
        self.session_id = response.session_id;
        self.session_epoch = match (response.session_id, self.session_epoch) {
            (0, _) => 0,
            (_, i32::MAX) => 1,
            (_, epoch) => epoch + 1,
        };
        let mut flushing = Vec::new();
        let mut truncated = false;
        let mut bereft = Vec::new();
        for topic in response.responses {
            for data in topic.partitions {
                let key = (topic.topic_id, data.partition_index);
                let Some((partition, sent)) = ready.get(&key) else { continue };
                let code = ErrorCode::from_code(data.error_code);
                if matches!(code, ErrorCode::KafkaStorageError | ErrorCode::CorruptMessage)
                    && partition.kept_bytes() > 0
                {
                    bereft.push((key, partition.clone(), *sent));
                    continue;
                }
                let end = partition.offsets().log_end;
                if !self.take_one(partition, sent, data) {
                    self.pause(key, sent.epoch);
                    continue;
                }
                self.failures.remove(&key);
                let now_at = partition.offsets().log_end;
                truncated |= now_at < end && partition.recovery_point() == now_at;
                if partition.wants_flush() {
                    flushing.push(self.around.flusher.flush(partition));
                }
            }
        }
        for (key, partition, sent) in bereft {
            if !self.refill(&partition, sent).await {
                self.pause(key, sent.epoch);
            } else if partition.wants_flush() {
                flushing.push(self.around.flusher.flush(&partition));
            }
        }
        if truncated {
            // Before anything is written where the cut was: what comes there is not safe yet.
            (self.around.truncated)();
        }
        for flushed in flushing {
            // A failed fsync takes the log offline; nothing more is claimed of it.
            let _ = flushed.await;
        }
    }

    /// Takes over one partition's part. Whether it can go on at once.
    fn take_one(&self, partition: &Arc<Partition>, sent: &Sent, data: PartitionData) -> bool {
        let wall_ms = self.around.clock.settled_ms();
        let name = || partition.dir_name();
        match ErrorCode::from_code(data.error_code) {
            ErrorCode::None => {
                let diverging = (data.diverging_epoch.end_offset >= 0 || data.diverging_epoch.epoch >= 0)
                    .then_some((data.diverging_epoch.epoch, data.diverging_epoch.end_offset));
                let fetched = Fetched {
                    records: data.records.and_then(|records| records.bytes().cloned()).unwrap_or_default(),
                    high_watermark: data.high_watermark,
                    log_start: data.log_start_offset,
                    diverging,
                };
                match partition.take_fetched(sent.epoch, sent.position, &fetched, wall_ms) {
                    Ok(Some(Outcome::Truncated(to))) => {
                        tracing::info!(
                            partition = name(),
                            to,
                            leader_epoch = sent.epoch,
                            "cut back to where the leader's log agrees"
                        );
                        true
                    }
                    Ok(Some(Outcome::Appended(bytes))) => {
                        self.fetchers.around.replication_bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
                        if partition.is_throttled_follower() {
                            let now_ms = self.around.clock.now_ms();
                            self.fetchers.around.throttles.follower.passes(bytes as u64, now_ms);
                            partition.note_level(now_ms);
                        }
                        true
                    }
                    Ok(None) => true,
                    Err(Unusable::Answer(why)) => {
                        tracing::warn!(
                            partition = name(),
                            leader = self.lane.leader,
                            why,
                            "answer of the leader not taken"
                        );
                        false
                    }
                    Err(Unusable::Log(error)) => self.log_failed(partition, &error),
                }
            }
            ErrorCode::OffsetOutOfRange => match partition.out_of_range(sent.epoch, data.log_start_offset, wall_ms) {
                Ok(true) => {
                    tracing::info!(
                        partition = name(),
                        at = data.log_start_offset,
                        "begun anew where the leader's log begins"
                    );
                    true
                }
                Ok(false) => false,
                Err(error) => self.log_failed(partition, &error),
            },
            code => {
                tracing::debug!(partition = name(), leader = self.lane.leader, code = code.name(), "not fetched");
                false
            }
        }
    }

    /// The leader has damaged what was asked for: perhaps it is among what a repair has kept here. Whether to go on at once.
    async fn refill(&self, partition: &Arc<Partition>, sent: Sent) -> bool {
        let (wall_ms, refilling) = (self.around.clock.settled_ms(), partition.clone());
        let refilled = tokio::task::spawn_blocking(move || refilling.refill(sent.epoch, sent.position, wall_ms)).await;
        let (offset, leader) = (sent.position.fetch_offset, self.lane.leader);
        match refilled {
            Ok(Ok(Refilled::Bytes(bytes))) => {
                tracing::warn!(
                    partition = %partition.dir_name(), offset, bytes, leader,
                    "the leader has damaged these records: taken back from what the repair has kept here"
                );
                true
            }
            Ok(Ok(Refilled::Nowhere(is_news))) => {
                if is_news {
                    tracing::error!(
                        partition = %partition.dir_name(), offset, leader,
                        "damaged at the same place here and at the leader: this replica cannot be filled again beyond it"
                    );
                }
                false
            }
            Ok(Ok(Refilled::Moot)) => true,
            Ok(Err(error)) => self.log_failed(partition, &error),
            Err(panic) => {
                tracing::error!(partition = %partition.dir_name(), %panic, "refilling failed");
                false
            }
        }
    }

    fn log_failed(&self, partition: &Partition, error: &LogError) -> bool {
        tracing::error!(partition = %partition.dir_name(), %error, "replication failed");
        if error.is_disk_failure() {
            (self.around.offline)(error);
        }
        if matches!(error, LogError::DiskFull { .. }) && partition.is_waited_for() {
            (self.around.full)(partition, error);
        }
        false
    }
}

#[cfg(test)]
#[path = "fetcher_test.rs"]
mod tests;
