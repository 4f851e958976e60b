//! `--throttle`: how fast the cluster may copy, by the configurations that kafka-reassign-partitions sets (KIP-73).
//!
//! Each broker that is involved gets a rate for what it sends and for what it takes; each topic names the replicas that
//! it is for: those that are there as senders, those that are new as receivers. When the watching ends early it stays,
//! because the moves go on; who watches them later takes it off, and so does who takes them back.
//!
//! Others may move partitions at the same time. Names are therefore added to lists and taken out of them, never lists
//! replaced, and each takes its own names off before it looks whether a broker's rate is still needed: whoever comes
//! last sees no other names and takes the rates off.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Duration;

use klamm_client::admin::configs::{ConfigChange, ConfigEntry, Resource};
use klamm_client::admin::reassignments::Reassignment;
use klamm_client::{Client, ClientError, TopicPartition};
use klamm_protocol::error::ErrorCode;
use serde::Serialize;
use tokio::time::sleep;

use super::before;
use super::carry::Step;
use crate::cli::output::{Format, Show, list, print};
use crate::cli::{CliError, Result};

const RATES: [&str; 2] = ["leader.replication.throttled.rate", "follower.replication.throttled.rate"];
const REPLICAS: [&str; 2] = ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"];
/// How a throttle that stays is got rid of.
pub(super) const OFF: &str = "the same command again watches on and takes it off in the end, \
                              `klamm reassign throttle off` takes all throttles off now";
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

    /// What throttles these partitions now, whoever set it.
    pub(super) async fn found(client: &Client, partitions: &BTreeSet<TopicPartition>) -> Result<Self> {
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
    pub(super) fn is_empty(&self) -> bool {
        self.brokers.is_empty()
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
            let there = |n: usize| now.get(topic).and_then(|lists| lists[n].as_deref()).unwrap_or_default();
            let missing = |n: usize| -> BTreeSet<Name> { &lists[n] - &names(there(n)).into_iter().collect() };
            let wanted = [0, 1].into_iter().filter(|n| there(*n) != ALL && !missing(*n).is_empty());
            let changes: Vec<_> =
                wanted.map(|n| ConfigChange::Append(REPLICAS[n].to_owned(), text(&missing(n)))).collect();
            if !changes.is_empty() {
                client.alter_configs(&Resource::Topic(topic.clone()), &changes, false).await?;
            }
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
                eprintln!("broker {id} was throttled to {was} bytes a second, to {rate} from now on");
            }
            client.alter_configs(&Resource::Broker(*id), &changes, false).await?;
        }
        Ok(())
    }

    /// Takes the throttle off, as far as nobody else needs it; where somebody does, it says so.
    pub(super) async fn remove(&self, client: &Client) -> Result {
        if self.is_empty() {
            return Ok(());
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
            client.alter_configs(&Resource::Broker(*id), &changes, false).await?;
        }
        if !needed.is_empty() {
            let brokers: Vec<i32> = needed.keys().copied().collect();
            let topics: BTreeSet<&str> = needed.values().flatten().map(String::as_str).collect();
            let topics: Vec<&str> = topics.into_iter().collect();
            eprintln!(
                "warning: the throttle stays on brokers {}: topics {} have replicas there that others throttle, or move. \
                 Where nothing moves any more, `klamm reassign throttle off` takes it off",
                list(&brokers),
                topics.join(", ")
            );
        }
        Ok(())
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

/// Warns of names that no move needs, as a command leaves them that was killed.
pub(super) async fn tell_of_leftovers(client: &Client) -> Result {
    let moving = client.reassignments(None).await?;
    let useless = |topic: &str, (n, list): (usize, &Option<String>)| {
        let names = names(list.as_deref().unwrap_or_default());
        names.iter().any(|name| !is_needed(n, name, moving.get(&TopicPartition::new(topic, name.0))))
    };
    let lists = lists(client, all_topics(client).await?).await?.into_iter();
    let left = lists.filter(|(topic, lists)| lists.iter().enumerate().any(|list| useless(topic, list)));
    let left: Vec<String> = left.map(|(topic, _)| topic).collect();
    if !left.is_empty() {
        let topics = left.join(", ");
        eprintln!(
            "warning: throttles of earlier moves are left on topics {topics}: `klamm reassign throttle off` takes them off"
        );
    }
    Ok(())
}

async fn all_topics(client: &Client) -> Result<BTreeSet<String>> {
    Ok(client.refresh(None).await?.topics.keys().cloned().collect())
}

/// What `klamm reassign throttle` is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Rate {
    Bytes(u64),
    Off,
}

/// `50000000` or `off`.
pub(super) fn rate(text: &str) -> std::result::Result<Rate, String> {
    match (text, text.parse()) {
        ("off", _) => Ok(Rate::Off),
        (_, Ok(bytes)) if bytes > 0 => Ok(Rate::Bytes(bytes)),
        _ => Err("not a number of bytes a second above 0, nor `off`".to_owned()),
    }
}

/// `klamm reassign throttle`: throttles all that moves to a rate, or takes all throttles off, whatever moves.
pub(super) async fn change(client: &Client, output: Format, rate: Rate) -> Result {
    let Rate::Bytes(bytes) = rate else { return print(output, &off(client).await?) };
    let moving = client.reassignments(None).await?;
    let steps: Vec<Step> = moving.into_iter().map(|(at, moving)| before::step(at, &moving, 0)).collect();
    if steps.is_empty() {
        let hint = "--throttle of `klamm reassign execute` is for moves that are to begin";
        return Err(CliError::new("nothing is being moved").hint(hint));
    }
    let throttled = Throttled::of(&steps);
    throttled.apply(client, bytes).await?;
    print(output, &Changed::new(Some(bytes), throttled.topics.into_keys(), throttled.brokers))
}

async fn off(client: &Client) -> Result<Changed> {
    let mut brokers: BTreeSet<i32> = client.describe_cluster().await?.brokers.iter().map(|b| b.broker.id).collect();
    let lists = lists(client, all_topics(client).await?).await?;
    brokers.extend(lists.values().flatten().flatten().flat_map(|list| names(list)).map(|(_, id)| id));
    for (topic, lists) in &lists {
        let set = (0..REPLICAS.len()).filter(|n| lists[*n].is_some());
        let changes: Vec<_> = set.map(|n| ConfigChange::Delete(REPLICAS[n].to_owned())).collect();
        gone_is_fine(client.alter_configs(&Resource::Topic(topic.clone()), &changes, false).await)?;
    }
    for id in &brokers {
        let changes = RATES.map(|key| ConfigChange::Delete(key.to_owned()));
        client.alter_configs(&Resource::Broker(*id), &changes, false).await?;
    }
    Ok(Changed::new(None, lists.into_keys(), brokers))
}

/// What is throttled from now on, or is not any more.
#[derive(Debug, Serialize)]
struct Changed {
    /// Bytes a second; null for none.
    throttle: Option<u64>,
    topics: Vec<String>,
    brokers: Vec<i32>,
}

impl Changed {
    fn new(throttle: Option<u64>, topics: impl Iterator<Item = String>, brokers: BTreeSet<i32>) -> Self {
        Self { throttle, topics: topics.collect(), brokers: brokers.into_iter().collect() }
    }
}

impl Show for Changed {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let topics = if self.topics.is_empty() { "no topics".to_owned() } else { self.topics.join(", ") };
        let brokers = list(&self.brokers);
        match self.throttle {
            Some(rate) => {
                writeln!(out, "moves of {topics} are throttled to {rate} bytes a second on brokers {brokers}")
            }
            None => writeln!(out, "throttles are taken off {topics} and brokers {brokers}"),
        }
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
    fn a_rate_is_bytes_a_second_or_off() {
        assert_eq!((rate("off"), rate("5000")), (Ok(Rate::Off), Ok(Rate::Bytes(5000))));
        assert!(["0", "-1", "on", "5k", ""].into_iter().all(|text| rate(text).is_err()));
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
