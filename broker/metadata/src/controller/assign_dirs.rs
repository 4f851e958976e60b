//! AssignReplicasToDirs: a broker says in which log directory it keeps which replica.
//!
//! A replica that turns up in another directory while the one it was in is gone is a new, empty one: whatever the
//! cluster believed of the old one ends here. The reserved directory LOST says that a replica is damaged: it leaves the
//! ISR, is not eligible for anything, and its partition gets a new leader epoch, so that no fetch from before counts for
//! it. The broker may then throw away what it has. That is granted only where another replica in sync can lead.

use klamm_protocol::Uuid;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::assign_replicas_to_dirs_request::AssignReplicasToDirsRequest;
use klamm_protocol::messages::assign_replicas_to_dirs_response::{
    AssignReplicasToDirsResponse, DirectoryData, PartitionData, TopicData,
};

use super::heartbeats::check_epoch;
use super::partition_change::{Election, PartitionChange, can_lead};
use super::policy::Policy;
use super::{ApiError, Decision, RECORDS_MAX};
use crate::image::{Broker, Image};
use crate::record::MetadataRecord;

/// Decides about an AssignReplicasToDirs request.
pub fn assign_replicas_to_dirs(
    image: &Image,
    request: &AssignReplicasToDirsRequest,
    policy: &Policy,
) -> Result<Decision<AssignReplicasToDirsResponse>, ApiError> {
    let broker = check_epoch(image, request.broker_id, request.broker_epoch)?;
    let mut records = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut directories = Vec::new();
    for directory in &request.directories {
        let mut topics = Vec::new();
        for topic in &directory.topics {
            let mut partitions = Vec::new();
            for partition in &topic.partitions {
                let number = partition.partition_index;
                let outcome = match seen.insert((topic.topic_id, number)) {
                    false => Err(ErrorCode::InvalidRequest),
                    true if records.len() >= RECORDS_MAX => Err(ErrorCode::OperationNotAttempted),
                    true => assign(image, broker, topic.topic_id, number, directory.id, policy),
                };
                let outcome = outcome.map(|record| records.extend(record));
                let error_code = outcome.err().unwrap_or(ErrorCode::None).code();
                partitions.push(PartitionData { partition_index: number, error_code });
            }
            topics.push(TopicData { topic_id: topic.topic_id, partitions });
        }
        directories.push(DirectoryData { id: directory.id, topics });
    }
    let response = AssignReplicasToDirsResponse { directories, ..AssignReplicasToDirsResponse::default() };
    Ok(Decision { records, response })
}

/// Takes a damaged replica out of everything.
fn lose(image: &Image, broker: &Broker, mut change: PartitionChange<'_>) -> Result<Option<MetadataRecord>, ErrorCode> {
    let partition = change.before();
    let leads = |id: &i32| *id != broker.id && can_lead(image, partition, *id);
    if !partition.isr.iter().any(leads) {
        // It may be the last that has something, damaged or not.
        return Err(ErrorCode::EligibleLeadersNotAvailable);
    }
    if partition.directory(broker.id) == Uuid::LOST_DIRECTORY && !partition.isr.contains(&broker.id) {
        return Ok(None);
    }
    change.directories.push((broker.id, Uuid::LOST_DIRECTORY));
    change.election = Election::Online;
    change.new_epoch = true;
    let record = change.distrust(broker.id).build(&|id| leads(&id));
    Ok(record.map(Into::into))
}

fn assign(
    image: &Image,
    broker: &Broker,
    topic: Uuid,
    number: i32,
    directory: Uuid,
    policy: &Policy,
) -> Result<Option<MetadataRecord>, ErrorCode> {
    let topic = image.topic_by_id(topic).ok_or(ErrorCode::UnknownTopicId)?;
    let partition = topic.partition(number).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if !partition.replicas.contains(&broker.id) {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    let mut change = PartitionChange::new(image, partition, topic.id, number, policy.of(image, &topic.name));
    if directory == Uuid::LOST_DIRECTORY {
        return lose(image, broker, change);
    }
    change.directories.push((broker.id, directory));
    let (online, old) = (broker.has_directory(directory), partition.directory(broker.id));
    let in_lost_directory = old != directory && !broker.has_directory(old);
    if in_lost_directory {
        change = change.forget(broker.id);
    } else if !online {
        change = change.without(broker.id);
    }
    let out = in_lost_directory || !online;
    let record = change.build(&|id| !(out && id == broker.id) && can_lead(image, partition, id));
    Ok(record.map(Into::into))
}

#[cfg(test)]
#[path = "assign_dirs_test.rs"]
mod tests;
