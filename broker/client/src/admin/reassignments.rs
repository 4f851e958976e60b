//! Moving partitions to other brokers, and how much of them lies where.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use klamm_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use klamm_protocol::messages::{
    AlterPartitionReassignmentsRequest, DescribeLogDirsRequest, ListPartitionReassignmentsRequest,
};

use crate::TopicPartition;
use crate::client::Client;
use crate::error::{ClientError, Result};

/// A partition that is being moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// All that hold or get a copy: first those that are to remain, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those of them that get a copy, and are to keep it.
    pub adding: Vec<i32>,
    /// Those of them that go.
    pub removing: Vec<i32>,
}

impl Reassignment {
    /// The replicas that there are to be.
    pub fn target(&self) -> Vec<i32> {
        self.replicas.iter().copied().filter(|id| !self.removing.contains(id)).collect()
    }
}

/// A log directory of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    /// Its path.
    pub path: String,
    /// Whether it takes no new replicas.
    pub cordoned: bool,
    /// Bytes of each partition that it holds.
    pub partitions: BTreeMap<TopicPartition, u64>,
}

impl Client {
    /// Gives partitions new replicas, or with `None` takes a reassignment that goes on back. Says for each partition
    /// what came of it; once a reassignment is accepted it goes on by itself.
    pub async fn alter_reassignments(
        &self,
        wanted: &BTreeMap<TopicPartition, Option<Vec<i32>>>,
    ) -> Result<BTreeMap<TopicPartition, Result<()>>> {
        let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
        for (partition, replicas) in wanted {
            let asked = ReassignablePartition { partition_index: partition.partition, replicas: replicas.clone() };
            topics.entry(&partition.topic).or_default().push(asked);
        }
        let topics = topics.into_iter();
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: self.timeout_ms(),
            topics: topics.map(|(name, partitions)| ReassignableTopic { name: name.to_owned(), partitions }).collect(),
            ..Default::default()
        };
        let answer = self.retry(|| async {
            let answer = self.controller().await?.call(&request).await?;
            ClientError::check("the reassignment", answer.error_code, answer.error_message.as_deref())?;
            Ok(answer)
        });
        let results = answer.await?.responses.into_iter().flat_map(|topic| {
            let name = topic.name;
            topic.partitions.into_iter().map(move |result| {
                let partition = TopicPartition::new(&name, result.partition_index);
                let what = partition.to_string();
                let outcome = ClientError::check(what, result.error_code, result.error_message.as_deref());
                (partition, outcome)
            })
        });
        Ok(results.collect())
    }

    /// The partitions that are being moved: all, or those of these.
    pub async fn reassignments(
        &self,
        partitions: Option<&BTreeSet<TopicPartition>>,
    ) -> Result<BTreeMap<TopicPartition, Reassignment>> {
        let topics = partitions.map(|partitions| {
            let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
            for p in partitions {
                topics.entry(&p.topic).or_default().push(p.partition);
            }
            let topic = |(name, partition_indexes): (&str, _)| ListPartitionReassignmentsTopics {
                name: name.to_owned(),
                partition_indexes,
            };
            topics.into_iter().map(topic).collect()
        });
        let request = ListPartitionReassignmentsRequest { timeout_ms: self.timeout_ms(), topics };
        let answer = self.retry(|| async {
            let answer = self.controller().await?.call(&request).await?;
            ClientError::check("the reassignments", answer.error_code, answer.error_message.as_deref())?;
            Ok(answer)
        });
        let ongoing = answer.await?.topics.into_iter().flat_map(|topic| {
            let name = topic.name;
            topic.partitions.into_iter().map(move |p| {
                let (mut adding, removing) = (p.adding_replicas, p.removing_replicas);
                // What was to be brought by a move that another has replaced goes again.
                adding.retain(|id| !removing.contains(id));
                let reassignment = Reassignment { replicas: p.replicas, adding, removing };
                (TopicPartition::new(&name, p.partition_index), reassignment)
            })
        });
        Ok(ongoing.collect())
    }

    /// The log directories of a broker that is up; those that are offline are left out.
    pub async fn log_dirs(&self, broker: i32) -> Result<Vec<LogDir>> {
        let request = DescribeLogDirsRequest { topics: None };
        let answer = self.retry(|| async { self.broker(broker).await?.call(&request).await }).await?;
        let what = || format!("log directories of broker {broker}");
        ClientError::check(what(), answer.error_code, None)?;
        let dir = |result: klamm_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult| {
            let partitions = result.topics.into_iter().flat_map(|topic| {
                let name = topic.name;
                // A copy on its way to another directory of the same broker is not there yet.
                let present = topic.partitions.into_iter().filter(|p| !p.is_future_key);
                present.map(move |p| {
                    (TopicPartition::new(&name, p.partition_index), u64::try_from(p.partition_size).unwrap_or(0))
                })
            });
            LogDir { path: result.log_dir, cordoned: result.is_cordoned, partitions: partitions.collect() }
        };
        Ok(answer.results.into_iter().filter(|result| result.error_code == 0).map(dir).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_what_is_not_removed_in_order() {
        let moved = Reassignment { replicas: vec![2, 1, 0], adding: vec![2], removing: vec![0] };
        assert_eq!(moved.target(), [2, 1]);
    }
}
