//! Topics as the brokers have them: reading one, and doing what was decided about it.

use std::collections::{BTreeMap, BTreeSet};

use klamm_client::admin::configs::{ConfigChange, ConfigSource, Resource};
use klamm_client::admin::topics::NewTopic;
use klamm_client::{Client, ClientError, Result, TopicPartition};
use klamm_planner::Wish;
use klamm_protocol::error::ErrorCode;

use super::desired::Desired;
use super::plan::{Facts, PartitionFacts, Step};

/// How a topic is; `None` when there is none.
///
/// # Errors
/// The brokers cannot be reached, or refuse.
pub async fn facts(client: &Client, name: &str) -> Result<Option<Facts>> {
    let known = client.refresh(Some(&[name])).await?;
    let topic = match known.topics.get(name) {
        Some(topic) if topic.error == ErrorCode::None => topic,
        Some(topic) if topic.error != ErrorCode::UnknownTopicOrPartition => {
            ClientError::check(format!("topic {name}"), topic.error.code(), None)?;
            return Ok(None);
        }
        _ => return Ok(None),
    };
    let partitions: BTreeSet<_> = topic.partitions.iter().map(|p| TopicPartition::new(name, p.index)).collect();
    let moving = client.reassignments(Some(&partitions)).await?;
    let partitions = topic.partitions.iter().map(|partition| {
        let moved = moving.get(&TopicPartition::new(name, partition.index));
        PartitionFacts {
            leader: (partition.leader >= 0).then_some(partition.leader),
            replicas: moved.map_or_else(|| partition.replicas.clone(), |moved| moved.target()),
            in_sync: partition.isr.len(),
            moving: moved.is_some(),
        }
    });
    let (id, partitions) = (topic.id.to_string(), partitions.collect());
    let entries = client.describe_configs(&Resource::Topic(name.to_owned()), None).await?;
    let (own, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.source == ConfigSource::Topic);
    let least = own.iter().chain(&others).find(|entry| entry.name == "min.insync.replicas");
    let min_in_sync = least.and_then(|entry| entry.value.as_ref()?.parse().ok()).unwrap_or(1);
    let config = own.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
    Ok(Some(Facts { id, partitions, min_in_sync, config: config.collect() }))
}

/// Does one thing.
///
/// # Errors
/// The brokers cannot be reached, or refuse; with why.
pub async fn carry_out(client: &Client, desired: &Desired, step: &Step) -> Result<()> {
    let name = &desired.name;
    match step {
        Step::Create => {
            let topic = NewTopic {
                name: name.clone(),
                partitions: desired.partitions,
                replication_factor: desired.replication_factor.and_then(|factor| i16::try_from(factor).ok()),
                configs: desired.config.clone().into_iter().collect(),
                ..NewTopic::default()
            };
            client.create_topic(&topic).await.map(|_| ())
        }
        Step::Grow(count) => client.create_partitions(name, *count, false).await,
        Step::Configure { set, reset } => {
            let set = set.iter().map(|(key, value)| ConfigChange::Set(key.clone(), value.clone()));
            let changes: Vec<_> = set.chain(reset.iter().cloned().map(ConfigChange::Delete)).collect();
            client.alter_configs(&Resource::Topic(name.clone()), &changes, false).await
        }
        Step::Replicate { target, partitions } => {
            let wanted = places(client, name, *target, partitions).await?;
            let results = client.alter_reassignments(&wanted).await?;
            results.into_values().collect::<Result<Vec<()>>>().map(|_| ())
        }
    }
}

/// Where the replicas of these partitions go: as few copies as possible, on other racks, where little is.
async fn places(
    client: &Client,
    name: &str,
    target: i32,
    partitions: &[i32],
) -> Result<BTreeMap<TopicPartition, Option<Vec<i32>>>> {
    let facts = client.placement().await?;
    let replicas = usize::try_from(target).unwrap_or(0);
    let wish = Wish {
        topics: Some(BTreeSet::from([name.to_owned()])),
        replication: BTreeMap::from([(name.to_owned(), replicas)]),
        even: false,
        ..Wish::default()
    };
    let plan = match klamm_planner::plan(&facts, &wish) {
        Ok(plan) => plan,
        Err(why) => {
            let code = ErrorCode::InvalidReplicationFactor.code();
            ClientError::check("the replication factor", code, Some(&why.to_string()))?;
            return Ok(BTreeMap::new());
        }
    };
    let ours = plan.moves.into_iter().filter(|one| one.topic == name && partitions.contains(&one.partition));
    Ok(ours.map(|one| (TopicPartition::new(name, one.partition), Some(one.to))).collect())
}
