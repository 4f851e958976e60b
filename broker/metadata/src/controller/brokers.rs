//! Brokers come and go: registration and removal.

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::{PartitionChangeRecord, UnregisterBrokerRecord};

use super::{ApiError, Decision};
use crate::dump::registration;
use crate::image::{Broker, Image};
use crate::record::MetadataRecord;

/// A broker that wants to be registered.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The cluster it believes to belong to.
    pub cluster_id: String,
    /// What to register; its epoch is overwritten.
    pub broker: Broker,
    /// Whether its last run ended in order, so that its logs hold all that they held then.
    pub clean: bool,
}

/// Registers a broker under `new_epoch`, which must be higher than all given before (the next offset of the
/// metadata log is), and answers with the epoch that counts. The same incarnation keeps its epoch.
///
/// A new incarnation after an unclean end leads under a new leader epoch: its logs may have lost their tails, and
/// other records under the same offset and epoch would go unnoticed by consumers and followers.
pub fn register_broker(image: &Image, wanted: &Registration, new_epoch: i64) -> Result<Decision<i64>, ApiError> {
    let invalid = |text: String| Err(ApiError::new(ErrorCode::InvalidRegistration, text));
    let mut broker = wanted.broker.clone();
    if wanted.cluster_id != image.cluster_id() {
        let text = format!("Expected cluster ID {}, but got cluster ID {}", image.cluster_id(), wanted.cluster_id);
        return Err(ApiError::new(ErrorCode::InconsistentClusterId, text));
    }
    for (i, directory) in broker.log_dirs.iter().enumerate() {
        if broker.log_dirs[..i].contains(directory) {
            return invalid("Duplicate directory ID in request".into());
        }
        if let Some(other) = image.brokers().find(|b| b.id != broker.id && b.log_dirs.contains(directory)) {
            return invalid(format!("Broker {} is already registered with directory {directory}", other.id));
        }
    }
    let existing = image.broker(broker.id);
    let same = existing.filter(|b| b.incarnation == broker.incarnation);
    let mut records = Vec::new();
    broker.epoch = same.map_or(new_epoch, |b| b.epoch);
    records.push(MetadataRecord::from(registration(&broker)));
    if existing.is_some() && same.is_none() && !wanted.clean && broker.is_active() {
        records.extend(image.topics().flat_map(|topic| {
            let led = (0..).zip(&topic.partitions).filter(|(_, p)| p.leader == broker.id);
            led.map(|(partition_id, _)| {
                let change =
                    PartitionChangeRecord { partition_id, topic_id: topic.id, leader: broker.id, ..Default::default() };
                MetadataRecord::from(change)
            })
        }));
    }
    Ok(Decision { records, response: broker.epoch })
}

/// Removes a broker that is gone for good.
pub fn unregister_broker(image: &Image, broker_id: i32) -> Result<Decision<()>, ApiError> {
    let Some(broker) = image.broker(broker_id) else {
        let text = format!("Broker ID {broker_id} is not currently registered");
        return Err(ApiError::new(ErrorCode::BrokerIdNotRegistered, text));
    };
    let record = UnregisterBrokerRecord { broker_id, broker_epoch: broker.epoch };
    Ok(Decision { records: vec![record.into()], response: () })
}
