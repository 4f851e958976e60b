//! CreateTopics: names, counts, assignments and configurations of new topics.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use klamm_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use klamm_protocol::messages::*;

use super::{ApiError, Context, Decision, Operation, RECORDS_MAX, replicas, too_large};
use crate::dump::{config_record, partition_record};
use crate::image::{Entries, Image, Partition, Resource};
use crate::names;
use crate::placement;
use crate::record::MetadataRecord;

/// A request may bring this many partitions; more are refused before anything is laid out in memory.
const PARTITIONS_MAX: i64 = 10_000;

/// Decides about a CreateTopics request.
pub fn create_topics(
    image: &Image,
    request: &CreateTopicsRequest,
    ctx: &Context<'_>,
) -> Decision<CreateTopicsResponse> {
    let twice = named_twice(request.topics.iter().map(|t| t.name.as_str()));
    let mut records = Vec::new();
    let mut results = Vec::new();
    let mut answered = BTreeSet::new();
    let total: i64 = request.topics.iter().filter(|t| !twice.contains(&*t.name)).map(|t| partitions(t, ctx)).sum();
    for topic in &request.topics {
        if !answered.insert(topic.name.as_str()) {
            continue;
        }
        let outcome = if twice.contains(topic.name.as_str()) {
            Err(ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else if topic.name == names::CLUSTER_METADATA {
            let text = format!("Creation of internal topic {} is prohibited.", names::CLUSTER_METADATA);
            Err(ApiError::new(ErrorCode::InvalidRequest, text))
        } else if !(ctx.may)(Operation::Create, &topic.name) {
            Err(ApiError::new(ErrorCode::TopicAuthorizationFailed, "Authorization failed."))
        } else if total > PARTITIONS_MAX {
            Err(ApiError::new(ErrorCode::PolicyViolation, "Excessively large number of partitions per request."))
        } else {
            create(image, topic, ctx, &mut records)
        };
        results.push(outcome.unwrap_or_else(|error| refused(&topic.name, error)));
    }
    if records.len() > RECORDS_MAX {
        let results = results.into_iter().map(|r| refused(&r.name, too_large())).collect();
        return Decision::only(CreateTopicsResponse { topics: results, ..CreateTopicsResponse::default() });
    }
    if request.validate_only {
        records.clear();
    }
    Decision { records, response: CreateTopicsResponse { topics: results, ..CreateTopicsResponse::default() } }
}

/// A CreateTopics request for topics with the broker's defaults, as auto-creation makes it.
pub fn named_topics<'n>(names: impl IntoIterator<Item = &'n str>) -> CreateTopicsRequest {
    let topic = |name: &str| CreatableTopic {
        name: name.to_owned(),
        num_partitions: -1,
        replication_factor: -1,
        ..CreatableTopic::default()
    };
    let topics = names.into_iter().map(topic).collect();
    CreateTopicsRequest { topics, ..CreateTopicsRequest::default() }
}

/// Names that occur more than once.
pub(super) fn named_twice<'n>(names: impl Iterator<Item = &'n str>) -> BTreeSet<&'n str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

fn refused(name: &str, error: ApiError) -> CreatableTopicResult {
    CreatableTopicResult {
        name: name.to_owned(),
        error_code: error.code.code(),
        error_message: error.message,
        ..CreatableTopicResult::default()
    }
}

/// Partitions that a topic asks for, as far as its numbers make sense.
fn partitions(topic: &CreatableTopic, ctx: &Context<'_>) -> i64 {
    match topic.num_partitions {
        _ if !topic.assignments.is_empty() => topic.assignments.len() as i64,
        -1 => ctx.num_partitions.into(),
        n => i64::from(n.max(0)),
    }
}

fn create(
    image: &Image,
    topic: &CreatableTopic,
    ctx: &Context<'_>,
    records: &mut Vec<MetadataRecord>,
) -> Result<CreatableTopicResult, ApiError> {
    check_name(image, &topic.name)?;
    let own = own_configs(topic)?;
    let resource = Resource::topic(&topic.name);
    super::alter_configs::check_values(&own)?;
    ctx.rules.check(&resource, &own).map_err(|text| ApiError::new(ErrorCode::InvalidConfig, text))?;
    let partitions = if topic.assignments.is_empty() { place(image, topic, ctx)? } else { assigned(image, topic)? };
    let mut topic_id = (ctx.new_id)();
    while topic_id.is_zero() || image.topic_by_id(topic_id).is_some() {
        topic_id = (ctx.new_id)();
    }
    let mut result = CreatableTopicResult { name: topic.name.clone(), topic_id, ..CreatableTopicResult::default() };
    if (ctx.may)(Operation::DescribeConfigs, &topic.name) {
        result.num_partitions = partitions.len() as i32;
        result.replication_factor = partitions.first().map_or(-1, |p| p.replicas.len() as i16);
        let mut configs = ctx.rules.effective_topic(image, &own);
        configs.sort_by(|a, b| a.name.cmp(&b.name));
        let configs = configs.into_iter().map(|c| CreatableTopicConfigs {
            name: c.name,
            value: if c.sensitive { None } else { c.value },
            read_only: c.read_only,
            config_source: c.source,
            is_sensitive: c.sensitive,
        });
        result.configs = Some(configs.collect());
    } else {
        result.topic_config_error_code = ErrorCode::TopicAuthorizationFailed.code();
    }
    records.push(TopicRecord { name: topic.name.clone(), topic_id }.into());
    records.extend(own.iter().map(|(name, value)| config_record(&resource, name, Some(value)).into()));
    let numbered = (0..).zip(&partitions);
    records.extend(numbered.map(|(number, p)| partition_record(topic_id, number, p).into()));
    Ok(result)
}

fn check_name(image: &Image, name: &str) -> Result<(), ApiError> {
    if image.topic(name).is_some() {
        return Err(ApiError::new(ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
    }
    if let Some(other) = image.colliding_topic(name) {
        let text = format!("Topic '{name}' collides with existing topic: {other}");
        return Err(ApiError::new(ErrorCode::InvalidTopicException, text));
    }
    names::check(name).map_err(|text| ApiError::new(ErrorCode::InvalidTopicException, text))
}

fn own_configs(topic: &CreatableTopic) -> Result<Entries, ApiError> {
    let nulls: Vec<&str> = topic.configs.iter().filter(|c| c.value.is_none()).map(|c| c.name.as_str()).collect();
    if !nulls.is_empty() {
        let text = format!("Null value not supported for topic configs: {}", nulls.join(","));
        return Err(ApiError::new(ErrorCode::InvalidConfig, text));
    }
    Ok(topic.configs.iter().filter_map(|c| Some((c.name.clone(), c.value.clone()?))).collect())
}

fn assigned(image: &Image, topic: &CreatableTopic) -> Result<Vec<Partition>, ApiError> {
    let contradiction = |what: &str| {
        let text = format!("A manual partition assignment was specified, but {what} was not set to -1.");
        Err(ApiError::new(ErrorCode::InvalidRequest, text))
    };
    if topic.replication_factor != -1 {
        return contradiction("replication factor");
    }
    if topic.num_partitions != -1 {
        return contradiction("numPartitions");
    }
    let mut by_number = BTreeMap::new();
    let mut factor = None;
    for assignment in &topic.assignments {
        let number = assignment.partition_index;
        if by_number.contains_key(&number) {
            let text = format!("Found multiple manual partition assignments for partition {number}");
            return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, text));
        }
        replicas::check_manual(image, &assignment.broker_ids, &[], factor)?;
        factor = Some(assignment.broker_ids.len());
        by_number.insert(number, replicas::manual(image, number, &assignment.broker_ids)?);
    }
    if !by_number.keys().copied().eq(0..by_number.len() as i32) {
        let text = "partitions should be a consecutive 0-based integer sequence";
        return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, text));
    }
    Ok(by_number.into_values().collect())
}

fn place(image: &Image, topic: &CreatableTopic, ctx: &Context<'_>) -> Result<Vec<Partition>, ApiError> {
    let or_default = |n: i32, default: i32| if n == -1 { default } else { n };
    let factor = or_default(topic.replication_factor.into(), ctx.replication_factor.into()) as i16;
    let count = or_default(topic.num_partitions, ctx.num_partitions);
    if topic.replication_factor < -1 || topic.replication_factor == 0 {
        let text = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, text));
    }
    if topic.num_partitions < -1 || topic.num_partitions == 0 {
        let text = "Number of partitions was set to an invalid non-positive value.";
        return Err(ApiError::new(ErrorCode::InvalidPartitions, text));
    }
    // Topics of one request must not all begin on the same broker.
    let seed = topic.name.bytes().fold(ctx.seed, |seed, byte| seed.rotate_left(7) ^ u64::from(byte));
    let lists = placement::place(image, 0, count, factor, seed).map_err(|error| {
        let reason = error.message.unwrap_or_default();
        ApiError::new(error.code, format!("Unable to replicate the partition {factor} time(s): {reason}"))
    })?;
    lists.into_iter().map(|list| replicas::placed(image, list)).collect()
}
