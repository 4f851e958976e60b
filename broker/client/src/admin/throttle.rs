//! How fast the cluster may copy while partitions move, by the configurations that kafka-reassign-partitions sets (KIP-73).
//!
//! Each broker that is involved gets a rate for what it sends and for what it takes; each topic names the replicas that
//! it is for: those that are there as senders, those that are new as receivers. It stays until somebody takes it off.
//!
//! Others may move partitions at the same time. Names are therefore added to lists and taken out of them, never lists
//! replaced, and each takes its own names off before it looks whether a broker's rate is still needed: whoever comes
//! last sees no other names and takes the rates off.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm_protocol::error::ErrorCode;
use tokio::time::sleep;

use super::configs::{ConfigChange, ConfigEntry, ConfigSource, Resource};
use super::reassignments::Reassignment;
use crate::error::{ClientError, Result};
use crate::{Client, TopicPartition};

const RATES: [&str; 2] = ["leader.replication.throttled.rate", "follower.replication.throttled.rate"];
const REPLICAS: [&str; 2] = ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"];
/// Stands for all replicas of a topic.
const ALL: &str = "*";

/// Looks at what others name, and the pause between two: what was read may be from before they took their names off.
const LOOKS: usize = 6;
const PAUSE: Duration = Duration::from_millis(500);

/// What is throttled.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    brokers: BTreeSet<i32>,
    /// By topic: the names in [`REPLICAS`].
    topics: BTreeMap<String, [BTreeSet<Name>; 2]>,
}

/// A replica as the lists name it: partition and broker.
type Name = (i32, i32);

impl Throttled {
    /// Adds the brokers and replicas that a partition's move from some replicas to others makes work. One that copies
    /// nothing needs no throttle.
    pub fn add(&mut self, at: &TopicPartition, from: &[i32], to: &[i32]) {
        let adding: Vec<i32> = to.iter().copied().filter(|id| !from.contains(id)).collect();
        if adding.is_empty() {
            return;
        }
        self.brokers.extend(from.iter().chain(&adding));
        let [senders, receivers] = self.topics.entry(at.topic.clone()).or_default();
        senders.extend(from.iter().map(|id| (at.partition, *id)));
        receivers.extend(adding.iter().map(|id| (at.partition, *id)));
    }

    /// What throttles these partitions now, whoever set it.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse.
    pub async fn found(client: &Client, partitions: &BTreeSet<TopicPartition>) -> Result<Self> {
        let topics: BTreeSet<String> = partitions.iter().map(|at| at.topic.clone()).collect();
        let mut found = Self::default();
        if topics.is_empty() {
            return Ok(found);
        }
        for (topic, lists) in lists(client, topics).await? {
            let named = |list: Option<String>| -> BTreeSet<Name> {
                let names = names(&list.unwrap_or_default()).into_iter();
                names.filter(|(index, _)| partitions.contains(&TopicPartition::new(&topic, *index))).collect()
            };
            let lists = lists.map(named);
            found.brokers.extend(lists.iter().flatten().map(|(_, broker)| *broker));
            if lists.iter().any(|list| !list.is_empty()) {
                found.topics.insert(topic, lists);
            }
        }
        Ok(found)
    }

    /// Whether nothing is throttled.
    pub fn is_empty(&self) -> bool {
        self.brokers.is_empty()
    }

    /// Takes what another names, too.
    pub fn join(&mut self, other: Self) {
        self.brokers.extend(other.brokers);
        for (topic, lists) in other.topics {
            let mine = self.topics.entry(topic).or_default();
            mine.iter_mut().zip(lists).for_each(|(mine, list)| mine.extend(list));
        }
    }

    /// The topics of which something is throttled.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }

    /// The brokers that are throttled.
    pub fn brokers(&self) -> &BTreeSet<i32> {
        &self.brokers
    }

    /// Sets the throttle, in bytes a second: before anything moves. Answers which brokers were throttled to another rate,
    /// and to which.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse.
    pub async fn apply(&self, client: &Client, rate: u64) -> Result<BTreeMap<i32, String>> {
        let now = lists(client, self.topics.keys().cloned().collect()).await?;
        for (topic, lists) in &self.topics {
            let there = |n: usize| now.get(topic).and_then(|lists| lists[n].as_deref()).unwrap_or_default();
            let missing = |n: usize| -> BTreeSet<Name> { &lists[n] - &names(there(n)).into_iter().collect() };
            let wanted = [0, 1].into_iter().filter(|n| there(*n) != ALL && !missing(*n).is_empty());
            let changes: Vec<_> =
                wanted.map(|n| ConfigChange::Append(REPLICAS[n].to_owned(), text(&missing(n)))).collect();
            if !changes.is_empty() {
                client.alter_configs(&Resource::Topic(topic.clone()), &changes, false).await?;
            }
        }
        let mut before = BTreeMap::new();
        for id in &self.brokers {
            let changes = RATES.map(|key| ConfigChange::Set(key.to_owned(), rate.to_string()));
            let others = client.describe_configs(&Resource::Broker(*id), Some(&RATES.map(str::to_owned))).await;
            let other = |e: &&ConfigEntry| {
                let set = e.source.is_dynamic() && e.value.as_ref() != Some(&rate.to_string());
                set && RATES.contains(&e.name.as_str())
            };
            if let Some(entry) = others.unwrap_or_default().iter().find(other) {
                before.insert(*id, entry.value.clone().unwrap_or_default());
            }
            client.alter_configs(&Resource::Broker(*id), &changes, false).await?;
        }
        Ok(before)
    }

    /// Takes the throttle off, as far as nobody else needs it. Answers on which brokers it stays, each with the topics that
    /// need it.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse.
    pub async fn remove(&self, client: &Client) -> Result<BTreeMap<i32, BTreeSet<String>>> {
        if self.is_empty() {
            return Ok(BTreeMap::new());
        }
        let topics: BTreeSet<String> = self.topics.keys().cloned().collect();
        let moving = client.reassignments(None).await?;
        for (topic, now) in lists(client, topics).await? {
            let mut changes = Vec::new();
            for (n, now) in now.into_iter().enumerate() {
                let mine = |name: &Name| {
                    let moved = self.topics.get(&topic).is_some_and(|own| own.iter().flatten().any(|o| o.0 == name.0));
                    moved && !is_needed(n, name, moving.get(&TopicPartition::new(&topic, name.0)))
                };
                let off: BTreeSet<Name> = names(&now.unwrap_or_default()).into_iter().filter(mine).collect();
                if !off.is_empty() {
                    changes.push(ConfigChange::Subtract(REPLICAS[n].to_owned(), text(&off)));
                }
            }
            if !changes.is_empty() {
                gone_is_fine(client.alter_configs(&Resource::Topic(topic), &changes, false).await)?;
            }
        }
        let mut needed = self.needed(client).await?;
        for _ in 1..LOOKS {
            if needed.is_empty() {
                break;
            }
            sleep(PAUSE).await;
            needed = self.needed(client).await?;
        }
        for id in self.brokers.iter().filter(|id| !needed.contains_key(id)) {
            let changes = RATES.map(|key| ConfigChange::Delete(key.to_owned()));
            gone_is_fine(client.alter_configs(&Resource::Broker(*id), &changes, false).await)?;
        }
        Ok(needed)
    }

    /// Which of the brokers others need throttled, and the topics that name them.
    async fn needed(&self, client: &Client) -> Result<BTreeMap<i32, BTreeSet<String>>> {
        let all = all_topics(client).await?;
        let mut needed: BTreeMap<i32, BTreeSet<String>> = BTreeMap::new();
        for (topic, lists) in lists(client, all).await? {
            for id in lists.iter().flatten().flat_map(|list| named(list, &self.brokers)) {
                needed.entry(id).or_default().insert(topic.clone());
            }
        }
        Ok(needed)
    }
}

/// The topics with names that no move needs, as somebody leaves them who was killed.
///
/// # Errors
/// The brokers cannot be reached, or refuse.
pub async fn leftovers(client: &Client) -> Result<Vec<String>> {
    let moving = client.reassignments(None).await?;
    let useless = |topic: &str, (n, list): (usize, &Option<String>)| {
        let names = names(list.as_deref().unwrap_or_default());
        names.iter().any(|name| !is_needed(n, name, moving.get(&TopicPartition::new(topic, name.0))))
    };
    let lists = lists(client, all_topics(client).await?).await?.into_iter();
    let left = lists.filter(|(topic, lists)| lists.iter().enumerate().any(|list| useless(topic, list)));
    Ok(left.map(|(topic, _)| topic).collect())
}

/// Takes all throttles off, whatever moves; answers off which topics and brokers.
///
/// # Errors
/// The brokers cannot be reached, or refuse.
pub async fn off(client: &Client) -> Result<(Vec<String>, BTreeSet<i32>)> {
    let lists = lists(client, all_topics(client).await?).await?;
    let mut brokers = BTreeSet::new();
    for id in client.describe_cluster().await?.brokers.iter().map(|b| b.broker.id) {
        let entries = client.describe_configs(&Resource::Broker(id), Some(&RATES.map(str::to_owned))).await?;
        if entries.iter().any(|entry| entry.source == ConfigSource::Broker) {
            brokers.insert(id);
        }
    }
    for (topic, lists) in &lists {
        let set = (0..REPLICAS.len()).filter(|n| lists[*n].is_some());
        let changes: Vec<_> = set.map(|n| ConfigChange::Delete(REPLICAS[n].to_owned())).collect();
        gone_is_fine(client.alter_configs(&Resource::Topic(topic.clone()), &changes, false).await)?;
    }
    for id in &brokers {
        let changes = RATES.map(|key| ConfigChange::Delete(key.to_owned()));
        gone_is_fine(client.alter_configs(&Resource::Broker(*id), &changes, false).await)?;
    }
    Ok((lists.into_keys().collect(), brokers))
}

async fn all_topics(client: &Client) -> Result<BTreeSet<String>> {
    Ok(client.refresh(None).await?.topics.keys().cloned().collect())
}

/// Whether a move that goes on, of somebody else by now, needs a name: where it copies from, or to.
fn is_needed(list: usize, (_, broker): &Name, moving: Option<&Reassignment>) -> bool {
    moving.is_some_and(|moving| if list == 0 { &moving.replicas } else { &moving.adding }.contains(broker))
}

/// The brokers out of `brokers` that a list names.
fn named(list: &str, brokers: &BTreeSet<i32>) -> BTreeSet<i32> {
    if list == ALL {
        return brokers.clone();
    }
    names(list).into_iter().map(|(_, id)| id).filter(|id| brokers.contains(id)).collect()
}

/// The lists of topics that have any; a topic that is gone has none.
async fn lists(client: &Client, topics: BTreeSet<String>) -> Result<BTreeMap<String, [Option<String>; 2]>> {
    let described = client.describe_topics_keys(&topics, &REPLICAS.map(str::to_owned)).await?;
    let value = |entries: &[ConfigEntry], key: &str| {
        let entry = entries.iter().find(|entry| entry.name == key)?;
        entry.value.clone().filter(|value| !value.is_empty())
    };
    let lists = described.into_iter().map(|(topic, entries)| (topic, REPLICAS.map(|key| value(&entries, key))));
    Ok(lists.filter(|(_, lists)| lists.iter().any(Option::is_some)).collect())
}

fn names(list: &str) -> Vec<Name> {
    let name = |item: &str| {
        let (partition, broker) = item.trim().split_once(':')?;
        Some((partition.parse().ok()?, broker.parse().ok()?))
    };
    list.split(',').filter_map(name).collect()
}

fn text(names: &BTreeSet<Name>) -> String {
    names.iter().map(|(partition, broker)| format!("{partition}:{broker}")).collect::<Vec<_>>().join(",")
}

/// A topic that has been deleted, or a broker that has been unregistered, needs nothing taken off.
fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(ClientError::Kafka {
            code: ErrorCode::UnknownTopicOrPartition | ErrorCode::BrokerIdNotRegistered, ..
        }) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled(moves: &[(i32, &[i32], &[i32])]) -> Throttled {
        let mut throttled = Throttled::default();
        for (index, from, to) in moves {
            throttled.add(&TopicPartition::new("t", *index), from, to);
        }
        throttled
    }

    #[test]
    fn those_that_are_there_send_and_those_that_are_new_receive() {
        let mut some = throttled(&[(0, &[0, 1], &[1, 2]), (1, &[1], &[3, 4]), (2, &[5, 6], &[6, 5])]);
        assert_eq!(some.brokers, [0, 1, 2, 3, 4].into());
        assert_eq!(some.topics["t"].each_ref().map(text), ["0:0,0:1,1:1", "0:2,1:3,1:4"]);
        assert!(throttled(&[(2, &[5, 6], &[6, 5])]).is_empty());
        some.join(throttled(&[(3, &[0], &[7])]));
        assert_eq!(some.topics["t"].each_ref().map(text), ["0:0,0:1,1:1,3:0", "0:2,1:3,1:4,3:7"]);
        assert!(some.brokers.contains(&7));
    }

    #[test]
    fn what_another_move_of_a_partition_needs_stays() {
        let moving = Reassignment { replicas: vec![4, 1, 2, 0], adding: vec![4], removing: vec![0] };
        assert!(is_needed(0, &(0, 1), Some(&moving)) && is_needed(1, &(0, 4), Some(&moving)));
        assert!(!is_needed(0, &(0, 3), Some(&moving)) && !is_needed(1, &(0, 3), Some(&moving)));
        assert!(!is_needed(0, &(0, 1), None));
    }

    #[test]
    fn lists_name_replicas_or_all_of_them() {
        assert_eq!(names("0:1, 12:3"), [(0, 1), (12, 3)]);
        assert!(names("").is_empty() && names("x:1,2").is_empty());
        let brokers = [1, 2].into();
        assert_eq!(named("0:1,0:5", &brokers), [1].into());
        assert_eq!(named("*", &brokers), brokers);
    }
}
