//! All partitions on this broker, by topic name and by topic id.
//!
//! Follows the metadata image: the controller tells of topics made, grown, reconfigured and deleted,
//! and the logs are opened or taken away before anyone can see the change.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use klamm_log::LogError;
use klamm_log::dirs::DirError;
use klamm_metadata::{Change, Image, Resource, ResourceType};
use klamm_protocol::{ErrorCode, Uuid};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::fetcher::Fetchers;
use super::flush::Flusher;
use super::partition::{Around, Partition, Topic};
use super::repair::Damaged;
use super::roles::Turn;
use super::spread::Progress;
use super::storage::Storage;
use crate::clock::Clock;
use crate::config::BrokerConfig;
use crate::metrics::Metrics;

/// Where a partition is, as far as this broker is concerned.
type Place = Result<Arc<Partition>, ErrorCode>;

/// A topic with those of its partitions that live here.
#[derive(Debug)]
pub struct Hosted {
    /// What its partitions share.
    pub topic: Arc<Topic>,
    /// By partition number; the error says why it is not here.
    partitions: RwLock<Vec<Place>>,
}

impl Hosted {
    /// The partition `index`.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition` when the topic has no such partition, `NotLeaderOrFollower` when it
    /// is elsewhere, `KafkaStorageError` when its log could not be opened.
    pub fn partition(&self, index: i32) -> Result<Arc<Partition>, ErrorCode> {
        let at = usize::try_from(index).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
        self.partitions.read().get(at).cloned().unwrap_or(Err(ErrorCode::UnknownTopicOrPartition))
    }

    /// The partitions that live here.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().iter().flatten().cloned().collect()
    }
}

#[derive(Debug, Default)]
struct Tables {
    by_name: HashMap<Arc<str>, Arc<Hosted>>,
    by_id: HashMap<Uuid, Arc<Hosted>>,
}

/// All partitions on this broker.
#[derive(Debug)]
pub struct Replicas {
    /// What all partitions share.
    pub around: Arc<Around>,
    tables: RwLock<Tables>,
    storage: Storage,
    metrics: Arc<Metrics>,
    /// The static configuration with the dynamic changes.
    config: RwLock<Arc<BrokerConfig>>,
    /// Partitions that could not be opened.
    offline: AtomicUsize,
    /// Partitions with files that wait for their removal.
    trash: Mutex<Vec<Arc<Partition>>>,
    /// How far opening or closing all partitions has got.
    progress: Progress,
    /// Fetching from leaders.
    pub fetchers: Arc<Fetchers>,
    /// Group commit for the log directory.
    pub flusher: Arc<Flusher>,
    /// Partitions that are known to be damaged.
    pub damaged: Damaged,
    /// Told when what could not be opened may open now.
    pub reopen_soon: Notify,
}

/// What a new image meant for this broker.
#[derive(Debug, Default)]
pub struct Followed {
    /// Partitions that this broker leads, in a new epoch.
    pub led: Vec<Arc<Partition>>,
    /// Partitions that it does not lead any more, or in the new epoch.
    pub unled: Vec<Arc<Partition>>,
    /// Topics that are gone.
    pub deleted: Vec<(String, Uuid)>,
}

impl Replicas {
    /// No partitions yet.
    pub fn new(storage: Storage, config: BrokerConfig, metrics: Arc<Metrics>) -> Self {
        let around = Around::new(config.node_id, config.replication.lag_time_max_ms);
        Self {
            fetchers: Fetchers::new(config.replication.clone(), around.clone()),
            around,
            tables: RwLock::default(),
            storage,
            metrics,
            config: RwLock::new(Arc::new(config)),
            offline: AtomicUsize::new(0),
            trash: Mutex::default(),
            progress: Progress::default(),
            flusher: Arc::default(),
            damaged: Damaged::default(),
            reopen_soon: Notify::new(),
        }
    }

    /// The configuration in force, dynamic changes included.
    pub fn config(&self) -> Arc<BrokerConfig> {
        self.config.read().clone()
    }

    /// The log directory.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The topic called `name`.
    pub fn topic(&self, name: &str) -> Option<Arc<Hosted>> {
        self.tables.read().by_name.get(name).cloned()
    }

    /// The topic with this id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<Arc<Hosted>> {
        self.tables.read().by_id.get(&id).cloned()
    }

    /// A partition by its topic's name.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, or that of [`Hosted::partition`].
    pub fn by_name(&self, name: &str, index: i32) -> Result<Arc<Partition>, ErrorCode> {
        self.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)?.partition(index)
    }

    /// A partition by its topic's id.
    ///
    /// # Errors
    /// `UnknownTopicId`, or that of [`Hosted::partition`].
    pub fn by_id(&self, id: Uuid, index: i32) -> Result<Arc<Partition>, ErrorCode> {
        self.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId)?.partition(index)
    }

    /// All topics by their ids: what is done to all is done in the same order every time.
    pub fn topics(&self) -> Vec<Arc<Hosted>> {
        let mut all: Vec<_> = self.tables.read().by_id.values().cloned().collect();
        all.sort_unstable_by_key(|hosted| hosted.topic.id);
        all
    }

    /// All partitions, in the order of [`topics`](Self::topics).
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.topics().iter().flat_map(|hosted| hosted.partitions()).collect()
    }

    /// Opens everything that `image` places here, on several threads. For the start.
    pub fn open_all(&self, image: &Image, clock: &Clock) -> Followed {
        self.follow_configs(image);
        self.follow_brokers(image);
        let now_ms = clock.settled_ms();
        let topics: Vec<_> = image.topics().map(|topic| (topic.clone(), self.host(image, topic))).collect();
        let mut wanted = Vec::new();
        for (topic, hosted) in &topics {
            wanted.extend((0..).zip(&topic.partitions).map(|(index, partition)| (&hosted.topic, index, partition)));
        }
        let threads = self.config().recovery_threads_per_dir;
        let places = self
            .progress
            .spread(threads, &wanted, |(topic, index, partition)| self.place(topic, *index, partition, now_ms));
        let mut places = places.into_iter();
        let mut followed = Followed::default();
        for (topic, hosted) in topics {
            let places: Vec<Place> = places.by_ref().take(topic.partitions.len()).collect();
            for (place, wanted) in places.iter().zip(&topic.partitions) {
                if let Ok(partition) = place {
                    self.turn(partition, wanted, clock, &mut followed);
                }
            }
            *hosted.partitions.write() = places;
            self.list(&topic, hosted);
        }
        if self.offline_count() == 0 {
            self.storage.all_opened();
            self.storage.renew_log_starts(&self.partitions());
        }
        followed
    }

    /// How many partitions have been opened or closed, of how many, while the broker starts or stops.
    pub fn progress(&self) -> Option<(usize, usize)> {
        self.progress.get()
    }

    /// Brings the partitions in line with `image`, which differs from the last one by `changes`. `unique` names what is
    /// taken away.
    pub fn follow(&self, image: &Image, changes: &[Change], unique: &dyn Fn() -> Uuid, clock: &Clock) -> Followed {
        let now_ms = clock.settled_ms();
        let mut followed = Followed::default();
        let mut touched = BTreeSet::new();
        let mut configs_changed = false;
        let mut brokers_changed = false;
        for change in changes {
            match change {
                Change::TopicCreated { id, .. } | Change::PartitionChanged { id, .. } => {
                    touched.insert(*id);
                }
                Change::TopicDeleted(topic) => {
                    self.delete(topic.id, unique, now_ms);
                    followed.deleted.push((topic.name.to_string(), topic.id));
                }
                Change::ConfigChanged { resource, .. } => match resource.kind {
                    ResourceType::Topic => touched.extend(image.topic(&resource.name).map(|topic| topic.id)),
                    ResourceType::Broker => configs_changed = true,
                    _ => {}
                },
                Change::BrokerChanged { .. } | Change::BrokerRemoved(_) => brokers_changed = true,
                _ => {}
            }
        }
        if brokers_changed {
            self.follow_brokers(image);
        }
        if configs_changed {
            self.follow_configs(image);
            touched.extend(image.topics().map(|topic| topic.id));
        }
        for topic in touched.into_iter().filter_map(|id| image.topic_by_id(id)) {
            self.follow_topic(image, topic, unique, clock, &mut followed);
        }
        if brokers_changed {
            for partition in self.partitions() {
                partition.on_brokers_changed();
            }
        }
        followed
    }

    /// Takes over which brokers may be in an ISR.
    fn follow_brokers(&self, image: &Image) {
        let live = image.brokers().filter(|broker| broker.is_active()).map(|broker| (broker.id, broker.epoch));
        *self.around.live.write() = Arc::new(live.collect());
    }

    /// Brings a partition's role in line with what the controller says.
    fn turn(
        &self,
        partition: &Arc<Partition>,
        wanted: &klamm_metadata::Partition,
        clock: &Clock,
        followed: &mut Followed,
    ) {
        let turn = match self.is_to_be_rebuilt(wanted) {
            true => partition.follow_anew(wanted, clock.now_ms(), clock.settled_ms()),
            false => partition.follow(wanted, clock.now_ms()),
        };
        if partition.with_log(|log| log.damage().is_none()) {
            self.damaged.mended(partition.topic.id, partition.index);
        }
        match turn {
            Turn::Same => {}
            Turn::Leads => {
                self.fetchers.assign(partition, None);
                if partition.wants_flush() {
                    self.flusher.flush_later(partition);
                }
                followed.led.push(partition.clone());
            }
            Turn::Follows(leader) => {
                self.fetchers.assign(partition, Some(leader));
                followed.unled.push(partition.clone());
            }
            Turn::Idle => {
                self.fetchers.assign(partition, None);
                followed.unled.push(partition.clone());
            }
        }
    }

    /// Takes over dynamic configurations of this broker and of all brokers.
    fn follow_configs(&self, image: &Image) {
        let entries = |resource| image.config(&resource).map(|entries| (**entries).clone()).unwrap_or_default();
        let merged = self
            .config()
            .with_dynamic(entries(Resource::all_brokers()), entries(Resource::broker(self.around.node_id)));
        match merged {
            Ok(config) => {
                self.around.throttles.leader.set_rate(config.replication.leader_throttled_rate);
                self.around.throttles.follower.set_rate(config.replication.follower_throttled_rate);
                *self.config.write() = Arc::new(config);
            }
            Err(errors) => tracing::error!(%errors, "dynamic configuration not taken over"),
        }
    }

    /// The topic as it is here, with its configuration up to date.
    fn host(&self, image: &Image, topic: &klamm_metadata::Topic) -> Arc<Hosted> {
        let own = image.config(&Resource::topic(&topic.name)).map(|entries| (**entries).clone()).unwrap_or_default();
        let config = Arc::new(self.config().topic(&own));
        match self.topic_by_id(topic.id) {
            Some(hosted) => {
                if *hosted.topic.config() != *config {
                    hosted.topic.set_config(config.clone());
                    for partition in hosted.partitions() {
                        partition.configure(&config);
                    }
                }
                hosted
            }
            None => {
                let metrics = self.metrics.topic(&topic.name);
                let shared = Arc::new(Topic::new(topic.name.clone(), topic.id, metrics, config));
                Arc::new(Hosted { topic: shared, partitions: RwLock::default() })
            }
        }
    }

    /// Lets requests find the topic.
    fn list(&self, topic: &klamm_metadata::Topic, hosted: Arc<Hosted>) {
        let mut tables = self.tables.write();
        tables.by_name.insert(topic.name.clone(), hosted.clone());
        tables.by_id.insert(topic.id, hosted);
    }

    /// Opens those partitions of a topic that are new here, takes away those that are to be elsewhere, and brings the
    /// rest up to date.
    fn follow_topic(
        &self,
        image: &Image,
        topic: &klamm_metadata::Topic,
        unique: &dyn Fn() -> Uuid,
        clock: &Clock,
        followed: &mut Followed,
    ) {
        let hosted = self.host(image, topic);
        let mut places = hosted.partitions.read().clone();
        for (index, wanted) in (0..).zip(&topic.partitions) {
            let at = usize::try_from(index).unwrap_or(usize::MAX);
            let here = wanted.replicas.contains(&self.around.node_id);
            let place = match places.get(at) {
                Some(Ok(partition)) if here => {
                    self.turn(partition, wanted, clock, followed);
                    continue;
                }
                Some(Err(ErrorCode::KafkaStorageError)) if here => continue,
                Some(Err(ErrorCode::NotLeaderOrFollower)) if !here => continue,
                Some(Ok(partition)) => {
                    partition.mark_deleted();
                    self.fetchers.assign(partition, None);
                    let delay_ms = hosted.topic.config().log.file_delete_delay_ms;
                    self.storage.delete_partition(partition, unique(), clock.settled_ms(), delay_ms);
                    followed.unled.push(partition.clone());
                    Err(ErrorCode::NotLeaderOrFollower)
                }
                Some(Err(ErrorCode::KafkaStorageError)) => {
                    self.offline.fetch_sub(1, Ordering::AcqRel);
                    Err(ErrorCode::NotLeaderOrFollower)
                }
                Some(Err(_)) | None => self.place(&hosted.topic, index, wanted, clock.settled_ms()),
            };
            if let Ok(partition) = &place
                && here
            {
                self.turn(partition, wanted, clock, followed);
            }
            match places.get_mut(at) {
                Some(slot) => *slot = place,
                None => places.push(place),
            }
        }
        *hosted.partitions.write() = places;
        self.list(topic, hosted);
    }

    fn place(&self, topic: &Arc<Topic>, index: i32, wanted: &klamm_metadata::Partition, now_ms: i64) -> Place {
        if !wanted.replicas.contains(&self.around.node_id) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let rebuild = self.is_to_be_rebuilt(wanted);
        match self.storage.open_partition(topic, index, &self.around, now_ms, rebuild) {
            Ok(partition) => Ok(Arc::new(partition)),
            Err(error) => {
                self.offline.fetch_add(1, Ordering::AcqRel);
                if matches!(error, LogError::Corrupt(_)) {
                    self.metrics.damage_found();
                    self.damaged.add(topic.id, index);
                }
                tracing::error!(topic = %topic.name, partition = index, %error, "partition is offline");
                Err(ErrorCode::KafkaStorageError)
            }
        }
    }

    /// Whether the controller has written off what this broker has of a partition: others have all of it, one of them
    /// leads, and what is damaged here may go.
    fn is_to_be_rebuilt(&self, wanted: &klamm_metadata::Partition) -> bool {
        let me = self.around.node_id;
        let others_lead = wanted.leader >= 0 && wanted.leader != me;
        others_lead && wanted.directory(me) == Uuid::LOST_DIRECTORY && !wanted.isr.contains(&me)
    }

    /// Number of partitions that belong here and could not be opened.
    pub fn offline_count(&self) -> usize {
        self.offline.load(Ordering::Acquire)
    }

    /// Whether this partition belongs here and could not be opened.
    pub fn is_offline(&self, topic: Uuid, index: i32) -> bool {
        self.offline_count() > 0 && matches!(self.by_id(topic, index), Err(ErrorCode::KafkaStorageError))
    }

    /// Tries again to open what could not be opened; those that could now.
    pub fn reopen(&self, image: &Image, clock: &Clock) -> Followed {
        let mut followed = Followed::default();
        for hosted in self.topics() {
            let Some(topic) = image.topic_by_id(hosted.topic.id) else { continue };
            for (index, wanted) in (0..).zip(&topic.partitions) {
                if !self.is_offline(topic.id, index) {
                    continue;
                }
                let rebuild = self.is_to_be_rebuilt(wanted);
                let again =
                    self.storage.open_partition(&hosted.topic, index, &self.around, clock.settled_ms(), rebuild);
                let Ok(partition) = again.map(Arc::new) else { continue };
                if rebuild {
                    self.damaged.mended(topic.id, index);
                }
                let mut places = hosted.partitions.write();
                let Some(place) = places.get_mut(usize::try_from(index).unwrap_or(usize::MAX)) else { continue };
                self.turn(&partition, wanted, clock, &mut followed);
                *place = Ok(partition);
                self.offline.fetch_sub(1, Ordering::AcqRel);
                tracing::info!(topic = %topic.name, partition = index, "partition is online again");
            }
        }
        followed
    }

    /// Takes a deleted topic away and wakes whoever waits for its partitions.
    fn delete(&self, id: Uuid, unique: &dyn Fn() -> Uuid, now_ms: i64) {
        let removed = {
            let mut tables = self.tables.write();
            let removed = tables.by_id.remove(&id);
            if let Some(hosted) = &removed {
                // The name may belong to a younger topic already.
                let same = tables.by_name.get(&hosted.topic.name).is_some_and(|h| Arc::ptr_eq(h, hosted));
                if same {
                    tables.by_name.remove(&hosted.topic.name);
                    self.metrics.remove_topic(&hosted.topic.name);
                }
            }
            removed
        };
        let Some(hosted) = removed else { return };
        let lost = hosted.partitions.read().iter().filter(|p| matches!(p, Err(ErrorCode::KafkaStorageError))).count();
        self.offline.fetch_sub(lost, Ordering::AcqRel);
        let delay_ms = hosted.topic.config().log.file_delete_delay_ms;
        for partition in hosted.partitions() {
            partition.mark_deleted();
            self.fetchers.assign(&partition, None);
            self.storage.delete_partition(&partition, unique(), now_ms, delay_ms);
        }
    }

    /// `partition` has files that wait for their removal.
    pub fn trashed(&self, partition: &Arc<Partition>) {
        self.trash.lock().push(partition.clone());
    }

    /// Partitions with files that wait for their removal; the list is empty afterwards.
    pub fn take_trashed(&self) -> Vec<Arc<Partition>> {
        std::mem::take(&mut *self.trash.lock())
    }

    /// Writes the checkpoints of the log directory.
    ///
    /// # Errors
    /// A file could not be written.
    pub fn write_checkpoints(&self) -> Result<(), DirError> {
        self.storage.write_checkpoints(&self.partitions())
    }

    /// Writes the high watermarks alone, if any partition has other replicas: a single one needs none.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn write_high_watermarks(&self) -> Result<(), DirError> {
        let partitions = self.partitions();
        if partitions.iter().all(|partition| partition.is_alone()) {
            return Ok(());
        }
        self.storage.write_high_watermarks(&partitions)
    }

    /// Writes how far each log has been compacted.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn write_cleaner_checkpoint(&self) -> Result<(), DirError> {
        let compacted = self.partitions();
        self.storage.write_cleaner_checkpoint(compacted.iter().filter(|p| p.topic.config().log.compact))
    }

    /// Flushes and closes every log and marks the directory clean, for the stop.
    ///
    /// # Errors
    /// Something could not be written; the next start checks the logs.
    pub fn close(&self, broker_epoch: i64) -> Result<(), DirError> {
        let partitions = self.partitions();
        let threads = self.config().recovery_threads_per_dir;
        let closed = self.progress.spread(threads, &partitions, |partition| {
            partition.close().inspect_err(|error| {
                tracing::error!(partition = %partition.dir_name(), %error, "log not closed cleanly");
            })
        });
        let failed: Option<LogError> = closed.into_iter().find_map(Result::err);
        self.storage.write_checkpoints(&partitions)?;
        match failed {
            Some(error) => Err(error.into()),
            None if self.offline_count() > 0 => {
                self.storage.close_unmarked();
                Ok(())
            }
            None => self.storage.close_clean(broker_epoch),
        }
    }
}
