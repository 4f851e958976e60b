//! Offsets: what partitions hold (ListOffsets) and what groups have committed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use klamm_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use klamm_protocol::messages::{ListOffsetsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::Client;
use crate::connection::Connection;
use crate::error::{ClientError, Result};
use crate::group::Membership;
use crate::{Isolation, TopicPartition};

/// Newest version of OffsetFetch and OffsetCommit in which topics go by name; above it by id.
const NAMED_TOPICS_VERSION_MAX: i16 = 9;

/// Which offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The log start.
    Earliest,
    /// The end of what the isolation level lets a reader see.
    Latest,
    /// The record with the highest timestamp.
    MaxTimestamp,
    /// The first record at or after this time, in milliseconds since 1970.
    Timestamp(i64),
}

impl OffsetSpec {
    fn number(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::Timestamp(ms) => ms.max(0),
        }
    }
}

/// The answer to an [`OffsetSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; -1 when no record matches.
    pub offset: i64,
    /// Timestamp of that record, -1 when there is none.
    pub timestamp: i64,
    /// Leader epoch of that record, -1 when unknown.
    pub leader_epoch: i32,
}

/// What a group has committed for a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Offset of the next record to read.
    pub offset: i64,
    /// Leader epoch of the last record read, -1 when unknown.
    pub leader_epoch: i32,
    /// Free text.
    pub metadata: String,
}

/// What was found for each partition that was asked for.
pub type Offsets = BTreeMap<TopicPartition, Result<ListedOffset>>;

impl Client {
    /// Looks up one offset in each partition. A partition that can't answer has its own error, after
    /// retries where those can help; the call fails as a whole only when no broker can be reached.
    pub async fn list_offsets(
        &self,
        partitions: &BTreeSet<TopicPartition>,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<Offsets> {
        self.list_offsets_within(partitions, spec, isolation, self.options().api_timeout).await
    }

    /// As [`list_offsets`](Self::list_offsets), for at most about so long: a leader that has not answered by then
    /// counts as one that can't.
    pub async fn list_offsets_within(
        &self,
        partitions: &BTreeSet<TopicPartition>,
        spec: OffsetSpec,
        isolation: Isolation,
        limit: Duration,
    ) -> Result<Offsets> {
        let deadline = Instant::now() + limit;
        let topics: BTreeSet<&str> = partitions.iter().map(|p| p.topic.as_str()).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let mut found = Offsets::new();
        let mut open = partitions.clone();
        let mut pause = self.backoff();
        self.retry(|| self.refresh(Some(&topics))).await?;
        loop {
            let mut round = Offsets::new();
            let mut asked = JoinSet::new();
            for (leader, of_leader) in self.by_leader(&open, &mut round) {
                let client = self.clone();
                asked.spawn(async move {
                    let answers =
                        timeout_at(deadline, client.list_offsets_at(leader, &of_leader, spec, isolation)).await;
                    let late = || ClientError::Timeout { what: format!("offsets of broker {leader}"), after: limit };
                    let failed = |e: ClientError| of_leader.iter().map(|at| (at.clone(), Err(e.clone()))).collect();
                    answers.unwrap_or_else(|_| Err(late())).unwrap_or_else(failed)
                });
            }
            asked.join_all().await.into_iter().for_each(|answers: Offsets| round.extend(answers));
            let wait = pause.next_pause();
            let last = Instant::now() + wait >= deadline;
            for (partition, result) in round {
                if last || !result.as_ref().is_err_and(worth_another_try) {
                    open.remove(&partition);
                }
                found.insert(partition, result);
            }
            if open.is_empty() {
                return Ok(found);
            }
            sleep(wait).await;
            let _ = self.refresh(Some(&topics)).await;
        }
    }

    /// Groups partitions by their leader; those that have none get their error.
    fn by_leader(
        &self,
        partitions: &BTreeSet<TopicPartition>,
        errors: &mut Offsets,
    ) -> BTreeMap<i32, Vec<TopicPartition>> {
        let cluster = self.cluster();
        let mut leaders: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
        for at in partitions {
            let code = match cluster.partition(&at.topic, at.partition) {
                Some(p) if p.leader >= 0 => {
                    leaders.entry(p.leader).or_default().push(at.clone());
                    continue;
                }
                Some(_) => ErrorCode::LeaderNotAvailable,
                None => cluster.topics.get(&at.topic).map_or(ErrorCode::None, |t| t.error),
            };
            let code = if code.is_none() { ErrorCode::UnknownTopicOrPartition } else { code };
            let error = ClientError::Kafka { what: at.to_string(), code, message: None };
            errors.insert(at.clone(), Err(error));
        }
        leaders
    }

    async fn list_offsets_at(
        &self,
        leader: i32,
        partitions: &[TopicPartition],
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Result<Offsets> {
        let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for at in partitions {
            topics.entry(&at.topic).or_default().push(ListOffsetsPartition {
                partition_index: at.partition,
                timestamp: spec.number(),
                ..Default::default()
            });
        }
        let topics =
            topics.into_iter().map(|(name, partitions)| ListOffsetsTopic { name: name.to_owned(), partitions });
        let request = ListOffsetsRequest {
            replica_id: -1,
            isolation_level: isolation as i8,
            topics: topics.collect(),
            timeout_ms: 10_000,
        };
        let answer = self.to_leader(leader).await?.call(&request).await?;
        let mut offsets = Offsets::new();
        for topic in answer.topics {
            for p in topic.partitions {
                let at = TopicPartition::new(&topic.name, p.partition_index);
                let checked = ClientError::check(at.to_string(), p.error_code, None);
                let listed = checked.map(|()| ListedOffset {
                    offset: p.offset,
                    timestamp: p.timestamp,
                    leader_epoch: p.leader_epoch,
                });
                offsets.insert(at, listed);
            }
        }
        for at in partitions {
            let missing = || Err(ClientError::missing(format!("offsets of {at}")));
            offsets.entry(at.clone()).or_insert_with(missing);
        }
        Ok(offsets)
    }

    /// A connection to the partition's leader.
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<Connection> {
        let known = self.topic(topic).await?;
        let leader = known.partition(partition).map_or(-1, |p| p.leader);
        if leader < 0 {
            let code = ErrorCode::LeaderNotAvailable;
            ClientError::check(format!("{topic}-{partition}"), code.code(), None)?;
        }
        self.broker(leader).await
    }

    /// Everything a group has committed. With `stable`, waits for transactions that hold offsets.
    pub async fn group_offsets(&self, group: &str, stable: bool) -> Result<BTreeMap<TopicPartition, CommittedOffset>> {
        let request = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup { group_id: group.to_owned(), topics: None, ..Default::default() }],
            require_stable: stable,
            ..Default::default()
        };
        self.retry(|| async {
            let coordinator = self.coordinator(group).await?;
            let answer = coordinator.call_capped(&request, NAMED_TOPICS_VERSION_MAX).await?;
            let what = format!("offsets of group {group}");
            let found = answer.groups.into_iter().next();
            let found = found.ok_or_else(|| ClientError::missing(&what))?;
            ClientError::check(what, found.error_code, None)?;
            let mut offsets = BTreeMap::new();
            for topic in found.topics {
                for p in topic.partitions {
                    let at = TopicPartition::new(&topic.name, p.partition_index);
                    ClientError::check(format!("offset of {at}"), p.error_code, None)?;
                    if p.committed_offset >= 0 {
                        let committed = CommittedOffset {
                            offset: p.committed_offset,
                            leader_epoch: p.committed_leader_epoch,
                            metadata: p.metadata.unwrap_or_default(),
                        };
                        offsets.insert(at, committed);
                    }
                }
            }
            Ok(offsets)
        })
        .await
    }

    /// Commits offsets for a group, as one of its members or (`None`) from outside, which the
    /// coordinator allows while the group has no members.
    pub async fn commit_offsets(
        &self,
        group: &str,
        member: Option<&Membership>,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<()> {
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for (at, committed) in offsets {
            topics.entry(&at.topic).or_default().push(OffsetCommitRequestPartition {
                partition_index: at.partition,
                committed_offset: committed.offset,
                committed_leader_epoch: committed.leader_epoch,
                committed_metadata: Some(committed.metadata.clone()),
            });
        }
        let topics = topics.into_iter().map(|(name, partitions)| OffsetCommitRequestTopic {
            name: name.to_owned(),
            partitions,
            ..Default::default()
        });
        let request = OffsetCommitRequest {
            group_id: group.to_owned(),
            generation_id_or_member_epoch: member.map_or(-1, |m| m.generation),
            member_id: member.map(|m| m.member_id.clone()).unwrap_or_default(),
            group_instance_id: member.and_then(|m| m.instance_id.clone()),
            topics: topics.collect(),
            ..Default::default()
        };
        self.retry(|| async {
            let coordinator = self.coordinator(group).await?;
            let answer = coordinator.call_capped(&request, NAMED_TOPICS_VERSION_MAX).await?;
            for topic in answer.topics {
                for p in topic.partitions {
                    let at = TopicPartition::new(&topic.name, p.partition_index);
                    ClientError::check(format!("commit of {at}"), p.error_code, None)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Forgets what a group has committed for these partitions.
    pub async fn delete_offsets(&self, group: &str, partitions: &BTreeSet<TopicPartition>) -> Result<()> {
        let mut topics: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for at in partitions {
            let partition = OffsetDeleteRequestPartition { partition_index: at.partition };
            topics.entry(&at.topic).or_default().push(partition);
        }
        let topics =
            topics.into_iter().map(|(name, partitions)| OffsetDeleteRequestTopic { name: name.to_owned(), partitions });
        let request = OffsetDeleteRequest { group_id: group.to_owned(), topics: topics.collect() };
        self.retry(|| async {
            let answer = self.coordinator(group).await?.call(&request).await?;
            ClientError::check(format!("group {group}"), answer.error_code, None)?;
            for topic in answer.topics {
                for p in topic.partitions {
                    let at = TopicPartition::new(&topic.name, p.partition_index);
                    ClientError::check(format!("offset of {at}"), p.error_code, None)?;
                }
            }
            Ok(())
        })
        .await
    }
}

/// The metadata was fresh, so an unknown topic is really unknown.
fn worth_another_try(error: &ClientError) -> bool {
    error.is_retriable() && error.code() != Some(ErrorCode::UnknownTopicOrPartition)
}
