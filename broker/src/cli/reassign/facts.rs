//! What the planner asks about a cluster: its brokers, its partitions, and how much of each lies where.

use std::collections::{BTreeMap, BTreeSet};

use klamm_client::admin::reassignments::{LogDir, Reassignment};
use klamm_client::{Client, TopicPartition};
use klamm_planner::{Broker, Facts, Partition};
use tokio::task::JoinSet;

use crate::cli::{CliError, Result};

/// The bytes of each replica, by partition and broker.
pub(super) type Sizes = BTreeMap<TopicPartition, BTreeMap<i32, u64>>;

/// The cluster as it is; nothing is drained yet.
pub(super) async fn collect(client: &Client) -> Result<Facts> {
    let cluster = client.describe_cluster().await?;
    let topics = client.refresh(None).await?;
    let moving = client.reassignments(None).await?;
    let alive: BTreeSet<i32> = cluster.brokers.iter().filter(|b| !b.fenced).map(|b| b.broker.id).collect();
    let dirs = log_dirs(client, &alive).await;
    let cordoned = |id: i32| {
        let dirs = dirs.get(&id).map(Vec::as_slice).unwrap_or_default();
        !dirs.is_empty() && dirs.iter().all(|dir| dir.cordoned)
    };
    let brokers = cluster.brokers.into_iter().map(|b| Broker {
        id: b.broker.id,
        rack: b.broker.rack,
        alive: !b.fenced,
        cordoned: cordoned(b.broker.id),
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

/// The sizes of all replicas on these brokers.
pub(super) async fn sizes(client: &Client, brokers: &BTreeSet<i32>) -> Sizes {
    by_partition(&log_dirs(client, brokers).await)
}

/// What a whole copy takes: the leader's, or the largest there is.
pub(super) fn size(sizes: &Sizes, at: &TopicPartition, leader: i32) -> Option<u64> {
    let copies = sizes.get(at)?;
    copies.get(&leader).or(copies.values().max()).copied()
}

/// The log directories of brokers. One that does not answer is left out: what it holds is known from others.
async fn log_dirs(client: &Client, brokers: &BTreeSet<i32>) -> BTreeMap<i32, Vec<LogDir>> {
    let mut asked = JoinSet::new();
    for id in brokers.iter().copied() {
        let client = client.clone();
        asked.spawn(async move { (id, client.log_dirs(id).await) });
    }
    let answers = asked.join_all().await;
    answers.into_iter().filter_map(|(id, dirs)| Some((id, dirs.ok()?))).collect()
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

/// Marks brokers that shall give everything away: those of `drain`, and all but `targets` unless that is empty.
pub(super) fn drain(facts: &mut Facts, drain: &[i32], targets: &[i32]) -> Result {
    let known: BTreeSet<i32> = facts.brokers.iter().map(|b| b.id).collect();
    let holding: BTreeSet<i32> = facts.partitions.iter().flat_map(|p| p.replicas.iter().copied()).collect();
    let unknown = targets.iter().find(|id| !known.contains(id));
    let unknown = unknown.or(drain.iter().find(|id| !known.contains(id) && !holding.contains(id)));
    if let Some(id) = unknown {
        return Err(
            CliError::new(format!("there is no broker {id}")).hint("`klamm cluster describe` shows the brokers")
        );
    }
    // Brokers that were forgotten while they held replicas.
    for id in holding.difference(&known) {
        facts.brokers.push(Broker { alive: false, ..Broker::new(*id) });
    }
    for broker in &mut facts.brokers {
        let left_out = !targets.is_empty() && !targets.contains(&broker.id);
        broker.draining = left_out || drain.contains(&broker.id);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let partition = Partition { topic: "t".to_owned(), replicas: vec![0, 7], ..Partition::default() };
        Facts { brokers: (0..3).map(Broker::new).collect(), partitions: vec![partition] }
    }

    fn draining(facts: &Facts) -> Vec<i32> {
        facts.brokers.iter().filter(|b| b.draining).map(|b| b.id).collect()
    }

    #[test]
    fn all_but_the_targets_are_drained_and_so_is_a_broker_that_is_forgotten() {
        let mut some = facts();
        assert!(drain(&mut some, &[2], &[]).is_ok());
        assert_eq!(draining(&some), [2]);
        let mut some = facts();
        assert!(drain(&mut some, &[], &[0, 1]).is_ok());
        assert_eq!(draining(&some), [2, 7]);
        let mut some = facts();
        assert!(drain(&mut some, &[7], &[]).is_ok());
        assert_eq!(draining(&some), [7]);
        assert!(drain(&mut facts(), &[8], &[]).is_err());
        assert!(drain(&mut facts(), &[], &[7]).is_err(), "a forgotten broker is no target");
    }

    #[test]
    fn the_leaders_copy_is_the_size_and_else_the_largest() {
        let at = TopicPartition::new("t", 0);
        let sizes = Sizes::from([(at.clone(), BTreeMap::from([(0, 10), (1, 30)]))]);
        assert_eq!((size(&sizes, &at, 0), size(&sizes, &at, 5)), (Some(10), Some(30)));
        assert_eq!(size(&sizes, &TopicPartition::new("t", 1), 0), None);
    }
}
