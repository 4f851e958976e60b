//! Groups as the brokers have them.
//!
//! The order matters: first what is committed, then where partitions end, so that a group is never ahead of an end.

use std::collections::{BTreeMap, BTreeSet};

use klamm_client::admin::configs::{ConfigChange, Resource};
use klamm_client::admin::offsets::{CommittedOffset, OffsetSpec};
use klamm_client::{Client, Isolation, Result, TopicPartition};
use klamm_protocol::error::ErrorCode;

use super::facts::{Facts, PartitionFacts};
use super::lag::{ages, behind};

/// The group key that has a Klamm broker guard what its topics gain while it reads them.
const GUARD: &str = "klamm.new.partitions.guard";

/// Has the brokers guard a group, or no longer. Other brokers than Klamm's don't know how: nothing is asked of them then.
///
/// # Errors
/// The brokers cannot be reached, or refuse.
pub async fn guard(client: &Client, group: &str, wanted: bool) -> Result<()> {
    let resource = Resource::Group(group.to_owned());
    let found = match client.describe_configs(&resource, Some(&[GUARD.to_owned()])).await {
        Ok(found) => found,
        // From before groups had a configuration.
        Err(error) if matches!(error.code(), Some(ErrorCode::InvalidRequest | ErrorCode::UnsupportedVersion)) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let Some(entry) = found.into_iter().find(|entry| entry.name == GUARD) else { return Ok(()) };
    let change = match wanted {
        true if entry.value.as_deref() != Some("true") => ConfigChange::Set(GUARD.to_owned(), "true".to_owned()),
        false if entry.source.is_dynamic() => ConfigChange::Delete(GUARD.to_owned()),
        _ => return Ok(()),
    };
    client.alter_configs(&resource, &[change], false).await
}

/// How a group is, in `topics`, or where it has committed anything if there are none.
///
/// # Errors
/// The brokers cannot be reached, or refuse.
pub async fn facts(client: &Client, group: &str, topics: &[String]) -> Result<Facts> {
    let mut facts = Facts { state: "Dead".into(), ..Facts::default() };
    match client.describe_group(group).await {
        Ok(found) => {
            facts.members = found.members.len();
            facts.state = found.state;
        }
        Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => {}
        Err(error) => return Err(error),
    }
    let committed = client.group_offsets(group, true).await?;
    let named: BTreeSet<&str> = match topics.is_empty() {
        true => committed.keys().map(|at| at.topic.as_str()).collect(),
        false => topics.iter().map(String::as_str).collect(),
    };
    let asked: BTreeSet<&str> = named.iter().copied().chain(committed.keys().map(|at| at.topic.as_str())).collect();
    if asked.is_empty() {
        return Ok(facts);
    }
    let known = client.refresh(Some(&asked.into_iter().collect::<Vec<_>>())).await?;
    let there = |topic: &str| known.topics.get(topic).filter(|found| found.error == ErrorCode::None);
    facts.missing = named.iter().filter(|topic| there(topic).is_none()).map(|topic| (*topic).to_owned()).collect();
    let gone = |at: &&TopicPartition| there(&at.topic).is_none_or(|topic| topic.partition(at.partition).is_none());
    facts.stale = committed.keys().filter(gone).cloned().collect();
    let partitions = named.iter().filter_map(|topic| there(topic));
    let partitions: BTreeSet<TopicPartition> = partitions
        .flat_map(|topic| topic.partitions.iter().map(|p| TopicPartition::new(&topic.name, p.index)))
        .collect();
    if partitions.is_empty() {
        return Ok(facts);
    }
    let ends = client.list_offsets(&partitions, OffsetSpec::Latest, Isolation::ReadUncommitted).await?;
    let starts = client.list_offsets(&partitions, OffsetSpec::Earliest, Isolation::ReadUncommitted).await?;
    let marked =
        committed.iter().filter_map(|(at, own)| Some((at.clone(), own.metadata.strip_prefix(MARK)?.to_owned())));
    facts.marks = marked.collect();
    for at in partitions {
        let (Some(Ok(end)), Some(Ok(start))) = (ends.get(&at), starts.get(&at)) else {
            facts.unknown.insert(at);
            continue;
        };
        let own = committed.get(&at).map(|committed| committed.offset);
        if own.is_some_and(|offset| offset > end.offset) {
            facts.stale.insert(at.clone());
        }
        let committed = own.filter(|offset| *offset <= end.offset);
        facts.partitions.insert(at, PartitionFacts { committed, start: start.offset, end: end.offset });
    }
    Ok(facts)
}

/// The first offsets that are as new as this, in milliseconds since 1970; -1 where none is.
///
/// # Errors
/// The brokers cannot be reached, or a partition has no leader.
pub async fn at_time(
    client: &Client,
    partitions: &BTreeSet<TopicPartition>,
    ms: i64,
) -> Result<BTreeMap<TopicPartition, i64>> {
    let found = client.list_offsets(partitions, OffsetSpec::Timestamp(ms), Isolation::ReadUncommitted).await?;
    found.into_iter().map(|(at, offset)| Ok((at, offset?.offset))).collect()
}

/// Whether the group has left a record behind that is older than `age` seconds.
///
/// # Errors
/// See [`at_time`].
pub async fn is_older(client: &Client, facts: &Facts, age: i64, now_ms: i64) -> Result<bool> {
    let lagging = facts.partitions.iter().filter(|(_, partition)| behind(partition, false) > 0);
    let lagging: BTreeMap<_, _> = lagging.map(|(at, partition)| (at.clone(), partition)).collect();
    if lagging.is_empty() {
        return Ok(false);
    }
    let since = now_ms.saturating_sub(age.saturating_mul(1000)).max(0);
    let found = at_time(client, &lagging.keys().cloned().collect(), since).await?;
    // The first record that is new enough lies behind the next one to read: that one is older.
    let older = |at: &TopicPartition, next: i64| found.get(at).is_some_and(|first| *first < 0 || *first > next);
    Ok(lagging.iter().any(|(at, partition)| older(at, partition.committed.unwrap_or(0).max(partition.start))))
}

/// The age of the oldest record that the group has left behind, in seconds, to a quarter; none without lag.
///
/// # Errors
/// See [`at_time`].
pub async fn oldest(client: &Client, facts: &Facts, now_ms: i64) -> Result<Option<i64>> {
    if facts.partitions.values().all(|partition| behind(partition, false) == 0) {
        return Ok(None);
    }
    let ages = ages();
    // The last age that something is older than; a record of this very moment is older than nothing.
    let (mut younger, mut older) = (0, ages.len());
    while younger < older {
        let middle = usize::midpoint(younger, older);
        let Some(age) = ages.get(middle) else { break };
        if is_older(client, facts, *age, now_ms).await? {
            younger = middle + 1;
        } else {
            older = middle;
        }
    }
    Ok(Some(younger.checked_sub(1).and_then(|last| ages.get(last).copied()).unwrap_or(0)))
}

/// What a commit's text begins with that a reset has made; its id follows.
const MARK: &str = "klamm.dev/reset=";

/// Commits offsets for a group that has no members; those of a reset with its id.
///
/// # Errors
/// The brokers cannot be reached, or refuse.
pub async fn commit(
    client: &Client,
    group: &str,
    reset: Option<&str>,
    offsets: impl Iterator<Item = (TopicPartition, i64)>,
) -> Result<()> {
    let metadata = reset.map(|id| format!("{MARK}{id}")).unwrap_or_default();
    let offsets =
        offsets.map(|(at, offset)| (at, CommittedOffset { offset, leader_epoch: -1, metadata: metadata.clone() }));
    client.commit_offsets(group, None, &offsets.collect()).await
}
