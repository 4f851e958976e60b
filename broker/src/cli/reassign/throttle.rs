//! `--throttle`: how fast the cluster may copy, by the configurations that kafka-reassign-partitions sets (KIP-73).
//!
//! Each broker that is involved gets a rate for what it sends and for what it takes; each topic names the replicas that
//! it is for: those that are there as senders, those that are new as receivers. All of it is taken off in the end; when
//! the watching ends early it stays, because the moves go on.

use std::collections::{BTreeMap, BTreeSet};

use klamm_client::Client;
use klamm_client::admin::configs::{ConfigChange, Resource};

use super::carry::Step;
use crate::cli::Result;

const RATES: [&str; 2] = ["leader.replication.throttled.rate", "follower.replication.throttled.rate"];
const REPLICAS: [&str; 2] = ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"];

/// What is throttled.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Throttled {
    brokers: BTreeSet<i32>,
    /// By topic: the values of [`REPLICAS`].
    topics: BTreeMap<String, [String; 2]>,
}

impl Throttled {
    /// The brokers and replicas that these steps make work. Steps that copy nothing need no throttle.
    pub(super) fn of(steps: &[Step]) -> Self {
        let mut throttled = Self::default();
        let mut named: BTreeMap<&str, [Vec<String>; 2]> = BTreeMap::new();
        for step in steps.iter().filter(|step| step.adding().next().is_some()) {
            throttled.brokers.extend(step.from.iter().copied().chain(step.adding()));
            let [senders, receivers] = named.entry(&step.at.topic).or_default();
            let name = |id: i32| format!("{}:{id}", step.at.partition);
            senders.extend(step.from.iter().map(|id| name(*id)));
            receivers.extend(step.adding().map(name));
        }
        let joined = |(topic, lists): (&str, [Vec<String>; 2])| (topic.to_owned(), lists.map(|list| list.join(",")));
        throttled.topics = named.into_iter().map(joined).collect();
        throttled
    }

    /// Sets the throttle, in bytes a second: before anything moves.
    pub(super) async fn apply(&self, client: &Client, rate: u64) -> Result {
        let set = |key: &str, value: String| ConfigChange::Set(key.to_owned(), value);
        for (topic, lists) in &self.topics {
            let changes = [0, 1].map(|n| set(REPLICAS[n], lists[n].clone()));
            client.alter_configs(&Resource::Topic(topic.clone()), &changes, false).await?;
        }
        for broker in &self.brokers {
            let changes = RATES.map(|key| set(key, rate.to_string()));
            client.alter_configs(&Resource::Broker(*broker), &changes, false).await?;
        }
        Ok(())
    }

    /// Takes the throttle off.
    pub(super) async fn remove(&self, client: &Client) -> Result {
        let unset = |key: &str| ConfigChange::Delete(key.to_owned());
        for broker in &self.brokers {
            client.alter_configs(&Resource::Broker(*broker), &RATES.map(unset), false).await?;
        }
        for topic in self.topics.keys() {
            client.alter_configs(&Resource::Topic(topic.clone()), &REPLICAS.map(unset), false).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_client::TopicPartition;

    #[test]
    fn those_that_are_there_send_and_those_that_are_new_receive() {
        let step = |index: i32, from: &[i32], to: &[i32]| Step {
            at: TopicPartition::new("t", index),
            from: from.to_vec(),
            to: to.to_vec(),
            size: 1,
        };
        let throttled = Throttled::of(&[step(0, &[0, 1], &[1, 2]), step(1, &[1], &[3, 4]), step(2, &[5, 6], &[6, 5])]);
        assert_eq!(throttled.brokers, [0, 1, 2, 3, 4].into());
        assert_eq!(throttled.topics["t"], ["0:0,0:1,1:1".to_owned(), "0:2,1:3,1:4".to_owned()]);
        assert_eq!(Throttled::of(&[step(2, &[5, 6], &[6, 5])]), Throttled::default());
    }
}
