//! What a planner asks about a cluster: its brokers, its partitions, and how much of each lies where.
//!
//! One way to collect this for all who plan. What one broker does not answer is known from others, so that one that is
//! slow or down does not stand in the way of moving things off it.

use std::collections::{BTreeMap, BTreeSet};

use klamm_planner::{Broker, Facts, Partition};
use tokio::task::JoinSet;

use super::reassignments::{LogDir, Reassignment};
use crate::TopicPartition;
use crate::client::Client;
use crate::error::Result;

/// The bytes of each replica, by partition and broker.
pub type Sizes = BTreeMap<TopicPartition, BTreeMap<i32, u64>>;

/// What a whole copy takes: the leader's, or the largest there is.
pub fn size(sizes: &Sizes, at: &TopicPartition, leader: i32) -> Option<u64> {
    let copies = sizes.get(at)?;
    copies.get(&leader).or(copies.values().max()).copied()
}

impl Client {
    /// The cluster as it is, for a planner; nothing is drained yet.
    pub async fn placement(&self) -> Result<Facts> {
        let cluster = self.describe_cluster().await?;
        let topics = self.refresh(None).await?;
        let moving = self.reassignments(None).await?;
        let alive: BTreeSet<i32> = cluster.brokers.iter().filter(|b| !b.fenced).map(|b| b.broker.id).collect();
        let dirs = self.log_dirs_of(&alive).await;
        let cordoned = |id: i32| {
            let dirs = dirs.get(&id).map(Vec::as_slice).unwrap_or_default();
            !dirs.is_empty() && dirs.iter().all(|dir| dir.cordoned)
        };
        let brokers = cluster.brokers.into_iter().map(|b| Broker {
            id: b.broker.id,
            rack: b.broker.rack,
            alive: !b.fenced,
            // Brokers of Kafka say so of their directories only.
            cordoned: b.cordoned || cordoned(b.broker.id),
            draining: false,
            maintained: b.maintenance_until.is_some(),
        });
        let sizes = by_partition(&dirs);
        let mut facts = Facts { brokers: brokers.collect(), partitions: Vec::new() };
        for topic in topics.topics.values() {
            for p in topic.partitions.iter().filter(|p| !p.replicas.is_empty()) {
                let at = TopicPartition::new(&topic.name, p.index);
                facts.partitions.push(Partition {
                    topic: topic.name.clone(),
                    index: p.index,
                    bytes: size(&sizes, &at, p.leader).unwrap_or(0),
                    moving_to: moving.get(&at).map(Reassignment::target),
                    leader: (p.leader >= 0).then_some(p.leader),
                    isr: p.isr.clone(),
                    replicas: p.replicas.clone(),
                });
            }
        }
        Ok(facts)
    }

    /// The sizes of all replicas on these brokers. One that does not answer is left out.
    pub async fn replica_sizes(&self, brokers: &BTreeSet<i32>) -> Sizes {
        by_partition(&self.log_dirs_of(brokers).await)
    }

    /// The log directories of brokers. One that does not answer is left out.
    pub async fn log_dirs_of(&self, brokers: &BTreeSet<i32>) -> BTreeMap<i32, Vec<LogDir>> {
        let mut asked = JoinSet::new();
        for id in brokers.iter().copied() {
            let client = self.clone();
            asked.spawn(async move { (id, client.log_dirs(id).await) });
        }
        let answers = asked.join_all().await;
        answers.into_iter().filter_map(|(id, dirs)| Some((id, dirs.ok()?))).collect()
    }
}

fn by_partition(dirs: &BTreeMap<i32, Vec<LogDir>>) -> Sizes {
    let mut sizes = Sizes::new();
    for (id, dirs) in dirs {
        for (partition, bytes) in dirs.iter().flat_map(|dir| &dir.partitions) {
            sizes.entry(partition.clone()).or_default().insert(*id, *bytes);
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaders_copy_is_the_size_and_else_the_largest() {
        let at = TopicPartition::new("t", 0);
        let sizes = Sizes::from([(at.clone(), BTreeMap::from([(0, 10), (1, 30)]))]);
        assert_eq!((size(&sizes, &at, 0), size(&sizes, &at, 5)), (Some(10), Some(30)));
        assert_eq!(size(&sizes, &TopicPartition::new("t", 1), 0), None);
    }
}
