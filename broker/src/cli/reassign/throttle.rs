//! `--throttle`: how fast the cluster may copy, by the configurations that kafka-reassign-partitions sets (KIP-73).
//!
//! Each broker that is involved gets a rate for what it sends and for what it takes; each topic names the replicas that
//! it is for: those that are there as senders, those that are new as receivers. When the watching ends early it stays,
//! because the moves go on.
//!
//! Others may move partitions at the same time. Names are therefore added to lists and taken out of them, never lists
//! replaced, and each takes its own names off before it looks whether a broker's rate is still needed: whoever comes
//! last sees no other names and takes the rates off.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm_client::admin::configs::{ConfigChange, ConfigEntry, Resource};
use klamm_client::admin::reassignments::Reassignment;
use klamm_client::{Client, ClientError, TopicPartition};
use klamm_protocol::error::ErrorCode;
use tokio::time::sleep;

use super::carry::Step;
use crate::cli::Result;
use crate::cli::output::list;

const RATES: [&str; 2] = ["leader.replication.throttled.rate", "follower.replication.throttled.rate"];
const REPLICAS: [&str; 2] = ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"];
/// Stands for all replicas of a topic.
const ALL: &str = "*";

/// Looks at what others name, and the pause between two: what was read may be from before they took their names off.
const LOOKS: usize = 6;
const PAUSE: Duration = Duration::from_millis(500);

/// What is throttled.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Throttled {
    brokers: BTreeSet<i32>,
    /// By topic: the names in [`REPLICAS`].
    topics: BTreeMap<String, [BTreeSet<Name>; 2]>,
}

/// A replica as the lists name it: partition and broker.
type Name = (i32, i32);

impl Throttled {
    /// The brokers and replicas that these steps make work. Steps that copy nothing need no throttle.
    pub(super) fn of(steps: &[Step]) -> Self {
        let mut throttled = Self::default();
        for step in steps.iter().filter(|step| step.adding().next().is_some()) {
            throttled.brokers.extend(step.from.iter().copied().chain(step.adding()));
            let [senders, receivers] = throttled.topics.entry(step.at.topic.clone()).or_default();
            senders.extend(step.from.iter().map(|id| (step.at.partition, *id)));
            receivers.extend(step.adding().map(|id| (step.at.partition, id)));
        }
        throttled
    }

    /// Takes what another names, too.
    pub(super) fn join(&mut self, other: Self) {
        self.brokers.extend(other.brokers);
        for (topic, lists) in other.topics {
            let mine = self.topics.entry(topic).or_default();
            mine.iter_mut().zip(lists).for_each(|(mine, list)| mine.extend(list));
        }
    }

    /// Sets the throttle, in bytes a second: before anything moves.
    pub(super) async fn apply(&self, client: &Client, rate: u64) -> Result {
        let now = lists(client, self.topics.keys().cloned().collect()).await?;
        for (topic, lists) in &self.topics {
            let all = |n: usize| now.get(topic).is_some_and(|lists| lists[n].as_deref() == Some(ALL));
            let wanted = [0, 1].into_iter().filter(|n| !all(*n));
            let changes: Vec<_> =
                wanted.map(|n| ConfigChange::Append(REPLICAS[n].to_owned(), text(&lists[n]))).collect();
            client.alter_configs(&Resource::Topic(topic.clone()), &changes, false).await?;
        }
        for id in &self.brokers {
            let changes = RATES.map(|key| ConfigChange::Set(key.to_owned(), rate.to_string()));
            let others = client.describe_configs(&Resource::Broker(*id), Some(&RATES.map(str::to_owned))).await;
            let other = |e: &&ConfigEntry| {
                let set = e.source.is_dynamic() && e.value.as_ref() != Some(&rate.to_string());
                set && RATES.contains(&e.name.as_str())
            };
            if let Some(entry) = others.unwrap_or_default().iter().find(other) {
                let was = entry.value.as_deref().unwrap_or_default();
                eprintln!(
                    "warning: broker {id} was throttled to {was} bytes a second by somebody, to {rate} from now on"
                );
            }
            client.alter_configs(&Resource::Broker(*id), &changes, false).await?;
        }
        Ok(())
    }

    /// Takes the throttle off, as far as nobody else needs it; where somebody does, it says so.
    pub(super) async fn remove(&self, client: &Client) -> Result {
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
            client.alter_configs(&Resource::Broker(*id), &changes, false).await?;
        }
        if !needed.is_empty() {
            let brokers: Vec<i32> = needed.keys().copied().collect();
            let topics: BTreeSet<&str> = needed.values().flatten().map(String::as_str).collect();
            let topics: Vec<&str> = topics.into_iter().collect();
            eprintln!(
                "warning: the throttle stays on brokers {}: topics {} have replicas there that others throttle, or move. \
                 Where nothing moves any more, `kafka-reassign-partitions.sh --verify` or `klamm configs` takes it off",
                list(&brokers),
                topics.join(", ")
            );
        }
        Ok(())
    }

    /// Which of the brokers others need throttled, and the topics that name them.
    async fn needed(&self, client: &Client) -> Result<BTreeMap<i32, BTreeSet<String>>> {
        let all = client.refresh(None).await?.topics.keys().cloned().collect();
        let mut needed: BTreeMap<i32, BTreeSet<String>> = BTreeMap::new();
        for (topic, lists) in lists(client, all).await? {
            for id in lists.iter().flatten().flat_map(|list| named(list, &self.brokers)) {
                needed.entry(id).or_default().insert(topic.clone());
            }
        }
        Ok(needed)
    }
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

/// A topic that has been deleted needs nothing taken off.
fn gone_is_fine(result: std::result::Result<(), ClientError>) -> Result {
    match result {
        Err(ClientError::Kafka { code: ErrorCode::UnknownTopicOrPartition, .. }) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(index: i32, from: &[i32], to: &[i32]) -> Step {
        Step { at: TopicPartition::new("t", index), from: from.to_vec(), to: to.to_vec(), size: 1 }
    }

    #[test]
    fn those_that_are_there_send_and_those_that_are_new_receive() {
        let mut throttled =
            Throttled::of(&[step(0, &[0, 1], &[1, 2]), step(1, &[1], &[3, 4]), step(2, &[5, 6], &[6, 5])]);
        assert_eq!(throttled.brokers, [0, 1, 2, 3, 4].into());
        assert_eq!(throttled.topics["t"].each_ref().map(text), ["0:0,0:1,1:1", "0:2,1:3,1:4"]);
        assert_eq!(Throttled::of(&[step(2, &[5, 6], &[6, 5])]), Throttled::default());
        throttled.join(Throttled::of(&[step(3, &[0], &[7])]));
        assert_eq!(throttled.topics["t"].each_ref().map(text), ["0:0,0:1,1:1,3:0", "0:2,1:3,1:4,3:7"]);
        assert!(throttled.brokers.contains(&7));
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
