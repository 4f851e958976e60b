//! The client's picture of a cluster: brokers, and the topics it has asked about.
//!
//! Pure data, built from Metadata answers. It is always a little old; whoever acts on it must treat
//! "not leader" and the like as "ask again" (see [`ClientError::is_stale_metadata`]).
//!
//! [`ClientError::is_stale_metadata`]: crate::ClientError::is_stale_metadata

use std::collections::BTreeMap;

use klamm_protocol::Uuid;
use klamm_protocol::error::ErrorCode;
use klamm_protocol::messages::MetadataResponse;
use klamm_protocol::messages::metadata_response::MetadataResponseTopic;

/// A broker as metadata names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// `node.id`.
    pub id: i32,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: i32,
    /// `broker.rack`.
    pub rack: Option<String>,
}

impl Broker {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A partition as metadata names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Index within the topic.
    pub index: i32,
    /// Leader's broker id, -1 when there is none.
    pub leader: i32,
    /// The leader's epoch, -1 when unknown.
    pub leader_epoch: i32,
    /// All replicas, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Replicas in sync.
    pub isr: Vec<i32>,
    /// Replicas that are offline.
    pub offline: Vec<i32>,
    /// What is wrong with the partition.
    pub error: ErrorCode,
}

/// A topic as metadata names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Name.
    pub name: String,
    /// Id, zero from brokers that know none.
    pub id: Uuid,
    /// Whether the topic belongs to the cluster itself.
    pub internal: bool,
    /// Partitions by index, in order.
    pub partitions: Vec<Partition>,
    /// What is wrong with the topic: unknown, unauthorized, …
    pub error: ErrorCode,
}

impl Topic {
    /// The partition with this index.
    pub fn partition(&self, index: i32) -> Option<&Partition> {
        let at = self.partitions.binary_search_by_key(&index, |p| p.index).ok()?;
        self.partitions.get(at)
    }

    fn of(topic: MetadataResponseTopic) -> Self {
        let mut partitions: Vec<Partition> = topic
            .partitions
            .into_iter()
            .map(|p| Partition {
                index: p.partition_index,
                leader: p.leader_id,
                leader_epoch: p.leader_epoch,
                replicas: p.replica_nodes,
                isr: p.isr_nodes,
                offline: p.offline_replicas,
                error: ErrorCode::from_code(p.error_code),
            })
            .collect();
        partitions.sort_by_key(|p| p.index);
        Self {
            name: topic.name.unwrap_or_default(),
            id: topic.topic_id,
            internal: topic.is_internal,
            partitions,
            error: ErrorCode::from_code(topic.error_code),
        }
    }
}

/// What is known of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's id.
    pub id: Option<String>,
    /// A broker that takes controller requests, -1 when none is known.
    pub controller: i32,
    /// Live brokers by id.
    pub brokers: BTreeMap<i32, Broker>,
    /// Topics by name, as far as asked for.
    pub topics: BTreeMap<String, Topic>,
}

impl Cluster {
    /// The partition's entry, if its topic has been asked for.
    pub fn partition(&self, topic: &str, partition: i32) -> Option<&Partition> {
        self.topics.get(topic)?.partition(partition)
    }

    /// Brings in an answer. `all` says that it names every topic, so that others are gone.
    ///
    /// A partition's entry is not replaced by one of an older leader epoch of the same topic:
    /// a broker that lags behind would send us back to the leader that just refused us.
    pub(crate) fn update(&mut self, answer: MetadataResponse, all: bool) {
        self.id = answer.cluster_id;
        self.controller = answer.controller_id;
        self.brokers = answer
            .brokers
            .into_iter()
            .map(|b| (b.node_id, Broker { id: b.node_id, host: b.host, port: b.port, rack: b.rack }))
            .collect();
        let old = if all { std::mem::take(&mut self.topics) } else { self.topics.clone() };
        for topic in answer.topics {
            let mut topic = Topic::of(topic);
            if let Some(before) = old.get(&topic.name).filter(|t| t.id == topic.id) {
                for partition in &mut topic.partitions {
                    if let Some(known) = before.partition(partition.index)
                        && known.leader_epoch > partition.leader_epoch
                        && partition.leader_epoch >= 0
                    {
                        *partition = known.clone();
                    }
                }
            }
            self.topics.insert(topic.name.clone(), topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_protocol::messages::metadata_response::MetadataResponsePartition;

    fn answer(leader: i32, epoch: i32) -> MetadataResponse {
        MetadataResponse {
            topics: vec![MetadataResponseTopic {
                name: Some("t".to_owned()),
                partitions: vec![MetadataResponsePartition {
                    leader_id: leader,
                    leader_epoch: epoch,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn an_older_leader_epoch_does_not_replace_a_newer_one() {
        let mut cluster = Cluster::default();
        cluster.update(answer(1, 5), true);
        cluster.update(answer(2, 4), false);
        assert_eq!(cluster.partition("t", 0).map(|p| p.leader), Some(1));
        cluster.update(answer(3, 6), false);
        assert_eq!(cluster.partition("t", 0).map(|p| p.leader), Some(3));
    }

    #[test]
    fn a_full_answer_forgets_topics_that_are_gone() {
        let mut cluster = Cluster::default();
        cluster.update(answer(1, 5), true);
        cluster.update(MetadataResponse::default(), false);
        assert!(cluster.topics.contains_key("t"));
        cluster.update(MetadataResponse::default(), true);
        assert!(cluster.topics.is_empty());
    }

    #[test]
    fn ipv6_hosts_are_bracketed() {
        let broker = Broker { id: 1, host: "::1".to_owned(), port: 9092, rack: None };
        assert_eq!(broker.address(), "[::1]:9092");
    }
}
