//! Damaged replicas: what was read from a segment is not what was written there. It is told, never served, and taken
//! again from a replica that has it.
//!
//! A replica that throws away what it acknowledged must not count for it any more. So the controller is asked first, by
//! AssignReplicasToDirs to the directory LOST: it takes the replica out of the ISR, makes another one lead, and
//! gives the partition a new leader epoch, in which nothing counts that this replica said before. Only when that has
//! arrived here is the log cut at the damage, and filled again from the leader. A replica that is the last in
//! sync keeps what it has; the records before and behind the damage can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_log::{Checked, Damage, LogError, Unchecked};
use klamm_metadata::Image;
use klamm_protocol::messages::AssignReplicasToDirsRequest;
use klamm_protocol::messages::assign_replicas_to_dirs_request::{DirectoryData, PartitionData, TopicData};
use klamm_protocol::{ErrorCode, Uuid};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::partition::Partition;
use crate::broker::Broker;

/// How often a repair that could not be begun is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The partitions on this broker that are known to be damaged.
#[derive(Debug, Default)]
pub struct Damaged {
    /// By topic id and number.
    partitions: Mutex<BTreeSet<(Uuid, i32)>>,
    news: Notify,
}

impl Damaged {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.partitions.lock().len()
    }

    /// Another one, or again one that is known.
    pub fn add(&self, topic: Uuid, index: i32) {
        self.partitions.lock().insert((topic, index));
        self.news.notify_one();
    }

    /// What to ask the controller for broker `me`: to do without its damaged replicas, as far as others are in sync.
    /// What the image no longer has is forgotten, if it is `complete`.
    pub fn request(&self, image: &Image, complete: bool, me: i32, epoch: i64) -> Option<AssignReplicasToDirsRequest> {
        let mut topics: BTreeMap<Uuid, Vec<PartitionData>> = BTreeMap::new();
        let damaged: Vec<(Uuid, i32)> = self.partitions.lock().iter().copied().collect();
        for (topic, index) in damaged {
            let Some(partition) = image.topic_by_id(topic).and_then(|t| t.partition(index)) else {
                if complete {
                    self.mended(topic, index);
                }
                continue;
            };
            let others = partition.isr.iter().any(|id| *id != me && image.is_active(*id));
            let is_lost = partition.directory(me) == Uuid::LOST_DIRECTORY && !partition.isr.contains(&me);
            if !partition.replicas.contains(&me) {
                self.mended(topic, index);
            } else if others && !is_lost {
                topics.entry(topic).or_default().push(PartitionData { partition_index: index, ..Default::default() });
            }
        }
        if topics.is_empty() {
            return None;
        }
        let topic = |(topic_id, partitions)| TopicData { topic_id, partitions, ..Default::default() };
        let topics = topics.into_iter().map(topic).collect();
        Some(AssignReplicasToDirsRequest {
            broker_id: me,
            broker_epoch: epoch,
            directories: vec![DirectoryData { id: Uuid::LOST_DIRECTORY, topics, ..Default::default() }],
            ..Default::default()
        })
    }

    /// It is whole again, or gone.
    pub fn mended(&self, topic: Uuid, index: i32) {
        self.partitions.lock().remove(&(topic, index));
    }
}

/// Checks ranges that a read found on disk, off the worker, and takes note.
pub async fn check(broker: &Arc<Broker>, ranges: Vec<(Arc<Partition>, Unchecked)>) {
    let checking = broker.clone();
    let done = tokio::task::spawn_blocking(move || {
        for (partition, unchecked) in ranges {
            check_one(&checking, &partition, unchecked);
        }
    });
    if let Err(panic) = done.await {
        broker.stop(crate::broker::Stop::Broken(format!("checking records: {panic}")));
    }
}

/// Checks one range, on a thread that may block.
pub fn check_one(broker: &Broker, partition: &Arc<Partition>, unchecked: Unchecked) {
    let checked: Result<Checked, LogError> = unchecked.check();
    match checked {
        Ok(checked) => {
            if let Some(damage) = partition.with_log(|log| log.checked(&checked)) {
                tell(broker, partition, &damage);
            }
        }
        Err(error) if error.is_disk_failure() => broker.log_dir_failed(&error),
        Err(error) => tracing::error!(partition = %partition.dir_name(), %error, "records could not be checked"),
    }
}

/// A lookup met damage.
pub fn met(broker: &Broker, partition: &Partition, damage: &Damage) {
    if partition.with_log(|log| log.note_damage(damage)) {
        tell(broker, partition, damage);
    }
}

/// Tells of damage that is news, and has it repaired.
pub fn tell(broker: &Broker, partition: &Partition, damage: &Damage) {
    let (file, position, offset) = (damage.file.display(), damage.position, damage.offset);
    tracing::error!(
        partition = %partition.dir_name(), %file, position, offset, what = damage.what,
        "damaged records: not served, to be taken from another replica if there is one"
    );
    broker.metrics.damage_found();
    broker.replicas.damaged.add(partition.topic.id, partition.index);
}

/// Has damaged replicas repaired, for as long as the broker runs.
pub async fn run(broker: Arc<Broker>) {
    loop {
        tokio::select! {
            () = broker.replicas.damaged.news.notified() => {}
            () = tokio::time::sleep(AGAIN), if broker.replicas.damaged.count() > 0 => {}
            _ = broker.stopping() => return,
        }
        ask(&broker).await;
    }
}

/// Asks the controller to do without the damaged replicas.
async fn ask(broker: &Arc<Broker>) {
    let (image, epoch) = (broker.controller.image(), broker.lifecycle.epoch());
    // Until the first image is there, nothing counts as deleted.
    let Some(request) = broker.replicas.damaged.request(&image, broker.is_open(), broker.config.node_id, epoch) else {
        return;
    };
    match broker.forwarder.call(broker, &request).await {
        Ok(answer) => {
            let refused = |code: i16| (code != 0).then(|| ErrorCode::from_code(code).name());
            let of = answer.directories.iter().flat_map(|d| &d.topics).flat_map(|t| &t.partitions);
            let codes: BTreeSet<_> =
                of.filter_map(|p| refused(p.error_code)).chain(refused(answer.error_code)).collect();
            if !codes.is_empty() {
                tracing::warn!(?codes, "the controller does not do without a damaged replica");
            }
            broker.replicas.reopen_soon.notify_one();
        }
        Err(code) => tracing::debug!(code = code.name(), "the controller cannot be told of a damaged replica"),
    }
}
