//! Topics as the brokers have them: reading several at once, and doing what was decided about one.

use std::collections::{BTreeMap, BTreeSet};

use klamm_client::admin::configs::{ConfigChange, ConfigEntry, ConfigSource, Resource};
use klamm_client::admin::offsets::OffsetSpec;
use klamm_client::admin::reassignments::Reassignment;
use klamm_client::admin::topics::NewTopic;
use klamm_client::{Client, ClientError, Isolation, Result, Topic, TopicPartition};
use klamm_planner::Wish;
use klamm_protocol::error::ErrorCode;

use super::desired::Desired;
use super::plan::{Facts, PartitionFacts, Step};
use crate::brokers::Brokers;

/// How these topics are, in their order; `None` where there is none.
///
/// # Errors
/// The brokers cannot be reached.
pub async fn facts(client: &Client, names: &[String]) -> Result<Vec<Result<Option<Facts>>>> {
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    let known = client.refresh(Some(&asked)).await?;
    let found: Vec<Result<Option<&Topic>>> = asked.iter().map(|name| exists(known.topics.get(*name))).collect();
    let there: Vec<&Topic> = found.iter().flatten().copied().flatten().collect();
    if there.is_empty() {
        return Ok(found.into_iter().map(|topic| topic.map(|_| None)).collect());
    }
    let partitions = there
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| TopicPartition::new(&topic.name, partition.index)));
    let moving = client.reassignments(Some(&partitions.collect())).await?;
    let names: Vec<&str> = there.iter().map(|topic| topic.name.as_str()).collect();
    let mut configs = client.describe_topics_configs(&names).await?.into_iter();
    let facts = found.into_iter().map(|topic| match topic? {
        None => Ok(None),
        Some(topic) => {
            let entries = configs.next().unwrap_or_else(|| Ok(Vec::new()));
            match entries {
                // Deleted between the two questions.
                Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => Ok(None),
                entries => Ok(Some(described(topic, &moving, entries?))),
            }
        }
    });
    Ok(facts.collect())
}

fn exists(topic: Option<&Topic>) -> Result<Option<&Topic>> {
    match topic {
        None => Ok(None),
        Some(topic) if topic.error == ErrorCode::None => Ok(Some(topic)),
        Some(topic) if topic.error == ErrorCode::UnknownTopicOrPartition => Ok(None),
        Some(topic) => ClientError::check(format!("topic {}", topic.name), topic.error.code(), None).map(|()| None),
    }
}

fn described(topic: &Topic, moving: &BTreeMap<TopicPartition, Reassignment>, entries: Vec<ConfigEntry>) -> Facts {
    let partitions = topic.partitions.iter().map(|partition| {
        let moved = moving.get(&TopicPartition::new(&topic.name, partition.index));
        PartitionFacts {
            leader: (partition.leader >= 0).then_some(partition.leader),
            replicas: moved.map_or_else(|| partition.replicas.clone(), Reassignment::target),
            in_sync: partition.isr.len(),
            moving: moved.is_some(),
        }
    });
    let least = entries.iter().find(|entry| entry.name == "min.insync.replicas");
    let min_in_sync = least.and_then(|entry| entry.value.as_ref()?.parse().ok()).unwrap_or(1);
    let own = entries.into_iter().filter(|entry| entry.source == ConfigSource::Topic);
    Facts {
        id: topic.id.to_string(),
        internal: topic.internal,
        partitions: partitions.collect(),
        min_in_sync,
        config: own.filter_map(|entry| Some((entry.name, entry.value?))).collect(),
    }
}

/// Does one thing. Answers the id of a topic that it has made.
///
/// # Errors
/// The brokers cannot be reached, or refuse; with why.
pub async fn carry_out(brokers: &Brokers, desired: &Desired, step: &Step) -> Result<Option<String>> {
    let name = &desired.name;
    let done = match step {
        Step::Create => {
            let topic = NewTopic {
                name: name.clone(),
                partitions: desired.partitions,
                replication_factor: desired.replication_factor.and_then(|factor| i16::try_from(factor).ok()),
                configs: desired.config.clone().into_iter().collect(),
                ..NewTopic::default()
            };
            return brokers.create(topic).await.map(|made| Some(made.id.to_string()));
        }
        Step::Grow(count) => brokers.ask(async |client| client.create_partitions(name, *count, false).await).await,
        Step::Configure { set, reset } => {
            let set = set.iter().map(|(key, value)| ConfigChange::Set(key.clone(), value.clone()));
            let changes: Vec<_> = set.chain(reset.iter().cloned().map(ConfigChange::Delete)).collect();
            let topic = Resource::Topic(name.clone());
            brokers.ask(async |client| client.alter_configs(&topic, &changes, false).await).await
        }
        Step::Replicate { target, partitions } => {
            brokers.ask(async |client| replicate(client, name, *target, partitions).await).await
        }
    };
    done.map(|()| None)
}

/// Whether nobody has ever written to a topic.
///
/// # Errors
/// A partition has no leader, or the brokers cannot be reached.
pub async fn is_new(client: &Client, name: &str, partitions: usize) -> Result<bool> {
    let all = (0..).take(partitions).map(|index| TopicPartition::new(name, index)).collect();
    let ends = client.list_offsets(&all, OffsetSpec::Latest, Isolation::ReadUncommitted).await?;
    let ends = ends.into_values().collect::<Result<Vec<_>>>()?;
    Ok(ends.len() == partitions && ends.iter().all(|end| end.offset == 0))
}

async fn replicate(client: &Client, name: &str, target: i32, partitions: &[i32]) -> Result<()> {
    let wanted = places(client, name, target, partitions).await?;
    let results = client.alter_reassignments(&wanted).await?;
    results.into_values().collect::<Result<Vec<()>>>().map(|_| ())
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
