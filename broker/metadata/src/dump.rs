//! The image as records: what a snapshot holds. Applying them to an empty image gives the same image.

use klamm_protocol::messages::*;

use crate::image::{Broker, Image, Partition, Resource};
use crate::record::MetadataRecord;
use klamm_protocol::Uuid;

impl Image {
    /// Records that make this image out of an empty one.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::with_capacity(self.topics.len() + self.partitions + self.configs.len() + 16);
        for (name, level) in self.features.iter() {
            records.push(FeatureLevelRecord { name: name.clone(), feature_level: *level }.into());
        }
        for broker in self.brokers() {
            records.push(registration(broker).into());
        }
        for topic in self.topics() {
            records.push(TopicRecord { name: topic.name.to_string(), topic_id: topic.id }.into());
            for (number, partition) in (0..).zip(&topic.partitions) {
                records.push(partition_record(topic.id, number, partition).into());
            }
        }
        for (resource, entries) in self.configs.iter() {
            for (name, value) in entries.iter() {
                records.push(config_record(resource, name, Some(value)).into());
            }
        }
        if self.next_producer_id > 0 {
            let next_producer_id = self.next_producer_id;
            records.push(ProducerIdsRecord { broker_id: -1, broker_epoch: -1, next_producer_id }.into());
        }
        records
    }
}

/// The record that creates a partition.
pub(crate) fn partition_record(topic_id: Uuid, partition_id: i32, partition: &Partition) -> PartitionRecord {
    let unless_empty = |list: &Vec<i32>| (!list.is_empty()).then(|| list.clone());
    PartitionRecord {
        partition_id,
        topic_id,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
        removing_replicas: partition.removing_replicas.clone(),
        adding_replicas: partition.adding_replicas.clone(),
        leader: partition.leader,
        leader_recovery_state: partition.leader_recovery_state,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        directories: partition.directories.clone(),
        eligible_leader_replicas: unless_empty(&partition.elr),
        last_known_elr: unless_empty(&partition.last_known_elr),
    }
}

/// The record that sets or removes a configuration key.
pub(crate) fn config_record(resource: &Resource, name: &str, value: Option<&str>) -> ConfigRecord {
    ConfigRecord {
        resource_type: resource.kind as i8,
        resource_name: resource.name.to_string(),
        name: name.to_owned(),
        value: value.map(str::to_owned),
    }
}

/// The record that registers a broker.
pub(crate) fn registration(broker: &Broker) -> RegisterBrokerRecord {
    let endpoint = |e: &crate::image::Endpoint| register_broker_record::BrokerEndpoint {
        name: e.name.clone(),
        host: e.host.clone(),
        port: e.port,
        security_protocol: e.security_protocol,
    };
    let feature = |f: &crate::image::SupportedFeature| register_broker_record::BrokerFeature {
        name: f.name.clone(),
        min_supported_version: f.min,
        max_supported_version: f.max,
    };
    RegisterBrokerRecord {
        broker_id: broker.id,
        incarnation_id: broker.incarnation,
        broker_epoch: broker.epoch,
        end_points: broker.endpoints.iter().map(endpoint).collect(),
        features: broker.features.iter().map(feature).collect(),
        rack: broker.rack.clone(),
        fenced: broker.fenced,
        in_controlled_shutdown: broker.in_controlled_shutdown,
        log_dirs: broker.log_dirs.clone(),
        cordoned_log_dirs: broker.cordoned_log_dirs.clone(),
        ..RegisterBrokerRecord::default()
    }
}
