//! AlterPartition: a leader says who is in sync with it. The controller checks that leader and members are what
//! they seem, and completes a reassignment when its replicas are all in.

use std::collections::BTreeSet;

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::PartitionChangeRecord;
use klamm_protocol::messages::alter_partition_request::{AlterPartitionRequest, PartitionData};
use klamm_protocol::messages::alter_partition_response::{AlterPartitionResponse, PartitionData as Answer, TopicData};

use super::heartbeats::check_epoch;
use super::mistakes::{Mistake, made};
use super::partition_change::{PartitionChange, RECOVERED, RECOVERING, can_lead};
use super::policy::Policy;
use super::{ApiError, Decision, RECORDS_MAX};
use crate::image::{Image, Partition, Topic};
use crate::record::MetadataRecord;

/// Decides about an AlterPartition request. Version 2 names the members without their brokers' epochs.
pub fn alter_partition(
    image: &Image,
    request: &AlterPartitionRequest,
    version: i16,
    policy: &Policy,
) -> Result<Decision<AlterPartitionResponse>, ApiError> {
    check_epoch(image, request.broker_id, request.broker_epoch)?;
    let mut records = Vec::new();
    let mut topics = Vec::new();
    let mut seen = BTreeSet::new();
    for asked in &request.topics {
        let topic = image.topic_by_id(asked.topic_id);
        let rules = topic.map(|topic| policy.of(image, &topic.name));
        let mut partitions = Vec::new();
        for data in &asked.partitions {
            let number = data.partition_index;
            let outcome = match topic.zip(rules) {
                None => Err(ErrorCode::UnknownTopicId),
                // The first of them gives the partition a new epoch.
                Some(_) if !seen.insert((asked.topic_id, number)) => Err(ErrorCode::InvalidUpdateVersion),
                Some(_) if records.len() >= RECORDS_MAX => Err(ErrorCode::OperationNotAttempted),
                Some((topic, rules)) => alter(image, topic, data, request.broker_id, version, rules, &mut records),
            };
            partitions.push(outcome.unwrap_or_else(|code| Answer {
                partition_index: number,
                error_code: code.code(),
                ..Answer::default()
            }));
        }
        topics.push(TopicData { topic_id: asked.topic_id, partitions });
    }
    Ok(Decision { records, response: AlterPartitionResponse { topics, ..AlterPartitionResponse::default() } })
}

fn alter(
    image: &Image,
    topic: &Topic,
    data: &PartitionData,
    leader: i32,
    version: i16,
    rules: Policy,
    records: &mut Vec<MetadataRecord>,
) -> Result<Answer, ErrorCode> {
    let number = data.partition_index;
    let partition = topic.partition(number).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let members: Vec<(i32, i64)> = match version {
        3.. => data.new_isr_with_epochs.iter().map(|m| (m.broker_id, m.broker_epoch)).collect(),
        _ => data.new_isr.iter().map(|id| (*id, -1)).collect(),
    };
    check(image, partition, data, leader, &members)?;
    let isr: Vec<i32> = members.iter().map(|(id, _)| *id).collect();
    let mut change = PartitionChange::new(image, partition, topic.id, number, rules);
    change.recovery = data.leader_recovery_state;
    // Who has caught up did so where its broker keeps its replicas now, also when it once was on another disk.
    for id in isr.iter().filter(|id| !partition.isr.contains(id)) {
        if let Some(broker) = image.broker(*id)
            && !broker.has_directory(partition.directory(*id))
        {
            change.directories.push((*id, broker.default_directory()));
        }
    }
    let placed = change.directories.clone();
    change.isr = isr;
    let joined = |id: i32| placed.iter().any(|(broker, _)| *broker == id) && image.is_active(id);
    let mut after = Partition::clone(partition);
    // A leader that proposes what there is wants a new version, so that proposals of its own that it has given up, and that
    // may still be on their way, come to nothing.
    let same = || PartitionChangeRecord {
        partition_id: number,
        topic_id: topic.id,
        isr: Some(partition.isr.clone()),
        ..PartitionChangeRecord::default()
    };
    let record = change.build(&|id| joined(id) || can_lead(image, partition, id)).unwrap_or_else(same);
    after.merge(&record);
    records.push(record.into());
    if after.leader != leader {
        return Err(ErrorCode::NewLeaderElected);
    }
    Ok(Answer {
        partition_index: number,
        error_code: ErrorCode::None.code(),
        leader_id: after.leader,
        leader_epoch: after.leader_epoch,
        isr: after.isr,
        leader_recovery_state: after.leader_recovery_state,
        partition_epoch: after.partition_epoch,
    })
}

fn check(
    image: &Image,
    partition: &Partition,
    data: &PartitionData,
    leader: i32,
    members: &[(i32, i64)],
) -> Result<(), ErrorCode> {
    // An epoch from the future: the sender knows a controller newer than this one.
    if data.leader_epoch > partition.leader_epoch || data.partition_epoch > partition.partition_epoch {
        return Err(ErrorCode::NotController);
    }
    if data.leader_epoch < partition.leader_epoch && !made(Mistake::StaleIsrAccepted) {
        return Err(ErrorCode::FencedLeaderEpoch);
    }
    if leader != partition.leader {
        return Err(ErrorCode::InvalidRequest);
    }
    if data.partition_epoch < partition.partition_epoch && !made(Mistake::StaleIsrAccepted) {
        return Err(ErrorCode::InvalidUpdateVersion);
    }
    let ids: BTreeSet<i32> = members.iter().map(|(id, _)| *id).collect();
    if ids.len() != members.len() || !ids.iter().all(|id| partition.replicas.contains(id)) || !ids.contains(&leader) {
        return Err(ErrorCode::InvalidRequest);
    }
    let recovery = data.leader_recovery_state;
    let alone = members.len() == 1 && partition.leader_recovery_state == RECOVERING;
    if !(recovery == RECOVERED || (recovery == RECOVERING && alone)) {
        return Err(ErrorCode::InvalidRequest);
    }
    let eligible = |(id, epoch): &(i32, i64)| {
        let same = |known: i64| *epoch == -1 || *epoch == known || made(Mistake::StaleJoinerAccepted);
        image.broker(*id).is_some_and(|b| b.is_active() && same(b.epoch))
    };
    match members.iter().all(eligible) {
        true => Ok(()),
        false => Err(ErrorCode::IneligibleReplica),
    }
}
