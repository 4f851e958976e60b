//! Records change the image, here and nowhere else. Each tells what it changed, so that a broker can follow.
//!
//! A record that doesn't fit (an unknown topic, a wrong epoch, a type this code doesn't know) is an error and
//! has to stop the process: the log is right by definition, so this node's state must be wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::Uuid;
use klamm_protocol::messages::*;
use klamm_protocol::records::Family;

use crate::controller::maintenance;
use crate::image::{Broker, Endpoint, Image, Partition, Resource, ResourceType, SupportedFeature, Topic};
use crate::names;
use crate::record::MetadataRecord;

/// A record that can't be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A type of record that this code has no use for.
    #[error("metadata records of type {0} are not supported")]
    Unsupported(i16),
    /// A record that contradicts the image.
    #[error("{0}")]
    Inconsistent(String),
}

/// What a record changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing that anyone watches.
    Nothing,
    /// A topic came to be; its partitions follow as changes of their own.
    TopicCreated {
        /// Its name.
        name: Arc<str>,
        /// Its id.
        id: Uuid,
    },
    /// A topic is gone, with its configuration.
    TopicDeleted(Arc<Topic>),
    /// A partition is new or different.
    PartitionChanged {
        /// The topic's name.
        topic: Arc<str>,
        /// The topic's id.
        id: Uuid,
        /// The partition's number.
        partition: i32,
        /// How it was before; None for a new one.
        before: Option<Arc<Partition>>,
    },
    /// Several partitions of all topics or of one changed their ELR.
    ElrCleared,
    /// A key of a configuration is set or removed.
    ConfigChanged {
        /// Whose.
        resource: Resource,
        /// Which.
        name: String,
    },
    /// A broker is new or different.
    BrokerChanged {
        /// Its id.
        id: i32,
        /// How it was before; None for a new one.
        before: Option<Arc<Broker>>,
    },
    /// A broker is no longer registered.
    BrokerRemoved(Arc<Broker>),
    /// A feature has another level.
    FeatureChanged(String),
    /// Producer ids up to the image's next one are given away.
    ProducerIds,
}

fn wrong<T>(text: String) -> Result<T, ApplyError> {
    Err(ApplyError::Inconsistent(text))
}

impl Image {
    /// Applies a record.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<Change, ApplyError> {
        match record {
            MetadataRecord::Topic(r) => self.add_topic(r),
            MetadataRecord::Partition(r) => self.add_partition(r),
            MetadataRecord::PartitionChange(r) => self.change_partition(r),
            MetadataRecord::RemoveTopic(r) => self.remove_topic(r.topic_id),
            MetadataRecord::ClearElr(r) => self.clear_elr(&r.topic_name),
            MetadataRecord::Config(r) => self.set_config(r),
            MetadataRecord::RegisterBroker(r) => Ok(self.register_broker(r)),
            MetadataRecord::UnregisterBroker(r) => self.unregister_broker(r.broker_id, r.broker_epoch),
            MetadataRecord::BrokerRegistrationChange(r) => self.change_registration(r),
            MetadataRecord::FenceBroker(r) => self.change_broker(r.id, r.epoch, |b| b.fenced = true),
            MetadataRecord::UnfenceBroker(r) => self.change_broker(r.id, r.epoch, |b| b.fenced = false),
            MetadataRecord::FeatureLevel(r) => Ok(self.set_feature(r)),
            MetadataRecord::ProducerIds(r) => self.give_producer_ids(r.next_producer_id),
            MetadataRecord::NoOp(_) => Ok(Change::Nothing),
            other => Err(ApplyError::Unsupported(other.key())),
        }
    }

    /// Applies records in order; on an error the image is left half-changed and must not be used.
    pub fn apply_all(&mut self, records: &[MetadataRecord]) -> Result<Vec<Change>, ApplyError> {
        records.iter().map(|record| self.apply(record)).collect()
    }

    fn add_topic(&mut self, r: &TopicRecord) -> Result<Change, ApplyError> {
        if r.topic_id.is_zero() {
            return wrong(format!("topic {} has no id", r.name));
        }
        if self.topics.contains_key(r.name.as_str()) || self.names.contains_key(&r.topic_id) {
            return wrong(format!("topic {} with id {} exists already", r.name, r.topic_id));
        }
        let name: Arc<str> = r.name.as_str().into();
        let topic = Topic { name: name.clone(), id: r.topic_id, partitions: Vec::new() };
        self.topics.insert(name.clone(), Arc::new(topic));
        self.names.insert(r.topic_id, name.clone());
        if let Some(metric) = names::metric_name(&name) {
            match self.metric_names.get_mut(&metric) {
                Some(alike) => {
                    let alike = Arc::make_mut(alike);
                    alike.insert(alike.partition_point(|other| *other < name), name.clone());
                }
                None => drop(self.metric_names.insert(metric, Arc::new(vec![name.clone()]))),
            }
        }
        Ok(Change::TopicCreated { name, id: r.topic_id })
    }

    fn topic_mut(&mut self, id: Uuid) -> Result<&mut Topic, ApplyError> {
        let topic = self.names.get(&id).and_then(|name| self.topics.get_mut(&**name));
        match topic {
            Some(topic) => Ok(Arc::make_mut(topic)),
            None => wrong(format!("there is no topic with id {id}")),
        }
    }

    fn add_partition(&mut self, r: &PartitionRecord) -> Result<Change, ApplyError> {
        let topic = self.topic_mut(r.topic_id)?;
        let mut directories = r.directories.clone();
        directories.resize(r.replicas.len(), Uuid::ZERO);
        let partition = Arc::new(Partition {
            replicas: r.replicas.clone(),
            directories,
            isr: r.isr.clone(),
            removing_replicas: r.removing_replicas.clone(),
            adding_replicas: r.adding_replicas.clone(),
            leader: r.leader,
            leader_epoch: r.leader_epoch,
            partition_epoch: r.partition_epoch,
            leader_recovery_state: r.leader_recovery_state,
            elr: r.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_elr: r.last_known_elr.clone().unwrap_or_default(),
        });
        let (name, next) = (topic.name.clone(), topic.partitions.len());
        let at = usize::try_from(r.partition_id).unwrap_or(usize::MAX);
        let before = match topic.partitions.get_mut(at) {
            Some(slot) => Some(std::mem::replace(slot, partition.clone())),
            None if at == next => {
                topic.partitions.push(partition.clone());
                None
            }
            None => return wrong(format!("partition {} of topic {name} follows a gap", r.partition_id)),
        };
        self.index.follow(r.topic_id, r.partition_id, before.as_deref(), Some(&partition));
        self.partitions += usize::from(before.is_none());
        Ok(Change::PartitionChanged { topic: name, id: r.topic_id, partition: r.partition_id, before })
    }

    fn change_partition(&mut self, r: &PartitionChangeRecord) -> Result<Change, ApplyError> {
        let topic = self.topic_mut(r.topic_id)?;
        let name = topic.name.clone();
        let slot = usize::try_from(r.partition_id).ok().and_then(|at| topic.partitions.get_mut(at));
        let Some(slot) = slot else {
            return wrong(format!("topic {name} has no partition {}", r.partition_id));
        };
        let before = slot.clone();
        let partition = Arc::make_mut(slot);
        partition.merge(r);
        let after = slot.clone();
        self.index.follow(r.topic_id, r.partition_id, Some(&before), Some(&after));
        Ok(Change::PartitionChanged { topic: name, id: r.topic_id, partition: r.partition_id, before: Some(before) })
    }

    fn remove_topic(&mut self, id: Uuid) -> Result<Change, ApplyError> {
        let topic = self.names.remove(&id).and_then(|name| self.topics.remove(&*name));
        let Some(topic) = topic else {
            return wrong(format!("there is no topic with id {id} to delete"));
        };
        if let Some(metric) = names::metric_name(&topic.name) {
            let alike = self.metric_names.get_mut(&metric).map(Arc::make_mut);
            let empty = alike.is_some_and(|alike| {
                alike.retain(|name| *name != topic.name);
                alike.is_empty()
            });
            if empty {
                self.metric_names.remove(&metric);
            }
        }
        self.configs.remove(&Resource::topic(&topic.name));
        for (number, partition) in (0..).zip(&topic.partitions) {
            self.index.follow(id, number, Some(partition), None);
        }
        self.partitions -= topic.partitions.len();
        Ok(Change::TopicDeleted(topic))
    }

    fn clear_elr(&mut self, topic_name: &str) -> Result<Change, ApplyError> {
        let affected: Vec<Uuid> = match topic_name {
            "" => self.topics().map(|topic| topic.id).collect(),
            name => match self.topic(name) {
                Some(topic) => vec![topic.id],
                None => return wrong(format!("there is no topic {name} to clear the ELR of")),
            },
        };
        for id in affected {
            // Where nobody leads, the high watermark stands still whatever the configuration says, and the ELR is
            // all that can bring the partition back.
            let has_elr = |p: &Arc<Partition>| !p.elr.is_empty() && !p.isr.is_empty();
            if self.topic_by_id(id).is_some_and(|topic| topic.partitions.iter().any(has_elr)) {
                for partition in self.topic_mut(id)?.partitions.iter_mut().filter(|p| has_elr(p)) {
                    let partition = Arc::make_mut(partition);
                    partition.elr.clear();
                    partition.partition_epoch += 1;
                }
            }
        }
        Ok(Change::ElrCleared)
    }

    fn set_config(&mut self, r: &ConfigRecord) -> Result<Change, ApplyError> {
        let Some(kind) = ResourceType::from_number(r.resource_type) else {
            return wrong(format!("configuration of an unknown type of resource, {}", r.resource_type));
        };
        let resource = Resource { kind, name: r.resource_name.as_str().into() };
        if kind == ResourceType::Broker && r.name == maintenance::UNTIL {
            self.set_maintenance(&r.resource_name, r.value.as_deref());
        }
        match (&r.value, self.configs.get_mut(&resource)) {
            (Some(value), Some(entries)) => {
                Arc::make_mut(entries).insert(r.name.clone(), value.clone());
            }
            (Some(value), None) => {
                let entries = BTreeMap::from([(r.name.clone(), value.clone())]);
                self.configs.insert(resource.clone(), Arc::new(entries));
            }
            (None, Some(entries)) => {
                let entries = Arc::make_mut(entries);
                entries.remove(&r.name);
                if entries.is_empty() {
                    self.configs.remove(&resource);
                }
            }
            (None, None) => {}
        }
        Ok(Change::ConfigChanged { resource, name: r.name.clone() })
    }

    /// Follows the key that puts a broker in maintenance.
    fn set_maintenance(&mut self, broker: &str, until: Option<&str>) {
        // All brokers at once have no name, and can't all be spared.
        let Ok(id) = broker.parse::<i32>() else { return };
        let all = Arc::make_mut(&mut self.maintenance);
        match until.and_then(|text| text.trim().parse().ok()) {
            Some(until) => drop(all.insert(id, until)),
            None => drop(all.remove(&id)),
        }
    }

    fn register_broker(&mut self, r: &RegisterBrokerRecord) -> Change {
        let endpoint = |e: &register_broker_record::BrokerEndpoint| Endpoint {
            name: e.name.clone(),
            host: e.host.clone(),
            port: e.port,
            security_protocol: e.security_protocol,
        };
        let feature = |f: &register_broker_record::BrokerFeature| SupportedFeature {
            name: f.name.clone(),
            min: f.min_supported_version,
            max: f.max_supported_version,
        };
        let broker = Broker {
            id: r.broker_id,
            epoch: r.broker_epoch,
            incarnation: r.incarnation_id,
            endpoints: r.end_points.iter().map(endpoint).collect(),
            features: r.features.iter().map(feature).collect(),
            rack: r.rack.clone(),
            fenced: r.fenced,
            in_controlled_shutdown: r.in_controlled_shutdown,
            log_dirs: r.log_dirs.clone(),
            cordoned_log_dirs: r.cordoned_log_dirs.clone(),
        };
        let before = Arc::make_mut(&mut self.brokers).insert(r.broker_id, Arc::new(broker));
        Change::BrokerChanged { id: r.broker_id, before }
    }

    fn unregister_broker(&mut self, id: i32, epoch: i64) -> Result<Change, ApplyError> {
        match Arc::make_mut(&mut self.brokers).remove(&id) {
            Some(broker) if broker.epoch == epoch => Ok(Change::BrokerRemoved(broker)),
            _ => wrong(format!("broker {id} with epoch {epoch} is not registered")),
        }
    }

    fn change_registration(&mut self, r: &BrokerRegistrationChangeRecord) -> Result<Change, ApplyError> {
        self.change_broker(r.broker_id, r.broker_epoch, |broker| {
            match r.fenced {
                1 => broker.fenced = true,
                -1 => broker.fenced = false,
                _ => {}
            }
            broker.in_controlled_shutdown |= r.in_controlled_shutdown == 1;
            if !r.log_dirs.is_empty() {
                broker.log_dirs.clone_from(&r.log_dirs);
            }
            if r.cordoned_log_dirs.is_some() {
                broker.cordoned_log_dirs.clone_from(&r.cordoned_log_dirs);
            }
        })
    }

    fn change_broker(&mut self, id: i32, epoch: i64, change: impl FnOnce(&mut Broker)) -> Result<Change, ApplyError> {
        let slot = Arc::make_mut(&mut self.brokers).get_mut(&id).filter(|broker| broker.epoch == epoch);
        let Some(slot) = slot else {
            return wrong(format!("broker {id} with epoch {epoch} is not registered"));
        };
        let before = Some(slot.clone());
        change(Arc::make_mut(slot));
        Ok(Change::BrokerChanged { id, before })
    }

    fn set_feature(&mut self, r: &FeatureLevelRecord) -> Change {
        let features = Arc::make_mut(&mut self.features);
        match r.feature_level {
            0 => drop(features.remove(&r.name)),
            level => drop(features.insert(r.name.clone(), level)),
        }
        Change::FeatureChanged(r.name.clone())
    }

    fn give_producer_ids(&mut self, next: i64) -> Result<Change, ApplyError> {
        if next < self.next_producer_id {
            return wrong(format!("producer ids go back from {} to {next}", self.next_producer_id));
        }
        self.next_producer_id = next;
        Ok(Change::ProducerIds)
    }
}

#[cfg(test)]
#[path = "apply_test.rs"]
mod tests;
