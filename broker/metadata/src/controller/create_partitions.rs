//! CreatePartitions: topics grow, what they hold stays where it is.

use std::collections::BTreeSet;

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use klamm_protocol::messages::create_partitions_response::{CreatePartitionsResponse, CreatePartitionsTopicResult};

use super::create_topics::named_twice;
use super::{ApiError, Context, Decision, Operation, RECORDS_MAX, fields, replicas, too_large};
use crate::dump::partition_record;
use crate::image::{Image, Partition};
use crate::placement;
use crate::record::MetadataRecord;

/// Decides about a CreatePartitions request.
pub fn create_partitions(
    image: &Image,
    request: &CreatePartitionsRequest,
    ctx: &Context<'_>,
) -> Decision<CreatePartitionsResponse> {
    let twice = named_twice(request.topics.iter().map(|t| t.name.as_str()));
    let mut records = Vec::new();
    let mut results = Vec::new();
    let mut answered = BTreeSet::new();
    for topic in &request.topics {
        if !answered.insert(topic.name.as_str()) {
            continue;
        }
        let outcome = if twice.contains(topic.name.as_str()) {
            Err(ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else if !(ctx.may)(Operation::Alter, &topic.name) {
            Err(ErrorCode::TopicAuthorizationFailed.into())
        } else {
            grow(image, topic, ctx, &mut records)
        };
        let (error_code, error_message) = fields(&outcome);
        results.push(CreatePartitionsTopicResult { name: topic.name.clone(), error_code, error_message });
    }
    if request.validate_only {
        records.clear();
    }
    Decision { records, response: CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() } }
}

fn grow(
    image: &Image,
    wanted: &CreatePartitionsTopic,
    ctx: &Context<'_>,
    records: &mut Vec<MetadataRecord>,
) -> Result<(), ApiError> {
    let topic = image.topic(&wanted.name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let present = topic.partitions.len() as i32;
    if wanted.count == present {
        let text = format!("Topic already has {present} partition(s).");
        return Err(ApiError::new(ErrorCode::InvalidPartitions, text));
    }
    if wanted.count < present {
        let text = format!(
            "The topic {} currently has {present} partition(s); {} would not be an increase.",
            wanted.name, wanted.count
        );
        return Err(ApiError::new(ErrorCode::InvalidPartitions, text));
    }
    let additional = wanted.count - present;
    if let Some(assignments) = wanted.assignments.as_ref().filter(|a| a.len() != additional as usize) {
        let text = format!(
            "Attempted to add {additional} additional partition(s), but only {} assignment(s) were specified.",
            assignments.len()
        );
        return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, text));
    }
    // Before anything of that size is laid out.
    if additional as usize + records.len() > RECORDS_MAX {
        return Err(too_large());
    }
    let factor = topic.replication_factor();
    let new: Result<Vec<Partition>, ApiError> = match &wanted.assignments {
        Some(assignments) => (present..)
            .zip(assignments)
            .map(|(number, assignment)| {
                replicas::check_manual(image, &assignment.broker_ids, &[], Some(factor as usize))?;
                replicas::manual(image, number, &assignment.broker_ids)
            })
            .collect(),
        None => {
            let lists = placement::place(image, present, additional, factor, ctx.seed)?;
            lists.into_iter().map(|list| replicas::placed(image, list)).collect()
        }
    };
    records.extend((present..).zip(new?).map(|(number, p)| partition_record(topic.id, number, &p).into()));
    Ok(())
}
