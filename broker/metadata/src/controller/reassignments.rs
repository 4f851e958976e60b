//! AlterPartitionReassignments and ListPartitionReassignments: partitions move to other brokers.
//!
//! A reassignment first adds the new replicas to the old ones. It is complete when the new ones are all in sync,
//! which [`PartitionChange`] notices with any change; until then it can be cancelled or replaced.

use std::collections::BTreeSet;

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::PartitionChangeRecord;
use klamm_protocol::messages::alter_partition_reassignments_request::AlterPartitionReassignmentsRequest;
use klamm_protocol::messages::alter_partition_reassignments_response::{
    AlterPartitionReassignmentsResponse, ReassignablePartitionResponse, ReassignableTopicResponse,
};
use klamm_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;
use klamm_protocol::messages::list_partition_reassignments_response::{
    ListPartitionReassignmentsResponse, OngoingPartitionReassignment, OngoingTopicReassignment,
};

use super::partition_change::{PartitionChange, can_lead};
use super::replicas::check_manual;
use super::{ApiError, Context, Decision, Operation, RECORDS_MAX, too_large};
use crate::image::{Image, NO_LEADER, Partition, Topic};
use crate::index::Found;

/// Decides about an AlterPartitionReassignments request. `may` isn't asked: this is a right on the cluster.
pub fn alter_partition_reassignments(
    image: &Image,
    request: &AlterPartitionReassignmentsRequest,
    ctx: &Context<'_>,
) -> Decision<AlterPartitionReassignmentsResponse> {
    let mut records = Vec::new();
    let mut responses = Vec::new();
    let mut seen = BTreeSet::new();
    for asked in &request.topics {
        let mut partitions = Vec::new();
        for partition in &asked.partitions {
            let partition_index = partition.partition_index;
            let outcome = match seen.insert((asked.name.as_str(), partition_index)) {
                false => Err(ApiError::new(ErrorCode::InvalidRequest, "The partition is named twice.")),
                true if records.len() >= RECORDS_MAX => Err(too_large()),
                true => {
                    let wanted = partition.replicas.as_deref();
                    let free = request.allow_replication_factor_change;
                    reassign(image, &asked.name, partition_index, wanted, free, ctx)
                }
            };
            let outcome = outcome.map(|record| records.extend(record.map(Into::into)));
            let (error_code, error_message) = super::fields(&outcome);
            partitions.push(ReassignablePartitionResponse { partition_index, error_code, error_message });
        }
        responses.push(ReassignableTopicResponse { name: asked.name.clone(), partitions });
    }
    let response = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        responses,
        ..AlterPartitionReassignmentsResponse::default()
    };
    Decision { records, response }
}

fn reassign(
    image: &Image,
    name: &str,
    number: i32,
    wanted: Option<&[i32]>,
    free: bool,
    ctx: &Context<'_>,
) -> Result<Option<PartitionChangeRecord>, ApiError> {
    let unknown = |text: String| ApiError::new(ErrorCode::UnknownTopicOrPartition, text);
    let topic = image.topic(name).ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
    let partition = topic.partition(number);
    let partition = partition.ok_or_else(|| unknown(format!("Unable to find partition {name}:{number}.")))?;
    match wanted {
        None => cancel(image, topic, number, partition, ctx),
        Some(wanted) => start(image, topic, number, partition, wanted, free, ctx),
    }
}

fn start(
    image: &Image,
    topic: &Topic,
    number: i32,
    partition: &Partition,
    wanted: &[i32],
    free: bool,
    ctx: &Context<'_>,
) -> Result<Option<PartitionChangeRecord>, ApiError> {
    // What leaves a cordoned broker comes back only by a cancellation: else two who drain brokers would undo each other.
    let stays = |id: &i32| !partition.removing_replicas.contains(id);
    let kept: Vec<i32> = partition.replicas.iter().copied().filter(stays).collect();
    check_manual(image, wanted, &kept, None)?;
    let lasting = partition.replicas.iter().filter(|id| !partition.removing_replicas.contains(id)).count();
    if !free && lasting != wanted.len() {
        let text = format!("The replication factor is changed from {lasting} to {}", wanted.len());
        return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, text));
    }
    let mut change = PartitionChange::new(image, partition, topic.id, number, ctx.policy.of(image, &topic.name));
    let difference = |a: &[i32], b: &[i32]| a.iter().copied().filter(|id| !b.contains(id)).collect::<BTreeSet<i32>>();
    change.removing = difference(&partition.replicas, wanted).into_iter().collect();
    // What an earlier reassignment was about to bring stays known as such, wanted or not: a cancellation then leaves
    // what there was before the first of them (KIP-455). It is dropped only with the rest, since it may be in sync.
    let mut adding = difference(wanted, &partition.replicas);
    adding.extend(&partition.adding_replicas);
    change.adding = adding.into_iter().collect();
    change.replicas = wanted.iter().chain(&change.removing).copied().collect();
    let fresh = change.replicas.iter().filter(|id| !partition.replicas.contains(id));
    let placed = fresh.filter_map(|id| Some((*id, image.broker(*id)?.default_directory())));
    change.directories = placed.collect();
    let record = change.build(&|id| can_lead(image, partition, id));
    refuse_loss(partition, record, || {
        let text = format!("The reassignment of {}:{number} would leave it without a leader.", topic.name);
        ApiError::new(ErrorCode::InvalidReplicaAssignment, text)
    })
}

fn cancel(
    image: &Image,
    topic: &Topic,
    number: i32,
    partition: &Partition,
    ctx: &Context<'_>,
) -> Result<Option<PartitionChangeRecord>, ApiError> {
    if !partition.is_reassigning() {
        return Err(ErrorCode::NoReassignmentInProgress.into());
    }
    let policy = ctx.policy.of(image, &topic.name);
    let mut change = PartitionChange::new(image, partition, topic.id, number, policy);
    change.replicas.retain(|id| !partition.adding_replicas.contains(id));
    change.isr.retain(|id| change.replicas.contains(id));
    change.removing.clear();
    change.adding.clear();
    let refusal = || {
        let text = format!(
            "Unable to revert partition assignment for {}:{number} because it would require an unclean leader \
             election.",
            topic.name
        );
        ApiError::new(ErrorCode::InvalidReplicaAssignment, text)
    };
    let original = |list: &[i32]| list.iter().any(|id| change.replicas.contains(id));
    let nothing_held = partition.isr.is_empty() && partition.elr.is_empty();
    // Should those of the ELR come back in disorder, the last leader is the best there is.
    let last_stays =
        partition.leader != NO_LEADER || partition.last_known_elr.iter().all(|id| change.replicas.contains(id));
    let holder = last_stays && (nothing_held || original(&partition.isr) || original(&partition.elr));
    if !(holder || policy.unclean) || change.replicas.is_empty() {
        return Err(refusal());
    }
    let record = change.build(&|id| can_lead(image, partition, id));
    refuse_loss(partition, record, refusal)
}

/// A partition that has a leader keeps one.
fn refuse_loss(
    partition: &Partition,
    record: Option<PartitionChangeRecord>,
    refusal: impl FnOnce() -> ApiError,
) -> Result<Option<PartitionChangeRecord>, ApiError> {
    match &record {
        Some(change) if change.leader == NO_LEADER && partition.leader != NO_LEADER => Err(refusal()),
        _ => Ok(record),
    }
}

/// Which partitions are being moved: all, or those of the topics named.
pub fn list_partition_reassignments(
    image: &Image,
    request: &ListPartitionReassignmentsRequest,
    may: &dyn Fn(Operation, &str) -> bool,
) -> ListPartitionReassignmentsResponse {
    let mut topics: Vec<OngoingTopicReassignment> = Vec::new();
    let mut add = |(topic, number, partition): Found<'_>| {
        let ongoing = OngoingPartitionReassignment {
            partition_index: number,
            replicas: partition.replicas.clone(),
            adding_replicas: partition.adding_replicas.clone(),
            removing_replicas: partition.removing_replicas.clone(),
        };
        match topics.last_mut() {
            Some(last) if last.name == *topic.name => last.partitions.push(ongoing),
            _ => topics.push(OngoingTopicReassignment { name: topic.name.to_string(), partitions: vec![ongoing] }),
        }
    };
    match &request.topics {
        None => image.reassigning().filter(|(topic, _, _)| may(Operation::Describe, &topic.name)).for_each(add),
        Some(asked) => {
            for wanted in asked {
                let topic = image.topic(&wanted.name).filter(|topic| may(Operation::Describe, &topic.name));
                for number in &wanted.partition_indexes {
                    let partition = topic.and_then(|topic| Some((topic, topic.partition(*number)?)));
                    match partition {
                        Some((topic, partition)) if partition.is_reassigning() => add((topic, *number, partition)),
                        _ => {}
                    }
                }
            }
        }
    }
    ListPartitionReassignmentsResponse { topics, ..ListPartitionReassignmentsResponse::default() }
}

#[cfg(test)]
#[path = "reassignments_test.rs"]
mod tests;
